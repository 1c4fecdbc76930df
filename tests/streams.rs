//! Streams into pods, by every client in use: exec, attach, port-forward, cp, run -it --rm and logs.
//!
//! kubectl 1.20 speaks SPDY for all of it, 1.32 and 1.36 WebSockets with SPDY inside for port-forward, ours
//! WebSockets for exec and SPDY for port-forward, and the `kube` crate channels of a WebSocket.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config, config::Kubeconfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Answer, Cluster, IMAGE, Kubectl, PATIENCE, run};

/// More than any buffer on the way.
const LARGE: usize = 3 << 20;

fn manifest() -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: streams}}}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - {{name: first, image: "{IMAGE}", command: [sh, -c, "echo prepared"]}}
  containers:
    - name: server
      image: "{IMAGE}"
      command: [sh, -c, "echo hello > /var/www/index.html; echo serving; exec httpd -f -p 127.0.0.1:8080 -h /var/www"]
      ports: [{{name: http, containerPort: 8080}}, {{name: dns, containerPort: 53, protocol: UDP}}]
      readinessProbe: {{exec: {{command: [wget, -qO-, "http://127.0.0.1:8080/"]}}, periodSeconds: 1}}
    - name: counter
      image: "{IMAGE}"
      command: [sh, -c, "for i in 1 2 3; do echo line $i; done; exec nc -ll -p 9000 -e wc -c"]
      readinessProbe: {{tcpSocket: {{port: 9000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: echo}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: echo, image: "{IMAGE}", stdin: true, command: [sh, -c, "while read line; do echo got $line; done"]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: streams}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: page, labels: {{app: page}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: "{IMAGE}"
      command: [sh, -c, "echo page > /var/www/index.html; exec httpd -f -p 8080 -h /var/www"]
      ports: [{{name: http, containerPort: 8080}}]
      readinessProbe: {{httpGet: {{port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: page}}
spec:
  selector: {{app: page}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"#
    )
}

#[test]
fn streams_of_every_client() {
    let cluster = Cluster::start(&[]);
    cluster.apply(&manifest());
    cluster.wait("pod/web", "condition=Ready");
    cluster.wait("pod/echo", "condition=Ready");
    cluster.wait("pod/page", "condition=Ready");
    let makes = [Kubectl::ours(), Kubectl::upstream(), Kubectl::debian(), Kubectl::newest()];
    thread::scope(|scope| {
        for kubectl in &makes {
            let cluster = &cluster;
            scope.spawn(move || {
                exec(cluster, kubectl);
                terminal(cluster, kubectl);
                forward(cluster, kubectl);
                copy(cluster, kubectl);
                run_once(cluster, kubectl);
            });
        }
    });
    copy_in_two_parts(&cluster, &makes[0]);
    for kubectl in &makes {
        attach(&cluster, kubectl);
    }
    logs(&cluster);
    forward_through_a_service(&cluster);
    kube_forwards(&cluster);
    proxies(&cluster);
    who_may_ask_the_kubelet(&cluster);
}

/// Runs a command that must not take for ever.
fn within(mut command: Command, input: &[u8]) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command must start");
    let mut stdin = child.stdin.take().expect("there must be an input");
    let input = input.to_vec();
    let feeding = thread::spawn(move || {
        // A command that has ended takes no more.
        let _ = stdin.write_all(&input);
    });
    let pid = child.id().to_string();
    let (done, waiting) = sync_channel::<()>(1);
    let watchdog = thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE).is_err() {
            run(Command::new("kill").args(["-9", &pid]));
        }
    });
    let output = child.wait_with_output().expect("the command must end");
    let _ = done.send(());
    watchdog.join().expect("the watchdog must end");
    feeding.join().expect("the input must be taken or refused");
    Answer {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

fn exec(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let args = ["exec", "-i", "web", "-c", "server", "--", "sh", "-c", "cat; echo done >&2; exit 7"];
    let answer = within(cluster.command(kubectl, &args), b"over and back");
    assert_eq!((answer.stdout.as_str(), answer.code), ("over and back", 7), "{name}: {}", answer.stderr);
    assert!(answer.stderr.starts_with("done\n"), "{name}: {}", answer.stderr);

    // Both ways at once, more than fits anywhere: a side that waited for the other would wait for ever.
    let large: Vec<u8> = (0..LARGE).map(|at| b"0123456789abcdef"[at % 16]).collect();
    let args = ["exec", "-i", "web", "-c", "server", "--", "cat"];
    let answer = within(cluster.command(kubectl, &args), &large);
    assert_eq!(answer.code, 0, "{name}: {}", answer.stderr);
    assert!(answer.stdout.as_bytes() == large, "{name}: {} bytes came back", answer.stdout.len());

    let args = ["exec", "web", "-c", "server", "--", "no-such-program"];
    let answer = within(cluster.command(kubectl, &args), b"");
    assert_ne!(answer.code, 0, "{name}");
}

/// A terminal of a size of its own, which reaches the container.
fn terminal(cluster: &Cluster, kubectl: &Kubectl) {
    let inside = "until [ \"$(stty size)\" = \"33 101\" ]; do :; done; tty >/dev/null && echo seen";
    let command = cluster.command(kubectl, &["exec", "-it", "web", "-c", "server", "--", "sh", "-c", inside]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 33 cols 101; exec {}", words.join(" ")), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let answer = within(script, b"");
    assert!(answer.stdout.contains("seen"), "{}: {}{}", kubectl.name, answer.stdout, answer.stderr);
    assert_eq!(answer.code, 0, "{}", kubectl.name);
}

/// A `kubectl port-forward` that runs.
struct Forwarding {
    child: Child,
    port: u16,
    complaints: Receiver<String>,
}

impl Forwarding {
    fn start(cluster: &Cluster, kubectl: &Kubectl, target: &str, remote: &str) -> Self {
        let args = ["port-forward", "--address", "127.0.0.1", target, &format!(":{remote}")];
        let mut child = cluster
            .command(kubectl, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl must start");
        let complaints = lines(child.stderr.take().expect("there must be errors"));
        let output = lines(child.stdout.take().expect("there must be an output"));
        let line = output.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("{} does not forward {target}: {:?}", kubectl.name, complaints.iter().collect::<Vec<_>>())
        });
        // Read on, or kubectl waits for a reader of what it says about each connection.
        thread::spawn(move || output.iter().count());
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(" -> ").next()?.parse().ok())
            .unwrap_or_else(|| panic!("{} said {line:?}", kubectl.name));
        Self { child, port, complaints }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the port must be listened on");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout must be settable");
        stream
    }

    /// Waits until kubectl has complained of something.
    fn complains(&self, of: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.complaints.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(of) {
                return true;
            }
        }
        false
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(256);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn get(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("the request must be taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer must come");
    answer
}

fn forward(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let forwarding = Forwarding::start(cluster, kubectl, "pod/web", "8080");
    // The server listens on the pod's own loopback: nothing but its network namespace reaches it.
    thread::scope(|scope| {
        for _ in 0..20 {
            let stream = forwarding.connect();
            scope.spawn(|| {
                let answer = get(stream);
                assert!(answer.ends_with("\r\nhello\n"), "{name}: {answer:?}");
            });
        }
    });
    drop(forwarding);

    // The count comes only once the input has ended, over what is then half a connection.
    let forwarding = Forwarding::start(cluster, kubectl, "web", "9000");
    for bytes in [5, LARGE] {
        let mut stream = forwarding.connect();
        stream.write_all(&vec![b'x'; bytes]).expect("the input must be taken");
        stream.shutdown(Shutdown::Write).expect("half must close");
        let mut count = String::new();
        stream.read_to_string(&mut count).expect("the count must come");
        assert_eq!(count.trim(), bytes.to_string(), "{name}");
    }
    drop(forwarding);

    let forwarding = Forwarding::start(cluster, kubectl, "pod/web", "81");
    let mut stream = forwarding.connect();
    let _ = stream.write_all(b"x");
    let mut nothing = Vec::new();
    // Whether it is closed or reset is up to the client.
    let _ = stream.read_to_end(&mut nothing);
    assert!(nothing.is_empty(), "{name}");
    assert!(forwarding.complains("127.0.0.1:81: connect: connection refused"), "{name} must say why");
}

fn copy(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let folder = tempfile::tempdir().expect("a directory must be had");
    let path = |file: &str| folder.path().join(file).to_str().expect("the path must be UTF-8").to_owned();
    fs::create_dir_all(path("tree/deep")).expect("a directory must be made");
    fs::write(path("tree/deep/file"), vec![b'x'; LARGE]).expect("a file must be written");
    fs::write(path("tree/other"), "other").expect("a file must be written");
    let there = format!("/tmp/{name}");
    let run = |args: &[&str]| {
        let answer = within(cluster.command(kubectl, args), b"");
        assert_eq!(answer.code, 0, "{name}: {args:?}: {}", answer.stderr);
        answer
    };
    run(&["cp", &path("tree"), &format!("web:{there}"), "-c", "counter"]);
    let count = [
        "exec",
        "web",
        "-c",
        "counter",
        "--",
        "sh",
        "-c",
        &format!("wc -c < {there}/deep/file; cat {there}/other"),
    ];
    assert_eq!(run(&count).stdout, format!("{LARGE}\nother"), "{name}");
    // Into a directory that is there, under its own name; the namespace before the pod.
    run(&["cp", &path("tree/other"), &format!("default/web:{there}/deep"), "-c", "counter"]);
    run(&["cp", &format!("web:{there}/deep"), &path("back"), "-c", "counter"]);
    assert_eq!(fs::read(path("back/file")).map(|bytes| bytes.len()).ok(), Some(LARGE), "{name}");
    assert_eq!(fs::read_to_string(path("back/other")).ok().as_deref(), Some("other"), "{name}");
}

/// What breaks off goes on where it was: the first `tar` gives a part and fails.
fn copy_in_two_parts(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let folder = tempfile::tempdir().expect("a directory must be had");
    let target = folder.path().join("file");
    let target = target.to_str().expect("the path must be UTF-8");
    let in_pod = |script: &str| {
        let command = ["exec", "web", "-c", "counter", "--", "sh", "-c", script];
        within(cluster.command(kubectl, &command), b"").ok()
    };
    in_pod(
        "cd /bin && rm tar && cat >tar <<'END'\n\
         #!/bin/sh\n\
         [ ! -e /tmp/broke ] || exec busybox tar \"$@\"\n\
         touch /tmp/broke; busybox tar \"$@\" | head -c 100000; exit 1\nEND\n\
         chmod +x tar; seq 1 50000 >\"/tmp/it's there\"",
    );
    let copied = ["cp", "--retries=2", "web:/tmp/it's there", target, "-c", "counter"];
    let answer = within(cluster.command(kubectl, &copied), b"");
    assert!(
        answer.stderr.contains("Resuming copy at 100000 bytes, retry 1/2 - "),
        "{name}: {}",
        answer.stderr
    );
    assert_eq!(answer.code, 0, "{name}: {}", answer.stderr);
    let lines: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    assert!(fs::read_to_string(target).expect("it must be there") == lines, "{name}: another file came");
    in_pod("cd /bin && ln -sf busybox tar; rm /tmp/broke");
}

fn run_once(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let pod = format!("once-{}", name.replace('.', "-"));
    let image = format!("--image={IMAGE}");
    // It reads before it writes, so that it is attached to by then.
    let script = "read line; echo heard $line; exit 5";
    let args = ["run", &pod, "-i", "--rm", "--restart=Never", &image, "--", "sh", "-c", script];
    let answer = within(cluster.command(kubectl, &args), b"this\n");
    assert!(answer.stdout.contains("heard this\n"), "{name}: {}{}", answer.stdout, answer.stderr);
    assert!(
        answer.stdout.contains(&format!("pod \"{pod}\" deleted")),
        "{name}: {}{}",
        answer.stdout,
        answer.stderr
    );
    assert_eq!(answer.code, 5, "{name}: {}", answer.stderr);
}

fn attach(cluster: &Cluster, kubectl: &Kubectl) {
    let name = &kubectl.name;
    let mut child = cluster
        .command(kubectl, &["attach", "-i", "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl must start");
    let output = lines(child.stdout.take().expect("there must be an output"));
    let mut input = child.stdin.take().expect("there must be an input");
    writeln!(input, "{name}").expect("the input must be taken");
    let deadline = Instant::now() + PATIENCE;
    let heard = loop {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line == format!("got {name}") => break true,
            Ok(_) => {}
            Err(_) => break false,
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    assert!(heard, "{name} must hear what it said");
}

/// Ours says what upstream's says.
fn logs(cluster: &Cluster) {
    let log = |kubectl: &Kubectl, args: &[&str]| {
        let mut command = vec!["logs"];
        command.extend(args);
        let answer = within(cluster.command(kubectl, &command), b"");
        (answer.stdout, answer.stderr, answer.code)
    };
    for args in [
        &["web", "-c", "counter"][..],
        &["web", "counter", "--tail=1"],
        &["web", "-c", "counter", "--limit-bytes=8"],
        &["web", "-c", "counter", "--timestamps"],
        &["web", "-c", "counter", "--since-time=2001-02-03T04:05:06Z"],
        &["web", "-c", "first", "--prefix"],
        &["web"],
        &["web", "-c", "nothing"],
        &["web", "--all-containers", "-c", "counter"],
        &["-l", "app=streams", "-c", "counter", "--prefix"],
        &["-l", "app=streams", "--all-containers", "-f", "--max-log-requests=2"],
        &["-l", "app=nothing"],
        &["service/web", "-c", "counter", "--tail=2"],
        &["web", "-c", "counter", "--previous"],
        &["web", "-c", "counter", "--since=1h", "--since-time=2001-02-03T04:05:06Z"],
        &["web", "-c", "counter", "--tail=-2"],
        &["web", "-c", "counter", "--previous", "-f", "--pod-running-timeout=500ms"],
        &["web", "-c", "counter", "--previous", "--ignore-errors"],
    ] {
        assert_eq!(log(&Kubectl::ours(), args), log(&Kubectl::newest(), args), "logs {args:?}");
    }
    // Whole, where upstream's order is that of a map.
    let (out, err, code) = log(&Kubectl::ours(), &["web", "--all-containers", "--prefix"]);
    assert_eq!(
        (out.as_str(), err.as_str(), code),
        (
            "[pod/web/first] prepared\n[pod/web/server] serving\n[pod/web/counter] line 1\n\
             [pod/web/counter] line 2\n[pod/web/counter] line 3\n",
            "",
            0
        )
    );
}

fn forward_through_a_service(cluster: &Cluster) {
    for kubectl in [Kubectl::ours(), Kubectl::upstream()] {
        for port in ["80", "http"] {
            let forwarding = Forwarding::start(cluster, &kubectl, "service/web", port);
            assert!(get(forwarding.connect()).ends_with("\r\nhello\n"), "{}: {port}", kubectl.name);
        }
        let refused = within(cluster.command(&kubectl, &["port-forward", "pod/web", "53"]), b"");
        assert_eq!(
            (refused.stderr.as_str(), refused.code),
            ("error: UDP protocol is not supported for 53\n", 1),
            "{}",
            kubectl.name
        );
    }
}

/// Through the server to nodes, pods and Services.
fn proxies(cluster: &Cluster) {
    let kubectl = Kubectl::upstream();
    let raw = |path: &str| cluster.with(&kubectl, &["get", "--raw", path]);
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    assert_eq!(raw(&format!("/api/v1/nodes/{node}/proxy/healthz")).ok(), "ok");
    let base = "/api/v1/namespaces/default";
    for path in
        ["pods/page:8080", "pods/page", "pods/http:page:http", "services/page:http", "services/page:80"]
    {
        assert_eq!(raw(&format!("{base}/{path}/proxy/index.html")).ok(), "page\n", "{path}");
    }
    let refused = raw(&format!("{base}/services/page:81/proxy/"));
    assert!(refused.stderr.contains("no service port 81 found for service"), "{}", refused.stderr);
}

/// The kubelet's own port: whom the API server knows, for what it allows.
fn who_may_ask_the_kubelet(cluster: &Cluster) {
    cluster.apply(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: kubelet-reader}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/healthz], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubelet-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubelet-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
"#,
    );
    let token = |account: &str| {
        cluster.with(&Kubectl::upstream(), &["create", "token", account]).ok().trim().to_owned()
    };
    let status = |path: &str| {
        cluster.kubectl(&["get", "nodes", "-o", &format!("jsonpath={{.items[0].status.{path}}}")]).ok()
    };
    let address = status("addresses[0].address");
    let port = status("daemonEndpoints.kubeletEndpoint.Port");
    let ask = |path: &str, token: &str| {
        let url = format!("https://{address}:{port}{path}");
        let header = format!("Authorization: Bearer {token}");
        let mut args = vec!["-sk", "-w", "\n%{http_code}", &url];
        if !token.is_empty() {
            args.extend(["-H", &header]);
        }
        let answer = run(Command::new("curl").args(args)).ok();
        let (body, code) = answer.rsplit_once('\n').expect("the code must come last");
        (code.to_owned(), body.trim_end().to_owned())
    };
    assert_eq!(ask("/healthz", ""), ("401".to_owned(), "Unauthorized".to_owned()));
    assert_eq!(ask("/healthz", "no.such.token").0, "401");
    let stranger = token("default");
    let forbidden = |user: &str, subresources: &str| {
        let text = format!(
            "Forbidden (user=system:serviceaccount:default:{user}, verb=get, resource=nodes, \
             subresource(s)=[{subresources}])"
        );
        ("403".to_owned(), text)
    };
    assert_eq!(ask("/metrics", &stranger), forbidden("default", "metrics"));
    assert_eq!(ask("/pods", &stranger), forbidden("default", "pods proxy"));
    let reader = token("reader");
    let deadline = Instant::now() + PATIENCE;
    // What was granted a moment ago takes a moment to count, and a refusal is remembered for half a minute.
    while ask("/healthz", &reader) != ("200".to_owned(), "ok".to_owned()) {
        assert!(Instant::now() < deadline, "{:?}", ask("/healthz", &reader));
    }
    let (code, metrics) = ask("/metrics", &reader);
    assert!(code == "200" && metrics.contains("kubelet_running_pods"), "{code} {metrics}");
    assert_eq!(ask("/pods", &reader), forbidden("reader", "pods proxy"));
    assert_eq!(ask("/exec/default/web/server?command=id&output=1", &reader), forbidden("reader", "proxy"));
}

/// The `kube` crate: channels of a WebSocket, several ports at once.
fn kube_forwards(cluster: &Cluster) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime must be had");
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("the kubeconfig must be readable");
    let scenario = async {
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("it must be usable");
        let pods: Api<Pod> = Api::default_namespaced(Client::try_from(config).expect("a client must be had"));
        let mut forwarder = pods.portforward("web", &[8080, 81]).await.expect("ports must be forwarded");
        let refused = forwarder.take_error(81).expect("there must be an error channel").await;
        let refused = refused.expect("somebody must say why");
        assert!(refused.contains("connect: connection refused"), "{refused}");
        let mut stream = forwarder.take_stream(8080).expect("there must be a stream");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("the request must be taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the answer must come");
        assert!(answer.ends_with("\r\nhello\n"), "{answer:?}");
    };
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, scenario).await });
    ended.expect("the scenario must end in time");
    runtime.shutdown_timeout(Duration::from_secs(1));
}
