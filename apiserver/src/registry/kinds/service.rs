//! Services that change their type shed what belonged to the old one.
//!
//! Upstream: `pkg/registry/core/service/strategy.go` (`dropTypeDependentFields`).

use api_objects::Value;

/// Drops fields that only mean something for the old type, unless the client changed them too.
pub fn prepare_for_update(new: &mut Value, old: &Value) {
    let external =
        |service: &Value| matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    let balanced = |service: &Value| service["spec"]["type"] == "LoadBalancer";
    let mut fields = Vec::new();
    if external(old) && !external(new) {
        fields.push("externalTrafficPolicy");
    }
    if balanced(old) && !balanced(new) {
        fields.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    for field in fields {
        if new["spec"][field] == old["spec"][field]
            && let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_unchanged_fields_of_the_old_type_go() {
        let old = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster"}});
        let mut new = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": "Cluster"}});
        prepare_for_update(&mut new, &old);
        assert_eq!(new, json!({"spec": {"type": "ClusterIP"}}));
        let mut asked = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}});
        prepare_for_update(&mut asked, &old);
        assert_eq!(asked["spec"]["externalTrafficPolicy"], "Local");
    }
}
