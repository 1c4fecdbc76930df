//! In-place resize: what has to happen so that a running container has the limits that its pod gives it (KEP-1287).

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kubelet_runtime::{ContainerResources, ContainerView};

use super::{
    resources::{cgroup, memory_request},
    spec,
};

/// Note of a container: the bytes of memory that it asked for when it was started. No limit of the runtime tells.
pub const MEMORY_REQUEST_ANNOTATION: &str = "io.minik8s.container.memory-request";

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

/// Compares what a container should have with what its run has. What a runtime does not tell counts as right.
#[must_use]
pub fn decide(pod: &Pod, container: &Container, run: &ContainerView) -> Resize {
    let Some(actual) = &run.resources else { return Resize::Settled };
    // The score is set once, at the start.
    let wanted = ContainerResources { oom_score_adj: None, ..cgroup(pod, container, 1) };
    let differs = |wanted: Option<i64>, actual: Option<i64>| wanted.is_some() && wanted != actual;
    let cpu = differs(wanted.cpu_shares, actual.cpu_shares)
        || differs(wanted.cpu_quota, actual.cpu_quota)
        || differs(wanted.cpu_period, actual.cpu_period);
    let memory = differs(wanted.memory_limit, actual.memory_limit);
    let restarts = |resource: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
    };
    let asked = run.annotations.get(MEMORY_REQUEST_ANNOTATION).and_then(|bytes| bytes.parse::<i64>().ok());
    let asks_otherwise = asked.is_some_and(|asked| asked != memory_request(container));
    if (cpu && restarts("cpu")) || ((memory || asks_otherwise) && restarts("memory")) {
        return Resize::Restart;
    }
    if cpu || memory { Resize::InPlace(wanted) } else { Resize::Settled }
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
    use crate::pod::testing::{pod, running};

    #[test]
    fn limits_are_changed_in_place_unless_the_policy_says_otherwise() {
        let asking = |cpu: &str, memory: &str, asks: &str| {
            let (limits, requests) =
                (json!({"cpu": cpu, "memory": memory}), json!({"cpu": cpu, "memory": asks}));
            pod(json!({"containers": [{"name": "a", "resources": {"limits": limits, "requests": requests},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}))
        };
        let with = |cpu: &str, memory: &str| asking(cpu, memory, memory);
        let before = with("500m", "64Mi");
        let mut run = running(&before, "a", 0, 0);
        let has = cgroup(&before, &spec(&before).containers[0], 1);
        run.resources = Some(ContainerResources { oom_score_adj: None, ..has });
        run.annotations.insert(MEMORY_REQUEST_ANNOTATION.into(), (64 << 20).to_string());
        let judge = |pod: &Pod| decide(pod, &spec(pod).containers[0], &run);
        assert_eq!(judge(&before), Resize::Settled);
        let Resize::InPlace(wanted) = judge(&with("1", "64Mi")) else { panic!("more CPU needs no restart") };
        assert_eq!((wanted.cpu_quota, wanted.cpu_shares), (Some(100_000), Some(1024)));
        assert_eq!(judge(&with("1", "128Mi")), Resize::Restart);
        assert_eq!(judge(&with_resources(&with("1", "128Mi"), &before)), Resize::Settled);
        // What it asks for no limit shows, but its policy is about it too.
        assert_eq!(judge(&asking("500m", "64Mi", "32Mi")), Resize::Restart);
        run.annotations.remove(MEMORY_REQUEST_ANNOTATION);
        assert_eq!(decide(&before, &spec(&before).containers[0], &run), Resize::Settled);
        run.resources = None;
        let grown = with("1", "128Mi");
        assert_eq!(decide(&grown, &spec(&grown).containers[0], &run), Resize::Settled);
    }
}
