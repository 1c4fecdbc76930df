//! Rules 6 and 7: a watch never skips and never repeats, and nobody waits for a reader.

use std::{collections::BTreeMap, pin::pin};

use futures_util::{FutureExt, StreamExt, future::join_all};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    PREFIX, Told, create, delete, events,
    history::{History, Written},
    key, update, value, watch, within,
};
use crate::store::{At, ListOptions, Revision, Store, StoreError};

fn event(revision: Revision, name: &str, after: Option<&str>, before: Option<&str>) -> Told {
    (revision, name.to_owned(), after.map(str::to_owned), before.map(str::to_owned))
}

pub(crate) async fn a_watch_replays_the_past(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    let third = delete(store, "a", second).await;
    let fourth = create(store, "a", "3").await;
    let mut watching = watch(store, first - 1).await;
    assert_eq!(
        events(&mut watching, 4).await,
        [
            event(first, "a", Some("1"), None),
            event(second, "a", Some("2"), Some("1")),
            event(third, "a", None, Some("2")),
            event(fourth, "a", Some("3"), None),
        ]
    );
    let mut watching = watch(store, second).await;
    assert_eq!(events(&mut watching, 2).await[0], event(third, "a", None, Some("2")));
}

pub(crate) async fn a_watch_follows_the_present(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let mut watching = watch(store, first).await;
    let second = update(store, "a", "2", first).await;
    assert_eq!(events(&mut watching, 1).await, [event(second, "a", Some("2"), Some("1"))]);
    let third = delete(store, "a", second).await;
    assert_eq!(events(&mut watching, 1).await, [event(third, "a", None, Some("2"))]);
    let fourth = create(store, "a", "3").await;
    assert_eq!(events(&mut watching, 1).await, [event(fourth, "a", Some("3"), None)]);
    // Failed writes make no event: the next one is that of the next success.
    within(store.create(&key("a"), value("4"), None)).await.unwrap_err();
    let fifth = create(store, "b", "1").await;
    assert_eq!(events(&mut watching, 1).await, [event(fifth, "b", Some("1"), None)]);
}

pub(crate) async fn a_watch_from_the_future_waits(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let mut watching = watch(store, first + 2).await;
    let second = update(store, "a", "2", first).await;
    let third = update(store, "a", "3", second).await;
    let fourth = update(store, "a", "4", third).await;
    assert_eq!(events(&mut watching, 1).await, [event(fourth, "a", Some("4"), Some("3"))]);
}

pub(crate) async fn a_watch_sees_its_prefix_only(store: &impl Store) {
    let first = create(store, "one/a", "1").await;
    let open = async |prefix: String| within(store.watch(&prefix, first - 1, false)).await.unwrap();
    let mut namespace = open(key("one/")).await;
    let mut object = open(key("one/a")).await;
    let mut other = open(key("two/")).await;
    let mut wide = open("/registry/".to_owned()).await;
    let second = create(store, "one-more/a", "1").await;
    within(store.create("/registry/core/configmapsx/a", value("1"), None)).await.unwrap();
    let fourth = create(store, "two/a", "1").await;
    let fifth = create(store, "one/b", "1").await;
    let sixth = update(store, "one/a", "2", first).await;

    let a = [event(first, "one/a", Some("1"), None), event(sixth, "one/a", Some("2"), Some("1"))];
    let b = event(fifth, "one/b", Some("1"), None);
    assert_eq!(events(&mut namespace, 3).await, [a[0].clone(), b, a[1].clone()]);
    assert_eq!(events(&mut object, 2).await, a);
    assert_eq!(events(&mut other, 1).await, [event(fourth, "two/a", Some("1"), None)]);
    assert_eq!(events(&mut wide, 6).await[1].0, second);
}

pub(crate) async fn a_watch_resumes_anywhere(store: &impl Store) {
    let mut revision = create(store, "a", "0").await;
    let first = revision;
    for round in 1..20 {
        revision = update(store, "a", &round.to_string(), revision).await;
    }
    for after in first - 1..=revision {
        let mut watching = watch(store, after).await;
        let rest = usize::try_from(revision - after).unwrap();
        let told = events(&mut watching, rest).await;
        assert!(told.iter().map(|event| event.0).eq(after + 1..=revision), "after {after}: {told:?}");
    }
}

