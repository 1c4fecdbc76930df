//! Into containers: which pod, which container, and the streams.

pub(crate) mod ports;
mod terminal;

use std::time::Duration;

use api_objects::params::QueryWriter;
use api_objects::selector::LabelSelector;
use api_objects::{Status, Value};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::describe::{items_at, text_at};
use crate::error::Error;
use crate::output;
use crate::session::Session;

/// The annotation that names the container that is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod of `POD` or `TYPE/NAME`: of a workload, the first one of its selector that is ready, or any. `say` tells
/// which one was taken where there are several.
pub(crate) async fn pod_of(session: &Session, arg: &str, say: bool) -> Result<Value, Error> {
    let mut pods = pods_of(session, arg).await?;
    let ready = |pod: &Value| {
        items_at(pod, "/status/conditions")
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let at = pods.iter().position(ready).unwrap_or(0);
    if say && pods.len() > 1 {
        let name = text_at(&pods[at], "/metadata/name", "");
        output::complain(&format!("Found {} pods, using pod/{name}", pods.len()));
    }
    Ok(pods.swap_remove(at))
}

/// The pods of `POD` or `TYPE/NAME`; one at least.
pub(crate) async fn pods_of(session: &Session, arg: &str) -> Result<Vec<Value>, Error> {
    let (kind, name) = arg.split_once('/').unwrap_or(("pod", arg));
    let resource = session.resource(kind).await?;
    let object = session.get_object(&resource, &session.namespace, name).await?;
    if resource.kind == "Pod" {
        return Ok(vec![object]);
    }
    let selector = match resource.kind.as_ref() {
        "Service" => {
            let pairs = object.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
            pairs
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        }
        _ => LabelSelector::from_object(object.pointer("/spec/selector"))
            .map_err(|error| Error::message(error.to_string()))?
            .to_string(),
    };
    if selector.is_empty() {
        return Err(Error::message(format!("cannot attach to {arg}: it selects no pods")));
    }
    let mut query = QueryWriter::default();
    query.put("labelSelector", &selector);
    let path = format!("/api/v1/namespaces/{}/pods?{}", session.namespace, query.finish());
    let pods = session.get(&path).await?["items"].as_array().cloned().unwrap_or_default();
    if pods.is_empty() {
        return Err(Error::message(format!("no pods of {arg} found")));
    }
    Ok(pods)
}

/// The names of a pod's containers: init containers first, as they run.
pub(crate) fn containers(pod: &Value) -> Vec<String> {
    let names = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items_at(pod, list))
        .filter_map(|container| container["name"].as_str().map(str::to_owned));
    names.collect()
}

/// All containers as messages list them.
fn all_names(pod: &Value) -> String {
    let names: Vec<String> = [
        ("/spec/containers", ""),
        ("/spec/initContainers", " (init)"),
        ("/spec/ephemeralContainers", " (ephem)"),
    ]
    .into_iter()
    .flat_map(|(list, note)| items_at(pod, list).iter().map(move |container| (container, note)))
    .filter_map(|(container, note)| Some(format!("{}{note}", container["name"].as_str()?)))
    .collect();
    names.join(", ")
}

/// The container that is meant. `say` tells which one was taken where there are several.
pub(crate) fn container(pod: &Value, wanted: Option<&str>, say: bool) -> Result<String, Error> {
    let all = containers(pod);
    let pod_name = text_at(pod, "/metadata/name", "");
    if let Some(wanted) = wanted {
        return if all.iter().any(|name| name == wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(Error::message(format!(
                "container {wanted} is not valid for pod {pod_name} out of: {}",
                all_names(pod)
            )))
        };
    }
    let annotated = pod
        .pointer("/metadata/annotations")
        .and_then(|notes| notes.get(DEFAULT_CONTAINER))
        .and_then(Value::as_str);
    if let Some(name) = annotated.filter(|name| all.iter().any(|other| other == name)) {
        return Ok(name.to_owned());
    }
    let first = items_at(pod, "/spec/containers").first().and_then(|container| container["name"].as_str());
    let first = first.ok_or_else(|| Error::message(format!("pod {pod_name} has no containers")))?;
    if say && all.len() > 1 {
        output::complain(&format!("Defaulted container {first:?} out of: {}", all_names(pod)));
    }
    Ok(first.to_owned())
}

/// Which streams a person wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// Send standard input.
    pub(crate) stdin: bool,
    /// Standard input is a terminal.
    pub(crate) tty: bool,
}

/// The channels of `v5.channel.k8s.io`: the first byte of each message.
mod channel {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDOUT: u8 = 1;
    pub(super) const STDERR: u8 = 2;
    pub(super) const ERROR: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
    pub(super) const CLOSE: u8 = 255;
}

