//! One forwarded connection: bytes between a client's stream and a port of the pod.

use std::{io, sync::Arc};

use kubelet_runtime::{PodConnection, PodRuntime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Whose ports.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) runtime: Arc<dyn PodRuntime>,
    pub(super) pod: String,
    pub(super) uid: String,
}

impl Target {
    /// Connects to a port of the pod. An error is for the client, in upstream's words.
    ///
    /// Later trouble is no error: the pod's program has reset the connection, or the client has. Upstream's clients
    /// up to 1.36 give up all of their connections when they are told of any.
    pub(super) async fn dial(&self, port: u16) -> Result<PodConnection, String> {
        let dialed = self.runtime.port_forward(&self.uid, port).await;
        dialed.map_err(|error| {
            format!("error forwarding port {port} to pod {}, uid {}: {error}", self.pod, self.uid)
        })
    }
}

/// Carries a connection until both sides have finished, each in its own time. `pod_finished` runs when the pod has.
pub(super) async fn carry_both<R, W, F>(connection: PodConnection, reader: R, writer: W, pod_finished: F)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (from_pod, to_pod) = tokio::io::split(connection);
    let down = async {
        pass(from_pod, writer).await?;
        pod_finished.await;
        Ok(())
    };
    if let Err(error) = tokio::try_join!(pass(reader, to_pod), down) {
        tracing::debug!("a forwarded connection broke: {error}");
    }
}

/// Carries a connection until the pod has finished, for a client that cannot say that it has.
pub(super) async fn carry_until_pod_finishes<R, W>(connection: PodConnection, reader: R, writer: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (from_pod, to_pod) = tokio::io::split(connection);
    let ended = tokio::select! {
        ended = pass(from_pod, writer) => ended,
        Err(error) = pass(reader, to_pod) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!("a forwarded connection broke: {error}");
    }
}

/// Copies to the end, and passes the end on.
async fn pass<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut from: R, mut to: W) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}
