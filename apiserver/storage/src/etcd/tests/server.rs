//! Real etcd servers for tests, and a way to cut the line to one.
//!
//! Each test starts servers of its own on loopback; `MINIK8S_TEST_ETCD` names another program than `etcd` on
//! the PATH (3.4, 3.5 and 3.6 are meant to pass).

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    etcd::{EtcdOptions, EtcdStore},
    store::Store,
};

/// Few at a time: each syncs its own log to the same disk.
static SERVERS: Semaphore = Semaphore::const_new(3);

/// The program under test.
static PROGRAM: LazyLock<String> =
    LazyLock::new(|| std::env::var("MINIK8S_TEST_ETCD").unwrap_or_else(|_| "etcd".to_owned()));

/// A running etcd of one or more members. Dropping it ends the processes.
pub(crate) struct EtcdServer {
    members: Vec<Member>,
    /// How to reach it.
    options: EtcdOptions,
    permit: Option<SemaphorePermit<'static>>,
}

struct Member {
    arguments: Vec<String>,
    /// `None` while it is dead.
    child: Option<Child>,
    _directory: TempDir,
}

impl EtcdServer {
    /// Starts an empty one and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(1, &[], EtcdOptions::new(vec!["http://".to_owned()])).await
    }

    /// Starts one of several members.
    pub(crate) async fn start_members(count: usize) -> Self {
        Self::start_with(count, &[], EtcdOptions::new(vec!["http://".to_owned()])).await
    }

    /// Starts one with further arguments, which is reached in the way that `reach` says; its endpoint gives the
    /// scheme only.
    pub(crate) async fn start_with(count: usize, arguments: &[String], reach: EtcdOptions) -> Self {
        let mut permit = Some(SERVERS.acquire().await.unwrap());
        let scheme = &reach.endpoints[0];
        // Ports that were free a moment ago; should another process be faster, the next ones are tried.
        for _ in 0..5 {
            let ports: Vec<_> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let addresses: Vec<_> = ports.iter().map(|port| port.local_addr().unwrap()).collect();
            drop(ports);
            let (clients, peers) = addresses.split_at(count);
            let clients: Vec<_> = clients.iter().map(|address| format!("{scheme}{address}")).collect();
            let peers: Vec<_> = peers.iter().map(|address| format!("http://{address}")).collect();
            let cluster: Vec<_> =
                peers.iter().enumerate().map(|(number, peer)| format!("m{number}={peer}")).collect();
            let members = (0..count)
                .map(|number| {
                    let directory = tempfile::tempdir().unwrap();
                    let mut own: Vec<String> = [
                        ("--name", format!("m{number}")),
                        ("--data-dir", directory.path().to_str().unwrap().to_owned()),
                        ("--listen-client-urls", clients[number].clone()),
                        ("--advertise-client-urls", clients[number].clone()),
                        ("--listen-peer-urls", peers[number].clone()),
                        ("--initial-advertise-peer-urls", peers[number].clone()),
                        ("--initial-cluster", cluster.join(",")),
                        ("--log-level", "error".to_owned()),
                    ]
                    .into_iter()
                    .flat_map(|(flag, value)| [flag.to_owned(), value])
                    .collect();
                    own.extend(arguments.iter().cloned());
                    Member { arguments: own, child: None, _directory: directory }
                })
                .collect();
            let options = EtcdOptions { endpoints: clients, compaction_interval: None, ..reach.clone() };
            let mut server = Self { members, options, permit: None };
            (0..count).for_each(|number| server.start_member(number));
            if server.answers().await {
                server.permit = permit.take();
                return server;
            }
        }
        panic!("{} did not start", *PROGRAM);
    }

    /// Its first member's URL.
    pub(crate) fn url(&self) -> &str {
        &self.options.endpoints[0]
    }

    /// How to reach it; history stays as it is.
    pub(crate) fn options(&self) -> EtcdOptions {
        self.options.clone()
    }

    /// From now on it is reached with a user's name and password, and only keys under a prefix are.
    pub(crate) fn asks_for(&mut self, prefix: &str, name: &str, password: &str) {
        self.options.prefix = prefix.to_owned();
        self.options.user = Some((name.to_owned(), password.to_owned()));
    }

    /// Kills it and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        for number in 0..self.members.len() {
            self.kill_member(number);
            self.start_member(number);
        }
        self.answers_again().await;
    }

    /// Waits until every member answers.
    pub(crate) async fn answers_again(&mut self) {
        assert!(self.answers().await, "{} did not come back", *PROGRAM);
    }

    /// Kills one member.
    pub(crate) fn kill_member(&mut self, number: usize) {
        let mut child = self.members[number].child.take().expect("it must live to be killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts one member that was killed.
    pub(crate) fn start_member(&mut self, number: usize) {
        let member = &mut self.members[number];
        let child = Command::new(&*PROGRAM)
            .args(&member.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} must be installed (scripts/setup.sh --test): {error}", *PROGRAM)
            });
        member.child = Some(child);
    }

    /// Waits until every member answers; `false` if one has ended.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        for endpoint in self.options.endpoints.clone() {
            let options = EtcdOptions {
                endpoints: vec![endpoint],
                request_timeout: Duration::from_millis(500),
                ..self.options()
            };
            loop {
                let ended = |member: &mut Member| {
                    member.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
                };
                if Instant::now() >= deadline || self.members.iter_mut().any(ended) {
                    return false;
                }
                if let Ok(store) = EtcdStore::connect(options.clone()).await
                    && store.current_revision().await.is_ok()
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        true
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A line to a server that can be cut.
pub(crate) struct Line {
    url: String,
    open: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Line {
    /// Lays a line to the server at `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let open = watch::Sender::new(true);
        let mut is_open = open.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Ends with this task, and its connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                if !*is_open.borrow_and_update() {
                    continue;
                }
                let (server, mut is_open) = (server.clone(), is_open.clone());
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(&server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { url, open, _task: task }
    }

    /// Where the line begins.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}
