//! Several nodes: machines join with a token, their pods reach one another, one is lost and comes back, one leaves.
//!
//! The machines are network namespaces of the test's own, each with a Docker daemon and a kubelet (as root); two are
//! neighbours, the third is behind a router.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use crate::harness::{
    Answer, Cluster, IMAGE, Kubectl, NEVER_SHORT_OF_DISK, PATIENCE, control_groups, on_machine, root, run,
};

/// A silent node is noticed after so many seconds, and says that it lives four times as often.
const SILENCE: [&str; 4] = ["--node-monitor-grace-period", "8", "--node-lease-duration-seconds", "8"];

fn shell(script: &str) -> Answer {
    let script = format!("set -eu; . scripts/lib/machines.sh; . scripts/lib/images.sh; {script}");
    run(Command::new("bash").args(["-c", &script]).current_dir(root()))
}

/// Machines on a router; dropping them takes everything away.
struct Machines {
    directory: TempDir,
    prefix: String,
}

impl Machines {
    /// Three machines: `1` and `2` on 192.0.2.0/24, `3` on 198.51.100.0/24.
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("a directory must be had");
        let machines = Self { directory, prefix: format!("mkt{}", std::process::id()) };
        let Self { directory, prefix } = &machines;
        let directory = directory.path().display();
        let mut script = format!(
            "p={prefix}; ip netns add ${{p}}r; ip -n ${{p}}r link set lo up
             ip netns exec ${{p}}r sysctl -qw net.ipv4.ip_forward=1
             ip -n ${{p}}r link add lan type bridge
             ip -n ${{p}}r addr add 192.0.2.1/24 dev lan; ip -n ${{p}}r link set lan up\n"
        );
        for number in 1..=3 {
            let (address, hop) = if number < 3 {
                (format!("192.0.2.1{number}"), "192.0.2.1")
            } else {
                ("198.51.100.13".into(), "198.51.100.1")
            };
            let name = machines.name(number);
            script.push_str(&format!(
                "machine_make {directory} {name}
                 DOCKER_HOST=unix://{directory}/{name}/docker.sock make_busybox_image {IMAGE}
                 ip -n {name} link add eth0 type veth peer name port{number} netns ${{p}}r
                 ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up
                 ip -n {name} route add default via {hop}
                 ip -n ${{p}}r link set port{number} up\n"
            ));
            script.push_str(&if number < 3 {
                format!("ip -n ${{p}}r link set port{number} master lan\n")
            } else {
                format!("ip -n ${{p}}r addr add 198.51.100.1/24 dev port{number}\n")
            });
        }
        shell(&script).ok();
        machines
    }

    fn name(&self, number: u8) -> String {
        format!("{}{number}", self.prefix)
    }

    fn folder(&self, number: u8) -> PathBuf {
        self.directory.path().join(self.name(number))
    }

    fn docker_socket(&self, number: u8) -> String {
        self.folder(number).join("docker.sock").display().to_string()
    }

    /// The answer of a command on a machine's network.
    fn on(&self, number: u8, program: &str, args: &[&str]) -> String {
        run(on_machine(Some(&self.name(number)), Path::new(program)).args(args)).ok()
    }

    /// How many containers there are on a machine, dead or alive.
    fn containers(&self, number: u8) -> usize {
        let host = format!("unix://{}", self.docker_socket(number));
        run(Command::new("docker").args(["-H", &host, "ps", "-aq"])).ok().lines().count()
    }

    /// Plugs or unplugs a machine.
    fn cable(&self, number: u8, state: &str) {
        shell(&format!("ip -n {}r link set port{number} {state}", self.prefix)).ok();
    }

    /// Waits until a machine's routes are as wanted; every change of them is a reason to look.
    #[track_caller]
    fn wait_for_routes(&self, number: u8, wanted: impl Fn(&str) -> bool) {
        let mut monitor = Command::new("ip");
        monitor.args(["-n", &self.name(number), "monitor", "route"]);
        let routes = wait_for(monitor, || self.on(number, "ip", &["route"]), |routes| wanted(routes));
        assert!(wanted(&routes), "{routes}");
    }

    /// Waits until there is no container on a machine any more: a pod's go once the API has forgotten it.
    #[track_caller]
    fn wait_for_no_containers(&self, number: u8) {
        let host = format!("unix://{}", self.docker_socket(number));
        let mut events = Command::new("docker");
        // From a little before, so that none is missed.
        events.args(["-H", &host, "events", "--since", "10s", "--filter", "event=destroy"]);
        let left = wait_for(events, || self.containers(number), |left| *left == 0);
        assert_eq!(left, 0, "what was deleted meanwhile is gone");
    }
}

