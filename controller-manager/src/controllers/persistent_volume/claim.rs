//! What to do about a claim. Pure; upstream: `syncUnboundClaim` and `syncBoundClaim`.

use client::{EventType, Key};

use crate::volumes::{
    BOUND_BY_CONTROLLER, ClaimView, ClassView, SELECTED_NODE, VolumeView,
    matching::{self, Asker, is_bound_to},
    provisions,
};

/// What is said about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How bad it is.
    pub kind: EventType,
    /// `FailedBinding` …
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Note {
    pub(super) fn new(kind: EventType, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into() }
    }
}

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimAction {
    /// Bind it to this volume, or finish doing so.
    Bind(String),
    /// It waits; say why, if there is something to say.
    Wait(Option<Note>),
    /// It waits for this provisioner.
    Provision(String),
    /// It named no class: give it the default one.
    UseClass(String),
    /// Its volume is gone.
    Lost(Note),
}

/// What is known of the world around a claim.
pub struct Around<'a> {
    /// All volumes, by name.
    pub volumes: &'a [(&'a str, &'a VolumeView)],
    /// All classes, by name.
    pub classes: &'a [(&'a str, &'a ClassView)],
}

impl<'a> Around<'a> {
    fn volume(&self, name: &str) -> Option<&'a VolumeView> {
        self.volumes.iter().find(|(known, _)| *known == name).map(|(_, volume)| *volume)
    }

    fn class(&self, name: &str) -> Option<&'a ClassView> {
        self.classes.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
    }

    /// The class of claims without one: the youngest of those that are marked.
    fn default_class(&self) -> Option<&'a str> {
        let marked = self.classes.iter().filter(|(_, class)| class.is_default);
        marked
            .max_by(|left, right| (&left.1.created, right.0).cmp(&(&right.1.created, left.0)))
            .map(|(name, _)| *name)
    }
}

/// Decides about a claim.
#[must_use]
pub fn decide(key: &Key, claim: &ClaimView, around: &Around<'_>) -> ClaimAction {
    if claim.annotations.contains_key(crate::volumes::BIND_COMPLETED) {
        return bound(claim, around);
    }
    if claim.volume.is_empty() { unbound(key, claim, around) } else { asks_for_one(key, claim, around) }
}

fn unbound(key: &Key, claim: &ClaimView, around: &Around<'_>) -> ClaimAction {
    let class = around.class(claim.class_name());
    // Once the scheduler has chosen a node, provisioning begins; until then nothing is chosen for the claim.
    let delayed = class.is_some_and(|class| class.waits_for_consumer);
    let waits = delayed && !claim.annotations.contains_key(SELECTED_NODE);
    let found = matching::best(key, claim, around.volumes.iter().copied(), Asker::Controller { delayed });
    if let Some(name) = found {
        return ClaimAction::Bind(name.to_owned());
    }
    if claim.class.is_none()
        && let Some(name) = around.default_class()
    {
        return ClaimAction::UseClass(name.to_owned());
    }
    if waits {
        let message = "waiting for first consumer to be created before binding";
        return ClaimAction::Wait(Some(Note::new(EventType::Normal, "WaitForFirstConsumer", message)));
    }
    let missing = |message: String| {
        ClaimAction::Wait(Some(Note::new(EventType::Warning, "ProvisioningFailed", message)))
    };
    match (claim.class_name(), class) {
        ("", _) => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            ClaimAction::Wait(Some(Note::new(EventType::Normal, "FailedBinding", message)))
        }
        (name, None) => missing(format!("storageclass.storage.k8s.io \"{name}\" not found")),
        (_, Some(class)) if provisions(class) => ClaimAction::Provision(class.provisioner.clone()),
        (_, Some(_)) => ClaimAction::Wait(None),
    }
}

fn asks_for_one(key: &Key, claim: &ClaimView, around: &Around<'_>) -> ClaimAction {
    let name = &claim.volume;
    let Some(volume) = around.volume(name) else { return ClaimAction::Wait(None) };
    let say = |reason, message| ClaimAction::Wait(Some(Note::new(EventType::Warning, reason, message)));
    if volume.claim.is_none() {
        return match matching::mismatch(volume, claim) {
            None => ClaimAction::Bind(name.clone()),
            Some(why) => say("VolumeMismatch", format!("Cannot bind to requested volume \"{name}\": {why}")),
        };
    }
    if is_bound_to(volume, key, claim) {
        return ClaimAction::Bind(name.clone());
    }
    say("FailedBinding", format!("volume \"{name}\" already bound to a different claim."))
}

fn bound(claim: &ClaimView, around: &Around<'_>) -> ClaimAction {
    let lost = |reason, message: &str| ClaimAction::Lost(Note::new(EventType::Warning, reason, message));
    if claim.volume.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", message);
    }
    let Some(volume) = around.volume(&claim.volume) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match &volume.claim {
        Some(reference) if reference.uid != claim.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => ClaimAction::Bind(claim.volume.clone()),
    }
}

