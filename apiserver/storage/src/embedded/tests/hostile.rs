//! Files that anybody may have written: reading them never panics, and never makes a state that never was.
//!
//! `PROPTEST_CASES` says how many are tried; `scripts/test.sh --long` tries many.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use bytes::Bytes;
use proptest::prelude::*;

use super::{real, small};
use crate::{
    embedded::{
        EmbeddedStore, OpenError, Repaired, checkpoint,
        log::{SegmentHeader, segment_name},
        record::{self, ALIGNMENT, FRAME_HEADER, FrameHeader, Operation, Record},
        recovery, repair, verify,
    },
    store::{At, ListOptions, Revision, Store},
};

type State = BTreeMap<String, (Vec<u8>, Revision)>;

/// A store with several segments and a checkpoint, and every state that it has been in.
struct Whole {
    files: Vec<(String, Vec<u8>)>,
    states: BTreeMap<Revision, State>,
}

static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = super::open(dir.path());
        let mut state = State::new();
        let mut states = BTreeMap::from([(0, state.clone())]);
        for step in 0_u64.. {
            let key = format!("/registry/things/{}", step * 7 % 11);
            let size = usize::try_from(step * 97 % 900).unwrap();
            let value = vec![u8::try_from(step % 251).unwrap(); size];
            let current = state.get(&key).map(|(_, revision)| *revision);
            let revision = match current {
                None => store.create(&key, Bytes::from(value.clone()), None).await.unwrap(),
                Some(at) if step % 6 == 5 => store.delete(&key, at).await.unwrap(),
                Some(at) => store.update(&key, Bytes::from(value.clone()), at, None).await.unwrap(),
            };
            if current.is_some() && step % 6 == 5 {
                state.remove(&key);
            } else {
                state.insert(key, (value, revision));
            }
            states.insert(revision, state.clone());
            if step % 60 == 0 {
                store.compact(revision).await.unwrap();
            }
            let layout = recovery::Layout::read(&*real(), dir.path()).unwrap();
            if !layout.checkpoints.is_empty() && step > 100 && step % 60 == 50 {
                break;
            }
        }
        store.close().await;
        drop(store);
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
        });
        let mut files: Vec<_> = files.filter(|(name, _)| name != "lock").collect();
        files.sort();
        Whole { files, states }
    })
});

/// What happens to one file. Places are parts of its length.
#[derive(Debug, Clone)]
enum Harm {
    Flip(f64, u8),
    Overwrite(f64, Vec<u8>),
    Zero(f64, f64),
    CutOff(f64),
    Append(Vec<u8>),
    CopyOf(prop::sample::Index),
    Removal,
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = || 0.0..1.0_f64;
    let bytes = || prop::collection::vec(any::<u8>(), 1..80);
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        3 => (place(), bytes()).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        3 => (place(), place()).prop_map(|(at, length)| Harm::Zero(at, length)),
        2 => place().prop_map(Harm::CutOff),
        1 => bytes().prop_map(Harm::Append),
        1 => any::<prop::sample::Index>().prop_map(Harm::CopyOf),
        1 => Just(Harm::Removal),
    ]
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn place(length: usize, part: f64) -> usize {
    (length as f64 * part) as usize
}

