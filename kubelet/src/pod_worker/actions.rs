//! Carries out what probes and hooks do: commands, HTTP requests, connections.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::time::timeout;

use super::health_check;
use crate::{
    context::Context,
    pod::probes::{Action, HttpRequest, http_request},
};

/// Most of a response or output that a message carries.
const MESSAGE_LIMIT: usize = 1024;

/// The target of an action.
pub(super) struct Target<'a> {
    /// The pod.
    pub(super) uid: &'a str,
    /// The container.
    pub(super) container: &'a str,
    /// Where requests go unless they name a host.
    pub(super) address: Option<IpAddr>,
}

/// Does it: answers what is odd about a success, if anything is; the error is what did not work, as upstream words it.
pub(super) async fn perform(
    context: &Context,
    target: &Target<'_>,
    action: &Action,
    limit: Duration,
) -> Result<Option<String>, String> {
    match action {
        Action::Exec(command) => {
            let output = context
                .runtime
                .exec_sync(target.uid, target.container, command, limit)
                .await
                .map_err(|error| error.to_string())?;
            if output.exit_code == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&output.output[..output.output.len().min(MESSAGE_LIMIT)])
                .into_owned();
            Err(if text.trim().is_empty() {
                format!("command exited with {}", output.exit_code)
            } else {
                text
            })
        }
        Action::Http(request) => http(context, target, request, limit).await,
        Action::Tcp { host, port } => {
            let host = host_of(host, target)?;
            let shown = authority(&host, *port);
            match timeout(limit, tokio::net::TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(_)) => Ok(None),
                Ok(Err(error)) => Err(format!("dial tcp {shown}: connect: {}", go_io(&error))),
                Err(_) => Err(format!("dial tcp {shown}: i/o timeout")),
            }
        }
        Action::Grpc { port, service } => {
            health_check::check(&host_of("", target)?, *port, service, limit).await.map(|()| None)
        }
    }
}

/// As much of a body as messages show.
async fn start_of_body(mut response: reqwest::Response) -> String {
    let mut start = Vec::new();
    while start.len() < MESSAGE_LIMIT
        && let Ok(Some(piece)) = response.chunk().await
    {
        start.extend_from_slice(&piece);
    }
    String::from_utf8_lossy(&start[..start.len().min(MESSAGE_LIMIT)]).into_owned()
}

async fn http(
    context: &Context,
    target: &Target<'_>,
    request: &HttpRequest,
    limit: Duration,
) -> Result<Option<String>, String> {
    let host = host_of(&request.host, target)?;
    let scheme = if request.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", authority(&host, request.port), request.path);
    let mut builder =
        context.http.get(&url).timeout(limit).header("User-Agent", "kube-probe/1.36").header("Accept", "*/*");
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    match builder.send().await {
        Ok(response) if response.status().is_success() => Ok(None),
        Ok(response) if response.status().is_redirection() => {
            let body = start_of_body(response).await;
            Ok(Some(format!("Probe terminated redirects, Response body: {body}")))
        }
        Ok(response) => Err(format!("HTTP probe failed with statuscode: {}", response.status().as_u16())),
        Err(error) if error.is_timeout() => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Err(error) => Err(format!("Get \"{url}\": {}", root_cause(&error))),
    }
}

fn host_of(host: &str, target: &Target<'_>) -> Result<String, String> {
    if !host.is_empty() {
        return Ok(host.to_owned());
    }
    target.address.map(|address| address.to_string()).ok_or_else(|| "the pod has no address".to_owned())
}

/// Host and port as addresses show them.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn go_io(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => go_io(io),
        None => cause.to_string(),
    }
}

/// Runs a lifecycle hook to its end.
pub(super) async fn hook(
    context: &Context,
    target: &Target<'_>,
    container: &Container,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        let time = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
        tokio::time::sleep(time.min(limit)).await;
        return Ok(());
    }
    if let Some(exec) = &handler.exec {
        let action = Action::Exec(exec.command.clone().unwrap_or_default());
        return perform(context, target, &action, limit).await.map(drop);
    }
    if let Some(http) = &handler.http_get {
        let action = Action::Http(http_request(http, container)?);
        return perform(context, target, &action, limit).await.map(drop);
    }
    Ok(())
}
