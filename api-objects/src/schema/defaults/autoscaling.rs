//! Defaults of the autoscaling group, both versions.

use serde_json::{Value, json};

use super::{Fields, absent, ensure, inside, is_empty};

pub(super) fn horizontal_pod_autoscaler_v1(object: &mut Fields) {
    ensure(object, "spec", |spec| absent(spec, "minReplicas", 1));
}

/// Without metrics the target is a CPU utilisation of 80 percent.
pub(super) fn horizontal_pod_autoscaler_v2(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        absent(spec, "minReplicas", 1);
        if is_empty(spec, "metrics") {
            let cpu = json!([{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }]);
            spec.insert("metrics".to_owned(), cpu);
        }
        // Rules are completed only where a behavior was given at all.
        inside(spec, "behavior", |behavior| {
            rules(
                behavior,
                "scaleUp",
                json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]}),
            );
            rules(
                behavior,
                "scaleDown",
                json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
        });
    });
}

fn rules(behavior: &mut Fields, name: &str, defaults: Value) {
    let Value::Object(defaults) = defaults else {
        return;
    };
    ensure(behavior, name, |rules| {
        for (field, default) in defaults {
            absent(rules, &field, default);
        }
    });
}
