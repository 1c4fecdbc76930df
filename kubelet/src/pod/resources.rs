//! Requests and limits: quality of service, cgroup values, and what a pod takes of a node.
//!
//! The rules are upstream's `pkg/apis/core/v1/helper/qos`, `pkg/kubelet/cm` and `pkg/kubelet/qos`.

use std::collections::BTreeMap;

use api_objects::quantity::Quantity as Exact;
use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use kubelet_runtime::ContainerResources;

use super::{init_containers, is_sidecar, spec};

/// Period of the CPU quota in microseconds.
const PERIOD: i64 = 100_000;

type List = BTreeMap<String, Quantity>;

/// Milli-units of a quantity; what cannot be read counts as nothing (validation has refused it before).
#[must_use]
pub fn milli(quantity: &Quantity) -> i64 {
    quantity.0.parse::<Exact>().map_or(0, |exact| exact.milli_value())
}

/// Whole units of a quantity, rounded up.
#[must_use]
pub fn units(quantity: &Quantity) -> i64 {
    quantity.0.parse::<Exact>().map_or(0, |exact| exact.value())
}

fn get<'a>(list: Option<&'a List>, name: &str) -> Option<&'a Quantity> {
    list?.get(name)
}

fn requirements(container: &Container) -> (Option<&List>, Option<&List>) {
    let resources: Option<&ResourceRequirements> = container.resources.as_ref();
    (
        resources.and_then(|resources| resources.requests.as_ref()),
        resources.and_then(|resources| resources.limits.as_ref()),
    )
}

/// The quality of service class: `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut guaranteed = true;
    let mut best_effort = true;
    for container in super::all_containers(pod) {
        let (requests, limits) = requirements(container);
        for resource in ["cpu", "memory"] {
            let request = get(requests, resource).map_or(0, milli);
            let limit = get(limits, resource).map_or(0, milli);
            best_effort &= request == 0 && limit == 0;
            let effective = if get(requests, resource).is_some() { request } else { limit };
            guaranteed &= limit > 0 && effective == limit;
        }
    }
    match (best_effort, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// The cgroup values of a container. `memory_capacity` is the node's memory in bytes.
#[must_use]
pub fn cgroup(pod: &Pod, container: &Container, memory_capacity: i64) -> ContainerResources {
    let (requests, limits) = requirements(container);
    let cpu_limit = get(limits, "cpu").map(milli).filter(|milli| *milli > 0);
    let cpu_request = get(requests, "cpu").map(milli).or(cpu_limit).unwrap_or(0);
    let memory_limit = get(limits, "memory").map(units).filter(|bytes| *bytes > 0);
    ContainerResources {
        cpu_shares: Some((cpu_request * 1024 / 1000).clamp(2, 262_144)),
        cpu_quota: cpu_limit.map(|milli| (milli * PERIOD / 1000).max(1000)),
        cpu_period: cpu_limit.map(|_| PERIOD),
        memory_limit,
        oom_score_adj: Some(oom_score_adj(pod, container, memory_capacity)),
    }
}

/// How early the kernel picks a container when memory runs out.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    // Node-critical pods (priority of system-node-critical and above) are kept as guaranteed ones are.
    if spec(pod).priority.is_some_and(|priority| priority >= 2_000_001_000) {
        return -997;
    }
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let (requests, limits) = requirements(container);
            let request = get(requests, "memory").or_else(|| get(limits, "memory")).map_or(0, units);
            let adjusted = 1000 - 1000i64.saturating_mul(request) / memory_capacity.max(1);
            adjusted.clamp(3, 999)
        }
    }
}

/// What a pod asks of a node: milli-CPU and bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Milli-CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

/// A pod's effective requests: the sum of its containers and sidecars, or the largest init container
/// together with the sidecars started before it, whichever is more, and the overhead.
#[must_use]
pub fn demand(pod: &Pod) -> Demand {
    let of = |name: &str, measure: fn(&Quantity) -> i64| {
        let ask = |container: &Container| {
            let (requests, limits) = requirements(container);
            get(requests, name).or_else(|| get(limits, name)).map_or(0, measure)
        };
        let mut sidecars = 0;
        let mut init_peak = 0;
        for container in init_containers(pod) {
            if is_sidecar(container) {
                sidecars += ask(container);
                init_peak = init_peak.max(sidecars);
            } else {
                init_peak = init_peak.max(sidecars + ask(container));
            }
        }
        let main: i64 = spec(pod).containers.iter().map(ask).sum();
        (main + sidecars).max(init_peak) + get(spec(pod).overhead.as_ref(), name).map_or(0, measure)
    };
    Demand { cpu: of("cpu", milli), memory: of("memory", units) }
}

