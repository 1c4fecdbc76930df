//! The one thread that writes.
//!
//! It takes all waiting writes at once, checks each against the *pending* head (the published state and the
//! earlier writes of the same batch), gives out revisions, makes the batch durable with one write and one sync,
//! publishes it, and only then answers. While it syncs, the next batch gathers: batches grow by themselves
//! under load, and a lone write costs one sync.
//!
//! A refusal that rests on a pending write is held back until that write is durable, for the caller may act on
//! it. If the batch fails, everything that rests on it fails with it. After a failed sync nobody knows what the
//! disk holds (the kernel may have dropped the pages and forgotten the error), so the log is poisoned: no later
//! call succeeds, and the process is expected to end and recover from the files.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Shared,
    checkpoint::NO_VALUE,
    housekeeper::Job,
    io::is_full,
    log::{AppendError, Log, Room},
    record::{self, Operation, Record},
    state::Snapshot,
    ttl::{Clock, Expiries},
};
use crate::store::{Entry, Event, Revision, StoreError};

/// Values of one batch: bounds the time until a write in it is answered, and the memory for the frame.
const BATCH_BYTES: usize = 4 << 20;
/// When the disk is full, how long until the store tries again by itself to delete expired entries and to
/// write a checkpoint.
const RETRY: Duration = Duration::from_secs(1);
/// The writer looks at least so often whether an entry's time is over.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A write that waits for its turn.
pub(crate) struct Request {
    pub(crate) key: Arc<str>,
    pub(crate) change: Change,
    /// Answered when the write is durable, or refused.
    pub(crate) answer: oneshot::Sender<Result<Revision, StoreError>>,
    /// The request's place in the queue, given back with it.
    pub(crate) _place: Option<OwnedSemaphorePermit>,
}

/// What a request wants.
pub(crate) enum Change {
    Create {
        value: Bytes,
        ttl_millis: u64,
    },
    Update {
        value: Bytes,
        ttl_millis: u64,
        expected: Revision,
    },
    Delete {
        expected: Revision,
    },
    /// Moves the revision to at least this one and ends the history.
    Advance {
        to: Revision,
    },
    /// Forgets the history before this revision.
    Compact {
        to: Revision,
    },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Create { value, .. } | Self::Update { value, .. } => value.len(),
            Self::Delete { .. } | Self::Advance { .. } | Self::Compact { .. } => 0,
        }
    }
}

/// Where requests wait for the writer. Bounded by the semaphore that gives out the places.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    closed: bool,
}

impl Queue {
    /// Adds a request; gives it back if the store is closed.
    pub(crate) fn push(&self, request: Request) -> Result<(), Request> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(request);
        }
        waiting.requests.push(request);
        let first = waiting.requests.len() == 1;
        drop(waiting);
        if first {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Lets nobody in any more; what waits is still written.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrival.notify_one();
    }

    /// Waits for requests, at most until `deadline`, and takes all. `None` when closed and empty.
    fn take(&self, deadline: Option<Instant>) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() {
            if waiting.closed {
                return None;
            }
            match deadline {
                None => self.arrival.wait(&mut waiting),
                Some(deadline) => {
                    if self.arrival.wait_until(&mut waiting, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        Some(std::mem::take(&mut waiting.requests))
    }
}

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    /// The published state; nobody else changes it.
    pub(crate) head: Snapshot,
    pub(crate) expiries: Expiries,
    pub(crate) clock: Clock,
    pub(crate) housekeeper: SyncSender<Job>,
    /// Reused for every frame.
    pub(crate) frame: Vec<u8>,
    /// The disk was full: nothing that nobody asked for is written before this moment.
    pub(crate) retry_after: Option<Instant>,
}

/// The writes of one batch, before they are durable.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    /// The keys that the batch changes, as they will be.
    pending: HashMap<Arc<str>, Option<Arc<Entry>>>,
    /// What is answered once the batch is durable.
    answers: Vec<Answer>,
}

struct Answer {
    sender: oneshot::Sender<Result<Revision, StoreError>>,
    result: Result<Revision, StoreError>,
    _place: Option<OwnedSemaphorePermit>,
}

/// Why a batch did not become durable.
enum Failure {
    /// It did not happen; the next one may.
    NoSpace,
    /// Unknown; nothing may happen any more.
    Poisoned(String),
}

impl Writer {
    /// Writes until the queue is closed.
    pub(crate) fn run(mut self) {
        while let Some(requests) = self.shared.queue.take(self.next_expiry()) {
            let mut requests = requests.into_iter().peekable();
            loop {
                let batch = self.gather(&mut requests);
                self.commit(batch);
                if requests.peek().is_none() {
                    break;
                }
            }
        }
        let closed = StoreError::Unavailable("it was closed".into());
        self.shared.hub.lock().end(&closed);
    }

