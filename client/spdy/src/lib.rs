//! Many streams over one connection: SPDY/3.1, as kubectl and kubelets speak it.
//!
//! SPDY died on the web when HTTP/2 came, and lives on in Kubernetes: exec and attach of clients before 1.30, and
//! port-forward of every client, inside a WebSocket or without one. This crate knows frames, header compression
//! and flow control, and nothing of Kubernetes: bytes go in, [`Stream`]s with headers come out.
//!
//! The protocol is that of "SPDY Protocol - Draft 3.1". What clients in use make of it is written where it
//! matters: they neither grant windows nor wait for them, so flow control is for peers that announce theirs
//! (`Connection`'s documentation).

mod connection;
mod frame;
mod headers;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Incoming, Role, start};
pub use frame::FrameError;
pub use headers::{HeaderError, Headers};
pub use stream::{Reader, Stream, Writer};

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection broke.
    #[error("failed to read or write")]
    Io(#[from] std::io::Error),
    /// The peer sent a frame that is none.
    #[error("the peer sent a malformed frame")]
    Frame(#[from] FrameError),
    /// The peer sent headers that are none.
    #[error("the peer sent malformed headers")]
    Headers(#[from] HeaderError),
    /// The peer sent what it may not.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The peer asks for answers that it does not read.
    #[error("the peer does not read what it asks for")]
    Flooded,
    /// Nothing came for longer than a stream may be silent.
    #[error("nothing was received for too long")]
    Idle,
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
}
