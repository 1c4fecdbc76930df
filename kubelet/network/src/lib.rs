//! The pod network of a node: a bridge, veth pairs, addresses from the node's podCIDR, host ports, ways to other nodes.
//!
//! Everything here can be rebuilt from what is on the node: links carry our prefix, iptables rules stand in
//! chains of our own and are written as a whole with `iptables-restore`, and the addresses in use are told by
//! the kubelet from the pods that run. Nothing is kept in memory only, and nothing foreign is touched.
//!
//! What stands where: `allocator` (which address, pure), `rules` (which iptables rules, pure), `iptables` (applies
//! them), `links` (rtnetlink on the node and inside pods), `routes` (which way leads to which node, pure), `ways` (routes
//! and the tunnel, rtnetlink), `network` ([`PodNetwork`], which joins them).

mod allocator;
mod error;
mod iptables;
mod links;
mod network;
mod routes;
mod rules;
mod ways;

use std::net::Ipv4Addr;

pub use self::{
    error::NetworkError,
    network::{PodNetwork, remove_everything},
};

/// How a node's pod network is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge (at most 15 bytes); two kubelets on one machine need two names.
    pub bridge: String,
    /// Prefix of our iptables chains, for the same reason (`MINIK8S`).
    pub chain_prefix: String,
    /// The range pods get addresses from; its first address is the bridge's.
    pub pod_cidr: ipnet::Ipv4Net,
    /// The whole cluster's range: traffic inside it is not masqueraded.
    pub cluster_cidr: ipnet::Ipv4Net,
    /// The node's own address, as the other nodes know it.
    pub node_address: Ipv4Addr,
    /// Virtual addresses that lead elsewhere (the Service `kubernetes` reaches the API server).
    pub redirects: Vec<Redirect>,
}

/// Sends TCP traffic for a virtual address to a real one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Address asked for.
    pub address: Ipv4Addr,
    /// Port asked for.
    pub port: u16,
    /// Where it goes.
    pub to: Ipv4Addr,
    /// Port there.
    pub to_port: u16,
}

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its address.
    pub address: Ipv4Addr,
    /// The range of its pods.
    pub pod_cidr: ipnet::Ipv4Net,
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address on the node; unspecified (0.0.0.0) for all.
    pub host_ip: Ipv4Addr,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A pod that is on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's uid.
    pub pod_uid: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its host ports.
    pub host_ports: Vec<HostPort>,
}
