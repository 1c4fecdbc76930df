//! What to do about a volume. Pure; upstream: `syncVolume` and `reclaimVolume`.

use client::Key;

use super::claim::bound_by_controller;
use crate::volumes::{ClaimView, PROVISIONED_BY, VolumeView};

/// What to do about a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeAction {
    /// It has this phase.
    Phase(&'static str),
    /// It is bound, and its claim has to be told.
    TellClaim,
    /// Its claim went elsewhere: take its reference away, or only its uid if a person has set it.
    Unbind,
    /// Its claim is gone.
    Release(Reclaim),
}

/// What becomes of a volume whose claim is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaim {
    /// It stays, with its data, until somebody deals with it.
    Keep,
    /// Its provisioner deletes it.
    ByProvisioner,
    /// Nobody can delete it.
    CannotDelete,
    /// Scrubbing volumes is a thing of the past.
    CannotRecycle,
}

/// Decides about a volume; `claim` is the one of the name in its reference.
#[must_use]
pub fn decide(name: &str, volume: &VolumeView, claim: Option<&ClaimView>) -> VolumeAction {
    let Some(reference) = &volume.claim else { return VolumeAction::Phase("Available") };
    if reference.uid.is_empty() {
        // Reserved; the claim does the rest.
        return VolumeAction::Phase("Available");
    }
    // A claim of the same name and another uid is another claim.
    let Some(claim) = claim.filter(|claim| claim.uid == reference.uid) else {
        return VolumeAction::Release(reclaim(volume));
    };
    if claim.volume.is_empty() {
        VolumeAction::TellClaim
    } else if claim.volume == name {
        VolumeAction::Phase("Bound")
    } else if volume.annotations.contains_key(PROVISIONED_BY) && volume.reclaim == "Delete" {
        // Made for this claim, which found another one meanwhile.
        VolumeAction::Release(reclaim(volume))
    } else {
        VolumeAction::Unbind
    }
}

fn reclaim(volume: &VolumeView) -> Reclaim {
    match volume.reclaim.as_str() {
        "Delete" if volume.annotations.contains_key(PROVISIONED_BY) => Reclaim::ByProvisioner,
        "Delete" => Reclaim::CannotDelete,
        "Recycle" => Reclaim::CannotRecycle,
        _ => Reclaim::Keep,
    }
}

/// The claim that a volume refers to.
#[must_use]
pub fn claim_key(volume: &VolumeView) -> Option<Key> {
    volume.claim.as_ref().map(|reference| Key::new(&reference.namespace, &reference.name))
}

/// Whether unbinding takes the whole reference away.
#[must_use]
pub fn forgets_claim(volume: &VolumeView) -> bool {
    bound_by_controller(volume)
}

#[cfg(test)]
mod tests {
    use api_objects::Value;
    use serde_json::json;

    use super::*;
    use crate::volumes::view;

    fn volume(uid: Option<&str>, policy: &str, annotations: &Value) -> VolumeView {
        let reference = uid.map(|uid| json!({"namespace": "ns", "name": "c", "uid": uid}));
        view(
            &json!({"metadata": {"name": "v", "annotations": annotations},
                "spec": {"claimRef": reference, "persistentVolumeReclaimPolicy": policy}}),
            VolumeView::project,
        )
    }

    fn claim(uid: &str, volume: &str) -> ClaimView {
        view(
            &json!({"metadata": {"name": "c", "namespace": "ns", "uid": uid}, "spec": {"volumeName": volume}}),
            ClaimView::project,
        )
    }

    #[test]
    fn phases() {
        let none = json!({});
        let free = volume(None, "Retain", &none);
        assert_eq!(decide("v", &free, None), VolumeAction::Phase("Available"));
        let reserved = volume(Some(""), "Retain", &none);
        assert_eq!(decide("v", &reserved, Some(&claim("u", ""))), VolumeAction::Phase("Available"));
        let bound = volume(Some("u"), "Retain", &none);
        assert_eq!(decide("v", &bound, Some(&claim("u", "v"))), VolumeAction::Phase("Bound"));
        assert_eq!(decide("v", &bound, Some(&claim("u", ""))), VolumeAction::TellClaim);
        assert_eq!(decide("v", &bound, Some(&claim("u", "w"))), VolumeAction::Unbind);
    }

    #[test]
    fn what_becomes_of_a_volume_without_claim() {
        let ours = json!({PROVISIONED_BY: "p"});
        for (policy, annotations, expected) in [
            ("Retain", ours.clone(), Reclaim::Keep),
            ("Delete", ours.clone(), Reclaim::ByProvisioner),
            ("Delete", json!({}), Reclaim::CannotDelete),
            ("Recycle", json!({}), Reclaim::CannotRecycle),
        ] {
            let volume = volume(Some("u"), policy, &annotations);
            assert_eq!(decide("v", &volume, None), VolumeAction::Release(expected), "{policy}");
            let namesake = claim("another", "v");
            assert_eq!(decide("v", &volume, Some(&namesake)), VolumeAction::Release(expected));
        }
        let elsewhere = volume(Some("u"), "Delete", &ours);
        let expected = VolumeAction::Release(Reclaim::ByProvisioner);
        assert_eq!(decide("v", &elsewhere, Some(&claim("u", "w"))), expected);
    }
}
