//! The items of one resource by key: a sorted map whose clones are free.
//!
//! Two levels of shared vectors. A reader clones one pointer and pages over a state that never changes; the
//! writer copies a chunk (and the row of chunks) only when a reader holds the one it is about to change. One
//! pointer per item, where a persistent tree pays a node for each, and a list is a walk over arrays.

use std::sync::Arc;

use super::Item;

/// A chunk that grows past this is split. Large enough that the row of chunks stays short, small enough
/// that copying a chunk costs about a microsecond.
const CHUNK_MAX: usize = 256;

type Chunk<I> = Arc<Vec<Arc<Item<I>>>>;

/// Items by key, in byte order.
#[derive(Debug)]
pub(super) struct Sorted<I> {
    chunks: Arc<Vec<Chunk<I>>>,
    len: usize,
}

/// A place between two items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    chunk: usize,
    offset: usize,
}

impl<I> Clone for Sorted<I> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<I> Default for Sorted<I> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<I> Sorted<I> {
    /// Makes a map of items that are sorted already.
    pub(super) fn from_sorted(items: Vec<Arc<Item<I>>>) -> Self {
        let len = items.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(CHUNK_MAX / 2));
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            // Half full, as a split leaves them: the next insertion need not split again.
            chunks.push(Arc::new(items.by_ref().take(CHUNK_MAX / 2).collect()));
        }
        Self { chunks: Arc::new(chunks), len }
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first place whose item is not `before`, which must be true for a beginning of the map only.
    fn place(&self, before: impl Fn(&str) -> bool) -> Place {
        let chunk = self
            .chunks
            .partition_point(|chunk| before(&chunk.last().expect("a chunk must not be empty").entry.key));
        let offset =
            self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|item| before(&item.entry.key)));
        Place { chunk, offset }
    }

    /// How many items come before a place.
    fn rank(&self, place: Place) -> usize {
        self.chunks[..place.chunk].iter().map(|chunk| chunk.len()).sum::<usize>() + place.offset
    }

    /// The item under a key.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Item<I>>> {
        let place = self.place(|other| other < key);
        let item = self.chunks.get(place.chunk)?.get(place.offset)?;
        (*item.entry.key == *key).then_some(item)
    }

    /// Puts an item in; answers the one that it replaces.
    pub(super) fn insert(&mut self, item: Arc<Item<I>>) -> Option<Arc<Item<I>>> {
        let key = &*item.entry.key;
        let Place { chunk, offset } = self.place(|other| other < key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunk == chunks.len() {
            // After everything: into the last chunk, or a new one if that is full.
            match chunks.last_mut() {
                Some(last) if last.len() < CHUNK_MAX => Arc::make_mut(last).push(item),
                _ => chunks.push(Arc::new(vec![item])),
            }
            self.len += 1;
            return None;
        }
        let target = Arc::make_mut(&mut chunks[chunk]);
        if *target[offset].entry.key == *key {
            return Some(std::mem::replace(&mut target[offset], item));
        }
        target.insert(offset, item);
        self.len += 1;
        if target.len() > CHUNK_MAX {
            let upper = target.split_off(CHUNK_MAX / 2);
            chunks.insert(chunk + 1, Arc::new(upper));
        }
        None
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Item<I>>> {
        self.get(key)?;
        let Place { chunk, offset } = self.place(|other| other < key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let target = Arc::make_mut(&mut chunks[chunk]);
        let removed = target.remove(offset);
        self.len -= 1;
        if target.is_empty() {
            chunks.remove(chunk);
        } else if let Some(next) = chunks.get(chunk + 1)
            && chunks[chunk].len() + next.len() <= CHUNK_MAX / 4
        {
            // Two nearly empty neighbours become one, so that deletions do not leave a long row behind.
            let next = chunks.remove(chunk + 1);
            Arc::make_mut(&mut chunks[chunk]).extend(next.iter().cloned());
        }
        Some(removed)
    }

    /// The items under `prefix` that sort after `after`, and how many there are of them.
    pub(super) fn range<'a>(
        &'a self,
        prefix: &str,
        after: Option<&str>,
    ) -> (impl Iterator<Item = &'a Arc<Item<I>>> + use<'a, I>, usize) {
        let from = self.place(|key| key < prefix || after.is_some_and(|after| key <= after));
        let to = self.place(|key| key < prefix || key.starts_with(prefix)).max(from);
        let count = self.rank(to) - self.rank(from);
        let items = self.chunks[from.chunk..].iter().flat_map(|chunk| chunk.iter());
        (items.skip(from.offset).take(count), count)
    }

    /// Every item.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Item<I>>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::store::Entry;

    fn item(key: &str, revision: u64) -> Arc<Item<()>> {
        Arc::new(Item {
            entry: Arc::new(Entry { key: key.into(), value: Bytes::new(), revision }),
            index: (),
        })
    }

    fn keys<'a>(items: impl Iterator<Item = &'a Arc<Item<()>>>) -> Vec<String> {
        items.map(|item| item.entry.key.to_string()).collect()
    }

    proptest! {
        /// Inserting and removing like a `BTreeMap`, with splits and merges; an old clone stays as it was.
        #[test]
        fn behaves_like_a_btree_map(operations in prop::collection::vec((any::<bool>(), 0u16..2000), 1..3000)) {
            let mut sorted = Sorted::default();
            let mut model = BTreeMap::new();
            let mut kept = None;
            for (at, (insert, number)) in operations.iter().enumerate() {
                let key = format!("/{number:05}");
                // Long runs of removals, so that chunks empty and merge.
                if *insert || at % 1000 < 600 {
                    let replaced = sorted.insert(item(&key, at as u64)).map(|item| item.entry.revision);
                    prop_assert_eq!(replaced, model.insert(key, at as u64));
                } else {
                    prop_assert_eq!(sorted.remove(&key).map(|item| item.entry.revision), model.remove(&key));
                }
                prop_assert_eq!(sorted.len(), model.len());
                if at == operations.len() / 2 {
                    kept = Some((sorted.clone(), model.clone()));
                }
            }
            prop_assert_eq!(keys(sorted.iter()), model.keys().cloned().collect::<Vec<_>>());
            for (key, revision) in &model {
                prop_assert_eq!(sorted.get(key).map(|item| item.entry.revision), Some(*revision));
            }
            let (old, old_model) = kept.unwrap();
            prop_assert_eq!(keys(old.iter()), old_model.keys().cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn ranges_by_prefix_and_position() {
        let mut all: Vec<_> =
            (0..1000).map(|n| item(&format!("/{}/{n:04}", if n % 2 == 0 { "a" } else { "b" }), n)).collect();
        all.sort_by(|left, right| left.entry.key.cmp(&right.entry.key));
        let sorted = Sorted::from_sorted(all);
        let (items, count) = sorted.range("/b/", None);
        assert_eq!((count, items.count()), (500, 500));
        let (items, count) = sorted.range("/a/", Some("/a/0994"));
        assert_eq!((keys(items), count), (vec!["/a/0996".to_owned(), "/a/0998".to_owned()], 2));
        let (mut items, count) = sorted.range("/c/", None);
        assert!(items.next().is_none());
        assert_eq!(count, 0);
        let (_, count) = sorted.range("/a/", Some("/zzz"));
        assert_eq!(count, 0);
        let (_, count) = Sorted::<()>::default().range("", None);
        assert_eq!(count, 0);
    }
}
