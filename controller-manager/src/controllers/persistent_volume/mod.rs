//! Claims and volumes find each other, and volumes are released when their claims go.
//!
//! As upstream's `pkg/controller/volume/persistentvolume`. A binding is two references, written one after the other:
//! the volume's `claimRef` first, the claim's `volumeName` second; whatever is found half done is finished. Every write
//! carries the resource version that was decided on, so that nothing is bound twice on the word of an old cache.
//! Writes `claimRef` of volumes, `volumeName` of claims, the annotations that say who bound them, and both statuses.
//! Making and deleting volumes is a provisioner's business.

pub mod claim;
pub mod volume;

use std::{fmt, sync::Arc};

use api_objects::{Resource, Value, time::rfc3339};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, PatchType, Recorder, Scope, WorkQueue};
use jiff::Timestamp;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers};
use crate::volumes::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, ClaimView, ClassView, STORAGE_PROVISIONER, VolumeView,
    claim_reference, matching::is_bound_to,
};
use claim::{Around, ClaimAction, Note};
use volume::{Reclaim, VolumeAction};

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// Look at a claim.
    Claim(Key),
    /// Look at a volume.
    Volume(Key),
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(formatter, "claim {key}"),
            Self::Volume(key) => write!(formatter, "volume {key}"),
        }
    }
}

/// The controller.
pub struct PersistentVolumeController {
    client: Client,
    recorder: Recorder,
    claims_resource: Arc<Resource>,
    volumes_resource: Arc<Resource>,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
    classes: Informer<ClassView>,
    queue: Arc<WorkQueue<Work>>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let claims_resource = resource("", "v1", "persistentvolumeclaims");
    let volumes_resource = resource("", "v1", "persistentvolumes");
    let everywhere = Scope::default();
    let claims = context.informers.watch(&claims_resource, &everywhere, ClaimView::project);
    let volumes = context.informers.watch(&volumes_resource, &everywhere, VolumeView::project);
    let classes_resource = resource("storage.k8s.io", "v1", "storageclasses");
    let classes = context.informers.watch(&classes_resource, &everywhere, ClassView::project);
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(PersistentVolumeController {
        client: context.client.clone(),
        recorder: context.recorder("persistentvolume-controller"),
        claims_resource,
        volumes_resource,
        claims: claims.clone(),
        volumes: volumes.clone(),
        classes: classes.clone(),
        queue: queue.clone(),
    });
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(claims.synced(), volumes.synced(), classes.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let known = volumes.clone();
        feed(&context, &claims, &queue, move |change| {
            let mut work = vec![Work::Claim(change.key.clone())];
            // A claim that goes, comes or changes may be what a volume waits for.
            let refers = known
                .list()
                .into_iter()
                .filter(|(_, volume)| volume::claim_key(volume).as_ref() == Some(&change.key));
            work.extend(refers.map(|(key, _)| Work::Volume(key)));
            work
        });
        let waiting = claims.clone();
        feed(&context, &volumes, &queue, move |change| {
            let mut work = vec![Work::Volume(change.key.clone())];
            let bound = |claim: &ClaimView| claim.is_bound() && claim.volume != *change.key.name;
            work.extend(unbound(&waiting, bound));
            work
        });
        let waiting = claims.clone();
        feed(&context, &classes, &queue, move |_| unbound(&waiting, ClaimView::is_bound));
        // One worker: two could choose one volume for two claims, and one of them would only fail.
        spawn_workers(&context, &controller, &queue, 1);
    });
}

/// Work for every claim but those that `settled` says are settled.
fn unbound(claims: &Informer<ClaimView>, settled: impl Fn(&ClaimView) -> bool) -> Vec<Work> {
    let open = claims.list().into_iter().filter(|(_, claim)| !settled(claim));
    open.map(|(key, _)| Work::Claim(key)).collect()
}

impl Reconciler for PersistentVolumeController {
    type Key = Work;
    const NAME: &'static str = "persistent-volume";

    async fn reconcile(&self, work: &Work) -> Result<Action, Error> {
        let done = match work {
            Work::Claim(key) => self.claim(key).await,
            Work::Volume(key) => self.volume(key).await,
        };
        match done {
            // It has changed meanwhile: its next version queues it again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::AwaitChange),
            other => other.map(|()| Action::AwaitChange),
        }
    }
}

