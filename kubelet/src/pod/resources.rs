//! Requests and limits: quality of service, cgroup values, and what a pod takes of a node.
//!
//! The rules are upstream's `pkg/apis/core/v1/helper/qos`, `pkg/kubelet/cm` and `pkg/kubelet/qos`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Add,
};

use api_objects::{
    pod_resources::{is_extended, is_huge},
    quantity::Quantity as Exact,
};
use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use kubelet_runtime::ContainerResources;

use super::{init_containers, is_sidecar, spec};

/// Period of the CPU quota in microseconds.
pub(super) const PERIOD: i64 = 100_000;

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

/// The requests and limits of the pod as a whole (`spec.resources`, KEP-2837), of what may stand there.
fn of_pod(pod: &Pod) -> (Option<&List>, Option<&List>) {
    let resources = spec(pod).resources.as_ref();
    (
        resources.and_then(|resources| resources.requests.as_ref()),
        resources.and_then(|resources| resources.limits.as_ref()),
    )
}

/// Whether a pod has resources of its own.
#[must_use]
pub fn has_own(pod: &Pod) -> bool {
    let (requests, limits) = of_pod(pod);
    [requests, limits].into_iter().flatten().any(|list| !list.is_empty())
}

/// What a pod requests as a whole. A limit stands in where nothing inside asks for that resource, as the API server's
/// defaults have it.
fn pod_request<'a>(pod: &'a Pod, name: &str) -> Option<&'a Quantity> {
    let (requests, limits) = of_pod(pod);
    get(requests, name).or_else(|| {
        let asked =
            super::all_containers(pod).any(|container| get(requirements(container).0, name).is_some());
        get(limits, name).filter(|_| !asked)
    })
}

/// The quality of service class: `Guaranteed`, `Burstable` or `BestEffort`. Where the pod has resources of its own,
/// they alone decide.
#[must_use]
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut guaranteed = true;
    let mut best_effort = true;
    let mut judge = |(requests, limits): (Option<&List>, Option<&List>)| {
        for resource in ["cpu", "memory"] {
            let request = get(requests, resource).map_or(0, milli);
            let limit = get(limits, resource).map_or(0, milli);
            best_effort &= request == 0 && limit == 0;
            let effective = if get(requests, resource).is_some() { request } else { limit };
            guaranteed &= limit > 0 && effective == limit;
        }
    };
    if has_own(pod) {
        judge(of_pod(pod));
    } else {
        super::all_containers(pod).for_each(|container| judge(requirements(container)));
    }
    match (best_effort, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// Shares of a CPU request (`MilliCPUToShares`).
#[must_use]
pub fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Microseconds of CPU in a period (`MilliCPUToQuota`): never under a millisecond.
#[must_use]
pub fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(PERIOD) / 1000).max(1000)
}

/// The cgroup values of a container. `memory_capacity` is the node's memory in bytes. A limit of the pod is one of each
/// container that has none.
#[must_use]
pub fn cgroup(pod: &Pod, container: &Container, memory_capacity: i64) -> ContainerResources {
    let (requests, limits) = requirements(container);
    let limit = |name: &str, measure: fn(&Quantity) -> i64| {
        let own = get(limits, name).map(measure).filter(|number| *number > 0);
        own.or_else(|| get(of_pod(pod).1, name).map(measure).filter(|number| *number > 0))
    };
    let cpu_limit = limit("cpu", milli);
    let cpu_request = get(requests, "cpu").map(milli).or(cpu_limit).unwrap_or(0);
    ContainerResources {
        cpu_shares: Some(shares(cpu_request)),
        cpu_quota: cpu_limit.map(quota),
        cpu_period: cpu_limit.map(|_| PERIOD),
        memory_limit: limit("memory", units),
        oom_score_adj: Some(oom_score_adj(pod, container, memory_capacity)),
    }
}

