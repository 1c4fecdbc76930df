//! The built-in provisioner: a claim of a class with `provisioner: minik8s.io/hostpath` gets a directory of the node
//! that its pod was scheduled to.
//!
//! Here only objects are made and deleted: the directory is made by the node's kubelet at the first mount and taken away
//! by it at the end, for which a finalizer keeps the deleted volume. The protocol is that of upstream's external
//! provisioners (`sig-storage-lib-external-provisioner`): the claim's annotation says whose turn it is, the name
//! `pvc-<uid>` keeps a claim from getting two volumes.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, EventType, Informer, Key, PatchType, Recorder, Scope, WorkQueue};
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};
use crate::volumes::{
    ClaimView, ClassView, HOSTPATH_FINALIZER, HOSTPATH_PROVISIONER, NODE_LABEL, PROVISIONED_BY,
    SELECTED_NODE, STORAGE_PROVISIONER, VolumeView, claim_reference,
};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    labels: BTreeMap<String, String>,
    can_take_pods: bool,
}

impl NodeView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let node: Value = typed(bytes)?;
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|found| found["type"] == "Ready" && found["status"] == "True");
        Some(Self {
            labels: meta.labels.clone(),
            can_take_pods: ready && node["spec"]["unschedulable"] != true,
        })
    }
}

/// What to do for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is not (or no longer) our turn.
    Nothing,
    /// A volume on this node.
    Provision(String),
    /// The chosen node is gone: the scheduler chooses another.
    ChooseAnother,
    /// It cannot be done; why.
    Refuse(String),
}

/// Decides about a claim. `nodes` are all nodes in order.
#[must_use]
pub fn decide(
    claim: &ClaimView,
    class: Option<&ClassView>,
    exists: bool,
    nodes: &[(&str, &NodeView)],
) -> Decision {
    let ours = |name: &str| claim.annotations.get(name).is_some_and(|value| value == HOSTPATH_PROVISIONER);
    let Some(class) = class.filter(|class| class.provisioner == HOSTPATH_PROVISIONER) else {
        return Decision::Nothing;
    };
    if exists
        || claim.deleting
        || !claim.volume.is_empty()
        || !STORAGE_PROVISIONER.iter().any(|name| ours(name))
    {
        return Decision::Nothing;
    }
    if claim.has_selector {
        return Decision::Refuse("claim Selector is not supported".to_owned());
    }
    if claim.has_source {
        return Decision::Refuse("a data source is not supported: volumes begin empty".to_owned());
    }
    if claim.mode == "Block" {
        return Decision::Refuse(format!(
            "{HOSTPATH_PROVISIONER} does not support block volume provisioning"
        ));
    }
    match claim.annotations.get(SELECTED_NODE) {
        Some(node) if nodes.iter().all(|(known, _)| known != node) => Decision::ChooseAnother,
        Some(node) => Decision::Provision(node.clone()),
        None if class.waits_for_consumer => Decision::Nothing,
        // Without a pod to go by, any node that the class allows is as good as another.
        None => match nodes.iter().find(|(_, node)| node.can_take_pods && class.allows(&node.labels)) {
            Some((node, _)) => Decision::Provision((*node).to_owned()),
            None => Decision::Refuse("no node can take a volume".to_owned()),
        },
    }
}

/// The controller.
pub struct HostpathProvisioner {
    client: Client,
    recorder: Recorder,
    root: PathBuf,
    claims_resource: Arc<Resource>,
    volumes_resource: Arc<Resource>,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
    classes: Informer<ClassView>,
    nodes: Informer<NodeView>,
}

