//! Watches: a stream of frames that never skips and never repeats, and ends with 410 when it cannot go on.
//!
//! The plain case (the stored version, JSON, no change of selection) shares each event's frame among all
//! watchers. A selector turns changes into arrivals and departures: an object that comes to match is ADDED, one
//! that no longer does is DELETED as it was before. See
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch>.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use api_objects::{
    Resource, Status,
    params::ListParams,
    selector::{FieldSelector, FieldTerm},
    watch::{BookmarkKind, EventType, write_bookmark, write_error, write_frame, write_object_frame},
};
use apiserver_storage::{
    At, Revision, StoreError,
    cacher::{CacheWatchOptions, Filter, Item, ItemEvent, ItemMessage, ItemWatch},
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::Response;
use jiff::Timestamp;
use rand::Rng as _;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Exchange, get, require_json, respond,
    selection::Selection,
    shape::{Columns, Include, View},
};
use crate::{
    Server,
    negotiate::Shape,
    projector::ObjectIndex,
    registry::conversion,
    sockets::{self, Content},
    status::{Subject, from_store},
};

/// Ready events are sent together up to this size: one write instead of many.
const CHUNK: usize = 64 * 1024;
/// How often a quiet watch is told how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Watches without a timeout of their own end after this many seconds, up to twice as many, so that they
/// do not all come back at once (`--min-request-timeout`).
const MIN_TIMEOUT_SECONDS: u64 = 1800;

/// Answers a watch.
pub(super) async fn serve(exchange: Exchange) -> Result<Response<Body>, Status> {
    let (answer, Exchange { server, mut parts, .. }) = stream(exchange).await?;
    sockets::carry(&server, &mut parts, Content::Events, answer).await
}

/// The watch as a body.
async fn stream(exchange: Exchange) -> Result<(Response<Body>, Exchange), Status> {
    require_json(exchange.accepted)?;
    let mut params = ListParams::parse(exchange.query())?;
    params.field_selector = narrowed(params.field_selector, &exchange.context.info.name)?;
    let selection = Selection::new(&exchange.resource, exchange.namespace(), &params)?;
    let include = Include::parse(exchange.query())?;
    let opened = open(&exchange.server, &params, &selection).await;
    let resource = Arc::clone(&exchange.resource);
    let frames = match opened {
        Ok(opened) => Box::new(Frames::new(&exchange, opened, &params, selection, include)),
        // History that is gone is told in the stream, as upstream's watch cache does.
        Err(error @ StoreError::Compacted { .. }) => {
            let mut out = Vec::new();
            write_error(&mut out, &from_store(&error, Subject { resource: &resource, name: "" }));
            return Ok((respond::frames(futures_util::stream::iter([Ok(Bytes::from(out))])), exchange));
        }
        Err(error) => return Err(from_store(&error, Subject { resource: &resource, name: "" })),
    };
    let frames = futures_util::stream::unfold(frames, |mut frames| async move {
        let chunk = frames.next().await?;
        Some((Ok::<_, Infallible>(chunk), frames))
    });
    Ok((respond::frames(frames), exchange))
}

