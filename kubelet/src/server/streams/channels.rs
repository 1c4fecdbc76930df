//! exec and attach over WebSocket: channels of bytes in numbered frames.
//!
//! The protocol is `v4.channel.k8s.io` and its successor v5 (`k8s.io/apimachinery/pkg/util/remotecommand`):
//! the first byte of a binary frame is the channel (0 stdin, 1 stdout, 2 stderr, 3 the final Status,
//! 4 the terminal's size), and in v5 a frame `255, n` closes channel n. Pages speak the same as text (`base64`): the
//! channel's digit, and the rest in base64. What came before v4 has no Status: there channel 3 gets the words of a
//! failure, and nothing for a success. Both sides are bounded: output waits for the client, and a client that takes
//! nothing for hours is cut off.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use kubelet_runtime::{ExecControl, ExecSession, Output, RuntimeError};
use serde_json::Value;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{interval, timeout},
};

use super::{Shared, Size, failure, on_socket, outcome};

/// Protocols in order of preference. A client that names none speaks the oldest.
const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// How long a client may take for one frame: upstream's `StreamIdleTimeout`, for a paused `kubectl exec … | less`
/// takes nothing and must live.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// How long the other side may take to close after us.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are kept alive through proxies and tell when the other side is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Largest frame from a client; kubectl sends 32 KiB.
pub(super) const MAX_FRAME: usize = 1 << 20;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const STDIN: u8 = 0;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

type Input = Pin<Box<dyn AsyncWrite + Send>>;
type OutputStream = Pin<Box<dyn Stream<Item = Result<Output, RuntimeError>> + Send>>;

/// What a protocol's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dialect {
    /// Frames are text.
    base64: bool,
    /// How a command ended is a Status.
    status: bool,
}

impl Dialect {
    fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            status: protocol.starts_with("v4.") || protocol.starts_with("v5."),
        }
    }

    fn frame(self, channel: u8, data: &[u8]) -> Message {
        if !self.base64 {
            return binary(channel, data);
        }
        let mut text = String::with_capacity(data.len() * 4 / 3 + 5);
        text.push(char::from(b'0' + channel));
        STANDARD.encode_string(data, &mut text);
        Message::Text(text.into())
    }

    /// The channel and the bytes of a client's message; `None` for what carries nothing.
    fn read(self, message: Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(mut frame) if !self.base64 => {
                let channel = *frame.first()?;
                Some((channel, frame.split_off(1)))
            }
            Message::Text(text) if self.base64 => {
                let (channel, data) = text.as_str().split_at_checked(1)?;
                Some((channel.parse().ok()?, STANDARD.decode(data).ok()?.into()))
            }
            _ => None,
        }
    }

    /// What channel 3 gets of the final Status.
    fn ending(self, status: &Value) -> Option<String> {
        if self.status {
            return Some(status.to_string());
        }
        status["message"].as_str().map(str::to_owned)
    }
}

/// Connects a session with a client.
pub(super) fn run(shared: &Arc<Shared>, upgrade: WebSocketUpgrade, session: ExecSession) -> Response {
    let upgrade = upgrade.protocols(PROTOCOLS);
    let chosen = upgrade.selected_protocol().and_then(|protocol| protocol.to_str().ok());
    let dialect = Dialect::of(chosen.unwrap_or_default());
    on_socket(shared, upgrade, move |socket| relay(socket, dialect, session))
}

