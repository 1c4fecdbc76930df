//! A watch of etcd that survives the connection that it runs over.
//!
//! One task per watch (normally the cache's only): it opens a stream, hands events over, and when the stream
//! breaks opens another after the last revision that it has handed over. Compaction ends it.

use std::{sync::Arc, time::Duration};

use etcd_client::{EventType, WatchClient, WatchOptions, WatchResponse};

use super::Keys;
use crate::{
    feed::Feed,
    store::{Entry, Event, Revision, StoreError, WatchMessage},
};

/// The first and the longest pause between attempts to open a stream.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long etcd may take to open a stream.
const OPEN: Duration = Duration::from_secs(5);

/// What a watch needs.
pub(super) struct Watch {
    pub(super) client: WatchClient,
    pub(super) keys: Arc<Keys>,
    pub(super) prefix: String,
    /// Everything up to here has been handed over.
    pub(super) after: Revision,
    pub(super) progress: bool,
    /// Changes whenever somebody wants to know how far the watch is.
    pub(super) asked: tokio::sync::watch::Receiver<u64>,
    pub(super) feed: Feed<WatchMessage>,
}

/// Why one stream ended.
enum Ended {
    /// Another may be opened.
    Broken(String),
    /// The watch is over.
    Over,
}

impl Watch {
    /// Runs until the reader is gone or the watch cannot go on.
    pub(super) async fn run(mut self) {
        let mut pause = BACKOFF.0;
        loop {
            let before = self.after;
            match self.run_one().await {
                Ended::Over => return,
                Ended::Broken(reason) => {
                    tracing::debug!(
                        prefix = self.prefix,
                        after = self.after,
                        reason,
                        "etcd's watch broke off"
                    );
                }
            }
            if self.feed.is_gone() {
                return;
            }
            pause = if self.after > before { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens one stream and follows it.
    async fn run_one(&mut self) -> Ended {
        let (key, end) = self.keys.range(&self.prefix);
        // etcd takes 0 for "from now on".
        let start = self.keys.to_etcd(self.after + 1).max(1);
        let mut options = WatchOptions::new().with_range(end).with_start_revision(start).with_prev_key();
        if self.progress {
            options = options.with_progress_notify();
        }
        let mut stream = match tokio::time::timeout(OPEN, self.client.watch(key, Some(options))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ended::Broken(error.to_string()),
            Err(_) => return Ended::Broken("etcd did not answer".to_owned()),
        };
        loop {
            let response = tokio::select! {
                response = stream.message() => response,
                changed = self.asked.changed(), if self.progress => {
                    if changed.is_err() {
                        return Ended::Over;
                    }
                    if let Err(error) = stream.request_progress().await {
                        return Ended::Broken(error.to_string());
                    }
                    continue;
                }
            };
            match response {
                Ok(Some(response)) => {
                    if let Err(ended) = self.take(&response) {
                        return ended;
                    }
                }
                Ok(None) => return Ended::Broken("the stream was closed".to_owned()),
                Err(error) => return Ended::Broken(error.to_string()),
            }
        }
    }

    /// Hands over what one response says.
    fn take(&mut self, response: &WatchResponse) -> Result<(), Ended> {
        if response.compact_revision() > 0 {
            let oldest = self.keys.from_etcd(response.compact_revision());
            self.feed.end(StoreError::Compacted { asked: self.after, oldest });
            return Err(Ended::Over);
        }
        if response.canceled() {
            return Err(Ended::Broken(format!("etcd cancelled it: {}", response.cancel_reason())));
        }
        if response.created() {
            return Ok(());
        }
        if response.events().is_empty() {
            let revision = response.header().map_or(0, |header| self.keys.from_etcd(header.revision()));
            return self.tell(revision);
        }
        let mut events = Vec::with_capacity(response.events().len());
        for event in response.events() {
            events.extend(self.event(event)?.filter(|event| event.revision > self.after).map(Arc::new));
        }
        let Some(last) = events.last().map(|event| event.revision) else {
            return Ok(());
        };
        let weight = events.len();
        self.push(WatchMessage::Events(events), weight)?;
        self.after = last;
        Ok(())
    }

    /// Says that everything up to a revision has been handed over.
    fn tell(&mut self, revision: Revision) -> Result<(), Ended> {
        if self.progress && revision >= self.after {
            self.push(WatchMessage::Progress(revision), 0)?;
            self.after = revision;
        }
        Ok(())
    }

    fn push(&self, message: WatchMessage, weight: usize) -> Result<(), Ended> {
        self.feed.push(message, weight).map_err(|_refused| Ended::Over)
    }

    /// An event in the contract's terms; `None` for a key that is not text, which is not ours.
    fn event(&self, event: &etcd_client::Event) -> Result<Option<Event>, Ended> {
        let Some(now) = event.kv() else {
            return Ok(None);
        };
        let Some(key) = self.keys.name(now.key()) else {
            return Ok(None);
        };
        let revision = self.keys.from_etcd(now.mod_revision());
        let deleted = event.event_type() == EventType::Delete;
        let previous = event.prev_kv().and_then(|previous| self.keys.entry(previous.clone()));
        if previous.is_none() && (deleted || now.create_revision() != now.mod_revision()) {
            // What was there before is compacted already: the reader would not know what has changed.
            self.feed.end(StoreError::Compacted { asked: self.after, oldest: revision });
            return Err(Ended::Over);
        }
        let key: Arc<str> = previous.as_ref().map_or_else(|| key.into(), |entry| Arc::clone(&entry.key));
        let entry = (!deleted).then(|| {
            let value = bytes::Bytes::copy_from_slice(now.value());
            Arc::new(Entry { key: Arc::clone(&key), value, revision })
        });
        Ok(Some(Event { revision, key, entry, previous }))
    }
}
