//! What the containers of a pod ask for together (`AggregateContainerRequests` of `k8s.io/component-helpers/resource`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// What may be asked for a pod as a whole beside `hugepages-*` (KEP-2837).
pub const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// Whether a resource may be asked for a pod as a whole.
#[must_use]
pub fn is_pod_level(name: &str) -> bool {
    POD_LEVEL.contains(&name) || is_huge(name)
}

/// Whether a resource is one of huge pages.
#[must_use]
pub fn is_huge(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// What the names of resources of huge pages begin with.
pub const HUGE_PAGES: &str = "hugepages-";

/// Whether a resource is of somebody else's domain (`IsExtendedResourceName` of upstream's `pkg/apis/core/v1/helper`).
#[must_use]
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Resources by name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The sum over containers and sidecars; or what the init containers need while they run, each beside the sidecars
/// started before it, where that is more. `side` is `requests` or `limits`.
#[must_use]
pub fn aggregate(spec: &Value, side: &str) -> Amounts {
    let of = |container: &Value| -> Amounts {
        let list = container["resources"][side].as_object();
        let parsed = list
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?)));
        parsed.collect()
    };
    let list = |name: &str| spec[name].as_array().into_iter().flatten();
    let mut sum = Amounts::new();
    list("containers").for_each(|container| add(&mut sum, &of(container)));
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let mut at_once = sidecars.clone();
        add(&mut at_once, &of(container));
        raise(&mut starting, &at_once);
        if container["restartPolicy"] == "Always" {
            sidecars = at_once;
        }
    }
    add(&mut sum, &sidecars);
    raise(&mut sum, &starting);
    sum
}

/// What a pod requests, or is limited to, as a whole: its own requirements stand in place of the sums, and overhead is
/// added (`PodRequests` and `PodLimits`; what has no limit gets none by its overhead).
#[must_use]
pub fn total(spec: &Value, side: &str) -> Amounts {
    let read = |list: &Value| -> Amounts {
        let parsed = list.as_object().into_iter().flatten();
        parsed.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
    };
    let mut amounts = aggregate(spec, side);
    amounts.extend(read(&spec["resources"][side]).into_iter().filter(|(name, _)| is_pod_level(name)));
    let mut overhead = read(&spec["overhead"]);
    if side == "limits" {
        overhead.retain(|name, _| amounts.get(name).is_some_and(|limit| !limit.is_zero()));
    }
    add(&mut amounts, &overhead);
    amounts
}

fn add(amounts: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let sum = match amounts.remove(name) {
            Some(known) => known + *quantity,
            None => *quantity,
        };
        amounts.insert(name.clone(), sum);
    }
}

fn raise(amounts: &mut Amounts, to: &Amounts) {
    for (name, quantity) in to {
        if amounts.get(name).is_none_or(|known| known < quantity) {
            amounts.insert(name.clone(), *quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_beside_sidecars() {
        let with = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let spec = json!({
            "containers": [{"resources": with("1")}, {"resources": {"requests": {"memory": "1Gi"}}}, {}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": with("500m")},
                {"resources": with("2")},
                {"restartPolicy": "Always", "resources": with("100m")},
            ],
        });
        let found: Vec<(String, String)> = aggregate(&spec, "requests")
            .into_iter()
            .map(|(name, amount)| (name, amount.to_string()))
            .collect();
        assert_eq!(found, [("cpu".into(), "2500m".into()), ("memory".into(), "1Gi".into())]);
        assert_eq!(aggregate(&spec, "limits"), Amounts::new());
        let mut whole = spec;
        whole["overhead"] = json!({"cpu": "10m", "memory": "1Mi"});
        whole["resources"] = json!({"requests": {"cpu": "3"}, "limits": {"cpu": "4"}});
        let found = |side: &str| {
            total(&whole, side)
                .into_iter()
                .map(|(name, amount)| format!("{name}={amount}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("requests"), ["cpu=3010m", "memory=1025Mi"]);
        assert_eq!(found("limits"), ["cpu=4010m"]);
    }
}
