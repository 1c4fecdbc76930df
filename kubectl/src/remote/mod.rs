//! Into containers: which pod, which container, and the streams.

mod terminal;

use std::time::Duration;

use api_objects::params::QueryWriter;
use api_objects::selector::LabelSelector;
use api_objects::{Status, Value};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::describe::{items_at, text_at};
use crate::error::Error;
use crate::output;
use crate::session::Session;

/// The annotation that names the container that is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod of `POD` or `TYPE/NAME`: of a workload, the first one of its selector that is ready, or any.
pub(crate) async fn pod_of(session: &Session, arg: &str) -> Result<Value, Error> {
    let (kind, name) = arg.split_once('/').unwrap_or(("pod", arg));
    let resource = session.resource(kind).await?;
    let object = session.get_object(&resource, &session.namespace, name).await?;
    if resource.kind == "Pod" {
        return Ok(object);
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
    let mut pods = session.get(&path).await?["items"].as_array().cloned().unwrap_or_default();
    if pods.is_empty() {
        return Err(Error::message(format!("no pods of {arg} found")));
    }
    let ready = |pod: &Value| {
        items_at(pod, "/status/conditions")
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let at = pods.iter().position(ready).unwrap_or(0);
    if pods.len() > 1 {
        let name = text_at(&pods[at], "/metadata/name", "");
        output::complain(&format!("Found {} pods, using pod/{name}", pods.len()));
    }
    Ok(pods.swap_remove(at))
}

/// The names of a pod's containers: init containers first, as they run.
pub(crate) fn containers(pod: &Value) -> Vec<String> {
    let names = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items_at(pod, list))
        .filter_map(|container| container["name"].as_str().map(str::to_owned));
    names.collect()
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
                "container {wanted} is not valid for pod {pod_name}; it has: {}",
                all.join(", ")
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
        let others: Vec<String> = items_at(pod, "/spec/containers")
            .iter()
            .filter_map(|container| container["name"].as_str().map(str::to_owned))
            .chain(
                items_at(pod, "/spec/initContainers")
                    .iter()
                    .filter_map(|container| container["name"].as_str().map(|name| format!("{name} (init)"))),
            )
            .collect();
        output::complain(&format!("Defaulted container {first:?} out of: {}", others.join(", ")));
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
    let closes = socket.supports_stream_close();
    let (mut sink, mut source) = socket.into_stream().split();
    let raw = if streams.tty { terminal::Raw::enter()? } else { None };
    let mut sizes = terminal::Sizes::new(streams.tty);
    let mut stdin = tokio::io::stdin();
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    let mut buffer = vec![0u8; 16 * 1024];
    let mut reading = streams.stdin;
    let broken = |error: tokio_tungstenite::tungstenite::Error| {
        Error::Unreachable(format!("error: the connection broke: {error}"))
    };
    let mut outcome = None;
    loop {
        tokio::select! {
            message = source.next() => {
                let Some(message) = message else { break };
                let data: Bytes = match message.map_err(broken)? {
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
            count = stdin.read(&mut buffer), if reading => {
                let count = count?;
                if count > 0 {
                    let mut message = Vec::with_capacity(count + 1);
                    message.push(channel::STDIN);
                    message.extend_from_slice(&buffer[..count]);
                    sink.send(Message::binary(message)).await.map_err(broken)?;
                } else {
                    reading = false;
                    if closes {
                        let message = vec![channel::CLOSE, channel::STDIN];
                        sink.send(Message::binary(message)).await.map_err(broken)?;
                    }
                }
            }
            size = sizes.next() => {
                let mut message = vec![channel::RESIZE];
                message.extend_from_slice(format!(r#"{{"Width":{},"Height":{}}}"#, size.0, size.1).as_bytes());
                sink.send(Message::binary(message)).await.map_err(broken)?;
            }
        }
    }
    drop(raw);
    // The other side has closed already; politeness must not hold us up.
    let _ = tokio::time::timeout(Duration::from_secs(1), sink.close()).await;
    outcome.unwrap_or(Ok(()))
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
            "error: container x is not valid for pod p; it has: i, a, b"
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
