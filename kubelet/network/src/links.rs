//! Links, addresses and routes, on the node and inside pods, over rtnetlink.
//!
//! A netlink socket belongs to the namespace in which it was made. So a pod's inside is reached by a thread that
//! enters its namespace, makes a socket and ends; all that follows is ordinary asynchronous work of this process.
//!
//! A veth carries its pod's uid and address as alias: the node itself tells who is on the network.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, RawFd},
    thread,
};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage},
        route::RouteAttribute,
    },
};
use tokio::sync::oneshot;

use crate::NetworkError;

/// What the name of each veth of ours begins with.
const LINK_PREFIX: &str = "mkv";
/// The link inside a pod, as everywhere in Kubernetes.
const INSIDE: &str = "eth0";
/// What a link can carry where nothing else is known.
const DEFAULT_MTU: u32 = 1500;

/// A veth of ours on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodLink {
    /// Interface index.
    pub(crate) index: u32,
    /// The pod, if the link says so: one that was being made when its maker died does not.
    pub(crate) pod: Option<(String, Ipv4Addr)>,
}

/// A veth to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewLink<'a> {
    /// The bridge's name and index.
    pub(crate) bridge: (&'a str, u32),
    /// The pod.
    pub(crate) pod_uid: &'a str,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// Length of the range's prefix.
    pub(crate) prefix_length: u8,
    /// The bridge's address.
    pub(crate) gateway: Ipv4Addr,
    /// What the link can carry.
    pub(crate) mtu: u32,
}

/// Netlink on the node.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    handle: Handle,
}

pub(crate) fn netlink<T>(
    action: impl FnOnce() -> String,
    result: Result<T, rtnetlink::Error>,
) -> Result<T, NetworkError> {
    result.map_err(|source| NetworkError::Netlink { action: action(), source })
}

/// Whether the kernel answered with that error number.
pub(crate) fn is(error: &rtnetlink::Error, number: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -number)
}

/// `Ok` where the kernel says that it is so already.
pub(crate) fn tolerate(result: Result<(), rtnetlink::Error>, number: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, number) => Ok(()),
        result => result,
    }
}

/// A hardware address made of the network address: whoever gets an address again has the same one, so that no
/// neighbour's memory is ever wrong (upstream's bridges do it so).
pub(crate) fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x0a, 0x58, a, b, c, d]
}

/// The veth's name on the node. Two kubelets on one machine have two bridges, and thus two names for one uid.
fn link_name(bridge: &str, pod_uid: &str) -> String {
    let hash = short_hash(format!("{bridge}\0{pod_uid}").as_bytes());
    // 15 bytes is the longest that a link's name may be.
    format!("{LINK_PREFIX}{:012x}", hash >> 16)
}

/// FNV-1a: names of links have no room for more.
pub(crate) fn short_hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn alias(pod_uid: &str, address: Ipv4Addr) -> String {
    format!("{pod_uid} {address}")
}

fn pod_of(alias: &str) -> Option<(String, Ipv4Addr)> {
    let (pod_uid, address) = alias.rsplit_once(' ')?;
    Some((pod_uid.to_owned(), address.parse().ok()?))
}