impl PersistentVolumeController {
    async fn claim(&self, key: &Key) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        let (volumes, classes) = (self.volumes.list(), self.classes.list());
        let volumes: Vec<_> = volumes.iter().map(|(key, volume)| (&*key.name, &**volume)).collect();
        let classes: Vec<_> = classes.iter().map(|(key, class)| (&*key.name, &**class)).collect();
        match claim::decide(key, &claim, &Around { volumes: &volumes, classes: &classes }) {
            ClaimAction::Bind(name) => {
                let chosen = volumes.iter().find(|(known, _)| *known == name);
                match chosen {
                    Some((_, volume)) => self.bind(key, &claim, &name, volume).await,
                    None => Ok(()),
                }
            }
            ClaimAction::Wait(note) => {
                if let Some(note) = note {
                    self.say_of_claim(key, &claim, note);
                }
                self.claim_phase(key, &claim, "Pending", None).await.map(drop)
            }
            ClaimAction::Provision(provisioner) => self.wait_for(key, &claim, &provisioner).await,
            ClaimAction::UseClass(class) => self
                .patch_claim(key, &claim.resource_version, json!({"spec": {"storageClassName": class}}))
                .await
                .map(drop),
            ClaimAction::Lost(note) => {
                if claim.phase == "Lost" {
                    return Ok(());
                }
                self.claim_phase(key, &claim, "Lost", None).await?;
                self.say_of_claim(key, &claim, note);
                Ok(())
            }
        }
    }

    /// Marks a claim for its provisioner.
    async fn wait_for(&self, key: &Key, claim: &ClaimView, provisioner: &str) -> Result<(), Error> {
        let marked = |name: &str| claim.annotations.get(name).is_some_and(|value| value == provisioner);
        if !STORAGE_PROVISIONER.iter().all(|name| marked(name)) {
            let annotations: serde_json::Map<String, Value> =
                STORAGE_PROVISIONER.iter().map(|name| ((*name).to_owned(), json!(provisioner))).collect();
            self.patch_claim(key, &claim.resource_version, json!({"metadata": {"annotations": annotations}}))
                .await?;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.say_of_claim(key, claim, Note::new(EventType::Normal, "ExternalProvisioning", message));
        Ok(())
    }

    /// Writes both references and both statuses, as far as they are not as they should be.
    async fn bind(&self, key: &Key, claim: &ClaimView, name: &str, volume: &VolumeView) -> Result<(), Error> {
        let mut version = volume.resource_version.clone();
        if let Some(patch) = volume_binding(key, claim, volume) {
            version = self.patch_volume(name, &version, None, patch).await?;
        }
        self.volume_phase(name, volume, &version, "Bound", "").await?;
        let mut version = claim.resource_version.clone();
        if let Some(patch) = claim_binding(claim, name) {
            version = self.patch_claim(key, &version, patch).await?;
        }
        let claim = ClaimView { resource_version: version, ..claim.clone() };
        self.claim_phase(key, &claim, "Bound", Some(volume)).await
    }

    async fn volume(&self, key: &Key) -> Result<(), Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(()) };
        let claim_key = volume::claim_key(&volume);
        let claim = match &claim_key {
            Some(claim_key) => self.claim_now(claim_key, &volume).await?,
            None => None,
        };
        let (name, version) = (&*key.name, &volume.resource_version);
        match volume::decide(name, &volume, claim.as_ref()) {
            VolumeAction::Phase(phase) => self.volume_phase(name, &volume, version, phase, "").await,
            VolumeAction::TellClaim => {
                if let Some(claim_key) = claim_key {
                    self.queue.add(Work::Claim(claim_key));
                }
                Ok(())
            }
            VolumeAction::Unbind => {
                let patch = if volume::forgets_claim(&volume) {
                    json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
                } else {
                    json!({"spec": {"claimRef": {"uid": null}}})
                };
                let version = self.patch_volume(name, version, None, patch).await?;
                self.volume_phase(name, &volume, &version, "Available", "").await
            }
            VolumeAction::Release(reclaim) => self.release(name, &volume, reclaim).await,
        }
    }

    /// The claim that a volume refers to. A cache that does not show it yet must not cost anybody their data: before
    /// a claim counts as gone, the server is asked (as upstream does).
    async fn claim_now(&self, key: &Key, volume: &VolumeView) -> Result<Option<ClaimView>, Error> {
        let uid = volume.claim.as_ref().map(|reference| reference.uid.as_str()).unwrap_or_default();
        if let Some(claim) = self.claims.get(key).filter(|claim| claim.uid == uid) {
            return Ok(Some((*claim).clone()));
        }
        match self.client.get(&self.claims_resource, &key.namespace, &key.name).await {
            Ok(claim) => {
                let bytes = claim.to_string().into_bytes();
                Ok(ClaimView::project(&bytes, &api_objects::object::ObjectMeta::from_value(&claim)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, name: &str, volume: &VolumeView, reclaim: Reclaim) -> Result<(), Error> {
        let (phase, reason, message) = match reclaim {
            Reclaim::Keep | Reclaim::ByProvisioner => ("Released", "", String::new()),
            Reclaim::CannotDelete => (
                "Failed",
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
                ),
            ),
            Reclaim::CannotRecycle => {
                ("Failed", "VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned())
            }
        };
        // What failed stays so for people to see.
        if matches!(volume.phase.as_str(), "Released" | "Failed")
            && (phase == "Released" || volume.phase == phase)
        {
            return Ok(());
        }
        self.volume_phase(name, volume, &volume.resource_version, phase, &message).await?;
        if !reason.is_empty() {
            let about = ObjectRef {
                api_version: "v1".into(),
                kind: "PersistentVolume".into(),
                name: name.to_owned(),
                uid: volume.uid.clone(),
                ..ObjectRef::default()
            };
            self.recorder.event(&about, EventType::Warning, reason, message);
        }
        Ok(())
    }

    async fn volume_phase(
        &self,
        name: &str,
        volume: &VolumeView,
        version: &str,
        phase: &str,
        message: &str,
    ) -> Result<(), Error> {
        if volume.phase == phase {
            return Ok(());
        }
        let message = if message.is_empty() { Value::Null } else { json!(message) };
        let now = rfc3339(Timestamp::now());
        let status = json!({"status": {"phase": phase, "message": message, "lastPhaseTransitionTime": now}});
        self.patch_volume(name, version, Some("status"), status).await.map(drop)
    }

    /// Sets the phase of a claim. One that becomes bound shows what its volume has; afterwards the two may differ, for
    /// a volume grows before its claim says so (upstream's `updateClaimStatus`).
    async fn claim_phase(
        &self,
        key: &Key,
        claim: &ClaimView,
        phase: &str,
        volume: Option<&VolumeView>,
    ) -> Result<(), Error> {
        let (capacity, modes) = match volume {
            Some(volume) if claim.phase == phase && claim.capacity.is_object() => {
                (claim.capacity.clone(), json!(volume.access_modes))
            }
            Some(volume) => (volume.capacity.clone(), json!(volume.access_modes)),
            None => (Value::Null, Value::Null),
        };
        if claim.phase == phase && claim.capacity == capacity && claim.status_modes == modes {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"resourceVersion": claim.resource_version, "uid": claim.uid},
            "status": {"phase": phase, "capacity": capacity, "accessModes": modes},
        });
        let (resource, client) = (&self.claims_resource, &self.client);
        client
            .patch(resource, &key.namespace, &key.name, Some("status"), PatchType::Merge, &patch)
            .await
            .map(drop)
    }

    async fn patch_claim(&self, key: &Key, version: &str, mut patch: Value) -> Result<String, Error> {
        patch["metadata"]["resourceVersion"] = json!(version);
        let (resource, client) = (&self.claims_resource, &self.client);
        client
            .patch(resource, &key.namespace, &key.name, None, PatchType::Merge, &patch)
            .await
            .map(|new| revision(&new))
    }

    async fn patch_volume(
        &self,
        name: &str,
        version: &str,
        subresource: Option<&str>,
        mut patch: Value,
    ) -> Result<String, Error> {
        patch["metadata"]["resourceVersion"] = json!(version);
        let (resource, client) = (&self.volumes_resource, &self.client);
        client
            .patch(resource, "", name, subresource, PatchType::Merge, &patch)
            .await
            .map(|new| revision(&new))
    }

    fn say_of_claim(&self, key: &Key, claim: &ClaimView, note: Note) {
        self.recorder.event(&claim_reference(key, &claim.uid), note.kind, note.reason, note.message);
    }
}

fn revision(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// What has to be written to a volume so that it refers to a claim; `None` if it does.
fn volume_binding(key: &Key, claim: &ClaimView, volume: &VolumeView) -> Option<Value> {
    if volume.claim.as_ref().is_some_and(|reference| reference.uid == claim.uid) {
        return None;
    }
    let mut patch = json!({"spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": &*key.namespace, "name": &*key.name,
        "uid": claim.uid, "resourceVersion": claim.resource_version }}});
    // A person's reservation stays a person's: it is not taken away when the claim goes elsewhere.
    if !is_bound_to(volume, key, claim) {
        patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
    }
    Some(patch)
}

