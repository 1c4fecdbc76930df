//! Which conditions a node has, and for which thresholds pods have to go, out of what is measured. Pure.
//!
//! As `pkg/kubelet/eviction` has it: the condition of a threshold that is met holds from then on until it has not been
//! met for the transition period. A soft threshold has to be met for its grace period before a pod goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::thresholds::{Met, Observation, Pressure, Signal, Threshold, Thresholds};
use crate::pod::restart::elapsed;

/// Remembers since when thresholds are met, and when conditions last had a cause.
#[derive(Debug, Default)]
pub struct Conditions {
    last_met: BTreeMap<&'static str, Timestamp>,
    /// By place in the list of thresholds: since when it is met without a break.
    first_met: BTreeMap<usize, Timestamp>,
    /// Those for which pods had to go, until what has to be reclaimed is there.
    acting: BTreeSet<usize>,
}

impl Conditions {
    /// Takes a round of observations in: which thresholds pods have to go for, and which conditions hold. The order of
    /// the steps is upstream's (`managerImpl.synchronize`): a condition holds as soon as a threshold is met, also a soft
    /// one within its grace period; and a threshold that was acted upon stays met until its minimum is reclaimed.
    pub fn observe(
        &mut self,
        thresholds: &Thresholds,
        observed: &BTreeMap<Signal, Observation>,
        transition: Duration,
        now: Timestamp,
    ) -> (Vec<Met>, Pressure) {
        let met: Vec<(usize, &Threshold, Observation)> = thresholds
            .all()
            .iter()
            .enumerate()
            .filter_map(|(place, threshold)| {
                let found = *observed.get(&threshold.signal)?;
                threshold.is_met(found, self.acting.contains(&place)).then_some((place, threshold, found))
            })
            .collect();
        self.first_met.retain(|known, _| met.iter().any(|(place, ..)| place == known));
        for (place, threshold, _) in &met {
            self.first_met.entry(*place).or_insert(now);
            self.last_met.insert(threshold.signal.condition(), now);
        }
        let holds = |name: &str| {
            self.last_met.get(name).is_some_and(|last| *last == now || elapsed(*last, now) < transition)
        };
        let pressure = Pressure {
            memory: holds("MemoryPressure"),
            disk: holds("DiskPressure"),
            pid: holds("PIDPressure"),
        };
        let is_due = |(place, threshold, _): &(usize, &Threshold, Observation)| {
            self.first_met.get(place).is_some_and(|first| elapsed(*first, now) >= threshold.grace)
        };
        let due: Vec<_> = met.into_iter().filter(is_due).collect();
        self.acting = due.iter().map(|(place, ..)| *place).collect();
        let told = due.into_iter().map(|(_, threshold, found)| Met {
            signal: threshold.signal,
            threshold: threshold.quantity(found),
            available: found.available,
            soft: !threshold.grace.is_zero(),
        });
        (told.collect(), pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pod::testing::at,
        pressure::thresholds::{Given, pairs},
    };

    const TRANSITION: Duration = Duration::from_secs(300);

    fn flag(text: &str, between: char) -> Given {
        pairs(&[text.to_owned()], between).unwrap()
    }

    fn memory(available: u64) -> BTreeMap<Signal, Observation> {
        [(Signal::MemoryAvailable, Observation { available, capacity: 1000 << 20 })].into()
    }

    #[test]
    fn a_soft_threshold_is_acted_upon_once_its_grace_period_is_over() {
        let thresholds = Thresholds::hard(&flag("memory.available<100Mi", '<')).unwrap();
        let thresholds = thresholds
            .with(&flag("memory.available<300Mi", '<'), &flag("memory.available=30s", '='), &Given::new())
            .unwrap();
        let mut conditions = Conditions::default();
        let mut look = |available: u64, second| {
            let (met, pressure) =
                conditions.observe(&thresholds, &memory(available << 20), TRANSITION, at(second));
            (met.iter().map(|met| met.soft).collect::<Vec<_>>(), pressure.memory)
        };
        assert_eq!(look(400, 0), (vec![], false));
        assert_eq!(look(200, 10), (vec![], true), "the condition holds, but nobody has to go yet");
        assert_eq!(look(200, 39), (vec![], true));
        assert_eq!(look(400, 39), (vec![], true), "it was not met for a moment");
        assert_eq!(look(200, 50), (vec![], true), "and so it begins anew");
        assert_eq!(look(50, 60), (vec![false], true), "the hard one does not wait");
        assert_eq!(look(200, 80), (vec![true], true));
        assert_eq!(look(50, 90), (vec![false, true], true), "the hard one first");
    }

    #[test]
    fn what_was_acted_upon_stays_met_until_the_minimum_is_reclaimed() {
        let thresholds = Thresholds::hard(&flag("memory.available<100Mi", '<')).unwrap();
        let thresholds =
            thresholds.with(&Given::new(), &Given::new(), &flag("memory.available=50Mi", '=')).unwrap();
        let mut conditions = Conditions::default();
        let mut look = |available: u64, second| {
            let observed = memory(available << 20);
            let (met, _) = conditions.observe(&thresholds, &observed, TRANSITION, at(second));
            (met.len(), thresholds.is_short(Signal::MemoryAvailable, &observed))
        };
        assert_eq!(look(120, 0), (0, true), "above the threshold nobody has to go");
        assert_eq!(look(99, 10), (1, true));
        assert_eq!(look(149, 20), (1, true));
        assert_eq!(look(150, 30), (0, false));
        assert_eq!(look(120, 40), (0, true));
    }

    #[test]
    fn a_condition_outlasts_its_cause_by_the_transition_period() {
        let mut conditions = Conditions::default();
        let thresholds = Thresholds::default();
        let mut look =
            |available, second| conditions.observe(&thresholds, &memory(available), TRANSITION, at(second));
        assert_eq!(look(100 << 20, 0), (vec![], Pressure::default()), "exactly enough is enough");
        let (met, pressure) = look(99 << 20, 10);
        assert!(pressure.memory && !pressure.disk);
        assert_eq!(
            met[0].message(),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 99Mi. "
        );
        assert_eq!(look(500 << 20, 200), (vec![], Pressure { memory: true, ..Pressure::default() }));
        assert_eq!(look(500 << 20, 311), (vec![], Pressure::default()));
    }

    #[test]
    fn shares_are_of_the_capacity() {
        let mut conditions = Conditions::default();
        let observed = [
            (Signal::NodeFsAvailable, Observation { available: 9, capacity: 100 }),
            (Signal::NodeFsInodesFree, Observation { available: 5, capacity: 100 }),
        ];
        let (met, pressure) =
            conditions.observe(&Thresholds::default(), &observed.into(), Duration::ZERO, at(0));
        assert_eq!(met.iter().map(|met| met.signal).collect::<Vec<_>>(), [Signal::NodeFsAvailable]);
        assert_eq!(pressure.names(), ["DiskPressure"]);
    }
}
