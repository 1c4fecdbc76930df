//! Brings the pod network up, and follows what the API says of it: the node's range, the other nodes, the Service
//! `kubernetes`.
//!
//! What it was set up with is noted in the kubelet's directory, so that pods of this node have a network although the
//! API server does not answer: those that run keep what they have, and static pods can start.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use client::{EventType, Informer};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Pod;
use kubelet_network::{Attachment, HostPort, NetworkConfig, Peer, PodNetwork, Redirect};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{BridgeNetwork, Network, RuntimeNetwork, host_ports};
use crate::{
    NodeView,
    config::Config,
    context::Context,
    files::replace,
    pod::{self, environment::ServiceFacts},
};

/// How long an API server that answers takes at most: after that, what was noted counts.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the Service `kubernetes` is waited for, which a server that starts makes first.
const SERVICE_PATIENCE: Duration = Duration::from_secs(10);
/// Wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// In the kubelet's directory.
const FILE: &str = "network.json";

/// Brings the pod network up once the node has a range, and follows what it is to be.
pub(crate) struct NetworkSetup {
    pub(crate) config: Arc<Config>,
    pub(crate) context: Arc<Context>,
    pub(crate) nodes: Informer<NodeView>,
    /// All nodes, this one included; none where the runtime has a network of its own.
    pub(crate) peers: Option<Informer<Option<Peer>>>,
    pub(crate) services: Informer<ServiceFacts>,
    pub(crate) pods: Informer<Bytes>,
    pub(crate) sender: watch::Sender<Option<Arc<dyn Network>>>,
}

/// What the network was set up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    #[serde(rename = "podCIDR")]
    pod_cidr: Ipv4Net,
    /// Address and port of the Service `kubernetes`.
    service: Option<(Ipv4Addr, u16)>,
}

/// A network that stands.
struct Standing {
    network: Arc<PodNetwork>,
    noted: Noted,
    /// Tells who keeps the ways to other nodes of another range.
    ranges: watch::Sender<Ipv4Net>,
}

impl NetworkSetup {
    pub(crate) async fn run(self) {
        let shutdown = self.context.shutdown.clone();
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        let Some(peers) = self.peers.clone() else {
            self.sender.send_replace(Some(Arc::new(RuntimeNetwork)));
            return self.follow_labels().await;
        };
        let mut changes = self.nodes.subscribe();
        let mut standing: Option<Standing> = None;
        if timeout(PATIENCE, self.nodes.synced()).await.is_err()
            && let Some(noted) = self.noted()
        {
            tracing::info!(range = %noted.pod_cidr, "the API server does not answer: the network is as it was");
            standing = Some(self.bring_up(noted, &peers).await);
        }
        loop {
            for node in changes.recv().await.into_iter().filter_map(|change| change.after) {
                self.context.follow_node(node.labels.clone(), &node.extended);
                let Some(pod_cidr) = node.pod_cidr.or(self.config.pod_cidr) else { continue };
                match &mut standing {
                    None => {
                        let service = self.service().await;
                        standing = Some(self.bring_up(Noted { pod_cidr, service }, &peers).await);
                    }
                    Some(standing) => {
                        let service = self.known_service().or(standing.noted.service);
                        self.adjust(standing, Noted { pod_cidr, service }).await;
                    }
                }
            }
        }
    }

    /// A runtime with a network of its own: only admission wants to know of the node.
    async fn follow_labels(&self) {
        let mut changes = self.nodes.subscribe();
        loop {
            for node in changes.recv().await.into_iter().filter_map(|change| change.after) {
                self.context.follow_node(node.labels.clone(), &node.extended);
            }
        }
    }

