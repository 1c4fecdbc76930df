//! What the pods of this node take of it, and whether one more fits.
//!
//! The decision itself is pure (`pod::admit`); this keeps the sum of those that were taken.

use std::collections::HashMap;

use api_objects::Value;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    pod::{
        admit::{NodeFacts, Rejection, Used, admit, resize},
        uid,
    },
    pressure::thresholds::Pressure,
};

/// The pods that this node has taken.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    node: NodeFacts,
    taken: HashMap<String, Pod>,
}

impl Admission {
    /// For a node with nothing on it.
    #[must_use]
    pub(crate) fn new(node: NodeFacts) -> Self {
        Self { node, taken: HashMap::new() }
    }

    /// Follows changes of the node's labels.
    pub(crate) fn set_labels(&mut self, labels: std::collections::BTreeMap<String, String>) {
        self.node.labels = labels;
    }

    /// Follows what the node is short of.
    pub(crate) fn set_pressure(&mut self, pressure: Pressure) {
        self.node.pressure = pressure;
    }

    /// Takes a pod that was taken before (a restart of the kubelet): it is not asked again.
    pub(crate) fn adopt(&mut self, pod: &Pod) {
        self.taken.insert(uid(pod).to_owned(), lean(pod));
    }

    /// Takes a pod if it fits.
    pub(crate) fn admit(&mut self, pod: &Pod, raw_spec: &Value) -> Result<(), Rejection> {
        let mut used = Used::default();
        for (other, pod_there) in &self.taken {
            if other != uid(pod) {
                used.add(pod_there);
            }
        }
        admit(pod, raw_spec, &self.node, &used)?;
        self.adopt(pod);
        Ok(())
    }

    /// Gives a pod the resources that it asks for now, if it fits with them; else says why it keeps what it has, and
    /// what that is.
    pub(crate) fn resize(&mut self, pod: &Pod) -> Result<(), (&'static str, String, Box<Pod>)> {
        let Some(before) = self.taken.get(uid(pod)) else { return Ok(()) };
        let wanted = lean(pod);
        if wanted == *before {
            return Ok(());
        }
        let mut used = Used::default();
        for (other, pod_there) in &self.taken {
            if other != uid(pod) {
                used.add(pod_there);
            }
        }
        match resize(&wanted, before, &self.node, &used) {
            Ok(()) => {
                self.taken.insert(uid(pod).to_owned(), wanted);
                Ok(())
            }
            Err((reason, message)) => Err((reason, message, Box::new(before.clone()))),
        }
    }

    /// Gives back what a pod took.
    pub(crate) fn release(&mut self, uid: &str) {
        self.taken.remove(uid);
    }
}

/// The pod with no more than the sum needs: resources and ports.
fn lean(pod: &Pod) -> Pod {
    let mut lean = Pod::default();
    let spec = crate::pod::spec(pod);
    let keep = |container: &k8s_openapi::api::core::v1::Container| k8s_openapi::api::core::v1::Container {
        name: container.name.clone(),
        resources: container.resources.clone(),
        ports: container.ports.clone(),
        restart_policy: container.restart_policy.clone(),
        ..Default::default()
    };
    lean.spec = Some(k8s_openapi::api::core::v1::PodSpec {
        containers: spec.containers.iter().map(keep).collect(),
        init_containers: spec.init_containers.as_ref().map(|list| list.iter().map(keep).collect()),
        host_network: spec.host_network,
        overhead: spec.overhead.clone(),
        ..Default::default()
    });
    lean
}