    fn next_expiry(&self) -> Option<Instant> {
        let due = self.expiries.next()?;
        // Who waits for one that ends in the far future may look again before: not every time can be added.
        let left = Duration::from_millis(due.saturating_sub(self.clock.now()));
        let at = Instant::now() + left.min(LONGEST_WAIT);
        Some(self.retry_after.map_or(at, |after| at.max(after)))
    }

    /// Checks requests until the batch is full; those after that stay.
    fn gather(&mut self, requests: &mut std::iter::Peekable<std::vec::IntoIter<Request>>) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(request) = requests.next_if(|next| {
            // A record that moves the revision stands alone in its frame.
            let alone = matches!(next.change, Change::Advance { .. });
            batch.records.is_empty() || (bytes + next.change.bytes() <= BATCH_BYTES && !alone)
        }) {
            bytes += request.change.bytes() + request.key.len();
            match request.change {
                Change::Advance { to } => {
                    self.advance(&mut batch, to, request.answer);
                    return batch;
                }
                Change::Compact { to } => {
                    let _ = request.answer.send(self.compact(to));
                }
                change => self.check(&mut batch, request.key, change, request.answer, request._place),
            }
        }
        self.expire(&mut batch);
        batch
    }

    /// Decides one request against the pending head.
    fn check(
        &self,
        batch: &mut Batch,
        key: Arc<str>,
        change: Change,
        sender: oneshot::Sender<Result<Revision, StoreError>>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let (current, rests_on_batch) = self.current(batch, &key);
        let found = current.as_ref().map_or(0, |entry| entry.revision);
        let decision = match change {
            Change::Create { value, ttl_millis } => match &current {
                None => Ok((Operation::Put, value, ttl_millis)),
                Some(taken) => Err(StoreError::AlreadyExists(Arc::clone(taken))),
            },
            Change::Update { value, ttl_millis, expected } if found == expected && found != 0 => {
                Ok((Operation::Put, value, ttl_millis))
            }
            Change::Delete { expected } if found == expected && found != 0 => {
                Ok((Operation::Delete, NO_VALUE, 0))
            }
            Change::Update { .. } | Change::Delete { .. } => {
                Err(StoreError::Conflict { key: Arc::clone(&key), current: current.clone() })
            }
            Change::Advance { .. } | Change::Compact { .. } => unreachable!("these change no key"),
        };
        let result = match decision {
            Ok((operation, value, ttl_millis)) => {
                Ok(self.add(batch, Record { operation, key, value, ttl_millis, previous: found }))
            }
            Err(refusal) if !rests_on_batch => {
                // Rests on durable state only: there is nothing to wait for.
                let _ = sender.send(Err(refusal));
                return;
            }
            Err(refusal) => Err(refusal),
        };
        batch.answers.push(Answer { sender, result, _place: place });
    }

    /// What a key holds when the batch so far has happened, and whether the batch decides that.
    fn current(&self, batch: &Batch, key: &str) -> (Option<Arc<Entry>>, bool) {
        match batch.pending.get(key) {
            Some(pending) => (pending.clone(), true),
            None => (self.head.entries.get(key).cloned(), false),
        }
    }

    /// Puts a record into the batch; answers the revision that it gets.
    fn add(&self, batch: &mut Batch, record: Record) -> Revision {
        batch.records.push(record);
        let revision = self.head.revision + batch.records.len() as Revision;
        let record = batch.records.last().expect("a record was pushed");
        let entry = (record.operation == Operation::Put)
            .then(|| Arc::new(Entry { key: Arc::clone(&record.key), value: record.value.clone(), revision }));
        batch.pending.insert(Arc::clone(&record.key), entry);
        revision
    }

    /// Adds the deletions of the entries whose time is over.
    fn expire(&mut self, batch: &mut Batch) {
        if self.retry_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        self.retry_after = None;
        let now = self.clock.now();
        while let Some((_, revision, key)) = self.expiries.pop_due(now) {
            let (current, _) = self.current(batch, &key);
            if current.is_some_and(|entry| entry.revision == revision) {
                let operation = Operation::Delete;
                self.add(
                    batch,
                    Record { operation, key, value: NO_VALUE, ttl_millis: 0, previous: revision },
                );
            }
        }
    }

    fn advance(
        &self,
        batch: &mut Batch,
        to: Revision,
        sender: oneshot::Sender<Result<Revision, StoreError>>,
    ) {
        if to <= self.head.revision {
            let _ = sender.send(Ok(self.head.revision));
            return;
        }
        let operation = Operation::Advance;
        batch.records.push(Record { operation, key: "".into(), value: NO_VALUE, ttl_millis: 0, previous: 0 });
        batch.answers.push(Answer { sender, result: Ok(to), _place: None });
    }

    fn compact(&mut self, to: Revision) -> Result<Revision, StoreError> {
        let current = self.head.revision;
        if to > current {
            return Err(StoreError::Future { asked: to, current });
        }
        let mut hub = self.shared.hub.lock();
        let expiries = &mut self.head.expiries;
        hub.history.compact(to, |revision| {
            expiries.remove_mut(&revision);
        });
        drop(hub);
        self.ask_for_checkpoint();
        Ok(to)
    }

    /// Makes a batch durable, publishes it and answers.
    fn commit(&mut self, batch: Batch) {
        if batch.records.is_empty() {
            return;
        }
        let first = match (&batch.records[..], &batch.answers[..]) {
            ([Record { operation: Operation::Advance, .. }], [Answer { result: Ok(to), .. }]) => *to,
            _ => self.head.revision + 1,
        };
        // Time in the log never goes back, so that ages in the history ascend.
        let written_at = self.clock.now();
        let outcome = match self.shared.poisoned() {
            Some(why) => Err(Failure::Poisoned(why)),
            None => self.make_durable(&batch, first, written_at),
        };
        match outcome {
            Ok(()) => {
                self.publish(&batch.records, first, written_at);
                for answer in batch.answers {
                    let _ = answer.sender.send(answer.result);
                }
            }
            Err(failure) => self.fail(batch, &failure),
        }
    }

    fn make_durable(&mut self, batch: &Batch, first: Revision, written_at: u64) -> Result<(), Failure> {
        let payload: usize = batch.records.iter().map(Record::encoded_len).sum();
        match self.log.reserve(record::frame_len(payload), self.head.revision + 1) {
            Ok(Room::InNewSegment) => self.ask_for_checkpoint(),
            Ok(Room::InThisSegment) => {}
            Err(AppendError::Refused(error)) if is_full(&error) => return Err(Failure::NoSpace),
            Err(AppendError::Refused(error) | AppendError::Failed(error)) => {
                return Err(Failure::Poisoned(format!("a new log segment cannot be made: {error}")));
            }
        }
        record::encode_frame(&mut self.frame, first, written_at, &batch.records, self.log.salt());
        let begun = Instant::now();
        self.log
            .append(&self.frame)
            .map_err(|error| Failure::Poisoned(format!("the log cannot be written: {error}")))?;
        if self.log.wants_next() {
            self.shared.ask(&self.housekeeper, Job::Prepare);
        }
        self.shared.counters.batch(batch.records.len(), self.frame.len(), begun.elapsed());
        if self.frame.capacity() > 2 * BATCH_BYTES {
            self.frame = Vec::new();
        }
        Ok(())
    }

    /// Shows a durable batch to readers and watchers.
    fn publish(&mut self, records: &[Record], first: Revision, written_at: u64) {
        let mut events: Vec<Arc<Event>> = Vec::with_capacity(records.len());
        for (revision, record) in (first..).zip(records) {
            events.extend(self.head.apply(revision, written_at, record).map(Arc::new));
            if record.ttl_millis > 0 {
                let at = written_at.saturating_add(record.ttl_millis);
                self.expiries.push(at, revision, Arc::clone(&record.key));
            }
        }
        let mut hub = self.shared.hub.lock();
        for event in &events {
            hub.history.push(Arc::clone(event), written_at);
        }
        let expiries = &mut self.head.expiries;
        let mut forgotten = |revision: Revision| {
            expiries.remove_mut(&revision);
        };
        if events.is_empty() {
            // The revision was moved: there is no history that leads here.
            hub.history.compact(first, &mut forgotten);
        }
        hub.history.trim(written_at, &mut forgotten);
        self.shared.snapshot.store(Arc::new(self.head.clone()));
        hub.publish(&events, self.head.revision);
        drop(hub);
        self.shared.revision.send_replace(self.head.revision);
        let entries = &self.head.entries;
        self.expiries.tidy(self.head.expiries.size(), |key, revision| {
            entries.get(key).is_some_and(|entry| entry.revision == revision)
        });
    }

    /// Answers a batch that did not become durable.
    fn fail(&mut self, batch: Batch, failure: &Failure) {
        let error = match failure {
            Failure::NoSpace => {
                if self.retry_after.is_none_or(|after| after <= Instant::now()) {
                    self.retry_after = Some(Instant::now() + RETRY);
                    self.ask_for_checkpoint();
                }
                StoreError::NoSpace
            }
            Failure::Poisoned(why) => {
                self.shared.poison(why);
                StoreError::Unavailable(why.clone())
            }
        };
        for record in batch.records {
            // An expired entry that could not be deleted is due again.
            if let Some(at) = self.head.expiries.get(&record.previous).copied()
                && at <= self.clock.now()
            {
                self.expiries.push(at, record.previous, record.key);
            }
        }
        for answer in batch.answers {
            let _ = answer.sender.send(Err(error.clone()));
        }
    }

    /// Has the log's old part replaced by a checkpoint once that part is the larger one.
    fn ask_for_checkpoint(&self) {
        let floor = self.shared.hub.lock().history.floor();
        let garbage = self.shared.segments.bytes_through(floor);
        if garbage > self.shared.checkpoint_bytes.max(self.head.bytes) {
            self.shared.ask(&self.housekeeper, Job::Checkpoint);
        }
    }
}
