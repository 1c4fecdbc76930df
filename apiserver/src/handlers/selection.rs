//! Which objects a list, a watch or a deletion of a collection is about.

use api_objects::{
    Resource, Status,
    params::ListParams,
    selector::{FieldSelector, LabelSelector},
};
use apiserver_storage::cacher::Item;

use crate::projector::{self, ObjectIndex, field_value};

/// A compiled selection, evaluated on what the cache keeps beside the bytes.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The prefix of the collection that the request names; continue positions are relative to it.
    pub(super) collection: String,
    /// The store's prefix that holds everything that can match.
    pub(super) prefix: String,
    /// Whether the prefix is one object's whole key.
    pub(super) exact: bool,
}

impl Selection {
    /// The selection of a request.
    pub(super) fn new(resource: &Resource, namespace: &str, params: &ListParams) -> Result<Self, Status> {
        let mut fields = params.field_selector.clone();
        for term in &mut fields.terms {
            let Some(stored) = projector::stored_label(resource, &term.field) else {
                return Err(Status::bad_request(format!("field label not supported: {}", term.field)));
            };
            term.field = stored.into_owned();
        }
        let collection = resource.key_prefix(namespace);
        // A namespace or a name that must match narrows what is read, and who wakes a watch.
        let namespace = match fields.required("metadata.namespace") {
            Some(required) if namespace.is_empty() && resource.namespaced => required,
            _ => namespace,
        };
        let mut prefix = resource.key_prefix(namespace);
        let names_one = !resource.namespaced || !namespace.is_empty();
        let name = fields.required("metadata.name").filter(|_| names_one);
        prefix.push_str(name.unwrap_or_default());
        let exact = name.is_some();
        Ok(Self { labels: params.label_selector.clone(), fields, collection, prefix, exact })
    }

    /// Whether everything under the prefix matches.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object matches.
    pub(super) fn matches(&self, item: &Item<ObjectIndex>) -> bool {
        self.labels.matches_with(|key| item.index.label(key))
            && self.fields.matches(|field| field_value(item, field))
    }
}
