//! Tells the API what has become of the pod.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet_runtime::PodView;

use super::Worker;
use crate::{
    pod::{
        is_terminal, name, namespace, plan,
        status::{self, Object, status},
        uid,
    },
    static_pods::mirror::is_static,
};

impl Worker {
    /// Whether all containers are on their way out, or out and none has started again.
    fn is_restarting_all(&self, pod: &Pod, view: Option<&PodView>) -> bool {
        let conditions = self.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let began = conditions
            .into_iter()
            .any(|condition| condition.type_ == status::ALL_RESTARTING && condition.status == "True");
        let empty = view.is_none_or(|view| view.containers.is_empty());
        !self.finished && (plan::restart_all(pod, view).is_some() || (began && empty))
    }

    /// Computes the status and hands it to the writer.
    pub(super) fn publish(&mut self, pod: &Pod, view: Option<&PodView>, delete: bool) {
        let (not_ready, not_started) = self.probes.held_back(pod);
        let not_ready = not_ready.into_iter().filter(|name| !self.before.ready.contains_key(name)).collect();
        let not_started =
            not_started.into_iter().filter(|name| !self.before.started.contains_key(name)).collect();
        let pod_ips: Vec<IpAddr> = self.address.into_iter().collect();
        let inputs = status::Inputs {
            runtime: self.context.runtime.name().to_owned(),
            waiting: self
                .waiting
                .iter()
                .map(|(name, (waiting, _))| (name.clone(), waiting.clone()))
                .collect(),
            not_ready,
            not_started,
            termination_messages: self.messages.iter().map(|(id, text)| (id.clone(), text.clone())).collect(),
            network_ready: status::sandbox_ready(pod, view, &pod_ips),
            pod_ips,
            host_ips: self.context.host_ips.clone(),
            recursive_read_only: self.context.runtime.capabilities().volumes,
            verdict: self.verdict.clone(),
            disruption: self
                .evicted
                .as_ref()
                .filter(|eviction| eviction.disruption)
                .map(|eviction| eviction.message.clone()),
            resize_pending: self.resize_pending.clone(),
            resizing: self.resizing(pod, view),
            restarting_all: self.is_restarting_all(pod, view),
            finished: self.finished,
        };
        // What others wrote into the status (conditions of gates) comes from the object.
        let mut before = self.status.clone();
        if let (Some(before), Some(current)) = (&mut before, &pod.status) {
            merge_foreign_conditions(before, current);
        }
        let computed = status(pod, view, &inputs, before.as_ref(), Timestamp::now());
        if is_terminal(Some(&computed)) {
            // Before anybody hears of it: the scheduler gives it to the next pod at once.
            self.context.admission.lock().release(uid(pod));
        }
        if is_static(pod) {
            self.publish_to_mirror(pod, &computed);
        } else {
            let known = || status::as_it_came(self.object.as_deref().unwrap_or_default());
            let object = Object { uid: uid(pod), namespace: namespace(pod), name: name(pod) };
            self.context.statuses.set(&object, known, &computed, delete);
        }
        self.context.measures.pod_phase(uid(pod), computed.phase.as_deref());
        let before = self.status.as_ref().or(pod.status.as_ref());
        self.context.measures.containers.changed(before, &computed);
        self.status = Some(computed);
    }
}

/// Conditions that are not the kubelet's: as the API has them now.
fn merge_foreign_conditions(before: &mut PodStatus, current: &PodStatus) {
    let conditions = before.conditions.get_or_insert_default();
    conditions.retain(|condition| status::is_kubelets(&condition.type_));
    let foreign =
        current.conditions.iter().flatten().filter(|condition| !status::is_kubelets(&condition.type_));
    conditions.extend(foreign.cloned());
}
