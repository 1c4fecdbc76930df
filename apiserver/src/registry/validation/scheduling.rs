//! Where a pod may run: tolerations, affinity, spreading.

use api_objects::{Value, names};

use super::findings::{Findings, Spot};
use super::{entries, given, integer, items, metadata, text};

const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn tolerations(tolerations: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for (index, toleration) in items(tolerations).iter().enumerate() {
        let at = at.index(index);
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(&toleration[field]));
        if !key.is_empty() {
            findings.invalid_each(&at.field("key"), key, names::qualified_name(key));
        }
        let at_operator = at.field("operator");
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            findings.invalid(&at_operator, operator, detail);
        }
        if given(&toleration["tolerationSeconds"]) && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            findings.invalid(&at.field("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    findings.invalid(&at_operator, value, &problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                findings.invalid(&at_operator, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => findings.not_supported(&at_operator, operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect) {
            findings.not_supported(&at.field("effect"), effect, &TAINT_EFFECTS);
        }
    }
}

/// On update tolerations may be added, and how long an old one lasts may change.
pub(super) fn only_added_tolerations(new: &Value, old: &Value, at: &Spot<'_>, findings: &mut Findings) {
    const SAME: [&str; 4] = ["key", "operator", "value", "effect"];
    let now = items(&new["tolerations"]);
    let kept = items(&old["tolerations"]).iter().all(|before| {
        now.iter()
            .any(|toleration| SAME.iter().all(|field| text(&toleration[*field]) == text(&before[*field])))
    });
    if !kept {
        findings.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
    }
}

pub(super) fn affinity(affinity: &Value, at: &Spot<'_>, findings: &mut Findings) {
    node_affinity(&affinity["nodeAffinity"], &at.field("nodeAffinity"), findings);
    for name in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&affinity[name], &at.field(name), findings);
    }
}

fn node_affinity(affinity: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    if given(required) {
        let at = at.field("requiredDuringSchedulingIgnoredDuringExecution");
        let at = at.field("nodeSelectorTerms");
        let terms = items(&required["nodeSelectorTerms"]);
        if terms.is_empty() {
            findings.required(&at, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_selector_term(term, &at.index(index), findings);
        }
    }
    let at = at.field("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, preferred) in
        items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        let at = at.index(index);
        weight(preferred, &at, findings);
        node_selector_term(&preferred["preference"], &at.field("preference"), findings);
    }
}

fn weight(preferred: &Value, at: &Spot<'_>, findings: &mut Findings) {
    if !(1..=100).contains(&integer(&preferred["weight"])) {
        findings.invalid(&at.field("weight"), preferred["weight"].clone(), "must be in the range 1-100");
    }
}

fn node_selector_term(term: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let labels = at.field("matchExpressions");
    for (index, requirement) in items(&term["matchExpressions"]).iter().enumerate() {
        node_requirement(requirement, &labels.index(index), findings);
        let key = text(&requirement["key"]);
        findings.invalid_each(&labels.index(index).field("key"), key, names::qualified_name(key));
    }
    let fields = at.field("matchFields");
    for (index, requirement) in items(&term["matchFields"]).iter().enumerate() {
        let at = fields.index(index);
        if items(&requirement["values"]).len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            findings.required(&at.field("values"), detail);
        }
        if requirement["key"] != "metadata.name" {
            findings.invalid(&at.field("key"), requirement["key"].clone(), "not a valid field selector key");
        }
    }
}

fn node_requirement(requirement: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let values = items(&requirement["values"]);
    let at_values = at.field("values");
    match text(&requirement["operator"]) {
        "In" | "NotIn" => {
            if values.is_empty() {
                findings.required(&at_values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                findings.forbidden(
                    &at_values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                findings
                    .required(&at_values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
        }
        operator => findings.invalid(&at.field("operator"), operator, "not a valid selector operator"),
    }
    for (index, value) in values.iter().enumerate() {
        findings.invalid_each(&at_values.index(index), text(value), names::label_value(text(value)));
    }
}

fn pod_affinity(affinity: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let required = at.field("requiredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        pod_affinity_term(term, &required.index(index), findings);
    }
    let preferred = at.field("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, weighted) in
        items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        let at = preferred.index(index);
        weight(weighted, &at, findings);
        pod_affinity_term(&weighted["podAffinityTerm"], &at.field("podAffinityTerm"), findings);
    }
}

fn pod_affinity_term(term: &Value, at: &Spot<'_>, findings: &mut Findings) {
    metadata::label_selector(&term["labelSelector"], &at.field("labelSelector"), findings);
    metadata::label_selector(&term["namespaceSelector"], &at.field("namespaceSelector"), findings);
    let namespaces = at.field("namespaces");
    for name in items(&term["namespaces"]) {
        findings.invalid_each(&namespaces, text(name), names::dns1123_label(text(name)));
    }
    match text(&term["topologyKey"]) {
        "" => findings.required(&at.field("topologyKey"), "can not be empty"),
        key => findings.invalid_each(&at.field("topologyKey"), key, names::qualified_name(key)),
    }
}

pub(super) fn spread_constraints(spec: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let constraints = items(&spec["topologySpreadConstraints"]);
    for (index, constraint) in constraints.iter().enumerate() {
        let at = at.index(index);
        if integer(&constraint["maxSkew"]) <= 0 {
            findings.invalid(
                &at.field("maxSkew"),
                constraint["maxSkew"].clone(),
                "must be greater than zero",
            );
        }
        match text(&constraint["topologyKey"]) {
            "" => findings.required(&at.field("topologyKey"), "can not be empty"),
            key => findings.invalid_each(&at.field("topologyKey"), key, names::qualified_name(key)),
        }
        let action = text(&constraint["whenUnsatisfiable"]);
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let known = ["DoNotSchedule", "ScheduleAnyway"];
            findings.not_supported(&at.field("whenUnsatisfiable"), action, &known);
        }
        let same = |other: &&Value| {
            other["topologyKey"] == constraint["topologyKey"]
                && other["whenUnsatisfiable"] == constraint["whenUnsatisfiable"]
        };
        if constraints[..index].iter().any(|other| same(&other)) {
            let pair = format!("{{{}, {action}}}", text(&constraint["topologyKey"]));
            findings.duplicate(&at.field("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            if domains <= 0 {
                findings.invalid(&at.field("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                findings.invalid(&at.field("minDomains"), domains, &detail);
            }
        }
        metadata::label_selector(&constraint["labelSelector"], &at.field("labelSelector"), findings);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if given(&constraint[field]) && !matches!(text(&constraint[field]), "Honor" | "Ignore") {
                findings.not_supported(&at.field(field), text(&constraint[field]), &["Honor", "Ignore"]);
            }
        }
    }
}

/// Whether labels satisfy a selector object; one that cannot be read selects nothing.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = api_objects::selector::LabelSelector::from_object(Some(selector));
    let labels = entries(labels).map(|(key, value)| (key.to_owned(), text(value).to_owned())).collect();
    selector.is_ok_and(|selector| selector.matches(&labels))
}
