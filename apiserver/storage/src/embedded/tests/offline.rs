//! Verify, repair, backup and restore on real files.

use std::{os::unix::fs::FileExt, path::Path, time::Duration};

use bytes::Bytes;

use super::{open, real, try_open};
use crate::{
    embedded::{OpenError, REVISION_BUMP, Repaired, backup, log::segment_name, repair, restore, verify},
    store::{At, ListOptions, Store, StoreError},
};

async fn filled(dir: &Path, writes: usize) {
    let store = open(dir);
    for number in 0..writes {
        store
            .create(&format!("/registry/things/{number:03}"), Bytes::from(vec![9; 100]), None)
            .await
            .unwrap();
    }
    store.close().await;
}

/// Overwrites some bytes of a segment.
fn scratch(dir: &Path, sequence: u64, offset: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(dir.join(segment_name(sequence))).unwrap();
    file.write_all_at(b"scratched", offset).unwrap();
}

#[tokio::test]
async fn a_sound_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 50).await;
    let report = verify(dir.path(), &*real()).unwrap();
    assert_eq!((report.revision, report.entries, report.damage.len()), (50, 50, 0));
    assert_eq!(repair(dir.path(), &real()).unwrap(), Repaired::Nothing(report));
}

#[tokio::test]
async fn repair_salvages_what_is_whole_and_keeps_the_old_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    filled(&dir, 50).await;
    // In the middle of the second write's value: the first frame takes 184 bytes.
    scratch(&dir, 1, 64 + 184 + 100);
    assert!(matches!(try_open(&dir), Err(OpenError::Damaged(_))));
    let report = verify(&dir, &*real()).unwrap();
    assert_eq!((report.revision, report.entries), (50, 49));
    assert_eq!(report.lost, [(2, 2)]);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].offset, 64 + 184);

    let Repaired::Rebuilt { report: repaired, revision, kept } = repair(&dir, &real()).unwrap() else {
        panic!("nothing repaired")
    };
    assert_eq!(repaired, report);
    assert_eq!(revision, 50 + REVISION_BUMP);
    assert!(kept.join(segment_name(1)).exists());
    let store = open(&dir);
    let listing = store.list("/registry/things/", &ListOptions::default()).await.unwrap();
    assert_eq!(listing.entries.len(), 49);
    assert!(store.get("/registry/things/001", At::Latest).await.unwrap().entry.is_none());
    assert_eq!(store.create("/registry/things/001", Bytes::new(), None).await.unwrap(), revision + 1);
    let resumed = store.watch("/", 50, false).await.err();
    assert!(matches!(resumed, Some(StoreError::Compacted { .. })), "{resumed:?}");
    drop(store);
    assert_eq!(verify(&dir, &*real()).unwrap().damage, []);
}

#[tokio::test]
async fn repair_says_whose_writes_were_lost() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let store = open(&dir);
    let mut revision = store.create("/registry/a", Bytes::from("1"), None).await.unwrap();
    for value in ["2", "3"] {
        revision = store.update("/registry/a", Bytes::from(value), revision, None).await.unwrap();
    }
    drop(store);
    // 32 + 28 + 11 + 1 bytes are 72: the second frame, in its value.
    scratch(&dir, 1, 64 + 72 + 60);
    let Repaired::Rebuilt { report, .. } = repair(&dir, &real()).unwrap() else { panic!("nothing repaired") };
    assert_eq!(report.lost, [(2, 2)]);
    assert_eq!(report.doubtful.into_iter().collect::<Vec<_>>(), ["/registry/a"]);
    let entry = open(&dir).get("/registry/a", At::Latest).await.unwrap().entry.unwrap();
    assert_eq!(entry.value, "3", "the last write was whole");
}

#[tokio::test]
async fn repair_does_without_identity_or_segment_header() {
    for damage in ["identity", "header", "missing segment"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("store");
        filled(&dir, 50).await;
        match damage {
            "identity" => std::fs::remove_file(dir.join("store")).unwrap(),
            "header" => scratch(&dir, 1, 10),
            _ => std::fs::remove_file(dir.join(segment_name(1))).unwrap(),
        }
        let Repaired::Rebuilt { report, .. } = repair(&dir, &real()).unwrap() else { panic!("{damage}") };
        assert!(!report.damage.is_empty(), "{damage}");
        let entries = open(&dir).list("/", &ListOptions::default()).await.unwrap().entries.len();
        assert_eq!(entries, report.entries, "{damage}");
        if damage == "missing segment" {
            assert_eq!(report.lost.len(), 1, "{damage}");
            assert!(entries > 20, "{damage}");
        } else {
            assert_eq!(entries, 50, "{damage}");
        }
    }
}

#[tokio::test]
async fn a_backup_of_a_running_store_is_restored_with_its_times_to_live() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, file, again) =
        (parent.path().join("store"), parent.path().join("backup"), parent.path().join("again"));
    let store = open(&dir);
    store.create("/registry/a", Bytes::from("1"), None).await.unwrap();
    store.create("/registry/event", Bytes::from("2"), Some(Duration::from_secs(600))).await.unwrap();
    assert_eq!(backup(&dir, &file, &*real()).unwrap().entries, 2, "beside the running store");
    assert!(matches!(backup(&dir, &file, &*real()), Err(OpenError::NotEmpty(_))), "never over another");
    store.backup(&parent.path().join("inside")).await.unwrap();

    for file in [file, parent.path().join("inside")] {
        let revision = restore(&file, &again, 1000, &real()).unwrap();
        assert_eq!(revision, 1002);
        assert!(matches!(restore(&file, &again, 1000, &real()), Err(OpenError::NotEmpty(_))));
        let beyond = restore(&file, &parent.path().join("beyond"), u64::MAX - 1, &real());
        assert!(matches!(beyond, Err(OpenError::Io { .. })), "{beyond:?}");
        let restored = open(&again);
        let entry = restored.get("/registry/event", At::Latest).await.unwrap().entry.unwrap();
        let left = restored.ttl_left(&entry).unwrap();
        assert!(left > Duration::from_secs(500) && left <= Duration::from_secs(601), "{left:?}");
        assert_eq!(restored.create("/registry/b", Bytes::new(), None).await.unwrap(), 1003);
        drop(restored);
        std::fs::remove_dir_all(&again).unwrap();
    }
}

#[tokio::test]
async fn a_store_in_use_is_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    assert!(matches!(repair(dir.path(), &real()), Err(OpenError::InUse(_))));
    assert!(matches!(verify(Path::new("/nowhere/at/all"), &*real()), Err(OpenError::Missing(_))));
}
