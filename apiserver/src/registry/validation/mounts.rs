//! Volumes in containers: as directories and as devices. Upstream: `ValidateVolumeMounts` and `ValidateVolumeDevices` of
//! `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use api_objects::Value;

use super::containers::no_backsteps;
use super::findings::{Findings, Spot};
use super::{given, items, text};

/// The mounts of a container; `volumes` are those that may be used, by name.
pub(super) fn mounts(
    container: &Value,
    volumes: &BTreeMap<&str, &Value>,
    at: &Spot<'_>,
    findings: &mut Findings,
) {
    let at = at.field("volumeMounts");
    let mut taken = BTreeSet::new();
    for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
        let spot = at.index(index);
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            findings.required(&spot.field("name"), "");
        }
        if !volumes.contains_key(name) {
            findings.not_found(&spot.field("name"), name);
        }
        if path.is_empty() {
            findings.required(&spot.field("mountPath"), "");
        }
        if !taken.insert(path) {
            findings.invalid(&spot.field("mountPath"), path, "must be unique");
        }
        if in_use(&container["volumeDevices"], "name", name) {
            findings.invalid(&spot.field("name"), name, "must not already exist in volumeDevices");
        }
        if in_use(&container["volumeDevices"], "devicePath", path) {
            let detail = "must not already exist as a path in volumeDevices";
            findings.invalid(&spot.field("mountPath"), path, detail);
        }
        // Upstream names the list, not the element, for these.
        for field in ["subPath", "subPathExpr"] {
            let below = text(&mount[field]);
            if below.starts_with('/') {
                findings.invalid(&at.field(field), below, "must be a relative path");
            }
            no_backsteps(below, &at.field(field), findings);
        }
        if !text(&mount["subPath"]).is_empty() && !text(&mount["subPathExpr"]).is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            findings.invalid(&spot.field("subPathExpr"), mount["subPathExpr"].clone(), detail);
        }
        match text(&mount["mountPropagation"]) {
            "" | "None" | "HostToContainer" => {}
            "Bidirectional" if container["securityContext"]["privileged"] == true => {}
            "Bidirectional" => {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                findings.forbidden(&at.field("mountPropagation"), detail);
            }
            other => {
                let known = ["Bidirectional", "HostToContainer", "None"];
                findings.not_supported(&at.field("mountPropagation"), other, &known);
            }
        }
        recursive(mount, &at.field("recursiveReadOnly"), findings);
    }
}

/// `recursiveReadOnly` is for mounts that are read-only and private.
fn recursive(mount: &Value, at: &Spot<'_>, findings: &mut Findings) {
    match text(&mount["recursiveReadOnly"]) {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount["readOnly"] != true {
                findings.forbidden(at, "may only be specified when readOnly is true");
            }
            if !matches!(text(&mount["mountPropagation"]), "" | "None") {
                findings
                    .forbidden(at, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => findings.not_supported(at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// The devices of a container.
pub(super) fn devices(
    container: &Value,
    volumes: &BTreeMap<&str, &Value>,
    at: &Spot<'_>,
    findings: &mut Findings,
) {
    let at = at.field("volumeDevices");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in items(&container["volumeDevices"]).iter().enumerate() {
        let spot = at.index(index);
        let (name, path) = (text(&device["name"]), text(&device["devicePath"]));
        let (name_at, path_at) = (spot.field("name"), spot.field("devicePath"));
        if name.is_empty() {
            findings.required(&name_at, "");
        }
        if names.contains(name) {
            findings.invalid(&name_at, name, "must be unique");
        }
        match volumes.get(name) {
            Some(volume) if given(&volume["persistentVolumeClaim"]) || given(&volume["ephemeral"]) => {}
            Some(_) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                findings.invalid(&name_at, name, detail);
            }
            None => findings.not_found(&name_at, name),
        }
        if path.is_empty() {
            findings.required(&path_at, "");
        }
        if paths.contains(path) {
            findings.invalid(&path_at, path, "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            findings.invalid(&path_at, path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path);
        }
        if in_use(&container["volumeMounts"], "name", name) {
            findings.invalid(&name_at, name, "must not already exist in volumeMounts");
        }
        if in_use(&container["volumeMounts"], "mountPath", path) {
            findings.invalid(&path_at, path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

fn in_use(list: &Value, field: &str, value: &str) -> bool {
    !value.is_empty() && items(list).iter().any(|entry| entry[field] == value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(container: &Value) -> Vec<String> {
        let (claim, scratch) =
            (json!({"persistentVolumeClaim": {"claimName": "c"}}), json!({"emptyDir": {}}));
        let volumes = BTreeMap::from([("claim", &claim), ("scratch", &scratch)]);
        let mut findings = Findings::default();
        let at = Spot::root("c");
        mounts(container, &volumes, &at, &mut findings);
        devices(container, &volumes, &at, &mut findings);
        findings.into_errors().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn devices_are_claims_and_stand_nowhere_else() {
        let device = |name: &str, path: &str| json!({"name": name, "devicePath": path});
        for (devices, expected) in [
            (json!([device("claim", "/dev/x")]), vec![]),
            (
                json!([device("scratch", "/dev/x")]),
                vec![
                    "c.volumeDevices[0].name: Invalid value: \"scratch\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ],
            ),
            (json!([device("none", "/dev/x")]), vec!["c.volumeDevices[0].name: Not found: \"none\""]),
            (json!([device("claim", "")]), vec!["c.volumeDevices[0].devicePath: Required value"]),
            (
                json!([device("claim", "/dev/../x")]),
                vec![
                    "c.volumeDevices[0].devicePath: Invalid value: \"/dev/../x\": can not contain backsteps ('..')",
                ],
            ),
            (
                json!([device("claim", "/dev/x"), device("claim", "/dev/x")]),
                vec![
                    "c.volumeDevices[1].name: Invalid value: \"claim\": must be unique",
                    "c.volumeDevices[1].devicePath: Invalid value: \"/dev/x\": must be unique",
                ],
            ),
        ] {
            assert_eq!(found(&json!({"volumeDevices": devices})), expected);
        }
        let both = json!({"volumeDevices": [device("claim", "/x")], "volumeMounts": [{"name": "claim", "mountPath": "/x"}]});
        assert_eq!(
            found(&both),
            [
                "c.volumeMounts[0].name: Invalid value: \"claim\": must not already exist in volumeDevices",
                "c.volumeMounts[0].mountPath: Invalid value: \"/x\": must not already exist as a path in volumeDevices",
                "c.volumeDevices[0].name: Invalid value: \"claim\": must not already exist in volumeMounts",
                "c.volumeDevices[0].devicePath: Invalid value: \"/x\": must not already exist as a path in volumeMounts",
            ]
        );
    }

    #[test]
    fn recursive_read_only_wants_read_only() {
        let mount = |more: Value| {
            let mut mount = json!({"name": "scratch", "mountPath": "/x", "recursiveReadOnly": "Enabled"});
            for (field, value) in more.as_object().unwrap() {
                mount[field] = value.clone();
            }
            found(&json!({"volumeMounts": [mount]}))
        };
        assert_eq!(mount(json!({"readOnly": true})), [""; 0]);
        assert_eq!(
            mount(json!({})),
            ["c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"]
        );
        assert_eq!(
            mount(json!({"readOnly": true, "mountPropagation": "HostToContainer"})),
            [
                "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified"
            ]
        );
        assert!(
            mount(json!({"recursiveReadOnly": "X"}))[0]
                .starts_with("c.volumeMounts.recursiveReadOnly: Unsupported value: \"X\"")
        );
    }
}