impl Links {
    /// Opens a socket in this process's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        // Detached: it ends when the last handle is dropped, and holds nothing but its socket.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The socket.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Opens a socket in another namespace.
    async fn open_in(namespace: File) -> io::Result<Self> {
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let thread = thread::Builder::new().name("pod-network".to_owned()).spawn(move || {
            let _context = runtime.enter();
            let opened = setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| Self::open());
            // Nobody waits any more: the socket is dropped.
            let _sent = sender.send(opened);
        })?;
        let opened = receiver.await.map_err(|_| io::Error::other("the thread that enters it died"))?;
        // It has nothing left to do.
        thread.join().map_err(|_| io::Error::other("the thread that enters it died"))?;
        opened
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<LinkMessage>, NetworkError> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            result => netlink(|| format!("look up link {name}"), result),
        }
    }

    /// Makes the bridge unless it is there, gives it an address, and starts it. Returns its index.
    pub(crate) async fn ensure_bridge(
        &self,
        name: &str,
        gateway: Ipv4Net,
        mtu: u32,
    ) -> Result<u32, NetworkError> {
        let made = LinkBridge::new(name).address(hardware_address(gateway.addr())).mtu(mtu).build();
        let made = tolerate(self.handle.link().add(made).execute().await, libc::EEXIST);
        netlink(|| format!("create bridge {name}"), made)?;
        let link =
            self.find(name).await?.ok_or_else(|| NetworkError::Config(format!("bridge {name} vanished")))?;
        let kind = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Kind(kind) => Some(kind.clone()),
                _ => None,
            }),
            _ => None,
        });
        if kind != Some(InfoKind::Bridge) {
            return Err(NetworkError::Config(format!("link {name} exists and is no bridge")));
        }
        let index = link.header.index;
        self.add_gateway(index, gateway).await?;
        self.start(index, name).await?;
        Ok(index)
    }

    /// Gives the bridge an address, unless it has it.
    pub(crate) async fn add_gateway(&self, bridge: u32, gateway: Ipv4Net) -> Result<(), NetworkError> {
        let address = IpAddr::V4(gateway.addr());
        let added = self.handle.address().add(bridge, address, gateway.prefix_len()).execute().await;
        netlink(|| format!("give the bridge the address {gateway}"), tolerate(added, libc::EEXIST))
    }

    /// Takes an address from the bridge, if it has it.
    pub(crate) async fn remove_gateway(&self, bridge: u32, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        for (address, message) in self.addresses(bridge).await? {
            if address == gateway {
                let removed = self.handle.address().del(message).execute().await;
                netlink(|| format!("remove the old address {address} of the bridge"), removed)?;
            }
        }
        Ok(())
    }

    /// Takes those addresses from the bridge whose networks hold none of those that pods have, except its own. Gives the
    /// networks of the others.
    pub(crate) async fn keep_gateways(
        &self,
        bridge: u32,
        own: Ipv4Net,
        used: &[Ipv4Addr],
    ) -> Result<BTreeSet<Ipv4Net>, NetworkError> {
        let mut kept = BTreeSet::new();
        for (address, message) in self.addresses(bridge).await? {
            let network = Ipv4Net::new(address, message.header.prefix_len).unwrap_or_else(|_| address.into());
            let needed = used.iter().any(|used| network.contains(used) && !own.contains(used));
            if address == own.addr() {
                continue;
            }
            if needed {
                kept.insert(network.trunc());
            } else {
                self.remove_gateway(bridge, address).await?;
            }
        }
        Ok(kept)
    }

    async fn addresses(&self, index: u32) -> Result<Vec<(Ipv4Addr, AddressMessage)>, NetworkError> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> =
            netlink(|| "list addresses".to_owned(), request.execute().try_collect().await)?;
        let of = |message: &AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })
        };
        Ok(messages.into_iter().filter_map(|message| Some((of(&message)?, message))).collect())
    }

    pub(crate) async fn start(&self, index: u32, name: &str) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        netlink(|| format!("start link {name}"), self.handle.link().set(message).execute().await)
    }

    /// What the way to the world can carry.
    pub(crate) async fn default_mtu(&self) -> Result<u32, NetworkError> {
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<_> = netlink(|| "list routes".to_owned(), request.execute().try_collect().await)?;
        let index =
            routes.iter().filter(|route| route.header.destination_prefix_length == 0).find_map(|route| {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                })
            });
        let Some(index) = index else { return Ok(DEFAULT_MTU) };
        let link = self.handle.link().get().match_index(index).execute().try_next().await;
        let link = netlink(|| format!("look up link {index}"), link)?;
        Ok(link
            .iter()
            .flat_map(|link| &link.attributes)
            .find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
            .unwrap_or(DEFAULT_MTU))
    }

    /// The veths of ours on a bridge; none if there is no such bridge.
    pub(crate) async fn pod_links(&self, bridge: &str) -> Result<Vec<PodLink>, NetworkError> {
        let Some(bridge) = self.find(bridge).await? else { return Ok(Vec::new()) };
        let links: Vec<_> =
            netlink(|| "list links".to_owned(), self.handle.link().get().execute().try_collect().await)?;
        let read = |link: LinkMessage| {
            let (mut named, mut joined, mut pod) = (false, false, None);
            for attribute in &link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => named = name.starts_with(LINK_PREFIX),
                    LinkAttribute::Controller(index) => joined = *index == bridge.header.index,
                    LinkAttribute::IfAlias(alias) => pod = pod_of(alias),
                    _ => {}
                }
            }
            (named && joined).then_some(PodLink { index: link.header.index, pod })
        };
        Ok(links.into_iter().filter_map(read).collect())
    }

    /// Joins a pod to the bridge: a veth pair, one end in the pod's namespace with address and default route.
    pub(crate) async fn connect(&self, link: NewLink<'_>, pid: u32) -> Result<(), NetworkError> {
        let name = link_name(link.bridge.0, link.pod_uid);
        let namespace = namespace_of(pid)?;
        let peer = peer(link, namespace.as_raw_fd());
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name.clone())
            .mtu(link.mtu)
            .controller(link.bridge.1)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        let added = self.handle.link().add(message).execute().await;
        netlink(|| format!("create veth {name} for pod {}", link.pod_uid), added)?;
        // Only a change can set these, not the creation. With the kernel's br_netfilter, a pod's packet that is sent back
        // to its own pod (by a host port) never leaves the bridge, and a bridge returns nothing to where it came from
        // unless the port is a hairpin.
        let message =
            LinkBridgePort::new(0).name(name.clone()).alias(alias(link.pod_uid, link.address)).hairpin(true);
        let changed = self.handle.link().set_port(message.build()).execute().await;
        netlink(|| format!("label veth {name}"), changed)?;

        let inside =
            Self::open_in(namespace).await.map_err(|source| NetworkError::Namespace { pid, source })?;
        let index = inside.index_of(INSIDE).await?;
        let address = inside.handle.address().add(index, IpAddr::V4(link.address), link.prefix_length);
        netlink(|| format!("give pod {} its address", link.pod_uid), address.execute().await)?;
        inside.start(index, INSIDE).await?;
        inside.start(inside.index_of("lo").await?, "lo").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(link.gateway).build();
        let added = inside.handle.route().add(route).execute().await;
        netlink(|| format!("give pod {} its default route", link.pod_uid), added)
    }

    pub(crate) async fn index_of(&self, name: &str) -> Result<u32, NetworkError> {
        let link = self.find(name).await?;
        link.map(|link| link.header.index)
            .ok_or_else(|| NetworkError::Config(format!("link {name} vanished")))
    }

    /// Whether the pod of that process has that address.
    pub(crate) async fn has_address(pid: u32, address: Ipv4Addr) -> Result<bool, NetworkError> {
        let namespace = namespace_of(pid)?;
        let inside =
            Self::open_in(namespace).await.map_err(|source| NetworkError::Namespace { pid, source })?;
        let Some(link) = inside.find(INSIDE).await? else { return Ok(false) };
        Ok(inside.addresses(link.header.index).await?.iter().any(|(found, _)| *found == address))
    }

    /// Takes a pod off the bridge. Its inside end goes with it, and both are gone already if the sandbox died.
    pub(crate) async fn disconnect(&self, bridge: &str, pod_uid: &str) -> Result<(), NetworkError> {
        match self.find(&link_name(bridge, pod_uid)).await? {
            Some(link) => self.remove(link.header.index).await,
            None => Ok(()),
        }
    }

    /// Removes a link.
    pub(crate) async fn remove(&self, index: u32) -> Result<(), NetworkError> {
        let removed = self.handle.link().del(index).execute().await;
        netlink(|| format!("remove link {index}"), tolerate(removed, libc::ENODEV))
    }

    /// Removes a bridge, if there is one.
    pub(crate) async fn remove_bridge(&self, name: &str) -> Result<(), NetworkError> {
        match self.find(name).await? {
            Some(link) => self.remove(link.header.index).await,
            None => Ok(()),
        }
    }
}