/// How early the kernel picks a container when memory runs out (`GetContainerOOMScoreAdjust`).
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
            let asked = |container: &Container| ask(container, "memory", units);
            // What the pod asks for and none of its containers does is shared among all.
            let unclaimed =
                pod_request(pod, "memory").map(units).filter(|bytes| *bytes > 0).map_or(0, |bytes| {
                    let count = i64::try_from(super::all_containers(pod).count()).unwrap_or(i64::MAX).max(1);
                    (bytes - aggregate(pod, asked, i64::saturating_add)) / count
                });
            let mut request = asked(container);
            if super::is_init(pod, &container.name) && is_sidecar(container) {
                // A sidecar goes no sooner than those that it serves.
                request = request.max(spec(pod).containers.iter().map(asked).min().unwrap_or(0));
            }
            let adjusted = 1000 - 1000i64.saturating_mul(request + unclaimed) / memory_capacity.max(1);
            adjusted.clamp(3, 999)
        }
    }
}

/// Bytes of memory that a container asks for.
#[must_use]
pub fn memory_request(container: &Container) -> i64 {
    ask(container, "memory", units)
}

/// What a container asks for; its limit where it says no more.
fn ask(container: &Container, name: &str, measure: fn(&Quantity) -> i64) -> i64 {
    let (requests, limits) = requirements(container);
    get(requests, name).or_else(|| get(limits, name)).map_or(0, measure)
}

/// The sum over a pod's containers and sidecars, or the largest init container together with the sidecars started
/// before it, whichever is more.
fn aggregate<T>(pod: &Pod, of: impl Fn(&Container) -> T, add: fn(T, T) -> T) -> T
where
    T: Copy + Default + Ord,
{
    let mut sidecars = T::default();
    let mut init_peak = T::default();
    for container in init_containers(pod) {
        if is_sidecar(container) {
            sidecars = add(sidecars, of(container));
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(add(sidecars, of(container)));
        }
    }
    let main = spec(pod).containers.iter().map(of).fold(T::default(), add);
    add(main, sidecars).max(init_peak)
}

/// What a pod asks for and what it may use as a whole, of everything that it or a container of it names
/// (`PodRequests` and `PodLimits` of `k8s.io/component-helpers/resource`): its own, or else those of its containers
/// together; and the overhead, which is added only to limits that there are.
#[must_use]
pub fn effective(pod: &Pod) -> ResourceRequirements {
    let exact = |quantity: &Quantity| quantity.0.parse::<Exact>().unwrap_or_default();
    let sum = |own: Option<&List>, inside: fn(&Container) -> Option<&List>, overhead_counts_alone: bool| {
        let overhead = spec(pod).overhead.as_ref();
        let lists = super::all_containers(pod).filter_map(inside).chain(own);
        let mut names: BTreeSet<&String> = lists.flat_map(BTreeMap::keys).collect();
        if overhead_counts_alone {
            names.extend(overhead.into_iter().flat_map(BTreeMap::keys));
        }
        let of = |name: &str| {
            let inside = || {
                aggregate(
                    pod,
                    |container| get(inside(container), name).map(exact).unwrap_or_default(),
                    Exact::add,
                )
            };
            let whole = get(own, name).map(exact).unwrap_or_else(inside);
            Quantity((whole + get(overhead, name).map(exact).unwrap_or_default()).to_string())
        };
        let list: List = names.into_iter().map(|name| (name.clone(), of(name))).collect();
        Some(list).filter(|list| !list.is_empty())
    };
    let (requests, limits) = of_pod(pod);
    ResourceRequirements {
        claims: None,
        requests: sum(requests, |container| requirements(container).0, true),
        limits: sum(limits, |container| requirements(container).1, false),
    }
}

fn measure_of(name: &str) -> fn(&Quantity) -> i64 {
    if name == "cpu" { milli } else { units }
}

/// What every node has: processors, memory, and its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Milli-CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of `ephemeral-storage`.
    pub storage: i64,
}

impl Demand {
    /// Adds what somebody else asks for.
    pub fn add(&mut self, other: Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.storage = self.storage.saturating_add(other.storage);
    }
}

/// A pod's effective requests (`PodRequests`): its own, or else those of its containers together; and the overhead.
#[must_use]
pub fn demand(pod: &Pod) -> Demand {
    let of = |name: &str| {
        let measure = measure_of(name);
        let own = pod_request(pod, name).map(measure);
        let inside = || aggregate(pod, |container| ask(container, name, measure), i64::saturating_add);
        let overhead = get(spec(pod).overhead.as_ref(), name).map_or(0, measure);
        own.unwrap_or_else(inside).saturating_add(overhead)
    };
    Demand { cpu: of("cpu"), memory: of("memory"), storage: of("ephemeral-storage") }
}

