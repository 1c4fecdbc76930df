//! A claim is not deleted while a pod uses it, nor a volume while a claim has it.
//!
//! As upstream's `pkg/controller/volume/{pvcprotection,pvprotection}`: admission has put a finalizer on each, and it is
//! taken away here once the object is being deleted and nobody needs it. A pod that is not scheduled does not count: no
//! kubelet starts it with a claim that is going. Writes `metadata.finalizers`, only its own entries.

use std::sync::Arc;

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, Informer, Key, ListQuery, PatchType, Scope, WorkQueue};
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};
use crate::volumes::{ClaimView, VolumeView};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The claims that a pod on a node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uses(Vec<String>);

impl Uses {
    fn project(bytes: &[u8], _: &ObjectMeta) -> Option<Self> {
        typed::<Value>(bytes).map(|pod| Self::of(&pod))
    }

    fn of(pod: &Value) -> Self {
        if pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
            return Self(Vec::new());
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let claims =
            volumes.filter_map(|volume| match volume["persistentVolumeClaim"]["claimName"].as_str() {
                Some(claim) => Some(claim.to_owned()),
                None if volume["ephemeral"].is_object() => {
                    Some(format!("{name}-{}", volume["name"].as_str()?))
                }
                None => None,
            });
        Self(claims.collect())
    }
}

/// The finalizers that remain when ours goes; `None` while it must stay.
#[must_use]
pub fn decide(finalizers: &[String], ours: &str, deleting: bool, needed: bool) -> Option<Vec<String>> {
    let has = finalizers.iter().any(|finalizer| finalizer == ours);
    (has && deleting && !needed)
        .then(|| finalizers.iter().filter(|finalizer| *finalizer != ours).cloned().collect())
}

/// The controller. Keys with a namespace are claims, the others volumes.
pub struct VolumeProtection {
    client: Client,
    pods_resource: Arc<Resource>,
    claims_resource: Arc<Resource>,
    volumes_resource: Arc<Resource>,
    pods: Informer<Uses>,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let everywhere = Scope::default();
    let pods_resource = resource("", "v1", "pods");
    let claims_resource = resource("", "v1", "persistentvolumeclaims");
    let volumes_resource = resource("", "v1", "persistentvolumes");
    let pods = context.informers.watch(&pods_resource, &everywhere, Uses::project);
    let claims = context.informers.watch(&claims_resource, &everywhere, ClaimView::project);
    let volumes = context.informers.watch(&volumes_resource, &everywhere, VolumeView::project);
    let controller = Arc::new(VolumeProtection {
        client: context.client.clone(),
        pods_resource,
        claims_resource,
        volumes_resource,
        pods: pods.clone(),
        claims: claims.clone(),
        volumes: volumes.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(pods.synced(), claims.synced(), volumes.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &claims, &queue, |change| vec![change.key.clone()]);
        feed(&context, &volumes, &queue, |change| vec![change.key.clone()]);
        feed(&context, &pods, &queue, |change| {
            let before = change.before.iter().flat_map(|pod| &pod.0);
            before.map(|claim| Key::new(&change.key.namespace, claim)).collect()
        });
        spawn_workers(&context, &controller, &queue, 1);
    });
}

impl Reconciler for VolumeProtection {
    type Key = Key;
    const NAME: &'static str = "volume-protection";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let (resource, version, left) = if key.namespace.is_empty() {
            let Some(volume) = self.volumes.get(key) else { return Ok(Action::AwaitChange) };
            let needed = volume.phase == "Bound";
            let left = decide(&volume.finalizers, VOLUME_FINALIZER, volume.deleting, needed);
            (&self.volumes_resource, volume.resource_version.clone(), left)
        } else {
            let Some(claim) = self.claims.get(key) else { return Ok(Action::AwaitChange) };
            let mut left = decide(&claim.finalizers, CLAIM_FINALIZER, claim.deleting, self.in_use(key));
            // The cache may not show the newest pods: before the finalizer goes, the server is asked.
            if left.is_some() && self.in_use_now(key).await? {
                left = None;
            }
            (&self.claims_resource, claim.resource_version.clone(), left)
        };
        let Some(left) = left else { return Ok(Action::AwaitChange) };
        let patch = json!({"metadata": {"finalizers": left, "resourceVersion": version}});
        match self.client.patch(resource, &key.namespace, &key.name, None, PatchType::Merge, &patch).await {
            // Its next version queues it again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::AwaitChange),
            other => other.map(|_| Action::AwaitChange),
        }
    }
}

impl VolumeProtection {
    fn in_use(&self, key: &Key) -> bool {
        let pods = self.pods.by_namespace(&key.namespace);
        pods.iter().any(|(_, pod)| pod.0.iter().any(|claim| **claim == *key.name))
    }

    async fn in_use_now(&self, key: &Key) -> Result<bool, Error> {
        let listed = self.client.list(&self.pods_resource, &key.namespace, &ListQuery::default()).await?;
        let pods = listed["items"].as_array();
        Ok(pods.into_iter().flatten().any(|pod| Uses::of(pod).0.iter().any(|claim| **claim == *key.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_goes_when_nobody_needs_the_object() {
        let finalizers = ["a/b".to_owned(), CLAIM_FINALIZER.to_owned()];
        assert_eq!(decide(&finalizers, CLAIM_FINALIZER, true, false), Some(vec!["a/b".to_owned()]));
        assert_eq!(decide(&finalizers, CLAIM_FINALIZER, true, true), None, "in use");
        assert_eq!(decide(&finalizers, CLAIM_FINALIZER, false, false), None, "it stays");
        assert_eq!(decide(&finalizers[..1], CLAIM_FINALIZER, true, false), None, "it is not there");
    }

    #[test]
    fn scheduled_pods_use_their_claims() {
        let pod = |node: &str| {
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}, {"name": "e", "emptyDir": {}}]}})
        };
        assert_eq!(Uses::of(&pod("n")).0, ["c", "p-scratch"]);
        assert_eq!(Uses::of(&pod("")).0, Vec::<String>::new());
    }
}