pub(crate) async fn list_then_watch_misses_nothing(store: &impl Store) {
    create(store, "first", "1").await;
    let writer = async {
        for round in 0..40 {
            create(store, &format!("n{round:03}"), "1").await;
        }
        within(store.current_revision()).await.unwrap()
    };
    let reader = async {
        let mut found = Vec::new();
        for _ in 0..10 {
            let listing = within(store.list(PREFIX, &ListOptions::default())).await.unwrap();
            let stream = watch(store, listing.revision).await;
            found.push((listing, stream));
            tokio::task::yield_now().await;
        }
        found
    };
    let (last, opened) = tokio::join!(writer, reader);
    for (listing, mut stream) in opened {
        let rest = usize::try_from(last - listing.revision).unwrap();
        let told = events(&mut stream, rest).await;
        assert!(told.iter().map(|event| event.0).eq(listing.revision + 1..=last));
        assert_eq!(listing.entries.len() + told.len(), 41);
    }
}

pub(crate) async fn a_watch_of_compacted_history_is_refused(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let second = update(store, "a", "2", first).await;
    let third = update(store, "a", "3", second).await;
    let fourth = update(store, "a", "4", third).await;
    within(store.compact(third)).await.unwrap();
    // Refused at once, or by the first thing that the stream says.
    let outcome = match within(store.watch(PREFIX, first, false)).await {
        Ok(mut stream) => within(stream.next()).await.unwrap().map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(StoreError::Compacted { .. })), "{outcome:?}");
    let mut watching = watch(store, third).await;
    assert_eq!(events(&mut watching, 1).await, [event(fourth, "a", Some("4"), Some("3"))]);
}

/// A reader that reads nothing holds nobody up, and what it then reads is whole as far as it goes.
pub(crate) async fn nobody_waits_for_a_reader(store: &impl Store) {
    let mut revision = create(store, "a", "0").await;
    let after = revision;
    let mut stream = watch(store, after).await;
    let mut whole = BTreeMap::from([(revision, written("a", Some("0")))]);
    for round in 1..300 {
        let text = round.to_string();
        revision = update(store, "a", &text, revision).await;
        whole.insert(revision, written("a", Some(&text)));
    }
    let mut history = History::new(after);
    history.read_until(&mut stream, revision).await;
    history.check(&whole);
    assert!(
        matches!(history.ended, None | Some(StoreError::SlowWatcher)),
        "ended for another reason: {:?}",
        history.ended
    );
    // Whoever was ended resumes where it was.
    if history.ended.is_some() {
        let mut resumed = History::new(history.reached());
        resumed.read_until(&mut watch(store, history.reached()).await, revision).await;
        resumed.check(&whole);
    }
}

/// For stores whose watchers may be `behind` by few events: the slow one is ended, with the right error.
pub(crate) async fn a_slow_watcher_is_ended(store: &impl Store, behind: usize) {
    let mut revision = create(store, "a", "0").await;
    let mut stream = watch(store, revision).await;
    let mut history = History::new(revision);
    for round in 0..behind * 2 + 10 {
        revision = update(store, "a", &round.to_string(), revision).await;
    }
    // Where the publisher is a task of its own, a read at the last revision says that it has come so far.
    within(store.get(&key("a"), At::NotOlderThan(revision))).await.unwrap();
    history.read_until(&mut stream, revision).await;
    assert!(matches!(history.ended, Some(StoreError::SlowWatcher)), "{:?}", history.ended);
    assert!(within(stream.next()).await.is_none(), "nothing comes after the end");
}

