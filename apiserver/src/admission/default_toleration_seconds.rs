//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless
//! it says otherwise.
//!
//! Upstream: `plugin/pkg/admission/defaulttolerationseconds`.

use api_objects::Value;
use serde_json::json;

use super::{Attributes, Operation};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// Adds the two tolerations where none covers their taint.
pub(super) fn mutate(attributes: &Attributes<'_>, pod: &mut Value) {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    if attributes.is("", "pods") && written && pod["spec"].is_object() {
        add(pod);
    }
}

fn add(pod: &mut Value) {
    let given = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let covers = |toleration: &Value, taint: &str| {
        let key = toleration["key"].as_str().unwrap_or_default();
        let effect = toleration["effect"].as_str().unwrap_or_default();
        (key.is_empty() || key == taint) && matches!(effect, "" | "NoExecute")
    };
    let mut tolerations = given.clone();
    for taint in TAINTS {
        if !given.iter().any(|toleration| covers(toleration, taint)) {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": SECONDS}));
        }
    }
    if tolerations.len() > given.len() {
        pod["spec"]["tolerations"] = Value::Array(tolerations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let mut pod = json!({"spec": {"tolerations": [{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]}});
        add(&mut pod);
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(
            (&tolerations[1]["key"], &tolerations[1]["tolerationSeconds"]),
            (&json!(TAINTS[1]), &json!(300))
        );
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
