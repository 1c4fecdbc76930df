//! The cache over the naive store.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;

use super::*;
use crate::{
    memory::MemoryStore,
    store::{At, ListOptions},
    testing::{self, create, delete, key, update, value, within},
};

/// Projects the value's length: enough to see that indexes are right.
struct Length;

impl Projector for Length {
    type Index = usize;
    fn project(&self, entry: &Entry) -> usize {
        entry.value.len()
    }
}

fn options() -> CacherOptions {
    CacherOptions { progress_interval: Duration::from_millis(20), ..CacherOptions::default() }
}

async fn cache_over(store: MemoryStore, options: CacherOptions) -> Arc<Cacher<Length>> {
    Cacher::start(Arc::new(Backend::Memory(store)), Length, options).await.unwrap()
}

testing::conformance!(cache_over(MemoryStore::new(), options()));

#[tokio::test]
async fn an_idle_watch_is_told_of_progress() {
    testing::watches::an_idle_watch_is_told_of_progress(&*cache_over(MemoryStore::new(), options()).await)
        .await;
}

#[tokio::test]
async fn a_slow_watcher_is_ended_and_counted() {
    let cache = cache_over(MemoryStore::new(), CacherOptions { watcher_events: 20, ..options() }).await;
    testing::watches::a_slow_watcher_is_ended(&*cache, 20).await;
    assert_eq!(cache.stats().slow_watchers, 1);
    assert_eq!(cache.stats().watchers, 0);
}

/// Names of items with their index.
fn spelled(items: &[Arc<Item<usize>>]) -> Vec<(&str, usize)> {
    items.iter().map(|item| (item.entry.key.strip_prefix(testing::PREFIX).unwrap(), item.index)).collect()
}

async fn next_events(watch: &mut ItemWatch<usize>) -> Vec<(String, Option<usize>, Option<usize>)> {
    loop {
        if let ItemMessage::Events(events) = within(watch.next()).await.unwrap().unwrap() {
            let index = |item: &Option<Arc<Item<usize>>>| item.as_ref().map(|item| item.index);
            return events
                .iter()
                .map(|event| {
                    let name = event.key().strip_prefix(testing::PREFIX).unwrap();
                    (name.to_owned(), index(&event.item), index(&event.previous))
                })
                .collect();
        }
    }
}

#[tokio::test]
async fn a_filtered_list_counts_what_passes() {
    let cache = cache_over(MemoryStore::new(), options()).await;
    for number in 0..10 {
        create(&*cache, &format!("n{number}"), if number % 2 == 0 { "even" } else { "odd" }).await;
    }
    let even: &(dyn Fn(&Item<usize>) -> bool + Send + Sync) = &|item| item.index == 4;
    let page = ListOptions { limit: Some(2), ..ListOptions::default() };
    let first = Cacher::list(&cache, testing::PREFIX, &page, Some(even)).await.unwrap();
    assert_eq!(spelled(&first.items), [("n0", 4), ("n2", 4)]);
    assert_eq!(first.remaining, 7);
    let page = ListOptions { at: At::Exact(first.revision), limit: Some(9), after_key: Some(key("n2")) };
    let second = Cacher::list(&cache, testing::PREFIX, &page, Some(even)).await.unwrap();
    assert_eq!(spelled(&second.items), [("n4", 4), ("n6", 4), ("n8", 4)]);
    assert_eq!(second.remaining, 0);
    // A prefix wider than one resource is read through, with the same filter.
    let wide = Cacher::list(&cache, "/registry/", &ListOptions::default(), Some(even)).await.unwrap();
    assert_eq!(wide.items.len(), 5);
}

#[tokio::test]
async fn snapshot_and_watch_are_one() {
    let cache = cache_over(MemoryStore::new(), options()).await;
    let first = create(&*cache, "ns/a", "1").await;
    create(&*cache, "other/a", "1").await;
    let (listing, mut watch) =
        cache.list_and_watch(&key("ns/"), At::Latest, None, CacheWatchOptions::default()).await.unwrap();
    assert_eq!(spelled(&listing.items), [("ns/a", 1)]);
    create(&*cache, "other/b", "1").await;
    let updated = update(&*cache, "ns/a", "two", first).await;
    assert_eq!(next_events(&mut watch).await, [("ns/a".to_owned(), Some(3), Some(1))]);
    delete(&*cache, "ns/a", updated).await;
    assert_eq!(next_events(&mut watch).await, [("ns/a".to_owned(), None, Some(3))]);
}

