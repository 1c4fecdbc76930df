//! Pods: pending when new, with a class of service, and deleted with patience.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go`, `pkg/apis/core/v1/helper/qos`.

use api_objects::{Value, quantity::Quantity};
use serde_json::json;

/// A new pod is pending; its quality of service follows from its resources and never changes.
pub fn prepare_for_create(pod: &mut Value) {
    let class = quality_of_service(pod);
    pod["status"] = json!({ "phase": "Pending", "qosClass": class });
}

/// `Guaranteed` if every container has limits for CPU and memory and requests exactly those, `BestEffort`
/// if none names either, `Burstable` in between. A pod with requirements of its own is judged by those alone.
#[must_use]
pub fn quality_of_service(pod: &Value) -> &'static str {
    let own = &pod["spec"]["resources"];
    let has_own =
        ["requests", "limits"].iter().any(|side| own[side].as_object().is_some_and(|list| !list.is_empty()));
    let lists = ["containers", "initContainers"];
    let containers = lists.iter().filter_map(|list| pod["spec"][list].as_array()).flatten();
    let whole = has_own.then_some(&pod["spec"]);
    let mut any = false;
    let mut guaranteed = true;
    for container in whole.into_iter().chain(containers.filter(|_| !has_own)) {
        for resource in ["cpu", "memory"] {
            let amount = |side: &str| {
                Quantity::from_value(&container["resources"][side][resource])
                    .ok()
                    .filter(|quantity| !quantity.is_zero())
            };
            let limit = amount("limits");
            // An absent request means the limit.
            let request = if container["resources"]["requests"][resource].is_null() {
                limit
            } else {
                amount("requests")
            };
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What an update of a subresource may change: `ephemeralcontainers` the containers of that name, `resize` the
/// resources of containers and of the pod as a whole, and how they are resized (upstream's `dropNonEphemeralContainerUpdates` and
/// `dropNonResizeUpdates`).
pub fn prepare_for_subresource(subresource: &str, new: &mut Value, old: &Value, _now: jiff::Timestamp) {
    if !matches!(subresource, "ephemeralcontainers" | "resize") {
        return;
    }
    let mut shaped = old.clone();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if !new["metadata"][field].is_null() {
            shaped["metadata"][field] = new["metadata"][field].clone();
        }
    }
    if subresource == "resize" {
        for list in ["containers", "initContainers"] {
            if let Some(kept) = shaped["spec"].get_mut(list) {
                resize_containers(kept, &new["spec"][list]);
            }
        }
        copy_or_remove(&mut shaped["spec"], &new["spec"], "resources");
    } else {
        copy_or_remove(&mut shaped["spec"], &new["spec"], "ephemeralContainers");
    }
    *new = shaped;
}

/// Takes over what a resize may change of each container. Another order, or other names, are told of by validation:
/// it sees the list as it came.
fn resize_containers(kept: &mut Value, asked: &Value) {
    let (Some(containers), Some(asked)) = (kept.as_array_mut(), asked.as_array()) else { return };
    let same = |(one, other): (&Value, &Value)| one["name"] == other["name"];
    if containers.len() != asked.len() || !containers.iter().zip(asked).all(same) {
        *containers = asked.clone();
        return;
    }
    for (container, asked) in containers.iter_mut().zip(asked) {
        copy_or_remove(container, asked, "resources");
        copy_or_remove(container, asked, "resizePolicy");
    }
}

fn copy_or_remove(into: &mut Value, from: &Value, member: &str) {
    match &from[member] {
        Value::Null => {
            if let Some(fields) = into.as_object_mut() {
                fields.remove(member);
            }
        }
        given => into[member] = given.clone(),
    }
}

/// The seconds that a pod is granted to end: what the deletion or else the pod says, but none for a pod
/// that runs nowhere or has ended.
#[must_use]
pub fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if unscheduled || ended {
        return 0;
    }
    let period = asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    // Upstream: a negative period means the least one.
    if period < 0 { 1 } else { period }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn classes_of_service() {
        assert_eq!(quality_of_service(&pod(&json!({}))), "BestEffort");
        assert_eq!(quality_of_service(&pod(&json!({"requests": {"cpu": "1"}}))), "Burstable");
        let same =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(quality_of_service(&pod(&same)), "Guaranteed");
        assert_eq!(quality_of_service(&pod(&json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
        let less = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}});
        assert_eq!(quality_of_service(&pod(&less)), "Burstable");
        let mut whole = pod(&less);
        whole["spec"]["resources"] = same;
        assert_eq!(quality_of_service(&whole), "Guaranteed");
    }

    #[test]
    fn a_resize_takes_over_resources_alone() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("m");
        new["spec"]["containers"][0]["image"] = json!("j");
        new["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        prepare_for_subresource("resize", &mut new, &old, jiff::Timestamp::UNIX_EPOCH);
        let mut expected = old.clone();
        expected["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
        assert_eq!(new, expected);
    }

    #[test]
    fn grace() {
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        assert_eq!(grace_period(&running, None), 30);
        assert_eq!(grace_period(&running, Some(5)), 5);
        assert_eq!(grace_period(&running, Some(-1)), 1);
        let ended = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        assert_eq!(grace_period(&ended, Some(5)), 0);
        assert_eq!(grace_period(&json!({"spec": {}}), Some(5)), 0);
    }
}
