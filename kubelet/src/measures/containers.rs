//! Containers that were started, that could not be, and that have ended.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use parking_lot::Mutex;

use super::text::{Kind, Text};
use crate::pod::{is_ephemeral, is_init};

/// What upstream's label `container_type` says.
type Sort = &'static str;
const CONTAINER: Sort = "container";
const INIT_CONTAINER: Sort = "init_container";
const EPHEMERAL_CONTAINER: Sort = "ephemeral_container";

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct ContainerMeasures {
    /// Attempts to start one.
    started: Mutex<BTreeMap<Sort, u64>>,
    /// Those that failed, by the reason that the container waits with.
    failed: Mutex<BTreeMap<(Sort, String), u64>>,
    /// Ends, by exit code and reason.
    terminated: Mutex<BTreeMap<(Sort, i32, String), u64>>,
}

impl ContainerMeasures {
    /// A container was started, or not, with that reason.
    pub(crate) fn started(&self, pod: &Pod, name: &str, failure: Option<&str>) {
        let sort = match (is_init(pod, name), is_ephemeral(pod, name)) {
            (true, _) => INIT_CONTAINER,
            (false, true) => EPHEMERAL_CONTAINER,
            (false, false) => CONTAINER,
        };
        *self.started.lock().entry(sort).or_default() += 1;
        if let Some(reason) = failure {
            *self.failed.lock().entry((sort, reason.to_owned())).or_default() += 1;
        }
    }

    /// A pod's status has changed: each end that it tells of and did not before counts (upstream's
    /// `checkAndRecordTerminations`). Of a container that is restarted only the last state tells.
    pub(crate) fn changed(&self, before: Option<&PodStatus>, now: &PodStatus) {
        for (sort, list) in LISTS {
            let before = before.and_then(|before| list(before).as_deref()).unwrap_or_default();
            for status in list(now).iter().flatten() {
                let old = before.iter().find(|old| old.name == status.name);
                // What ended before this kubelet looked at the pod was counted by the one before it.
                let last = old.and_then(|_| terminated(status.last_state.as_ref()));
                for ended in terminated(status.state.as_ref()).into_iter().chain(last) {
                    let mut known = old.into_iter().flat_map(ends);
                    if known.any(|known| known.container_id == ended.container_id) {
                        continue;
                    }
                    let key = (sort, ended.exit_code, ended.reason.clone().unwrap_or_default());
                    *self.terminated.lock().entry(key).or_default() += 1;
                }
            }
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let help = "[ALPHA] Cumulative number of errors when starting containers";
        let mut family = text.family("kubelet_started_containers_errors_total", Kind::Counter, help);
        for ((sort, reason), count) in self.failed.lock().iter() {
            family.sample(&[("code", reason), ("container_type", sort)], count);
        }
        let help = "[ALPHA] Cumulative number of containers started";
        let mut family = text.family("kubelet_started_containers_total", Kind::Counter, help);
        for (sort, count) in self.started.lock().iter() {
            family.sample(&[("container_type", sort)], count);
        }
        let help = "[ALPHA] Cumulative number of container terminations.";
        let mut family = text.family("kubelet_terminated_containers_total", Kind::Counter, help);
        for ((sort, code, reason), count) in self.terminated.lock().iter() {
            let labels = [("container_type", *sort), ("exit_code", &code.to_string()), ("reason", reason)];
            family.sample(&labels, count);
        }
    }
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// The ends that a status tells of.
fn ends(status: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    terminated(status.state.as_ref()).into_iter().chain(terminated(status.last_state.as_ref()))
}

/// Where a status has the containers of each sort.
type List = fn(&PodStatus) -> &Option<Vec<ContainerStatus>>;
const LISTS: [(Sort, List); 3] = [
    (CONTAINER, |status| &status.container_statuses),
    (INIT_CONTAINER, |status| &status.init_container_statuses),
    (EPHEMERAL_CONTAINER, |status| &status.ephemeral_container_statuses),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn an_end_counts_once() {
        let measures = ContainerMeasures::default();
        let status = |state: serde_json::Value, last: serde_json::Value| -> PodStatus {
            let status = json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last});
            serde_json::from_value(json!({"initContainerStatuses": [status]})).unwrap()
        };
        let ended = |id: &str| json!({"terminated": {"exitCode": 139, "reason": "Error", "containerID": id}});
        let states = [
            status(json!({"running": {}}), json!({})),
            status(ended("1"), json!({})),
            status(json!({"running": {}}), ended("1")),
            // From the second crash on only the last state tells of it.
            status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended("2")),
            status(json!({"running": {}}), ended("2")),
        ];
        measures.changed(None, &states[0]);
        for pair in states.windows(2) {
            measures.changed(Some(&pair[0]), &pair[1]);
        }
        measures.changed(None, &states[4]);
        let pod = pod(json!({"containers": [{"name": "b"}], "initContainers": [{"name": "a"}]}));
        measures.started(&pod, "a", None);
        measures.started(&pod, "b", Some("ErrImagePull"));
        let mut text = Text::default();
        measures.write(&mut text);
        let page = text.finish();
        for line in [
            "kubelet_terminated_containers_total{container_type=\"init_container\",exit_code=\"139\",reason=\"Error\"} 2\n",
            "kubelet_started_containers_total{container_type=\"container\"} 1\n",
            "kubelet_started_containers_total{container_type=\"init_container\"} 1\n",
            "kubelet_started_containers_errors_total{code=\"ErrImagePull\",container_type=\"container\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