/// Looks again with every line of a monitor (and after a second without one: what changed before it listened is told to
/// nobody) until what is seen is as wanted, or nobody has patience any more. Gives what was seen last.
fn wait_for<T>(mut monitor: Command, look: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let mut monitor = monitor.stdout(Stdio::piped()).spawn().expect("the monitor must start");
    let output = monitor.stdout.take().expect("there must be an output");
    let (sender, receiver) = mpsc::sync_channel(64);
    let reader = std::thread::spawn(move || {
        for _ in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody waits any more.
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut seen = look();
    while !wanted(&seen) && Instant::now() < deadline {
        if let Err(mpsc::RecvTimeoutError::Disconnected) = receiver.recv_timeout(Duration::from_secs(1)) {
            break;
        }
        seen = look();
    }
    drop(receiver);
    let _ = monitor.kill();
    let _ = monitor.wait();
    let _ = reader.join();
    seen
}

impl Drop for Machines {
    fn drop(&mut self) {
        let Self { directory, prefix } = self;
        let directory = directory.path().display();
        for number in 1..=3 {
            shell(&format!("machine_drop {directory} {prefix}{number}"));
        }
        shell(&format!("ip netns del {prefix}r"));
    }
}

/// A kubelet that joined, in a process of its own.
struct Joined {
    process: Child,
    log: PathBuf,
    /// What says which node it is, for `leave`.
    flags: Vec<String>,
    machine: Option<String>,
}

impl Joined {
    /// Joins with what `minik8s token` printed.
    fn start(cluster: &Cluster, machine: Option<&str>, folder: &Path, flags: &[&str], more: &[&str]) -> Self {
        let printed = cluster.minik8s(&["token"]).ok();
        let join: Vec<&str> = printed.split_whitespace().skip(2).collect();
        Self::start_with(&join, machine, folder, flags, more)
    }

    /// Joins with these flags.
    fn start_with(
        join: &[&str],
        machine: Option<&str>,
        folder: &Path,
        flags: &[&str],
        more: &[&str],
    ) -> Self {
        std::fs::create_dir_all(folder).expect("the folder must be made");
        let log = folder.join("kubelet.log");
        let file = File::create(&log).expect("the log must be made");
        let root = folder.join("kubelet").display().to_string();
        let flags: Vec<String> =
            [flags, &["--root-dir", &root]].concat().iter().map(|&flag| flag.to_owned()).collect();
        let process = on_machine(machine, Path::new(env!("CARGO_BIN_EXE_minik8s")))
            .arg("kubelet")
            .args(join)
            .args(&flags)
            .args(NEVER_SHORT_OF_DISK)
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log must be shared"))
            .stderr(file)
            .spawn()
            .expect("the kubelet must start");
        Self { process, log, flags, machine: machine.map(str::to_owned) }
    }

    /// Takes the node out of the cluster; the process ends with it.
    fn leave(mut self) -> String {
        let mut command = on_machine(self.machine.as_deref(), Path::new(env!("CARGO_BIN_EXE_minik8s")));
        let answer = run(command.args(["kubelet", "leave"]).args(&self.flags)).ok();
        assert!(self.process.wait().expect("the kubelet must end").success(), "{}", self.log());
        let name = self.flags.iter().position(|flag| flag == "--node-name").expect("it must have a name");
        assert_eq!(control_groups(&self.flags[name + 1], ""), Vec::<PathBuf>::new());
        answer
    }

    /// Sends the process a signal.
    fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()])).ok();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the log of a kubelet that joined:\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until a node is ready; before it registers there is nothing to ask about.
fn wait_for_node(cluster: &Cluster, name: &str) {
    cluster.watch_with(&Kubectl::ours(), &["get", "nodes", "-w"], |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first() == Some(&name) && words.get(1) == Some(&"Ready")
    });
}

