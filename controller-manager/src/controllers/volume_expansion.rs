//! A bound claim that asks for more gets more: upstream's `pkg/controller/volume/expand`, and for the volumes of the
//! built-in provisioner the part of upstream's external resizer.
//!
//! Whether a claim may ask for more is decided when it does (admission `PersistentVolumeClaimResize`). Nothing here knows
//! how to grow the volumes of others, so they are left to whoever does, in an event. Our own are directories without a
//! quota: growing one is said in the claim, written into the volume, and done; the node has nothing to do, so the claim
//! never waits for one (`FileSystemResizePending`). Each turn takes one step from what is written, so that any of them
//! may be the last of a process.

use std::sync::Arc;

use api_objects::{Resource, Value, object::ObjectMeta, quantity::Quantity, time::rfc3339};
use client::{Client, Error, EventType, Informer, Key, PatchType, Recorder, Scope, WorkQueue};
use jiff::Timestamp;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};
use crate::volumes::{HOSTPATH_PROVISIONER, PROVISIONED_BY, VolumeView, claim_reference};

const RESIZING: &str = "Resizing";

/// What is kept of a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Growing {
    uid: String,
    resource_version: String,
    volume: String,
    /// Bytes asked for, and as it was written.
    request: i64,
    request_text: Value,
    /// Bytes that it has.
    capacity: i64,
    /// `status.allocatedResources.storage` in bytes.
    allocated: i64,
    conditions: Vec<Value>,
}

impl Growing {
    /// Claims that are not bound do not grow.
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Option<Self>> {
        let claim: Value = typed(bytes)?;
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let size = |value: &Value| Quantity::from_value(value).map_or(0, |quantity| quantity.value());
        Some((status["phase"] == "Bound").then(|| Self {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            volume: spec["volumeName"].as_str().unwrap_or_default().to_owned(),
            request: size(&spec["resources"]["requests"]["storage"]),
            request_text: spec["resources"]["requests"]["storage"].clone(),
            capacity: size(&status["capacity"]["storage"]),
            allocated: size(&status["allocatedResources"]["storage"]),
            conditions: status["conditions"].as_array().cloned().unwrap_or_default(),
        }))
    }

    fn is_resizing(&self) -> bool {
        self.conditions.iter().any(|found| found["type"] == RESIZING && found["status"] == "True")
    }

    fn other_conditions(&self) -> Vec<Value> {
        self.conditions.iter().filter(|found| found["type"] != RESIZING).cloned().collect()
    }
}

/// The next step for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It has what it asks for.
    Nothing,
    /// Somebody else's volume.
    LeaveToOthers,
    /// Say in the claim that it grows.
    Begin,
    /// Write the new size into the volume.
    Grow,
    /// Say in the claim that it has grown.
    Finish,
}

/// Decides about a bound claim and its volume.
#[must_use]
pub fn decide(claim: &Growing, volume: Option<&VolumeView>) -> Step {
    let Some(volume) = volume else { return Step::Nothing };
    let is_its = volume.claim.as_ref().is_some_and(|reference| reference.uid == claim.uid);
    if !is_its || volume.deleting {
        return Step::Nothing;
    }
    let by = volume.annotations.get(PROVISIONED_BY).map(String::as_str);
    match (claim.request <= claim.capacity, by == Some(HOSTPATH_PROVISIONER)) {
        // It asked for more and thought better of it in the middle.
        (true, true) if claim.is_resizing() => return Step::Finish,
        (true, _) => return Step::Nothing,
        (false, false) => return Step::LeaveToOthers,
        (false, true) => {}
    }
    if !claim.is_resizing() || claim.allocated != claim.request {
        Step::Begin
    } else if volume.size < claim.request {
        Step::Grow
    } else {
        Step::Finish
    }
}

/// The controller.
pub struct VolumeExpansion {
    client: Client,
    /// Speaks as the controller, and as the resizer of our own volumes.
    controller: Recorder,
    resizer: Recorder,
    claims_resource: Arc<Resource>,
    volumes_resource: Arc<Resource>,
    claims: Informer<Option<Growing>>,
    volumes: Informer<VolumeView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let claims_resource = resource("", "v1", "persistentvolumeclaims");
    let volumes_resource = resource("", "v1", "persistentvolumes");
    let claims = context.informers.watch(&claims_resource, &Scope::default(), Growing::project);
    let volumes = context.informers.watch(&volumes_resource, &Scope::default(), VolumeView::project);
    let controller = Arc::new(VolumeExpansion {
        client: context.client.clone(),
        controller: context.recorder("volume_expand"),
        resizer: context.recorder(HOSTPATH_PROVISIONER),
        claims_resource,
        volumes_resource,
        claims: claims.clone(),
        volumes: volumes.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(claims.synced(), volumes.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &claims, &queue, |change| vec![change.key.clone()]);
        // A volume that has grown: its claim goes on.
        let known = volumes.clone();
        feed(&context, &volumes, &queue, move |change| {
            let volume = known.get(&change.key);
            let reference = volume.as_ref().and_then(|volume| volume.claim.as_ref());
            reference.map(|claim| Key::new(&claim.namespace, &claim.name)).into_iter().collect()
        });
        spawn_workers(&context, &controller, &queue, 1);
    });
}

impl Reconciler for VolumeExpansion {
    type Key = Key;
    const NAME: &'static str = "volume-expansion";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        match self.advance(key).await {
            // It has changed meanwhile: its next version queues it again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::AwaitChange),
            other => other.map(|()| Action::AwaitChange),
        }
    }
}

