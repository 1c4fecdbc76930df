//! In-place resize: what has to happen so that a running container has the limits that its pod gives it (KEP-1287).

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kubelet_runtime::ContainerResources;

use super::{resources::cgroup, spec};

/// What a running container needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Nothing: it has what it should have.
    Settled,
    /// Its limits are changed while it runs.
    InPlace(ContainerResources),
    /// It has to be started anew with them: its `resizePolicy` says so.
    Restart,
}

/// Compares what a container should have with what it has. What a runtime does not tell counts as right.
#[must_use]
pub fn decide(pod: &Pod, container: &Container, actual: Option<&ContainerResources>) -> Resize {
    let Some(actual) = actual else { return Resize::Settled };
    // The score is set once, at the start.
    let wanted = ContainerResources { oom_score_adj: None, ..cgroup(pod, container, 1) };
    let differs = |wanted: Option<i64>, actual: Option<i64>| wanted.is_some() && wanted != actual;
    let cpu = differs(wanted.cpu_shares, actual.cpu_shares)
        || differs(wanted.cpu_quota, actual.cpu_quota)
        || differs(wanted.cpu_period, actual.cpu_period);
    let memory = differs(wanted.memory_limit, actual.memory_limit);
    if !cpu && !memory {
        return Resize::Settled;
    }
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
    };
    if (cpu && restarts("cpu")) || (memory && restarts("memory")) {
        return Resize::Restart;
    }
    Resize::InPlace(wanted)
}

/// The pod with the resources that were allocated to it instead of those that it asks for.
#[must_use]
pub fn with_resources(pod: &Pod, allocated: &Pod) -> Pod {
    fn take(containers: &mut [Container], from: &[Container]) {
        for container in containers {
            if let Some(found) = from.iter().find(|found| found.name == container.name) {
                container.resources.clone_from(&found.resources);
            }
        }
    }
    let mut pod = pod.clone();
    let from: &PodSpec = spec(allocated);
    if let Some(spec) = &mut pod.spec {
        spec.resources.clone_from(&from.resources);
        take(&mut spec.containers, &from.containers);
        if let (Some(containers), Some(from)) = (&mut spec.init_containers, &from.init_containers) {
            take(containers, from);
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn limits_are_changed_in_place_unless_the_policy_says_otherwise() {
        let with = |cpu: &str, memory: &str| {
            pod(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": cpu, "memory": memory}},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}))
        };
        let before = with("500m", "64Mi");
        let actual =
            ContainerResources { oom_score_adj: None, ..cgroup(&before, &spec(&before).containers[0], 1) };
        let judge = |pod: &Pod| decide(pod, &spec(pod).containers[0], Some(&actual));
        assert_eq!(judge(&before), Resize::Settled);
        let Resize::InPlace(wanted) = judge(&with("1", "64Mi")) else { panic!("more CPU needs no restart") };
        assert_eq!((wanted.cpu_quota, wanted.cpu_shares), (Some(100_000), Some(1024)));
        assert_eq!(judge(&with("1", "128Mi")), Resize::Restart);
        assert_eq!(judge(&with_resources(&with("1", "128Mi"), &before)), Resize::Settled);
        assert_eq!(decide(&before, &spec(&before).containers[0], None), Resize::Settled);
    }
}
