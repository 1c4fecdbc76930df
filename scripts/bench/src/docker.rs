//! A pod's containers by bare Docker calls: what the daemon takes, whoever asks.
//!
//! Bare means: a fresh connection, a request written by hand, its answer; no labels, no bookkeeping. What is asked for
//! is what the kubelet asked for: the same configuration, read from a pod that runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The oldest API that has all of it.
const VERSION: &str = "v1.41";

/// Where the daemon listens, and what to start.
#[derive(Clone)]
pub(crate) struct Docker {
    socket: PathBuf,
    sandbox: Value,
    container: Value,
}

impl Docker {
    /// Starts what a running pod of one container is made of.
    pub(crate) async fn like(socket: &Path, pod: &str) -> anyhow::Result<Self> {
        let sandbox = part(socket, pod, "podsandbox").await?;
        let container = part(socket, pod, "container").await?;
        Ok(Self { socket: socket.to_owned(), sandbox, container })
    }

    /// The same, but Docker sets the network `none` up for the sandbox, as it does unless told otherwise.
    pub(crate) fn with_network_none(&self) -> Self {
        let mut plain = self.clone();
        plain.sandbox["NetworkDisabled"] = Value::Bool(false);
        plain
    }

    /// Starts a pod's containers.
    pub(crate) async fn start_pod(&self, name: &str) -> anyhow::Result<()> {
        let sandbox = format!("{name}-sandbox");
        let mut container = self.container.clone();
        for namespace in ["NetworkMode", "IpcMode"] {
            container["HostConfig"][namespace] = json!(format!("container:{sandbox}"));
        }
        for (name, body) in [(sandbox, &self.sandbox), (format!("{name}-app"), &container)] {
            let create = format!("/containers/create?name={name}");
            call(&self.socket, "POST", &create, &body.to_string()).await?;
            call(&self.socket, "POST", &format!("/containers/{name}/start"), "").await?;
        }
        Ok(())
    }

    /// Removes what [`Self::start_pod`] started.
    pub(crate) async fn remove_pod(&self, name: &str) -> anyhow::Result<()> {
        for part in ["app", "sandbox"] {
            call(&self.socket, "DELETE", &format!("/containers/{name}-{part}?force=1"), "").await?;
        }
        Ok(())
    }
}

/// What one of a pod's containers was created with.
async fn part(socket: &Path, pod: &str, kind: &str) -> anyhow::Result<Value> {
    let filter = json!({"label": [format!("io.kubernetes.pod.name={pod}"), format!("io.kubernetes.docker.type={kind}")]});
    // Every byte is escaped: whoever reads it does not mind, and nobody has to know which needs it.
    let escaped: String = filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let listed = call(socket, "GET", &format!("/containers/json?filters={escaped}"), "").await?;
    let id = listed[0]["Id"].as_str().with_context(|| format!("the pod {pod} has no {kind}"))?;
    let found = call(socket, "GET", &format!("/containers/{id}/json"), "").await?;
    let mut body = found["Config"].clone();
    body["HostConfig"] = found["HostConfig"].clone();
    let fields = body.as_object_mut().context("a configuration is an object")?;
    // The kubelet must not take it for its own, and names that come from a joined sandbox may not be given.
    fields.remove("Labels");
    if kind == "container" {
        fields.remove("Hostname");
        fields.remove("Domainname");
    }
    Ok(body)
}

/// Calls the daemon; the answer's body, if it is JSON.
async fn call(socket: &Path, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(socket).await.context("connecting to Docker")?;
    // HTTP/1.0: the answer comes in one piece, and ends with the connection.
    let request = format!(
        "{method} /{VERSION}{path} HTTP/1.0\r\nHost: docker\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, content) = answer.split_once("\r\n\r\n").context("an answer has a body")?;
    if !head.split(' ').nth(1).is_some_and(|status| status.starts_with("20")) {
        bail!("{method} {path}: {answer}");
    }
    Ok(serde_json::from_str(content).unwrap_or_default())
}
