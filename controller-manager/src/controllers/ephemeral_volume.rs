//! Generic ephemeral volumes: each gets a claim named `<pod>-<volume>` that the pod owns and that goes with it.
//!
//! As upstream's `pkg/controller/volume/ephemeral`. A claim of that name which is not the pod's is left alone and said in
//! an event. Creates PersistentVolumeClaims, nothing else.

use std::sync::Arc;

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, Recorder, Scope, WorkQueue};
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};
use crate::volumes::ClaimView;

/// What is kept of a pod; most have no ephemeral volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    uid: String,
    deleting: bool,
    /// Name of the volume, and what its claim is made of.
    volumes: Vec<(String, Value)>,
}

impl PodView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let pod: Value = typed(bytes)?;
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let ephemeral = volumes.filter(|volume| volume["ephemeral"].is_object()).filter_map(|volume| {
            Some((volume["name"].as_str()?.to_owned(), volume["ephemeral"]["volumeClaimTemplate"].clone()))
        });
        let volumes = ephemeral.collect();
        Some(Self { uid: meta.uid.clone(), deleting: meta.deletion_timestamp.is_some(), volumes })
    }
}

/// What to do for one volume of a pod.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Its claim is there.
    Nothing,
    /// Create this claim.
    Create(Value),
    /// The name is taken.
    Conflict(String),
}

/// Decides about one volume; `claim` is the one that has the name.
#[must_use]
pub fn decide(pod: &Key, uid: &str, volume: &str, template: &Value, claim: Option<&ClaimView>) -> Decision {
    let name = format!("{}-{volume}", pod.name);
    if let Some(claim) = claim {
        let owned = claim.owners.iter().any(|owner| owner.uid == uid && owner.controller == Some(true));
        return if owned {
            Decision::Nothing
        } else {
            Decision::Conflict(format!(
                "ephemeral volume {volume}: PVC {}/{name} was not created for pod {pod} (pod is not owner)",
                pod.namespace
            ))
        };
    }
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": &*pod.namespace,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": &*pod.name, "uid": uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    });
    for field in ["labels", "annotations"] {
        if let Some(given) = template["metadata"].get(field) {
            claim["metadata"][field] = given.clone();
        }
    }
    Decision::Create(claim)
}

/// The controller. Keys are pods.
pub struct EphemeralVolumes {
    client: Client,
    recorder: Recorder,
    claims_resource: Arc<Resource>,
    pods: Informer<PodView>,
    claims: Informer<ClaimView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let claims_resource = resource("", "v1", "persistentvolumeclaims");
    let pods = context.informers.watch(&resource("", "v1", "pods"), &Scope::default(), PodView::project);
    let claims = context.informers.watch(&claims_resource, &Scope::default(), ClaimView::project);
    let controller = Arc::new(EphemeralVolumes {
        client: context.client.clone(),
        recorder: context.recorder("ephemeral_volume"),
        claims_resource,
        pods: pods.clone(),
        claims: claims.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(pods.synced(), claims.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &pods, &queue, |change| vec![change.key.clone()]);
        // A claim that goes while its pod is there is made again.
        feed(&context, &claims, &queue, |change| {
            let gone = change.before.iter().filter(|_| change.after.is_none());
            let owners = gone.flat_map(|claim| &claim.owners).filter(|owner| owner.kind == "Pod");
            owners.map(|owner| Key::new(&change.key.namespace, &owner.name)).collect()
        });
        spawn_workers(&context, &controller, &queue, 2);
    });
}

impl Reconciler for EphemeralVolumes {
    type Key = Key;
    const NAME: &'static str = "ephemeral-volume";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.deleting) else {
            return Ok(Action::AwaitChange);
        };
        for (volume, template) in &pod.volumes {
            let claim = self.claims.get(&Key::new(&key.namespace, &format!("{}-{volume}", key.name)));
            match decide(key, &pod.uid, volume, template, claim.as_deref()) {
                Decision::Nothing => {}
                Decision::Create(claim) => {
                    match self.client.create(&self.claims_resource, &key.namespace, &claim).await {
                        // Ours from before, or another's: the cache will show it and queue the pod.
                        Err(error) if error.is_already_exists() => {}
                        Err(error) => {
                            let name = &claim["metadata"]["name"].as_str().unwrap_or_default();
                            self.say(
                                key,
                                &pod,
                                format!("ephemeral volume {volume}: create PVC {name}: {error}"),
                            );
                            return Err(error);
                        }
                        Ok(_) => {}
                    }
                }
                Decision::Conflict(message) => self.say(key, &pod, message),
            }
        }
        Ok(Action::AwaitChange)
    }
}

impl EphemeralVolumes {
    fn say(&self, key: &Key, pod: &PodView, message: String) {
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: pod.uid.clone(),
            field_path: String::new(),
        };
        self.recorder.event(&about, EventType::Warning, "FailedBinding", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::view;

    #[test]
    fn a_claim_for_each_volume_that_the_pod_owns() {
        let pod = Key::new("ns", "p");
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let Decision::Create(claim) = decide(&pod, "u", "scratch", &template, None) else {
            panic!("it must be made")
        };
        assert_eq!(claim["metadata"]["name"], "p-scratch");
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(claim["spec"]["accessModes"][0], "ReadWriteOnce");
        let found = view(&claim, ClaimView::project);
        assert_eq!(decide(&pod, "u", "scratch", &template, Some(&found)), Decision::Nothing);
        let Decision::Conflict(message) = decide(&pod, "new", "scratch", &template, Some(&found)) else {
            panic!("the pod before owned it")
        };
        assert_eq!(
            message,
            "ephemeral volume scratch: PVC ns/p-scratch was not created for pod ns/p (pod is not owner)"
        );
    }
}
