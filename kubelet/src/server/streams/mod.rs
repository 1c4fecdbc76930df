//! `/exec`, `/attach` and `/portForward`: bytes between a client and a pod.
//!
//! Streams end here, whatever they come in: the API server passes them on byte for byte. exec and attach take
//! WebSockets (`v5.channel.k8s.io` and older, base64 too) and SPDY/3.1 (v4 and older); port-forward takes SPDY/3.1,
//! SPDY/3.1 inside a WebSocket (kubectl from 1.31) and channels of a WebSocket (clients that never spoke SPDY).

mod channels;
mod exec_spdy;
mod forward;
mod forward_channels;
mod forward_spdy;
mod tunnel;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Request, State, ws::WebSocketUpgrade},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kubelet_runtime::{ExecSession, ExecSpec, RuntimeError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Shared, logs::is_set};
use crate::pod;

/// Which protocol the streams of a SPDY connection follow.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What we would have taken, beside a refusal.
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// How a client wants to stream.
enum Transport {
    WebSocket(WebSocketUpgrade),
    Spdy(OnUpgrade, HeaderMap),
}

impl Transport {
    /// Reads what a request asks to be upgraded to.
    async fn of(parts: &mut Parts) -> Result<Self, Failure> {
        let wanted =
            parts.headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if wanted.eq_ignore_ascii_case("SPDY/3.1") {
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let upgrade =
                upgrade.ok_or_else(|| bad("unable to upgrade: the connection cannot be upgraded"))?;
            return Ok(Self::Spdy(upgrade, parts.headers.clone()));
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
        upgrade
            .map(Self::WebSocket)
            .map_err(|_| bad("unable to upgrade: streams need an upgrade to websocket or SPDY/3.1"))
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, message)
}

/// The protocol that both sides speak, the client's favourite first; none if the client asks for none, as the
/// oldest did.
fn negotiate(headers: &HeaderMap, ours: &[&'static str]) -> Result<Option<&'static str>, Failure> {
    // Each may stand in a header of its own, or all in one.
    let asked: Vec<&str> = headers
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if asked.is_empty() {
        return Ok(None);
    }
    if let Some(agreed) = asked.iter().find_map(|name| ours.iter().find(|known| *known == name)) {
        return Ok(Some(agreed));
    }
    // Go prints lists so.
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        asked.join(" "),
        ours.join(" ")
    );
    let mut failure = Failure::new(StatusCode::FORBIDDEN, message);
    for name in ours {
        failure.add_header(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
    }
    Err(failure)
}

/// The answer that turns a connection into SPDY.
fn switch(protocol: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

/// Runs `work` over the connection once it is upgraded; joined at shutdown.
fn after_upgrade<F, W>(shared: &Arc<Shared>, upgrade: OnUpgrade, work: W)
where
    W: FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let shutdown = shared.context.shutdown.clone();
    shared.context.tasks.spawn(async move {
        let streaming = async {
            match upgrade.await {
                Ok(upgraded) => work(TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!("a connection was not upgraded: {error}"),
            }
        };
        let _ = shutdown.run_until_cancelled(streaming).await;
    });
}

/// Which streams, and the command; both the API server's names and the kubelet's own are taken.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    spec: ExecSpec,
    stdout: bool,
    stderr: bool,
}

impl Wanted {
    fn parse(query: &str) -> Self {
        let mut wanted = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match name {
                "command" => wanted.spec.command.push(value),
                "input" | "stdin" => wanted.spec.stdin |= is_set(Some(&value)),
                "output" | "stdout" => wanted.stdout |= is_set(Some(&value)),
                "error" | "stderr" => wanted.stderr |= is_set(Some(&value)),
                "tty" => wanted.spec.tty |= is_set(Some(&value)),
                _ => {}
            }
        }
        // A terminal has no stream of errors of its own.
        wanted.stderr &= !wanted.spec.tty;
        wanted
    }
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

pub(super) async fn exec(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let (mut parts, _) = request.into_parts();
    let wanted = Wanted::parse(parts.uri.query().unwrap_or_default());
    if wanted.spec.command.is_empty() {
        return Err(bad("you must specify at least 1 command for the container"));
    }
    let transport = Transport::of(&mut parts).await?;
    let uid = running(&shared, &namespace, &name, &container)?;
    let session = shared.context.runtime.exec(&uid, &container, &wanted.spec).await;
    run(&shared, transport, wanted, session.map_err(|error| refused(&error))?)
}

pub(super) async fn attach(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let (mut parts, _) = request.into_parts();
    let wanted = Wanted::parse(parts.uri.query().unwrap_or_default());
    let transport = Transport::of(&mut parts).await?;
    let uid = running(&shared, &namespace, &name, &container)?;
    let pod = shared.pod(&namespace, &name)?;
    // The terminal is the container's, whatever is asked for.
    let tty = pod::any_container(&pod, &container).and_then(|container| container.tty).unwrap_or_default();
    let spec = ExecSpec { tty, ..wanted.spec.clone() };
    let session = shared.context.runtime.attach(&uid, &container, &spec).await;
    run(&shared, transport, wanted, session.map_err(|error| refused(&error))?)
}

fn run(
    shared: &Arc<Shared>,
    transport: Transport,
    wanted: Wanted,
    session: ExecSession,
) -> Result<Response, Failure> {
    match transport {
        Transport::WebSocket(upgrade) => Ok(channels::run(shared, upgrade, session)),
        Transport::Spdy(upgrade, headers) => {
            let protocol = negotiate(&headers, &exec_spdy::PROTOCOLS)?;
            after_upgrade(shared, upgrade, move |io| exec_spdy::serve(io, protocol, wanted, session));
            Ok(switch(protocol))
        }
    }
}

pub(super) async fn port_forward(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failure> {
    let (mut parts, _) = request.into_parts();
    let pod = shared.pod(&namespace, &name)?;
    if !shared.context.runtime.capabilities().network {
        return Err(refused(&RuntimeError::Unsupported("port-forward")));
    }
    let target = forward::Target {
        runtime: Arc::clone(&shared.context.runtime),
        pod: name,
        uid: pod::uid(&pod).to_owned(),
    };
    match Transport::of(&mut parts).await? {
        Transport::Spdy(upgrade, headers) => {
            let protocol = negotiate(&headers, &forward_spdy::PROTOCOLS)?;
            after_upgrade(&shared, upgrade, move |io| forward_spdy::serve(io, target));
            Ok(switch(protocol))
        }
        Transport::WebSocket(upgrade) => {
            let upgrade = upgrade.protocols([tunnel::PORT_FORWARD, forward_channels::PROTOCOL]);
            if upgrade.selected_protocol().is_some_and(|chosen| chosen == tunnel::PORT_FORWARD) {
                return Ok(on_socket(&shared, upgrade, move |socket| async move {
                    let (ours, theirs) = tokio::io::duplex(tunnel::BUFFER);
                    tokio::join!(tunnel::carry(socket, theirs), forward_spdy::serve(ours, target));
                }));
            }
            let ports = forward_channels::ports(parts.uri.query().unwrap_or_default()).map_err(bad)?;
            Ok(on_socket(&shared, upgrade, move |socket| forward_channels::serve(socket, target, ports)))
        }
    }
}

/// Runs `work` over a WebSocket; joined at shutdown.
fn on_socket<F, W>(shared: &Arc<Shared>, upgrade: WebSocketUpgrade, work: W) -> Response
where
    W: FnOnce(axum::extract::ws::WebSocket) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let (tasks, shutdown) = (shared.context.tasks.clone(), shared.context.shutdown.clone());
    let upgrade = upgrade.max_message_size(channels::MAX_FRAME).max_frame_size(channels::MAX_FRAME);
    upgrade.on_upgrade(move |socket| async move {
        // The connection's own task ends with the response; this one is joined at shutdown.
        let work = tasks.track_future(work(socket));
        let _ = shutdown.run_until_cancelled(work).await;
    })
}

fn running(shared: &Shared, namespace: &str, name: &str, container: &str) -> Result<String, Failure> {
    let pod = shared.pod(namespace, name)?;
    if pod::any_container(&pod, container).is_none() {
        return Err(bad(format!("container {container} is not valid for pod {name}")));
    }
    Ok(pod::uid(&pod).to_owned())
}

fn refused(error: &RuntimeError) -> Failure {
    match error {
        RuntimeError::NotFound(what) => Failure::new(StatusCode::NOT_FOUND, format!("{what} not found")),
        RuntimeError::Unsupported(_) => Failure::new(StatusCode::NOT_IMPLEMENTED, error.to_string()),
        _ => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A terminal's size as clients send it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// The final Status of a command.
fn outcome(exit_code: Option<i32>) -> Value {
    match exit_code {
        None | Some(0) => json!({"metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    }
}

/// The final Status of a command that was lost on the way.
fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_both_dialects() {
        let wanted =
            Wanted::parse("command=sh&command=-c&command=echo+a%20%26b&stdin=true&tty=1&stdout=true");
        assert_eq!(wanted.spec.command, ["sh", "-c", "echo a &b"]);
        assert!(wanted.spec.stdin && wanted.spec.tty && wanted.stdout && !wanted.stderr);
        let wanted = Wanted::parse("command=ls&input=1&output=1&error=1");
        assert!(wanted.spec.stdin && !wanted.spec.tty && wanted.stderr);
        assert!(!Wanted::parse("error=1&tty=1").stderr, "a terminal has one output");
    }

    #[test]
    fn the_final_status() {
        let status = outcome(Some(3));
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert_eq!(outcome(Some(0))["status"], "Success");
    }

    #[test]
    fn the_clients_favourite_of_what_both_speak() {
        let asking = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(STREAM_PROTOCOL, HeaderValue::from_static(value));
            }
            headers
        };
        let ours = ["v4.channel.k8s.io", "v3.channel.k8s.io"];
        assert_eq!(negotiate(&asking(&[]), &ours).unwrap(), None);
        assert_eq!(
            negotiate(&asking(&["v5.channel.k8s.io", "v4.channel.k8s.io"]), &ours).unwrap(),
            Some("v4.channel.k8s.io")
        );
        assert_eq!(
            negotiate(&asking(&["v3.channel.k8s.io, v4.channel.k8s.io"]), &ours).unwrap(),
            Some("v3.channel.k8s.io")
        );
        let refusal = negotiate(&asking(&["v9", "v8"]), &ours).unwrap_err();
        assert_eq!(
            refusal.message(),
            "unable to upgrade: unable to negotiate protocol: client supports [v9 v8], \
             server accepts [v4.channel.k8s.io v3.channel.k8s.io]"
        );
    }
}
