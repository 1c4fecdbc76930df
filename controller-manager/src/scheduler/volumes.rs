//! Where a pod's volumes are, or can be: upstream's plug-ins VolumeBinding and VolumeRestrictions.
//!
//! A claim that is bound ties its pod to the nodes that reach its volume. One that waits for its pod gets, for each node
//! that is looked at, a free volume or a promise of its provisioner; what is planned for the chosen node is written
//! before the pod is bound, and the pod waits until the claims are. A pod with a claim that nobody binds for it (class
//! with immediate binding) waits without a node.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use client::{Client, Error, Informer, Key, PatchType};
use k8s_openapi::api::core::v1::Volume;
use serde_json::json;
use tokio::time::Instant;

use super::{
    affinity,
    snapshot::{NodeInfo, PodInfo, Snapshot},
};
use crate::{
    controllers::{Context, resource},
    volumes::{
        BOUND_BY_CONTROLLER, ClaimView, ClassView, SELECTED_NODE, VolumeView,
        matching::{self, Asker},
        provisions,
    },
};

/// Upstream's `bindTimeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(600);

/// A claim that a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// The claim's name.
    pub name: String,
    /// Whether it is made for this pod alone.
    pub ephemeral: bool,
}

impl PodClaim {
    /// The claims of a pod's volumes.
    #[must_use]
    pub fn of(pod: &str, volumes: &[Volume]) -> Vec<Self> {
        let claim = |volume: &Volume| match &volume.persistent_volume_claim {
            Some(source) => Some(Self { name: source.claim_name.clone(), ephemeral: false }),
            None if volume.ephemeral.is_some() => {
                Some(Self { name: format!("{pod}-{}", volume.name), ephemeral: true })
            }
            None => None,
        };
        volumes.iter().filter_map(claim).collect()
    }
}

/// All claims, volumes and classes.
#[derive(Clone)]
pub(super) struct VolumeWorld {
    pub(super) claims: Informer<ClaimView>,
    pub(super) volumes: Informer<VolumeView>,
    pub(super) classes: Informer<ClassView>,
}

impl VolumeWorld {
    pub(super) fn watch(context: &Context) -> Self {
        let everywhere = client::Scope::default();
        let watched = &context.informers;
        let classes = resource("storage.k8s.io", "v1", "storageclasses");
        Self {
            claims: watched.watch(
                &resource("", "v1", "persistentvolumeclaims"),
                &everywhere,
                ClaimView::project,
            ),
            volumes: watched.watch(
                &resource("", "v1", "persistentvolumes"),
                &everywhere,
                VolumeView::project,
            ),
            classes: watched.watch(&classes, &everywhere, ClassView::project),
        }
    }

    pub(super) async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced());
    }

    /// What is known of a pod's claims; the error keeps it off every node.
    pub(super) fn wants(&self, namespace: &str, pod: &PodInfo) -> Result<Wants, String> {
        let mut wants = Wants::default();
        if pod.claims.is_empty() {
            return Ok(wants);
        }
        let mut unbound = false;
        for wanted in &pod.claims {
            let key = Key::new(namespace, &wanted.name);
            let claim = self.claims.get(&key);
            let claim = usable(&pod.uid, wanted, &key, claim)?;
            let class = self.classes.get(&Key::new("", claim.class_name()));
            if claim.is_bound() {
                let volume = self.volumes.get(&Key::new("", &claim.volume));
                wants.bound.push((key, claim, volume));
            } else if !claim.volume.is_empty() {
                // It asks for a volume by name: the controller's business.
                unbound = true;
            } else if let Some(class) = class.filter(|class| class.waits_for_consumer) {
                wants.open.push((key, claim, class));
            } else {
                unbound = true;
            }
        }
        if unbound {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        if !wants.open.is_empty() {
            wants.free =
                self.volumes.list().into_iter().map(|(key, volume)| (key.name.to_string(), volume)).collect();
        }
        // The smallest first, so that it does not take what a larger one needs.
        wants.open.sort_by_key(|(_, claim, _)| claim.request);
        Ok(wants)
    }
}

