//! What the pods of this node take of it, and whether one more fits.
//!
//! The decision itself is pure (`pod::admit`); this keeps the sum of those that were taken, and through
//! [`Allocations`] what each was given.

use std::collections::{BTreeMap, HashMap};

use api_objects::Value;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    allocations::Allocations,
    pod::{
        admit::{NodeFacts, Rejection, Used, admit, resize},
        resources::qos_class,
        uid,
    },
    pressure::thresholds::Pressure,
};

/// The pods that this node has taken.
#[derive(Debug)]
pub(crate) struct Admission {
    node: NodeFacts,
    taken: HashMap<String, Taken>,
    allocations: Allocations,
}

/// What one pod takes.
#[derive(Debug)]
struct Taken {
    /// The pod as [`lean`] leaves it, as JSON: a tenth of what it takes when it is read, and only a resize asks.
    allocated: Box<str>,
    used: Used,
    burstable: bool,
}

impl Taken {
    fn by(allocated: &Pod) -> Self {
        Self {
            allocated: text(allocated),
            used: Used::by(allocated),
            burstable: qos_class(allocated) == "Burstable",
        }
    }
}

fn text(pod: &Pod) -> Box<str> {
    serde_json::to_string(pod).expect("a pod must be plain JSON").into_boxed_str()
}

impl Admission {
    /// For a node with nothing on it.
    #[must_use]
    pub(crate) fn new(node: NodeFacts, allocations: Allocations) -> Self {
        Self { node, taken: HashMap::new(), allocations }
    }

    /// Follows changes of the node's labels.
    pub(crate) fn set_labels(&mut self, labels: BTreeMap<String, String>) {
        self.node.labels = labels;
    }

    /// Follows what the node has of huge pages and extended resources.
    pub(crate) fn set_scarce(&mut self, scarce: BTreeMap<String, i64>) {
        self.node.scarce = scarce;
    }

    /// Follows what the node is short of.
    pub(crate) fn set_pressure(&mut self, pressure: Pressure) {
        self.node.pressure = pressure;
    }

    /// Takes a pod that was taken before (a restart of the kubelet): it is not asked again, and has what it had.
    pub(crate) fn adopt(&mut self, pod: &Pod) {
        let allocated = lean(&self.allocations.recall(pod));
        self.taken.insert(uid(pod).to_owned(), Taken::by(&allocated));
    }

    /// Whether a pod was taken, by this kubelet or by the one before it.
    pub(crate) fn was_taken(&self, uid: &str) -> bool {
        self.holds(uid) || self.allocations.has(uid)
    }

    /// What the kubelet before this one has noted of a pod: its containers' resources and ports.
    pub(crate) fn noted(&self, uid: &str) -> Option<Pod> {
        self.allocations.read(uid)
    }

    /// Whether a pod has something of the node now.
    pub(crate) fn holds(&self, uid: &str) -> bool {
        self.taken.contains_key(uid)
    }

    /// Takes a pod if it fits.
    pub(crate) fn admit(&mut self, pod: &Pod, raw_spec: &Value) -> Result<(), Rejection> {
        admit(pod, raw_spec, &self.node, &self.used_by_others(uid(pod)))?;
        let allocated = lean(pod);
        // Without the note the pod runs all the same: upstream only logs it too.
        if let Err(error) = self.allocations.keep(&allocated, uid(pod)) {
            tracing::warn!(uid = uid(pod), "cannot note what a pod was given: {error}");
        }
        self.taken.insert(uid(pod).to_owned(), Taken::by(&allocated));
        Ok(())
    }

    fn used_by_others(&self, uid: &str) -> Used {
        let mut used = Used::default();
        for (_, taken) in self.taken.iter().filter(|(other, _)| *other != uid) {
            used.add(&taken.used);
        }
        used
    }

    /// Gives a pod the resources that it asks for now, if it fits with them; else says why it keeps what it has, and
    /// what that is.
    pub(crate) fn resize(&mut self, pod: &Pod) -> Result<(), (&'static str, String, Box<Pod>)> {
        let Some(before) = self.taken.get(uid(pod)) else { return Ok(()) };
        let wanted = lean(pod);
        if text(&wanted) == before.allocated {
            return Ok(());
        }
        let before: Pod = serde_json::from_str(&before.allocated).expect("it was written here");
        let used = self.used_by_others(uid(pod));
        let fits = resize(&wanted, &before, &self.node, &used).and_then(|()| {
            // Given only what the next kubelet will know of.
            let noted = self.allocations.keep(&wanted, uid(pod));
            noted.map_err(|error| ("Deferred", format!("cannot note what the pod is given: {error}")))
        });
        match fits {
            Ok(()) => {
                self.taken.insert(uid(pod).to_owned(), Taken::by(&wanted));
                Ok(())
            }
            Err((reason, message)) => Err((reason, message, Box::new(before))),
        }
    }

    /// Milli-CPU that the burstable pods ask for together.
    pub(crate) fn burstable_cpu(&self) -> i64 {
        let burstable = self.taken.values().filter(|taken| taken.burstable);
        burstable.map(|taken| taken.used.demand.cpu).sum()
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
        resources: spec.resources.clone(),
        ..Default::default()
    });
    lean
}
