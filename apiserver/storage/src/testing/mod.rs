//! The conformance suite: the store's contract as tests, which every implementation passes.
//!
//! An implementation runs all of it with one line in its own test module:
//!
//! ```ignore
//! crate::testing::conformance!(async { Box::new(MemoryStore::new()) });
//! ```
//!
//! The expression makes, for each test, a future of something that dereferences to a fresh, empty
//! [`Store`](crate::Store): a box, or a fixture that also holds a directory or a child process.

pub(crate) mod history;
pub(crate) mod model;
pub(crate) mod reads;
pub(crate) mod ttl;
pub(crate) mod watches;
pub(crate) mod writes;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;

use crate::store::{Event, Revision, Store, WatchMessage, WatchStream};

/// Makes a `#[tokio::test]` of each test of the suite.
macro_rules! conformance {
    ($make:expr) => {
        $crate::testing::conformance!(@each $make,
            writes: create_then_get, create_of_an_existing_key_fails, update_replaces,
                update_at_another_revision_fails, update_of_nothing_fails, delete_removes,
                delete_at_another_revision_fails, revisions_count_successful_writes,
                a_deleted_key_can_be_made_again, values_are_any_bytes, a_value_too_large_is_refused,
                an_acknowledged_write_is_seen, concurrent_updates_of_one_key_are_linear,
                concurrent_creates_have_one_winner;
            reads: an_empty_store_lists_nothing, lists_are_sorted_and_of_one_revision,
                prefixes_are_apart, pages_belong_to_one_revision, exact_reads_see_the_past,
                not_older_than_waits, a_future_revision_is_refused,
                compaction_forgets_history_and_keeps_state;
            watches: a_watch_replays_the_past, a_watch_follows_the_present, a_watch_from_the_future_waits,
                a_watch_sees_its_prefix_only, a_watch_resumes_anywhere, list_then_watch_misses_nothing,
                a_watch_of_compacted_history_is_refused, nobody_waits_for_a_reader,
                histories_under_concurrent_writers_are_whole;
            ttl: an_entry_expires_with_an_event, a_write_without_ttl_takes_it_away, a_write_renews_the_ttl;
            model: any_history_is_as_in_the_model;
        );
    };
    (@each $make:expr, $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                $crate::testing::$module::$test(&*$make.await).await;
            }
        )+)+
    };
}
pub(crate) use conformance;

/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key of the suite's resource.
pub(crate) fn key(name: &str) -> String {
    format!("/registry/core/configmaps/{name}")
}

/// Everything in the suite's resource.
pub(crate) const PREFIX: &str = "/registry/core/configmaps/";

/// A value.
pub(crate) fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The outcome of something that must not take forever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("must not take so long")
}

/// An event in a form that a test can spell: revision, key, value after, value before.
pub(crate) type Told = (Revision, String, Option<String>, Option<String>);

pub(crate) fn told(event: &Event) -> Told {
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).expect("test values must be text");
    if let Some(entry) = &event.entry {
        assert_eq!((entry.revision, &entry.key), (event.revision, &event.key), "an entry of its event");
    }
    if let Some(previous) = &event.previous {
        assert!(previous.revision < event.revision && previous.key == event.key, "an entry before its event");
    }
    (
        event.revision,
        event.key.strip_prefix(PREFIX).unwrap_or(&event.key).to_owned(),
        event.entry.as_ref().map(|entry| text(&entry.value)),
        event.previous.as_ref().map(|entry| text(&entry.value)),
    )
}

/// Reads exactly so many events off a watch.
pub(crate) async fn events(stream: &mut WatchStream, count: usize) -> Vec<Told> {
    let mut found = Vec::new();
    while found.len() < count {
        match within(stream.next()).await.expect("the watch must go on").expect("the watch must go on") {
            WatchMessage::Events(events) => {
                assert!(!events.is_empty(), "no message is empty");
                found.extend(events.iter().map(|event| told(event)));
            }
            WatchMessage::Progress(_) => {}
        }
    }
    assert_eq!(found.len(), count, "more events than were made: {found:?}");
    found
}

/// Opens a watch of the suite's resource.
pub(crate) async fn watch(store: &impl Store, after: Revision) -> WatchStream {
    within(store.watch(PREFIX, after, false)).await.expect("must watch")
}

/// Creates an entry whose value is `text`.
pub(crate) async fn create(store: &impl Store, name: &str, text: &str) -> Revision {
    within(store.create(&key(name), value(text), None)).await.expect("must create")
}

/// Updates an entry.
pub(crate) async fn update(store: &impl Store, name: &str, text: &str, expected: Revision) -> Revision {
    within(store.update(&key(name), value(text), expected, None)).await.expect("must update")
}

/// Deletes an entry.
pub(crate) async fn delete(store: &impl Store, name: &str, expected: Revision) -> Revision {
    within(store.delete(&key(name), expected)).await.expect("must delete")
}
