//! exec and attach over SPDY: a stream for each of input, output, errors, sizes and the outcome.
//!
//! The client opens the streams, each with its header `streamType`; how many follows from what it asked for in its
//! query. The outcome is a Status as JSON in v4, and before that the text of an error, if there is one
//! (`k8s.io/kubelet/pkg/cri/streaming/remotecommand`).

use std::time::Duration;

use futures_util::StreamExt;
use kubelet_runtime::{ExecControl, ExecSession, Output};
use spdy::{Incoming, Reader, Role, Writer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{Size, Wanted, failure, outcome};

/// Protocols that we speak. v5 differs from v4 in WebSockets only.
pub(super) const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams (upstream's `StreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);
/// The most of sizes that waits to be understood: one takes 30 bytes.
const SIZES: usize = 1024;

/// What a protocol's version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Before v3: terminals do not change their size.
    Early,
    /// Outcomes are text.
    Third,
    /// Outcomes are JSON.
    Fourth,
}

impl Version {
    fn of(protocol: Option<&str>) -> Self {
        match protocol {
            Some("v5.channel.k8s.io" | "v4.channel.k8s.io") => Self::Fourth,
            Some("v3.channel.k8s.io") => Self::Third,
            _ => Self::Early,
        }
    }
}

#[derive(Default)]
struct Streams {
    stdin: Option<Reader>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    error: Option<Writer>,
    resize: Option<Reader>,
    /// Halves that are not used, and must not be dropped before the end: dropping resets the stream.
    unused: Vec<Writer>,
}

/// Connects a session with a client that has been upgraded.
pub(super) async fn serve<S>(io: S, protocol: Option<&'static str>, wanted: Wanted, session: ExecSession)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let version = Version::of(protocol);
    let (connection, mut incoming, running) = spdy::start(io, Role::Server);
    let work = async {
        match timeout(CREATION, gather(&mut incoming, version, &wanted)).await {
            Ok(Some(streams)) => carry(streams, version, session).await,
            Ok(None) => {}
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
        connection.close().await;
        std::future::pending::<()>().await;
    };
    // The connection ends once it is closed, by us or by the client.
    tokio::select! {
        ended = running => if let Err(error) = ended {
            tracing::debug!("a SPDY connection ended: {error}");
        },
        () = work => {}
    }
}

/// Takes streams until all that are expected are there; `None` if the client has gone.
async fn gather(incoming: &mut Incoming, version: Version, wanted: &Wanted) -> Option<Streams> {
    let resizes = wanted.spec.tty && version != Version::Early;
    let mut missing = 1 + [wanted.spec.stdin, wanted.stdout, wanted.stderr, resizes]
        .into_iter()
        .filter(|wanted| *wanted)
        .count();
    let mut streams = Streams::default();
    while missing > 0 {
        let stream = incoming.next().await?;
        let kind = stream.headers.get("streamType").unwrap_or_default().to_owned();
        let known = matches!(kind.as_str(), "error" | "stdin" | "stdout" | "stderr" | "resize");
        if !known || stream.reply().is_err() {
            tracing::debug!("unexpected stream type: {kind:?}");
            continue;
        }
        missing -= 1;
        match kind.as_str() {
            "error" => streams.error = Some(stream.writer),
            "stdout" => streams.stdout = Some(stream.writer),
            "stderr" => streams.stderr = Some(stream.writer),
            "stdin" => {
                streams.stdin = Some(stream.reader);
                streams.unused.push(stream.writer);
            }
            _ => {
                streams.resize = Some(stream.reader);
                streams.unused.push(stream.writer);
            }
        }
    }
    Some(streams)
}

/// Passes bytes both ways until the command ends, and says how.
async fn carry(streams: Streams, version: Version, session: ExecSession) {
    let Streams { stdin, mut stdout, mut stderr, error, resize, unused } = streams;
    let ExecSession { stdin: input, mut output, control } = session;
    let outputs = async {
        loop {
            let (writer, bytes) = match output.next().await {
                Some(Ok(Output::Stdout(bytes))) => (&mut stdout, bytes),
                Some(Ok(Output::Stderr(bytes))) => (&mut stderr, bytes),
                Some(Err(error)) => return failure(&error.to_string()),
                None => return outcome(control.exit_code().await.ok().flatten()),
            };
            // A client that takes no more of one may still wait for the other and the outcome.
            if let Some(open) = writer
                && open.write_all(&bytes).await.is_err()
            {
                *writer = None;
            }
        }
    };
    let inputs = async {
        if let (Some(mut from), Some(mut to)) = (stdin, input) {
            copy(&mut from, &mut to).await;
            // A command that has closed its input is not a failure.
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        if let Some(from) = resize {
            follow_sizes(from, &*control).await;
        }
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = outputs => status,
        () = inputs => return,
        () = sizes => return,
    };
    let text = match version {
        Version::Fourth => status.to_string(),
        Version::Third | Version::Early if status["status"] == "Success" => String::new(),
        Version::Third | Version::Early => status["message"].as_str().unwrap_or_default().to_owned(),
    };
    let mut error = error;
    if let Some(error) = &mut error {
        // Whoever has gone meanwhile does not want to know.
        let _ = error.write_all(text.as_bytes()).await;
    }
    for mut writer in [stdout, stderr, error].into_iter().flatten().chain(unused) {
        let _ = writer.shutdown().await;
    }
}

/// Copies as it comes: input is for people, who wait for its effect.
async fn copy(from: &mut Reader, to: &mut (impl AsyncWrite + Unpin)) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads sizes, JSON objects one behind the other, and applies each.
async fn follow_sizes(mut from: Reader, control: &dyn ExecControl) {
    let mut waiting = Vec::with_capacity(SIZES);
    loop {
        let mut buffer = [0; SIZES];
        let Ok(count) = from.read(&mut buffer).await else { return };
        if count == 0 || waiting.len() + count > SIZES {
            return;
        }
        waiting.extend_from_slice(&buffer[..count]);
        let Some(sizes) = take_sizes(&mut waiting) else { return };
        for size in sizes {
            if let Err(error) = control.resize(size.width, size.height).await {
                tracing::debug!("a terminal keeps its size: {error}");
            }
        }
    }
}

/// The whole sizes at the beginning of what has come; `None` if it is no JSON.
fn take_sizes(waiting: &mut Vec<u8>) -> Option<Vec<Size>> {
    let mut stream = serde_json::Deserializer::from_slice(waiting).into_iter::<Size>();
    let mut sizes = Vec::new();
    let mut used = 0;
    loop {
        match stream.next() {
            Some(Ok(size)) => {
                sizes.push(size);
                used = stream.byte_offset();
            }
            Some(Err(error)) if !error.is_eof() => return None,
            Some(Err(_)) | None => break,
        }
    }
    waiting.drain(..used);
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut waiting = br#"{"Width":80,"Height":24}
{"Width":1"#
            .to_vec();
        assert_eq!(take_sizes(&mut waiting), Some(vec![Size { width: 80, height: 24 }]));
        waiting.extend_from_slice(br#"00,"Height":5}"#);
        assert_eq!(take_sizes(&mut waiting), Some(vec![Size { width: 100, height: 5 }]));
        assert!(waiting.is_empty());
        assert_eq!(take_sizes(&mut b"nonsense".to_vec()), None);
    }
}
