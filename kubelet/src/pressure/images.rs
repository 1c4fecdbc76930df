//! Which images are removed when the disk fills. Pure.
//!
//! Upstream's `pkg/kubelet/images/image_gc_manager.go`: above the high threshold, images that no container uses go,
//! the longest unused first, until usage is down to the low one. An image that was seen only a short while ago
//! stays: somebody may have pulled it for a container that is about to start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use kubelet_runtime::ImageView;

use super::thresholds::Observation;
use crate::pod::restart::elapsed;

/// When images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Percent of the disk in use above which images are removed.
    pub high_percent: u64,
    /// Percent of the disk in use at which that ends.
    pub low_percent: u64,
    /// Age below which an image stays.
    pub minimum_age: Duration,
}

impl Default for ImagePolicy {
    /// Upstream's defaults.
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, minimum_age: Duration::from_secs(120) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    first_seen: Timestamp,
    last_used: Option<Timestamp>,
    size: u64,
    pinned: bool,
}

/// What is known of the node's images over time.
#[derive(Debug, Default)]
pub struct ImageRecords(BTreeMap<String, Record>);

impl ImageRecords {
    /// Takes in which images there are and which of them containers use.
    pub fn follow(&mut self, images: &[ImageView], in_use: &BTreeSet<String>, now: Timestamp) {
        let mut next = BTreeMap::new();
        for image in images {
            let known = self.0.get(&image.id);
            let last_used =
                if in_use.contains(&image.id) { Some(now) } else { known.and_then(|known| known.last_used) };
            let first_seen = known.map_or(now, |known| known.first_seen);
            let record = Record { first_seen, last_used, size: image.size, pinned: image.pinned };
            next.insert(image.id.clone(), record);
        }
        self.0 = next;
    }

    /// The images to remove, in order, for that many bytes. What [`Self::follow`] saw in use just now stays.
    #[must_use]
    pub fn victims(&self, wanted: u64, minimum_age: Duration, now: Timestamp) -> Vec<String> {
        let mut unused: Vec<(&String, &Record)> = self
            .0
            .iter()
            .filter(|(_, record)| {
                !record.pinned
                    && record.last_used.is_none_or(|last| last < now)
                    && elapsed(record.first_seen, now) >= minimum_age
            })
            .collect();
        unused.sort_by_key(|(_, record)| (record.last_used, record.first_seen));
        let mut freed = 0u64;
        let enough = |(_, record): &(&String, &Record)| {
            let more = freed < wanted;
            freed = freed.saturating_add(record.size);
            more
        };
        unused.into_iter().take_while(enough).map(|(id, _)| id.clone()).collect()
    }
}

/// How many bytes of images have to go; 0 below the high threshold.
#[must_use]
pub fn surplus(disk: Observation, policy: ImagePolicy) -> u64 {
    if disk.capacity == 0 {
        return 0;
    }
    let used_percent = 100 - (disk.available.min(disk.capacity) / (disk.capacity / 100).max(1)).min(100);
    if policy.high_percent >= 100 || used_percent < policy.high_percent {
        return 0;
    }
    (disk.capacity / 100 * (100 - policy.low_percent)).saturating_sub(disk.available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::at;

    fn image(id: &str, size: u64) -> ImageView {
        ImageView { id: id.into(), names: vec![], size, user: String::new(), pinned: id == "pause" }
    }

    #[test]
    fn removal_begins_at_the_high_threshold_and_aims_at_the_low_one() {
        let left = |available| surplus(Observation { available, capacity: 1000 }, ImagePolicy::default());
        assert_eq!((left(160), left(150), left(100)), (0, 50, 100));
        let off = ImagePolicy { high_percent: 100, ..ImagePolicy::default() };
        assert_eq!(surplus(Observation { available: 0, capacity: 1000 }, off), 0);
    }

    #[test]
    fn the_longest_unused_go_first_and_used_pinned_and_new_ones_stay() {
        let images = [image("a", 10), image("b", 10), image("used", 10), image("pause", 10)];
        let mut records = ImageRecords::default();
        let use_of = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        records.follow(&images, &use_of(&["b", "used"]), at(0));
        let with_new = [&images[..], &[image("new", 10)]].concat();
        records.follow(&with_new, &use_of(&["used"]), at(200));
        let age = Duration::from_secs(120);
        assert_eq!(records.victims(u64::MAX, age, at(200)), ["a", "b"]);
        assert_eq!(records.victims(5, age, at(200)), ["a"], "no more than is needed");
        assert_eq!(records.victims(0, age, at(200)), [""; 0]);
        assert_eq!(
            records.victims(u64::MAX, age, at(400)).len(),
            4,
            "what is not in use any more, as of then"
        );
    }
}
