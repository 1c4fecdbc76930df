//! Answers that go on for long (logs, watches) in the messages of a WebSocket, for clients in browsers.
//!
//! A request that asks for the upgrade gets what it would have got as a body. A log comes in pieces, binary or as
//! base64 (`k8s.io/apimachinery/pkg/util/httpstream/wsstream`, `Reader`), after one empty message that says that
//! the stream stands; a watch comes as one text for each event (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`,
//! `HandleWS`). What the client sends is not read.

use std::{sync::Arc, time::Duration};

use api_objects::Status;
use axum::{
    body::Body,
    extract::{
        FromRequestParts as _,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use tokio::time::timeout;

use crate::Server;

/// How long a client may take for one message (upstream: an hour for logs).
const WRITE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// A protocol of this form carries a bearer token: a page has no other way to show one
/// (`k8s.io/apiserver/pkg/authentication/request/websocket`).
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// What an answer's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes in any pieces.
    Log,
    /// One JSON text a line.
    Events,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Binary,
    Base64,
    Text,
}

/// Moves a token out of the list of protocols to where tokens belong, so that nobody further on sees it there. One that
/// stands where it belongs already wins.
pub(crate) fn move_token(headers: &mut HeaderMap) {
    if !asks_for_socket(headers) {
        return;
    }
    let asked = protocols(headers);
    let Some(encoded) = asked.iter().find_map(|protocol| protocol.strip_prefix(TOKEN)) else { return };
    let token = URL_SAFE_NO_PAD.decode(encoded).ok().map(|bytes| [b"Bearer ", &*bytes].concat());
    // What cannot be read is left to be refused as a token that is not good.
    let mut value = token
        .and_then(|token| HeaderValue::from_bytes(&token).ok())
        .unwrap_or(HeaderValue::from_static("Bearer unreadable"));
    value.set_sensitive(true);
    let rest: Vec<_> = asked.iter().filter(|protocol| !protocol.starts_with(TOKEN)).cloned().collect();
    headers.entry(header::AUTHORIZATION).or_insert(value);
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::from_str(&rest.join(", "))
        && !rest.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

fn asks_for_socket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

/// The protocols that a client would speak, its favourite first.
fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// The answer as it is, or in messages if the client asks for them.
///
/// # Errors
/// 400 if the upgrade is not possible, or the client speaks nothing that we do.
pub(crate) async fn carry(
    server: &Arc<Server>,
    parts: &mut Parts,
    content: Content,
    answer: Response<Body>,
) -> Result<Response<Body>, Status> {
    if !asks_for_socket(&parts.headers) {
        return Ok(answer);
    }
    let (protocol, framing) = negotiate(content, &protocols(&parts.headers))?;
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
        .await
        .map_err(|error| Status::bad_request(format!("unable to upgrade: {error}")))?
        .protocols(protocol);
    let (tasks, shutdown) = (server.tasks.clone(), server.shutdown.clone());
    Ok(upgrade.on_upgrade(move |socket| async move {
        // The connection's own task ends with the response; this one is joined at shutdown, which waits for no client.
        let sending = tasks.track_future(send_all(socket, answer.into_body(), framing));
        let _ = shutdown.run_until_cancelled(sending).await;
    }))
}

/// What both sides speak; a watch takes any one protocol, as upstream's does, for its texts are the same in all.
fn negotiate(content: Content, asked: &[String]) -> Result<(Option<String>, Framing), Status> {
    if content == Content::Events {
        return Ok((asked.first().cloned(), Framing::Text));
    }
    if asked.is_empty() {
        return Ok((None, Framing::Binary));
    }
    let known = asked.iter().find_map(|name| match name.as_str() {
        "binary.k8s.io" => Some((Some(name.clone()), Framing::Binary)),
        "base64.binary.k8s.io" => Some((Some(name.clone()), Framing::Base64)),
        _ => None,
    });
    known.ok_or_else(|| {
        Status::bad_request(format!("requested protocol(s) are not supported: [{}]", asked.join(" ")))
    })
}

async fn send_all(socket: WebSocket, body: Body, framing: Framing) {
    let (mut sink, mut source) = socket.split();
    let gone = async {
        while let Some(Ok(message)) = source.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    };
    tokio::select! {
        () = gone => return,
        sent = send_body(&mut sink, body, framing) => if !sent { return },
    }
    let normal = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    // A client that has gone needs no goodbye.
    let _ = timeout(WRITE_TIMEOUT, sink.send(Message::Close(Some(normal)))).await;
}

/// Sends a body; `false` if the client does not take it.
async fn send_body(sink: &mut SplitSink<WebSocket, Message>, body: Body, framing: Framing) -> bool {
    if framing != Framing::Text && !send(sink, framing, Bytes::new()).await {
        return false;
    }
    let mut pieces = body.into_data_stream();
    let mut rest = BytesMut::new();
    while let Some(Ok(piece)) = pieces.next().await {
        if framing != Framing::Text {
            if !send(sink, framing, piece).await {
                return false;
            }
            continue;
        }
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let event = rest.split_to(end + 1).freeze();
            if !send(sink, framing, event).await {
                return false;
            }
        }
    }
    true
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, framing: Framing, bytes: Bytes) -> bool {
    let message = match framing {
        Framing::Binary => Message::Binary(bytes),
        Framing::Base64 => Message::Text(STANDARD.encode(&bytes).into()),
        Framing::Text => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Message::Text(text),
            Err(_) => return false,
        },
    };
    matches!(timeout(WRITE_TIMEOUT, sink.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(protocol: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).unwrap());
        headers
    }

    #[test]
    fn a_token_leaves_the_list_of_protocols() {
        let mut headers = asking("base64.binary.k8s.io, base64url.bearer.authorization.k8s.io.YWJjLWRlZg");
        move_token(&mut headers);
        assert_eq!(headers[header::AUTHORIZATION], "Bearer abc-def");
        assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "base64.binary.k8s.io");
        let mut alone = asking("base64url.bearer.authorization.k8s.io.YWJj");
        move_token(&mut alone);
        assert_eq!(alone.get(header::SEC_WEBSOCKET_PROTOCOL), None);
        // One that cannot be read is not passed over in silence.
        let mut broken = asking("base64url.bearer.authorization.k8s.io.&");
        move_token(&mut broken);
        assert_eq!(broken[header::AUTHORIZATION], "Bearer unreadable");
        let mut uncarried = asking("base64url.bearer.authorization.k8s.io.CgoK");
        move_token(&mut uncarried);
        assert_eq!(uncarried[header::AUTHORIZATION], "Bearer unreadable");
        // Another credential does not leave it there.
        let mut both = asking("x, base64url.bearer.authorization.k8s.io.YWJj");
        both.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer own"));
        move_token(&mut both);
        assert_eq!(
            (&both[header::AUTHORIZATION], &both[header::SEC_WEBSOCKET_PROTOCOL]),
            (&"Bearer own".parse().unwrap(), &"x".parse().unwrap())
        );
        let mut plain = HeaderMap::new();
        plain.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("base64url.bearer.authorization.k8s.io.YWJj"),
        );
        move_token(&mut plain);
        assert_eq!(plain.get(header::AUTHORIZATION), None);
    }

    #[test]
    fn logs_have_two_protocols_and_watches_any() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = |content, list: &[&str]| negotiate(content, &names(list));
        assert_eq!(chosen(Content::Log, &[]).unwrap(), (None, Framing::Binary));
        assert_eq!(
            chosen(Content::Log, &["x", "base64.binary.k8s.io"]).unwrap(),
            (Some("base64.binary.k8s.io".to_owned()), Framing::Base64)
        );
        assert_eq!(chosen(Content::Log, &["x"]).unwrap_err().code, 400);
        assert_eq!(chosen(Content::Events, &["x"]).unwrap(), (Some("x".to_owned()), Framing::Text));
    }
}
