//! The watch cache: decorates a [`Store`] and serves lists and watches from memory.
//!
//! One ingesting task reads the whole store once and then follows one watch. Each resource (the first two
//! segments under `/registry/`) has its own immutable snapshot and its own ring of recent events, so that
//! heartbeats evict nobody else's history. Bytes are held once: snapshot, ring and every watcher share the
//! same [`Entry`].
//!
//! The cache knows nothing of kinds: a [`Projector`] given by the API server computes, once per write, what
//! selectors are evaluated on.
//!
//! Keys outside the layout and prefixes wider than one resource are read through to the store.

mod decorate;
mod ingest;
mod resource;
mod ring;
mod sorted;
#[cfg(test)]
mod tests;
mod watchers;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::RwLock;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    resource::{Resource, resource_prefix},
    sorted::Sorted,
    watchers::{Scope, Watcher},
};
pub use self::{
    ring::RingOptions,
    watchers::{Interest, ItemWatch},
};
use crate::{
    backend::Backend,
    feed::feed,
    store::{At, Entry, FRESHNESS_WAIT, ListOptions, Revision, Store, StoreError, WatchMessage},
};

/// How often the store is asked how far it is while a read waits for it (upstream's
/// `progressRequestPeriod` in `storage/cacher/progress/watch_progress.go`).
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Computes, once per entry, what lists and watches filter on (labels and selectable fields).
pub trait Projector: Send + Sync + 'static {
    /// What is kept beside the bytes.
    type Index: Send + Sync + 'static;
    /// Projects one entry. Must not fail: a value that cannot be read gets an empty index.
    fn project(&self, entry: &Entry) -> Self::Index;
}

/// An entry with what selectors are evaluated on.
#[derive(Debug)]
pub struct Item<I> {
    /// The stored entry.
    pub entry: Arc<Entry>,
    /// The projection of it.
    pub index: I,
}

/// A change as watchers see it. `item` is `None` for a deletion, `previous` for a creation.
#[derive(Debug)]
pub struct ItemEvent<I> {
    /// The revision of the change.
    pub revision: Revision,
    /// After the change.
    pub item: Option<Arc<Item<I>>>,
    /// Before the change: needed to know that an object has left a selector.
    pub previous: Option<Arc<Item<I>>>,
    /// The encoded watch frame of the plain case (storage version, no selector), made by the first
    /// watcher that needs it and shared by all others.
    pub frame: OnceLock<Bytes>,
}

impl<I> ItemEvent<I> {
    /// A change whose frame is not encoded yet.
    ///
    /// One of `item` and `previous` is there: nothing cannot change to nothing.
    #[must_use]
    pub fn new(revision: Revision, item: Option<Arc<Item<I>>>, previous: Option<Arc<Item<I>>>) -> Self {
        Self { revision, item, previous, frame: OnceLock::new() }
    }

    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        let item = self.item.as_ref().or(self.previous.as_ref());
        item.map_or("", |item| &item.entry.key)
    }
}

/// A list out of the cache.
#[derive(Debug)]
pub struct ItemListing<I> {
    /// The items, by key.
    pub items: Vec<Arc<Item<I>>>,
    /// The revision that they all belong to.
    pub revision: Revision,
    /// How many more keys follow, whether a filter would take them or not (as upstream, whose last page
    /// under a selector may be empty).
    pub remaining: usize,
}

/// What a watch out of the cache delivers.
#[derive(Debug)]
pub enum ItemMessage<I> {
    /// Changes, oldest first; never empty. One batch is shared by all watchers of the same scope.
    Events(Arc<[Arc<ItemEvent<I>>]>),
    /// Nothing below or at this revision is still to come (a bookmark may be sent).
    Progress(Revision),
}

/// How the cache works.
#[derive(Debug, Clone)]
pub struct CacherOptions {
    /// How much history each resource keeps.
    pub ring: RingOptions,
    /// How many events a watcher may be behind before it is ended.
    pub watcher_events: usize,
    /// How many revisions of history are asked of the store at start, so that watches resume over a
    /// restart. Bounded, because a start should take milliseconds.
    pub history: u64,
    /// How often watchers that asked for it are told how far the cache is.
    pub progress_interval: Duration,
}

impl Default for CacherOptions {
    /// A watcher may be ten thousands of events behind: each costs it one pointer, and a burst that arrives
    /// while a connection is being flushed is no reason to end it.
    fn default() -> Self {
        Self {
            ring: RingOptions::default(),
            watcher_events: 32_768,
            history: 8_192,
            progress_interval: Duration::from_secs(5),
        }
    }
}

