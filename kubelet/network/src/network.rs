//! [`PodNetwork`]: addresses, links and rules of a node's pods together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::{
    Attachment, HostPort, NetworkConfig, NetworkError, Peer, Redirect,
    allocator::Allocator,
    iptables,
    links::{Links, NewLink},
    routes, rules,
};

/// The pod network of one node. Every call is idempotent; calls for different pods may run at once.
#[derive(Debug)]
pub struct PodNetwork {
    config: NetworkConfig,
    links: Links,
    bridge_index: u32,
    mtu: u32,
    state: Mutex<State>,
    /// The rules as last applied; held while they are being applied, so that a later state never loses to an
    /// earlier one.
    applied: tokio::sync::Mutex<Option<String>>,
}

#[derive(Debug)]
struct State {
    allocator: Allocator,
    /// Ranges that this node had before, with pods that still have an address of theirs.
    former: BTreeSet<Ipv4Net>,
    redirects: Vec<Redirect>,
    attachments: BTreeMap<String, Attachment>,
}

impl State {
    /// Who of the others has one of those ports.
    fn conflict(&self, pod_uid: &str, wanted: &[HostPort]) -> Result<(), NetworkError> {
        let others = self.attachments.values().filter(|attachment| attachment.pod_uid != pod_uid);
        for (other, taken) in others.flat_map(|other| other.host_ports.iter().map(move |port| (other, port)))
        {
            if let Some(port) = wanted.iter().find(|port| overlap(port, taken)) {
                return Err(NetworkError::HostPortTaken {
                    host_ip: port.host_ip,
                    port: port.host_port,
                    protocol: port.protocol,
                    pod_uid: other.pod_uid.clone(),
                });
            }
        }
        Ok(())
    }

    /// Gives a pod an address and its ports.
    fn claim(&mut self, pod_uid: &str, host_ports: &[HostPort]) -> Result<Attachment, NetworkError> {
        self.conflict(pod_uid, host_ports)?;
        let address = self.allocator.allocate(pod_uid);
        let address = address.ok_or_else(|| NetworkError::Exhausted(self.allocator.range()))?;
        let attachment = Attachment { pod_uid: pod_uid.to_owned(), address, host_ports: host_ports.to_vec() };
        self.attachments.insert(pod_uid.to_owned(), attachment.clone());
        Ok(attachment)
    }

    /// Takes a pod that has an address already: of the range, or of a former one.
    fn take_up(&mut self, attachment: &Attachment) -> bool {
        let (uid, address) = (&attachment.pod_uid, attachment.address);
        let fits = if self.allocator.range().contains(&address) {
            self.allocator.reserve(address, uid)
        } else {
            self.former.iter().any(|range| range.contains(&address))
        };
        if fits {
            self.attachments.insert(uid.clone(), attachment.clone());
        }
        fits
    }

    /// Gives new pods addresses of another range. Those that are there keep theirs.
    fn change_range(&mut self, range: Ipv4Net) {
        let before = std::mem::replace(&mut self.allocator, Allocator::new(range));
        self.former.insert(before.range().trunc());
        self.former.remove(&range.trunc());
        for attachment in self.attachments.values() {
            // Of a range that comes back: who has an address of it has it still.
            self.allocator.reserve(attachment.address, &attachment.pod_uid);
        }
    }

    /// Drops the former ranges that no pod has an address of any more.
    fn drop_unused(&mut self) -> Vec<Ipv4Net> {
        let in_use =
            |range: &Ipv4Net| self.attachments.values().any(|attachment| range.contains(&attachment.address));
        let unused: Vec<Ipv4Net> = self.former.iter().copied().filter(|range| !in_use(range)).collect();
        self.former.retain(|range| !unused.contains(range));
        unused
    }

    /// Gives back what a pod has; whether it had host ports.
    fn release(&mut self, pod_uid: &str) -> bool {
        self.allocator.release(pod_uid);
        self.attachments.remove(pod_uid).is_some_and(|attachment| !attachment.host_ports.is_empty())
    }
}

fn overlap(one: &HostPort, other: &HostPort) -> bool {
    let same_address =
        one.host_ip == other.host_ip || one.host_ip.is_unspecified() || other.host_ip.is_unspecified();
    same_address && one.host_port == other.host_port && one.protocol == other.protocol
}