/// Whether it was the controller that bound a volume, so that it may also release it.
#[must_use]
pub fn bound_by_controller(volume: &VolumeView) -> bool {
    volume.annotations.contains_key(BOUND_BY_CONTROLLER)
}

#[cfg(test)]
mod tests {
    use api_objects::Value;
    use serde_json::json;

    use super::*;
    use crate::volumes::view;

    fn claim(annotations: &Value, class: &Value, volume: &str) -> ClaimView {
        view(
            &json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u", "annotations": annotations}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": class, "volumeName": volume}}),
            ClaimView::project,
        )
    }

    fn volume(class: &str, reference: &Value) -> VolumeView {
        view(
            &json!({"metadata": {"name": "v"}, "status": {"phase": "Available"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": class,
                "claimRef": reference}}),
            VolumeView::project,
        )
    }

    fn class(mode: &str, default: &str) -> ClassView {
        view(
            &json!({"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
                "provisioner": "p", "volumeBindingMode": mode}),
            ClassView::project,
        )
    }

    fn decided(claim: &ClaimView, volume: Option<&VolumeView>, class: Option<&ClassView>) -> ClaimAction {
        let volumes: Vec<_> = volume.into_iter().map(|volume| ("v", volume)).collect();
        let classes: Vec<_> = class.into_iter().map(|class| ("s", class)).collect();
        decide(&Key::new("ns", "c"), claim, &Around { volumes: &volumes, classes: &classes })
    }

    fn reason(action: &ClaimAction) -> &'static str {
        match action {
            ClaimAction::Wait(Some(note)) | ClaimAction::Lost(note) => note.reason,
            _ => "",
        }
    }

    #[test]
    fn a_free_volume_is_bound_unless_the_claim_waits_for_a_pod() {
        let (claim, free) = (claim(&json!({}), &json!("s"), ""), volume("s", &Value::Null));
        let bind = ClaimAction::Bind("v".into());
        assert_eq!(decided(&claim, Some(&free), Some(&class("Immediate", ""))), bind);
        let waiting = decided(&claim, Some(&free), Some(&class("WaitForFirstConsumer", "")));
        assert_eq!(reason(&waiting), "WaitForFirstConsumer");
        let reserved = volume("s", &json!({"namespace": "ns", "name": "c"}));
        assert_eq!(decided(&claim, Some(&reserved), Some(&class("WaitForFirstConsumer", ""))), bind);
    }

    #[test]
    fn provisioning_begins_with_a_node_or_at_once() {
        let provision = ClaimAction::Provision("p".into());
        let waiting = claim(&json!({}), &json!("s"), "");
        assert_eq!(decided(&waiting, None, Some(&class("Immediate", ""))), provision);
        let chosen = claim(&json!({SELECTED_NODE: "n"}), &json!("s"), "");
        assert_eq!(decided(&chosen, None, Some(&class("WaitForFirstConsumer", ""))), provision);
        assert_eq!(reason(&decided(&waiting, None, None)), "ProvisioningFailed", "the class does not exist");
        let classless = claim(&json!({}), &json!(""), "");
        assert_eq!(reason(&decided(&classless, None, Some(&class("Immediate", "true")))), "FailedBinding");
    }

    #[test]
    fn a_claim_without_class_gets_the_default_later_too() {
        let claim = claim(&json!({}), &Value::Null, "");
        assert_eq!(
            decided(&claim, None, Some(&class("Immediate", "true"))),
            ClaimAction::UseClass("s".into())
        );
        assert_eq!(reason(&decided(&claim, None, Some(&class("Immediate", "")))), "FailedBinding");
    }

    #[test]
    fn a_claim_that_asks_for_a_volume() {
        let asks = claim(&json!({}), &json!("s"), "v");
        assert_eq!(decided(&asks, None, None), ClaimAction::Wait(None), "it is not there yet");
        assert_eq!(decided(&asks, Some(&volume("s", &Value::Null)), None), ClaimAction::Bind("v".into()));
        assert_eq!(reason(&decided(&asks, Some(&volume("x", &Value::Null)), None)), "VolumeMismatch");
        let taken = volume("s", &json!({"namespace": "ns", "name": "d", "uid": "w"}));
        assert_eq!(reason(&decided(&asks, Some(&taken), None)), "FailedBinding");
    }

    #[test]
    fn a_bound_claim_that_lost_its_volume() {
        let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let bound = claim(&done, &json!("s"), "v");
        assert_eq!(reason(&decided(&bound, None, None)), "ClaimLost");
        let mine = volume("s", &json!({"namespace": "ns", "name": "c", "uid": "u"}));
        assert_eq!(decided(&bound, Some(&mine), None), ClaimAction::Bind("v".into()));
        let misbound = volume("s", &json!({"namespace": "ns", "name": "c", "uid": "w"}));
        assert_eq!(reason(&decided(&bound, Some(&misbound), None)), "ClaimMisbound");
        assert_eq!(reason(&decided(&claim(&done, &json!("s"), ""), None, None)), "ClaimLost");
    }
}