/// What a watch out of the cache should do.
pub struct CacheWatchOptions<I> {
    /// Also deliver [`ItemMessage::Progress`] from time to time.
    pub progress: bool,
    /// The prefix is one whole key: keys that only begin with it are not meant.
    pub exact: bool,
    /// Only events that concern the watcher. It must take an event when what was there before would be
    /// taken or what is there now is: it spares watchers from waking (each kubelet watches its own pods),
    /// the exact selection stays theirs.
    pub interest: Option<Interest<I>>,
}

impl<I> Default for CacheWatchOptions<I> {
    fn default() -> Self {
        Self { progress: false, exact: false, interest: None }
    }
}

/// Selects items of a list.
pub type Filter<'a, I> = Option<&'a (dyn Fn(&Item<I>) -> bool + Send + Sync)>;

/// What the cache can say about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacherStats {
    /// Items held.
    pub items: usize,
    /// Watches that are open.
    pub watchers: usize,
    /// Watches that were ended because their reader did not keep up.
    pub slow_watchers: u64,
    /// How often the cache had to begin anew from a list, because its own watch was lost.
    pub resets: u64,
}

/// The watch cache over a [`Backend`].
pub struct Cacher<P: Projector> {
    shared: Arc<Shared<P>>,
    tasks: TaskTracker,
}

type Resources<I> = HashMap<Box<str>, Arc<Resource<I>>>;

/// What the ingesting task and the readers share.
struct Shared<P: Projector> {
    store: Arc<Backend>,
    projector: P,
    options: CacherOptions,
    /// By prefix (`/registry/<group>/<resource>/`). Made at first use, never taken away.
    resources: RwLock<Resources<P::Index>>,
    /// Every event up to here has been applied.
    ingested: AtomicU64,
    /// Told when `ingested` has grown.
    advanced: Notify,
    /// A resource of which nothing was ever seen has a whole history since here.
    floor: AtomicU64,
    slow_watchers: AtomicU64,
    resets: AtomicU64,
    stopped: CancellationToken,
}

