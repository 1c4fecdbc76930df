//! Carrying requests, answers and upgraded streams.

use std::sync::Arc;

use api_objects::Status;
use axum::body::Body;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::connect::{Target, connect};
use crate::Server;

/// How much of a refusal's text is passed on.
const REFUSAL_BYTES: usize = 64 * 1024;

/// What belongs to one hop and is not passed on (RFC 9110, 7.6.1), and what only this server may see.
const NOT_PASSED_ON: [HeaderName; 9] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::AUTHORIZATION,
    header::HOST,
];

/// What both ends of an upgraded stream must see as the other sent it: WebSocket's own headers and SPDY's.
const STREAM_HEADERS: [HeaderName; 5] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_ACCEPT,
    HeaderName::from_static("x-stream-protocol-version"),
];

fn unreachable(error: &hyper::Error) -> Status {
    Status::internal(&format!("error trying to reach backend: {error}"))
}

fn host(target: &Target) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(&target.authority()).map_err(|error| Status::bad_request(error.to_string()))
}

/// A body that ends when the server stops.
fn until_shutdown(server: &Arc<Server>, body: Incoming) -> Body {
    let shutdown = server.shutdown.clone();
    Body::from_stream(body.into_data_stream().take_until(shutdown.cancelled_owned()))
}

/// Asks for text (a log), and passes it on as it comes. Refusals become a `Status` with the backend's words.
pub(super) async fn text(
    server: &Arc<Server>,
    target: &Target,
    mut request: Request<Body>,
    name: &str,
) -> Result<Response<Body>, Status> {
    request.headers_mut().insert(header::HOST, host(target)?);
    let mut sender = connect(server, target).await?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    if !answer.status().is_success() {
        return Err(refusal(answer, name).await);
    }
    let mut response = Response::new(until_shutdown(server, answer.into_body()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Passes on any HTTP request, and its answer as it is.
pub(super) async fn http(
    server: &Arc<Server>,
    target: &Target,
    path: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let path = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if request.headers().contains_key(header::UPGRADE) {
        return upgrade(server, target, &path, request, Along::All).await;
    }
    let (parts, body) = request.into_parts();
    let mut onward = Request::builder()
        .method(parts.method)
        .uri(path)
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    *onward.headers_mut() = passed_on(&parts.headers);
    onward.headers_mut().insert(header::HOST, host(target)?);
    let mut sender = connect(server, target).await?;
    let answer = sender.send_request(onward).await.map_err(|error| unreachable(&error))?;
    Ok(passed_back(server, answer))
}

/// A backend's answer as it is.
fn passed_back(server: &Arc<Server>, answer: Response<Incoming>) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(until_shutdown(server, body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = passed_on(&parts.headers);
    response
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !NOT_PASSED_ON.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Which headers go along with an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// Only what the stream itself is about: to a kubelet, which has no use for a client's others.
    Streams,
    /// All that a proxy passes on.
    All,
}

/// Asks the backend for the upgrade that the client asks for; if the backend agrees, so do we, and then bytes go
/// both ways until either end closes.
pub(super) async fn upgrade(
    server: &Arc<Server>,
    target: &Target,
    path: &str,
    request: Request<Body>,
    along: Along,
) -> Result<Response<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
        return Err(Status::bad_request("this connection cannot be upgraded: use HTTP/1.1 over TLS"));
    };
    let onward = upgrade_request(target, path, &parts, body, along)?;
    let mut sender = connect(server, target).await?;
    let mut answer = sender.send_request(onward).await.map_err(|error| unreachable(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        if along == Along::All {
            return Ok(passed_back(server, answer));
        }
        return Err(refusal(answer, "").await);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = upgrade_headers(answer.headers(), along);
    let backend = hyper::upgrade::on(&mut answer);
    let shutdown = server.shutdown.clone();
    server.tasks.spawn(async move {
        tokio::select! {
            ended = carry(client, backend) => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a stream ended");
                }
            }
            () = shutdown.cancelled() => {}
        }
    });
    Ok(response)
}

/// The headers of an upgrade, of either direction.
fn upgrade_headers(headers: &HeaderMap, along: Along) -> HeaderMap {
    let mut passed = match along {
        Along::All => passed_on(headers),
        Along::Streams => HeaderMap::new(),
    };
    let own = if along == Along::Streams { &STREAM_HEADERS[..] } else { &[] };
    for name in own.iter().chain(&[header::UPGRADE]) {
        for value in headers.get_all(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    passed
}

fn upgrade_request(
    target: &Target,
    path: &str,
    parts: &Parts,
    body: Body,
    along: Along,
) -> Result<Request<Body>, Status> {
    // SPDY is asked for with POST, which has a body, though an empty one.
    let body = if along == Along::All { body } else { Body::empty() };
    let mut onward = Request::builder()
        .method(parts.method.clone())
        .uri(path)
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    *onward.headers_mut() = upgrade_headers(&parts.headers, along);
    onward.headers_mut().insert(header::HOST, host(target)?);
    Ok(onward)
}

async fn carry(client: OnUpgrade, backend: OnUpgrade) -> Result<(), String> {
    let (client, backend) = tokio::try_join!(client, backend).map_err(|error| error.to_string())?;
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    tokio::io::copy_bidirectional(&mut client, &mut backend).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// A backend's refusal as a `Status`: its own words under its own code
/// (`k8s.io/apiserver/pkg/registry/generic/rest`).
async fn refusal(answer: Response<Incoming>, name: &str) -> Status {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), REFUSAL_BYTES).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    if let Ok(status) = serde_json::from_str::<Status>(&text)
        && status.kind == "Status"
    {
        return status;
    }
    match code {
        400 => Status::bad_request(text),
        404 => Status::failure(
            404,
            "NotFound",
            format!("the server could not find the requested resource ( pods {name}): {text}"),
        ),
        code if code < 500 => Status::failure(code, "", text),
        _ => Status::internal(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_hop_headers_stay_here() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain"));
        let passed: Vec<_> = passed_on(&headers).keys().cloned().collect();
        assert_eq!(passed, [header::ACCEPT]);
    }

    #[test]
    fn an_upgrade_carries_what_its_protocol_needs() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        let protocol = HeaderName::from_static("x-stream-protocol-version");
        headers.append(&protocol, HeaderValue::from_static("v4.channel.k8s.io"));
        headers.append(&protocol, HeaderValue::from_static("v3.channel.k8s.io"));
        let passed = upgrade_headers(&headers, Along::Streams);
        assert_eq!(passed.get_all(&protocol).iter().count(), 2);
        assert_eq!(
            (&passed[header::UPGRADE], &passed[header::CONNECTION]),
            (&"SPDY/3.1".parse().unwrap(), &"Upgrade".parse().unwrap())
        );
        assert_eq!(passed.keys_len(), 3);
        let passed = upgrade_headers(&headers, Along::All);
        assert!(passed.contains_key(header::COOKIE) && !passed.contains_key(header::AUTHORIZATION));
    }
}
