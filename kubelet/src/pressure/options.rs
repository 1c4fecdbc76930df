//! What a node's owner says of evictions: upstream's flags, and the fields of a `KubeletConfiguration` behind them.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{
    Policy, Transition,
    thresholds::{Given, Thresholds, pairs},
};

/// The flags, of every component that has a node.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct EvictionArgs {
    /// Thresholds below which pods are evicted: memory.available<100Mi,nodefs.available<10%,...
    #[arg(long, env = "MINIK8S_EVICTION_HARD", value_name = "THRESHOLDS", value_delimiter = ',')]
    pub eviction_hard: Vec<String>,
    /// Thresholds below which pods are evicted once their grace period is over: memory.available<300Mi,...
    #[arg(long, env = "MINIK8S_EVICTION_SOFT", value_name = "THRESHOLDS", value_delimiter = ',')]
    pub eviction_soft: Vec<String>,
    /// How long each soft threshold has to be met: memory.available=1m30s,...
    #[arg(long, env = "MINIK8S_EVICTION_SOFT_GRACE_PERIOD", value_name = "PERIODS", value_delimiter = ',')]
    pub eviction_soft_grace_period: Vec<String>,
    /// Most seconds that a pod gets to end that is evicted for a soft threshold; 0 or less for what it asks for
    #[arg(
        long,
        env = "MINIK8S_EVICTION_MAX_POD_GRACE_PERIOD",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// How long a pressure condition stays after its cause
    #[arg(long, env = "MINIK8S_EVICTION_PRESSURE_TRANSITION_PERIOD", value_name = "DURATION")]
    pub eviction_pressure_transition_period: Option<String>,
    /// What has to be available beyond a threshold once pods were evicted for it: nodefs.available=5%,...
    #[arg(long, env = "MINIK8S_EVICTION_MINIMUM_RECLAIM", value_name = "AMOUNTS", value_delimiter = ',')]
    pub eviction_minimum_reclaim: Vec<String>,
    /// How often the node is looked at
    #[arg(long, env = "MINIK8S_HOUSEKEEPING_INTERVAL", value_name = "DURATION")]
    pub housekeeping_interval: Option<String>,
    /// How old the figure of what a directory holds may be
    #[arg(long, env = "MINIK8S_VOLUME_STATS_AGG_PERIOD", value_name = "DURATION")]
    pub volume_stats_agg_period: Option<String>,
}

/// The fields of a `KubeletConfiguration` behind the flags.
#[derive(Debug, Clone, Default)]
pub(crate) struct EvictionFields {
    /// `evictionHard`
    pub hard: Given,
    /// `evictionSoft`
    pub soft: Given,
    /// `evictionSoftGracePeriod`
    pub soft_grace_period: Given,
    /// `evictionMaxPodGracePeriod`
    pub max_pod_grace_period: Option<i32>,
    /// `evictionPressureTransitionPeriod`
    pub pressure_transition_period: Option<String>,
    /// `evictionMinimumReclaim`
    pub minimum_reclaim: Given,
    /// `volumeStatsAggPeriod`
    pub volume_stats_agg_period: Option<String>,
}

/// Reads a duration as Go writes it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    api_objects::duration::parse_go(text).map_err(|error| format!("{text:?}: {error}"))
}

