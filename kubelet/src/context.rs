//! What every worker shares: the ways to the API and the runtime, and what is known of the node.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use client::{Client, Informer};
use kubelet_runtime::PodRuntime;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accounts::Accounts,
    admission::Admission,
    events::Events,
    groups::Groups,
    images::Images,
    machine::Machine,
    measures::Measures,
    network::NetworkReceiver,
    node::Registered,
    pod::{environment::ServiceFacts, identity::NameService, resources::Demand},
    status_writer::StatusWriter,
    volumes::{Volumes, objects::Objects},
};

/// Shared by all workers of a kubelet.
pub(crate) struct Context {
    /// The node's name.
    pub node: String,
    /// The containers.
    pub runtime: Arc<dyn PodRuntime>,
    /// The pods' control groups.
    pub groups: Groups,
    /// The pod network, once it stands.
    pub network: NetworkReceiver,
    /// Volumes.
    pub volumes: Volumes,
    /// ConfigMaps and Secrets.
    pub objects: Arc<Objects>,
    /// Images.
    pub images: Images,
    /// Who they know.
    pub accounts: Accounts,
    /// The API, for mirror pods.
    pub client: Client,
    /// The node's object, which owns them, once it is registered.
    pub registered: Registered,
    /// Where statuses go.
    pub statuses: StatusWriter,
    /// Where events go.
    pub events: Events,
    /// Services, for environment variables.
    pub services: Informer<ServiceFacts>,
    /// What pods take of the node.
    pub admission: Mutex<Admission>,
    /// Names and resolvers.
    pub names: NameService,
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// What the node has to give.
    pub allocatable: Demand,
    /// The machine.
    pub machine: Machine,
    /// What is counted of the kubelet's own doing.
    pub measures: Arc<Measures>,
    /// Image for sandboxes; `None` for our own.
    pub sandbox_image: Option<String>,
    /// An HTTP client for probes and hooks.
    pub http: reqwest::Client,
    /// Where seccomp profiles of this node stand.
    pub seccomp_root: std::path::PathBuf,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// Joined at the end.
    pub tasks: TaskTracker,
}

impl Context {
    /// Lets admission know what the API says of this node.
    pub(crate) fn follow_node(&self, labels: BTreeMap<String, String>, extended: &BTreeMap<String, String>) {
        let mut admission = self.admission.lock();
        admission.set_labels(labels);
        admission.set_scarce(self.machine.scarce(extended));
    }
}