fn namespace_of(pid: u32) -> Result<File, NetworkError> {
    File::open(format!("/proc/{pid}/ns/net")).map_err(|source| NetworkError::Namespace { pid, source })
}

/// The end inside the pod, made there at once.
fn peer(link: NewLink<'_>, namespace: RawFd) -> LinkMessage {
    LinkUnspec::new_with_name(INSIDE)
        .mtu(link.mtu)
        .address(hardware_address(link.address))
        .setns_by_fd(namespace)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ_by_bridge_and_pod() {
        let name = link_name("mk8s0", "0d7f4f7e-24b4-4d4b-a4f6-0c1f2c5f9a10");
        assert_eq!(name.len(), 15, "{name}");
        assert_ne!(name, link_name("mk8s1", "0d7f4f7e-24b4-4d4b-a4f6-0c1f2c5f9a10"));
        assert_ne!(name, link_name("mk8s0", "0d7f4f7e-24b4-4d4b-a4f6-0c1f2c5f9a11"));
    }

    #[test]
    fn an_alias_is_read_back() {
        let address = Ipv4Addr::new(10, 244, 0, 7);
        assert_eq!(pod_of(&alias("uid-1", address)), Some(("uid-1".to_owned(), address)));
        assert_eq!(pod_of("somebody's note"), None);
    }
}
