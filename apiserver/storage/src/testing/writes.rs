//! Rules 1 to 3: one counter, expectations, acknowledged writes.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{create, delete, key, update, value, within};
use crate::store::{At, MAX_VALUE_BYTES, Store, StoreError};

async fn text_of(store: &impl Store, name: &str) -> Option<String> {
    let got = within(store.get(&key(name), At::Latest)).await.unwrap();
    got.entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

pub(crate) async fn create_then_get(store: &impl Store) {
    assert_eq!(within(store.get(&key("a"), At::Latest)).await.unwrap().entry, None);
    let revision = create(store, "a", "1").await;
    let got = within(store.get(&key("a"), At::Latest)).await.unwrap();
    let entry = got.entry.unwrap();
    assert_eq!((&*entry.key, &entry.value[..], entry.revision), (&*key("a"), &b"1"[..], revision));
    assert_eq!(got.revision, revision);
}

pub(crate) async fn create_of_an_existing_key_fails(store: &impl Store) {
    let revision = create(store, "a", "1").await;
    let error = within(store.create(&key("a"), value("2"), None)).await.unwrap_err();
    let StoreError::AlreadyExists(entry) = &error else { panic!("{error:?}") };
    assert_eq!((&entry.value[..], entry.revision), (&b"1"[..], revision));
    assert!(error.is_definite());
    assert_eq!(text_of(store, "a").await.unwrap(), "1");
}

pub(crate) async fn update_replaces(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    assert!(second > first);
    let entry = within(store.get(&key("a"), At::Latest)).await.unwrap().entry.unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"2"[..], second));
}

pub(crate) async fn update_at_another_revision_fails(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    for wrong in [first, second + 1, 0] {
        let error = within(store.update(&key("a"), value("3"), wrong, None)).await.unwrap_err();
        let StoreError::Conflict { key: at, current } = error else { panic!("{error:?}") };
        let current = current.unwrap();
        assert_eq!((&*at, &current.value[..], current.revision), (&*key("a"), &b"2"[..], second));
    }
    assert_eq!(text_of(store, "a").await.unwrap(), "2");
}

pub(crate) async fn update_of_nothing_fails(store: &impl Store) {
    let revision = create(store, "a", "1").await;
    let error = within(store.update(&key("b"), value("2"), revision, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { current: None, .. }), "{error:?}");
    assert_eq!(text_of(store, "b").await, None);
}

pub(crate) async fn delete_removes(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = delete(store, "a", first).await;
    assert!(second > first);
    let got = within(store.get(&key("a"), At::Latest)).await.unwrap();
    assert_eq!((got.entry, got.revision), (None, second));
}

pub(crate) async fn delete_at_another_revision_fails(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    let error = within(store.delete(&key("a"), first)).await.unwrap_err();
    let StoreError::Conflict { current: Some(current), .. } = error else { panic!("{error:?}") };
    assert_eq!(current.revision, second);
    let error = within(store.delete(&key("b"), first)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { current: None, .. }), "{error:?}");
    assert_eq!(text_of(store, "a").await.unwrap(), "2");
}

pub(crate) async fn revisions_count_successful_writes(store: &impl Store) {
    let first = create(store, "a", "1").await;
    within(store.create(&key("a"), value("2"), None)).await.unwrap_err();
    within(store.update(&key("a"), value("2"), first + 9, None)).await.unwrap_err();
    within(store.delete(&key("b"), first)).await.unwrap_err();
    assert_eq!(within(store.current_revision()).await.unwrap(), first);
    assert_eq!(create(store, "b", "1").await, first + 1);
    assert_eq!(update(store, "a", "2", first).await, first + 2);
    assert_eq!(delete(store, "b", first + 1).await, first + 3);
    assert_eq!(within(store.current_revision()).await.unwrap(), first + 3);
}

pub(crate) async fn a_deleted_key_can_be_made_again(store: &impl Store) {
    let first = create(store, "a", "1").await;
    delete(store, "a", first).await;
    let third = create(store, "a", "2").await;
    let error = within(store.update(&key("a"), value("3"), first, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "the old life's revision: {error:?}");
    update(store, "a", "3", third).await;
}

pub(crate) async fn values_are_any_bytes(store: &impl Store) {
    let all: Vec<u8> = (0..=255).collect();
    let large = vec![0xff; 300_000];
    for (name, bytes) in [("ns/é", &all), ("ns/large", &large), ("ns/empty", &Vec::new())] {
        within(store.create(&key(name), Bytes::from(bytes.clone()), None)).await.unwrap();
        let entry = within(store.get(&key(name), At::Latest)).await.unwrap().entry.unwrap();
        assert_eq!(&entry.value[..], &bytes[..], "{name}");
    }
}

pub(crate) async fn a_value_too_large_is_refused(store: &impl Store) {
    let huge = Bytes::from(vec![b'x'; MAX_VALUE_BYTES + 1]);
    let error = within(store.create(&key("a"), huge.clone(), None)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    let first = create(store, "a", "1").await;
    let error = within(store.update(&key("a"), huge, first, None)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    assert_eq!(text_of(store, "a").await.unwrap(), "1");
}

pub(crate) async fn an_acknowledged_write_is_seen(store: &impl Store) {
    let mut revision = create(store, "a", "0").await;
    for round in 1..50 {
        revision = update(store, "a", &round.to_string(), revision).await;
        let got = within(store.get(&key("a"), At::Latest)).await.unwrap();
        assert_eq!(got.entry.unwrap().revision, revision);
        let listing = within(store.list(&key("a"), &Default::default())).await.unwrap();
        assert_eq!(listing.entries[0].revision, revision);
        assert!(listing.revision >= revision);
    }
}

/// A counter that several clients read and increment: every success counts once, whatever was in between.
pub(crate) async fn concurrent_updates_of_one_key_are_linear(store: &impl Store) {
    create(store, "counter", "0").await;
    let increments = join_all((0..8).map(|_| async {
        let mut done = 0;
        while done < 10 {
            let entry = within(store.get(&key("counter"), At::Latest)).await.unwrap().entry.unwrap();
            let count: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let next = value(&(count + 1).to_string());
            match within(store.update(&key("counter"), next, entry.revision, None)).await {
                Ok(_) => done += 1,
                Err(StoreError::Conflict { current: Some(current), .. }) => {
                    assert!(current.revision > entry.revision);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        done
    }))
    .await;
    assert_eq!(text_of(store, "counter").await.unwrap(), increments.iter().sum::<u32>().to_string());
}

pub(crate) async fn concurrent_creates_have_one_winner(store: &impl Store) {
    for round in 0..10 {
        let name = format!("round-{round}");
        let create = || async { within(store.create(&key(&name), value("x"), None)).await };
        let outcomes = join_all((0..6).map(|_| create())).await;
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(won.len(), 1);
        for lost in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let StoreError::AlreadyExists(entry) = lost else { panic!("{lost:?}") };
            assert_eq!(entry.revision, *won[0]);
        }
    }
}
