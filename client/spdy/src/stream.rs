//! A stream: headers, and bytes both ways.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::PollSender;

use crate::{
    Error, Headers,
    connection::{Outgoing, Shared},
    frame::{Control, reset},
    state::{Ending, Piece},
};

/// The longest data frame that we write: what `io.Copy` of the other side reads at once.
const MAX_DATA: usize = 32 << 10;

/// One stream of a connection. Dropped before its end, it is reset.
pub struct Stream {
    /// Its identifier.
    pub id: u32,
    /// The headers that it was opened with.
    pub headers: Headers,
    /// What the peer sends.
    pub reader: Reader,
    /// What the peer gets.
    pub writer: Writer,
}

impl Stream {
    /// Tells the peer that its stream is taken (`SYN_REPLY`). Data may follow only then.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn reply(&self) -> Result<(), Error> {
        self.writer.shared.control(Outgoing::SynReply { stream: self.id })
    }
}

/// The incoming side of a stream. Dropping it lets the peer's data go nowhere.
pub struct Reader {
    id: u32,
    inbox: mpsc::Receiver<Piece>,
    current: Bytes,
    /// The memory that `current` takes of the connection's.
    permit: Option<OwnedSemaphorePermit>,
    ending: Arc<Ending>,
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(
        id: u32,
        inbox: mpsc::Receiver<Piece>,
        ending: Arc<Ending>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { id, inbox, current: Bytes::new(), permit: None, ending, shared }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.current.is_empty() {
            match ready!(this.inbox.poll_recv(context)) {
                Some(piece) => {
                    this.current = piece.bytes;
                    this.permit = Some(piece.permit);
                }
                None if this.ending.is_clean() => return Poll::Ready(Ok(())),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let count = this.current.len().min(buffer.remaining());
        buffer.put_slice(&this.current[..count]);
        this.current.advance(count);
        if this.current.is_empty() {
            this.permit = None;
        }
        this.shared.consumed(this.id, count);
        Poll::Ready(Ok(()))
    }
}

/// The outgoing side of a stream. `shutdown` finishes it; dropping it before resets the stream.
pub struct Writer {
    id: u32,
    sender: PollSender<Outgoing>,
    shared: Arc<Shared>,
    done: bool,
}

impl Writer {
    pub(crate) fn new(id: u32, shared: Arc<Shared>) -> Self {
        Self { id, sender: PollSender::new(shared.data.clone()), shared, done: false }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.poll_reserve(context).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn send(&mut self, bytes: Bytes, fin: bool) -> io::Result<()> {
        let data = Outgoing::Data { stream: self.id, fin, bytes };
        self.sender.send_item(data).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_ready(context))?;
        let mut state = this.shared.state.lock();
        let Poll::Ready(count) = state.poll_send(this.id, bytes.len().min(MAX_DATA), context.waker()) else {
            // A place in the queue is not kept by who may not use it.
            this.sender.abort_send();
            return Poll::Pending;
        };
        let count = count.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        state.sent(this.id, count);
        drop(state);
        this.send(Bytes::copy_from_slice(&bytes[..count]), false)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection flushes whenever nothing more waits to be written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.done {
            ready!(this.poll_ready(context))?;
            this.send(Bytes::new(), true)?;
            this.done = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.done && self.shared.state.lock().reset(self.id) {
            // The connection may be over, and then nobody needs to know.
            let cancel = Control::Reset { stream: self.id, status: reset::CANCEL };
            let _ = self.shared.control(Outgoing::Control(cancel));
        }
    }
}
