//! `downwardAPI` volumes: a pod's own fields as files.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, DownwardAPIVolumeSource, Pod};

use super::{
    atomic_writer::{File, Payload},
    config_map::mode,
};
use crate::pod::{
    downward::{self, Surroundings},
    environment::resource_field,
    spec,
};

/// The files of a `downwardAPI` volume.
pub(super) fn payload(
    pod: &Pod,
    source: &DownwardAPIVolumeSource,
    around: &Surroundings,
) -> Result<Payload, String> {
    project(pod, source.items.as_deref().unwrap_or_default(), source.default_mode, around)
}

/// The files of a list of items.
pub(super) fn project(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    around: &Surroundings,
) -> Result<Payload, String> {
    let default_mode = mode(default_mode, 0o644);
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            downward::field(pod, &reference.field_path, around)?
        } else if let Some(reference) = &item.resource_field_ref {
            let container = spec(pod).containers.first().ok_or("the pod has no containers")?;
            resource_field(pod, container, reference, around.allocatable)?
        } else {
            continue;
        };
        payload
            .insert(item.path.clone(), File { data: text.into_bytes(), mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_become_files() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
        }))
        .unwrap();
        let source = serde_json::from_value(json!({"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 256},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}))
        .unwrap();
        let files = payload(&pod, &source, &Surroundings::default()).unwrap();
        assert_eq!(files["name"].data, b"p");
        assert_eq!(files["labels"], File { data: b"a=\"b\"".to_vec(), mode: 0o400 });
        assert_eq!(files["cpu"].data, b"2");
    }
}