/// A pod on a node that says who asked it.
fn who(name: &str, node: &str) -> String {
    format!(
        r##"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: who}}}}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  tolerations: [{{operator: Exists, effect: NoExecute}}]
  containers:
  - name: web
    image: {IMAGE}
    command: [sh, -c]
    args:
    - |
      mkdir -p /www/cgi-bin
      printf '#!/bin/sh\necho\necho $REMOTE_ADDR\n' > /www/cgi-bin/who
      chmod +x /www/cgi-bin/who
      exec httpd -f -p 80 -h /www
---
"##
    )
}

#[test]
fn three_nodes_are_one_cluster_and_survive_the_loss_of_one() {
    let machines = Machines::make();
    let first = machines.name(1);
    let socket = machines.docker_socket(1);
    let flags = [
        &["--advertise-address", "192.0.2.11", "--node-ip", "192.0.2.11", "--docker-socket", &socket],
        &SILENCE[..],
    ];
    let cluster = Cluster::start_on(Some(&first), &flags.concat());
    let cidr = cluster.flag("--cluster-cidr").to_owned();
    let mut joined: Vec<Joined> = [(2, "near", "192.0.2.12"), (3, "far", "198.51.100.13")]
        .map(|(number, name, address)| {
            let socket = machines.docker_socket(number);
            let flags =
                ["--node-name", name, "--docker-socket", &socket, "--bridge", "mk0", "--cluster-cidr", &cidr];
            let more = ["--node-ip", address, "--node-lease-duration-seconds", "8"];
            let folder = machines.folder(number);
            Joined::start(&cluster, Some(&machines.name(number)), &folder, &flags, &more)
        })
        .into();
    let home = cluster.node().to_owned();
    for node in [home.as_str(), "near", "far"] {
        wait_for_node(&cluster, node);
    }
    pods_reach_one_another(&cluster, &machines, &home);
    another_range_is_for_new_pods(&cluster, &machines, &joined[0]);

    // One pod that does not wait long on a silent node, at first on the distant one.
    cluster.kubectl(&["label", "node", "near", "far", "example.minik8s.io/joined=true"]).ok();
    cluster.kubectl(&["cordon", "near"]).ok();
    cluster.kubectl(&["apply", "-f", "examples/nodes/mover.yaml"]).ok();
    let moved_to = |node: &str| {
        let args = ["get", "pods", "-l", "app=mover", "-o", "wide", "-w"];
        cluster.watch_with(&Kubectl::ours(), &args, |line| {
            line.contains(&format!(" {node} ")) && line.contains("1/1") && line.contains("Running")
        });
    };
    moved_to("far");
    cluster.kubectl(&["uncordon", "near"]).ok();
    let names = ["get", "pods", "-l", "app=mover", "-o", "name"];
    let before = cluster.kubectl(&names).ok().trim().to_owned();
    let containers = machines.containers(3);
    assert!(containers >= 4, "two pods with their sandboxes: {containers}");

    machines.cable(3, "down");
    cluster.wait("node/far", "condition=Ready=Unknown");
    moved_to("near");
    cluster.kubectl(&["delete", "pod", "who-far", "--wait=false"]).ok();
    assert_eq!(machines.containers(3), containers, "nobody can tell a lost node what to do");

    machines.cable(3, "up");
    wait_for_node(&cluster, "far");
    cluster.wait(&before, "delete");
    cluster.wait("pod/who-far", "delete");
    machines.wait_for_no_containers(3);

    cluster.kubectl(&["drain", "near", "--force", "--ignore-daemonsets"]).ok();
    moved_to("far");
    let near = joined.remove(0);
    assert!(near.leave().contains("the node near has left its cluster"));
    let gone = cluster.kubectl(&["get", "node", "near"]);
    assert!(gone.stderr.contains("not found"), "{}", gone.stderr);
    assert_eq!(machines.containers(2), 0);
    for (program, args) in
        [("ip", &["route", "show", "proto", "107"][..]), ("ip", &["link", "show", "type", "bridge"])]
    {
        assert_eq!(machines.on(2, program, args), "", "{args:?}");
    }
    assert!(!machines.on(2, "iptables-save", &[]).contains("MK0-"));
    machines.wait_for_routes(1, |routes| !routes.contains("via 192.0.2.12"));
    drop(joined);
}