/// Connects this process' streams with a container's until it ends.
///
/// # Errors
/// [`Error::Exit`] with the command's code when it failed.
pub(crate) async fn connect(session: &Session, path: &str, streams: Streams) -> Result<(), Error> {
    let socket = session.websocket(path).await?;
    let raw = if streams.tty && streams.stdin { terminal::Raw::enter()? } else { None };
    let ends = Ends {
        stdin: streams.stdin.then(tokio::io::stdin),
        stdout: tokio::io::stdout(),
        stderr: tokio::io::stderr(),
    };
    let outcome = exchange(socket, ends, terminal::Sizes::new(streams.tty)).await;
    drop(raw);
    outcome
}

/// Where a container's streams end on this side.
pub(crate) struct Ends<I, O, E> {
    pub(crate) stdin: Option<I>,
    pub(crate) stdout: O,
    pub(crate) stderr: E,
}

/// Runs a command in a container with streams of the caller's.
///
/// # Errors
/// [`Error::Exit`] with the command's code when it failed.
pub(crate) async fn execute<I, O, E>(session: &Session, path: &str, ends: Ends<I, O, E>) -> Result<(), Error>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    exchange(session.websocket(path).await?, ends, terminal::Sizes::new(false)).await
}

async fn exchange<I, O, E>(
    socket: client::WebSocket,
    ends: Ends<I, O, E>,
    sizes: terminal::Sizes,
) -> Result<(), Error>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let closes = socket.supports_stream_close();
    let (mut sink, mut source) = socket.into_stream().split();
    let Ends { stdin, mut stdout, mut stderr } = ends;
    let receiving = async {
        let mut outcome = None;
        while let Some(message) = source.next().await {
            let data: Bytes = match message.map_err(|error| broken(&error))? {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((channel, payload)) = data.split_first() else { continue };
            match *channel {
                channel::STDOUT => {
                    stdout.write_all(payload).await?;
                    stdout.flush().await?;
                }
                channel::STDERR => {
                    stderr.write_all(payload).await?;
                    stderr.flush().await?;
                }
                channel::ERROR => outcome = Some(ending(payload)),
                _ => {}
            }
        }
        outcome.unwrap_or(Ok(()))
    };
    // Apart from one another: a command may wait until its output is taken before it takes more input.
    let outcome = tokio::select! {
        outcome = receiving => outcome,
        Err(error) = send(&mut sink, stdin, sizes, closes) => Err(error),
    };
    // The other side has closed already; politeness must not hold us up.
    let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
    outcome
}

fn broken(error: &tokio_tungstenite::tungstenite::Error) -> Error {
    Error::Unreachable(format!("error: the connection broke: {error}"))
}

/// Sends input and sizes for as long as there is anyone to take them.
async fn send<S, I>(
    sink: &mut S,
    mut stdin: Option<I>,
    mut sizes: terminal::Sizes,
    closes: bool,
) -> Result<(), Error>
where
    S: Sink<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin,
    I: AsyncRead + Unpin,
{
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        let read = async {
            match &mut stdin {
                Some(stdin) => stdin.read(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            count = read => {
                let count = count?;
                if count > 0 {
                    let mut message = Vec::with_capacity(count + 1);
                    message.push(channel::STDIN);
                    message.extend_from_slice(&buffer[..count]);
                    message
                } else {
                    stdin = None;
                    if !closes {
                        continue;
                    }
                    vec![channel::CLOSE, channel::STDIN]
                }
            }
            size = sizes.next() => {
                let mut message = vec![channel::RESIZE];
                message.extend_from_slice(format!(r#"{{"Width":{},"Height":{}}}"#, size.0, size.1).as_bytes());
                message
            }
        };
        // Once the other side has closed, what it said last is the outcome, not that it takes no more.
        if sink.send(Message::binary(message)).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What the error channel's Status means: success, a code, or a failure to run the command at all.
fn ending(payload: &[u8]) -> Result<(), Error> {
    let Ok(status) = serde_json::from_slice::<Status>(payload) else {
        return Err(Error::message(String::from_utf8_lossy(payload).into_owned()));
    };
    if status.status == "Success" {
        return Ok(());
    }
    if status.reason == "NonZeroExitCode" {
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let code = causes
            .iter()
            .find(|cause| cause.reason == "ExitCode")
            .and_then(|cause| cause.message.parse::<i32>().ok());
        if let Some(code) = code {
            return Err(Error::Exit(u8::try_from(code).unwrap_or(1)));
        }
    }
    Err(Error::message(status.message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}})
    }

    #[test]
    fn a_container_is_chosen() {
        assert_eq!(container(&pod(), None, false).unwrap(), "a");
        assert_eq!(container(&pod(), Some("i"), false).unwrap(), "i");
        assert_eq!(
            container(&pod(), Some("x"), false).unwrap_err().to_string(),
            "error: container x is not valid for pod p out of: a, b, i (init)"
        );
        let mut annotated = pod();
        annotated["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&annotated, None, false).unwrap(), "b");
    }

    #[test]
    fn endings() {
        assert!(ending(br#"{"status":"Success"}"#).is_ok());
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"x",
            "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(ending(failed).unwrap_err().code(), 7);
        let broken = br#"{"status":"Failure","reason":"InternalError","message":"no such file"}"#;
        assert_eq!(ending(broken).unwrap_err().to_string(), "error: no such file");
    }
}