#[tokio::test]
async fn watchers_of_one_object_and_with_an_interest_see_theirs() {
    let cache = cache_over(MemoryStore::new(), options()).await;
    let after = cache.revision();
    let exact = CacheWatchOptions { exact: true, ..CacheWatchOptions::default() };
    let mut one = Cacher::watch(&cache, &key("ns/a"), after, exact).await.unwrap();
    let long: Interest<usize> =
        Arc::new(|event| [&event.item, &event.previous].into_iter().flatten().any(|item| item.index > 3));
    let interested = CacheWatchOptions { interest: Some(long), ..CacheWatchOptions::default() };
    let mut long = Cacher::watch(&cache, testing::PREFIX, after, interested).await.unwrap();
    create(&*cache, "ns/ab", "1").await;
    let first = create(&*cache, "ns/a", "12345").await;
    assert_eq!(next_events(&mut one).await, [("ns/a".to_owned(), Some(5), None)]);
    assert_eq!(next_events(&mut long).await, [("ns/a".to_owned(), Some(5), None)]);
    let second = update(&*cache, "ns/a", "1", first).await;
    assert_eq!(next_events(&mut long).await, [("ns/a".to_owned(), Some(1), Some(5))]);
    delete(&*cache, "ns/a", second).await;
    assert_eq!(next_events(&mut one).await, [("ns/a".to_owned(), Some(1), Some(5))]);
    assert_eq!(next_events(&mut one).await, [("ns/a".to_owned(), None, Some(1))]);
}

#[tokio::test]
async fn a_new_cache_knows_the_stores_history() {
    let store = MemoryStore::new();
    let first = create(&store, "a", "1").await;
    let second = update(&store, "a", "12", first).await;
    delete(&store, "a", second).await;
    create(&store, "b", "1").await;
    let cache = cache_over(store, options()).await;
    let mut watch =
        Cacher::watch(&cache, testing::PREFIX, first, CacheWatchOptions::default()).await.unwrap();
    assert_eq!(
        next_events(&mut watch).await,
        [
            ("a".to_owned(), Some(2), Some(1)),
            ("a".to_owned(), None, Some(2)),
            ("b".to_owned(), Some(1), None),
        ]
    );
}

#[tokio::test]
async fn a_new_cache_over_a_compacted_store_knows_the_rest() {
    let store = MemoryStore::new();
    let first = create(&store, "a", "1").await;
    let second = update(&store, "a", "12", first).await;
    update(&store, "a", "123", second).await;
    store.compact(second).await.unwrap();
    let cache = cache_over(store, options()).await;
    let after = |after| Cacher::watch(&cache, testing::PREFIX, after, CacheWatchOptions::default());
    let mut watch = after(second).await.unwrap();
    assert_eq!(next_events(&mut watch).await, [("a".to_owned(), Some(3), Some(2))]);
    assert!(matches!(after(first).await, Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn heartbeats_evict_nobody_elses_history() {
    let ring = RingOptions { max_events: 10, ..RingOptions::default() };
    let cache = cache_over(MemoryStore::new(), CacherOptions { ring, ..options() }).await;
    let first = create(&*cache, "a", "1").await;
    let lease = "/registry/coordination.k8s.io/leases/kube-node-lease/n1";
    let mut revision = within(cache.store().create(lease, value("0"), None)).await.unwrap();
    let lease_first = revision;
    for _ in 0..50 {
        revision = within(cache.store().update(lease, value("1"), revision, None)).await.unwrap();
    }
    within(Store::get(&*cache, lease, At::NotOlderThan(revision))).await.unwrap();
    let open = |prefix, after| Cacher::watch(&cache, prefix, after, CacheWatchOptions::default());
    let mut watch = open(testing::PREFIX, first - 1).await.unwrap();
    assert_eq!(next_events(&mut watch).await, [("a".to_owned(), Some(1), None)]);
    let evicted = open("/registry/coordination.k8s.io/leases/", lease_first).await;
    assert!(matches!(evicted, Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn the_slow_start_of_a_list_is_finished_after_history_is_gone() {
    // The ring holds almost nothing, so that the second page comes from the state kept for it.
    let ring = RingOptions { max_events: 1, ..RingOptions::default() };
    let below = MemoryStore::new();
    let cache = cache_over(below.clone(), CacherOptions { ring, ..options() }).await;
    for number in 0..6 {
        create(&*cache, &format!("n{number}"), "1").await;
    }
    let page = ListOptions { limit: Some(3), ..ListOptions::default() };
    let first = Cacher::list(&cache, testing::PREFIX, &page, None).await.unwrap();
    for number in 0..6 {
        create(&*cache, &format!("m{number}"), "1").await;
    }
    below.compact(below.current_revision().await.unwrap()).await.unwrap();
    let page = ListOptions { at: At::Exact(first.revision), limit: Some(9), after_key: Some(key("n2")) };
    let second = Cacher::list(&cache, testing::PREFIX, &page, None).await.unwrap();
    assert_eq!(spelled(&second.items), [("n3", 1), ("n4", 1), ("n5", 1)]);
}

#[tokio::test]
async fn stopping_ends_watches() {
    let cache = cache_over(MemoryStore::new(), options()).await;
    let mut watch =
        Cacher::watch(&cache, testing::PREFIX, cache.revision(), CacheWatchOptions::default()).await.unwrap();
    cache.stop();
    within(cache.join()).await;
    assert!(matches!(within(watch.next()).await, Some(Err(StoreError::Unavailable(_)))));
    assert!(within(watch.next()).await.is_none());
}