/// Every pod reaches every other, under its own address, and the API server by its Service.
fn pods_reach_one_another(cluster: &Cluster, machines: &Machines, home: &str) {
    let pods = [("who-home", home), ("who-near", "near"), ("who-far", "far")];
    cluster.apply(&pods.map(|(name, node)| who(name, node)).concat());
    let address = |name: &str| {
        cluster.wait(&format!("pod/{name}"), "condition=Ready");
        cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).ok()
    };
    let addresses = pods.map(|(name, _)| address(name));
    machines.wait_for_routes(1, |routes| {
        routes.contains("via 192.0.2.12 dev eth0 proto 107") && routes.contains("proto 107 onlink")
    });
    machines.wait_for_routes(2, |routes| {
        routes.contains("via 192.0.2.11 dev eth0 proto 107") && routes.contains("proto 107 onlink")
    });
    machines.wait_for_routes(3, |routes| routes.matches("proto 107 onlink").count() == 2);
    let service = cluster.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    for (from, (name, _)) in pods.iter().enumerate() {
        for (to, target) in addresses.iter().enumerate().filter(|(to, _)| *to != from) {
            let url = format!("http://{target}/cgi-bin/who");
            // exec goes by the kubelet's certificate: the API server believes only one that the cluster has signed.
            let seen = cluster.kubectl(&["exec", name, "--", "wget", "-qO-", &url]).ok();
            // busybox writes an IPv4 address as IPv6 sockets see it.
            let seen = seen.trim().trim_matches(['[', ']']).trim_start_matches("::ffff:");
            assert_eq!(seen, addresses[from], "{name} to {}", pods[to].0);
        }
        let script = format!("echo | nc {service} 443");
        cluster.kubectl(&["exec", name, "--", "sh", "-c", &script]).ok();
    }
}

/// A Node object is replaced under its kubelet by one with another range: that counts for new pods, without a restart.
fn another_range_is_for_new_pods(cluster: &Cluster, machines: &Machines, near: &Joined) {
    let cidr = cluster.flag("--cluster-cidr");
    let (octets, half) = if let Some(octets) = cidr.strip_suffix(".0.0/17") {
        (octets, 100)
    } else {
        (cidr.strip_suffix(".128.0/17").expect("the harness gives halves"), 228)
    };
    let prefix = format!("{octets}.{half}.");
    let id = "jsonpath={.status.containerStatuses[0].containerID} {.status.podIP}";
    let before = cluster.kubectl(&["get", "pod", "who-near", "-o", id]).ok();
    near.signal("STOP");
    cluster.kubectl(&["delete", "node", "near"]).ok();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: near}}, spec: {{podCIDR: {prefix}0/24, podCIDRs: [{prefix}0/24]}}}}"
    ));
    near.signal("CONT");
    wait_for_node(cluster, "near");
    machines.wait_for_routes(1, |routes| routes.contains(&format!("{prefix}0/24 via 192.0.2.12")));
    // Known to the kernel of the node itself once the kubelet has followed.
    machines.wait_for_routes(2, |routes| routes.contains(&format!("{prefix}0/24 dev mk0")));
    cluster.apply(&who("who-again", "near"));
    cluster.wait("pod/who-again", "condition=Ready");
    let address = |name: &str| cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).ok();
    let again = address("who-again");
    assert!(again.starts_with(&prefix), "{again}");
    for (from, to) in [("who-home", "who-again"), ("who-near", "who-again"), ("who-again", "who-near")] {
        let url = format!("http://{}/cgi-bin/who", address(to));
        let seen = cluster.kubectl(&["exec", from, "--", "wget", "-qO-", &url]).ok();
        assert!(seen.contains(&address(from)), "{from} to {to}: {seen}");
    }
    assert_eq!(cluster.kubectl(&["get", "pod", "who-near", "-o", id]).ok(), before, "it did not notice");
}

/// The body of a request for a client certificate of the API server.
fn signing_request(name: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    let key = rcgen::KeyPair::generate().expect("a key must be made");
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("it must be written");
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec: {{signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], request: {}}}\n",
        STANDARD.encode(pem)
    )
}

