//! Rules 4 and 5: fresh and old reads, lists of one state; and what compaction leaves.

use std::time::Duration;

use super::{PREFIX, create, delete, key, update, value, within};
use crate::store::{At, ListOptions, Listing, Store, StoreError};

fn spelled(listing: &Listing) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    listing
        .entries
        .iter()
        .map(|entry| (entry.key.strip_prefix(PREFIX).unwrap().to_owned(), text(&entry.value)))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn list(store: &impl Store, options: ListOptions) -> Listing {
    within(store.list(PREFIX, &options)).await.unwrap()
}

pub(crate) async fn an_empty_store_lists_nothing(store: &impl Store) {
    let listing = list(store, ListOptions::default()).await;
    assert_eq!((listing.entries.len(), listing.remaining), (0, 0));
    assert_eq!(listing.revision, within(store.current_revision()).await.unwrap());
}

pub(crate) async fn lists_are_sorted_and_of_one_revision(store: &impl Store) {
    for name in ["ns/b", "ns/a.b", "ns/a-b", "ns/a", "ns/B", "ns-2/a"] {
        create(store, name, "x").await;
    }
    let listing = list(store, ListOptions::default()).await;
    let names: Vec<_> = spelled(&listing).into_iter().map(|(name, _)| name).collect();
    // Byte order: `-` and `.` come before `/`, capitals before small letters.
    assert_eq!(names, ["ns-2/a", "ns/B", "ns/a", "ns/a-b", "ns/a.b", "ns/b"]);
    assert_eq!(listing.revision, within(store.current_revision()).await.unwrap());
    assert_eq!(listing.remaining, 0);
}

pub(crate) async fn prefixes_are_apart(store: &impl Store) {
    for other in
        ["/registry/core/configmapsx/ns/a", "/registry/core/configmap/ns/a", "/registry/apps/configmaps/a"]
    {
        within(store.create(other, value("other"), None)).await.unwrap();
    }
    create(store, "ns/a", "1").await;
    create(store, "ns2/a", "2").await;
    let count =
        async |prefix: &str| within(store.list(prefix, &Default::default())).await.unwrap().entries.len();
    assert_eq!(count(PREFIX).await, 2);
    assert_eq!(count(&key("ns/")).await, 1);
    assert_eq!(count(&key("ns")).await, 2);
    assert_eq!(count("/registry/core/configmaps").await, 3);
    assert_eq!(count("/registry/").await, 5);
    assert_eq!(count("/registry/none/").await, 0);
}

pub(crate) async fn pages_belong_to_one_revision(store: &impl Store) {
    for name in ["a", "b", "c", "d", "e"] {
        create(store, name, "old").await;
    }
    let limit = Some(2);
    let first = list(store, ListOptions { limit, ..Default::default() }).await;
    assert_eq!(spelled(&first), pairs(&[("a", "old"), ("b", "old")]));
    assert_eq!(first.remaining, 3);

    // What happens between pages is not in them.
    let revision_of = |name| async move {
        within(store.get(&key(name), At::Latest)).await.unwrap().entry.unwrap().revision
    };
    update(store, "c", "new", revision_of("c").await).await;
    delete(store, "d", revision_of("d").await).await;
    create(store, "bb", "new").await;

    let at = At::Exact(first.revision);
    let second = list(store, ListOptions { at, limit, after_key: Some(key("b")) }).await;
    assert_eq!(spelled(&second), pairs(&[("c", "old"), ("d", "old")]));
    assert_eq!((second.revision, second.remaining), (first.revision, 1));
    let third = list(store, ListOptions { at, limit, after_key: Some(key("d")) }).await;
    assert_eq!(spelled(&third), pairs(&[("e", "old")]));
    assert_eq!((third.revision, third.remaining), (first.revision, 0));
    let beyond = list(store, ListOptions { at, limit, after_key: Some(key("e")) }).await;
    assert_eq!((beyond.entries.len(), beyond.remaining), (0, 0));
}

pub(crate) async fn exact_reads_see_the_past(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    let third = create(store, "b", "1").await;
    let fourth = delete(store, "a", second).await;
    for (revision, state) in [
        (first, pairs(&[("a", "1")])),
        (second, pairs(&[("a", "2")])),
        (third, pairs(&[("a", "2"), ("b", "1")])),
        (fourth, pairs(&[("b", "1")])),
    ] {
        let listing = list(store, ListOptions { at: At::Exact(revision), ..Default::default() }).await;
        assert_eq!((spelled(&listing), listing.revision), (state.clone(), revision));
        let got = within(store.get(&key("a"), At::Exact(revision))).await.unwrap();
        let there = state.iter().find(|(name, _)| name == "a").map(|(_, text)| text.clone());
        assert_eq!(got.entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()), there);
    }
}

pub(crate) async fn not_older_than_waits(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let got = within(store.get(&key("a"), At::NotOlderThan(first))).await.unwrap();
    assert!(got.revision >= first && got.entry.is_some());
    let write = async {
        // Any order is right; this one lets the read begin first where it can.
        tokio::task::yield_now().await;
        create(store, "b", "1").await
    };
    let b = key("b");
    let (read, second) = tokio::join!(within(store.get(&b, At::NotOlderThan(first + 1))), write);
    assert_eq!(read.unwrap().entry.unwrap().revision, second);
    let any = within(store.get(&key("a"), At::Any)).await.unwrap();
    assert!(any.revision <= second);
}

pub(crate) async fn a_future_revision_is_refused(store: &impl Store) {
    let revision = create(store, "a", "1").await;
    let asked = revision + 1000;
    let error = within(store.get(&key("a"), At::NotOlderThan(asked))).await.unwrap_err();
    assert!(matches!(error, StoreError::Future { asked: told, .. } if told == asked), "{error:?}");
    let options = ListOptions { at: At::Exact(asked), ..Default::default() };
    let error = within(store.list(PREFIX, &options)).await.unwrap_err();
    assert!(matches!(error, StoreError::Future { .. }), "{error:?}");
}

pub(crate) async fn compaction_forgets_history_and_keeps_state(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    let third = create(store, "b", "1").await;
    let fourth = update(store, "a", "3", second).await;
    within(store.compact(third)).await.unwrap();

    let options = |at| ListOptions { at, ..Default::default() };
    let error = within(store.list(PREFIX, &options(At::Exact(second)))).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { asked, .. } if asked == second), "{error:?}");
    let error = within(store.get(&key("a"), At::Exact(first))).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error:?}");
    // The revision of the compaction itself is kept, and everything since.
    assert_eq!(spelled(&list(store, options(At::Exact(third))).await), pairs(&[("a", "2"), ("b", "1")]));
    assert_eq!(spelled(&list(store, options(At::Exact(fourth))).await), pairs(&[("a", "3"), ("b", "1")]));
    assert_eq!(spelled(&list(store, options(At::Latest)).await), pairs(&[("a", "3"), ("b", "1")]));
    assert_eq!(create(store, "c", "1").await, fourth + 1);

    // Compacting what is compacted already does no harm.
    if let Err(error) = within(store.compact(second)).await {
        assert!(matches!(error, StoreError::Compacted { .. }), "{error:?}");
    }
    let error = within(store.compact(fourth + 100)).await.unwrap_err();
    assert!(matches!(error, StoreError::Future { .. }), "{error:?}");
    tokio::time::timeout(Duration::from_secs(5), store.get(&key("a"), At::Latest)).await.unwrap().unwrap();
}
