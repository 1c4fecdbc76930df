//! The pod network as workers use it: the node's own, or the addresses that a runtime gives out itself.
//!
//! The node's range comes with `spec.podCIDR`, maybe long after the kubelet's start; until then pods with a
//! network of their own wait, and the node is not ready.

pub(crate) mod setup;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kubelet_network::{HostPort, PodNetwork, Protocol};
use tokio::sync::watch;

use crate::pod::{all_containers, spec};

/// Attaches pods to a network.
#[async_trait::async_trait]
pub(crate) trait Network: Send + Sync + 'static {
    /// Puts a pod on the network, by a process inside its network namespace; again gives the same address.
    async fn attach(&self, uid: &str, pid: u32, ports: Vec<HostPort>) -> Result<IpAddr, String>;
    /// Takes a pod off the network; succeeds if it is not on it.
    async fn detach(&self, uid: &str) -> Result<(), String>;
    /// The address of a pod on the network.
    fn address(&self, uid: &str) -> Option<IpAddr>;
}

/// The network once it stands.
pub(crate) type NetworkReceiver = watch::Receiver<Option<Arc<dyn Network>>>;

/// The node's own bridge.
pub(crate) struct BridgeNetwork(pub Arc<PodNetwork>);

#[async_trait::async_trait]
impl Network for BridgeNetwork {
    async fn attach(&self, uid: &str, pid: u32, ports: Vec<HostPort>) -> Result<IpAddr, String> {
        let attachment =
            self.0.attach(uid, pid, &ports).await.map_err(|error| client::error::chain(&error))?;
        Ok(IpAddr::V4(attachment.address))
    }

    async fn detach(&self, uid: &str) -> Result<(), String> {
        self.0.detach(uid).await.map_err(|error| client::error::chain(&error))
    }

    fn address(&self, uid: &str) -> Option<IpAddr> {
        self.0.address_of(uid).map(IpAddr::V4)
    }
}

/// No network of ours: the runtime has its own.
pub(crate) struct RuntimeNetwork;

#[async_trait::async_trait]
impl Network for RuntimeNetwork {
    async fn attach(&self, _uid: &str, _pid: u32, _ports: Vec<HostPort>) -> Result<IpAddr, String> {
        Err("the runtime gave the pod no address".to_owned())
    }

    async fn detach(&self, _uid: &str) -> Result<(), String> {
        Ok(())
    }

    fn address(&self, _uid: &str) -> Option<IpAddr> {
        None
    }
}

/// The host ports of a pod with its own network.
#[must_use]
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    if spec(pod).host_network == Some(true) {
        return Vec::new();
    }
    let ports = all_containers(pod).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                host_ip: port
                    .host_ip
                    .as_deref()
                    .and_then(|ip| ip.parse().ok())
                    .unwrap_or(Ipv4Addr::UNSPECIFIED),
                host_port: port
                    .host_port
                    .and_then(|number| u16::try_from(number).ok())
                    .filter(|number| *number > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}
