//! What the two loops of a connection and its streams share: who is open, and how much may be sent. No IO.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::{Error, frame::reset};

/// A stream's window before anybody has said otherwise (draft 3.1, 2.6.8).
const DEFAULT_WINDOW: i64 = 64 << 10;
/// No window may grow beyond this.
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// What we grant to each stream of a peer that takes part in flow control.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Streams that may be open at once: port-forward takes two for each connection.
const MAX_STREAMS: usize = 1000;

/// A piece of a data frame, with its share of the connection's memory.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// How a stream's incoming side ended, told past its queue.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    finished: AtomicBool,
}

impl Ending {
    /// Whether the peer said that it is done, rather than being cut off.
    pub(crate) fn is_clean(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }
}

struct Entry {
    /// What may be sent: written by grants and by sending.
    credit: i64,
    /// Who waits for credit.
    waker: Option<Waker>,
    /// Where data goes; gone once the peer has finished.
    inbox: Option<mpsc::Sender<Piece>>,
    ending: Arc<Ending>,
    /// Who waits for the peer's reply to a stream of ours.
    reply: Option<oneshot::Sender<()>>,
    /// Whether our side is finished.
    local_done: bool,
    /// What the peer may still send, if it takes part in flow control.
    granted: i64,
    /// What was consumed and not granted anew yet.
    consumed: u32,
}

/// What a new stream starts with.
pub(crate) struct Opened {
    pub(crate) inbox: mpsc::Receiver<Piece>,
    pub(crate) ending: Arc<Ending>,
    pub(crate) reply: oneshot::Receiver<()>,
}

/// Pieces that wait for one stream's reader. Their bytes are bounded by the connection's budget.
const INBOX: usize = 64;

/// The state of one connection; always behind one short lock.
pub(crate) struct State {
    streams: HashMap<u32, Entry>,
    /// Whether the peer grants windows: it has announced one.
    flow: bool,
    /// What may be sent on all streams together.
    credit: i64,
    /// What a new stream may send at first.
    initial: i64,
    /// What was consumed on all streams and not granted anew yet.
    consumed: u32,
    /// The newest stream of the peer.
    last: u32,
    next: u32,
    closed: bool,
    /// Whether the peer takes no more streams.
    gone_away: bool,
}

impl State {
    /// `first` is the first stream of ours: 1 for a client, 2 for a server.
    pub(crate) fn new(first: u32) -> Self {
        Self {
            streams: HashMap::new(),
            flow: false,
            credit: DEFAULT_WINDOW,
            initial: DEFAULT_WINDOW,
            consumed: 0,
            last: 0,
            next: first,
            closed: false,
            gone_away: false,
        }
    }

    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    fn add(&mut self, stream: u32, fin: bool, local_done: bool) -> Opened {
        // Bounded: see `INBOX`.
        let (sender, inbox) = mpsc::channel(INBOX);
        let (reply_sender, reply) = oneshot::channel();
        let ending = Arc::new(Ending::default());
        ending.finished.store(fin, Ordering::Release);
        let entry = Entry {
            credit: self.initial,
            waker: None,
            inbox: (!fin).then_some(sender),
            ending: Arc::clone(&ending),
            reply: Some(reply_sender),
            local_done,
            granted: i64::from(STREAM_WINDOW),
            consumed: 0,
        };
        self.streams.insert(stream, entry);
        Opened { inbox, ending, reply }
    }

    /// A stream of ours.
    pub(crate) fn open(&mut self) -> Result<(u32, Opened), Error> {
        if self.closed || self.gone_away || self.next > i32::MAX as u32 {
            return Err(Error::Closed);
        }
        let stream = self.next;
        self.next += 2;
        Ok((stream, self.add(stream, false, false)))
    }

    /// A stream of the peer's; or the status with which it is to be reset.
    pub(crate) fn accept(
        &mut self,
        stream: u32,
        fin: bool,
        unidirectional: bool,
    ) -> Result<Result<Opened, u32>, Error> {
        if stream % 2 == self.next % 2 || stream <= self.last {
            return Err(Error::Protocol("a stream's identifier is used up or not the peer's to give"));
        }
        self.last = stream;
        if self.streams.len() >= MAX_STREAMS {
            return Ok(Err(reset::REFUSED_STREAM));
        }
        Ok(Ok(self.add(stream, fin, unidirectional)))
    }

