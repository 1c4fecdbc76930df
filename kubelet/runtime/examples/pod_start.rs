//! How long a pod takes to start here, beside the same Docker calls made bare in the same run.
//!
//! `cargo run --release -p kubelet-runtime --example pod_start [ROUNDS]` prints the medians for `docs/performance.md`.
//! Bare means: a fresh connection, a request written by hand, its answer; no labels, no bookkeeping. Bare and ours
//! take turns, so that both meet the same machine.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::time::{Duration, Instant};

use kubelet_runtime::{
    PodRuntime,
    docker::{DockerOptions, DockerRuntime},
    testing,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const SOCKET: &str = "/var/run/docker.sock";
const STAGES: [&str; 2] = ["sandbox: create, start", "container: create, start"];

#[tokio::main]
async fn main() {
    let rounds =
        std::env::args().nth(1).map_or(20, |rounds| rounds.parse().expect("rounds must be a number"));
    let runtime = DockerRuntime::connect(DockerOptions::new("pod-start")).await.expect("docker must answer");
    if runtime.image(testing::IMAGE).await.expect("images must be told").is_none() {
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static must be installed");
        runtime.import_busybox(testing::IMAGE, &busybox, &[]).await.expect("the image must be made");
    }
    // The first one makes the image and warms everything up.
    ours(&runtime).await;
    let pause =
        runtime.images().await.expect("images must be told").into_iter().flat_map(|image| image.names);
    let pause =
        pause.into_iter().find(|name| name.starts_with("minik8s/pause:")).expect("the image must be there");
    let (mut bare_times, mut our_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        bare_times.push(bare(&pause, round).await);
        our_times.push(ours(&runtime).await);
    }
    println!("{:<26}{:>10}{:>10}{:>8}", "median of a pod", "bare ms", "ours ms", "ratio");
    for (stage, name) in STAGES.into_iter().enumerate() {
        row(name, median(&bare_times, |times| times[stage]), median(&our_times, |times| times[stage]));
    }
    let total = |times: &[Duration; 2]| times[0] + times[1];
    row("all", median(&bare_times, total), median(&our_times, total));
}

fn row(name: &str, bare: Duration, ours: Duration) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!("{name:<26}{:>10.1}{:>10.1}{ratio:>8.2}", milliseconds(bare), milliseconds(ours));
}

fn median(times: &[[Duration; 2]], of: impl Fn(&[Duration; 2]) -> Duration) -> Duration {
    let mut values: Vec<Duration> = times.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

async fn ours(runtime: &DockerRuntime) -> [Duration; 2] {
    let sandbox = testing::sandbox_spec("pod-start");
    let begin = Instant::now();
    runtime.ensure_sandbox(&sandbox).await.expect("a sandbox must be made");
    let middle = Instant::now();
    let spec = testing::container_spec("app", &["sleep", "1000"]);
    runtime.run_container(&sandbox.pod, &spec).await.expect("a container must run");
    let end = Instant::now();
    runtime.remove_pod(&sandbox.pod.uid).await.expect("the pod must go");
    [middle - begin, end - middle]
}

async fn bare(pause: &str, round: usize) -> [Duration; 2] {
    let (sandbox, app) = (format!("pod-start-sandbox-{round}"), format!("pod-start-app-{round}"));
    let begin = Instant::now();
    let body =
        format!(r#"{{"Image":"{pause}","HostConfig":{{"NetworkMode":"none","IpcMode":"shareable"}}}}"#);
    call("POST", &format!("/containers/create?name={sandbox}"), &body).await;
    call("POST", &format!("/containers/{sandbox}/start"), "").await;
    let middle = Instant::now();
    let body = format!(
        r#"{{"Image":"{}","Entrypoint":["sleep","1000"],"HostConfig":{{"NetworkMode":"container:{sandbox}","IpcMode":"container:{sandbox}"}}}}"#,
        testing::IMAGE
    );
    call("POST", &format!("/containers/create?name={app}"), &body).await;
    call("POST", &format!("/containers/{app}/start"), "").await;
    let end = Instant::now();
    for name in [app, sandbox] {
        call("DELETE", &format!("/containers/{name}?force=1"), "").await;
    }
    [middle - begin, end - middle]
}

async fn call(method: &str, path: &str, body: &str) {
    let mut stream = UnixStream::connect(SOCKET).await.expect("docker must answer");
    let request = format!(
        "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("docker must listen");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("docker must answer");
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
}
