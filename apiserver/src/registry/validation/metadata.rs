//! Metadata, the same for every kind but for the form of its name.

use api_objects::{Resource, Value, names};

use super::findings::{Findings, Spot};
use super::{entries, items, text};

const METADATA: Spot<'static> = Spot::root("metadata");

/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// What a kind's names must look like.
pub(super) fn name_rule(resource: &Resource) -> fn(&str) -> Vec<String> {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Namespace") => names::dns1123_label,
        ("", "Service") => names::dns1035_label,
        ("rbac.authorization.k8s.io", _)
        | ("apiregistration.k8s.io", _)
        | ("networking.k8s.io", "IPAddress") => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

/// The metadata of a new object.
pub(super) fn check_new(resource: &Resource, metadata: &Value, findings: &mut Findings) {
    let rule = name_rule(resource);
    let (name, prefix) = (text(&metadata["name"]), text(&metadata["generateName"]));
    if !prefix.is_empty() {
        findings.invalid_each(&METADATA.field("generateName"), prefix, rule(&complete(prefix)));
    }
    if name.is_empty() {
        findings.required(&METADATA.field("name"), "name or generateName is required");
    } else {
        findings.invalid_each(&METADATA.field("name"), name, rule(name));
    }
    let (namespace, at) = (text(&metadata["namespace"]), METADATA.field("namespace"));
    if !resource.namespaced {
        if !namespace.is_empty() {
            findings.forbidden(&at, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        findings.required(&at, "");
    } else {
        findings.invalid_each(&at, namespace, names::dns1123_label(namespace));
    }
    check_finalizers(&metadata["finalizers"], findings);
    check_common(metadata, findings);
}

/// A prefix that ends in a dash is judged as the name that it becomes.
fn complete(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// The metadata of a changed object.
pub(super) fn check_changed(new: &Value, old: &Value, findings: &mut Findings) {
    let being_deleted = old["deletionTimestamp"].is_string();
    if being_deleted {
        let known = items(&old["finalizers"]);
        let mut added: Vec<String> = items(&new["finalizers"])
            .iter()
            .filter(|finalizer| !known.contains(finalizer))
            .map(|finalizer| format!("{:?}", text(finalizer)))
            .collect();
        if !added.is_empty() {
            added.sort_unstable();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            findings.forbidden(&METADATA.field("finalizers"), &detail);
        }
    }
    if new["generation"].as_i64() < old["generation"].as_i64() {
        findings.invalid(&METADATA.field("generation"), new["generation"].clone(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        findings.immutable(&METADATA.field(field), &new[field], &old[field]);
    }
    // The server itself begins and hastens deletions; a client can do neither.
    if being_deleted {
        findings.immutable(
            &METADATA.field("deletionTimestamp"),
            &new["deletionTimestamp"],
            &old["deletionTimestamp"],
        );
    }
    if new["finalizers"] != old["finalizers"] {
        check_finalizers(&new["finalizers"], findings);
    }
    check_common(new, findings);
}

fn check_common(metadata: &Value, findings: &mut Findings) {
    labels(&metadata["labels"], &METADATA.field("labels"), findings);
    check_annotations(&metadata["annotations"], findings);
    check_owners(&metadata["ownerReferences"], findings);
}

/// Labels, or a selector by labels.
pub(super) fn labels(labels: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for (key, value) in entries(labels) {
        findings.invalid_each(at, key, names::qualified_name(key));
        findings.invalid_each(at, text(value), names::label_value(text(value)));
    }
}

fn check_annotations(annotations: &Value, findings: &mut Findings) {
    let at = METADATA.field("annotations");
    let mut size = 0;
    for (key, value) in entries(annotations) {
        size += key.len() + text(value).len();
        findings.invalid_each(&at, key, names::qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_MAX {
        findings.too_long(&at, ANNOTATIONS_MAX);
    }
}

fn check_finalizers(finalizers: &Value, findings: &mut Findings) {
    let at = METADATA.field("finalizers");
    let finalizers_given = items(finalizers);
    for finalizer in finalizers_given {
        finalizer_name(text(finalizer), &at, findings);
    }
    let has = |name: &str| finalizers_given.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        findings.invalid(&at, finalizers.clone(), detail);
    }
}

/// A finalizer is a qualified name; without a domain it must be one of Kubernetes' own.
pub(super) fn finalizer_name(finalizer: &str, at: &Spot<'_>, findings: &mut Findings) {
    findings.invalid_each(at, finalizer, names::qualified_name(finalizer));
    if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
        findings.invalid(
            at,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

fn check_owners(owners: &Value, findings: &mut Findings) {
    let at = METADATA.field("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in items(owners) {
        let kind = text(&owner["kind"]);
        let api_version = text(&owner["apiVersion"]);
        if api_version.is_empty() || api_version.ends_with('/') {
            findings.invalid(&at.field("apiVersion"), api_version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(&owner[field]).is_empty() {
                findings.invalid(&at.field(field), "", "must not be empty");
            }
        }
        if kind == "Event" && api_version == "v1" {
            findings.invalid(&at, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let name = format!("{kind}/{}", text(&owner["name"]));
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. \
                         Found \"true\" in references for {first} and {name}"
                    );
                    findings.invalid(&at, owners.clone(), &detail);
                }
            }
        }
    }
}

/// A label selector object.
pub(super) fn label_selector(selector: &Value, at: &Spot<'_>, findings: &mut Findings) {
    labels(&selector["matchLabels"], &at.field("matchLabels"), findings);
    let at = at.field("matchExpressions");
    for (index, requirement) in items(&selector["matchExpressions"]).iter().enumerate() {
        let at = at.index(index);
        let values = items(&requirement["values"]);
        match text(&requirement["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                findings
                    .required(&at.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                findings.forbidden(&at.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => findings.invalid(&at.field("operator"), operator, "not a valid selector operator"),
        }
        let key = text(&requirement["key"]);
        findings.invalid_each(&at.field("key"), key, names::qualified_name(key));
        let at = at.field("values");
        for (index, value) in values.iter().enumerate() {
            findings.invalid_each(&at.index(index), text(value), names::label_value(text(value)));
        }
    }
}