    pub(crate) fn replied(&mut self, stream: u32) {
        if let Some(reply) = self.streams.get_mut(&stream).and_then(|entry| entry.reply.take()) {
            // Nobody waits any more if the opener gave up.
            let _ = reply.send(());
        }
    }

    /// The peer has finished a stream.
    pub(crate) fn remote_done(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.ending.finished.store(true, Ordering::Release);
        entry.inbox = None;
        if entry.local_done {
            self.streams.remove(&stream);
        }
    }

    /// We have finished a stream.
    pub(crate) fn local_done(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.local_done = true;
        if entry.inbox.is_none() {
            self.streams.remove(&stream);
        }
    }

    /// A stream is over at once. Whether it was open.
    pub(crate) fn reset(&mut self, stream: u32) -> bool {
        let Some(entry) = self.streams.remove(&stream) else { return false };
        if let Some(waker) = entry.waker {
            waker.wake();
        }
        true
    }

    pub(crate) fn is_open(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    /// The connection is over: every stream learns of it.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for (_, entry) in self.streams.drain() {
            if let Some(waker) = entry.waker {
                waker.wake();
            }
        }
    }

    pub(crate) fn go_away(&mut self) {
        self.gone_away = true;
    }

    /// Where a piece of that length goes; nowhere if the stream is gone or nobody reads it. An overrun window is an
    /// error, if the peer knows windows.
    pub(crate) fn deliver(&mut self, stream: u32, length: usize) -> Result<Option<mpsc::Sender<Piece>>, u32> {
        let flow = self.flow;
        let Some(entry) = self.streams.get_mut(&stream) else {
            // Of an old stream there may be data under way; a stream that never was is an error.
            let known = if stream % 2 == self.next % 2 { stream < self.next } else { stream <= self.last };
            return if known { Ok(None) } else { Err(reset::INVALID_STREAM) };
        };
        if flow {
            entry.granted -= i64::try_from(length).unwrap_or(i64::MAX);
            if entry.granted < 0 {
                return Err(reset::FLOW_CONTROL_ERROR);
            }
        }
        Ok(entry.inbox.clone())
    }

    /// Bytes were taken out of a stream. Answers the grants to send: stream (0 for the connection) and bytes.
    pub(crate) fn consume(&mut self, stream: u32, length: usize) -> impl Iterator<Item = (u32, u32)> + use<> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut grants = [None; 2];
        if self.flow {
            self.consumed = self.consumed.saturating_add(length);
            if self.consumed >= STREAM_WINDOW / 2 {
                grants[0] = Some((0, std::mem::take(&mut self.consumed)));
            }
            if let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.inbox.is_some()) {
                entry.consumed = entry.consumed.saturating_add(length);
                if entry.consumed >= STREAM_WINDOW / 2 {
                    let delta = std::mem::take(&mut entry.consumed);
                    entry.granted += i64::from(delta);
                    grants[1] = Some((stream, delta));
                }
            }
        }
        grants.into_iter().flatten()
    }

    /// How much of `wanted` may be sent now. Waits, or fails if the stream is over.
    pub(crate) fn poll_send(
        &mut self,
        stream: u32,
        wanted: usize,
        waker: &Waker,
    ) -> Poll<Result<usize, Error>> {
        let (flow, all) = (self.flow, self.credit);
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| !entry.local_done) else {
            return Poll::Ready(Err(Error::Closed));
        };
        if !flow {
            return Poll::Ready(Ok(wanted));
        }
        let may = entry.credit.min(all);
        if may <= 0 {
            entry.waker = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(wanted.min(usize::try_from(may).unwrap_or(usize::MAX))))
    }

    /// That much is being sent. Counted from the first byte on: a peer that announces its windows late has
    /// counted all the same.
    pub(crate) fn sent(&mut self, stream: u32, length: usize) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        self.credit -= length;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.credit -= length;
        }
    }

    /// The peer announces the window of streams. Whether it is the first time.
    pub(crate) fn announce(&mut self, window: u32) -> bool {
        let change = i64::from(window).min(MAX_WINDOW) - self.initial;
        self.initial += change;
        for entry in self.streams.values_mut() {
            entry.credit += change;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
        !std::mem::replace(&mut self.flow, true)
    }

    /// The peer grants more. An error if a window becomes too large; `true` means a stream's, to be reset.
    pub(crate) fn grant(&mut self, stream: u32, delta: u32) -> Result<(), bool> {
        let delta = i64::from(delta);
        if stream != 0 {
            let Some(entry) = self.streams.get_mut(&stream) else { return Ok(()) };
            entry.credit += delta;
            if entry.credit > MAX_WINDOW {
                return Err(true);
            }
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
            return Ok(());
        }
        self.credit += delta;
        if self.credit > MAX_WINDOW {
            return Err(false);
        }
        for entry in self.streams.values_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(state: &mut State, stream: u32, wanted: usize) -> Option<usize> {
        match state.poll_send(stream, wanted, Waker::noop()) {
            Poll::Ready(result) => Some(result.unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn windows_bind_once_the_peer_announces_them() {
        let mut state = State::new(1);
        let (one, _kept) = state.open().unwrap();
        let (two, _kept_too) = state.open().unwrap();
        assert_eq!((one, two), (1, 3));
        assert_eq!(
            may(&mut state, one, 1 << 20),
            Some(1 << 20),
            "a peer that grants nothing expects no waiting"
        );
        state.sent(one, 60 << 10);
        assert!(state.announce(64 << 10), "the first announcement");
        assert!(!state.announce(64 << 10));
        assert_eq!(may(&mut state, one, 1 << 20), Some(4 << 10), "what was sent before counts");
        state.sent(one, 4 << 10);
        assert_eq!(may(&mut state, one, 1), None);
        state.grant(one, 100).unwrap();
        assert_eq!(may(&mut state, one, 1), None, "the connection's window is spent");
        state.grant(0, 50).unwrap();
        assert_eq!((may(&mut state, one, 500), may(&mut state, two, 500)), (Some(50), Some(50)));
        // A smaller window may leave less than nothing.
        state.announce(0);
        assert_eq!(may(&mut state, two, 1), None);
        assert_eq!(state.grant(0, u32::MAX >> 1), Err(false));
        state.announce(64 << 10);
        assert_eq!(state.grant(two, u32::MAX >> 1), Err(true));
    }

    #[test]
    fn what_is_consumed_is_granted_in_halves_of_a_window() {
        let mut state = State::new(2);
        let Ok(Ok(_kept)) = state.accept(1, false, false) else { panic!("it must be taken") };
        let half = (STREAM_WINDOW / 2) as usize;
        assert_eq!(state.consume(1, half).count(), 0, "who grants nothing is granted nothing");
        state.announce(1);
        assert_eq!(state.consume(1, half - 1).count(), 0);
        assert_eq!(state.consume(1, 1).collect::<Vec<_>>(), [(0, half as u32), (1, half as u32)]);
        assert!(state.deliver(1, 3 * half).is_ok(), "a window and the half that was granted anew");
        assert!(matches!(state.deliver(1, 1), Err(reset::FLOW_CONTROL_ERROR)));
    }

    #[test]
    fn identifiers_go_up_and_belong_to_their_side() {
        let mut state = State::new(2);
        assert!(state.accept(2, false, false).is_err(), "an even one is a server's");
        assert!(matches!(state.accept(5, false, false), Ok(Ok(_))));
        assert!(state.accept(3, false, false).is_err());
        assert!(matches!(state.deliver(3, 1), Ok(None)), "an old stream's data is dropped");
        assert!(matches!(state.deliver(7, 1), Err(reset::INVALID_STREAM)));
    }

    #[test]
    fn a_stream_is_over_when_both_sides_are() {
        let mut state = State::new(2);
        let Ok(Ok(opened)) = state.accept(1, false, false) else { panic!("it must be taken") };
        state.local_done(1);
        assert!(state.is_open(1) && !opened.ending.is_clean());
        state.remote_done(1);
        assert!(!state.is_open(1) && opened.ending.is_clean());
        for stream in 0..MAX_STREAMS as u32 {
            assert!(matches!(state.accept(2 * stream + 3, false, false), Ok(Ok(_))));
        }
        let many = state.accept(9001, false, false);
        assert!(matches!(many, Ok(Err(reset::REFUSED_STREAM))));
    }
}
