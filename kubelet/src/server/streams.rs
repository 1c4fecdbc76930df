//! `/exec` and `/attach` over WebSocket: channels of bytes in numbered frames.
//!
//! The protocol is `v4.channel.k8s.io` and its successor v5 (`k8s.io/apimachinery/pkg/util/remotecommand`):
//! the first byte of a binary frame is the channel (0 stdin, 1 stdout, 2 stderr, 3 the final Status,
//! 4 the terminal's size), and in v5 a frame `255, n` closes channel n. Both sides are bounded: output waits
//! for the client, and a client that takes nothing for a while is cut off.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        Path, RawQuery, State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::StatusCode,
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use kubelet_runtime::{ExecSession, ExecSpec, Output, RuntimeError};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    time::{interval, timeout},
};

use super::{Failure, Shared, logs::is_set};
use crate::pod;

/// Protocols in order of preference.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// How long a client may take for one frame.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the other side may take to close after us.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are kept alive through proxies and tell when the other side is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Largest frame from a client; kubectl sends 32 KiB.
const MAX_FRAME: usize = 1 << 20;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const STDIN: u8 = 0;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Which streams, and the command; both the API server's names and the kubelet's own are taken.
fn parse(query: &str) -> ExecSpec {
    let mut spec = ExecSpec::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        match name {
            "command" => spec.command.push(value),
            "input" | "stdin" => spec.stdin |= is_set(Some(&value)),
            "tty" => spec.tty |= is_set(Some(&value)),
            _ => {}
        }
    }
    spec
}

/// Undoes percent-encoding; bytes that are not UTF-8 are replaced.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair: Vec<u8> = bytes.clone().take(2).collect();
                match std::str::from_utf8(&pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(decoded) if pair.len() == 2 => {
                        out.push(decoded);
                        bytes.nth(1);
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) async fn exec(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let spec = parse(query.as_deref().unwrap_or_default());
    if spec.command.is_empty() {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container".to_owned(),
        ));
    }
    let upgrade = accept(upgrade)?;
    let uid = running(&shared, &namespace, &name, &container)?;
    let session =
        shared.context.runtime.exec(&uid, &container, &spec).await.map_err(|error| refused(&error))?;
    Ok(run(&shared, upgrade, session))
}

pub(super) async fn attach(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let mut spec = parse(query.as_deref().unwrap_or_default());
    let upgrade = accept(upgrade)?;
    let uid = running(&shared, &namespace, &name, &container)?;
    let pod = shared.pod(&namespace, &name)?;
    // The terminal is the container's, whatever is asked for.
    spec.tty = pod::any_container(&pod, &container).and_then(|container| container.tty).unwrap_or_default();
    let session =
        shared.context.runtime.attach(&uid, &container, &spec).await.map_err(|error| refused(&error))?;
    Ok(run(&shared, upgrade, session))
}

fn accept(upgrade: Upgrade) -> Result<WebSocketUpgrade, Failure> {
    let upgrade = upgrade.map_err(|_| {
        Failure(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: exec and attach need a WebSocket (v5.channel.k8s.io or v4.channel.k8s.io); SPDY is not supported".to_owned(),
        )
    })?;
    Ok(upgrade.protocols(PROTOCOLS).max_message_size(MAX_FRAME).max_frame_size(MAX_FRAME))
}

fn running(shared: &Shared, namespace: &str, name: &str, container: &str) -> Result<String, Failure> {
    let pod = shared.pod(namespace, name)?;
    if pod::any_container(&pod, container).is_none() {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("container {container} is not valid for pod {name}"),
        ));
    }
    Ok(pod::uid(&pod).to_owned())
}

fn refused(error: &RuntimeError) -> Failure {
    match error {
        RuntimeError::NotFound(what) => Failure(StatusCode::NOT_FOUND, format!("{what} not found")),
        RuntimeError::Unsupported(_) => Failure(StatusCode::NOT_IMPLEMENTED, error.to_string()),
        _ => Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn run(shared: &Arc<Shared>, upgrade: WebSocketUpgrade, session: ExecSession) -> Response {
    let (tasks, shutdown) = (shared.context.tasks.clone(), shared.context.shutdown.clone());
    upgrade.on_upgrade(move |socket| async move {
        // The connection's own task ends with the response; this one is joined at shutdown.
        let work = tasks.track_future(relay(socket, session));
        let _ = shutdown.run_until_cancelled(work).await;
    })
}

/// Passes bytes both ways until the command ends or the client goes.
async fn relay(socket: WebSocket, session: ExecSession) {
    let ExecSession { mut stdin, mut output, control } = session;
    let (mut sink, mut source) = socket.split();
    let mut pings = interval(PING_EVERY);
    pings.tick().await;
    loop {
        tokio::select! {
            piece = output.next() => {
                let sent = match piece {
                    Some(Ok(Output::Stdout(bytes))) => send(&mut sink, STDOUT, &bytes).await,
                    Some(Ok(Output::Stderr(bytes))) => send(&mut sink, STDERR, &bytes).await,
                    Some(Err(error)) => {
                        let _ = send(&mut sink, ERROR, failure(&error.to_string()).as_bytes()).await;
                        break;
                    }
                    None => {
                        let code = control.exit_code().await.ok().flatten();
                        let _ = send(&mut sink, ERROR, outcome(code).as_bytes()).await;
                        break;
                    }
                };
                if !sent {
                    return;
                }
            }
            message = source.next() => match message {
                Some(Ok(Message::Binary(frame))) => match frame.split_first() {
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
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = pings.tick() => {
                if !matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Ping(Bytes::new()))).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
    // Upstream's clients take a close without a code (1005) for an error, whatever the final Status said.
    let normal = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    if matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Close(Some(normal)))).await, Ok(Ok(()))) {
        // The other side closes first, so that nothing sent is lost to a reset.
        let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = source.next().await {} }).await;
    }
}

/// A size as clients send it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Sends one frame; `false` if the client is gone or does not take it.
async fn send(sink: &mut SplitSink<WebSocket, Message>, channel: u8, data: &[u8]) -> bool {
    let mut frame = BytesMut::with_capacity(data.len() + 1);
    frame.extend_from_slice(&[channel]);
    frame.extend_from_slice(data);
    matches!(timeout(WRITE_TIMEOUT, sink.send(Message::Binary(frame.freeze()))).await, Ok(Ok(())))
}

/// The final Status of a command.
fn outcome(exit_code: Option<i32>) -> String {
    match exit_code {
        None | Some(0) => json!({"metadata": {}, "status": "Success"}).to_string(),
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        })
        .to_string(),
    }
}

fn failure(message: &str) -> String {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_both_dialects() {
        let spec = parse("command=sh&command=-c&command=echo+a%20%26b&stdin=true&tty=1&stdout=true");
        assert_eq!(spec.command, ["sh", "-c", "echo a &b"]);
        assert!(spec.stdin && spec.tty);
        let spec = parse("command=ls&input=1&output=1&error=1");
        assert!(spec.stdin && !spec.tty);
    }

    #[test]
    fn the_final_status() {
        let status: serde_json::Value = serde_json::from_str(&outcome(Some(3))).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&outcome(Some(0))).unwrap()["status"],
            "Success"
        );
    }
}
