//! Asks a gRPC server for its health: `grpc.health.v1.Health/Check` over plain HTTP/2.
//!
//! One unary call of two tiny messages, so hyper's HTTP/2 client and prost are all it takes. The texts are those
//! of upstream's `pkg/probe/grpc`, which follow `grpc_health_probe`.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::images::go_duration;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Most of an answer that is read: the message is two bytes, the rest would be an error page.
const ANSWER_LIMIT: usize = 64 << 10;
/// `Unimplemented` and `DeadlineExceeded` of gRPC's status codes.
const UNIMPLEMENTED: &str = "12";
const DEADLINE_EXCEEDED: &str = "4";

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Whether the service (the whole server, if that is empty) at `host:port` serves, within `limit`.
pub(super) async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let authority = super::actions::authority(host, port);
    let deadline = Instant::now() + limit;
    let shown = go_duration(limit);
    // A server that refuses connections is one that does not answer in time: gRPC's client goes on dialing until
    // then. Here the answer comes at once; the next probe is the next attempt.
    let unreachable = || {
        format!(
            "timeout: failed to connect service \"{authority}\" within {shown}: context deadline exceeded"
        )
    };
    let connected = timeout_at(deadline, TcpStream::connect((host, port))).await;
    let Ok(Ok(stream)) = connected else { return Err(unreachable()) };
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let Ok(Ok((mut sender, connection))) = timeout_at(deadline, handshake).await else {
        return Err(unreachable());
    };
    let exchange = async {
        let response =
            sender.send_request(request(&authority, service)).await.map_err(|error| transport(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| {
            format!("error: health rpc probe failed: rpc error: code = Internal desc = {error}")
        })?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        judge(&parts, &trailers, &body.to_bytes(), &shown)
    };
    // The connection lives as long as this probe: it is driven here, not by a task of its own.
    let outcome = async {
        tokio::pin!(exchange, connection);
        tokio::select! {
            outcome = &mut exchange => outcome,
            // Answers that have arrived are read to their end although the server closed the connection.
            _closed = &mut connection => exchange.await,
        }
    };
    let late = || Err(format!("timeout: health rpc did not complete within {shown}"));
    timeout_at(deadline, outcome).await.unwrap_or_else(|_| late())
}

fn request(authority: &str, service: &str) -> Request<Full<Bytes>> {
    let message = HealthCheckRequest { service: service.to_owned() };
    let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
    // One message, not compressed, with its length before it (gRPC's length-prefixed framing).
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    message.encode(&mut frame).expect("a growing buffer must take the message");
    Request::post(format!("http://{authority}{METHOD}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(frame.freeze()))
        .expect("a request of checked parts must build")
}

fn transport(error: &hyper::Error) -> String {
    format!("error: health rpc probe failed: rpc error: code = Unavailable desc = {error}")
}

/// What the answer means. The status stands in the trailers, or in the headers of an answer without a body.
fn judge(
    parts: &http::response::Parts,
    trailers: &HeaderMap,
    body: &[u8],
    limit: &str,
) -> Result<(), String> {
    let text = |name: &str| {
        let value = trailers.get(name).or_else(|| parts.headers.get(name))?;
        value.to_str().ok().map(str::to_owned)
    };
    let message = text("grpc-message").unwrap_or_default();
    match text("grpc-status").as_deref() {
        Some("0") => {}
        Some(UNIMPLEMENTED) => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        Some(DEADLINE_EXCEEDED) => {
            return Err(format!("timeout: health rpc did not complete within {limit}"));
        }
        Some(code) => {
            return Err(format!(
                "error: health rpc probe failed: rpc error: code = {} desc = {message}",
                code_name(code)
            ));
        }
        None => {
            return Err(format!(
                "error: health rpc probe failed: rpc error: code = Unknown desc = unexpected HTTP status code received from server: {}",
                parts.status
            ));
        }
    }
    let reply = body.get(5..).and_then(|message| HealthCheckResponse::decode(message).ok());
    let Some(reply) = reply.filter(|_| body[0] == 0) else {
        return Err("error: health rpc probe failed: rpc error: code = Internal desc = the answer is not a HealthCheckResponse".to_owned());
    };
    match ServingStatus::try_from(reply.status) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(other) => Err(format!("service unhealthy (responded with \"{}\")", other.label())),
        Err(_) => Err(format!("service unhealthy (responded with \"{}\")", reply.status)),
    }
}

/// gRPC's names of its status codes, as Go prints them.
fn code_name(code: &str) -> &str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    code.parse::<usize>().ok().and_then(|code| NAMES.get(code).copied()).unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::Ipv4Addr};

    use http::{HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::{
        body::{Frame, Incoming},
        service::service_fn,
    };
    use tokio::{net::TcpListener, task::JoinSet};

    use super::*;

    type Answer = Response<
        StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>,
    >;

    /// The health of three services, one that nobody knows, and one that never answers.
    async fn health(request: Request<Incoming>) -> Result<Answer, Infallible> {
        assert_eq!(
            (request.uri().path(), &request.headers()["te"]),
            (METHOD, &HeaderValue::from_static("trailers"))
        );
        let body = request.into_body().collect().await.expect("the request must arrive").to_bytes();
        let asked = HealthCheckRequest::decode(&body[5..]).expect("the request must be a message");
        let (code, status) = match asked.service.as_str() {
            "" => ("0", 1),
            "down" => ("0", 2),
            "odd" => ("0", 3),
            "foreign" => ("12", 0),
            "silent" => std::future::pending().await,
            _ => ("5", 0),
        };
        let mut frames = Vec::new();
        if code == "0" {
            let message = HealthCheckResponse { status }.encode_to_vec();
            let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            frame.extend(message);
            frames.push(Ok(Frame::data(Bytes::from(frame))));
        }
        let trailers = [("grpc-status", code), ("grpc-message", "unknown service")];
        let trailers: HeaderMap = trailers
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        frames.push(Ok(Frame::trailers(trailers)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    }

    #[tokio::test]
    async fn a_server_is_asked_for_each_service() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service_fn(health)));
            }
        });
        let ask = async |service: &str, millis| {
            check("127.0.0.1", port, service, Duration::from_millis(millis)).await
        };
        assert_eq!(ask("", 5000).await, Ok(()));
        for (service, expected) in [
            ("down", "service unhealthy (responded with \"NOT_SERVING\")"),
            ("odd", "service unhealthy (responded with \"SERVICE_UNKNOWN\")"),
            ("other", "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
            (
                "foreign",
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
            ),
        ] {
            assert_eq!(ask(service, 5000).await.unwrap_err(), expected);
        }
        assert_eq!(
            ask("silent", 200).await.unwrap_err(),
            "timeout: health rpc did not complete within 200ms"
        );
        tasks.shutdown().await;
        let refused = ask("", 1000).await.unwrap_err();
        assert!(
            refused
                .starts_with(&format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 1s")),
            "{refused}"
        );
    }
}