    /// Tries until it stands: pods wait for it.
    async fn bring_up(&self, noted: Noted, peers: &Informer<Option<Peer>>) -> Standing {
        // Host ports of pods that a kubelet of today has taken are noted on the node as well.
        let _ = timeout(PATIENCE, self.pods.synced()).await;
        let range = noted.pod_cidr;
        if !self.config.cluster_cidr.contains(&range) {
            let cluster = self.config.cluster_cidr;
            tracing::warn!(%range, "the node's range is outside of --cluster-cidr {cluster}: pods of other nodes will not be reached");
        }
        let network = loop {
            let config = NetworkConfig {
                bridge: self.config.bridge.clone(),
                chain_prefix: chain_prefix(&self.config.bridge),
                pod_cidr: range,
                cluster_cidr: self.config.cluster_cidr,
                node_address: match self.context.host_ips.first() {
                    Some(IpAddr::V4(address)) => *address,
                    _ => Ipv4Addr::UNSPECIFIED,
                },
                redirects: self.redirects(noted.service),
            };
            match self.try_bring_up(config).await {
                Ok(network) => break Arc::new(network),
                Err(message) => self.failed(&format!("cannot set the pod network up: {message}")),
            }
            sleep(RETRY).await;
        };
        tracing::info!(%range, bridge = self.config.bridge, "the pod network stands");
        self.note(&noted);
        let (ranges, range) = watch::channel(range);
        let (peers, shutdown) = (peers.clone(), self.context.shutdown.clone());
        let followed = Arc::clone(&network);
        self.context.tasks.spawn(async move {
            let _ = shutdown.run_until_cancelled(follow_peers(followed, peers, range)).await;
        });
        self.sender.send_replace(Some(Arc::new(BridgeNetwork(Arc::clone(&network)))));
        Standing { network, noted, ranges }
    }

    /// Brings a network that stands to what the API says now.
    async fn adjust(&self, standing: &mut Standing, wanted: Noted) {
        if standing.noted == wanted {
            return;
        }
        let change = async || {
            standing.network.set_range(wanted.pod_cidr).await?;
            standing.network.set_redirects(&self.redirects(wanted.service)).await
        };
        while let Err(error) = change().await {
            self.failed(&format!("cannot change the pod network: {}", client::error::chain(&error)));
            sleep(RETRY).await;
        }
        tracing::info!(range = %wanted.pod_cidr, "the pod network has changed");
        self.note(&wanted);
        standing.ranges.send_replace(wanted.pod_cidr);
        standing.noted = wanted;
    }

    fn failed(&self, message: &str) {
        tracing::warn!("{message}");
        self.context.events.node(&self.context.node, EventType::Warning, "NetworkNotReady", message);
    }

    async fn try_bring_up(&self, config: NetworkConfig) -> Result<PodNetwork, String> {
        let chain = |error: &dyn std::error::Error| client::error::chain(error);
        let network = PodNetwork::new(config).await.map_err(|error| chain(&error))?;
        let views = self.context.runtime.list().await.map_err(|error| chain(&error))?;
        let alive: HashSet<&str> = views
            .iter()
            .filter(|view| view.sandboxes.iter().any(|sandbox| sandbox.ready))
            .map(|view| view.pod.uid.as_str())
            .collect();
        let ports = self.host_ports();
        let running: Vec<Attachment> = network
            .found()
            .await
            .map_err(|error| chain(&error))?
            .into_iter()
            .filter(|(uid, _)| alive.contains(uid.as_str()))
            .map(|(pod_uid, address)| {
                let of_note = || {
                    let noted = self.context.admission.lock().noted(&pod_uid);
                    noted.map(|pod| host_ports(&pod)).unwrap_or_default()
                };
                let host_ports = ports.get(&pod_uid).cloned().unwrap_or_else(of_note);
                Attachment { pod_uid, address, host_ports }
            })
            .collect();
        network.restore(&running).await.map_err(|error| chain(&error))?;
        Ok(network)
    }

