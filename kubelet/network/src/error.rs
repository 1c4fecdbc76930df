//! What can go wrong on the pod network.

use std::{io, net::Ipv4Addr};

use crate::Protocol;

/// Why a network call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The configuration cannot work.
    #[error("the pod network cannot be set up: {0}")]
    Config(String),
    /// The kernel refused a change of links, addresses or routes.
    #[error("failed to {action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// The pod's network namespace could not be entered: as a rule its sandbox is gone.
    #[error("failed to enter the network namespace of process {pid}")]
    Namespace {
        /// The sandbox's process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel parameter could not be set.
    #[error("failed to set {path}")]
    Parameter {
        /// File below `/proc/sys`.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The iptables programs are missing or failed.
    #[error("{program} failed: {message}")]
    Iptables {
        /// Which.
        program: &'static str,
        /// Its words.
        message: String,
    },
    /// Every address of the range is in use.
    #[error("no address is left in {0}")]
    Exhausted(ipnet::Ipv4Net),
    /// Another pod has that port of the node.
    #[error("host port {host_ip}:{port}/{protocol} is already used by pod {pod_uid}")]
    HostPortTaken {
        /// Address on the node.
        host_ip: Ipv4Addr,
        /// Port on the node.
        port: u16,
        /// Protocol.
        protocol: Protocol,
        /// The pod that has it.
        pod_uid: String,
    },
}