/// The memory that a pod may use as a whole: known only where every container has a limit, or the pod itself
/// has one (upstream's `ResourceConfigForPod` and `PodLimits`).
#[must_use]
pub fn pod_memory_limit(pod: &Pod) -> Option<i64> {
    let limit = |container: &Container| {
        get(requirements(container).1, "memory").map(units).filter(|bytes| *bytes > 0)
    };
    let of_pod = spec(pod).resources.as_ref().and_then(|resources| resources.limits.as_ref());
    if let Some(bytes) = get(of_pod, "memory").map(units).filter(|bytes| *bytes > 0) {
        return Some(bytes);
    }
    let main = spec(pod).containers.iter().map(limit).sum::<Option<i64>>()?;
    let (mut sidecars, mut init_peak) = (0, 0);
    for container in init_containers(pod) {
        let bytes = limit(container)?;
        if is_sidecar(container) {
            sidecars += bytes;
        }
        init_peak = init_peak.max(if is_sidecar(container) { sidecars } else { sidecars + bytes });
    }
    let overhead = get(spec(pod).overhead.as_ref(), "memory").map_or(0, units);
    Some((main + sidecars).max(init_peak) + overhead)
}

/// The value of a `resourceFieldRef` (`limits.cpu`, `requests.memory` …) divided by its divisor, rounded up.
/// Where a limit or request is missing, the node's allocatable stands in, as documented.
pub fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&Quantity>,
    allocatable: Demand,
) -> Result<String, String> {
    let (requests, limits) = requirements(container);
    let (list, name) = match resource.split_once('.') {
        Some(("limits", name)) => (limits, name),
        Some(("requests", name)) => (requests, name),
        _ => return Err(format!("unsupported container resource : {resource}")),
    };
    let is_limit = resource.starts_with("limits.");
    let divide = |value: i64, by: i64| (value + by - 1) / by;
    match name {
        "cpu" => {
            let found = get(list, name).map(milli).filter(|value| *value > 0);
            let value = found.unwrap_or(if is_limit { allocatable.cpu } else { 0 });
            let by = divisor.map(milli).filter(|value| *value > 0).unwrap_or(1000);
            Ok(divide(value, by).to_string())
        }
        "memory" | "ephemeral-storage" => {
            let found = get(list, name).map(units).filter(|value| *value > 0);
            let missing = if is_limit && name == "memory" { allocatable.memory } else { 0 };
            let by = divisor.map(units).filter(|value| *value > 0).unwrap_or(1);
            Ok(divide(found.unwrap_or(missing), by).to_string())
        }
        _ => Err(format!("unsupported container resource : {resource}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    const GIB: i64 = 1 << 30;

    fn with(resources: &serde_json::Value) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    #[test]
    fn classes() {
        assert_eq!(qos_class(&with(&json!({}))), "BestEffort");
        assert_eq!(qos_class(&with(&json!({"requests": {"cpu": "100m"}}))), "Burstable");
        assert_eq!(qos_class(&with(&json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
        assert_eq!(
            qos_class(&with(
                &json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
            )),
            "Burstable"
        );
    }

    #[test]
    fn cgroup_values() {
        let pod = with(
            &json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}),
        );
        let values = cgroup(&pod, &spec(&pod).containers[0], 4 * GIB);
        assert_eq!(values.cpu_shares, Some(256));
        assert_eq!((values.cpu_quota, values.cpu_period), (Some(50_000), Some(100_000)));
        assert_eq!(values.memory_limit, Some(2 * GIB));
        assert_eq!(values.oom_score_adj, Some(750));
        let pod = with(&json!({}));
        let values = cgroup(&pod, &spec(&pod).containers[0], 4 * GIB);
        assert_eq!((values.cpu_shares, values.cpu_quota, values.oom_score_adj), (Some(2), None, Some(1000)));
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let pod = pod(json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "2"}}}],
        }));
        assert_eq!(demand(&pod).cpu, 2500);
    }

    #[test]
    fn a_pod_s_memory_is_limited_only_if_all_of_it_is() {
        let limited = |bytes: &str| json!({"limits": {"memory": bytes}});
        let pair = |first: serde_json::Value, second: serde_json::Value| {
            pod(
                json!({"containers": [{"name": "a", "resources": first}, {"name": "b", "resources": second}]}),
            )
        };
        assert_eq!(pod_memory_limit(&pair(limited("64Mi"), limited("32Mi"))), Some(96 << 20));
        assert_eq!(pod_memory_limit(&pair(limited("64Mi"), json!({}))), None);
        let with_init = pod(json!({
            "containers": [{"name": "a", "resources": limited("1Mi")}],
            "initContainers": [{"name": "i", "resources": limited("5Mi")}]}));
        assert_eq!(pod_memory_limit(&with_init), Some(5 << 20));
    }

    #[test]
    fn fields() {
        let pod = with(&json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}));
        let container = &spec(&pod).containers[0];
        let allocatable = Demand { cpu: 4000, memory: 8 * GIB };
        let read = |name: &str, divisor: Option<&str>| {
            field(container, name, divisor.map(|text| Quantity(text.into())).as_ref(), allocatable).unwrap()
        };
        assert_eq!(read("limits.cpu", None), "2");
        assert_eq!(read("limits.cpu", Some("1m")), "1500");
        assert_eq!(read("limits.memory", Some("1Mi")), "64");
        assert_eq!(read("requests.memory", None), "0");
        let bare = with(&json!({}));
        let container = &spec(&bare).containers[0];
        assert_eq!(field(container, "limits.cpu", None, allocatable).unwrap(), "4");
    }
}
