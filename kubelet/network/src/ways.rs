//! Routes to the pods of other nodes, and the tunnel to distant ones, over rtnetlink.
//!
//! Our routes carry a protocol number of our own, the tunnel's link a name made of the bridge's: so everything is
//! found again on the node, by whoever starts after us or cleans up. The tunnel is a VXLAN without learning: for each
//! distant node there is a neighbour entry (its end's address and hardware address) and a forwarding entry (that
//! hardware address and the node), all of them known from the API. Hardware addresses follow from the nodes' ranges, so
//! that nothing has to be published. The layout is flannel's.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::{
    LinkVxlan, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::LinkAttribute,
        neighbour::NeighbourFlags,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    },
};

use crate::{
    NetworkConfig, NetworkError,
    links::{Links, hardware_address, is, netlink, short_hash, tolerate},
    routes::{Plan, tunnel_address, tunnel_number},
};

/// Says that a route is ours; unassigned in `/etc/iproute2/rt_protos`.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(107);
/// What the name of each tunnel of ours begins with.
const TUNNEL_PREFIX: &str = "mkx";
/// The kernel's own port of VXLAN, and flannel's.
const TUNNEL_PORT: u16 = 8472;
/// What the tunnel's headers take of each packet.
const TUNNEL_OVERHEAD: u32 = 50;

/// The beginning of the names of a bridge's tunnels.
fn tunnel_prefix(bridge: &str) -> String {
    format!("{TUNNEL_PREFIX}{:06x}", short_hash(bridge.as_bytes()) >> 40)
}

/// The tunnel's name: another configuration has another one, for a link's nature cannot be changed.
fn tunnel_name(config: &NetworkConfig) -> String {
    let nature = format!("{} {} {}", config.cluster_cidr, config.pod_cidr, config.node_address);
    format!("{}{:06x}", tunnel_prefix(&config.bridge), short_hash(nature.as_bytes()) >> 40)
}

/// The destination of a route to a range.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(address, route.header.destination_prefix_length).ok()
}

fn gateway(route: &RouteMessage) -> Option<Ipv4Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

impl Links {
    /// The addresses of this machine's interfaces with their networks.
    pub(crate) async fn local_networks(&self) -> Result<Vec<Ipv4Net>, NetworkError> {
        let request = self.handle().address().get();
        let messages: Vec<_> =
            netlink(|| "list addresses".to_owned(), request.execute().try_collect().await)?;
        let read = |attribute: &AddressAttribute| match attribute {
            // On a link with a peer, `Address` is the peer's and `Local` ours; elsewhere both are ours.
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        };
        let networks = messages.iter().filter_map(|message| {
            let address = message.attributes.iter().find_map(read)?;
            Ipv4Net::new(address, message.header.prefix_len).ok()
        });
        Ok(networks.collect())
    }

    /// Our routes into a cluster's range.
    async fn ways(&self, cluster_cidr: Ipv4Net) -> Result<Vec<RouteMessage>, NetworkError> {
        let request = self.handle().route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<RouteMessage> =
            netlink(|| "list routes".to_owned(), request.execute().try_collect().await)?;
        let is_ours = |route: &RouteMessage| {
            route.header.protocol == PROTOCOL
                && destination(route).is_some_and(|range| cluster_cidr.contains(&range))
        };
        Ok(routes.into_iter().filter(is_ours).collect())
    }

    /// Brings routes and tunnel to the plan.
    ///
    /// The tunnel is open to every node, neighbours included: a machine with several addresses may be a neighbour to
    /// us while we are none to it, and then sends through the tunnel what we send it directly.
    pub(crate) async fn follow(
        &self,
        config: &NetworkConfig,
        plan: &Plan,
        mtu: u32,
    ) -> Result<(), NetworkError> {
        let nodes = || plan.direct.iter().chain(&plan.tunnelled);
        let tunnel = if nodes().next().is_some() {
            Some(self.ensure_tunnel(config, mtu).await?)
        } else {
            self.remove_tunnels(&config.bridge, None).await?;
            None
        };
        let standing = self.ways(config.cluster_cidr).await?;
        for route in &standing {
            let known = |range| plan.direct.contains_key(&range) || plan.tunnelled.contains_key(&range);
            if !destination(route).is_some_and(known) {
                self.remove_way(route.clone()).await?;
            }
        }
        let Some(tunnel) = tunnel else { return Ok(()) };
        for (range, node) in nodes() {
            self.open_tunnel(tunnel, *range, *node).await?;
            let is_direct = plan.direct.contains_key(range);
            let hop = if is_direct { *node } else { tunnel_address(*range) };
            let stands = |route: &&RouteMessage| destination(route) == Some(*range);
            if standing.iter().find(stands).and_then(gateway) != Some(hop) {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(range.network(), range.prefix_len())
                    .gateway(hop)
                    .protocol(PROTOCOL);
                let route = if is_direct { route } else { route.output_interface(tunnel).onlink() };
                let added = self.handle().route().add(route.build()).replace().execute().await;
                netlink(|| format!("route {range} through {hop}"), added)?;
            }
        }
        Ok(())
    }