/// Starts the provisioner. Volumes are directories below `root`, on whichever node.
pub fn start(context: &Context, root: PathBuf) {
    let claims_resource = resource("", "v1", "persistentvolumeclaims");
    let volumes_resource = resource("", "v1", "persistentvolumes");
    let everywhere = Scope::default();
    let watched = &context.informers;
    let claims = watched.watch(&claims_resource, &everywhere, ClaimView::project);
    let volumes = watched.watch(&volumes_resource, &everywhere, VolumeView::project);
    let classes =
        watched.watch(&resource("storage.k8s.io", "v1", "storageclasses"), &everywhere, ClassView::project);
    let nodes = watched.watch(&resource("", "v1", "nodes"), &everywhere, NodeView::project);
    let provisioner = Arc::new(HostpathProvisioner {
        client: context.client.clone(),
        recorder: context.recorder(HOSTPATH_PROVISIONER),
        root,
        claims_resource,
        volumes_resource,
        claims: claims.clone(),
        volumes: volumes.clone(),
        classes: classes.clone(),
        nodes: nodes.clone(),
    });
    let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced =
            async { tokio::join!(claims.synced(), volumes.synced(), classes.synced(), nodes.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        // Claims have a namespace, volumes have none: one queue serves both.
        feed(&context, &claims, &queue, |change| vec![change.key.clone()]);
        feed(&context, &volumes, &queue, |change| vec![change.key.clone()]);
        spawn_workers(&context, &provisioner, &queue, 2);
    });
}

impl Reconciler for HostpathProvisioner {
    type Key = Key;
    const NAME: &'static str = "hostpath-provisioner";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        if key.namespace.is_empty() { self.delete(key).await } else { self.provision(key).await }
    }
}

