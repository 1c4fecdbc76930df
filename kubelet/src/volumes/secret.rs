//! `secret` volumes: keys of a Secret as files, on tmpfs.

use k8s_openapi::api::core::v1::SecretVolumeSource;

use super::{atomic_writer::Payload, config_map::project};
use crate::pod::environment::{DataKind, DataObjects};

/// The files of a `secret` volume.
pub(super) fn payload(source: &SecretVolumeSource, objects: &DataObjects) -> Result<Payload, String> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    let optional = source.optional == Some(true);
    project(DataKind::Secret, name, source.items.as_deref(), source.default_mode, optional, objects)
}