/// A claim that a pod can be scheduled with.
fn usable(
    pod_uid: &str,
    wanted: &PodClaim,
    key: &Key,
    claim: Option<Arc<ClaimView>>,
) -> Result<Arc<ClaimView>, String> {
    let name = &wanted.name;
    let Some(claim) = claim else {
        return Err(if wanted.ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
        } else {
            format!("persistentvolumeclaim \"{name}\" not found")
        });
    };
    if claim.phase == "Lost" {
        let volume = &claim.volume;
        return Err(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        ));
    }
    if claim.deleting {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let owned = || claim.owners.iter().any(|owner| owner.uid == pod_uid && owner.controller == Some(true));
    if wanted.ephemeral && !owned() {
        let pod = name.rsplit_once('-').map_or("", |(pod, _)| pod);
        return Err(format!("PVC {key} was not created for pod {}/{pod} (pod is not owner)", key.namespace));
    }
    Ok(claim)
}

/// A pod's claims, looked up.
#[derive(Default)]
pub(super) struct Wants {
    bound: Vec<(Key, Arc<ClaimView>, Option<Arc<VolumeView>>)>,
    open: Vec<(Key, Arc<ClaimView>, Arc<ClassView>)>,
    /// The volumes that open claims may get.
    free: Vec<(String, Arc<VolumeView>)>,
}

/// What is written for a pod before it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// The claim gets this volume, which is at this resource version.
    Bind { claim: Key, claim_uid: String, volume: String, version: String },
    /// The claim's provisioner makes one on this node.
    Provision { claim: Key, version: String, node: String },
}

