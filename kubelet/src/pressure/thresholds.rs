//! When a node is short of something: signals, thresholds, and the conditions that follow. Pure.
//!
//! As `pkg/kubelet/eviction` has it: a threshold is met while less is available than it says; its condition holds
//! from then on until it has not been met for the transition period.

use std::{collections::BTreeMap, time::Duration};

use api_objects::quantity::{Format, Quantity};
use jiff::Timestamp;

use crate::pod::restart::elapsed;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that can be had without swapping. First, for it is the most urgent (upstream sorts so).
    MemoryAvailable,
    /// Bytes of the file system that holds the kubelet's directory.
    NodeFsAvailable,
    /// Inodes of it.
    NodeFsInodesFree,
    /// Bytes of the file system that holds the images.
    ImageFsAvailable,
    /// Inodes of it.
    ImageFsInodesFree,
    /// Process ids.
    PidAvailable,
}

impl Signal {
    const ALL: [(Self, &'static str); 6] = [
        (Self::MemoryAvailable, "memory.available"),
        (Self::NodeFsAvailable, "nodefs.available"),
        (Self::NodeFsInodesFree, "nodefs.inodesFree"),
        (Self::ImageFsAvailable, "imagefs.available"),
        (Self::ImageFsInodesFree, "imagefs.inodesFree"),
        (Self::PidAvailable, "pid.available"),
    ];

    /// The resource that messages name.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    /// The node condition that it raises.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "MemoryPressure",
            Self::PidAvailable => "PIDPressure",
            _ => "DiskPressure",
        }
    }
}

/// Least amount that has to be available.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many units.
    Units(u64),
    /// That share of the capacity, 0 to 1.
    Share(f64),
}

/// The hard eviction thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Amount>);

impl Default for Thresholds {
    /// Upstream's `DefaultEvictionHard`.
    fn default() -> Self {
        let default = [
            (Signal::MemoryAvailable, Amount::Units(100 << 20)),
            (Signal::NodeFsAvailable, Amount::Share(0.10)),
            (Signal::NodeFsInodesFree, Amount::Share(0.05)),
            (Signal::ImageFsAvailable, Amount::Share(0.15)),
            (Signal::ImageFsInodesFree, Amount::Share(0.05)),
        ];
        Self(default.into())
    }
}

impl Thresholds {
    /// Reads `memory.available` with `100Mi` or `5%`. As upstream: what is given replaces all defaults, and zero or
    /// all of it switches a signal off.
    ///
    /// # Errors
    /// If a signal is not known or a value cannot be read.
    pub fn parse<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut thresholds = BTreeMap::new();
        for (name, value) in given {
            let signal = Signal::ALL.iter().find(|(_, known)| *known == name);
            let (signal, _) = signal.ok_or_else(|| format!("unknown eviction signal {name:?}"))?;
            let wrong = || format!("invalid eviction threshold {value:?} of {name}");
            let amount = match value.strip_suffix('%') {
                Some(percent) => {
                    let percent: f64 = percent.parse().map_err(|_| wrong())?;
                    if !(0.0..=100.0).contains(&percent) {
                        return Err(wrong());
                    }
                    if percent == 0.0 || percent == 100.0 {
                        continue;
                    }
                    Amount::Share(percent / 100.0)
                }
                None => {
                    let units = value.parse::<Quantity>().map_err(|_| wrong())?.value();
                    Amount::Units(u64::try_from(units).map_err(|_| wrong())?)
                }
            };
            thresholds.insert(*signal, amount);
        }
        Ok(Self(thresholds))
    }

    /// Reads `memory.available<100Mi,nodefs.available<10%`.
    ///
    /// # Errors
    /// See [`Self::parse`].
    pub fn parse_flag<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let pairs = parts.into_iter().filter(|part| !part.is_empty()).map(|part| {
            part.split_once('<')
                .ok_or_else(|| format!("invalid eviction threshold {part:?}: expected signal<value"))
        });
        Self::parse(pairs.collect::<Result<Vec<_>, _>>()?)
    }
}

/// What is there of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Still to be had.
    pub available: u64,
    /// In all.
    pub capacity: u64,
}

/// A threshold that is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Of which signal.
    pub signal: Signal,
    /// What the threshold is.
    pub threshold: u64,
    /// What was available.
    pub available: u64,
}

impl Met {
    /// How a pod's status tells of it.
    #[must_use]
    pub fn message(&self) -> String {
        format!(
            "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
            self.signal.resource(),
            bytes(self.threshold),
            bytes(self.available)
        )
    }
}

/// A number as quantities of memory print.
#[must_use]
pub fn bytes(units: u64) -> String {
    Quantity::from_units(i64::try_from(units).unwrap_or(i64::MAX), Format::BinarySi).to_string()
}

/// Which pressures a node is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// `MemoryPressure`
    pub memory: bool,
    /// `DiskPressure`
    pub disk: bool,
    /// `PIDPressure`
    pub pid: bool,
}

impl Pressure {
    /// The names of the conditions that hold.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [("MemoryPressure", self.memory), ("DiskPressure", self.disk), ("PIDPressure", self.pid)];
        all.into_iter().filter_map(|(name, holds)| holds.then_some(name)).collect()
    }
}

/// Remembers when thresholds were last met.
#[derive(Debug, Default)]
pub struct Conditions {
    last_met: BTreeMap<&'static str, Timestamp>,
}

impl Conditions {
    /// Takes a round of observations in: which thresholds are met, and which conditions hold.
    pub fn observe(
        &mut self,
        thresholds: &Thresholds,
        observed: &BTreeMap<Signal, Observation>,
        transition: Duration,
        now: Timestamp,
    ) -> (Vec<Met>, Pressure) {
        let met: Vec<Met> = thresholds
            .0
            .iter()
            .filter_map(|(signal, amount)| {
                let found = observed.get(signal)?;
                let threshold = match amount {
                    Amount::Units(units) => *units,
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_precision_loss,
                        clippy::cast_sign_loss,
                        reason = "a share of a size, as upstream computes it"
                    )]
                    Amount::Share(share) => (found.capacity as f64 * share) as u64,
                };
                (found.available < threshold).then_some(Met {
                    signal: *signal,
                    threshold,
                    available: found.available,
                })
            })
            .collect();
        for one in &met {
            self.last_met.insert(one.signal.condition(), now);
        }
        let holds = |name: &str| {
            self.last_met.get(name).is_some_and(|last| *last == now || elapsed(*last, now) < transition)
        };
        let pressure = Pressure {
            memory: holds("MemoryPressure"),
            disk: holds("DiskPressure"),
            pid: holds("PIDPressure"),
        };
        (met, pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::at;

    const TRANSITION: Duration = Duration::from_secs(300);

    fn memory(available: u64) -> BTreeMap<Signal, Observation> {
        [(Signal::MemoryAvailable, Observation { available, capacity: 1000 << 20 })].into()
    }

    #[test]
    fn thresholds_are_read_as_upstream_reads_them() {
        let read = |text: &str| Thresholds::parse_flag(text.split(','));
        let thresholds = read("memory.available<1Gi,nodefs.available<7.5%,imagefs.available<0%").unwrap();
        assert_eq!(
            thresholds.0.into_iter().collect::<Vec<_>>(),
            [
                (Signal::MemoryAvailable, Amount::Units(1 << 30)),
                (Signal::NodeFsAvailable, Amount::Share(0.075)),
            ]
        );
        for wrong in [
            "memory.free<1Gi",
            "memory.available<x",
            "memory.available<101%",
            "memory.available=1Gi",
            "pid.available<-1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
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
