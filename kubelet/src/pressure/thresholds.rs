//! When a node is short of something: signals and thresholds, and how they are written. Pure.
//!
//! As `pkg/kubelet/eviction` has it: a threshold is met while less is available than it says. What follows from that is
//! decided in [`super::conditions`].

use std::{collections::BTreeMap, time::Duration};

use api_objects::quantity::{Format, Quantity};

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

    /// Its name in flags, files and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

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

/// When pods are evicted for one signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub signal: Signal,
    /// Least that has to be available.
    pub amount: Amount,
    /// How long it has to be met before a pod goes. Zero makes a hard threshold, as upstream.
    pub grace: Duration,
    /// What has to be available beyond the threshold, once pods had to go for it.
    pub reclaim: Option<Amount>,
}

impl Threshold {
    fn new(signal: Signal, amount: Amount) -> Self {
        Self { signal, amount, grace: Duration::ZERO, reclaim: None }
    }

    /// The quantity of the threshold, of what there is in all.
    pub(super) fn quantity(&self, found: Observation) -> u64 {
        self.amount.of(found.capacity)
    }

    pub(super) fn is_met(&self, found: Observation, with_reclaim: bool) -> bool {
        let more = self.reclaim.filter(|_| with_reclaim).map_or(0, |amount| amount.of(found.capacity));
        found.available < self.quantity(found).saturating_add(more)
    }
}

impl Amount {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a size, as upstream computes it"
    )]
    fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Share(share) => (capacity as f64 * share) as u64,
        }
    }
}

/// The eviction thresholds, the most urgent first: memory before the others, hard before soft.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(Vec<Threshold>);

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
        Self(default.into_iter().map(|(signal, amount)| Threshold::new(signal, amount)).collect())
    }
}

/// What was given for signals by their names: `memory.available` and `100Mi`, `5%` or `1m30s`.
pub type Given = BTreeMap<String, String>;

impl Thresholds {
    /// All of them, in their order.
    pub(super) fn all(&self) -> &[Threshold] {
        &self.0
    }

    /// Hard thresholds. As upstream: what is given replaces all defaults, and zero or all of it switches a signal off.
    ///
    /// # Errors
    /// If a signal is not known or a value cannot be read.
    pub fn hard(given: &Given) -> Result<Self, String> {
        parse_amounts(given).map(Self)
    }

    /// Adds soft thresholds, each with how long it has to be met, and to all of them what has to be reclaimed
    /// (upstream's `ParseThresholdConfig`).
    ///
    /// # Errors
    /// If something cannot be read, or a soft threshold has no grace period.
    pub fn with(mut self, soft: &Given, grace: &Given, reclaim: &Given) -> Result<Self, String> {
        let soft = parse_amounts(soft)?;
        let grace = parse_signals(grace, grace_period)?;
        let reclaim = parse_signals(reclaim, minimum_reclaim)?;
        for threshold in soft {
            let period = grace.get(&threshold.signal).ok_or_else(|| {
                let name = threshold.signal.name();
                format!("grace period must be specified for the soft eviction threshold {name}")
            })?;
            self.0.push(Threshold { grace: *period, ..threshold });
        }
        for threshold in &mut self.0 {
            threshold.reclaim = reclaim.get(&threshold.signal).copied();
        }
        self.0.sort_by_key(|threshold| (threshold.signal, threshold.grace));
        Ok(self)
    }

    /// Whether the node is still short of what a threshold guards, counting what has to be reclaimed.
    #[must_use]
    pub fn is_short(&self, signal: Signal, observed: &BTreeMap<Signal, Observation>) -> bool {
        let mut of_signal = self.0.iter().filter(|threshold| threshold.signal == signal);
        of_signal.any(|threshold| observed.get(&signal).is_some_and(|found| threshold.is_met(*found, true)))
    }
}

/// Reads a flag's `memory.available<100Mi,nodefs.available<10%`; other flags have `=` between the two.
///
/// # Errors
/// If a part does not consist of two.
pub fn pairs(flag: &[String], between: char) -> Result<Given, String> {
    let parts = flag.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (signal, value) = part
            .split_once(between)
            .ok_or_else(|| format!("malformed pair {part:?}, expect string{between}string"))?;
        Ok((signal.trim().to_owned(), value.trim().to_owned()))
    };
    parts.map(pair).collect()
}

fn parse_signals<T>(
    given: &Given,
    parse: impl Fn(&str, &str) -> Result<T, String>,
) -> Result<BTreeMap<Signal, T>, String> {
    let signal = |name: &str| Signal::ALL.iter().find(|(_, known)| *known == name).map(|(signal, _)| *signal);
    given
        .iter()
        .map(|(name, value)| {
            let signal = signal(name).ok_or_else(|| format!("unsupported eviction signal {name}"))?;
            Ok((signal, parse(name, value)?))
        })
        .collect()
}

fn parse_amounts(given: &Given) -> Result<Vec<Threshold>, String> {
    let read = parse_signals(given, threshold_amount)?;
    let on = read.into_iter().filter_map(|(signal, amount)| Some(Threshold::new(signal, amount?)));
    Ok(on.collect())
}