fn harmed(whole: &Whole, harms: &[(prop::sample::Index, Harm)], dir: &Path) {
    let mut files: BTreeMap<_, _> = whole.files.iter().cloned().collect();
    for (which, harm) in harms {
        let (name, _) = which.get(&whole.files);
        let Some(bytes) = files.get_mut(name) else { continue };
        match harm {
            Harm::Flip(at, bit) => {
                let at = place(bytes.len(), *at);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
            Harm::Overwrite(at, with) => {
                let at = place(bytes.len(), *at);
                bytes[at..].iter_mut().zip(with).for_each(|(byte, with)| *byte = *with);
            }
            Harm::Zero(at, length) => {
                let (at, length) = (place(bytes.len(), *at), place(bytes.len(), *length));
                bytes[at..].iter_mut().take(length).for_each(|byte| *byte = 0);
            }
            Harm::CutOff(at) => bytes.truncate(place(bytes.len(), *at)),
            Harm::Append(more) => bytes.extend(more),
            Harm::CopyOf(other) => *bytes = other.get(&whole.files).1.clone(),
            Harm::Removal => drop(files.remove(name)),
        }
    }
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

async fn state(store: &EmbeddedStore) -> (Revision, State) {
    let listing = store.list("/", &ListOptions::default()).await.unwrap();
    let state = listing
        .entries
        .iter()
        .map(|entry| (entry.key.to_string(), (entry.value.to_vec(), entry.revision)))
        .collect();
    (listing.revision, state)
}

/// Opens, verifies and repairs whatever is in a directory; answers what is in it in the end.
async fn read_all_ways(dir: &Path) -> Option<(Result<Revision, ()>, State)> {
    let opened = EmbeddedStore::open(dir, &small(), real());
    if let Ok(store) = opened {
        let (revision, found) = state(&store).await;
        store.get("/", At::Exact(revision)).await.unwrap();
        store.close().await;
        return Some((Ok(revision), found));
    }
    let _report = verify(dir, &*real());
    let Ok(Repaired::Rebuilt { .. }) = repair(dir, &real()) else { return None };
    assert_eq!(verify(dir, &*real()).unwrap().damage, [], "what was repaired is sound");
    let store = EmbeddedStore::open(dir, &small(), real()).expect("what was repaired opens");
    let (_, found) = state(&store).await;
    store.close().await;
    Some((Err(()), found))
}

/// Whether what was read is a state that was, or nothing but what was written once.
fn is_true(read: Option<(Result<Revision, ()>, State)>) -> Result<(), TestCaseError> {
    match read {
        // Without any file that says so, this is no store that was lost but a new one.
        Some((Ok(0), found)) => prop_assert!(found.is_empty()),
        Some((Ok(revision), found)) => prop_assert_eq!(Some(&found), WHOLE.states.get(&revision)),
        Some((Err(()), found)) => {
            for (key, (value, _)) in found {
                let written = |state: &State| state.get(&key).is_some_and(|(once, _)| *once == value);
                prop_assert!(WHOLE.states.values().any(written), "{key} never had this value");
            }
        }
        None => {}
    }
    Ok(())
}

/// In memory where that can be had: what a disk makes of a sync is not the question here.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn record() -> impl Strategy<Value = Record> {
    let operation = prop::sample::select(vec![Operation::Put, Operation::Delete, Operation::Advance]);
    let number = || prop_oneof![3 => 0..20_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    (operation, "[a-c/]{0,3}", prop::collection::vec(any::<u8>(), 0..20), number(), number()).prop_map(
        |(operation, key, value, ttl_millis, previous)| Record {
            operation,
            key: key.into(),
            value: value.into(),
            ttl_millis,
            previous,
        },
    )
}

/// Wherever a log ends in zeros, as in the padding of a frame: they do not need to be there.
#[test]
fn a_log_may_end_in_a_padding() {
    let (last, bytes) = WHOLE.files.iter().rfind(|(name, _)| name.ends_with(".log")).unwrap();
    let in_padding = |length: &usize| {
        let padding = &bytes[*length..length.next_multiple_of(ALIGNMENT).min(bytes.len())];
        bytes[length - 1] != 0 && !padding.is_empty() && padding.iter().all(|byte| *byte == 0)
    };
    for length in (1..bytes.len()).filter(in_padding) {
        let parent = directory();
        harmed(&WHOLE, &[], parent.path());
        std::fs::write(parent.path().join(last), &bytes[..length]).unwrap();
        is_true(run(read_all_ways(parent.path()))).unwrap();
        // And writing goes on.
        if let Ok(store) = EmbeddedStore::open(parent.path(), &small(), real()) {
            run(async {
                store.create("/registry/more", Bytes::from_static(b"more"), None).await.unwrap();
                store.close().await;
            });
        }
    }
}

proptest! {
    /// Whatever happens to the files: the store is in a state that it was in, or it says that it is damaged
    /// and keeps nothing but what was written once.
    #[test]
    fn harmed_files_never_lie(
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..4),
    ) {
        let parent = directory();
        let dir = parent.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        harmed(&WHOLE, &harms, &dir);
        is_true(run(read_all_ways(&dir)))?;
    }

    /// Checksums keep accidents out, not enemies: what stands behind right ones does not panic, either.
    #[test]
    fn right_checksums_around_anything_never_panic(
        first in prop_oneof![0..4_u64, any::<u64>(), Just(u64::MAX)],
        sequence in prop_oneof![9 => Just(1_u64), 1 => Just(u64::MAX)],
        previous_end in prop_oneof![0..200_u64, any::<u64>()],
        frames in prop::collection::vec(
            (prop_oneof![3 => 0..4_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)],
             any::<u64>(), prop::collection::vec(record(), 0..4)),
            0..4,
        ),
    ) {
        let parent = directory();
        let dir = parent.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        recovery::write_identity(&*real(), &dir, 7).unwrap();
        let header = SegmentHeader { store_id: 7, sequence, first_revision: first, previous_end };
        let mut bytes = header.encode().to_vec();
        let (mut next, mut frame_bytes) = (first, Vec::new());
        for (skip, written_at, records) in frames {
            next = next.wrapping_add(skip / 2);
            record::encode_frame(&mut frame_bytes, next, written_at, &records, header.salt());
            next = next.wrapping_add(records.len() as u64);
            bytes.extend_from_slice(&frame_bytes);
        }
        bytes.extend_from_slice(&[0; 64]);
        std::fs::write(dir.join(segment_name(sequence)), bytes).unwrap();
        run(read_all_ways(&dir));
    }

    /// Bytes of any kind are a frame or none.
    #[test]
    fn any_bytes_are_a_frame_or_none(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        revision in any::<u64>(),
        salt in any::<u32>(),
    ) {
        let _ = FrameHeader::decode(&payload, salt);
        let _ = record::find_valid_frame(&payload, 0, salt, revision);
        let mut frame = Vec::new();
        record::encode_payload(&mut frame, revision, 0, &payload, salt);
        if let Some(header) = FrameHeader::decode(&frame, salt) {
            prop_assert_eq!(header.payload_len, payload.len());
            let _ = header.records(&frame[FRAME_HEADER..FRAME_HEADER + payload.len()], salt);
        }
    }

    /// The same for a checkpoint, which a backup is, too: it comes from wherever a person has it.
    #[test]
    fn any_bytes_are_a_checkpoint_or_damage(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 0..3),
    ) {
        let dir = directory();
        let path = dir.path().join("backup");
        std::fs::write(&path, &bytes).unwrap();
        prop_assert!(matches!(checkpoint::read(&*real(), &path), Err(OpenError::Damaged(_))));
        let (name, whole) =
            WHOLE.files.iter().find(|(name, _)| name.ends_with(".checkpoint")).expect("it must have one");
        let one = Whole { files: vec![(name.clone(), whole.clone())], states: BTreeMap::new() };
        harmed(&one, &harms, dir.path());
        let path = dir.path().join(name);
        if let Ok((header, snapshot)) = checkpoint::read(&*real(), &path) {
            prop_assert_eq!(header.revision, snapshot.revision);
            let found: State = snapshot.entries.iter()
                .map(|(key, entry)| (key.to_string(), (entry.value.to_vec(), entry.revision)))
                .collect();
            prop_assert_eq!(Some(&found), WHOLE.states.get(&snapshot.revision));
        }
    }
}
