//! Who watches one resource, by what they watch, so that an event wakes only those whom it concerns.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::Stream;

use super::{ItemEvent, ItemMessage};
use crate::{
    feed::{Feed, Refused, Tail},
    store::{Revision, StoreError},
};

/// Decides whether an event concerns a watcher; evaluated where events are handed out.
pub type Interest<I> = Arc<dyn Fn(&ItemEvent<I>) -> bool + Send + Sync>;

/// The part of a resource that a watcher sees: what follows the resource's prefix in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of it.
    All,
    /// One namespace (`<namespace>/`) or one whole key.
    One(Box<str>),
    /// Some other beginning of keys.
    Beginning(Box<str>),
}

impl Scope {
    /// The scope of a prefix without the resource's. `exact`: it is one whole key and not a beginning.
    pub(super) fn new(rest: &str, exact: bool) -> Self {
        if rest.is_empty() {
            Self::All
        } else if exact || rest.find('/') == Some(rest.len() - 1) {
            Self::One(rest.into())
        } else {
            Self::Beginning(rest.into())
        }
    }

    /// Whether a key, without the resource's prefix, lies in this scope.
    pub(super) fn holds(&self, rest: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(one) if one.ends_with('/') => rest.starts_with(&**one),
            Self::One(one) => rest == &**one,
            Self::Beginning(beginning) => rest.starts_with(&**beginning),
        }
    }
}

/// One watcher as the cache sees it.
pub(super) struct Watcher<I> {
    pub(super) feed: Feed<ItemMessage<I>>,
    /// Events up to here are not wanted: a watch may begin in the future.
    pub(super) after: Revision,
    pub(super) progress: bool,
    /// The revision last told of, by an event or as progress.
    pub(super) told: Revision,
    pub(super) interest: Option<Interest<I>>,
}