/// A watch of one object (`/api/v1/watch/…/pods/x`, or a selector that says so) shows nothing else: that
/// name is what was authorized. Upstream: `listOptionsForScope` in `handlers/get.go`.
fn narrowed(mut selector: FieldSelector, name: &str) -> Result<FieldSelector, Status> {
    if name.is_empty() {
        return Ok(selector);
    }
    if selector.is_everything() {
        let term = FieldTerm { field: "metadata.name".to_owned(), value: name.to_owned(), equal: true };
        selector.terms.push(term);
    } else if selector.required("metadata.name") != Some(name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(selector)
}

/// The objects to begin with, and everything after.
struct Opened {
    initial: Vec<Arc<Item<ObjectIndex>>>,
    /// Where the watch begins.
    revision: Revision,
    watch: ItemWatch<ObjectIndex>,
}

async fn open(server: &Server, params: &ListParams, selection: &Selection) -> Result<Opened, StoreError> {
    let after = get::freshness(&params.resource_version).unwrap_or_default();
    let interest = (!selection.is_everything()).then(|| {
        let selection = selection.clone();
        let interest = move |event: &ItemEvent<ObjectIndex>| {
            let takes = |item: &Option<Arc<Item<ObjectIndex>>>| {
                item.as_ref().is_some_and(|item| selection.matches(item))
            };
            takes(&event.item) || takes(&event.previous)
        };
        Arc::new(interest) as Arc<dyn Fn(&ItemEvent<ObjectIndex>) -> bool + Send + Sync>
    });
    let options =
        CacheWatchOptions { progress: params.allow_watch_bookmarks, exact: selection.exact, interest };
    let with_initial = params.send_initial_events.unwrap_or(!matches!(after, At::NotOlderThan(_)));
    if let At::NotOlderThan(revision) = after
        && !with_initial
    {
        let watch = server.storage.watch(&selection.prefix, revision, options).await?;
        return Ok(Opened { initial: Vec::new(), revision, watch });
    }
    let filter = |item: &Item<ObjectIndex>| selection.matches(item);
    let filter: Filter<'_, ObjectIndex> = if selection.is_everything() { None } else { Some(&filter) };
    let (listing, watch) = server.storage.list_and_watch(&selection.prefix, after, filter, options).await?;
    let initial = if with_initial { listing.items } else { Vec::new() };
    Ok(Opened { initial, revision: listing.revision, watch })
}

/// One open watch.
struct Frames {
    resource: Arc<Resource>,
    selection: Selection,
    shape: Shape,
    include: Include,
    /// Whether each event's shared frame is what this watcher wants.
    plain: bool,
    columns: Columns,
    initial: std::vec::IntoIter<Arc<Item<ObjectIndex>>>,
    /// The bookmark that closes the initial events, while it is still due.
    announce_end: bool,
    watch: ItemWatch<ObjectIndex>,
    /// Everything up to here has been sent.
    revision: Revision,
    bookmarked: Revision,
    bookmarks: Option<Interval>,
    deadline: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Frames {
    fn new(
        exchange: &Exchange,
        opened: Opened,
        params: &ListParams,
        selection: Selection,
        include: Include,
    ) -> Self {
        let seconds = params
            .timeout_seconds
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS));
        let bookmarks = params.allow_watch_bookmarks.then(|| {
            let start = tokio::time::Instant::now() + BOOKMARK_INTERVAL;
            let mut interval = tokio::time::interval_at(start, BOOKMARK_INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self {
            plain: exchange.accepted.shape == Shape::Object && !conversion::is_needed(&exchange.resource),
            resource: Arc::clone(&exchange.resource),
            selection,
            shape: exchange.accepted.shape,
            include,
            columns: Columns::Shown,
            announce_end: params.send_initial_events == Some(true) && params.allow_watch_bookmarks,
            initial: opened.initial.into_iter(),
            watch: opened.watch,
            revision: opened.revision,
            bookmarked: opened.revision,
            bookmarks,
            deadline: Box::pin(tokio::time::sleep(Duration::from_secs(seconds))),
            shutdown: Box::pin(exchange.server.shutdown.clone().cancelled_owned()),
            over: false,
        }
    }

    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if let Some(chunk) = self.next_initial() {
            return Some(chunk);
        }
        loop {
            tokio::select! {
                biased;
                message = self.watch.next() => match message {
                    Some(Ok(message)) => {
                        if let Some(chunk) = self.gather(&message) {
                            return Some(chunk);
                        }
                    }
                    // A server that stops says so by ending its streams; clients come back elsewhere.
                    Some(Err(StoreError::Unavailable(_))) | None => return None,
                    Some(Err(error)) => return self.fail(&error),
                },
                () = &mut self.shutdown => return None,
                () = &mut self.deadline => {
                    self.over = true;
                    return self.bookmark();
                }
                () = tick(&mut self.bookmarks) => {
                    if let Some(chunk) = self.bookmark() {
                        return Some(chunk);
                    }
                }
            }
        }
    }

    /// The objects that exist, piece by piece, and the bookmark that closes them.
    fn next_initial(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < CHUNK {
            let Some(item) = self.initial.next() else { break };
            self.write(&mut out, EventType::Added, &item.entry.value, item.entry.revision);
        }
        if self.initial.as_slice().is_empty() && std::mem::take(&mut self.announce_end) {
            let (kind, api_version) = (&self.resource.kind, self.resource.api_version());
            write_bookmark(&mut out, kind, &api_version, self.revision, BookmarkKind::InitialEventsEnd);
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// The frames of a message and of all others that are ready with it.
    fn gather(&mut self, first: &ItemMessage<ObjectIndex>) -> Option<Bytes> {
        if let ItemMessage::Events(events) = first
            && let [event] = &**events
            && self.plain
            && self.is_plain(event)
        {
            // The common case of a calm cluster: one event, and nothing to copy.
            self.revision = event.revision;
            return Some(Self::shared_frame(event));
        }
        let mut out = Vec::new();
        self.take(first, &mut out);
        while out.len() < CHUNK
            && let Some(Some(Ok(message))) = self.watch.next().now_or_never()
        {
            self.take(&message, &mut out);
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn take(&mut self, message: &ItemMessage<ObjectIndex>, out: &mut Vec<u8>) {
        match message {
            ItemMessage::Progress(revision) => self.revision = self.revision.max(*revision),
            ItemMessage::Events(events) => {
                for event in &**events {
                    self.write_event(event, out);
                    self.revision = event.revision;
                }
            }
        }
    }

    /// Whether a change is to this watcher what it is to one that selects everything.
    fn is_plain(&self, event: &ItemEvent<ObjectIndex>) -> bool {
        self.selection.is_everything()
            || [&event.item, &event.previous].into_iter().flatten().all(|item| self.selection.matches(item))
    }

    fn write_event(&mut self, event: &ItemEvent<ObjectIndex>, out: &mut Vec<u8>) {
        if self.plain && self.is_plain(event) {
            out.extend_from_slice(&Self::shared_frame(event));
            return;
        }
        let takes = |item: &Arc<Item<ObjectIndex>>| self.selection.matches(item);
        let now = event.item.as_ref().filter(|item| takes(item)).cloned();
        let before = event.previous.as_ref().filter(|item| takes(item)).cloned();
        match (now, before) {
            (Some(item), None) => self.write(out, EventType::Added, &item.entry.value, event.revision),
            (Some(item), Some(_)) => self.write(out, EventType::Modified, &item.entry.value, event.revision),
            (None, Some(item)) => self.write(out, EventType::Deleted, &item.entry.value, event.revision),
            (None, None) => {}
        }
    }

    /// The frame that all plain watchers share.
    fn shared_frame(event: &ItemEvent<ObjectIndex>) -> Bytes {
        let frame = event.frame.get_or_init(|| {
            let (kind, item) = match (&event.item, &event.previous) {
                (Some(item), None) => (EventType::Added, item),
                (Some(item), Some(_)) => (EventType::Modified, item),
                (None, Some(item)) => (EventType::Deleted, item),
                (None, None) => return Bytes::new(),
            };
            let mut out = Vec::with_capacity(item.entry.value.len() + 96);
            write_object_frame(&mut out, kind, &item.entry.value, event.revision);
            out.into()
        });
        frame.clone()
    }

    fn write(&mut self, out: &mut Vec<u8>, event: EventType, canonical: &Bytes, revision: Revision) {
        if self.plain {
            write_object_frame(out, event, canonical, revision);
            return;
        }
        let view = View {
            resource: &self.resource,
            shape: self.shape,
            include: self.include,
            now: Timestamp::now(),
        };
        let object = match self.shape {
            Shape::Table => {
                let columns = std::mem::replace(&mut self.columns, Columns::Known);
                view.table([(canonical, revision)].into_iter(), revision, columns)
            }
            Shape::Object | Shape::Partial | Shape::AggregatedDiscovery => view.object(canonical, revision),
        };
        write_frame(out, event, &object);
    }

    /// A bookmark, if there is progress that the client has not heard of.
    fn bookmark(&mut self) -> Option<Bytes> {
        if self.bookmarks.is_none() || self.revision == self.bookmarked {
            return None;
        }
        self.bookmarked = self.revision;
        let mut out = Vec::new();
        let (kind, api_version) = (&self.resource.kind, self.resource.api_version());
        write_bookmark(&mut out, kind, &api_version, self.revision, BookmarkKind::Progress);
        Some(out.into())
    }

    /// The last frame of a watch that cannot go on.
    fn fail(&mut self, error: &StoreError) -> Option<Bytes> {
        self.over = true;
        let status = from_store(error, Subject { resource: &self.resource, name: "" });
        let mut out = Vec::new();
        write_error(&mut out, &status);
        Some(out.into())
    }
}

/// Waits for the next tick, or for ever without an interval.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
