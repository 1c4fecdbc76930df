//! Roles and their bindings.

use api_objects::{Value, names};

use super::findings::{Findings, Spot};
use super::{given, items, metadata, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(new: &Value, namespaced: bool, findings: &mut Findings) {
    let rules = Spot::root("rules");
    for (index, rule) in items(&new["rules"]).iter().enumerate() {
        policy_rule(rule, namespaced, &rules.index(index), findings);
    }
}

pub(super) fn cluster_role(new: &Value, findings: &mut Findings) {
    role(new, false, findings);
    let aggregation = &new["aggregationRule"];
    if !given(aggregation) {
        return;
    }
    let root = Spot::root("aggregationRule");
    let at = root.field("clusterRoleSelectors");
    let selectors = items(&aggregation["clusterRoleSelectors"]);
    if selectors.is_empty() {
        findings.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        metadata::label_selector(selector, &at.index(index), findings);
    }
}

fn policy_rule(rule: &Value, namespaced: bool, at: &Spot<'_>, findings: &mut Findings) {
    let empty = |field: &str| items(&rule[field]).is_empty();
    if empty("verbs") {
        findings.required(&at.field("verbs"), "verbs must contain at least one value");
    }
    if !empty("nonResourceURLs") {
        let at = at.field("nonResourceURLs");
        let urls = &rule["nonResourceURLs"];
        if namespaced {
            findings.invalid(&at, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            findings.invalid(&at, urls.clone(), detail);
        }
        return;
    }
    if empty("apiGroups") {
        findings.required(&at.field("apiGroups"), "resource rules must supply at least one api group");
    }
    if empty("resources") {
        findings.required(&at.field("resources"), "resource rules must supply at least one resource");
    }
}

pub(super) fn binding(new: &Value, old: Option<&Value>, namespaced: bool, findings: &mut Findings) {
    let reference = &new["roleRef"];
    let at = Spot::root("roleRef");
    if reference["apiGroup"] != GROUP {
        findings.not_supported(&at.field("apiGroup"), text(&reference["apiGroup"]), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(&reference["kind"])) {
        findings.not_supported(&at.field("kind"), text(&reference["kind"]), kinds);
    }
    match text(&reference["name"]) {
        "" => findings.required(&at.field("name"), ""),
        name => findings.invalid_each(&at.field("name"), name, names::path_segment(name)),
    }
    let subjects = Spot::root("subjects");
    for (index, subject) in items(&new["subjects"]).iter().enumerate() {
        check_subject(subject, namespaced, &subjects.index(index), findings);
    }
    if old.is_some_and(|old| old["roleRef"] != *reference) {
        findings.invalid(&at, reference.clone(), "cannot change roleRef");
    }
}

fn check_subject(subject: &Value, namespaced: bool, at: &Spot<'_>, findings: &mut Findings) {
    let (name, group) = (text(&subject["name"]), text(&subject["apiGroup"]));
    if name.is_empty() {
        findings.required(&at.field("name"), "");
    }
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                findings.invalid_each(&at.field("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                findings.not_supported(&at.field("apiGroup"), group, &[""]);
            }
            if !namespaced && text(&subject["namespace"]).is_empty() {
                findings.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                findings.not_supported(&at.field("apiGroup"), group, &[GROUP]);
            }
        }
        kind => findings.not_supported(&at.field("kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}