impl PodNetwork {
    /// Sets the node up: bridge, addresses, kernel parameters, rules. What is there already stays as it is.
    pub async fn new(config: NetworkConfig) -> Result<Self, NetworkError> {
        let allocator = allocator(config.pod_cidr)?;
        if config.bridge.is_empty() || config.bridge.len() > 15 {
            return Err(NetworkError::Config(format!(
                "bridge name {:?} is not 1 to 15 bytes long",
                config.bridge
            )));
        }
        let links = open()?;
        let mtu = links.default_mtu().await?;
        let gateway = net(allocator.gateway(), config.pod_cidr.prefix_len());
        let bridge_index = links.ensure_bridge(&config.bridge, gateway, mtu).await?;
        let pods = links.pod_links(&config.bridge).await?;
        let used: Vec<Ipv4Addr> =
            pods.into_iter().filter_map(|link| link.pod).map(|(_, address)| address).collect();
        let former = links.keep_gateways(bridge_index, gateway, &used).await?;
        set_parameter("net/ipv4/ip_forward", "1")?;
        // Answers to 127.0.0.1 come back through the bridge; the INPUT chain keeps pods from asking for it.
        set_parameter(&format!("net/ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        let redirects = config.redirects.clone();
        let attachments = BTreeMap::new();
        let network = Self {
            config,
            links,
            bridge_index,
            mtu,
            state: Mutex::new(State { allocator, former, redirects, attachments }),
            applied: tokio::sync::Mutex::default(),
        };
        network.reapply().await?;
        Ok(network)
    }

    /// Pods that are on the network according to the node itself, with their addresses: what a restarted kubelet
    /// may still know nothing of.
    pub async fn found(&self) -> Result<Vec<(String, Ipv4Addr)>, NetworkError> {
        let links = self.links.pod_links(&self.config.bridge).await?;
        Ok(links.into_iter().filter_map(|link| link.pod).collect())
    }

    /// Takes up after a restart: what `running` names and is still connected stays connected, with its address and
    /// ports; every other link of ours is removed. Returns the uids of `running` that are not connected with that
    /// address: their sandboxes are of no use any more.
    pub async fn restore(&self, running: &[Attachment]) -> Result<Vec<String>, NetworkError> {
        let mut lost = Vec::new();
        let mut orphans = Vec::new();
        let links = self.links.pod_links(&self.config.bridge).await?;
        {
            let mut state = self.state.lock();
            for attachment in running {
                let uid = &attachment.pod_uid;
                let connected =
                    links.iter().any(|link| link.pod.as_ref() == Some(&(uid.clone(), attachment.address)));
                if !connected || !state.take_up(attachment) {
                    lost.push(uid.clone());
                }
            }
            for link in links {
                let kept = link.pod.as_ref().is_some_and(|(uid, address)| {
                    state.attachments.get(uid).is_some_and(|attachment| attachment.address == *address)
                });
                if !kept {
                    orphans.push(link);
                }
            }
        }
        for orphan in orphans {
            tracing::info!(pod = ?orphan.pod, "removing the link of a pod that is gone");
            self.links.remove(orphan.index).await?;
        }
        self.drop_unused_ranges().await?;
        self.apply().await?;
        Ok(lost)
    }

    /// Gives new pods addresses of another range from now on. Pods that have one of the range before keep it until they
    /// end; the bridge and the rules serve both as long. The ways to other nodes have to be set again.
    pub async fn set_range(&self, range: Ipv4Net) -> Result<(), NetworkError> {
        if self.range() == range {
            return Ok(());
        }
        let gateway = net(allocator(range)?.gateway(), range.prefix_len());
        self.links.add_gateway(self.bridge_index, gateway).await?;
        self.state.lock().change_range(range);
        self.drop_unused_ranges().await?;
        self.apply().await
    }

    /// The range that new pods get addresses of.
    #[must_use]
    pub fn range(&self) -> Ipv4Net {
        self.state.lock().allocator.range()
    }

    /// Leads virtual addresses elsewhere from now on.
    pub async fn set_redirects(&self, redirects: &[Redirect]) -> Result<(), NetworkError> {
        self.state.lock().redirects = redirects.to_vec();
        self.apply().await
    }

    /// Takes the gateways of former ranges away that no pod needs any more; whether there was one.
    async fn drop_unused_ranges(&self) -> Result<bool, NetworkError> {
        let unused = self.state.lock().drop_unused();
        for range in &unused {
            let gateway = Allocator::new(*range).gateway();
            self.links.remove_gateway(self.bridge_index, gateway).await?;
        }
        Ok(!unused.is_empty())
    }

    /// Connects a pod whose sandbox has that process. A pod that is connected already stays so, unless its sandbox is
    /// another one: then it starts anew, with another address.
    pub async fn attach(
        &self,
        pod_uid: &str,
        netns_pid: u32,
        host_ports: &[HostPort],
    ) -> Result<Attachment, NetworkError> {
        let known = self.state.lock().attachments.get(pod_uid).cloned();
        if let Some(mut known) = known
            && Links::has_address(netns_pid, known.address).await?
        {
            if known.host_ports != host_ports {
                known.host_ports = host_ports.to_vec();
                {
                    let mut state = self.state.lock();
                    state.conflict(pod_uid, host_ports)?;
                    state.attachments.insert(pod_uid.to_owned(), known.clone());
                }
                self.apply().await?;
            }
            return Ok(known);
        }
        self.detach(pod_uid).await?;
        let (attachment, gateway, range) = {
            let mut state = self.state.lock();
            (state.claim(pod_uid, host_ports)?, state.allocator.gateway(), state.allocator.range())
        };
        let link = NewLink {
            bridge: (&self.config.bridge, self.bridge_index),
            pod_uid,
            address: attachment.address,
            prefix_length: range.prefix_len(),
            gateway,
            mtu: self.mtu,
        };
        let connected = async {
            self.links.connect(link, netns_pid).await?;
            if attachment.host_ports.is_empty() { Ok(()) } else { self.apply().await }
        };
        if let Err(error) = connected.await {
            if let Err(second) = self.detach(pod_uid).await {
                tracing::warn!(pod_uid, error = %second, "failed to clean up after a failed attach");
            }
            return Err(error);
        }
        Ok(attachment)
    }

    /// Disconnects a pod and gives its address and ports back.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        // The link goes first: an address is given away only when nobody has it any more.
        self.links.disconnect(&self.config.bridge, pod_uid).await?;
        let had_ports = self.state.lock().release(pod_uid);
        let was_last = self.drop_unused_ranges().await?;
        if had_ports || was_last { self.apply().await } else { Ok(()) }
    }

    /// The address of a pod on this network.
    #[must_use]
    pub fn address_of(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        self.state.lock().attachments.get(pod_uid).map(|attachment| attachment.address)
    }

    /// The bridge's address: the node as its pods see it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.state.lock().allocator.gateway()
    }

