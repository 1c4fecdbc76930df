//! How the volumes of a container are mounted, as far as its spec says: read-only all the way down, and what its status
//! tells of it. Upstream: `resolveRecursiveReadOnly` and `convertToAPIContainerStatuses` of `pkg/kubelet/kubelet_pods.go`.

use k8s_openapi::api::core::v1::{Container, VolumeMount, VolumeMountStatus};

/// Whether a mount is read-only with everything below it; the error keeps the container from starting.
pub fn is_recursive(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let refused =
        |why: String| Err(format!("volume \"{}\" requested recursive read-only mode, but {why}", mount.name));
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("" | "Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    if mount.read_only != Some(true) {
        return refused("it is not read-only".to_owned());
    }
    if let Some(propagation) = mount.mount_propagation.as_deref().filter(|mode| !matches!(*mode, "" | "None"))
    {
        return refused(format!("it is not compatible with propagation \"{propagation}\""));
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => refused("it is not supported by the runtime".to_owned()),
        other => Err(format!("unknown recursive read-only mode \"{other}\"")),
    }
}

/// What a container's status says of its mounts, whatever the container does.
#[must_use]
pub fn statuses(container: &Container, supported: bool) -> Option<Vec<VolumeMountStatus>> {
    let status = |mount: &VolumeMount| {
        let read_only = mount.read_only == Some(true);
        let mode = if is_recursive(mount, supported) == Ok(true) { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| mode.to_owned()),
            // The digest of an image volume is behind a gate that is off in v1.36 (`ImageVolumeWithDigest`).
            volume_status: None,
        }
    };
    let mounts: Vec<_> = container.volume_mounts.iter().flatten().map(status).collect();
    Some(mounts).filter(|mounts| !mounts.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mount(more: &Value) -> VolumeMount {
        let mut mount = json!({"name": "v", "mountPath": "/v", "readOnly": true});
        for (key, value) in more.as_object().unwrap() {
            mount[key] = value.clone();
        }
        serde_json::from_value(mount).unwrap()
    }

    #[test]
    fn recursion_is_for_read_only_private_mounts() {
        let ask = |more: Value, supported| is_recursive(&mount(&more), supported);
        assert_eq!(ask(json!({}), true), Ok(false));
        assert_eq!(ask(json!({"recursiveReadOnly": "Enabled"}), true), Ok(true));
        assert_eq!(ask(json!({"recursiveReadOnly": "IfPossible"}), true), Ok(true));
        assert_eq!(ask(json!({"recursiveReadOnly": "IfPossible"}), false), Ok(false));
        for (more, why) in [
            (json!({}), "it is not supported by the runtime"),
            (json!({"readOnly": false}), "it is not read-only"),
            (
                json!({"mountPropagation": "HostToContainer"}),
                "it is not compatible with propagation \"HostToContainer\"",
            ),
        ] {
            let mut more = more;
            more["recursiveReadOnly"] = json!("Enabled");
            let refused = format!("volume \"v\" requested recursive read-only mode, but {why}");
            assert_eq!(ask(more, false), Err(refused));
        }
    }

    #[test]
    fn the_status_tells_how_it_is_mounted() {
        let container = |mounts: Value| {
            serde_json::from_value::<Container>(json!({"name": "c", "volumeMounts": mounts})).unwrap()
        };
        assert_eq!(statuses(&container(json!([])), true), None);
        let mounts = json!([
            {"name": "a", "mountPath": "/a"},
            {"name": "b", "mountPath": "/b", "readOnly": true},
            {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        ]);
        assert_eq!(
            serde_json::to_value(statuses(&container(mounts), true)).unwrap(),
            json!([
                {"name": "a", "mountPath": "/a"},
                {"name": "b", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled"},
                {"name": "c", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "Enabled"},
            ])
        );
    }
}
