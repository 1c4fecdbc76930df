//! The phase of a pod out of its containers' statuses, as upstream's `getPhase` (`pkg/kubelet`) counts them.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{init_containers, is_sidecar, restart::container_restarts, spec};

/// The phase.
///
/// `finished` says that the pod will not run again whatever its restart policy says (it is being deleted, or
/// its deadline has passed), and all of it has stopped.
#[must_use]
pub fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], finished: bool) -> &'static str {
    let mut pending_initialization = 0;
    let (mut failed_initialization, mut failed_for_good) = (0, 0);
    for container in init_containers(pod) {
        let status = init.iter().find(|status| status.name == container.name);
        match classify(status) {
            Class::Unknown => pending_initialization += 1,
            Class::Running => {
                let started = status.and_then(|status| status.started).unwrap_or_default();
                if !is_sidecar(container) || !started {
                    pending_initialization += 1;
                }
            }
            Class::Waiting { ended: Some(0) } | Class::Ended(0) => {}
            Class::Waiting { ended: Some(_) } if is_sidecar(container) => {}
            Class::Waiting { .. } => pending_initialization += 1,
            Class::Ended(_) if is_sidecar(container) => {}
            Class::Ended(code) => {
                failed_initialization += 1;
                failed_for_good += u32::from(!container_restarts(pod, container, code));
            }
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded, mut unknown) = (0, 0, 0, 0, 0);
    let mut will_restart = false;
    for container in &spec(pod).containers {
        match classify(main.iter().find(|status| status.name == container.name)) {
            Class::Unknown => unknown += 1,
            Class::Running => running += 1,
            Class::Ended(code) => {
                stopped += 1;
                succeeded += u32::from(code == 0);
                will_restart |= container_restarts(pod, container, code);
            }
            Class::Waiting { ended: Some(_) } => {
                stopped += 1;
                will_restart = true;
            }
            Class::Waiting { ended: None } => waiting += 1,
        }
    }
    if failed_for_good > 0 || (failed_initialization > 0 && finished) {
        return "Failed";
    }
    let has_run = running + stopped > 0;
    if (pending_initialization > 0 || failed_initialization > 0) && !has_run {
        return if finished { "Failed" } else { "Pending" };
    }
    if finished && running == 0 && waiting + unknown > 0 {
        return "Failed";
    }
    if waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        let outcome = if stopped == succeeded { "Succeeded" } else { "Failed" };
        return if will_restart && !finished { "Running" } else { outcome };
    }
    "Pending"
}

enum Class {
    Unknown,
    Running,
    Waiting { ended: Option<i32> },
    Ended(i32),
}

fn classify(status: Option<&ContainerStatus>) -> Class {
    let Some(status) = status else { return Class::Unknown };
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Class::Running;
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return Class::Ended(ended.exit_code);
    }
    if state.is_some_and(|state| state.waiting.is_some()) {
        let ended = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        return Class::Waiting { ended: ended.map(|ended| ended.exit_code) };
    }
    Class::Unknown
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod;

    fn statuses(of: &[(&str, Value)]) -> Vec<ContainerStatus> {
        of.iter()
            .map(|(name, rest)| {
                let mut status =
                    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0});
                for (key, value) in rest.as_object().unwrap() {
                    status[key] = value.clone();
                }
                serde_json::from_value(status).unwrap()
            })
            .collect()
    }

    fn running() -> Value {
        json!({"state": {"running": {}}, "started": true})
    }

    fn ended(code: i32) -> Value {
        json!({"state": {"terminated": {"exitCode": code}}})
    }

    fn back_off(code: i32) -> Value {
        json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": code}}})
    }

    fn waiting() -> Value {
        json!({"state": {"waiting": {"reason": "ContainerCreating"}}})
    }

    /// The table of upstream's `TestPodPhaseWithRestart*`, in words: policy, first and second container.
    #[test]
    fn main_containers() {
        let rows = [
            ("Always", Vec::new(), "Pending"),
            ("Always", vec![("a", running()), ("b", running())], "Running"),
            ("Always", vec![("a", ended(0)), ("b", ended(0))], "Running"),
            ("Always", vec![("a", running()), ("b", ended(1))], "Running"),
            ("Always", vec![("a", running())], "Pending"),
            ("Always", vec![("a", running()), ("b", back_off(1))], "Running"),
            ("Always", vec![("a", running()), ("b", waiting())], "Pending"),
            ("Never", vec![("a", ended(0)), ("b", ended(0))], "Succeeded"),
            ("Never", vec![("a", ended(1)), ("b", ended(0))], "Failed"),
            ("Never", vec![("a", running()), ("b", ended(1))], "Running"),
            ("OnFailure", vec![("a", ended(0)), ("b", ended(0))], "Succeeded"),
            ("OnFailure", vec![("a", ended(1)), ("b", ended(1))], "Running"),
            ("OnFailure", vec![("a", running()), ("b", back_off(1))], "Running"),
        ];
        for (policy, main, expected) in rows {
            let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
            assert_eq!(phase(&pod, &[], &statuses(&main), false), expected, "{policy} {main:?}");
        }
    }

    #[test]
    fn init_containers_come_first() {
        let spec = |policy: &str| {
            pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}],
                "initContainers": [{"name": "i"}]}))
        };
        let main = statuses(&[("a", waiting())]);
        assert_eq!(phase(&spec("Always"), &statuses(&[("i", running())]), &main, false), "Pending");
        assert_eq!(phase(&spec("Always"), &statuses(&[("i", ended(1))]), &main, false), "Pending");
        assert_eq!(phase(&spec("Never"), &statuses(&[("i", ended(1))]), &main, false), "Failed");
        let main = statuses(&[("a", running())]);
        assert_eq!(phase(&spec("Always"), &statuses(&[("i", ended(0))]), &main, false), "Running");
    }

    #[test]
    fn a_deleted_pod_ends() {
        let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
        assert_eq!(phase(&pod, &[], &statuses(&[("a", ended(0))]), true), "Succeeded");
        assert_eq!(phase(&pod, &[], &statuses(&[("a", ended(137))]), true), "Failed");
        assert_eq!(phase(&pod, &[], &statuses(&[("a", waiting())]), true), "Failed");
    }
}
