//! A pod's containers by bare Docker calls: what the daemon takes, whoever asks.
//!
//! Bare means: a fresh connection, a request written by hand, its answer; no labels, no bookkeeping.

use std::path::PathBuf;

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The oldest API that has all of it.
const VERSION: &str = "v1.41";

/// Where the daemon listens, and what to start.
#[derive(Clone)]
pub(crate) struct Docker {
    pub(crate) socket: PathBuf,
    /// Image of the sandboxes.
    pub(crate) pause: String,
    /// Image of the containers.
    pub(crate) image: String,
    /// Whether Docker leaves the sandboxes' network alone, as the kubelet has it, instead of setting `none` up.
    pub(crate) network_disabled: bool,
}

impl Docker {
    /// Finds the kubelet's own image for sandboxes.
    pub(crate) async fn find(socket: PathBuf, image: String) -> anyhow::Result<Self> {
        let mut docker = Self { socket, pause: String::new(), image, network_disabled: false };
        let images = docker.call("GET", "/images/json", "").await?;
        let body = images.split_once("\r\n\r\n").context("an answer has a body")?.1;
        let from = body.find("minik8s/pause:").context("no kubelet has made its image for sandboxes yet")?;
        docker.pause = body[from..].split('"').next().unwrap_or_default().to_owned();
        Ok(docker)
    }

    /// Starts what a pod of one container is made of.
    pub(crate) async fn start_pod(&self, name: &str) -> anyhow::Result<()> {
        let sandbox = format!("{name}-sandbox");
        let body = format!(
            r#"{{"Image":"{}","NetworkDisabled":{},"HostConfig":{{"NetworkMode":"none","IpcMode":"shareable"}}}}"#,
            self.pause, self.network_disabled
        );
        self.call("POST", &format!("/containers/create?name={sandbox}"), &body).await?;
        self.call("POST", &format!("/containers/{sandbox}/start"), "").await?;
        let joined = format!("container:{sandbox}");
        let body = format!(
            r#"{{"Image":"{}","Entrypoint":["sleep","100000"],"HostConfig":{{"NetworkMode":"{joined}","IpcMode":"{joined}"}}}}"#,
            self.image
        );
        self.call("POST", &format!("/containers/create?name={name}-app"), &body).await?;
        self.call("POST", &format!("/containers/{name}-app/start"), "").await?;
        Ok(())
    }

    /// Removes what [`Self::start_pod`] started.
    pub(crate) async fn remove_pod(&self, name: &str) -> anyhow::Result<()> {
        for part in ["app", "sandbox"] {
            self.call("DELETE", &format!("/containers/{name}-{part}?force=1"), "").await?;
        }
        Ok(())
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await.context("connecting to Docker")?;
        let request = format!(
            "{method} /{VERSION}{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if !answer.starts_with("HTTP/1.1 20") {
            bail!("{method} {path}: {answer}");
        }
        Ok(answer)
    }
}