    /// Makes the pods of the other nodes reachable, and those of nodes that are gone unreachable. Told all of them
    /// each time; calls must not overlap.
    pub async fn set_peers(&self, peers: &[Peer]) -> Result<(), NetworkError> {
        let current = self.current();
        let plan = routes::plan(&current, &self.links.local_networks().await?, peers);
        self.links.follow(&current, &plan, self.mtu).await
    }

    /// The configuration as it has become.
    fn current(&self) -> NetworkConfig {
        let state = self.state.lock();
        let redirects = state.redirects.clone();
        NetworkConfig { pod_cidr: state.allocator.range(), redirects, ..self.config.clone() }
    }

    /// Writes all rules again, whatever became of them meanwhile (a firewall's restart empties tables).
    pub async fn reapply(&self) -> Result<(), NetworkError> {
        *self.applied.lock().await = None;
        self.apply().await
    }

    /// Removes all of ours from the node: links, bridge, rules. Nothing else uses this network any more.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        let mut applied = self.applied.lock().await;
        *applied = None;
        let NetworkConfig { bridge, chain_prefix, cluster_cidr, .. } = &self.config;
        remove(&self.links, bridge, chain_prefix, *cluster_cidr).await?;
        let mut state = self.state.lock();
        state.attachments.clear();
        state.former.clear();
        state.allocator = Allocator::new(state.allocator.range());
        Ok(())
    }

    /// Brings the rules to the state, unless they are.
    async fn apply(&self) -> Result<(), NetworkError> {
        let mut applied = self.applied.lock().await;
        let render = |saved: &str| {
            let current = self.current();
            let state = self.state.lock();
            let attachments: Vec<&Attachment> = state.attachments.values().collect();
            rules::render(&current, &state.former, &attachments, saved)
        };
        let wanted = render("");
        if applied.as_ref() != Some(&wanted) {
            let saved = iptables::save().await?;
            iptables::restore(&render(&saved)).await?;
            *applied = Some(wanted);
        }
        Ok(())
    }
}

/// Removes a node's pod network without having set it up: links, bridge and rules of those names and routes into that
/// range, for cleaning up after a process that is gone.
pub async fn remove_everything(
    bridge: &str,
    chain_prefix: &str,
    cluster_cidr: ipnet::Ipv4Net,
) -> Result<(), NetworkError> {
    remove(&open()?, bridge, chain_prefix, cluster_cidr).await
}

