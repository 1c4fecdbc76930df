//! port-forward in channels of a WebSocket: the ports stand in the query, and each has two channels.
//!
//! Channel 2n carries port n's data, 2n+1 what goes wrong; the first frame of each is the port's number, two bytes,
//! the lower first (`handleWebSocketStreams` of `k8s.io/kubelet/pkg/cri/streaming/portforward`). A client cannot
//! say that it has finished: a port ends when the pod ends it.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    channels::{binary, say_goodbye, send},
    forward::{Target, carry_until_pod_finishes},
    tunnel::BUFFER,
};

/// The protocol's name; clients that name none get the same.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

/// Ports of one request: their channels are numbered in a byte, of which 255 means something else.
const MAX_PORTS: usize = 127;
/// Frames that wait for the client.
const FRAMES: usize = 8;

/// The ports that a query names.
pub(super) fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for pair in query.split('&') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        if !matches!(name, "port" | "ports") {
            continue;
        }
        let value = super::decode(value);
        for text in value.split(',') {
            match text.parse::<u16>() {
                Ok(0) => return Err(format!("port {text:?} must be > 0")),
                Ok(port) => ports.push(port),
                Err(error) => return Err(format!("unable to parse {value:?} as a port: {error}")),
            }
        }
    }
    match ports.len() {
        0 => Err(r#"query parameter "port" is required"#.to_owned()),
        1..=MAX_PORTS => Ok(ports),
        many => {
            Err(format!("{many} ports are more than the {MAX_PORTS} that one WebSocket has channels for"))
        }
    }
}

/// A channel's number and a frame for it.
type Frame = (u8, Vec<u8>);

/// Forwards until all ports have ended or the client goes.
pub(super) async fn serve(socket: WebSocket, target: Target, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let target = Arc::new(target);
    // Bounded: a port waits while the client does not take its frames.
    let (frames, mut outgoing) = mpsc::channel::<Frame>(FRAMES);
    // Dropped with this future, and all connections with it.
    let mut forwards = JoinSet::new();
    let mut writers = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX);
        let number = port.to_le_bytes();
        if !send(&mut sink, binary(channel, &number)).await
            || !send(&mut sink, binary(channel + 1, &number)).await
        {
            return;
        }
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (reader, writer) = tokio::io::split(ours);
        writers.push(writer);
        forwards.spawn(read(reader, channel, frames.clone()));
        forwards.spawn(forward(Arc::clone(&target), port, theirs, channel + 1, frames.clone()));
    }
    drop(frames);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(frame) => deliver(&mut writers, &frame).await,
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    let outward = async {
        // Ends when every port has.
        while let Some((channel, frame)) = outgoing.recv().await {
            if !send(&mut sink, binary(channel, &frame)).await {
                return;
            }
        }
        say_goodbye(&mut sink).await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

/// Passes a frame of the client's to its port; a port that has ended takes no more.
async fn deliver(writers: &mut [WriteHalf<DuplexStream>], frame: &[u8]) {
    let Some((channel, data)) = frame.split_first() else { return };
    if channel % 2 == 0
        && let Some(writer) = writers.get_mut(usize::from(channel / 2))
    {
        let _ = writer.write_all(data).await;
    }
}

async fn read(mut from: tokio::io::ReadHalf<DuplexStream>, channel: u8, frames: mpsc::Sender<Frame>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if frames.send((channel, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn forward(target: Arc<Target>, port: u16, io: DuplexStream, errors: u8, frames: mpsc::Sender<Frame>) {
    match target.dial(port).await {
        Ok(connection) => {
            let (reader, writer) = tokio::io::split(io);
            carry_until_pod_finishes(connection, reader, writer).await;
        }
        Err(message) => {
            tracing::debug!("{message}");
            // A client that has gone does not want to know.
            let _ = frames.send((errors, message.into_bytes())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stand_in_the_query() {
        assert_eq!(ports("port=80%2C8080&x=1&port=9"), Ok(vec![80, 8080, 9]));
        assert_eq!(ports("").unwrap_err(), r#"query parameter "port" is required"#);
        assert_eq!(ports("port=0").unwrap_err(), r#"port "0" must be > 0"#);
        assert!(ports("port=a").is_err());
        let many = ["port=1"; 128].join("&");
        assert!(ports(&many).is_err());
    }
}
