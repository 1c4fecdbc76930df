//! Damaged files: what is cut off, and what is refused.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{open, try_open};
use crate::{
    embedded::{Damage, EmbeddedStore, OpenError, log::SEGMENT_HEADER, record},
    store::{At, Store},
};

/// Bytes of one frame of [`filled`]: every write has its own.
fn frame_bytes() -> u64 {
    let key_and_value = "/things/000".len() + 100;
    record::frame_len(28 + key_and_value) as u64
}

/// A store of `writes` keys, each written by itself.
async fn filled(dir: &Path, writes: usize) {
    let store = open(dir);
    for number in 0..writes {
        store.create(&format!("/things/{number:03}"), Bytes::from(vec![9; 100]), None).await.unwrap();
    }
    store.close().await;
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn segment(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(crate::embedded::log::segment_name(sequence))
}

fn damage(result: Result<EmbeddedStore, OpenError>) -> Damage {
    match result {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("{other}"),
        Ok(store) => panic!("{store:?} was opened"),
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10).await;
    let third = SEGMENT_HEADER as u64 + 2 * frame_bytes();
    // In the header and in the payload of the third write.
    for offset in [third + 5, third + 60] {
        flip(&segment(dir.path(), 1), offset);
        let found = damage(try_open(dir.path()));
        assert_eq!((found.file, found.offset), (segment(dir.path(), 1), third));
        flip(&segment(dir.path(), 1), offset);
    }
    let message = {
        flip(&segment(dir.path(), 1), third);
        try_open(dir.path()).unwrap_err().to_string()
    };
    assert!(message.contains("0000000000000001.log` at byte "), "{message}");
    assert!(message.contains("minik8s store verify"), "{message}");
    flip(&segment(dir.path(), 1), third);
    assert_eq!(open(dir.path()).current_revision().await.unwrap(), 10, "the refusals changed nothing");
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 10).await;
    let last = SEGMENT_HEADER as u64 + 9 * frame_bytes();
    flip(&segment(dir.path(), 1), last + 70);
    let store = open(dir.path());
    assert_eq!(store.current_revision().await.unwrap(), 9);
    assert_eq!(store.get("/things/009", At::Latest).await.unwrap().entry, None);
    assert_eq!(store.create("/things/009", Bytes::from("again"), None).await.unwrap(), 10);
    drop(store);
    assert_eq!(open(dir.path()).current_revision().await.unwrap(), 10);
}

#[tokio::test]
async fn the_end_of_a_full_segment_is_not_taken_for_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60).await;
    assert!(segment(dir.path(), 2).exists());
    let frames = (u64::from(4096_u32) - SEGMENT_HEADER as u64) / frame_bytes();
    let last = SEGMENT_HEADER as u64 + (frames - 1) * frame_bytes();
    flip(&segment(dir.path(), 1), last + 50);
    let found = damage(try_open(dir.path()));
    assert_eq!((found.file, found.offset), (segment(dir.path(), 1), last));
}

#[tokio::test]
async fn missing_files_are_noticed() {
    for missing in ["0000000000000001.log", "0000000000000002.log", "store"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 300).await;
        std::fs::remove_file(dir.path().join(missing)).unwrap();
        let found = damage(try_open(dir.path()));
        assert_eq!(found.file.parent(), Some(dir.path()), "{missing}: {found}");
    }
}

#[tokio::test]
async fn every_damaged_byte_of_a_checkpoint_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut revision = store.create("/lease", Bytes::from(vec![3; 40]), None).await.unwrap();
    while crate::embedded::recovery::Layout::read(&crate::embedded::RealIo::default(), dir.path())
        .unwrap()
        .checkpoints
        .is_empty()
    {
        revision = store.update("/lease", Bytes::from(vec![3; 40]), revision, None).await.unwrap();
        store.compact(revision).await.unwrap();
    }
    drop(store);
    let checkpoint = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
        .unwrap();
    let whole = std::fs::read(&checkpoint).unwrap();
    for offset in 0..whole.len() {
        flip(&checkpoint, offset as u64);
        match try_open(dir.path()) {
            Err(OpenError::Damaged(found)) => assert_eq!(found.file, checkpoint, "byte {offset}"),
            // Bytes between two frames carry nothing.
            Ok(store) => {
                assert_eq!(store.current_revision().await.unwrap(), revision, "byte {offset}");
                drop(store);
                break;
            }
            Err(other) => panic!("byte {offset}: {other}"),
        }
        flip(&checkpoint, offset as u64);
    }
    std::fs::write(&checkpoint, &whole[..whole.len() - 8]).unwrap();
    assert_eq!(damage(try_open(dir.path())).file, checkpoint, "cut short");
}