    /// Host ports of the pods that the API has, by uid.
    fn host_ports(&self) -> HashMap<String, Vec<HostPort>> {
        let pods = self.pods.list();
        let typed = pods.iter().filter_map(|(_, bytes)| serde_json::from_slice::<Pod>(bytes).ok());
        typed.map(|pod| (pod::uid(&pod).to_owned(), host_ports(&pod))).collect()
    }

    /// The way of the Service `kubernetes` to the API server.
    fn redirects(&self, service: Option<(Ipv4Addr, u16)>) -> Vec<Redirect> {
        let Some(target) = self.config.api_server else {
            tracing::warn!(
                "the API server's address is not known: pods cannot reach it as kubernetes.default"
            );
            return Vec::new();
        };
        let redirect = |(address, port)| Redirect { address, port, to: *target.ip(), to_port: target.port() };
        service.map(redirect).into_iter().collect()
    }

    /// Address and port of the Service `kubernetes`, which is waited for.
    async fn service(&self) -> Option<(Ipv4Addr, u16)> {
        let found = async {
            let mut changes = self.services.subscribe();
            loop {
                if let Some(service) = self.known_service() {
                    return service;
                }
                changes.recv().await;
            }
        };
        let found = timeout(SERVICE_PATIENCE, found).await.ok();
        if found.is_none() {
            tracing::warn!("there is no Service default/kubernetes with an address");
        }
        found
    }

    /// Address and port of the Service `kubernetes`, if the API has told of it.
    fn known_service(&self) -> Option<(Ipv4Addr, u16)> {
        let service = self.services.get(&client::Key::new("default", "kubernetes"))?;
        let (IpAddr::V4(address), Some((_, port, _))) = (service.address, service.ports.first()) else {
            return None;
        };
        Some((address, u16::try_from(*port).unwrap_or(443)))
    }

    fn file(&self) -> PathBuf {
        self.config.root_dir.join(FILE)
    }

    /// What was noted, or what flags say where nothing was.
    fn noted(&self) -> Option<Noted> {
        let read = std::fs::read(self.file()).ok();
        let noted = read.and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(noted) => Some(noted),
            Err(error) => {
                tracing::warn!("what the network was set up with cannot be read: {error}");
                None
            }
        });
        noted.or_else(|| self.config.pod_cidr.map(|pod_cidr| Noted { pod_cidr, service: None }))
    }

    fn note(&self, noted: &Noted) {
        let written = serde_json::to_vec(noted).map_err(Into::into);
        if let Err(error) = written.and_then(|content| replace(&self.file(), &content)) {
            tracing::warn!("what the network was set up with cannot be noted: {error}");
        }
    }
}

/// Keeps the ways to the other nodes' pods as the API has the nodes.
async fn follow_peers(
    network: Arc<PodNetwork>,
    nodes: Informer<Option<Peer>>,
    mut range: watch::Receiver<Ipv4Net>,
) {
    nodes.synced().await;
    let mut changes = nodes.subscribe();
    let mut known: Option<Vec<Peer>> = None;
    loop {
        // Nodes change all the time, and their ways almost never.
        let mut peers: Vec<Peer> =
            nodes.list().iter().filter_map(|(_, peer)| peer.as_ref().clone()).collect();
        peers.sort_unstable();
        if known.as_ref() != Some(&peers) {
            match network.set_peers(&peers).await {
                Ok(()) => known = Some(peers),
                Err(error) => {
                    tracing::warn!("cannot set the ways to other nodes: {}", client::error::chain(&error));
                    sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            _ = changes.recv() => {}
            Ok(()) = range.changed() => known = None,
        }
    }
}

/// The prefix of this kubelet's iptables chains: one per bridge, so that two kubelets do not meet.
pub(crate) fn chain_prefix(bridge: &str) -> String {
    let name: String = bridge.chars().filter(char::is_ascii_alphanumeric).collect();
    name.to_uppercase()
}

/// Forgets what was noted, for a node that leaves its cluster.
pub(crate) fn forget(root: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(root.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
