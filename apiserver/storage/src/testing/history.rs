//! Checks the histories that watches tell: ordered, unique, gapless, and each change on top of the last.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::StreamExt;

use super::within;
use crate::store::{Entry, Event, Revision, StoreError, WatchMessage, WatchStream};

/// What one watch has told.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The watch was opened after this revision.
    pub(crate) after: Revision,
    /// What it has delivered.
    pub(crate) events: Vec<Arc<Event>>,
    /// How far it said that it was.
    pub(crate) progress: Revision,
    /// Why it ended, if it has.
    pub(crate) ended: Option<StoreError>,
}

impl History {
    /// Begins to write down what a watch after a revision tells.
    pub(crate) fn new(after: Revision) -> Self {
        Self { after, progress: after, ..Self::default() }
    }

    /// The revision to resume after.
    pub(crate) fn reached(&self) -> Revision {
        self.events.last().map_or(self.after, |event| event.revision)
    }

    /// Reads a watch until an event of at least `until` has come, or it ends.
    pub(crate) async fn read_until(&mut self, stream: &mut WatchStream, until: Revision) {
        while self.reached() < until && self.ended.is_none() {
            self.read_one(stream).await;
        }
    }

    /// Reads one message, and checks it against those before.
    pub(crate) async fn read_one(&mut self, stream: &mut WatchStream) {
        match within(stream.next()).await {
            Some(Ok(WatchMessage::Events(events))) => {
                assert!(!events.is_empty(), "a message without events");
                for event in events {
                    assert!(event.revision > self.after, "revision {} before the start", event.revision);
                    assert!(
                        event.revision > self.progress,
                        "revision {} after progress {}",
                        event.revision,
                        self.progress
                    );
                    // One write changes one key in this contract, so revisions are strictly ascending.
                    assert!(event.revision > self.reached(), "revision {} out of order", event.revision);
                    self.events.push(event);
                }
            }
            Some(Ok(WatchMessage::Progress(revision))) => {
                assert!(revision >= self.progress.max(self.reached()), "progress went back to {revision}");
                self.progress = revision;
            }
            Some(Err(error)) => self.ended = Some(error),
            None => panic!("a watch ended without saying why"),
        }
    }

    /// Checks that this is what happened after `self.after`, up to where it has come: no event is missing
    /// or made up, and each tells the state before it rightly. `whole` is the history since revision `since`
    /// when the store was empty.
    pub(crate) fn check(&self, whole: &BTreeMap<Revision, Written>) {
        let mut state: BTreeMap<&str, (Revision, Option<&[u8]>)> = BTreeMap::new();
        let mut told = self.events.iter();
        for (revision, written) in whole.range(..=self.reached()) {
            let previous = state.insert(&written.key, (*revision, written.value.as_deref()));
            if *revision <= self.after {
                continue;
            }
            let event = told.next().unwrap_or_else(|| panic!("revision {revision} is missing"));
            assert_eq!((event.revision, &*event.key), (*revision, &*written.key), "a gap or a made-up event");
            assert_eq!(value_of(event.entry.as_ref()), written.value.as_deref(), "at revision {revision}");
            let before = previous.filter(|(_, value)| value.is_some());
            assert_eq!(
                event.previous.as_ref().map(|entry| (entry.revision, &entry.value[..])),
                before.map(|(revision, value)| (revision, value.expect("it was checked to be there"))),
                "before revision {revision}"
            );
        }
        assert!(told.next().is_none(), "an event that nobody has written");
    }
}

fn value_of(entry: Option<&Arc<Entry>>) -> Option<&[u8]> {
    entry.map(|entry| &entry.value[..])
}

/// An acknowledged write, by its revision: what a writer knows to have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// What it wrote.
    pub(crate) key: String,
    /// The new value; `None` for a deletion.
    pub(crate) value: Option<Vec<u8>>,
}