impl<I> Watcher<I> {
    /// Hands a batch over; answers whether the watcher goes on.
    fn deliver(&mut self, batch: &Arc<[Arc<ItemEvent<I>>]>, slow: &AtomicU64) -> bool {
        let wanted = |event: &Arc<ItemEvent<I>>| {
            event.revision > self.after && self.interest.as_ref().is_none_or(|interest| interest(event))
        };
        let batch = if batch.iter().all(wanted) {
            Arc::clone(batch)
        } else {
            batch.iter().filter(|event| wanted(event)).cloned().collect()
        };
        let Some(last) = batch.last() else {
            return !self.feed.is_gone();
        };
        self.told = last.revision;
        let weight = batch.len();
        match self.feed.push(ItemMessage::Events(batch), weight) {
            Ok(()) => true,
            Err(Refused::Gone) => false,
            Err(Refused::Slow) => {
                slow.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Says how far the cache is; answers whether the watcher goes on.
    fn tell(&mut self, revision: Revision) -> bool {
        if !self.progress || revision <= self.told.max(self.after) {
            return !self.feed.is_gone();
        }
        self.told = revision;
        // Weightless: word of progress must not end a watcher that is only just keeping up.
        !matches!(self.feed.push(ItemMessage::Progress(revision), 0), Err(Refused::Gone))
    }
}

/// All watchers of one resource.
pub(super) struct Watchers<I> {
    all: Vec<Watcher<I>>,
    one: HashMap<Box<str>, Vec<Watcher<I>>>,
    beginning: Vec<(Box<str>, Watcher<I>)>,
}

impl<I> Default for Watchers<I> {
    fn default() -> Self {
        Self { all: Vec::new(), one: HashMap::new(), beginning: Vec::new() }
    }
}

impl<I> Watchers<I> {
    pub(super) fn add(&mut self, scope: Scope, watcher: Watcher<I>) {
        match scope {
            Scope::All => self.all.push(watcher),
            Scope::One(one) => self.one.entry(one).or_default().push(watcher),
            Scope::Beginning(beginning) => self.beginning.push((beginning, watcher)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len() + self.beginning.len() + self.one.values().map(Vec::len).sum::<usize>()
    }

    /// Hands events out. `skip` is the length of the resource's prefix in their keys; `slow` counts the
    /// watchers that are ended for not keeping up.
    pub(super) fn deliver(&mut self, batch: &Arc<[Arc<ItemEvent<I>>]>, skip: usize, slow: &AtomicU64) {
        self.all.retain_mut(|watcher| watcher.deliver(batch, slow));
        if !self.one.is_empty() {
            self.deliver_to_one(batch, skip, slow);
        }
        self.beginning.retain_mut(|(beginning, watcher)| {
            let part = part_of(batch, |event| event.key()[skip..].starts_with(&**beginning));
            part.is_none_or(|part| watcher.deliver(&part, slow))
        });
    }

    /// To the watchers of a namespace or of one key: the batch is taken apart once, not once per watcher.
    fn deliver_to_one(&mut self, batch: &Arc<[Arc<ItemEvent<I>>]>, skip: usize, slow: &AtomicU64) {
        let mut parts: HashMap<&str, Vec<Arc<ItemEvent<I>>>> = HashMap::new();
        for event in batch.iter() {
            let rest = &event.key()[skip..];
            let namespace = rest.find('/').map(|slash| &rest[..=slash]);
            for scope in namespace.into_iter().chain([rest]) {
                if self.one.contains_key(scope) {
                    parts.entry(scope).or_default().push(Arc::clone(event));
                }
            }
        }
        for (scope, part) in parts {
            let part: Arc<[_]> = part.into();
            let watchers = self.one.get_mut(scope).expect("the scope must be watched: it was looked up");
            watchers.retain_mut(|watcher| watcher.deliver(&part, slow));
            if watchers.is_empty() {
                self.one.remove(scope);
            }
        }
    }

    /// Tells those who asked for it how far the cache is, and lets go of those who left.
    pub(super) fn tell(&mut self, revision: Revision) {
        self.all.retain_mut(|watcher| watcher.tell(revision));
        self.beginning.retain_mut(|(_, watcher)| watcher.tell(revision));
        self.one.retain(|_, watchers| {
            watchers.retain_mut(|watcher| watcher.tell(revision));
            !watchers.is_empty()
        });
    }

    /// Ends every watch.
    pub(super) fn end(&mut self, error: &StoreError) {
        let all = std::mem::take(self);
        let one = all.one.into_values().flatten();
        for watcher in
            all.all.into_iter().chain(one).chain(all.beginning.into_iter().map(|(_, watcher)| watcher))
        {
            watcher.feed.end(error.clone());
        }
    }
}

/// The events that `wanted` takes; `None` if there are none.
fn part_of<I>(
    batch: &Arc<[Arc<ItemEvent<I>>]>,
    wanted: impl Fn(&ItemEvent<I>) -> bool,
) -> Option<Arc<[Arc<ItemEvent<I>>]>> {
    if batch.iter().all(|event| wanted(event)) {
        return Some(Arc::clone(batch));
    }
    let part: Vec<_> = batch.iter().filter(|event| wanted(event)).cloned().collect();
    (!part.is_empty()).then(|| part.into())
}

/// A watch out of the cache: a stream that ends with an error when it cannot go on.
pub struct ItemWatch<I> {
    source: Source<I>,
}

type Converted<I> = Pin<Box<dyn Stream<Item = Result<ItemMessage<I>, StoreError>> + Send>>;

enum Source<I> {
    Cache(Tail<ItemMessage<I>>),
    /// A prefix that is wider than one resource: the store's own watch.
    Store(Converted<I>),
}

impl<I> ItemWatch<I> {
    pub(super) fn from_cache(tail: Tail<ItemMessage<I>>) -> Self {
        Self { source: Source::Cache(tail) }
    }

    pub(super) fn from_store(stream: Converted<I>) -> Self {
        Self { source: Source::Store(stream) }
    }
}

impl<I> Stream for ItemWatch<I> {
    type Item = Result<ItemMessage<I>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.source {
            Source::Cache(tail) => Pin::new(tail).poll_next(context),
            Source::Store(stream) => stream.as_mut().poll_next(context),
        }
    }
}
