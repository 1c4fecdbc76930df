//! A connection: one loop that reads, one that writes, and what they do with frames.
//!
//! Everything is bounded. What waits to be sent: a queue for data whose senders wait, and one for answers which a
//! peer that does not read overflows, and which ends the connection. What waits to be read: so many bytes of
//! all streams together; then the peer is not read from. So a stream that nobody reads stops its neighbours, as
//! it does at `spdystream`, unless the peer takes part in flow control: then its window ends first.
//!
//! Flow control is for those who announce it. Kubernetes' clients and servers (`github.com/moby/spdystream`)
//! ignore `SETTINGS` and `WINDOW_UPDATE`, send without a window and never grant one: a peer that waited for
//! their grants would wait for ever after 64 KiB. A peer that sends `SETTINGS_INITIAL_WINDOW_SIZE` is kept to the
//! letter, and gets our own announcement in return.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    Error, Headers,
    frame::{Control, HEAD, Head, INITIAL_WINDOW_SIZE, goaway, reset},
    headers::{Packer, Unpacker},
    state::{Opened, Piece, STREAM_WINDOW, State},
    stream::{Reader, Stream, Writer},
};

/// Data frames that wait to be written: half a mebibyte of the largest.
const DATA_QUEUE: usize = 16;
/// Answers that wait to be written.
const CONTROL_QUEUE: usize = 256;
/// Streams that wait to be taken.
const ACCEPT_QUEUE: usize = 64;
/// Bytes that wait to be read, of all streams together.
const BUDGET: usize = 4 << 20;
/// Data is passed on in pieces, however long its frame.
const PIECE: usize = 16 << 10;
/// Keeps connections alive through proxies.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Upstream's `StreamIdleTimeout`: how long a peer may be silent, pings included. A paused `kubectl exec … | less`
/// answers nothing, and must live.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long the peer may take to close after us.
const LINGER: Duration = Duration::from_secs(5);
/// A window that takes all that we have room for.
const SESSION_GRANT: u32 = (BUDGET - (64 << 10)) as u32;

/// Which side of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who asked for it: opens odd streams.
    Client,
    /// Who was asked: opens even streams.
    Server,
}

pub(crate) enum Outgoing {
    Control(Control),
    SynStream { stream: u32, headers: Headers },
    SynReply { stream: u32 },
    Data { stream: u32, fin: bool, bytes: Bytes },
    Close,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) data: mpsc::Sender<Outgoing>,
    control: mpsc::Sender<Outgoing>,
}

impl Shared {
    pub(crate) fn control(&self, frame: Outgoing) -> Result<(), Error> {
        self.control.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Flooded,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })
    }

    /// Bytes were read by whom they were for.
    pub(crate) fn consumed(&self, stream: u32, length: usize) {
        let grants = self.state.lock().consume(stream, length);
        for (stream, delta) in grants {
            // A peer without room for its grant reads nothing, and then sends nothing either.
            let _ = self.control(Outgoing::Control(Control::WindowUpdate { stream, delta }));
        }
    }
}

/// A handle to a connection: opens streams and ends it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    /// Opens a stream and waits until the peer takes it.
    ///
    /// # Errors
    /// If the peer refuses it or the connection is over.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let (id, Opened { inbox, ending, reply }) = self.shared.state.lock().open()?;
        let stream = Stream {
            id,
            headers: headers.clone(),
            reader: Reader::new(id, inbox, ending, Arc::clone(&self.shared)),
            writer: Writer::new(id, Arc::clone(&self.shared)),
        };
        self.shared.control(Outgoing::SynStream { stream: id, headers })?;
        reply.await.map_err(|_| Error::Closed)?;
        Ok(stream)
    }

    /// Says goodbye after all that was written before; the connection's future ends soon after.
    pub async fn close(&self) {
        // A connection that is over needs no goodbye.
        let _ = self.shared.data.send(Outgoing::Close).await;
    }
}

/// The streams that the peer opens.
pub struct Incoming(mpsc::Receiver<Stream>);

