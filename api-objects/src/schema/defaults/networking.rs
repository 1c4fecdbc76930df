//! Defaults of networking.k8s.io.

use serde_json::json;

use super::{Fields, absent, each, ensure, inside, is_empty};

/// A policy is about ingress, and about egress if it has rules for it.
pub(super) fn network_policy(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        for rules in ["ingress", "egress"] {
            each(spec, rules, |rule| each(rule, "ports", |port| absent(port, "protocol", "TCP")));
        }
        if is_empty(spec, "policyTypes") {
            let types =
                if is_empty(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            spec.insert("policyTypes".to_owned(), types);
        }
    });
}

pub(super) fn ingress_class(object: &mut Fields) {
    inside(object, "spec", |spec| {
        inside(spec, "parameters", |parameters| absent(parameters, "scope", "Cluster"));
    });
}