impl HostpathProvisioner {
    async fn provision(&self, key: &Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Action::AwaitChange) };
        let class = self.classes.get(&Key::new("", claim.class_name()));
        let name = format!("pvc-{}", claim.uid);
        let exists = self.volumes.get(&Key::new("", &name)).is_some();
        let nodes = self.nodes.list();
        let nodes: Vec<_> = nodes.iter().map(|(key, node)| (&*key.name, &**node)).collect();
        let about = claim_reference(key, &claim.uid);
        match (decide(&claim, class.as_deref(), exists, &nodes), class) {
            (Decision::Provision(node), Some(class)) => {
                let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
                self.recorder.event(&about, EventType::Normal, "Provisioning", message);
                let found = self.nodes.get(&Key::new("", &node));
                let volume = self.volume(&name, key, &claim, &class, &node, found.as_deref());
                match self.client.create(&self.volumes_resource, "", &volume).await {
                    Err(error) if !error.is_already_exists() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
                let message = format!("Successfully provisioned volume {name}");
                self.recorder.event(&about, EventType::Normal, "ProvisioningSucceeded", message);
            }
            (Decision::ChooseAnother, _) => {
                let patch = json!({"metadata": {
                    "annotations": {SELECTED_NODE: null}, "resourceVersion": claim.resource_version}});
                let (client, resource) = (&self.client, &self.claims_resource);
                client.patch(resource, &key.namespace, &key.name, None, PatchType::Merge, &patch).await?;
            }
            (Decision::Refuse(why), Some(_)) => {
                let message =
                    format!("failed to provision volume with StorageClass \"{}\": {why}", claim.class_name());
                self.recorder.event(&about, EventType::Warning, "ProvisioningFailed", message);
            }
            _ => {}
        }
        Ok(Action::AwaitChange)
    }

    fn volume(
        &self,
        name: &str,
        key: &Key,
        claim: &ClaimView,
        class: &ClassView,
        node: &str,
        found: Option<&NodeView>,
    ) -> Value {
        let label = |name: &str| found.and_then(|node| node.labels.get(name)).map(String::as_str);
        let hostname = label(HOSTNAME).unwrap_or(node);
        // A node that only pretends has no directory that anybody would have to take away.
        let finalizers =
            if label("type") == Some("simulated") { json!([]) } else { json!([HOSTPATH_FINALIZER]) };
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {
                "name": name,
                "labels": { NODE_LABEL: node },
                "annotations": { PROVISIONED_BY: HOSTPATH_PROVISIONER },
                "finalizers": finalizers,
            },
            "spec": {
                "capacity": { "storage": claim.request_text },
                "accessModes": claim.access_modes,
                "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": class.reclaim,
                "storageClassName": claim.class_name(),
                "mountOptions": class.mount_options,
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": &*key.namespace, "name": &*key.name, "uid": claim.uid,
                },
                "hostPath": { "path": self.root.join(name), "type": "DirectoryOrCreate" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": HOSTNAME, "operator": "In", "values": [hostname] }] }] } },
            },
        })
    }

    /// Deletes a released volume of ours; its node takes the directory away.
    async fn delete(&self, key: &Key) -> Result<Action, Error> {
        let Some(volume) = self.volumes.get(key).filter(|volume| is_over(volume)) else {
            return Ok(Action::AwaitChange);
        };
        let exactly =
            json!({"preconditions": {"uid": volume.uid, "resourceVersion": volume.resource_version}});
        match self.client.delete(&self.volumes_resource, "", &key.name, &exactly).await {
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}

/// Whether a volume is ours to delete.
fn is_over(volume: &VolumeView) -> bool {
    volume.annotations.get(PROVISIONED_BY).is_some_and(|name| name == HOSTPATH_PROVISIONER)
        && volume.reclaim == "Delete"
        && volume.phase == "Released"
        && !volume.deleting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::view;

    fn claim(annotations: &[(&str, &str)], more: &Value) -> ClaimView {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let mut object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        view(&object, ClaimView::project)
    }

    fn node(zone: &str, can_take_pods: bool) -> NodeView {
        NodeView { labels: [("zone".to_owned(), zone.to_owned())].into(), can_take_pods }
    }

    fn class(provisioner: &str, mode: &str) -> ClassView {
        view(&json!({"provisioner": provisioner, "volumeBindingMode": mode}), ClassView::project)
    }

    #[test]
    fn whose_turn_it_is() {
        let ours = (STORAGE_PROVISIONER[0], HOSTPATH_PROVISIONER);
        let (late, now) =
            (class(HOSTPATH_PROVISIONER, "WaitForFirstConsumer"), class(HOSTPATH_PROVISIONER, "Immediate"));
        let nodes = [("lame", node("lame", false)), ("a", node("a", true)), ("b", node("b", true))];
        let nodes: Vec<_> = nodes.iter().map(|(name, node)| (*name, node)).collect();
        let ask = |claim: &ClaimView, class: &ClassView, exists| decide(claim, Some(class), exists, &nodes);
        let chosen = claim(&[ours, (SELECTED_NODE, "b")], &json!({}));
        assert_eq!(ask(&chosen, &late, false), Decision::Provision("b".into()));
        assert_eq!(ask(&chosen, &late, true), Decision::Nothing, "it is there");
        let elsewhere = claim(&[ours, (SELECTED_NODE, "gone")], &json!({}));
        assert_eq!(ask(&elsewhere, &late, false), Decision::ChooseAnother);
        assert_eq!(ask(&chosen, &class("other", "Immediate"), false), Decision::Nothing);
        let waiting = claim(&[ours], &json!({}));
        assert_eq!(ask(&waiting, &late, false), Decision::Nothing, "no pod yet");
        assert_eq!(ask(&waiting, &now, false), Decision::Provision("a".into()));
        let topologies = vec![vec![("zone".to_owned(), vec!["b".to_owned()])]];
        let placed = ClassView { topologies, ..now.clone() };
        assert_eq!(ask(&waiting, &placed, false), Decision::Provision("b".into()));
        assert_eq!(ask(&claim(&[], &json!({})), &now, false), Decision::Nothing, "the binder has not asked");
        assert_eq!(ask(&claim(&[ours], &json!({"volumeName": "v"})), &now, false), Decision::Nothing);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let ours = (STORAGE_PROVISIONER[0], HOSTPATH_PROVISIONER);
        for more in
            [json!({"volumeMode": "Block"}), json!({"selector": {}}), json!({"dataSource": {"kind": "X"}})]
        {
            let decision = decide(
                &claim(&[ours], &more),
                Some(&class(HOSTPATH_PROVISIONER, "Immediate")),
                false,
                &[("a", &node("a", true))],
            );
            assert!(matches!(decision, Decision::Refuse(_)), "{more}: {decision:?}");
        }
    }

    #[test]
    fn only_released_volumes_of_ours_are_deleted() {
        let volume = |policy: &str, phase: &str, by: &str| {
            view(
                &json!({"metadata": {"annotations": {PROVISIONED_BY: by}},
                    "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}),
                VolumeView::project,
            )
        };
        assert!(is_over(&volume("Delete", "Released", HOSTPATH_PROVISIONER)));
        assert!(!is_over(&volume("Retain", "Released", HOSTPATH_PROVISIONER)));
        assert!(!is_over(&volume("Delete", "Bound", HOSTPATH_PROVISIONER)));
        assert!(!is_over(&volume("Delete", "Released", "other")));
    }
}
