//! The property test: any sequence of operations ends as it does in the naive store.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{PREFIX, key, value, within};
use crate::{
    memory::MemoryStore,
    store::{At, Got, ListOptions, Listing, Revision, Store, StoreError},
};

/// What a client may do. Revisions are relative, so that they make sense in every state.
#[derive(Debug, Clone)]
enum Operation {
    Create {
        name: u8,
    },
    /// At the entry's own revision, or `off` by some.
    Update {
        name: u8,
        off: u64,
    },
    Delete {
        name: u8,
        off: u64,
    },
    Get {
        name: u8,
        back: Option<u64>,
    },
    List {
        limit: Option<usize>,
        after: Option<u8>,
        back: Option<u64>,
    },
    Compact {
        back: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = 0u8..8;
    let off = prop_oneof![6 => Just(0u64), 1 => 1u64..4];
    let back = prop::option::of(0u64..12);
    prop_oneof![
        4 => name.clone().prop_map(|name| Operation::Create { name }),
        4 => (name.clone(), off.clone()).prop_map(|(name, off)| Operation::Update { name, off }),
        2 => (name.clone(), off).prop_map(|(name, off)| Operation::Delete { name, off }),
        2 => (name.clone(), back.clone()).prop_map(|(name, back)| Operation::Get { name, back }),
        3 => (prop::option::of(1usize..5), prop::option::of(name), back)
            .prop_map(|(limit, after, back)| Operation::List { limit, after, back }),
        1 => (0u64..8).prop_map(|back| Operation::Compact { back }),
    ]
}

/// An answer, free of what implementations may word differently.
#[derive(Debug, PartialEq)]
enum Answer {
    Written(Revision),
    Got(Got),
    Listed(Listing),
    Done,
    Exists(Revision),
    Conflict(Option<Revision>),
    Compacted,
    Future,
    Other(String),
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyExists(entry) => Self::Exists(entry.revision),
            StoreError::Conflict { current, .. } => Self::Conflict(current.map(|entry| entry.revision)),
            StoreError::Compacted { .. } => Self::Compacted,
            StoreError::Future { .. } => Self::Future,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Runs sequences of operations on the store and on the model side by side, one after another on the same
/// pair, so that later sequences meet what earlier ones left.
pub(crate) async fn any_history_is_as_in_the_model(store: &impl Store) {
    let begin = within(store.current_revision()).await.unwrap();
    let model = MemoryStore::starting_at(begin);
    let mut runner = TestRunner::deterministic();
    let mut compacted = begin;
    // Twenty, and as many more as `PROPTEST_CASES` asks of every property.
    for _ in 0..ProptestConfig::default().cases.div_ceil(13) {
        let operations = prop::collection::vec(operation(), 1..30).new_tree(&mut runner).unwrap().current();
        for (step, operation) in operations.iter().enumerate() {
            let current = within(model.current_revision()).await.unwrap();
            let expected = run(&model, operation, step, current, &mut compacted.clone()).await;
            let answer = run(store, operation, step, current, &mut compacted).await;
            assert_eq!(answer, expected, "step {step}, {operation:?} of {operations:#?}");
        }
    }
    compare_histories(store, &model, compacted).await;
}

async fn run(
    store: &impl Store,
    operation: &Operation,
    step: usize,
    current: Revision,
    compacted: &mut Revision,
) -> Answer {
    let name = |name: &u8| key(&format!("n{name}"));
    // Not before what is known to be compacted: how long older states stay readable is each store's choice.
    let at = |back: &Option<u64>, compacted: Revision| match back {
        Some(back) => At::Exact(current.saturating_sub(*back).max(compacted)),
        None => At::Latest,
    };
    let held = async |key: &str| {
        within(store.get(key, At::Latest)).await.unwrap().entry.map_or(1, |entry| entry.revision)
    };
    let outcome = match operation {
        Operation::Create { name: to } => {
            within(store.create(&name(to), value(&format!("{step}")), None)).await.map(Answer::Written)
        }
        Operation::Update { name: to, off } => {
            let expected = held(&name(to)).await + off;
            within(store.update(&name(to), value(&format!("{step}")), expected, None))
                .await
                .map(Answer::Written)
        }
        Operation::Delete { name: to, off } => {
            let expected = held(&name(to)).await + off;
            within(store.delete(&name(to), expected)).await.map(Answer::Written)
        }
        Operation::Get { name: of, back } => {
            within(store.get(&name(of), at(back, *compacted))).await.map(Answer::Got)
        }
        Operation::List { limit, after, back } => {
            let at = at(back, *compacted);
            let options = ListOptions { at, limit: *limit, after_key: after.as_ref().map(name) };
            within(store.list(PREFIX, &options)).await.map(Answer::Listed)
        }
        Operation::Compact { back } => {
            let to = current.saturating_sub(*back);
            // Compacting backwards is each store's choice to refuse or to ignore.
            if to <= *compacted {
                return Answer::Done;
            }
            *compacted = to;
            within(store.compact(to)).await.map(|()| Answer::Done)
        }
    };
    outcome.unwrap_or_else(Answer::from)
}

/// What is left of history is the same on both sides, too.
async fn compare_histories(store: &impl Store, model: &MemoryStore, after: Revision) {
    let last = within(model.current_revision()).await.unwrap();
    let mut whole = BTreeMap::new();
    for (side, mut stream) in [
        ("model", within(model.watch(PREFIX, after, false)).await.unwrap()),
        ("store", within(store.watch(PREFIX, after, false)).await.unwrap()),
    ] {
        let rest = usize::try_from(last - after).unwrap();
        whole.insert(side, super::events(&mut stream, rest).await);
    }
    assert_eq!(whole["store"], whole["model"]);
}
