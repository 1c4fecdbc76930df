//! A small world of network namespaces: a node, the world outside, and pods, each a thread of this test.
//!
//! The test's own thread leaves for a namespace of its own first, so the machine's network is never touched and
//! everything is gone with the threads.

use std::{
    future::Future,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use futures_util::TryStreamExt;
use kubelet_network::{NetworkConfig, PodNetwork, Redirect};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute},
};

/// The node as the world sees it.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A machine in the world.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The API server's virtual address.
pub(crate) const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own: a pod's sandbox, or a machine.
pub(crate) struct Place {
    /// Its thread id, by which `/proc` shows its namespace.
    pub(crate) pid: u32,
    /// Work for it; dropped, the thread ends and its namespace with it. Rendezvous: one job at a time is enough.
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::sync_channel(0);
        let (jobs, work) = mpsc::sync_channel::<Job>(0);
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the test must run as root");
            sender.send(gettid().as_raw().unsigned_abs()).expect("the test must wait");
            work.into_iter().for_each(|job| job());
        });
        let pid = receiver.recv().expect("the thread must tell its id");
        Self { pid, jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs something inside.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::sync_channel(1);
        let job = Box::new(move || sender.send(job()).expect("the test must wait"));
        self.jobs.as_ref().expect("the thread must live").send(job).expect("the thread must live");
        receiver.recv().expect("the job must end")
    }

    pub(crate) fn listen(&self, port: u16) -> Listener {
        Listener(self.run(move || bind(port)))
    }

    /// What a link of this place can carry.
    pub(crate) fn mtu(&self, name: &'static str) -> u32 {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime must be had").block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().expect("a socket must be had");
                tokio::spawn(connection);
                let link = handle.link().get().match_name(name).execute().try_next().await;
                let link = link.expect("the link must be there").expect("the link must be there");
                let mtu = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
                mtu.expect("a link must tell what it carries")
            })
        })
    }

    /// Connects from here, and tells with what address the other side saw it.
    pub(crate) fn reach(
        &self,
        address: Ipv4Addr,
        port: u16,
        listener: &Listener,
    ) -> Result<IpAddr, std::io::Error> {
        let stream = self.run(move || connect(address, port))?;
        Ok(listener.meet(stream))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread must end well");
        }
    }
}

/// A port that somebody listens on. It stays in the namespace where it was opened.
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// On the node, that is: here.
    pub(crate) fn here(port: u16) -> Self {
        Self(bind(port))
    }

    /// Takes the connection up that was just made, says something both ways, and tells who came.
    pub(crate) fn meet(&self, mut stream: TcpStream) -> IpAddr {
        let (mut accepted, from) = self.0.accept().expect("the connection must arrive");
        let mut word = [0; 4];
        stream.write_all(b"ping").expect("the way there must work");
        accepted.read_exact(&mut word).expect("the way there must work");
        accepted.write_all(b"pong").expect("the way back must work");
        stream.read_exact(&mut word).expect("the way back must work");
        assert_eq!(&word, b"pong");
        from.ip()
    }

    /// Takes a connection and keeps it.
    pub(crate) fn accept(&self) -> TcpStream {
        self.0.accept().expect("the connection must arrive").0
    }
}

fn bind(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port must be free")
}

/// Connects from this thread's namespace.
pub(crate) fn connect(address: Ipv4Addr, port: u16) -> Result<TcpStream, std::io::Error> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Runs a test on a node of its own that has a world outside, whose firewall forwards nothing by itself.
pub(crate) fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F + Send + 'static) {
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the test must run as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime must be had").block_on(async {
            let outside = Place::new();
            join_to(&outside).await;
            let dropped = Command::new("iptables").args(["-P", "FORWARD", "DROP"]).status();
            assert!(dropped.expect("iptables must be installed").success());
            test(outside).await;
        });
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A cable between the node and the world.
async fn join_to(outside: &Place) {
    let (connection, handle, _) = rtnetlink::new_connection().expect("a socket must be had");
    tokio::spawn(connection);
    let peer = LinkUnspec::new_with_name("eth0").setns_by_pid(outside.pid).build();
    let cable = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name("uplink")
        .mtu(1400)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(cable).execute().await.expect("the cable must be laid");
    equip(&handle, "uplink", NODE).await;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(OUTSIDE).build();
    handle.route().add(route).execute().await.expect("the node must know its way out");
    outside.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime must be had").block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("a socket must be had");
            tokio::spawn(connection);
            equip(&handle, "eth0", OUTSIDE).await;
        });
    });
}

async fn equip(handle: &Handle, name: &str, address: Ipv4Addr) {
    for (name, address) in [("lo", None), (name, Some(address))] {
        let link = handle.link().get().match_name(name).execute().try_next().await;
        let index = link.expect("the link must be there").expect("the link must be there").header.index;
        if let Some(address) = address {
            let added = handle.address().add(index, IpAddr::V4(address), 24).execute().await;
            added.expect("the address must be given");
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.expect("the link must start");
    }
}

pub(crate) fn config() -> NetworkConfig {
    NetworkConfig {
        bridge: "mk8s0".into(),
        chain_prefix: "MINIK8S".into(),
        pod_cidr: "10.244.1.0/24".parse().expect("a range"),
        cluster_cidr: "10.244.0.0/16".parse().expect("a range"),
        node_address: NODE,
        redirects: vec![
            Redirect { address: VIRTUAL, port: 443, to: NODE, to_port: 6443 },
            Redirect { address: VIRTUAL, port: 444, to: Ipv4Addr::LOCALHOST, to_port: 6443 },
        ],
    }
}

pub(crate) async fn network() -> PodNetwork {
    PodNetwork::new(config()).await.expect("the network must be set up")
}

/// All that is set up on this node, without counters.
pub(crate) fn inventory() -> String {
    let output = Command::new("iptables-save").output().expect("iptables must be installed");
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    let rules: Vec<&str> =
        rules.lines().filter(|line| line.starts_with("-A") || line.contains("MINIK8S")).collect();
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").expect("links must be told");
    let mut links: Vec<&str> =
        links.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    links.sort_unstable();
    format!("{links:?} {rules:?}")
}