#[test]
fn certificates_are_asked_for_approved_signed_and_renewed_in_place() {
    let cluster = Cluster::start(&["--container-runtime", "simulated", "--cluster-signing-duration", "20"]);
    let folder = tempfile::tempdir().expect("a directory must be had");
    let flags = ["--node-name", "renewing", "--container-runtime", "simulated"];
    let more = ["--port", "0", "--cluster-cidr", cluster.flag("--cluster-cidr")];
    let joined = Joined::start(&cluster, None, folder.path(), &flags, &more);
    wait_for_node(&cluster, "renewing");

    // What a person decides, with upstream's clients.
    for (kubectl, verb, state) in [
        (Kubectl::newest(), "approve", "Approved,Issued"),
        (Kubectl::debian(), "approve", "Approved,Issued"),
        (Kubectl::newest(), "deny", "Denied"),
    ] {
        let name = format!("{}-{verb}", kubectl.name.replace('.', "-"));
        cluster.apply(&signing_request(&name));
        let answer = cluster.with(&kubectl, &["certificate", verb, &name]);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        cluster.watch_with(&Kubectl::ours(), &["get", "csr", &name, "-w"], |line| line.ends_with(state));
    }

    // A second renewal is asked for by the first one's certificate: the joining one has ended by then.
    let mut renewed = std::collections::BTreeSet::new();
    let mut served = std::collections::BTreeSet::new();
    cluster.watch_with(&Kubectl::ours(), &["get", "csr", "-w"], |line| {
        let name = line.split_whitespace().next().unwrap_or_default().to_owned();
        if line.contains("system:node:renewing") && line.ends_with("Approved,Issued") {
            let kind = if line.contains("kubelet-serving") { &mut served } else { &mut renewed };
            kind.insert(name);
        }
        renewed.len() >= 2 && served.len() >= 2
    });
    wait_for_node(&cluster, "renewing");

    // Nobody joins with a token that is gone, or trusts another authority.
    let printed = cluster.minik8s(&["token"]).ok();
    let words: Vec<&str> = printed.split_whitespace().collect();
    let id = words[5].split('.').next().expect("a token has an id");
    assert!(cluster.minik8s(&["token", "list"]).ok().contains(id));
    let root = folder.path().join("other").display().to_string();
    let join = |token: &str, hash: &[&str]| {
        let args = ["kubelet", "--join", words[3], "--token", token, "--root-dir", &root];
        cluster.minik8s(&[&args[..], hash].concat())
    };
    let wrong = join(words[5], &["--ca-cert-hash", &format!("sha256:{}", "0".repeat(64))]);
    assert!(wrong.code != 0 && wrong.stderr.contains("is not the one of --ca-cert-hash"), "{}", wrong.stderr);
    // Without a hash, the token's signature tells whether this is the cluster.
    let alone = folder.path().join("alone");
    // (Of a token of its own: one that was shown is believed for some seconds after its end, as upstream's.)
    let second = cluster.minik8s(&["token"]).ok();
    let second = second.split_whitespace().nth(5).expect("a token must be printed");
    let by_token = Joined::start_with(
        &["--join", words[3], "--token", second],
        None,
        &alone,
        &["--node-name", "by-token", "--container-runtime", "simulated"],
        &more,
    );
    wait_for_node(&cluster, "by-token");
    let stranger = join(&format!("{id}.{}", "0".repeat(16)), &[]);
    assert!(stranger.code != 0 && stranger.stderr.contains("a wrong signature"), "{}", stranger.stderr);
    cluster.minik8s(&["token", "delete", id]).ok();
    let refused = join(words[5], &["--ca-cert-hash", words[7]]);
    assert!(refused.code != 0 && refused.stderr.contains("Unauthorized"), "{}", refused.stderr);
    let signature =
        ["get", "cm", "-n", "kube-public", "cluster-info", "-w", "-o", "jsonpath={.data}{\"\\n\"}"];
    let key = format!("jws-kubeconfig-{id}");
    cluster
        .watch_with(&Kubectl::ours(), &signature, |line| line.contains("kubeconfig") && !line.contains(&key));
    by_token.leave();
    joined.leave();
}