impl<P: Projector> Cacher<P> {
    /// Reads the whole store, and begins to follow it.
    ///
    /// # Errors
    /// What the first list or watch of the store fails with.
    pub async fn start(
        store: Arc<Backend>,
        projector: P,
        options: CacherOptions,
    ) -> Result<Arc<Self>, StoreError> {
        let shared = Arc::new(Shared {
            store,
            projector,
            options,
            resources: RwLock::default(),
            ingested: AtomicU64::new(0),
            advanced: Notify::new(),
            floor: AtomicU64::new(0),
            slow_watchers: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            stopped: CancellationToken::new(),
        });
        let stream = shared.begin().await?;
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&shared).follow(stream));
        tasks.close();
        Ok(Arc::new(Self { shared, tasks }))
    }

    /// The store below, which writes go to.
    #[must_use]
    pub fn store(&self) -> &Arc<Backend> {
        &self.shared.store
    }

    /// The revision up to which the cache has seen everything.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.ingested()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> CacherStats {
        let mut stats = CacherStats {
            slow_watchers: self.shared.slow_watchers.load(Ordering::Relaxed),
            resets: self.shared.resets.load(Ordering::Relaxed),
            ..CacherStats::default()
        };
        for resource in self.shared.resources.read().values() {
            let (items, watchers) = resource.count();
            stats.items += items;
            stats.watchers += watchers;
        }
        stats
    }

    /// Stops following the store and ends every watch. [`Self::join`] waits for the end.
    pub fn stop(&self) {
        self.shared.stopped.cancel();
    }

    /// Waits until the ingesting task has ended.
    pub async fn join(&self) {
        self.tasks.wait().await;
    }

    /// Reads one key.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get(&self, key: &str, at: At) -> Result<Option<Arc<Item<P::Index>>>, StoreError> {
        let shared = &self.shared;
        let Some(skip) = resource_prefix(key) else {
            return shared.get_through(key, at).await;
        };
        // A remote store is asked for its revision over the network: it may as well be asked for the key.
        let directly = at == At::Latest && shared.store.is_remote();
        if directly || !shared.freshen(at).await? {
            return shared.get_through(key, at).await;
        }
        let resource = shared.resource(&key[..skip]);
        match at {
            At::Exact(revision) => match resource.at(revision) {
                Some(items) => Ok(items.get(key).cloned()),
                None => shared.get_through(key, at).await,
            },
            At::Latest | At::NotOlderThan(_) | At::Any => Ok(resource.get(key)),
        }
    }

    /// Lists the items under a prefix that `filter` takes; `options.limit` counts those.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn list(
        &self,
        prefix: &str,
        options: &ListOptions,
        filter: Filter<'_, P::Index>,
    ) -> Result<ItemListing<P::Index>, StoreError> {
        let shared = &self.shared;
        let skip = resource_prefix(prefix);
        let (Some(skip), true) = (skip, skip.is_some() && shared.freshen(options.at).await?) else {
            return shared.list_through(prefix, options, filter).await;
        };
        let resource = shared.resource(&prefix[..skip]);
        let (state, revision) = match options.at {
            At::Exact(revision) => match resource.at(revision) {
                Some(items) => (items, revision),
                None => return shared.list_through(prefix, options, filter).await,
            },
            At::Latest | At::NotOlderThan(_) | At::Any => resource.current(shared.ingested()),
        };
        let listing = page(&state, prefix, options, filter, revision);
        if listing.remaining > 0 {
            resource.keep_paged(state, revision);
        }
        Ok(listing)
    }

    /// Streams every change under a prefix after a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history since then is no longer here.
    pub async fn watch(
        &self,
        prefix: &str,
        after: Revision,
        options: CacheWatchOptions<P::Index>,
    ) -> Result<ItemWatch<P::Index>, StoreError> {
        let shared = &self.shared;
        let Some(skip) = resource_prefix(prefix) else {
            return shared.watch_through(prefix, after, options).await;
        };
        let scope = Scope::new(&prefix[skip..], options.exact);
        let (watcher, watch) = self.watcher(after, options);
        shared.resource(&prefix[..skip]).watch(scope, watcher, shared.ingested())?;
        Ok(watch)
    }

    /// A state and everything after it: the items under a prefix that `filter` takes, and a watch from
    /// their revision on. `at` is [`At::Latest`], [`At::NotOlderThan`] or [`At::Any`].
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn list_and_watch(
        &self,
        prefix: &str,
        at: At,
        filter: Filter<'_, P::Index>,
        options: CacheWatchOptions<P::Index>,
    ) -> Result<(ItemListing<P::Index>, ItemWatch<P::Index>), StoreError> {
        let shared = &self.shared;
        let list = ListOptions { at, ..ListOptions::default() };
        let Some(skip) = resource_prefix(prefix) else {
            let listing = shared.list_through(prefix, &list, filter).await?;
            let watch = shared.watch_through(prefix, listing.revision, options).await?;
            return Ok((listing, watch));
        };
        if !shared.freshen(at).await? {
            // The store cannot say how far the cache is: read there, and watch from that revision, which
            // the cache may still have to reach.
            let listing = shared.list_through(prefix, &list, filter).await?;
            let watch = self.watch(prefix, listing.revision, options).await?;
            return Ok((listing, watch));
        }
        let scope = Scope::new(&prefix[skip..], options.exact);
        let (watcher, watch) = self.watcher(0, options);
        let (state, revision) =
            shared.resource(&prefix[..skip]).list_and_watch(scope, watcher, shared.ingested());
        Ok((page(&state, prefix, &list, filter, revision), watch))
    }

    fn watcher(
        &self,
        after: Revision,
        options: CacheWatchOptions<P::Index>,
    ) -> (Watcher<P::Index>, ItemWatch<P::Index>) {
        let (feed, tail) = feed(self.shared.options.watcher_events);
        let CacheWatchOptions { progress, interest, exact: _ } = options;
        (Watcher { feed, after, progress, told: after, interest }, ItemWatch::from_cache(tail))
    }
}

impl<P: Projector> Drop for Cacher<P> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One page of a state.
fn page<I>(
    state: &Sorted<I>,
    prefix: &str,
    options: &ListOptions,
    filter: Filter<'_, I>,
    revision: Revision,
) -> ItemListing<I> {
    let limit = options.limit.unwrap_or(usize::MAX);
    let (mut range, count) = state.range(prefix, options.after_key.as_deref());
    let mut items = Vec::with_capacity(if filter.is_some() { 0 } else { limit.min(count) });
    let mut seen = 0;
    while items.len() < limit
        && let Some(item) = range.next()
    {
        seen += 1;
        if filter.is_none_or(|filter| filter(item)) {
            items.push(Arc::clone(item));
        }
    }
    ItemListing { items, revision, remaining: count - seen }
}

impl<P: Projector> Shared<P> {
    fn ingested(&self) -> Revision {
        self.ingested.load(Ordering::Acquire)
    }