impl Policy {
    /// What flags and fields say; each flag wins over its field.
    pub(crate) fn read(flags: &EvictionArgs, fields: &EvictionFields) -> Result<Self, String> {
        let mut policy = Self::default();
        let given = |flag: &[String], between: char, field: &Given| match flag {
            [] => Ok(field.clone()),
            given => pairs(given, between),
        };
        let hard = given(&flags.eviction_hard, '<', &fields.hard)?;
        if !hard.is_empty() {
            policy.thresholds = Thresholds::hard(&hard)?;
        }
        let soft = given(&flags.eviction_soft, '<', &fields.soft)?;
        let grace = given(&flags.eviction_soft_grace_period, '=', &fields.soft_grace_period)?;
        let reclaim = given(&flags.eviction_minimum_reclaim, '=', &fields.minimum_reclaim)?;
        policy.thresholds = policy.thresholds.with(&soft, &grace, &reclaim)?;
        let most = flags.eviction_max_pod_grace_period.or(fields.max_pod_grace_period);
        // Upstream's default of 0 ends there as well: a pod worker takes no grace for the pod's own.
        policy.soft_grace = most
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        let period = flags.eviction_pressure_transition_period.as_ref();
        if let Some(period) = period.or(fields.pressure_transition_period.as_ref()) {
            policy.transition = Transition(duration(period)?);
        }
        if let Some(interval) = &flags.housekeeping_interval {
            policy.round = Some(duration(interval)?)
                .filter(|round| !round.is_zero())
                .ok_or("invalid configuration: --housekeeping-interval must be positive")?;
        }
        let age = flags.volume_stats_agg_period.as_ref().or(fields.volume_stats_agg_period.as_ref());
        if let Some(age) = age {
            policy.disk_age = duration(age)?;
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_wins_over_its_field() {
        let given = |value: &str| Given::from([("memory.available".to_owned(), value.to_owned())]);
        let fields = EvictionFields {
            hard: given("1Gi"),
            soft: given("2Gi"),
            soft_grace_period: given("1m30s"),
            max_pod_grace_period: Some(60),
            pressure_transition_period: Some("30s".into()),
            minimum_reclaim: given("1Gi"),
            volume_stats_agg_period: Some("2m".into()),
        };
        let seconds = Duration::from_secs;
        let thresholds = |hard: &str, soft: &str, grace: &str, reclaim: &str| {
            let hard = Thresholds::hard(&given(hard)).unwrap();
            hard.with(&given(soft), &given(grace), &given(reclaim)).unwrap()
        };
        let of_file = Policy::read(&EvictionArgs::default(), &fields).unwrap();
        let expected = Policy {
            thresholds: thresholds("1Gi", "2Gi", "90s", "1Gi"),
            transition: Transition(seconds(30)),
            soft_grace: Some(seconds(60)),
            disk_age: seconds(120),
            ..Policy::default()
        };
        assert_eq!(of_file, expected);
        let flag = |text: &str| vec![format!("memory.available{text}")];
        let flags = EvictionArgs {
            eviction_hard: flag("<3Gi"),
            eviction_soft: flag("<4Gi"),
            eviction_soft_grace_period: flag("=2s"),
            eviction_max_pod_grace_period: Some(-1),
            eviction_pressure_transition_period: Some("1m".into()),
            eviction_minimum_reclaim: flag("=5%"),
            housekeeping_interval: Some("1s".into()),
            volume_stats_agg_period: Some("500ms".into()),
        };
        let flagged = Policy::read(&flags, &fields).unwrap();
        let expected = Policy {
            thresholds: thresholds("3Gi", "4Gi", "2s", "5%"),
            transition: Transition(seconds(60)),
            soft_grace: None,
            round: seconds(1),
            disk_age: Duration::from_millis(500),
            ..Policy::default()
        };
        assert_eq!(flagged, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let none = EvictionFields::default();
        let soft = EvictionArgs { eviction_soft: vec!["pid.available<5".into()], ..EvictionArgs::default() };
        assert_eq!(
            Policy::read(&soft, &none).unwrap_err(),
            "grace period must be specified for the soft eviction threshold pid.available"
        );
        for flags in [
            EvictionArgs { housekeeping_interval: Some("0s".into()), ..EvictionArgs::default() },
            EvictionArgs { volume_stats_agg_period: Some("-1s".into()), ..EvictionArgs::default() },
            EvictionArgs {
                eviction_pressure_transition_period: Some("soon".into()),
                ..EvictionArgs::default()
            },
        ] {
            assert!(Policy::read(&flags, &none).is_err(), "{flags:?}");
        }
    }
}
