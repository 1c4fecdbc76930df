//! Rule 8: time to live. In real time, since stores keep time themselves; each test takes a few seconds.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{create, events, key, value, watch, within};
use crate::store::{At, Store, WatchMessage};

/// Short, but not below what etcd grants (its shortest lease is two seconds by default).
const TTL: Duration = Duration::from_secs(2);

pub(crate) async fn an_entry_expires_with_an_event(store: &impl Store) {
    let stays = create(store, "stays", "1").await;
    let begun = Instant::now();
    let revision = within(store.create(&key("goes"), value("1"), Some(TTL))).await.unwrap();
    let mut watching = watch(store, revision).await;
    let expired = events(&mut watching, 1).await;
    assert!(begun.elapsed() >= TTL, "expired after {:?}", begun.elapsed());
    assert_eq!(expired, [(revision + 1, "goes".to_owned(), None, Some("1".to_owned()))]);
    assert_eq!(within(store.get(&key("goes"), At::Latest)).await.unwrap().entry, None);
    let entry = within(store.get(&key("stays"), At::Latest)).await.unwrap().entry.unwrap();
    assert_eq!(entry.revision, stays);
}

pub(crate) async fn a_write_without_ttl_takes_it_away(store: &impl Store) {
    let first = within(store.create(&key("a"), value("1"), Some(TTL))).await.unwrap();
    let second = within(store.update(&key("a"), value("2"), first, None)).await.unwrap();
    // Something that expires at the same time or later tells when the first time would have been over.
    let third = within(store.create(&key("b"), value("1"), Some(TTL))).await.unwrap();
    let mut watching = watch(store, third).await;
    let expired = events(&mut watching, 1).await;
    assert_eq!(expired[0].1, "b");
    let entry = within(store.get(&key("a"), At::Latest)).await.unwrap().entry.unwrap();
    assert_eq!(entry.revision, second);
}

pub(crate) async fn a_write_renews_the_ttl(store: &impl Store) {
    let mut revision = within(store.create(&key("a"), value("1"), Some(TTL))).await.unwrap();
    let mut watching = watch(store, revision).await;
    let mut renewed = Instant::now();
    // Three renewals, each at three quarters of the time: without them it would be gone.
    for _ in 0..3 {
        tokio::time::sleep(TTL * 3 / 4).await;
        renewed = Instant::now();
        revision = within(store.update(&key("a"), value("2"), revision, Some(TTL))).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event: &super::Told| event.2.is_some()) {
        if let WatchMessage::Events(events) = within(watching.next()).await.unwrap().unwrap() {
            seen.extend(events.iter().map(|event| super::told(event)));
        }
    }
    assert!(renewed.elapsed() >= TTL, "expired {:?} after the last renewal", renewed.elapsed());
    assert_eq!(seen.len(), 4, "{seen:?}");
}