    /// The resource under a prefix.
    fn resource(&self, prefix: &str) -> Arc<Resource<P::Index>> {
        if let Some(resource) = self.resources.read().get(prefix) {
            return Arc::clone(resource);
        }
        let mut resources = self.resources.write();
        let floor = self.floor.load(Ordering::Acquire);
        let resource = resources
            .entry(prefix.into())
            .or_insert_with(|| Arc::new(Resource::new(prefix.len(), Vec::new(), floor)));
        Arc::clone(resource)
    }

    fn item(&self, entry: &Arc<Entry>) -> Arc<Item<P::Index>> {
        Arc::new(Item { entry: Arc::clone(entry), index: self.projector.project(entry) })
    }

    /// Waits until the cache may answer a read. `false`: it cannot know, the store has to be asked.
    async fn freshen(&self, at: At) -> Result<bool, StoreError> {
        match at {
            At::Any => Ok(true),
            At::NotOlderThan(revision) | At::Exact(revision) => {
                if self.wait_for(revision).await {
                    return Ok(true);
                }
                Err(StoreError::Future { asked: revision, current: self.ingested() })
            }
            At::Latest if !self.store.tells_progress() => Ok(false),
            At::Latest => {
                let current = self.store.current_revision().await?;
                Ok(self.wait_for(current).await)
            }
        }
    }

    /// Waits until a revision has been ingested; `false` if that takes too long.
    async fn wait_for(&self, revision: Revision) -> bool {
        if self.ingested() >= revision {
            return true;
        }
        let deadline = Instant::now() + FRESHNESS_WAIT;
        loop {
            let advanced = self.advanced.notified();
            if self.ingested() >= revision {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            // Asked again and again: the store may just be reconnecting.
            self.store.request_progress();
            let _looked_again = tokio::time::timeout_at(deadline.min(now + PROGRESS_PERIOD), advanced).await;
        }
    }

    async fn get_through(&self, key: &str, at: At) -> Result<Option<Arc<Item<P::Index>>>, StoreError> {
        Ok(self.store.get(key, at).await?.entry.map(|entry| self.item(&entry)))
    }

    /// A list of the store itself, page after page until enough items pass the filter.
    async fn list_through(
        &self,
        prefix: &str,
        options: &ListOptions,
        filter: Filter<'_, P::Index>,
    ) -> Result<ItemListing<P::Index>, StoreError> {
        let mut options = options.clone();
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut items = Vec::new();
        loop {
            options.limit = options.limit.map(|_| limit - items.len());
            let listing = self.store.list(prefix, &options).await?;
            let last = listing.entries.last().map(|entry| entry.key.to_string());
            let read = listing.entries.iter().map(|entry| self.item(entry));
            items.extend(read.filter(|item| filter.is_none_or(|filter| filter(item))));
            if items.len() >= limit || listing.remaining == 0 || last.is_none() {
                return Ok(ItemListing { items, revision: listing.revision, remaining: listing.remaining });
            }
            options.at = At::Exact(listing.revision);
            options.after_key = last;
        }
    }

    async fn watch_through(
        self: &Arc<Self>,
        prefix: &str,
        after: Revision,
        options: CacheWatchOptions<P::Index>,
    ) -> Result<ItemWatch<P::Index>, StoreError> {
        let stream = self.store.watch(prefix, after, options.progress).await?;
        let shared = Arc::clone(self);
        let exact = options.exact.then(|| prefix.to_owned());
        let interest = options.interest;
        let converted = stream.filter_map(move |message| {
            let message = match message {
                Ok(WatchMessage::Progress(revision)) => Some(Ok(ItemMessage::Progress(revision))),
                Err(error) => Some(Err(error)),
                Ok(WatchMessage::Events(events)) => {
                    let events: Vec<_> = events
                        .iter()
                        .filter(|event| exact.as_ref().is_none_or(|exact| **exact == *event.key))
                        .map(|event| {
                            let item = event.entry.as_ref().map(|entry| shared.item(entry));
                            let previous = event.previous.as_ref().map(|entry| shared.item(entry));
                            ItemEvent::new(event.revision, item, previous)
                        })
                        .filter(|event| interest.as_ref().is_none_or(|interest| interest(event)))
                        .map(Arc::new)
                        .collect();
                    (!events.is_empty()).then(|| Ok(ItemMessage::Events(events.into())))
                }
            };
            std::future::ready(message)
        });
        Ok(ItemWatch::from_store(Box::pin(converted)))
    }
}
