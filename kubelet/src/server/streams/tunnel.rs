//! SPDY inside a WebSocket: each binary message is the next piece of a stream of bytes.
//!
//! kubectl from 1.31 forwards ports so, for proxies let WebSockets through and not SPDY
//! (`k8s.io/client-go/tools/portforward`'s `TunnelingConnection`).

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::channels::say_goodbye;

/// The subprotocol that says what is inside.
pub(super) const PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes under way between two halves.
pub(super) const BUFFER: usize = 64 << 10;

/// Carries bytes both ways until both sides have ended.
pub(super) async fn carry(socket: WebSocket, io: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut from, mut to) = tokio::io::split(io);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => break,
                // The library answers pings; text is not part of the protocol.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
        // The other end has gone if this fails.
        let _ = to.shutdown().await;
    };
    let outward = async {
        loop {
            let mut buffer = BytesMut::with_capacity(BUFFER / 2);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let bytes: Bytes = buffer.freeze();
                    if sink.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                }
            }
        }
        say_goodbye(&mut sink).await;
    };
    tokio::join!(inward, outward);
}
