//! The embedded store: a segmented log of ours, all live state in memory, group commit.
//!
//! ```text
//! caller ─ queue ─► writer ─ one write, one sync ─► log
//!    ▲                │
//!    └── answer ──────┼─ publish ─► snapshot (reads, lists) · history and watchers
//!                     └─ ask ─────► housekeeper: next segment, checkpoint, removal
//! ```
//!
//! A directory holds `store` (its identity), `lock`, segments `<sequence>.log` and at most one
//! `<revision>.checkpoint`. Opening reads the checkpoint and replays the log after it; see `recovery` for what
//! is cut off and what is refused. The revision can be moved forward at will (`raise_revision`), so a resource
//! version needs no stored offset here: a restored or migrated store just continues above what clients saw.

mod checkpoint;
mod error;
mod housekeeper;
pub mod io;
mod log;
mod offline;
mod record;
mod recovery;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod ttl;
mod watch;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch as watch_channel};
use tokio_util::sync::CancellationToken;

use self::{
    error::Context,
    housekeeper::{Asked, Job},
    log::{AppendError, Log, Segments},
    recovery::{Layout, Recovered},
    state::{History, Snapshot},
    stats::Counters,
    ttl::{Clock, Expiries, millis},
    watch::Hub,
    writer::{Change, Queue, Request, Writer},
};
pub use self::{
    error::{Damage, OpenError},
    io::{Io, RealIo},
    offline::{REVISION_BUMP, Repaired, Report, backup, repair, restore, verify},
    state::HistoryBounds,
    stats::Stats,
};
use crate::store::{
    At, Entry, FRESHNESS_WAIT, Got, ListOptions, Listing, MAX_VALUE_BYTES, Revision, Store, StoreError,
    WatchStream,
};

/// Held by the process that has the store open.
const LOCK: &str = "lock";

/// How an embedded store works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of the first segment: small, so that an empty store is there at once.
    pub first_segment_bytes: u64,
    /// A checkpoint is written when the log below the history is larger than this and than the live state.
    pub checkpoint_bytes: u64,
    /// What is kept for watches and for reads of past states.
    pub history: HistoryBounds,
    /// Writes that may wait at a time; more wait outside, in order of arrival.
    pub queue: usize,
    /// Events that a watcher may lag behind before it is ended.
    pub watcher_events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            first_segment_bytes: 1 << 20,
            checkpoint_bytes: 32 << 20,
            // kube-apiserver has etcd compacted every 5 minutes (`--etcd-compaction-interval`).
            history: HistoryBounds { age: Duration::from_secs(300), events: 100_000, bytes: 32 << 20 },
            queue: 4096,
            watcher_events: 65_536,
        }
    }
}

/// The store in a directory of this machine. Dropping it without [`EmbeddedStore::close`] waits for the batch
/// that is being written.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    watcher_events: usize,
    /// Joined once, by `close` or by drop.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Ends with the store.
    _lock: Box<dyn Send + Sync>,
}

/// What the store's threads and its callers share.
struct Shared {
    queue: Queue,
    /// The published state. Written by the writer, under the hub's lock.
    snapshot: ArcSwap<Snapshot>,
    /// History and watchers. The writer holds the lock while it publishes.
    hub: Mutex<Hub>,
    /// The published revision, for those who wait for one.
    revision: watch_channel::Sender<Revision>,
    segments: Arc<Segments>,
    checkpoint_bytes: u64,
    asked: Asked,
    counters: Counters,
    /// Why the log must not be used any more.
    poison: Mutex<Option<String>>,
    poisoned: CancellationToken,
}

impl Shared {
    fn poisoned(&self) -> Option<String> {
        if self.poisoned.is_cancelled() { self.poison.lock().clone() } else { None }
    }

    fn poison(&self, why: &str) {
        self.poison.lock().get_or_insert_with(|| why.to_owned());
        self.poisoned.cancel();
        tracing::error!(why, "the store cannot go on; restart the process to recover what is durable");
        self.hub.lock().end(&StoreError::Unavailable(why.to_owned()));
    }