/// A threshold's value; `None` switches it off.
fn threshold_amount(name: &str, value: &str) -> Result<Option<Amount>, String> {
    if let Some(share) = share(name, value)? {
        return match share {
            share if share < 0.0 => {
                Err(format!("eviction percentage threshold {name} must be >= 0%: {value}"))
            }
            share if share > 1.0 => {
                Err(format!("eviction percentage threshold {name} must be <= 100%: {value}"))
            }
            share if share == 0.0 || share == 1.0 => Ok(None),
            share => Ok(Some(Amount::Share(share))),
        };
    }
    match units(name, value)? {
        0 => Err(format!("eviction threshold {name} must be positive: {value}")),
        units => u64::try_from(units)
            .map(|units| Some(Amount::Units(units)))
            .map_err(|_| format!("eviction threshold {name} must be positive: {value}")),
    }
}

fn minimum_reclaim(name: &str, value: &str) -> Result<Amount, String> {
    match share(name, value)? {
        Some(share) if share <= 0.0 => {
            Err(format!("eviction percentage minimum reclaim {name} must be positive: {value}"))
        }
        Some(share) => Ok(Amount::Share(share)),
        None => u64::try_from(units(name, value)?)
            .map(Amount::Units)
            .map_err(|_| format!("negative eviction minimum reclaim specified for {name}")),
    }
}

fn grace_period(name: &str, value: &str) -> Result<Duration, String> {
    if value.starts_with('-') {
        return Err(format!("invalid eviction grace period specified: {value}, must be a positive value"));
    }
    api_objects::duration::parse_go(value)
        .map_err(|error| format!("eviction grace period of {name}: {error}"))
}

/// A percentage as a share of the whole; `None` for what is none.
fn share(name: &str, value: &str) -> Result<Option<f64>, String> {
    let Some(percent) = value.strip_suffix('%') else { return Ok(None) };
    let percent: f64 = percent.parse().map_err(|_| format!("invalid percentage {value:?} of {name}"))?;
    if percent.is_finite() {
        Ok(Some(percent / 100.0))
    } else {
        Err(format!("invalid percentage {value:?} of {name}"))
    }
}

fn units(name: &str, value: &str) -> Result<i64, String> {
    let quantity = value.parse::<Quantity>();
    quantity.map(|quantity| quantity.value()).map_err(|_| format!("invalid quantity {value:?} of {name}"))
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
    /// Whether it is a soft one: pods then get more time to end.
    pub soft: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str, between: char) -> Given {
        pairs(&text.split(',').map(str::to_owned).collect::<Vec<_>>(), between).unwrap()
    }

    #[test]
    fn thresholds_are_read_as_upstream_reads_them() {
        let read = |text: &str| Thresholds::hard(&flag(text, '<'));
        let thresholds = read("memory.available<1Gi,nodefs.available<7.5%,imagefs.available<0%").unwrap();
        assert_eq!(
            thresholds.0,
            [
                Threshold::new(Signal::MemoryAvailable, Amount::Units(1 << 30)),
                Threshold::new(Signal::NodeFsAvailable, Amount::Share(0.075)),
            ]
        );
        for (wrong, why) in [
            ("memory.free<1Gi", "unsupported eviction signal memory.free"),
            ("memory.available<x", "invalid quantity \"x\" of memory.available"),
            ("memory.available<101%", "eviction percentage threshold memory.available must be <= 100%: 101%"),
            ("memory.available<-1%", "eviction percentage threshold memory.available must be >= 0%: -1%"),
            ("pid.available<-1", "eviction threshold pid.available must be positive: -1"),
            ("pid.available<0", "eviction threshold pid.available must be positive: 0"),
        ] {
            assert_eq!(read(wrong).unwrap_err(), why);
        }
        let wrong = pairs(&["memory.available=1Gi".to_owned()], '<').unwrap_err();
        assert_eq!(wrong, "malformed pair \"memory.available=1Gi\", expect string<string");
    }

    #[test]
    fn soft_thresholds_need_a_grace_period() {
        let with = |soft: &str, grace: &str, reclaim: &str| {
            let hard = Thresholds::hard(&flag("memory.available<100Mi", '<'))?;
            hard.with(&flag(soft, '<'), &flag(grace, '='), &flag(reclaim, '='))
        };
        let read = with("memory.available<300Mi", "memory.available=1m30s", "memory.available=10%").unwrap();
        let reclaim = Some(Amount::Share(0.1));
        let hard = Threshold { reclaim, ..Threshold::new(Signal::MemoryAvailable, Amount::Units(100 << 20)) };
        let soft = Threshold { amount: Amount::Units(300 << 20), grace: Duration::from_secs(90), ..hard };
        assert_eq!(read.0, [hard, soft]);
        for (soft, grace, reclaim, why) in [
            (
                "memory.available<1Gi",
                "pid.available=1s",
                "",
                "grace period must be specified for the soft eviction threshold memory.available",
            ),
            ("memory.free<1Gi", "", "", "unsupported eviction signal memory.free"),
            ("", "memory.free=1s", "", "unsupported eviction signal memory.free"),
            ("", "", "memory.free=1Gi", "unsupported eviction signal memory.free"),
            (
                "",
                "pid.available=-1s",
                "",
                "invalid eviction grace period specified: -1s, must be a positive value",
            ),
            ("", "", "pid.available=-1", "negative eviction minimum reclaim specified for pid.available"),
            (
                "",
                "",
                "pid.available=0%",
                "eviction percentage minimum reclaim pid.available must be positive: 0%",
            ),
        ] {
            assert_eq!(with(soft, grace, reclaim).unwrap_err(), why);
        }
        assert!(with("", "pid.available=soon", "").is_err());
    }
}