/// What has to be written to a claim so that it refers to a volume; `None` if it does.
fn claim_binding(claim: &ClaimView, name: &str) -> Option<Value> {
    if claim.is_bound() && claim.volume == name {
        return None;
    }
    let mut annotations = json!({BIND_COMPLETED: "yes"});
    if claim.volume != name {
        annotations[BOUND_BY_CONTROLLER] = json!("yes");
    }
    Some(json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::view;

    #[test]
    fn a_binding_says_who_made_it() {
        let key = Key::new("ns", "c");
        let claim = |volume: &str| {
            view(
                &json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {"volumeName": volume}}),
                ClaimView::project,
            )
        };
        let volume = |reference: Value| view(&json!({"spec": {"claimRef": reference}}), VolumeView::project);
        let patch = volume_binding(&key, &claim(""), &volume(Value::Null)).expect("it must be bound");
        assert_eq!(patch["metadata"]["annotations"][BOUND_BY_CONTROLLER], "yes");
        assert_eq!(patch["spec"]["claimRef"]["uid"], "u");
        let reserved = volume(json!({"namespace": "ns", "name": "c"}));
        let patch = volume_binding(&key, &claim(""), &reserved).expect("its uid is missing");
        assert!(patch.get("metadata").is_none(), "the reservation is a person's");
        let bound = volume(json!({"namespace": "ns", "name": "c", "uid": "u"}));
        assert_eq!(volume_binding(&key, &claim(""), &bound), None);
        let patch = claim_binding(&claim(""), "v").expect("it must be bound");
        assert_eq!(patch["metadata"]["annotations"][BOUND_BY_CONTROLLER], "yes");
        let asked = claim_binding(&claim("v"), "v").expect("it is not complete");
        assert!(asked["metadata"]["annotations"].get(BOUND_BY_CONTROLLER).is_none());
    }
}