    fn check(&self) -> Result<(), StoreError> {
        self.poisoned().map_or(Ok(()), |why| Err(StoreError::Unavailable(why)))
    }

    fn ask(&self, housekeeper: &SyncSender<Job>, job: Job) {
        if self.asked.begin(job) {
            match housekeeper.try_send(job) {
                Ok(()) => {}
                // Not lost: it is asked for again when it matters.
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.asked.end(job),
            }
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or makes one if the directory is missing or empty.
    pub fn open(dir: &Path, options: &Options, io: Arc<dyn Io>) -> Result<Self, OpenError> {
        io.create_dir(dir).context("create", dir)?;
        let lock = lock(&*io, dir)?;
        let mut layout = Layout::read(&*io, dir)?;
        if !layout.has_identity {
            create(&io, dir, &layout, options.first_segment_bytes)?;
            layout = Layout::read(&*io, dir)?;
        }
        for temporary in &layout.temporaries {
            let path = dir.join(temporary);
            io.remove(&path).context("remove", &path)?;
        }
        let clock = Clock::start(0);
        let recovered = recovery::read(&*io, dir, &layout, options.history, clock.now())?;
        let clock = Clock::start(recovered.last_written_at);
        let active = recovery::open_last(&*io, dir, &recovered.last)?;
        let Recovered { store_id, snapshot, history, sealed, .. } = recovered;
        for revision in recovered.old_checkpoints {
            let path = dir.join(checkpoint::checkpoint_name(revision));
            io.remove(&path).context("remove", &path)?;
        }
        let segments = Arc::new(Segments::new(io, dir, store_id, options.segment_bytes, sealed));
        let log = Log::new(Arc::clone(&segments), active);
        Self::start(segments, log, snapshot, history, clock, options, lock)
            .context("start the threads of the store in", dir)
    }

    fn start(
        segments: Arc<Segments>,
        log: Log,
        head: Snapshot,
        history: History,
        clock: Clock,
        options: &Options,
        lock: Box<dyn Send + Sync>,
    ) -> std::io::Result<Self> {
        let mut expiries = Expiries::default();
        for entry in head.entries.values().filter(|_| !head.expiries.is_empty()) {
            if let Some(at) = head.expiries.get(&entry.revision) {
                expiries.push(*at, entry.revision, Arc::clone(&entry.key));
            }
        }
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            snapshot: ArcSwap::from_pointee(head.clone()),
            hub: Mutex::new(Hub::new(history)),
            revision: watch_channel::Sender::new(head.revision),
            segments,
            checkpoint_bytes: options.checkpoint_bytes,
            asked: Asked::default(),
            counters: Counters::default(),
            poison: Mutex::new(None),
            poisoned: CancellationToken::new(),
        });
        // One place for each kind of job: each is asked for once at a time.
        let (housekeeper, jobs) = sync_channel(2);
        let writer = Writer {
            shared: Arc::clone(&shared),
            log,
            head,
            expiries,
            clock,
            housekeeper,
            frame: Vec::new(),
            retry_after: None,
        };
        let for_housekeeper = Arc::clone(&shared);
        // The housekeeper ends when the writer drops its end of the channel.
        let threads = vec![
            std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run())?,
            std::thread::Builder::new()
                .name("store-housekeeper".into())
                .spawn(move || housekeeper::run(&for_housekeeper, &jobs, clock))?,
        ];
        Ok(Self {
            shared,
            places: Arc::new(Semaphore::new(options.queue)),
            watcher_events: options.watcher_events,
            threads: Mutex::new(threads),
            _lock: lock,
        })
    }

    /// Writes what waits, ends all watches and the store's threads. Later calls answer Unavailable.
    pub async fn close(&self) {
        self.shared.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "failed to wait for the store's threads");
        }
    }

    /// Cancelled when a write or sync has failed for good: the process should end then, and recover what is
    /// durable when it is started again.
    #[must_use]
    pub fn poisoned(&self) -> CancellationToken {
        self.shared.poisoned.clone()
    }

    /// Moves the revision to at least `revision` and, if that moves it, ends the history, so that no client's
    /// older resource version means something else here.
    ///
    /// # Errors
    /// As any write.
    pub async fn raise_revision(&self, revision: Revision) -> Result<(), StoreError> {
        self.write("", Change::Advance { to: revision }).await.map(drop)
    }

    /// Writes the present state into a file that must not exist, as [`backup`] does.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<Revision, OpenError> {
        let (snapshot, segments) = (self.shared.snapshot.load_full(), Arc::clone(&self.shared.segments));
        let (revision, path) = (snapshot.revision, to.to_owned());
        tokio::task::spawn_blocking(move || {
            offline::write_backup(&snapshot, segments.store_id, &path, &*segments.io)
        })
        .await
        .map_err(std::io::Error::other)
        .context("write", to)??;
        Ok(revision)
    }

    /// When an entry ends, from now; `None` for one without a time to live.
    #[must_use]
    pub fn ttl_left(&self, entry: &Entry) -> Option<Duration> {
        let ends = self.shared.snapshot.load().expiries.get(&entry.revision).copied()?;
        Some(Duration::from_millis(ends.saturating_sub(Clock::start(0).now()).max(1)))
    }

    /// The oldest state that can still be read, and the revision after which a watch can still begin.
    #[must_use]
    pub fn oldest_revision(&self) -> Revision {
        self.shared.hub.lock().history.floor()
    }

    /// What the store is doing, for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let snapshot = self.shared.snapshot.load();
        let (sealed_segments, sealed_bytes) = self.shared.segments.totals();
        let hub = self.shared.hub.lock();
        self.shared.counters.stats(Stats {
            revision: snapshot.revision,
            oldest_revision: hub.history.floor(),
            entries: snapshot.entries.size(),
            live_bytes: snapshot.bytes,
            watchers: hub.watchers(),
            sealed_segments,
            sealed_bytes,
            ..Stats::default()
        })
    }

    /// Hands a change to the writer and waits for its answer.
    async fn write(&self, key: &str, change: Change) -> Result<Revision, StoreError> {
        self.shared.check()?;
        let closed = || StoreError::Unavailable("it was closed".into());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let request = Request { key: key.into(), change, answer, _place: Some(place) };
        self.shared.queue.push(request).map_err(|_| closed())?;
        answered.await.map_err(|_| StoreError::Unavailable("its writer has ended".into()))?
    }

    /// A state as fresh as asked for.
    async fn state(&self, at: At) -> Result<Arc<Snapshot>, StoreError> {
        self.shared.check()?;
        match at {
            // Published before it is acknowledged, so the newest is fresh enough.
            At::Latest | At::Any => Ok(self.shared.snapshot.load_full()),
            At::NotOlderThan(asked) => {
                self.arrival(asked).await?;
                Ok(self.shared.snapshot.load_full())
            }
            At::Exact(asked) => {
                self.arrival(asked).await?;
                self.past_state(asked)
            }
        }
    }

    /// Waits for a revision, for a while.
    async fn arrival(&self, asked: Revision) -> Result<(), StoreError> {
        let mut revision = self.shared.revision.subscribe();
        let arrived = revision.wait_for(|current| *current >= asked);
        if tokio::time::timeout(FRESHNESS_WAIT, arrived).await.is_err() {
            return Err(StoreError::Future { asked, current: self.shared.snapshot.load().revision });
        }
        self.shared.check()
    }

    fn past_state(&self, asked: Revision) -> Result<Arc<Snapshot>, StoreError> {
        let hub = self.shared.hub.lock();
        let present = self.shared.snapshot.load_full();
        let (oldest, current) = (hub.history.floor(), present.revision);
        if asked < oldest {
            return Err(StoreError::Compacted { asked, oldest });
        }
        if asked == current {
            return Ok(present);
        }
        let since: Vec<_> = hub.history.after(asked).cloned().collect();
        drop(hub);
        let mut past = (*present).clone();
        for event in since.iter().rev() {
            past.undo(event);
        }
        past.revision = asked;
        Ok(Arc::new(past))
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedStore")
            .field("dir", &self.shared.segments.dir)
            .field("revision", &self.shared.snapshot.load().revision)
            .finish_non_exhaustive()
    }
}

