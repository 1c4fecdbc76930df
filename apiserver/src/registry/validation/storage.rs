//! Claims and volumes. Upstream: `ValidatePersistentVolumeClaim*` and `ValidatePersistentVolume*` of
//! `pkg/apis/core/validation`.

use api_objects::{Value, names, quantity::Quantity};

use super::containers::no_backsteps;
use super::findings::{Findings, Spot};
use super::{entries, given, items, text};

const SPEC: Spot<'static> = Spot::root("spec");
const ALONE: &str = "ReadWriteOncePod";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", ALONE];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// Fields of a volume's spec that are no source.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(spec: &Value, empty: &str, findings: &mut Findings) {
    let at = SPEC.field("accessModes");
    let modes = items(&spec["accessModes"]);
    if modes.is_empty() {
        findings.required(&at, empty);
    }
    for mode in modes.iter().map(text).filter(|mode| !ACCESS_MODES.contains(mode)) {
        findings.not_supported(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == ALONE) && modes.iter().any(|mode| mode != ALONE) {
        findings.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(amount: &Value, at: &Spot<'_>, findings: &mut Findings) {
    if Quantity::from_value(amount).is_ok_and(|quantity| quantity.signum() <= 0) {
        findings.invalid(at, amount.clone(), "must be greater than zero");
    }
}

fn class_and_mode(spec: &Value, findings: &mut Findings) {
    let class = text(&spec["storageClassName"]);
    if !class.is_empty() {
        findings.invalid_each(&SPEC.field("storageClassName"), class, names::dns1123_subdomain(class));
    }
    let mode = &spec["volumeMode"];
    if given(mode) && !VOLUME_MODES.contains(&text(mode)) {
        findings.not_supported(&SPEC.field("volumeMode"), text(mode), &VOLUME_MODES);
    }
}

pub(super) fn claim(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let spec = &new["spec"];
    access_modes(spec, "at least 1 access mode is required", findings);
    let resources = SPEC.field("resources");
    let storage = &spec["resources"]["requests"]["storage"];
    if given(storage) {
        positive(storage, &resources.key("storage"), findings);
    } else {
        findings.required(&resources.key("storage"), "");
    }
    class_and_mode(spec, findings);
    if let Some(old) = old {
        claim_update(new, old, findings);
    }
}

/// Once a claim is there, its volume is filled in, a missing class is filled in, and a bound one may ask for more.
fn claim_update(new: &Value, old: &Value, findings: &mut Findings) {
    let (mut new_spec, mut old_spec) = (new["spec"].clone(), old["spec"].clone());
    if text(&old_spec["volumeName"]).is_empty() {
        old_spec["volumeName"] = new_spec["volumeName"].clone();
    }
    if !given(&old_spec["storageClassName"]) {
        old_spec["storageClassName"] = new_spec["storageClassName"].clone();
    }
    let bound = new["status"]["phase"] == "Bound";
    if bound {
        let requests = &new_spec["resources"]["requests"]["storage"];
        let (asked, before) = (
            Quantity::from_value(requests),
            Quantity::from_value(&old_spec["resources"]["requests"]["storage"]),
        );
        let has = Quantity::from_value(&new["status"]["capacity"]["storage"]);
        let shrinks = matches!((&asked, &before), (Ok(asked), Ok(before)) if asked.value() < before.value());
        if shrinks && matches!((&asked, &has), (Ok(asked), Ok(has)) if asked.value() <= has.value()) {
            let (resources, detail) = (SPEC.field("resources"), "field can not be less than status.capacity");
            let requests = resources.field("requests");
            findings.forbidden(&requests.field("storage"), detail);
        }
        new_spec["resources"]["requests"]["storage"] = old_spec["resources"]["requests"]["storage"].clone();
        new_spec["volumeAttributesClassName"] = old_spec["volumeAttributesClassName"].clone();
    }
    for spec in [&mut new_spec, &mut old_spec] {
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
    }
    if new_spec != old_spec {
        findings.forbidden(
            &SPEC,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
}

pub(super) fn volume(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let spec = &new["spec"];
    access_modes(spec, "", findings);
    let at = SPEC.field("capacity");
    let capacity = &spec["capacity"]["storage"];
    match (entries(&spec["capacity"]).count(), given(capacity)) {
        (0, _) => findings.required(&at, ""),
        (1, true) => positive(capacity, &at.key("storage"), findings),
        _ => findings.not_supported(&at, &spec["capacity"].to_string(), &["storage"]),
    }
    let policy = text(&spec["persistentVolumeReclaimPolicy"]);
    if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
        findings.not_supported(&SPEC.field("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES);
    }
    sources(spec, findings);
    class_and_mode(spec, findings);
    if let Some(old) = old {
        volume_update(spec, &old["spec"], findings);
    }
}

fn sources(spec: &Value, findings: &mut Findings) {
    let mut first = true;
    for (kind, source) in entries(spec).filter(|(name, source)| !NO_SOURCE.contains(name) && given(source)) {
        let at = SPEC.field(kind);
        if !std::mem::take(&mut first) {
            findings.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        if matches!(kind, "hostPath" | "local") {
            let path = text(&source["path"]);
            if path.is_empty() {
                findings.required(&at.field("path"), "");
            }
            no_backsteps(path, &at.field("path"), findings);
        }
        if kind == "local" && !given(&spec["nodeAffinity"]["required"]) {
            findings.required(&SPEC.field("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if first {
        findings.required(&SPEC, "must specify a volume type");
    }
}

fn volume_update(new: &Value, old: &Value, findings: &mut Findings) {
    let source = |spec: &Value| -> Vec<(String, Value)> {
        let sources = entries(spec).filter(|(name, source)| !NO_SOURCE.contains(name) && given(source));
        sources.map(|(name, source)| (name.to_owned(), source.clone())).collect()
    };
    if source(new) != source(old) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        findings.forbidden(&SPEC.field("persistentvolumesource"), detail);
    }
    findings.immutable(&SPEC.field("volumeMode"), &new["volumeMode"], &old["volumeMode"]);
    if given(&old["nodeAffinity"]) && new["nodeAffinity"] != old["nodeAffinity"] {
        let detail = "field is immutable, except for updating from beta label to GA";
        findings.invalid(&SPEC.field("nodeAffinity"), new["nodeAffinity"].clone(), detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(
        check: fn(&Value, Option<&Value>, &mut Findings),
        new: &Value,
        old: Option<&Value>,
    ) -> Vec<String> {
        let mut findings = Findings::default();
        check(new, old, &mut findings);
        findings.into_errors().iter().map(ToString::to_string).collect()
    }

    fn with(object: &Value, path: &str, value: Value) -> Value {
        let mut object = object.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        object
    }

    #[test]
    fn claims() {
        let good = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}});
        assert_eq!(found(claim, &good, None), Vec::<String>::new());
        for (path, value, start) in [
            (
                "/spec/accessModes",
                json!([]),
                "spec.accessModes: Required value: at least 1 access mode is required",
            ),
            ("/spec/accessModes", json!(["X"]), "spec.accessModes: Unsupported value: \"X\""),
            (
                "/spec/accessModes",
                json!(["ReadWriteOnce", ALONE]),
                "spec.accessModes: Forbidden: may not use",
            ),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            ("/spec/resources/requests/storage", Value::Null, "spec.resources[storage]: Required value"),
            ("/spec/volumeMode", json!("X"), "spec.volumeMode: Unsupported value: \"X\""),
        ] {
            let errors = found(claim, &with(&good, path, value), None);
            assert!(errors.len() == 1 && errors[0].starts_with(start), "{errors:?} is not {start}");
        }
        assert_eq!(
            found(claim, &with(&good, "/spec/volumeName", json!("v")), Some(&good)),
            Vec::<String>::new()
        );
        let larger = with(&good, "/spec/resources/requests/storage", json!("2Gi"));
        assert!(found(claim, &larger, Some(&good))[0].starts_with("spec: Forbidden: spec is immutable"));
        let bound = with(&good, "/status/phase", json!("Bound"));
        let larger = with(&bound, "/spec/resources/requests/storage", json!("2Gi"));
        assert_eq!(found(claim, &larger, Some(&bound)), Vec::<String>::new());
    }

    #[test]
    fn volumes() {
        let good = json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/v"}, "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}});
        assert_eq!(found(volume, &good, None), Vec::<String>::new());
        for (path, value, start) in [
            ("/spec/capacity", Value::Null, "spec.capacity: Required value"),
            ("/spec/hostPath", Value::Null, "spec: Required value: must specify a volume type"),
            (
                "/spec/nfs",
                json!({"path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("X"),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"X\"",
            ),
        ] {
            let errors = found(volume, &with(&good, path, value), None);
            assert!(errors.len() == 1 && errors[0].starts_with(start), "{errors:?} is not {start}");
        }
        let local = with(&with(&good, "/spec/hostPath", Value::Null), "/spec/local", json!({"path": "/v"}));
        assert_eq!(
            found(volume, &local, None),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"]
        );
        let moved = with(&good, "/spec/hostPath", json!({"path": "/w"}));
        assert!(found(volume, &moved, Some(&good))[0].starts_with("spec.persistentvolumesource: Forbidden"));
    }
}