/// For stores that tell how far they are: an advance elsewhere reaches an idle watch.
pub(crate) async fn an_idle_watch_is_told_of_progress(store: &impl Store) {
    let first = create(store, "a", "1").await;
    let mut idle = within(store.watch(PREFIX, first, true)).await.unwrap();
    let elsewhere = within(store.create("/registry/core/secrets/a", value("1"), None)).await.unwrap();
    let mut history = History::new(first);
    while history.progress < elsewhere {
        history.read_one(&mut idle).await;
    }
    assert_eq!(history.events.len(), 0);
    let third = update(store, "a", "2", first).await;
    history.read_until(&mut idle, third).await;
    assert_eq!(history.events.len(), 1);
}

fn written(name: &str, text: Option<&str>) -> Written {
    Written { key: key(name), value: text.map(|text| text.as_bytes().to_vec()) }
}

/// Six writers at random on the same few keys, while watchers come, go and resume.
pub(crate) async fn histories_under_concurrent_writers_are_whole(store: &impl Store) {
    let start = create(store, "first", "1").await;
    let mut writers = pin!(
        join_all((0..6).map(|number| async move {
            let mut acknowledged = Vec::new();
            let mut random = SmallRng::seed_from_u64(number);
            for round in 0..40 {
                let name = format!("ns{}/n{}", random.random_range(0..2), random.random_range(0..5));
                acknowledged
                    .extend(write_at_random(store, &name, &format!("{number}-{round}"), &mut random).await);
            }
            acknowledged
        }))
        .fuse()
    );
    let mut random = SmallRng::seed_from_u64(99);
    let mut histories: Vec<(History, _)> = Vec::new();
    let mut finished: Vec<History> = Vec::new();
    let acknowledged = loop {
        // Watchers begin at any time after any revision that there has been; some are left and resumed.
        let current = within(store.current_revision()).await.unwrap();
        let after = match histories.len() {
            0 => start,
            _ => random.random_range(start..=current),
        };
        if histories.len() < 12 {
            histories.push((History::new(after), within(store.watch(PREFIX, after, true)).await.unwrap()));
        } else {
            let (mut history, mut stream) = histories.swap_remove(random.random_range(0..histories.len()));
            while let Some(Some(message)) = stream.next().now_or_never() {
                let message = message.unwrap();
                let mut one = futures_util::stream::iter([Ok(message)]).boxed();
                history.read_one(&mut one).await;
            }
            let after = history.reached();
            finished.push(history);
            histories.push((History::new(after), within(store.watch(PREFIX, after, true)).await.unwrap()));
        }
        if let Some(acknowledged) = (&mut writers).now_or_never() {
            break acknowledged;
        }
        tokio::task::yield_now().await;
    };
    let mut whole: BTreeMap<Revision, Written> = BTreeMap::from([(start, written("first", Some("1")))]);
    for (revision, written) in acknowledged.into_iter().flatten() {
        assert!(whole.insert(revision, written).is_none(), "revision {revision} was given twice");
    }
    let last = *whole.keys().last().unwrap();
    assert!(whole.keys().copied().eq(start..=last), "a revision without a write");
    for (mut history, mut stream) in histories {
        history.read_until(&mut stream, last).await;
        assert!(history.ended.is_none(), "{:?}", history.ended);
        finished.push(history);
    }
    for history in &finished {
        history.check(&whole);
    }
}

/// Creates, updates or deletes, whatever fits what is there; `None` if another writer was faster.
async fn write_at_random(
    store: &impl Store,
    name: &str,
    text: &str,
    random: &mut SmallRng,
) -> Option<(Revision, Written)> {
    let there = within(store.get(&key(name), At::Latest)).await.unwrap().entry;
    let (outcome, text) = match there {
        None => (within(store.create(&key(name), value(text), None)).await, Some(text)),
        Some(entry) if random.random_bool(0.3) => {
            (within(store.delete(&key(name), entry.revision)).await, None)
        }
        Some(entry) => {
            (within(store.update(&key(name), value(text), entry.revision, None)).await, Some(text))
        }
    };
    match outcome {
        Ok(revision) => Some((revision, written(name, text))),
        Err(StoreError::Conflict { .. } | StoreError::AlreadyExists(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}
