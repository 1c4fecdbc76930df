//! port-forward over SPDY: two streams for each connection, one for its data and one for what goes wrong.
//!
//! Both carry the headers `port` and `requestID`, and `streamType` `data` or `error`; the two of one request
//! belong together. Rules and texts of `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use spdy::{Headers, Role, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::forward::{Target, carry_both};

/// Protocols that we speak.
pub(super) const PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];

/// How long the second stream of a pair may take (upstream's `StreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);

/// What a stream is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Purpose {
    port: u16,
    is_error: bool,
    request: String,
}

impl Purpose {
    /// Reads a stream's headers. The oldest clients name no request: theirs are streams of neighbouring numbers.
    fn of(id: u32, headers: &Headers) -> Result<Self, String> {
        let text =
            headers.get("port").filter(|port| !port.is_empty()).ok_or(r#""port" header is required"#)?;
        let port =
            text.parse::<u16>().map_err(|error| format!("unable to parse {text:?} as a port: {error}"))?;
        if port == 0 {
            return Err(format!("port {text:?} must be > 0"));
        }
        let is_error = match headers.get("streamType").unwrap_or_default() {
            "error" => true,
            "data" => false,
            "" => return Err(r#""streamType" header is required"#.to_owned()),
            other => return Err(format!("invalid stream type {other:?}")),
        };
        let request = match headers.get("requestID").unwrap_or_default() {
            "" if is_error => id.to_string(),
            "" => id.wrapping_sub(2).to_string(),
            request => request.to_owned(),
        };
        Ok(Self { port, is_error, request })
    }
}

/// A request whose other stream has not come yet.
struct Waiting {
    stream: Stream,
    is_error: bool,
    deadline: Instant,
}

/// Forwards connections for as long as the client stays.
pub(super) async fn serve<S>(io: S, target: Target)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (_connection, mut incoming, running) = spdy::start(io, Role::Server);
    let target = Arc::new(target);
    let work = async {
        // Bounded like the connection's streams. Dropped with this future, and all connections with it.
        let mut forwards = JoinSet::new();
        let mut waiting: HashMap<String, Waiting> = HashMap::new();
        loop {
            let next = waiting.iter().min_by_key(|(_, waiting)| waiting.deadline);
            let next = next.map(|(request, waiting)| (request.clone(), waiting.deadline));
            let expiry = async {
                match &next {
                    Some((_, deadline)) => sleep_until(*deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                stream = incoming.next() => match stream {
                    Some(stream) => {
                        if let Some((port, data, error)) = pair(&mut waiting, stream).await {
                            forwards.spawn(forward(Arc::clone(&target), port, data, error));
                        }
                    }
                    None => break,
                },
                Some(_) = forwards.join_next() => {}
                () = expiry => {
                    if let Some(late) = next.and_then(|(request, _)| waiting.remove(&request)) {
                        complain(late, "timed out waiting for streams").await;
                    }
                }
            }
        }
        // The client opens no more; what runs, runs to its end.
        while forwards.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = running => if let Err(error) = ended {
            tracing::debug!("a SPDY connection ended: {error}");
        },
        () = work => {}
    }
}

/// Takes a stream; if it is the second of its request, both: the port, data and error.
async fn pair(waiting: &mut HashMap<String, Waiting>, stream: Stream) -> Option<(u16, Stream, Stream)> {
    let purpose = match Purpose::of(stream.id, &stream.headers) {
        Ok(purpose) => purpose,
        Err(why) => {
            // Dropped, and so reset, as upstream does.
            tracing::debug!("a stream is refused: {why}");
            return None;
        }
    };
    if stream.reply().is_err() {
        return None;
    }
    match waiting.remove(&purpose.request) {
        None => {
            let deadline = Instant::now() + CREATION;
            let entry = Waiting { stream, is_error: purpose.is_error, deadline };
            waiting.insert(purpose.request, entry);
            None
        }
        Some(first) if first.is_error == purpose.is_error => {
            let kind = if purpose.is_error { "error" } else { "data" };
            let why = format!(
                "error processing stream for request {}: {kind} stream already assigned",
                purpose.request
            );
            complain(first, &why).await;
            None
        }
        Some(first) if first.is_error => Some((purpose.port, stream, first.stream)),
        Some(first) => Some((purpose.port, first.stream, stream)),
    }
}

/// Says on a lone error stream why nothing comes of it.
async fn complain(waiting: Waiting, why: &str) {
    tracing::debug!("{why}");
    if waiting.is_error {
        let mut writer = waiting.stream.writer;
        // A client that has gone does not want to know.
        let _ = writer.write_all(why.as_bytes()).await;
        let _ = writer.shutdown().await;
    }
}

async fn forward(target: Arc<Target>, port: u16, data: Stream, error: Stream) {
    let (mut writer, mut complaints) = (data.writer, error.writer);
    match target.dial(port).await {
        Ok(connection) => {
            // Clients before 1.25 close their end only once they know that there is nothing to complain of.
            let nothing_to_say = async {
                let _ = complaints.shutdown().await;
            };
            carry_both(connection, data.reader, writer, nothing_to_say).await;
        }
        Err(message) => {
            tracing::debug!("{message}");
            // A client that has gone does not want to know.
            let _ = complaints.write_all(message.as_bytes()).await;
            let _ = writer.shutdown().await;
        }
    }
    let _ = complaints.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_is_for_stands_in_its_headers() {
        let purpose = |pairs: &[(&str, &str)]| Purpose::of(7, &Headers::new(pairs));
        assert_eq!(
            purpose(&[("streamType", "data"), ("port", "80"), ("requestID", "3")]),
            Ok(Purpose { port: 80, is_error: false, request: "3".to_owned() })
        );
        // The pair of an old client: error on 5, data on 7.
        assert_eq!(purpose(&[("streamType", "data"), ("port", "80")]).unwrap().request, "5");
        assert_eq!(purpose(&[("streamType", "error"), ("port", "80")]).unwrap().request, "7");
        for (pairs, why) in [
            (&[][..], "\"port\" header is required"),
            (&[("port", "0")], "port \"0\" must be > 0"),
            (&[("port", "80")], "\"streamType\" header is required"),
            (&[("port", "80"), ("streamType", "x")], "invalid stream type \"x\""),
        ] {
            assert_eq!(purpose(pairs).unwrap_err(), why);
        }
        assert!(
            purpose(&[("port", "65536")]).unwrap_err().starts_with("unable to parse \"65536\" as a port")
        );
    }
}
