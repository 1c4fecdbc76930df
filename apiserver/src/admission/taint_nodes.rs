//! TaintNodesByCondition: a new node takes no pods until it is known to be ready.
//!
//! Upstream: `plugin/pkg/admission/nodetaint`.

use api_objects::Value;
use serde_json::json;

use super::{Attributes, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Adds the taint to a node that is being registered.
pub(super) fn mutate(attributes: &Attributes<'_>, node: &mut Value) {
    if !attributes.is("", "nodes") || attributes.operation != Operation::Create {
        return;
    }
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        node["spec"]["taints"] = Value::Array(taints);
    }
}