impl Incoming {
    /// The next stream; `None` when the connection is over.
    pub async fn next(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

/// Speaks SPDY over `io` for as long as the future runs: it ends when the peer has closed, or with an error. All
/// streams end with it.
pub fn start<S>(io: S, role: Role) -> (Connection, Incoming, impl Future<Output = Result<(), Error>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (data, data_queue) = mpsc::channel(DATA_QUEUE);
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
    let first = if role == Role::Client { 1 } else { 2 };
    let shared = Arc::new(Shared { state: Mutex::new(State::new(first)), data, control });
    let connection = Connection { shared: Arc::clone(&shared) };
    let (reader, writer) = tokio::io::split(io);
    let reading = Receiver {
        io: reader,
        unpacker: Unpacker::new(),
        budget: Arc::new(Semaphore::new(BUDGET)),
        accept: Some(accept),
        shared: Arc::clone(&shared),
        announced: false,
        first,
    };
    let writing = Transmitter {
        io: BufWriter::with_capacity(PIECE, writer),
        packer: Packer::new(),
        shared: Arc::clone(&shared),
    };
    let run = run(role, shared, reading, writing, data_queue, control_queue);
    (connection, Incoming(accepted), run)
}

async fn run<S: AsyncRead + AsyncWrite>(
    role: Role,
    shared: Arc<Shared>,
    mut reading: Receiver<S>,
    mut writing: Transmitter<S>,
    data: mpsc::Receiver<Outgoing>,
    control: mpsc::Receiver<Outgoing>,
) -> Result<(), Error> {
    if role == Role::Client {
        reading.announce()?;
    }
    let pings = async {
        let mut every = interval(PING_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut id = if role == Role::Client { 1 } else { 2 };
        every.tick().await;
        loop {
            every.tick().await;
            // A queue that is full keeps the connection alive without a ping.
            let _ = shared.control(Outgoing::Control(Control::Ping(id)));
            id = if id > u32::MAX - 2 { id % 2 + 2 } else { id + 2 };
        }
    };
    let outcome = tokio::select! {
        outcome = reading.run() => outcome,
        outcome = writing.run(data, control) => match outcome {
            // We said goodbye: the peer closes first, so that nothing sent is lost to a reset.
            Ok(()) => {
                let _ = timeout(LINGER, tokio::io::copy(&mut reading.io, &mut tokio::io::sink())).await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = pings => Ok(()),
    };
    shared.state.lock().close();
    if let Err(Error::Frame(_) | Error::Headers(_) | Error::Protocol(_)) = &outcome {
        let last = shared.state.lock().last();
        let goodbye = Control::GoAway { last, status: goaway::PROTOCOL_ERROR };
        // The peer may be gone already.
        let _ = timeout(LINGER, writing.finish(&goodbye)).await;
    }
    outcome
}

struct Transmitter<S> {
    io: BufWriter<WriteHalf<S>>,
    packer: Packer,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite> Transmitter<S> {
    /// Writes until it is told to close.
    async fn run(
        &mut self,
        mut data: mpsc::Receiver<Outgoing>,
        mut control: mpsc::Receiver<Outgoing>,
    ) -> Result<(), Error> {
        loop {
            // Answers first: they make room at the other side. A stream's SYN_STREAM so goes before its data.
            let next = control.try_recv().or_else(|_| data.try_recv());
            let frame = match next {
                Ok(frame) => frame,
                Err(_) => {
                    self.io.flush().await?;
                    tokio::select! {
                        biased;
                        Some(frame) = control.recv() => frame,
                        Some(frame) = data.recv() => frame,
                        else => return Ok(()),
                    }
                }
            };
            match frame {
                Outgoing::Control(control) => self.write(&control).await?,
                Outgoing::SynStream { stream, headers } => {
                    let block = self.packer.pack(&headers).into();
                    self.write(&Control::SynStream { stream, fin: false, unidirectional: false, block })
                        .await?;
                }
                Outgoing::SynReply { stream } => {
                    let block = self.packer.pack(&Headers::default()).into();
                    self.write(&Control::SynReply { stream, fin: false, block }).await?;
                }
                Outgoing::Data { stream, fin, bytes } => {
                    // What a reset has overtaken is not sent.
                    if self.shared.state.lock().is_open(stream) {
                        self.io.write_all(&Head::data(stream, fin, bytes.len())).await?;
                        self.io.write_all(&bytes).await?;
                    }
                    if fin {
                        self.shared.state.lock().local_done(stream);
                    }
                }
                Outgoing::Close => {
                    let last = self.shared.state.lock().last();
                    return self.finish(&Control::GoAway { last, status: goaway::OK }).await;
                }
            }
        }
    }

    async fn write(&mut self, control: &Control) -> Result<(), Error> {
        let mut bytes = BytesMut::new();
        control.encode(&mut bytes);
        Ok(self.io.write_all(&bytes).await?)
    }

    async fn finish(&mut self, goodbye: &Control) -> Result<(), Error> {
        self.write(goodbye).await?;
        Ok(self.io.shutdown().await?)
    }
}

struct Receiver<S> {
    io: ReadHalf<S>,
    unpacker: Unpacker,
    budget: Arc<Semaphore>,
    /// Gone once the peer has said goodbye.
    accept: Option<mpsc::Sender<Stream>>,
    shared: Arc<Shared>,
    /// Whether we have announced our windows.
    announced: bool,
    /// Our first stream, for the parity of what is ours.
    first: u32,
}

impl<S: AsyncRead + AsyncWrite> Receiver<S> {
    /// Reads until the peer closes.
    async fn run(&mut self) -> Result<(), Error> {
        loop {
            let mut head = [0; HEAD];
            // The end of the connection is one between frames.
            let read = timeout(IDLE, self.io.read(&mut head)).await.map_err(|_| Error::Idle)??;
            if read == 0 {
                return Ok(());
            }
            self.io.read_exact(&mut head[read..]).await?;
            match Head::parse(head)? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Control { kind, flags, length } => {
                    let mut payload = BytesMut::zeroed(length);
                    self.io.read_exact(&mut payload).await?;
                    self.control(Control::parse(kind, flags, payload.freeze())?)?;
                }
            }
        }
    }

    async fn data(&mut self, stream: u32, fin: bool, mut left: usize) -> Result<(), Error> {
        while left > 0 {
            let length = left.min(PIECE);
            let permits = u32::try_from(length).unwrap_or(u32::MAX);
            let permit = Arc::clone(&self.budget).acquire_many_owned(permits).await;
            let permit = permit.expect("the budget must not be closed");
            let mut bytes = BytesMut::zeroed(length);
            self.io.read_exact(&mut bytes).await?;
            left -= length;
            let inbox = self.shared.state.lock().deliver(stream, length);
            match inbox {
                Ok(Some(inbox)) => {
                    if inbox.send(Piece { bytes: bytes.freeze(), permit }).await.is_err() {
                        self.shared.consumed(stream, length);
                    }
                }
                Ok(None) => self.shared.consumed(stream, length),
                Err(status) => self.reset(stream, status)?,
            }
        }
        if fin {
            self.shared.state.lock().remote_done(stream);
        }
        Ok(())
    }

    fn reset(&self, stream: u32, status: u32) -> Result<(), Error> {
        self.shared.state.lock().reset(stream);
        self.shared.control(Outgoing::Control(Control::Reset { stream, status }))
    }

    /// Tells the peer that we take part in flow control, and what it may send.
    fn announce(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.announced, true) {
            return Ok(());
        }
        let settings = Control::Settings(vec![(INITIAL_WINDOW_SIZE, STREAM_WINDOW)]);
        self.shared.control(Outgoing::Control(settings))?;
        let grant = Control::WindowUpdate { stream: 0, delta: SESSION_GRANT };
        self.shared.control(Outgoing::Control(grant))
    }

    fn control(&mut self, frame: Control) -> Result<(), Error> {
        match frame {
            Control::SynStream { stream, fin, unidirectional, block } => {
                // Read even if refused: the next block builds on it.
                let headers = self.unpacker.unpack(&block)?;
                self.syn_stream(stream, fin, unidirectional, headers)?;
            }
            Control::SynReply { stream, fin, block } => {
                self.unpacker.unpack(&block)?;
                let mut state = self.shared.state.lock();
                state.replied(stream);
                if fin {
                    state.remote_done(stream);
                }
            }
            Control::Headers { stream, fin, block } => {
                self.unpacker.unpack(&block)?;
                if fin {
                    self.shared.state.lock().remote_done(stream);
                }
            }
            Control::Reset { stream, .. } => {
                self.shared.state.lock().reset(stream);
            }
            Control::Settings(entries) => {
                for (_, window) in entries.into_iter().filter(|(id, _)| *id == INITIAL_WINDOW_SIZE) {
                    self.shared.state.lock().announce(window);
                    self.announce()?;
                }
            }
            Control::Ping(id) => {
                if id % 2 != self.first % 2 {
                    // Who has not read 256 answers has no use for this one.
                    let _ = self.shared.control(Outgoing::Control(Control::Ping(id)));
                }
            }
            Control::GoAway { .. } => {
                self.shared.state.lock().go_away();
                self.accept = None;
            }
            Control::WindowUpdate { stream, delta } => {
                let granted = self.shared.state.lock().grant(stream, delta);
                match granted {
                    Ok(()) => {}
                    Err(true) => self.reset(stream, reset::FLOW_CONTROL_ERROR)?,
                    Err(false) => return Err(Error::Protocol("the connection's window is too large")),
                }
            }
            Control::Unknown => {}
        }
        Ok(())
    }

    fn syn_stream(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), Error> {
        let opened = self.shared.state.lock().accept(id, fin, unidirectional)?;
        let Opened { inbox, ending, .. } = match opened {
            Ok(opened) => opened,
            Err(status) => return self.reset(id, status),
        };
        let stream = Stream {
            id,
            headers,
            reader: Reader::new(id, inbox, ending, Arc::clone(&self.shared)),
            writer: Writer::new(id, Arc::clone(&self.shared)),
        };
        match self.accept.as_ref().map(|accept| accept.try_send(stream)) {
            Some(Ok(())) => Ok(()),
            // Dropping the stream has reset it.
            Some(Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_))) | None => {
                Ok(())
            }
        }
    }
}