impl Store for EmbeddedStore {
    async fn get(&self, key: &str, at: At) -> Result<Got, StoreError> {
        let state = self.state(at).await?;
        Ok(Got { entry: state.entries.get(key).cloned(), revision: state.revision })
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, StoreError> {
        let state = self.state(options.at).await?;
        Ok(state.list(prefix, options.after_key.as_deref(), options.limit))
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, StoreError> {
        check_size(&value)?;
        self.write(key, Change::Create { value, ttl_millis: ttl_millis(ttl) }).await
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        check_size(&value)?;
        self.write(key, Change::Update { value, ttl_millis: ttl_millis(ttl), expected }).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.write(key, Change::Delete { expected }).await
    }

    async fn watch(&self, prefix: &str, after: Revision, progress: bool) -> Result<WatchStream, StoreError> {
        self.shared.check()?;
        let mut hub = self.shared.hub.lock();
        let current = self.shared.snapshot.load().revision;
        hub.join(prefix, after, progress, current, self.watcher_events)
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.shared.check()?;
        Ok(self.shared.snapshot.load().revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.write("", Change::Compact { to: revision }).await.map(drop)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        join(std::mem::take(&mut *self.threads.lock()));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}

fn check_size(value: &Bytes) -> Result<(), StoreError> {
    let (size, limit) = (value.len(), MAX_VALUE_BYTES);
    if size > limit { Err(StoreError::TooLarge { size, limit }) } else { Ok(()) }
}

/// One more than asked for: the moment of the write is rounded down, and 0 stands for "never" in the log.
fn ttl_millis(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| millis(ttl).saturating_add(1))
}

fn lock(io: &dyn Io, dir: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path: PathBuf = dir.join(LOCK);
    match io.lock(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(OpenError::InUse(dir.to_owned())),
        other => other.context("lock", &path),
    }
}

/// Makes a store in a directory that has no identity. What an interrupted creation left is replaced.
fn create(io: &Arc<dyn Io>, dir: &Path, layout: &Layout, first_segment_bytes: u64) -> Result<(), OpenError> {
    if !layout.checkpoints.is_empty() || !recovery::is_unused(&**io, dir, &layout.segments)? {
        // A creation gets no further than one empty segment: somebody removed the identity.
        return Err(Damage::new(&dir.join(recovery::IDENTITY), 0, "the store's identity is missing").into());
    }
    let store_id = new_store_id();
    create_log(io, dir, store_id, 1, first_segment_bytes)?;
    recovery::write_identity(&**io, dir, store_id)
}

/// Makes a log without writes, whose first one will get the revision `first`.
fn create_log(
    io: &Arc<dyn Io>,
    dir: &Path,
    store_id: u64,
    first: Revision,
    bytes: u64,
) -> Result<(), OpenError> {
    let segments = Segments::new(Arc::clone(io), dir, store_id, bytes, Vec::new());
    match log::create_first(&segments, first, bytes) {
        Ok(_) => Ok(()),
        Err(AppendError::Refused(source) | AppendError::Failed(source)) => {
            Err(OpenError::Io { action: "create the log in", path: dir.to_owned(), source })
        }
    }
}

/// A number that no other store has. Nothing secret hangs on it.
fn new_store_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u128(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos(),
    );
    hasher.finish()
}

/// Removes the checkpoints that a newer one has replaced.
fn remove_checkpoints_before(io: &dyn Io, dir: &Path, revision: Revision) -> Result<(), OpenError> {
    for old in Layout::read(io, dir)?.checkpoints.into_iter().filter(|old| *old < revision) {
        let path = dir.join(checkpoint::checkpoint_name(old));
        io.remove(&path).context("remove", &path)?;
    }
    io.sync_dir(dir).context("sync", dir)
}
