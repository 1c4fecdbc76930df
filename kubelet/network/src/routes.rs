//! Which way leads to the pods of each other node. Pure.
//!
//! A node on a directly connected network is the next hop to its own pods: a plain route. Any other is reached
//! through a tunnel (VXLAN), whose far end is that node: routers in between know nothing of pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{NetworkConfig, Peer};

/// What a node's routing table needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Pods' ranges and the neighbour that has them.
    pub(crate) direct: BTreeMap<Ipv4Net, Ipv4Addr>,
    /// Pods' ranges and the distant node that has them.
    pub(crate) tunnelled: BTreeMap<Ipv4Net, Ipv4Addr>,
}

/// What one other node needs: `local` are the addresses of this machine's interfaces with their networks.
pub(crate) fn plan(config: &NetworkConfig, local: &[Ipv4Net], peers: &[Peer]) -> Plan {
    let own: BTreeSet<Ipv4Addr> = local.iter().map(Ipv4Net::addr).collect();
    let mut plan = Plan::default();
    for Peer { address, pod_cidr } in peers {
        let range = pod_cidr.trunc();
        // Only what the cluster gives to nodes; a range that overlaps ours would take our own pods away.
        let is_theirs = config.cluster_cidr.contains(&range)
            && !range.contains(&config.pod_cidr.network())
            && !config.pod_cidr.contains(&range.network());
        // A kubelet beside us on the same machine: its bridge is here, and the kernel knows the way.
        if !is_theirs || own.contains(address) || address.is_unspecified() || address.is_loopback() {
            continue;
        }
        let neighbour = local.iter().any(|network| network.prefix_len() < 32 && network.contains(address));
        let ways = if neighbour { &mut plan.direct } else { &mut plan.tunnelled };
        ways.insert(range, *address);
    }
    plan
}

/// The number of the cluster's tunnels: made of its range, so that two clusters of one network do not meet.
pub(crate) fn tunnel_number(cluster_cidr: Ipv4Net) -> u32 {
    u32::from(cluster_cidr.network()) >> 8
}

/// The address of a node's own end of the tunnel: the first of its range, which is no pod's and no bridge's.
pub(crate) fn tunnel_address(pod_cidr: Ipv4Net) -> Ipv4Addr {
    pod_cidr.network()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_hops_and_the_rest_is_tunnelled() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let config = NetworkConfig {
            bridge: "b".into(),
            chain_prefix: "B".into(),
            pod_cidr: net("10.244.0.0/24"),
            cluster_cidr: net("10.244.0.0/16"),
            node_address: address("192.0.2.1"),
            redirects: Vec::new(),
        };
        let local = [net("127.0.0.1/8"), net("192.0.2.1/24"), net("203.0.113.1/32")];
        let peer = |node: &str, range: &str| Peer { address: address(node), pod_cidr: net(range) };
        let peers = [
            peer("192.0.2.2", "10.244.1.0/24"),
            peer("198.51.100.2", "10.244.2.0/24"),
            // Ourselves, another kubelet here, a range that is not the cluster's, and one that takes in ours.
            peer("192.0.2.1", "10.244.0.0/24"),
            peer("192.0.2.1", "10.244.3.0/24"),
            peer("192.0.2.3", "172.16.0.0/24"),
            peer("192.0.2.4", "10.244.0.0/16"),
        ];
        let plan = plan(&config, &local, &peers);
        assert_eq!(plan.direct, BTreeMap::from([(net("10.244.1.0/24"), address("192.0.2.2"))]));
        assert_eq!(plan.tunnelled, BTreeMap::from([(net("10.244.2.0/24"), address("198.51.100.2"))]));
    }

    #[test]
    fn clusters_have_tunnels_of_their_own() {
        let number = |text: &str| tunnel_number(text.parse().unwrap());
        assert_eq!(number("10.244.0.0/16"), 0x0a_f400);
        assert_ne!(number("10.245.0.0/16"), number("10.244.0.0/16"));
    }
}