/// What a pod requests of what not every node has: huge pages and extended resources. Both are asked for in limits and
/// requests alike.
#[must_use]
pub fn scarce(pod: &Pod) -> BTreeMap<String, i64> {
    let requests = effective(pod).requests.unwrap_or_default();
    let scarce = requests.into_iter().filter(|(name, _)| is_huge(name) || is_extended(name));
    scarce.map(|(name, amount)| (name, units(&amount))).filter(|(_, amount)| *amount > 0).collect()
}

/// The bytes of huge pages that a pod may use, by resource: what it requests.
#[must_use]
pub fn huge_pages(pod: &Pod) -> BTreeMap<String, i64> {
    // Nearly every pod asks for none, and each look at one comes here.
    let lists = super::all_containers(pod).map(|container| requirements(container).0).chain([of_pod(pod).0]);
    if !lists.flatten().flat_map(BTreeMap::keys).any(|name| is_huge(name)) {
        return BTreeMap::new();
    }
    let mut asked = scarce(pod);
    asked.retain(|name, _| is_huge(name));
    asked
}

/// What a pod may use as a whole of `cpu` (in milli-units) or `memory`: known only where it has a limit of its own, or
/// every container has one (`ResourceConfigForPod` and `PodLimits`).
#[must_use]
pub fn pod_limit(pod: &Pod, name: &str) -> Option<i64> {
    let measure = measure_of(name);
    let given = |list: Option<&List>| get(list, name).map(measure).filter(|number| *number > 0);
    let own = given(of_pod(pod).1);
    let all = super::all_containers(pod).all(|container| given(requirements(container).1).is_some());
    let of = |container: &Container| given(requirements(container).1).unwrap_or(0);
    let inside = || all.then(|| aggregate(pod, of, i64::saturating_add));
    let overhead = get(spec(pod).overhead.as_ref(), name).map_or(0, measure);
    Some(own.or_else(inside)?.saturating_add(overhead))
}

