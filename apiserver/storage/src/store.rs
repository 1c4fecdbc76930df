//! The store's contract: bytes under keys, with revisions.
//!
//! Everything above this trait relies on the rules below; `testing` holds the suite that every
//! implementation passes, and `memory` is the naive model that they are compared with. The shape is
//! what Kubernetes needs of etcd and no more: create if absent, update or delete at a revision, read,
//! list and watch (etcd's `Txn`, `Range` and `Watch`, <https://etcd.io/docs/v3.5/learning/api/>).
//!
//! # Rules
//!
//! 1. **One counter.** Every successful write gets the next revision; revisions only grow, over
//!    restarts and crashes too. A write that fails takes no revision.
//! 2. **Every write names what it expects.** `create` expects absence; `update` and `delete` expect the
//!    revision at which the caller read the entry. A failed expectation answers with the entry that is
//!    there ([`StoreError::Conflict`], [`StoreError::AlreadyExists`]) and changes nothing.
//! 3. **Acknowledged is durable.** A write that returned `Ok` survives `kill -9` and power loss. One that
//!    returned an error with [`StoreError::is_definite`] did not happen; any other error leaves the
//!    outcome unknown, and the caller reads before it tries again.
//! 4. **Reads.** [`At::Latest`] sees every write acknowledged before the call began.
//!    [`At::NotOlderThan`] waits until the state is at least that revision; [`At::Exact`] answers the state
//!    at that revision or [`StoreError::Compacted`]; [`At::Any`] answers from whatever is at hand.
//! 5. **Lists are one state.** All entries of a list, and all pages of it, belong to one revision; keys are
//!    in byte order.
//! 6. **A watch never skips and never repeats.** `watch(prefix, after)` delivers every event with a revision
//!    greater than `after`, in order, all events of one revision together. If it cannot go on it ends with
//!    an error: [`StoreError::Compacted`] when the history is gone, [`StoreError::SlowWatcher`] when the
//!    reader did not keep up. A revision from the future waits.
//! 7. **Nobody waits for a reader.** Buffers are bounded; a slow watcher is ended, writers go on.
//! 8. **Time to live.** An entry written with a `ttl` is deleted, with an event of its own, once that time
//!    has passed since its last write; never earlier, and later by at most a few seconds (or a twentieth of
//!    that time, where entries share a timer as etcd's leases).

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;

/// A point in the store's history. 0 is before every write.
pub type Revision = u64;

/// One key with its value at one revision. Shared, never copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, `/registry/<group>/<resource>/[<namespace>/]<name>`.
    pub key: Arc<str>,
    /// The value as the writer gave it.
    pub value: Bytes,
    /// The revision of the last write.
    pub revision: Revision,
}

/// How fresh a read must be (rule 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum At {
    /// Every write acknowledged before the call is seen.
    #[default]
    Latest,
    /// At least this revision.
    NotOlderThan(Revision),
    /// Exactly the state at this revision.
    Exact(Revision),
    /// Whatever is at hand.
    Any,
}

/// What a list should hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// How fresh.
    pub at: At,
    /// At most this many entries; `None` for all.
    pub limit: Option<usize>,
    /// Only keys that sort after this one (the continue position; pair it with [`At::Exact`]).
    pub after_key: Option<String>,
}

/// An answer to [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, by key.
    pub entries: Vec<Arc<Entry>>,
    /// The revision that they all belong to.
    pub revision: Revision,
    /// How many more keys follow the last entry (0: this is the end).
    pub remaining: usize,
}

/// An answer to [`Store::get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The entry, if the key exists.
    pub entry: Option<Arc<Entry>>,
    /// The revision of the state that was read.
    pub revision: Revision,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The key that changed.
    pub key: Arc<str>,
    /// The entry after the change; `None` for a deletion.
    pub entry: Option<Arc<Entry>>,
    /// The entry before the change; `None` for a creation.
    pub previous: Option<Arc<Entry>>,
}

/// What a watch delivers, in order.
#[derive(Debug, Clone)]
pub enum WatchMessage {
    /// Events, oldest first; never empty; all events of one revision in one message.
    Events(Vec<Arc<Event>>),
    /// Nothing below or at this revision is still to come.
    Progress(Revision),
}

/// The stream that [`Store::watch`] answers with. Dropping it ends the watch.
pub type WatchStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<WatchMessage, StoreError>> + Send>>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `create` found the key taken; holds what is there.
    #[error("key `{}` already exists", .0.key)]
    AlreadyExists(Arc<Entry>),
    /// `update` or `delete` found another revision, or nothing; holds what is there.
    #[error("key `{key}` is not at the expected revision")]
    Conflict {
        /// The key that was to be written.
        key: Arc<str>,
        /// What is there now.
        current: Option<Arc<Entry>>,
    },
    /// The asked-for history is gone.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The asked-for revision does not exist yet and did not arrive in time.
    #[error("revision {asked} is in the future; the store is at {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The watcher did not keep up and was ended.
    #[error("the watcher did not keep up")]
    SlowWatcher,
    /// There is no room for the write; it did not happen. Reads go on, and writes once there is room.
    #[error("no space left for the store")]
    NoSpace,
    /// The value is larger than the store takes.
    #[error("value of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes offered.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The store is shutting down or its backend cannot be reached; the outcome of a write is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Stored data is damaged.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether a failed write certainly did not happen.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }
}

/// The largest value that a store takes, as etcd's default request limit (1.5 MiB).
pub const MAX_VALUE_BYTES: usize = 1_572_864;

/// How long a read waits for a revision that does not exist yet before it answers
/// [`StoreError::Future`] (upstream's watch cache waits as long: `blockTimeout` in
/// `storage/cacher/watch_cache.go`).
pub const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// Bytes under keys, with revisions. The module's documentation is the contract.
pub trait Store: Send + Sync + 'static {
    /// Reads one key.
    fn get(&self, key: &str, at: At) -> impl Future<Output = Result<Got, StoreError>> + Send;

    /// Lists the keys under `prefix`.
    fn list(
        &self,
        prefix: &str,
        options: &ListOptions,
    ) -> impl Future<Output = Result<Listing, StoreError>> + Send;

    /// Writes a key that must not exist.
    fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Replaces a key that must be at `expected`. `ttl` starts anew; `None` takes an old one away.
    fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Deletes a key that must be at `expected`; answers the revision of the deletion.
    fn delete(
        &self,
        key: &str,
        expected: Revision,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Streams every change under `prefix` after revision `after` (rule 6). With `progress`, the stream
    /// also says from time to time, and after each idle advance of the store, how far it is.
    fn watch(
        &self,
        prefix: &str,
        after: Revision,
        progress: bool,
    ) -> impl Future<Output = Result<WatchStream, StoreError>> + Send;

    /// The revision of the last write that [`At::Latest`] must see.
    fn current_revision(&self) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Forgets the history before `revision`; the current state stays whole.
    fn compact(&self, revision: Revision) -> impl Future<Output = Result<(), StoreError>> + Send;
}