    async fn ensure_tunnel(&self, config: &NetworkConfig, mtu: u32) -> Result<u32, NetworkError> {
        let name = tunnel_name(config);
        self.remove_tunnels(&config.bridge, Some(&name)).await?;
        if self.find(&name).await?.is_none() {
            let link = LinkVxlan::new(&name, tunnel_number(config.cluster_cidr))
                .local(config.node_address)
                .port(TUNNEL_PORT)
                .learning(false)
                .address(hardware_address(tunnel_address(config.pod_cidr)))
                .mtu(mtu.saturating_sub(TUNNEL_OVERHEAD))
                .build();
            let added = tolerate(self.handle().link().add(link).execute().await, libc::EEXIST);
            netlink(|| format!("create tunnel {name}"), added)?;
        }
        let index = self.index_of(&name).await?;
        let address = IpAddr::V4(tunnel_address(config.pod_cidr));
        let added = self.handle().address().add(index, address, 32).execute().await;
        netlink(|| format!("give tunnel {name} its address"), tolerate(added, libc::EEXIST))?;
        self.start(index, &name).await?;
        Ok(index)
    }

    /// Says where the tunnel's packets for a node's range go.
    async fn open_tunnel(&self, index: u32, range: Ipv4Net, node: Ipv4Addr) -> Result<(), NetworkError> {
        let far_end = tunnel_address(range);
        let hardware = hardware_address(far_end);
        let entries = self.handle().neighbours();
        // The kernel takes a forwarding entry for the device itself only with this mark.
        let forwarding = entries
            .add_bridge(index, &hardware)
            .flags(NeighbourFlags::Own)
            .destination(IpAddr::V4(node))
            .replace();
        netlink(|| format!("lead the tunnel to {node}"), forwarding.execute().await)?;
        let neighbour = entries.add(index, IpAddr::V4(far_end)).link_layer_address(&hardware).replace();
        netlink(|| format!("say who {far_end} is"), neighbour.execute().await)
    }

    async fn remove_way(&self, route: RouteMessage) -> Result<(), NetworkError> {
        match self.handle().route().del(route).execute().await {
            // Gone with its link in between.
            Err(error) if is(&error, libc::ESRCH) => Ok(()),
            result => netlink(|| "remove a route".to_owned(), result),
        }
    }

    async fn remove_tunnels(&self, bridge: &str, except: Option<&str>) -> Result<(), NetworkError> {
        let prefix = tunnel_prefix(bridge);
        let links: Vec<_> =
            netlink(|| "list links".to_owned(), self.handle().link().get().execute().try_collect().await)?;
        for link in links {
            let ours = link.attributes.iter().any(|attribute| match attribute {
                LinkAttribute::IfName(name) => name.starts_with(&prefix) && Some(name.as_str()) != except,
                _ => false,
            });
            if ours {
                self.remove(link.header.index).await?;
            }
        }
        Ok(())
    }

    /// Removes every route and tunnel of ours.
    pub(crate) async fn remove_ways(&self, bridge: &str, cluster_cidr: Ipv4Net) -> Result<(), NetworkError> {
        self.remove_tunnels(bridge, None).await?;
        for route in self.ways(cluster_cidr).await? {
            self.remove_way(route).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_found_by_its_bridge_and_known_by_its_nature() {
        let config = |bridge: &str, range: &str| NetworkConfig {
            bridge: bridge.into(),
            chain_prefix: "B".into(),
            pod_cidr: range.parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            node_address: Ipv4Addr::new(192, 0, 2, 1),
            redirects: Vec::new(),
        };
        let name = tunnel_name(&config("b0", "10.244.1.0/24"));
        assert_eq!(name.len(), 15, "{name}");
        assert!(name.starts_with(&tunnel_prefix("b0")) && !name.starts_with(&tunnel_prefix("b1")));
        assert_ne!(name, tunnel_name(&config("b0", "10.244.2.0/24")));
    }
}
