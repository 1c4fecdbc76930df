//! Rules of single kinds, one file each: only what a kind does differently from all others.

use std::{collections::HashMap, sync::LazyLock};

use api_objects::{
    Resource, Value, resource,
    schema::{self, FieldValidation},
};
use serde_json::json;

pub mod certificate_request;
pub mod job;
pub mod namespace;
pub mod persistent_volume;
pub mod pod;
pub mod secret;
pub mod service;

/// What an encoder writes for a status that nobody has set: `{}`, or zeros where the kind always has them.
static EMPTY: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    let rows = resource::builtin().iter().filter_map(|resource| {
        let mut object = json!({ "status": {} });
        schema::check(schema::for_resource(resource), &mut object, FieldValidation::Ignore).ok()?;
        Some((resource.definition.to_string(), object.get("status")?.clone()))
    });
    rows.collect()
});

/// The status of a new object of a kind that has one.
#[must_use]
pub fn empty_status(resource: &Resource) -> Option<&'static Value> {
    EMPTY.get(&*resource.definition)
}