impl VolumeExpansion {
    async fn advance(&self, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        let Some(claim) = claim.as_ref() else { return Ok(()) };
        let volume = self.volumes.get(&Key::new("", &claim.volume));
        let say = |recorder: &Recorder, reason: &str, message: String| {
            recorder.event(&claim_reference(key, &claim.uid), EventType::Normal, reason, message);
        };
        let left_to_others = "waiting for an external controller to expand this PVC";
        match decide(claim, volume.as_deref()) {
            Step::Nothing => {}
            Step::LeaveToOthers => say(&self.controller, "ExternalExpanding", left_to_others.to_owned()),
            Step::Begin => {
                self.patch_status(key, claim, begin(claim, Timestamp::now())).await?;
                say(&self.controller, "ExternalExpanding", left_to_others.to_owned());
                let message = format!("External resizer is resizing volume {}", claim.volume);
                say(&self.resizer, RESIZING, message);
            }
            Step::Grow => {
                let Some(volume) = volume else { return Ok(()) };
                let patch = json!({
                    "metadata": {"resourceVersion": volume.resource_version},
                    "spec": {"capacity": {"storage": claim.request_text}},
                });
                let (client, resource) = (&self.client, &self.volumes_resource);
                client.patch(resource, "", &claim.volume, None, PatchType::Merge, &patch).await?;
            }
            Step::Finish => {
                self.patch_status(key, claim, finish(claim)).await?;
                say(&self.resizer, "VolumeResizeSuccessful", "Resize volume succeeded".to_owned());
            }
        }
        Ok(())
    }

    async fn patch_status(&self, key: &Key, claim: &Growing, status: Value) -> Result<(), Error> {
        let patch = json!({
            "metadata": {"resourceVersion": claim.resource_version, "uid": claim.uid},
            "status": status,
        });
        let (client, resource) = (&self.client, &self.claims_resource);
        client
            .patch(resource, &key.namespace, &key.name, Some("status"), PatchType::Merge, &patch)
            .await
            .map(drop)
    }
}

/// The status of a claim that begins to grow.
fn begin(claim: &Growing, now: Timestamp) -> Value {
    let mut conditions = claim.other_conditions();
    conditions.push(json!({"type": RESIZING, "status": "True", "lastTransitionTime": rfc3339(now)}));
    json!({
        "conditions": conditions,
        "allocatedResources": {"storage": claim.request_text},
        "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
    })
}

/// The status of a claim that has grown. What was allocated stays, as upstream leaves it.
fn finish(claim: &Growing) -> Value {
    json!({
        "conditions": claim.other_conditions(),
        "capacity": {"storage": claim.request_text},
        "allocatedResourceStatuses": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::view;

    fn claim(request: &str, has: &str, more: &Value) -> Growing {
        let mut status = json!({"phase": "Bound", "capacity": {"storage": has}});
        for (key, value) in more.as_object().into_iter().flatten() {
            status[key] = value.clone();
        }
        let object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {"volumeName": "v",
            "resources": {"requests": {"storage": request}}}, "status": status});
        view(&object, Growing::project).expect("it is bound")
    }

    fn volume(by: &str, size: &str) -> VolumeView {
        view(
            &json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: by}},
                "spec": {"capacity": {"storage": size}, "claimRef": {"uid": "u"}}}),
            VolumeView::project,
        )
    }

    #[test]
    fn one_step_at_a_time() {
        let ours = |size| volume(HOSTPATH_PROVISIONER, size);
        let asks = claim("2Gi", "1Gi", &json!({}));
        assert_eq!(decide(&claim("1Gi", "1Gi", &json!({})), Some(&ours("1Gi"))), Step::Nothing);
        assert_eq!(decide(&asks, None), Step::Nothing);
        assert_eq!(decide(&asks, Some(&volume("other", "1Gi"))), Step::LeaveToOthers);
        assert_eq!(decide(&asks, Some(&ours("1Gi"))), Step::Begin);
        let begun = begin(&asks, Timestamp::UNIX_EPOCH);
        let begun = claim("2Gi", "1Gi", &begun);
        assert_eq!(decide(&begun, Some(&ours("1Gi"))), Step::Grow);
        assert_eq!(decide(&begun, Some(&ours("2Gi"))), Step::Finish);
        // It asks for still more before it has grown: that is written down first.
        let more = Growing { request: 3 << 30, request_text: json!("3Gi"), ..begun.clone() };
        assert_eq!(decide(&more, Some(&ours("2Gi"))), Step::Begin);
        let less = Growing { request: 1 << 30, request_text: json!("1Gi"), ..begun.clone() };
        assert_eq!(decide(&less, Some(&ours("2Gi"))), Step::Finish, "it is content with what it has");
        let another = VolumeView { claim: None, ..ours("1Gi") };
        assert_eq!(decide(&begun, Some(&another)), Step::Nothing, "not its volume");
    }

    #[test]
    fn the_status_says_what_goes_on_and_keeps_what_others_say() {
        let other = json!({"type": "Other", "status": "True"});
        let asks = claim("2Gi", "1Gi", &json!({"conditions": [other]}));
        let begun = begin(&asks, Timestamp::UNIX_EPOCH);
        assert_eq!(begun["conditions"][0], other);
        assert_eq!(
            (&begun["conditions"][1]["type"], &begun["conditions"][1]["status"]),
            (&json!("Resizing"), &json!("True"))
        );
        assert_eq!(begun["allocatedResources"]["storage"], "2Gi");
        let grown = finish(&claim("2Gi", "1Gi", &begun));
        assert_eq!(
            grown,
            json!({"conditions": [other], "capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": null})
        );
    }
}