/// Passes bytes both ways until the command ends or the client goes.
async fn relay(socket: WebSocket, dialect: Dialect, session: ExecSession) {
    let ExecSession { stdin, output, control } = session;
    let (mut sink, mut source) = socket.split();
    // Apart from one another: a command may wait until its output is taken before it takes more input.
    tokio::select! {
        told = send_output(&mut sink, dialect, output, &*control) => if !told { return },
        () = take_input(&mut source, dialect, stdin, &*control) => return,
    }
    say_goodbye(&mut sink).await;
    // The other side closes first, so that nothing sent is lost to a reset.
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// Sends what the command writes, and at the end how it ended; `false` if the client does not take it.
async fn send_output(
    sink: &mut SplitSink<WebSocket, Message>,
    dialect: Dialect,
    mut output: OutputStream,
    control: &dyn ExecControl,
) -> bool {
    let mut pings = interval(PING_EVERY);
    pings.tick().await;
    loop {
        let sent = tokio::select! {
            piece = output.next() => match piece {
                Some(Ok(Output::Stdout(bytes))) => send(sink, dialect.frame(STDOUT, &bytes)).await,
                Some(Ok(Output::Stderr(bytes))) => send(sink, dialect.frame(STDERR, &bytes)).await,
                ended => {
                    let status = match ended {
                        Some(Err(error)) => failure(&error.to_string()),
                        _ => outcome(control.exit_code().await.ok().flatten()),
                    };
                    return match dialect.ending(&status) {
                        Some(text) => send(sink, dialect.frame(ERROR, text.as_bytes())).await,
                        None => true,
                    };
                }
            },
            _ = pings.tick() => send(sink, Message::Ping(Bytes::new())).await,
        };
        if !sent {
            return false;
        }
    }
}

/// Takes what the client sends until it goes.
async fn take_input(
    source: &mut SplitStream<WebSocket>,
    dialect: Dialect,
    mut stdin: Option<Input>,
    control: &dyn ExecControl,
) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        match dialect.read(message) {
            Some((STDIN, data)) => {
                let closed = match &mut stdin {
                    Some(stdin) => stdin.write_all(&data).await.is_err() || stdin.flush().await.is_err(),
                    None => false,
                };
                if closed {
                    stdin = None;
                }
            }
            Some((RESIZE, data)) => {
                if let Ok(size) = serde_json::from_slice::<Size>(&data)
                    && let Err(error) = control.resize(size.width, size.height).await
                {
                    tracing::debug!("a terminal keeps its size: {error}");
                }
            }
            Some((CLOSE, closed)) if closed.first() == Some(&STDIN) => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = stdin.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// Closes in order: upstream's clients take a close without a code (1005) for an error, whatever came before.
pub(super) async fn say_goodbye(sink: &mut SplitSink<WebSocket, Message>) {
    let normal = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    // A client that has gone needs no goodbye.
    let _ = timeout(WRITE_TIMEOUT, sink.send(Message::Close(Some(normal)))).await;
}

/// A binary frame of a channel.
pub(super) fn binary(channel: u8, data: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.extend_from_slice(&[channel]);
    frame.extend_from_slice(data);
    Message::Binary(frame.freeze())
}

/// Sends one message; `false` if the client is gone or does not take it.
pub(super) async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(timeout(WRITE_TIMEOUT, sink.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects() {
        let text = Dialect::of("v4.base64.channel.k8s.io");
        assert_eq!(text.frame(STDOUT, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(text.read(Message::Text("0aGk=".into())), Some((STDIN, Bytes::from_static(b"hi"))));
        assert_eq!(text.read(Message::Text("".into())), None);
        assert_eq!(text.read(binary(STDIN, b"hi")), None);
        let old = Dialect::of("channel.k8s.io");
        assert_eq!(old.frame(STDOUT, b"hi"), binary(STDOUT, b"hi"));
        assert_eq!(old.read(binary(STDIN, b"hi")), Some((STDIN, Bytes::from_static(b"hi"))));
        assert_eq!(old.ending(&outcome(Some(0))), None);
        let failed = "command terminated with non-zero exit code: exit status 3";
        assert_eq!(old.ending(&outcome(Some(3))).as_deref(), Some(failed));
        let newest = Dialect::of("v5.channel.k8s.io").ending(&outcome(None)).unwrap();
        assert_eq!(newest, r#"{"metadata":{},"status":"Success"}"#);
    }
}
