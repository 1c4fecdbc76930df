//! exec and attach over WebSocket: channels of bytes in numbered frames.
//!
//! The protocol is `v4.channel.k8s.io` and its successor v5 (`k8s.io/apimachinery/pkg/util/remotecommand`):
//! the first byte of a binary frame is the channel (0 stdin, 1 stdout, 2 stderr, 3 the final Status,
//! 4 the terminal's size), and in v5 a frame `255, n` closes channel n. Both sides are bounded: output waits
//! for the client, and a client that takes nothing for hours is cut off.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use kubelet_runtime::{ExecControl, ExecSession, Output, RuntimeError};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{interval, timeout},
};

use super::{Shared, Size, failure, on_socket, outcome};

/// Protocols in order of preference.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
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

/// Connects a session with a client.
pub(super) fn run(shared: &Arc<Shared>, upgrade: WebSocketUpgrade, session: ExecSession) -> Response {
    on_socket(shared, upgrade.protocols(PROTOCOLS), move |socket| relay(socket, session))
}

/// Passes bytes both ways until the command ends or the client goes.
async fn relay(socket: WebSocket, session: ExecSession) {
    let ExecSession { stdin, output, control } = session;
    let (mut sink, mut source) = socket.split();
    // Apart from one another: a command may wait until its output is taken before it takes more input.
    tokio::select! {
        told = send_output(&mut sink, output, &*control) => if !told { return },
        () = take_input(&mut source, stdin, &*control) => return,
    }
    say_goodbye(&mut sink).await;
    // The other side closes first, so that nothing sent is lost to a reset.
    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// Sends what the command writes, and at the end how it ended; `false` if the client does not take it.
async fn send_output(
    sink: &mut SplitSink<WebSocket, Message>,
    mut output: OutputStream,
    control: &dyn ExecControl,
) -> bool {
    let mut pings = interval(PING_EVERY);
    pings.tick().await;
    loop {
        let sent = tokio::select! {
            piece = output.next() => match piece {
                Some(Ok(Output::Stdout(bytes))) => send(sink, STDOUT, &bytes).await,
                Some(Ok(Output::Stderr(bytes))) => send(sink, STDERR, &bytes).await,
                Some(Err(error)) => {
                    return send(sink, ERROR, failure(&error.to_string()).to_string().as_bytes()).await;
                }
                None => {
                    let code = control.exit_code().await.ok().flatten();
                    return send(sink, ERROR, outcome(code).to_string().as_bytes()).await;
                }
            },
            _ = pings.tick() => {
                matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Ping(Bytes::new()))).await, Ok(Ok(())))
            }
        };
        if !sent {
            return false;
        }
    }
}

/// Takes what the client sends until it goes.
async fn take_input(
    source: &mut SplitStream<WebSocket>,
    mut stdin: Option<Input>,
    control: &dyn ExecControl,
) {
    while let Some(Ok(message)) = source.next().await {
        let frame = match message {
            Message::Binary(frame) => frame,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        match frame.split_first() {
            Some((&STDIN, data)) => {
                let closed = match &mut stdin {
                    Some(stdin) => stdin.write_all(data).await.is_err() || stdin.flush().await.is_err(),
                    None => false,
                };
                if closed {
                    stdin = None;
                }
            }
            Some((&RESIZE, data)) => {
                if let Ok(size) = serde_json::from_slice::<Size>(data)
                    && let Err(error) = control.resize(size.width, size.height).await
                {
                    tracing::debug!("a terminal keeps its size: {error}");
                }
            }
            Some((&CLOSE, [STDIN, ..])) => {
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

/// Sends one frame; `false` if the client is gone or does not take it.
pub(super) async fn send(sink: &mut SplitSink<WebSocket, Message>, channel: u8, data: &[u8]) -> bool {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.extend_from_slice(&[channel]);
    frame.extend_from_slice(data);
    matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Binary(frame.freeze()))).await, Ok(Ok(())))
}