impl Wants {
    /// Why a node cannot have the pod's volumes, or what to write so that it has them.
    pub(super) fn on(&self, node: &NodeInfo) -> Result<Vec<Plan>, Vec<String>> {
        let mut reasons = BTreeSet::new();
        for (_, _, volume) in &self.bound {
            match volume {
                None => {
                    reasons
                        .insert("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
                }
                Some(volume) if !reaches(volume, node) => {
                    reasons.insert("node(s) didn't match PersistentVolume's node affinity");
                }
                Some(_) => {}
            }
        }
        let mut plans = Vec::new();
        for (key, claim, class) in &self.open {
            match self.plan(key, claim, class, node, &plans) {
                Some(plan) => plans.push(plan),
                None => {
                    reasons.insert("node(s) didn't find available persistent volumes to bind");
                    break;
                }
            }
        }
        if reasons.is_empty() { Ok(plans) } else { Err(reasons.into_iter().map(str::to_owned).collect()) }
    }

    fn plan(
        &self,
        key: &Key,
        claim: &ClaimView,
        class: &ClassView,
        node: &NodeInfo,
        before: &[Plan],
    ) -> Option<Plan> {
        let provision = || Plan::Provision {
            claim: key.clone(),
            version: claim.resource_version.clone(),
            node: node.name.clone(),
        };
        if let Some(selected) = claim.annotations.get(SELECTED_NODE) {
            // Its volume is being made there.
            return (*selected == node.name).then(provision);
        }
        let taken = |name: &str| {
            before.iter().any(|plan| matches!(plan, Plan::Bind { volume, .. } if volume == name))
        };
        let volumes =
            self.free.iter().filter(|(name, _)| !taken(name)).map(|(name, volume)| (&**name, &**volume));
        let here = |volume: &VolumeView| reaches(volume, node);
        if let Some(name) = matching::best(key, claim, volumes, Asker::Scheduler(&here)) {
            let volume = self.free.iter().find(|(known, _)| known == name).map(|(_, volume)| volume)?;
            return Some(Plan::Bind {
                claim: key.clone(),
                claim_uid: claim.uid.clone(),
                volume: name.to_owned(),
                version: volume.resource_version.clone(),
            });
        }
        (provisions(class) && class.allows(&node.labels)).then(provision)
    }

    /// Whether another pod has a claim that only one pod may have.
    pub(super) fn is_taken(&self, pod: &Key, snapshot: &Snapshot) -> bool {
        let claims = self.bound.iter().map(|(key, claim, _)| (key, claim));
        let alone =
            claims.filter(|(_, claim)| claim.access_modes.iter().any(|mode| mode == "ReadWriteOncePod"));
        let names: Vec<&str> = alone.map(|(key, _)| &*key.name).collect();
        !names.is_empty()
            && snapshot.nodes().flat_map(|node| &node.pods).any(|(other, info)| {
                other != pod
                    && other.namespace == pod.namespace
                    && info.claims.iter().any(|claim| names.contains(&claim.name.as_str()))
            })
    }
}

/// Whether a node reaches a volume.
fn reaches(volume: &VolumeView, node: &NodeInfo) -> bool {
    volume.affinity.as_ref().is_none_or(|affinity| affinity::selects(affinity, node))
}

/// Writes what was planned and waits until every claim of the pod is bound. The error is for people.
pub(super) async fn carry_out(client: &Client, world: &VolumeWorld, plans: &[Plan]) -> Result<(), String> {
    if plans.is_empty() {
        return Ok(());
    }
    let mut changes = world.claims.subscribe();
    for plan in plans {
        write(client, plan).await.map_err(|error| format!("binding volumes: {error}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut all = true;
        for plan in plans {
            let (Plan::Bind { claim, .. } | Plan::Provision { claim, .. }) = plan;
            let Some(found) = world.claims.get(claim) else {
                return Err(format!("binding volumes: could not find PVC {claim}"));
            };
            all &= found.is_bound() && found.phase == "Bound";
        }
        if all {
            return Ok(());
        }
        if tokio::time::timeout_at(deadline, changes.recv()).await.is_err() {
            return Err("binding volumes: context deadline exceeded".to_owned());
        }
        if let Some(claim) = given_up(world, plans) {
            return Err(format!("binding volumes: provisioning failed for PVC \"{claim}\""));
        }
    }
}

/// A claim whose provisioner has taken the chosen node away: it wants another one.
fn given_up<'a>(world: &VolumeWorld, plans: &'a [Plan]) -> Option<&'a Key> {
    plans.iter().find_map(|plan| {
        let Plan::Provision { claim, version, .. } = plan else { return None };
        let found = world.claims.get(claim)?;
        let lost = !found.is_bound() && !found.annotations.contains_key(SELECTED_NODE);
        // The cache may still show the claim as it was before the node was written to it.
        (lost && found.resource_version != *version).then_some(claim)
    })
}

async fn write(client: &Client, plan: &Plan) -> Result<(), Error> {
    let (kind, key, patch) = match plan {
        Plan::Bind { claim, claim_uid, volume, version } => (
            "persistentvolumes",
            Key::new("", volume),
            json!({
                "metadata": {"resourceVersion": version, "annotations": {BOUND_BY_CONTROLLER: "yes"}},
                "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": &*claim.namespace, "name": &*claim.name, "uid": claim_uid}},
            }),
        ),
        Plan::Provision { claim, version, node } => (
            "persistentvolumeclaims",
            claim.clone(),
            json!({"metadata": {"resourceVersion": version, "annotations": {SELECTED_NODE: node}}}),
        ),
    };
    let resource = resource("", "v1", kind);
    client.patch(&resource, &key.namespace, &key.name, None, PatchType::Merge, &patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api_objects::Value;

    use super::*;
    use crate::volumes::view;

    fn node(name: &str) -> NodeInfo {
        let labels: BTreeMap<&str, &str> = [("kubernetes.io/hostname", name)].into();
        view(&json!({"metadata": {"name": name, "labels": labels}, "status": {}}), NodeInfo::project)
    }

    fn volume(name: &str, host: &str) -> Arc<VolumeView> {
        Arc::new(view(
            &json!({"metadata": {"name": name, "resourceVersion": "7"}, "status": {"phase": "Available"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": "s",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}}),
            VolumeView::project,
        ))
    }

    fn open(name: &str, annotations: &Value, provisioner: &str) -> (Key, Arc<ClaimView>, Arc<ClassView>) {
        let claim = view(
            &json!({"metadata": {"name": name, "namespace": "ns", "uid": "u", "annotations": annotations}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "s"}}),
            ClaimView::project,
        );
        let class = json!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
        (Key::new("ns", name), Arc::new(claim), Arc::new(view(&class, ClassView::project)))
    }

    const NONE: &str = "kubernetes.io/no-provisioner";

    #[test]
    fn a_bound_volume_ties_the_pod_to_its_node() {
        let (key, claim, _) = open("c", &json!({}), NONE);
        let bound = |volume| Wants { bound: vec![(key.clone(), claim.clone(), volume)], ..Wants::default() };
        assert_eq!(bound(Some(volume("v", "a"))).on(&node("a")), Ok(vec![]));
        assert_eq!(
            bound(Some(volume("v", "a"))).on(&node("b")),
            Err(vec!["node(s) didn't match PersistentVolume's node affinity".to_owned()])
        );
        let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned();
        assert_eq!(bound(None).on(&node("a")), Err(vec![gone]));
    }

    #[test]
    fn open_claims_get_a_volume_of_the_node_or_a_promise() {
        let free = vec![("v".to_owned(), volume("v", "a"))];
        let none = "node(s) didn't find available persistent volumes to bind".to_owned();
        let local = Wants { open: vec![open("c", &json!({}), NONE)], free: free.clone(), ..Wants::default() };
        assert!(matches!(&local.on(&node("a")).unwrap()[..], [Plan::Bind { volume, .. }] if volume == "v"));
        assert_eq!(local.on(&node("b")), Err(vec![none.clone()]));
        let two = vec![open("c", &json!({}), NONE), open("d", &json!({}), NONE)];
        let two = Wants { open: two, free: free.clone(), ..Wants::default() };
        assert_eq!(two.on(&node("a")), Err(vec![none.clone()]), "one volume is not two");
        let made = Wants { open: vec![open("c", &json!({}), "p")], free, ..Wants::default() };
        assert!(matches!(&made.on(&node("b")).unwrap()[..], [Plan::Provision { node, .. }] if node == "b"));
        let (key, claim, class) = open("c", &json!({}), "p");
        let topologies = vec![vec![("kubernetes.io/hostname".to_owned(), vec!["b".to_owned()])]];
        let class = Arc::new(ClassView { topologies, ..(*class).clone() });
        let placed = Wants { open: vec![(key, claim, class)], ..Wants::default() };
        assert_eq!(placed.on(&node("a")), Err(vec![none.clone()]), "volumes of the class are not made there");
        assert_eq!(placed.on(&node("b")).unwrap().len(), 1);
        let chosen = open("c", &json!({SELECTED_NODE: "a"}), "p");
        let chosen = Wants { open: vec![chosen], ..Wants::default() };
        assert_eq!(chosen.on(&node("b")), Err(vec![none]));
        assert_eq!(chosen.on(&node("a")).unwrap().len(), 1);
    }

    #[test]
    fn claims_that_keep_a_pod_off_every_node() {
        let key = Key::new("ns", "p-c");
        let ask = |ephemeral, claim: Option<Value>| {
            let claim = claim.map(|claim| Arc::new(view(&claim, ClaimView::project)));
            usable("u", &PodClaim { name: "p-c".into(), ephemeral }, &key, claim).map(drop).unwrap_err()
        };
        assert_eq!(ask(false, None), "persistentvolumeclaim \"p-c\" not found");
        assert_eq!(
            ask(true, None),
            "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-c\""
        );
        let going = json!({"metadata": {"name": "p-c", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(ask(false, Some(going)), "persistentvolumeclaim \"p-c\" is being deleted");
        let another = json!({"metadata": {"name": "p-c"}});
        assert_eq!(ask(true, Some(another)), "PVC ns/p-c was not created for pod ns/p (pod is not owner)");
    }
}