/// The value of a `resourceFieldRef` (`limits.cpu`, `requests.memory` …) divided by its divisor, rounded up.
/// Where a limit is missing, the pod's stands in, and without one the node's allocatable, as documented.
pub fn field(
    pod: &Pod,
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
    let given = |measure: fn(&Quantity) -> i64| {
        let whole = get(of_pod(pod).1, name).filter(|_| is_limit);
        get(list, name).map(measure).filter(|value| *value > 0).or_else(|| whole.map(measure))
    };
    let divide = |value: i64, by: i64| (value + by - 1) / by;
    match name {
        "cpu" => {
            let value = given(milli).unwrap_or(if is_limit { allocatable.cpu } else { 0 });
            let by = divisor.map(milli).filter(|value| *value > 0).unwrap_or(1000);
            Ok(divide(value, by).to_string())
        }
        _ if matches!(name, "memory" | "ephemeral-storage") || is_huge(name) => {
            // What has no limit may use all that the node has; of huge pages it has none (`MergeContainerResourceLimits`).
            let missing = match name {
                "memory" if is_limit => allocatable.memory,
                "ephemeral-storage" if is_limit => allocatable.storage,
                _ => 0,
            };
            let by = divisor.map(units).filter(|value| *value > 0).unwrap_or(1);
            Ok(divide(given(units).unwrap_or(missing), by).to_string())
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
    fn what_a_pod_asks_for_and_may_use_as_a_whole() {
        let shown = |spec: serde_json::Value| serde_json::to_value(effective(&pod(spec))).unwrap();
        assert_eq!(shown(json!({"containers": [{"name": "a"}]})), json!({}));
        let resources =
            |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": memory}});
        let several = json!({
            "initContainers": [{"name": "i", "resources": resources("300m", "10Mi")},
                {"name": "s", "restartPolicy": "Always", "resources": resources("50m", "8Mi")}],
            "containers": [{"name": "a", "resources": resources("100m", "16Mi")}, {"name": "b", "resources": resources("100m", "1Gi")}],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        });
        assert_eq!(
            shown(several.clone()),
            json!({"requests": {"cpu": "310m", "memory": "1Mi"}, "limits": {"memory": "1049Mi"}})
        );
        let mut own = several;
        own["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}});
        assert_eq!(
            shown(own),
            json!({"requests": {"cpu": "2010m", "memory": "1Mi"}, "limits": {"cpu": "2010m", "memory": "1049Mi"}})
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
        assert_eq!(pod_limit(&pair(limited("64Mi"), limited("32Mi")), "memory"), Some(96 << 20));
        assert_eq!(pod_limit(&pair(limited("64Mi"), json!({})), "memory"), None);
        let with_init = pod(json!({
            "containers": [{"name": "a", "resources": limited("1Mi")}],
            "initContainers": [{"name": "i", "resources": limited("5Mi")}]}));
        assert_eq!(pod_limit(&with_init, "memory"), Some(5 << 20));
    }

    #[test]
    fn fields() {
        let pod = with(&json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}));
        let container = &spec(&pod).containers[0];
        let allocatable = Demand { cpu: 4000, memory: 8 * GIB, storage: 10 * GIB };
        let read = |name: &str, divisor: Option<&str>| {
            field(&pod, container, name, divisor.map(|text| Quantity(text.into())).as_ref(), allocatable)
                .unwrap()
        };
        assert_eq!(read("limits.cpu", None), "2");
        assert_eq!(read("limits.cpu", Some("1m")), "1500");
        assert_eq!(read("limits.memory", Some("1Mi")), "64");
        assert_eq!(read("requests.memory", None), "0");
        let bare = with(&json!({}));
        let container = &spec(&bare).containers[0];
        assert_eq!(field(&bare, container, "limits.cpu", None, allocatable).unwrap(), "4");
        let storage = field(&bare, container, "limits.ephemeral-storage", None, allocatable).unwrap();
        assert_eq!(storage, (10 * GIB).to_string());
        let huge = with(&json!({"limits": {"hugepages-2Mi": "8Mi"}, "requests": {"hugepages-2Mi": "8Mi"}}));
        let of_huge = |name: &str| field(&huge, &spec(&huge).containers[0], name, None, allocatable).unwrap();
        assert_eq!(of_huge("limits.hugepages-2Mi"), (8 << 20).to_string());
        assert_eq!(of_huge("requests.hugepages-1Gi"), "0");
        let mut whole = bare.clone();
        whole.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({"limits": {"cpu": "3"}})).unwrap();
        assert_eq!(field(&whole, container, "limits.cpu", None, allocatable).unwrap(), "3");
        assert_eq!(field(&whole, container, "requests.cpu", None, allocatable).unwrap(), "0");
    }

    /// KEP-2837: the pod's own requirements decide before those of its containers.
    #[test]
    fn a_pod_may_ask_as_a_whole() {
        let pod = pod(json!({
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "containers": [
                {"name": "a", "resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}}},
                {"name": "b"}],
        }));
        assert_eq!(qos_class(&pod), "Burstable");
        assert_eq!(demand(&pod), Demand { cpu: 1000, memory: 2 * GIB, storage: 0 });
        assert_eq!((pod_limit(&pod, "cpu"), pod_limit(&pod, "memory")), (Some(2000), Some(2 * GIB)));
        let of = |index: usize| cgroup(&pod, &spec(&pod).containers[index], 4 * GIB);
        assert_eq!((of(0).memory_limit, of(0).cpu_quota), (Some(GIB), Some(200_000)));
        assert_eq!((of(1).memory_limit, of(1).cpu_shares), (Some(2 * GIB), Some(2048)));
        // 1.5Gi of the pod's request are nobody's: 512Mi for each of the three, of 4Gi.
        assert_eq!((of(0).oom_score_adj, of(1).oom_score_adj), (Some(750), Some(875)));
        let sidecar = cgroup(&pod, init_containers(&pod).next().unwrap(), 4 * GIB);
        assert_eq!(sidecar.oom_score_adj, Some(875), "no sooner than the least of those that it serves");
    }
}
