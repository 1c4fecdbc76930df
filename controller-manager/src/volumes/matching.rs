//! Which volume a claim gets. Upstream: `FindMatchingVolume` and `CheckVolumeModeMismatches` of
//! `k8s.io/component-helpers/storage/volume`, and the order by access modes of
//! `pkg/controller/volume/persistentvolume/index.go`.

use client::Key;

use super::{ClaimView, VolumeView};

/// Who asks.
#[derive(Clone, Copy)]
pub enum Asker<'a> {
    /// The controller. `delayed`: the claim waits for a pod, so that only a volume reserved for it counts.
    Controller {
        /// Whether the claim waits for a pod.
        delayed: bool,
    },
    /// The scheduler, with whether the node that it looks at reaches a volume.
    Scheduler(&'a dyn Fn(&VolumeView) -> bool),
}

/// Whether a volume is bound to a claim, or reserved for it.
#[must_use]
pub fn is_bound_to(volume: &VolumeView, key: &Key, claim: &ClaimView) -> bool {
    volume.claim.as_ref().is_some_and(|reference| {
        *reference.name == *key.name
            && *reference.namespace == *key.namespace
            && (reference.uid.is_empty() || reference.uid == claim.uid)
    })
}

/// Why a volume cannot serve a claim, if it cannot: upstream's `checkVolumeSatisfyClaim`.
#[must_use]
pub fn mismatch(volume: &VolumeView, claim: &ClaimView) -> Option<&'static str> {
    if volume.size < claim.request {
        Some("requested PV is too small")
    } else if volume.class != claim.class_name() {
        Some("storageClassName does not match")
    } else if volume.mode != claim.mode {
        Some("incompatible volumeMode")
    } else if !offers(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// Whether a volume has all access modes that a claim asks for.
fn offers(volume: &VolumeView, claim: &ClaimView) -> bool {
    claim.access_modes.iter().all(|mode| volume.access_modes.contains(mode))
}

/// The volume that suits a claim best: one that is reserved for it, else the smallest of those with the fewest access
/// modes.
pub fn best<'a>(
    key: &Key,
    claim: &ClaimView,
    volumes: impl Iterator<Item = (&'a str, &'a VolumeView)>,
    asker: Asker<'_>,
) -> Option<&'a str> {
    let mut best: Option<(usize, i64, &str)> = None;
    for (name, volume) in volumes {
        let reserved = is_bound_to(volume, key, claim);
        if (volume.claim.is_some() && !reserved)
            || volume.size < claim.request
            || volume.mode != claim.mode
            || volume.deleting
            || !offers(volume, claim)
        {
            continue;
        }
        let reachable = match asker {
            Asker::Controller { .. } => true,
            Asker::Scheduler(reaches) => reaches(volume),
        };
        if reserved {
            return reachable.then_some(name);
        }
        if matches!(asker, Asker::Controller { delayed: true })
            || !reachable
            || volume.phase != "Available"
            || !claim.selector.matches(&volume.labels)
            || volume.class != claim.class_name()
        {
            continue;
        }
        let rank = (volume.access_modes.len(), volume.size, name);
        if best.is_none_or(|best| rank < best) {
            best = Some(rank);
        }
    }
    best.map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use api_objects::Value;
    use serde_json::json;

    use super::*;
    use crate::volumes::view;

    fn claim(spec: &Value) -> ClaimView {
        let mut object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "s"}});
        merge(&mut object["spec"], spec);
        view(&object, ClaimView::project)
    }

    fn volume(spec: &Value) -> VolumeView {
        let mut object = json!({"metadata": {"name": "v", "labels": {"disk": "fast"}}, "status": {"phase": "Available"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "s"}});
        merge(&mut object["spec"], spec);
        view(&object, VolumeView::project)
    }

    fn merge(into: &mut Value, from: &Value) {
        for (key, value) in from.as_object().into_iter().flatten() {
            into[key] = value.clone();
        }
    }

    fn chosen(claim: &ClaimView, volumes: &[(&str, VolumeView)], delayed: bool) -> Option<String> {
        let listed = volumes.iter().map(|(name, volume)| (*name, volume));
        best(&Key::new("ns", "c"), claim, listed, Asker::Controller { delayed }).map(str::to_owned)
    }

    #[test]
    fn the_smallest_that_fits() {
        let sizes = |sizes: &[(&'static str, &str)]| -> Vec<(&'static str, VolumeView)> {
            sizes
                .iter()
                .map(|(name, size)| (*name, volume(&json!({"capacity": {"storage": size}}))))
                .collect()
        };
        let volumes = sizes(&[("large", "20Gi"), ("small", "1Gi"), ("right", "6Gi"), ("also", "6Gi")]);
        assert_eq!(chosen(&claim(&json!({})), &volumes, false).as_deref(), Some("also"));
        assert_eq!(chosen(&claim(&json!({})), &volumes, true), None, "it waits for a pod");
        let volumes = vec![
            (
                "many",
                volume(
                    &json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"], "capacity": {"storage": "5Gi"}}),
                ),
            ),
            ("one", volume(&json!({"capacity": {"storage": "9Gi"}}))),
        ];
        assert_eq!(
            chosen(&claim(&json!({})), &volumes, false).as_deref(),
            Some("one"),
            "fewest access modes first"
        );
    }

    #[test]
    fn everything_must_match() {
        for (spec, fits) in [
            (json!({}), true),
            (json!({"accessModes": ["ReadWriteMany"]}), false),
            (json!({"storageClassName": "other"}), false),
            (json!({"volumeMode": "Block"}), false),
            (json!({"selector": {"matchLabels": {"disk": "fast"}}}), true),
            (json!({"selector": {"matchLabels": {"disk": "slow"}}}), false),
            (json!({"resources": {"requests": {"storage": "11Gi"}}}), false),
        ] {
            let found = chosen(&claim(&spec), &[("v", volume(&json!({})))], false);
            assert_eq!(found.is_some(), fits, "{spec}");
        }
        let mut taken = volume(&json!({}));
        taken.phase = "Released".into();
        assert_eq!(chosen(&claim(&json!({})), &[("v", taken)], false), None);
    }

    #[test]
    fn a_reservation_wins_and_keeps_others_out() {
        let reserved = |name: &str, uid: &str| {
            volume(
                &json!({"claimRef": {"namespace": "ns", "name": name, "uid": uid}, "capacity": {"storage": "50Gi"}}),
            )
        };
        let volumes = vec![("free", volume(&json!({}))), ("mine", reserved("c", ""))];
        assert_eq!(chosen(&claim(&json!({})), &volumes, true).as_deref(), Some("mine"));
        assert_eq!(chosen(&claim(&json!({})), &[("other", reserved("d", ""))], false), None);
        assert_eq!(chosen(&claim(&json!({})), &[("older", reserved("c", "old"))], false), None);
    }

    #[test]
    fn the_scheduler_takes_what_its_node_reaches() {
        let volumes = [("v", volume(&json!({})))];
        let ask = |reaches: bool| {
            let listed = volumes.iter().map(|(name, volume)| (*name, volume));
            best(&Key::new("ns", "c"), &claim(&json!({})), listed, Asker::Scheduler(&|_| reaches))
        };
        assert_eq!(ask(true), Some("v"));
        assert_eq!(ask(false), None);
    }

    #[test]
    fn why_a_requested_volume_does_not_do() {
        assert_eq!(mismatch(&volume(&json!({})), &claim(&json!({}))), None);
        let small = volume(&json!({"capacity": {"storage": "1Gi"}}));
        assert_eq!(mismatch(&small, &claim(&json!({}))), Some("requested PV is too small"));
        let other = claim(&json!({"storageClassName": "x"}));
        assert_eq!(mismatch(&volume(&json!({})), &other), Some("storageClassName does not match"));
    }
}