async fn remove(
    links: &Links,
    bridge: &str,
    chain_prefix: &str,
    cluster_cidr: ipnet::Ipv4Net,
) -> Result<(), NetworkError> {
    links.remove_ways(bridge, cluster_cidr).await?;
    for link in links.pod_links(bridge).await? {
        links.remove(link.index).await?;
    }
    links.remove_bridge(bridge).await?;
    let removal = rules::removal(chain_prefix, &iptables::save().await?);
    if removal.is_empty() { Ok(()) } else { iptables::restore(&removal).await }
}

/// The addresses of a range, if it has any.
fn allocator(range: Ipv4Net) -> Result<Allocator, NetworkError> {
    let allocator = Allocator::new(range);
    if allocator.capacity() == 0 {
        return Err(NetworkError::Config(format!("{range} has no address for pods")));
    }
    Ok(allocator)
}

/// An address with its network. The length is that of a range, so it cannot be too long.
fn net(address: Ipv4Addr, prefix_length: u8) -> Ipv4Net {
    Ipv4Net::new(address, prefix_length).unwrap_or_else(|_| address.into())
}

fn open() -> Result<Links, NetworkError> {
    Links::open().map_err(|error| NetworkError::Config(format!("failed to open a netlink socket: {error}")))
}

/// Sets a kernel parameter, unless it is so. (Files of `/proc` answer at once, so these are plain calls.)
fn set_parameter(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| NetworkError::Parameter { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn port(host_ip: Ipv4Addr, host_port: u16, protocol: Protocol) -> HostPort {
        HostPort { host_ip, host_port, container_port: 80, protocol }
    }

    fn state(range: &str) -> State {
        State {
            allocator: Allocator::new(range.parse().unwrap()),
            former: BTreeSet::new(),
            redirects: Vec::new(),
            attachments: BTreeMap::new(),
        }
    }

    #[test]
    fn a_former_range_lasts_as_long_as_its_pods() {
        let mut state = state("10.0.1.0/24");
        let old = state.claim("old", &[]).unwrap();
        state.change_range("10.0.2.0/24".parse().unwrap());
        assert_eq!(state.drop_unused(), []);
        assert_eq!(state.claim("new", &[]).unwrap().address, Ipv4Addr::new(10, 0, 2, 2));
        // And back: who had an address of it keeps it, and nobody else gets it.
        state.change_range("10.0.1.0/24".parse().unwrap());
        assert_eq!(state.claim("next", &[]).unwrap().address, Ipv4Addr::new(10, 0, 1, 3));
        state.release("new");
        assert_eq!(state.drop_unused(), ["10.0.2.0/24".parse().unwrap()]);
        assert!(!state.take_up(&Attachment { pod_uid: "stray".into(), ..old.clone() }), "somebody else's");
        assert!(state.take_up(&old));
    }

    #[test]
    fn a_host_port_is_refused_with_the_name_of_who_has_it() {
        let (any, local) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
        let other = Ipv4Addr::new(192, 0, 2, 2);
        let mut state = state("10.0.0.0/24");
        state.claim("one", &[port(any, 80, Protocol::Tcp), port(local, 53, Protocol::Udp)]).unwrap();
        let refused = state.claim("two", &[port(other, 80, Protocol::Tcp)]).unwrap_err();
        assert_eq!(refused.to_string(), "host port 192.0.2.2:80/tcp is already used by pod one");
        assert!(state.claim("two", &[port(local, 53, Protocol::Udp)]).is_err());
        let free =
            [port(other, 53, Protocol::Udp), port(any, 80, Protocol::Udp), port(any, 81, Protocol::Tcp)];
        state.claim("two", &free).unwrap();
        assert!(state.release("one"), "it had ports");
        state.claim("three", &[port(any, 80, Protocol::Tcp)]).unwrap();
    }

    #[test]
    fn a_refused_claim_takes_no_address() {
        let mut state = state("10.0.0.0/29");
        state.claim("one", &[port(Ipv4Addr::UNSPECIFIED, 80, Protocol::Tcp)]).unwrap();
        for _ in 0..10 {
            state.claim("two", &[port(Ipv4Addr::UNSPECIFIED, 80, Protocol::Tcp)]).unwrap_err();
        }
        for uid in ["a", "b", "c", "d"] {
            state.claim(uid, &[]).unwrap();
        }
        assert!(matches!(state.claim("e", &[]), Err(NetworkError::Exhausted(_))));
    }
}
