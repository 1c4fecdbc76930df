//! What a pod's control group may use (`ResourceConfigForPod` of upstream's `pkg/kubelet/cm/helpers_linux.go`).

use k8s_openapi::api::core::v1::Pod;
use kubelet_runtime::control_groups::{Group, GroupSettings, QosClass};

use super::{
    resources::{self, PERIOD, quota, shares},
    uid,
};
use crate::huge_pages;

/// No limit, in the kernel's words.
pub const NO_LIMIT: i64 = -1;

/// The class that decides where the group stands.
#[must_use]
pub fn class(pod: &Pod) -> QosClass {
    match resources::qos_class(pod) {
        "Guaranteed" => QosClass::Guaranteed,
        "BestEffort" => QosClass::BestEffort,
        _ => QosClass::Burstable,
    }
}

/// The pod's group.
#[must_use]
pub fn group(pod: &Pod) -> Group<'_> {
    Group::Pod(class(pod), uid(pod))
}

/// What it is set to. `pids_limit` holds for every pod of the node; of huge pages of the sizes (in bytes) that the machine
/// has, a pod gets what it asks for and no others.
#[must_use]
pub fn settings(pod: &Pod, pids_limit: Option<i64>, huge_page_sizes: &[u64]) -> GroupSettings {
    let limit = |name: &str| resources::pod_limit(pod, name).filter(|limit| *limit > 0);
    let (cpu, memory) = match class(pod) {
        QosClass::BestEffort => (None, None),
        QosClass::Guaranteed | QosClass::Burstable => (limit("cpu"), limit("memory")),
    };
    let huge_pages = resources::huge_pages(pod);
    let asked = |size: u64| huge_pages.iter().find(|(name, _)| huge_pages::size_of(name) == Some(size));
    let huge_pages =
        huge_page_sizes.iter().map(|size| (*size, asked(*size).map_or(0, |(_, bytes)| *bytes))).collect();
    GroupSettings {
        huge_pages,
        cpu_shares: Some(shares(resources::demand(pod).cpu)),
        cpu_quota: Some(cpu.map_or(NO_LIMIT, quota)),
        cpu_period: Some(PERIOD),
        memory_limit: Some(memory.unwrap_or(NO_LIMIT)),
        pids_limit: Some(pids_limit.filter(|limit| *limit > 0).unwrap_or(NO_LIMIT)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod;

    fn of(spec: Value) -> (QosClass, [Option<i64>; 3]) {
        let pod = pod(spec);
        let settings = settings(&pod, None, &[]);
        assert_eq!((settings.cpu_period, settings.pids_limit), (Some(100_000), Some(-1)));
        (class(&pod), [settings.cpu_shares, settings.cpu_quota, settings.memory_limit])
    }

    /// The cases of upstream's `TestResourceConfigForPod`.
    #[test]
    fn a_group_is_limited_only_where_all_of_the_pod_is() {
        let container = |resources: Value| json!({"name": "a", "resources": resources});
        let part = container(json!({"requests": {"cpu": "100m", "memory": "100Mi"}}));
        let whole = container(
            json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "200m", "memory": "200Mi"}}),
        );
        let mixed = container(json!({"requests": {"cpu": "100m"}, "limits": {"memory": "200Mi"}}));
        for (spec, class, expected) in [
            (json!({"containers": [container(json!({}))]}), QosClass::BestEffort, [2, -1, -1]),
            (json!({"containers": [part]}), QosClass::Burstable, [102, -1, -1]),
            (json!({"containers": [whole]}), QosClass::Burstable, [102, 20_000, 200 << 20]),
            (json!({"containers": [whole, part]}), QosClass::Burstable, [204, -1, -1]),
            (json!({"containers": [whole, mixed]}), QosClass::Burstable, [204, -1, 400 << 20]),
            (
                json!({"containers": [whole], "overhead": {"cpu": "50m", "memory": "1Mi"}}),
                QosClass::Burstable,
                [153, 25_000, 201 << 20],
            ),
            (
                json!({"containers": [container(json!({"limits": {"cpu": "2m", "memory": "1Mi"}}))]}),
                QosClass::Guaranteed,
                [2, 1000, 1 << 20],
            ),
            (
                json!({"containers": [part], "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}),
                QosClass::Burstable,
                [1024, 200_000, -1],
            ),
        ] {
            assert_eq!(of(spec.clone()), (class, expected.map(Some)), "{spec}");
        }
    }

    #[test]
    fn huge_pages_are_those_that_are_asked_for() {
        let resources = json!({"requests": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}});
        let pod = pod(
            json!({"containers": [{"name": "a", "resources": resources}, {"name": "b", "resources": resources}]}),
        );
        let found = settings(&pod, None, &[2 << 20, 1 << 30]).huge_pages;
        assert_eq!(found, [(2 << 20, 8 << 20), (1 << 30, 0)]);
    }

    #[test]
    fn processes_are_limited_where_the_node_says_so() {
        assert_eq!(settings(&pod(json!({"containers": []})), Some(50), &[]).pids_limit, Some(50));
    }
}
