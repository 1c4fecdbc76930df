//! The first rules of kinds that nothing here acts on yet: what would otherwise be stored and make no sense.

use api_objects::{Resource, Value, names, schema};

use super::findings::{Findings, Spot};
use super::{given, integer, items, metadata, resources, scheduling, text};

const SPEC: Spot<'static> = Spot::root("spec");

/// Checks what a kind's definition requires, and a little of what its validation does.
pub(super) fn check(resource: &Resource, new: &Value, old: Option<&Value>, findings: &mut Findings) {
    if let Some(definition) = schema::definition(&resource.definition) {
        required_texts(definition, new, findings);
    }
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("policy", "PodDisruptionBudget") => disruption_budget(new, findings),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(new, findings),
        ("storage.k8s.io", "StorageClass") => storage_class(new, old, findings),
        ("node.k8s.io", "RuntimeClass") => runtime_class(new, old, findings),
        ("discovery.k8s.io", "EndpointSlice") => unchanged(new, old, "addressType", findings),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition(new, findings),
        _ => {}
    }
}

/// Required texts of the object itself and of its spec must not be empty.
fn required_texts(definition: &schema::Schema, new: &Value, findings: &mut Findings) {
    for field in definition.fields() {
        let value = &new[&*field.name];
        if field.required && matches!(field.schema.kind(), schema::Kind::String) && text(value).is_empty() {
            findings.required(&Spot::root(&field.name), "");
        }
    }
    let Some(spec) = definition.field("spec") else {
        return;
    };
    for field in spec.fields() {
        let value = &new["spec"][&*field.name];
        if field.required && matches!(field.schema.kind(), schema::Kind::String) && text(value).is_empty() {
            findings.required(&SPEC.field(&field.name), "");
        }
    }
}

fn unchanged(new: &Value, old: Option<&Value>, field: &str, findings: &mut Findings) {
    if let Some(old) = old {
        findings.immutable(&Spot::root(field), &new[field], &old[field]);
    }
}

/// What `pkg/apis/node/validation` says.
fn runtime_class(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    unchanged(new, old, "handler", findings);
    if old.is_some() {
        return;
    }
    let handler = text(&new["handler"]);
    if !handler.is_empty() {
        findings.invalid_each(&Spot::root("handler"), handler, names::dns1123_label(handler));
    }
    let at = Spot::root("overhead");
    resources::overhead(&new["overhead"]["podFixed"], &at, findings);
    let at = Spot::root("scheduling");
    metadata::labels(&new["scheduling"]["nodeSelector"], &at.field("nodeSelector"), findings);
    scheduling::tolerations(&new["scheduling"]["tolerations"], &at.field("tolerations"), findings);
}

fn disruption_budget(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    if given(&spec["minAvailable"]) && given(&spec["maxUnavailable"]) {
        findings.invalid(&SPEC, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        findings.not_negative(&SPEC.field(field), &spec[field]);
    }
}

fn autoscaler(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    let (least, most) = (integer(&spec["minReplicas"]), integer(&spec["maxReplicas"]));
    if most < 1 {
        findings.invalid(&SPEC.field("maxReplicas"), most, "must be greater than 0");
    }
    if most < least {
        let detail = "must be greater than or equal to `minReplicas`";
        findings.invalid(&SPEC.field("maxReplicas"), most, detail);
    }
    let at = SPEC.field("scaleTargetRef");
    for field in ["kind", "name"] {
        if text(&spec["scaleTargetRef"][field]).is_empty() {
            findings.required(&at.field(field), "");
        }
    }
}

fn storage_class(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let Some(old) = old else {
        return;
    };
    for field in ["parameters", "provisioner"] {
        if new[field] != old[field] {
            findings.forbidden(&Spot::root(field), &format!("updates to {field} are forbidden."));
        }
    }
    if new["reclaimPolicy"] != old["reclaimPolicy"] {
        findings.forbidden(&Spot::root("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
    }
    unchanged(new, Some(old), "volumeBindingMode", findings);
}

fn custom_resource_definition(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    let name = text(&new["metadata"]["name"]);
    if name != wanted {
        let metadata = Spot::root("metadata");
        findings.invalid(&metadata.field("name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    findings.one_of(&SPEC.field("scope"), &spec["scope"], &["Cluster", "Namespaced"]);
    let stored = items(&spec["versions"]).iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        findings.invalid(&SPEC.field("versions"), spec["versions"].clone(), detail);
    }
}
