//! ReplicaSets: as many pods as asked for, no more, no fewer.
//!
//! Contract, as upstream's `pkg/controller/replicaset`: pods are owned by controller reference; matching
//! orphans are adopted and pods that no longer match are released; missing pods are created in batches that
//! double (1, 2, 4 …) while they succeed; victims are chosen in upstream's order; expectations keep a stale
//! cache from creating or deleting twice. Writes pods and `ReplicaSet.status`, nothing else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, EventType, Informer, Key, ObjectRef, PatchType, Recorder, Scope, WorkQueue};
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use parking_lot::Mutex;
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// Most pods created or deleted in one reconciliation (upstream's `BurstReplicas`).
const BURST: usize = 500;
/// After this, an expectation that was never met is given up (upstream's `ExpectationsTimeout`).
const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(300);
/// Reconciliations at once (upstream's `--concurrent-replicaset-syncs`).
const WORKERS: usize = 5;

/// What is kept of a ReplicaSet.
#[derive(Debug)]
pub struct SetView {
    uid: String,
    deleting: bool,
    generation: i64,
    replicas: usize,
    min_ready: Duration,
    selector: api_objects::selector::LabelSelector,
    template_labels: BTreeMap<String, String>,
    template: Box<RawValue>,
    status: Value,
}

impl SetView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Raw {
            spec: RawSpec,
            #[serde(default)]
            status: Value,
        }
        #[derive(serde::Deserialize)]
        struct RawSpec {
            template: Box<RawValue>,
        }
        let set: ReplicaSet = typed(bytes)?;
        let raw: Raw = typed(bytes)?;
        let spec = set.spec?;
        let selector = serde_json::to_value(&spec.selector).ok()?;
        Some(Self {
            uid: meta.uid.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            generation: meta.generation,
            replicas: usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0),
            min_ready: Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0)),
            selector: api_objects::selector::LabelSelector::from_object(Some(&selector)).ok()?,
            template_labels: spec.template.and_then(|template| template.metadata?.labels).unwrap_or_default(),
            template: raw.spec.template,
            status: raw.status,
        })
    }
}

/// What is kept of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodView {
    uid: String,
    labels: BTreeMap<String, String>,
    /// Uid of the controller, whatever its kind.
    controller: Option<String>,
    phase: String,
    deleting: bool,
    node: String,
    /// Since when it is ready.
    ready_since: Option<Timestamp>,
    restarts: i32,
    created: Option<Timestamp>,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    deletion_cost: i32,
}

impl PodView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let pod: Pod = typed(bytes)?;
        let status = pod.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let ready_since = ready.filter(|condition| condition.status == "True").map(|condition| {
            condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
        });
        Some(Self {
            uid: meta.uid.clone(),
            labels: meta.labels.clone(),
            controller: meta.controller().map(|owner| owner.uid.clone()),
            phase: status.phase.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
            ready_since,
            restarts: status
                .container_statuses
                .iter()
                .flatten()
                .map(|container| container.restart_count)
                .max()
                .unwrap_or(0),
            created: meta.creation_timestamp.as_ref().and_then(|time| time.parse().ok()),
            deletion_cost: meta
                .annotations
                .get("controller.kubernetes.io/pod-deletion-cost")
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0),
        })
    }

    fn is_active(&self) -> bool {
        !self.deleting && self.phase != "Succeeded" && self.phase != "Failed"
    }

    fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        self.ready_since.is_some_and(|since| min_ready.is_zero() || ready_for(since, now) >= min_ready)
    }
}

fn ready_for(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// What is to be done for one ReplicaSet.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Pods to take over.
    adopt: Vec<(Key, String)>,
    /// Pods to let go.
    release: Vec<(Key, String)>,
    /// How many to create.
    create: usize,
    /// Which to delete.
    delete: Vec<(Key, String)>,
    /// When a ready pod will become available, if one is on its way.
    look_again: Option<Duration>,
    /// Counts for the status.
    counts: Counts,
}

/// The counts of a ReplicaSet's status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    replicas: usize,
    fully_labeled: usize,
    ready: usize,
    available: usize,
    terminating: usize,
}

/// Decides from what is observed. Pure.
///
/// `related` counts, for each node, the active pods of other owners with the same labels is not known here;
/// as upstream does for a single ReplicaSet, doubled-up nodes are judged by this set's own pods.
#[must_use]
pub fn decide(set: &SetView, pods: &[(Key, Arc<PodView>)], now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let mut owned: Vec<&(Key, Arc<PodView>)> = Vec::new();
    for entry in pods {
        let (key, pod) = entry;
        let matches = set.selector.matches(&pod.labels);
        match &pod.controller {
            Some(uid) if *uid == set.uid => {
                if matches {
                    owned.push(entry);
                } else if !set.deleting {
                    decision.release.push((key.clone(), pod.uid.clone()));
                }
            }
            Some(_) => {}
            None => {
                if matches && pod.is_active() && !set.deleting {
                    decision.adopt.push((key.clone(), pod.uid.clone()));
                    owned.push(entry);
                }
            }
        }
    }
    let active: Vec<&(Key, Arc<PodView>)> =
        owned.iter().copied().filter(|(_, pod)| pod.is_active()).collect();
    decision.counts = Counts {
        replicas: active.len(),
        fully_labeled: active
            .iter()
            .filter(|(_, pod)| {
                set.template_labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
            })
            .count(),
        ready: active.iter().filter(|(_, pod)| pod.ready_since.is_some()).count(),
        available: active.iter().filter(|(_, pod)| pod.is_available(set.min_ready, now)).count(),
        terminating: owned.iter().filter(|(_, pod)| pod.deleting).count(),
    };
    decision.look_again = active
        .iter()
        .filter(|(_, pod)| !pod.is_available(set.min_ready, now))
        .filter_map(|(_, pod)| pod.ready_since)
        .map(|since| set.min_ready.saturating_sub(ready_for(since, now)))
        .min();
    if set.deleting {
        return decision;
    }
    if active.len() < set.replicas {
        decision.create = (set.replicas - active.len()).min(BURST);
    } else {
        let surplus = (active.len() - set.replicas).min(BURST);
        decision.delete = victims(&active, surplus, now);
    }
    decision
}

/// Chooses victims in upstream's order (`ActivePodsWithRanks`): unassigned first, then by phase, readiness,
/// deletion cost, crowding of the node, time being ready, restarts, age; the name settles the rest.
fn victims(active: &[&(Key, Arc<PodView>)], count: usize, now: Timestamp) -> Vec<(Key, String)> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for (_, pod) in active {
        *per_node.entry(pod.node.as_str()).or_default() += 1;
    }
    let phase_rank = |pod: &PodView| match pod.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    // Upstream compares ages on a logarithmic scale, so that victims spread over pods of like age.
    let age_rank = |since: Option<Timestamp>| {
        since.map_or(0, |since| 64 - (ready_for(since, now).as_nanos().max(1) as u64).leading_zeros())
    };
    let mut ranked: Vec<_> = active.to_vec();
    ranked.sort_by_key(|(key, pod)| {
        (
            !pod.node.is_empty(),
            phase_rank(pod),
            pod.ready_since.is_some(),
            pod.deletion_cost,
            std::cmp::Reverse(per_node[pod.node.as_str()]),
            age_rank(pod.ready_since),
            std::cmp::Reverse(pod.restarts),
            age_rank(pod.created),
            key.clone(),
        )
    });
    ranked.into_iter().take(count).map(|(key, pod)| (key.clone(), pod.uid.clone())).collect()
}

/// Creations and deletions that the cache has not shown yet.
#[derive(Default)]
struct Expectations {
    sets: Mutex<HashMap<Key, Expected>>,
}

struct Expected {
    /// Names of created pods that have not been seen.
    created: HashSet<String>,
    /// Uids of deleted pods that still look active.
    deleted: HashSet<String>,
    at: Instant,
}

impl Expectations {
    fn expect(&self, set: &Key, created: Vec<String>, deleted: Vec<String>) {
        if created.is_empty() && deleted.is_empty() {
            return;
        }
        let expected = Expected {
            created: created.into_iter().collect(),
            deleted: deleted.into_iter().collect(),
            at: Instant::now(),
        };
        self.sets.lock().insert(set.clone(), expected);
    }

    /// Whether the cache shows all that was done (or it has been waited for long enough).
    fn satisfied(&self, set: &Key, pods: &Informer<PodView>) -> bool {
        let mut sets = self.sets.lock();
        let Some(expected) = sets.get_mut(set) else { return true };
        expected.created.retain(|name| pods.get(&Key::new(&set.namespace, name)).is_none());
        if !expected.deleted.is_empty() {
            let active: HashSet<String> = pods
                .by_namespace(&set.namespace)
                .into_iter()
                .filter(|(_, pod)| pod.is_active())
                .map(|(_, pod)| pod.uid.clone())
                .collect();
            expected.deleted.retain(|uid| active.contains(uid));
        }
        let satisfied = (expected.created.is_empty() && expected.deleted.is_empty())
            || expected.at.elapsed() > EXPECTATION_TIMEOUT;
        if satisfied {
            sets.remove(set);
        }
        satisfied
    }

    fn forget(&self, set: &Key) {
        self.sets.lock().remove(set);
    }
}

/// The controller.
pub struct ReplicaSetController {
    client: Client,
    recorder: Recorder,
    set_resource: Arc<Resource>,
    pod_resource: Arc<Resource>,
    sets: Informer<SetView>,
    pods: Informer<PodView>,
    expectations: Expectations,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let set_resource = resource("apps", "v1", "replicasets");
    let pod_resource = resource("", "v1", "pods");
    let sets = context.informers.watch(&set_resource, &Scope::default(), SetView::project);
    let pods =
        context.informers.watch_indexed(&pod_resource, &Scope::default(), PodView::project, |_, pod| {
            // Orphans stand under the empty value: they are looked at by every set of their namespace.
            vec![pod.controller.clone().unwrap_or_default()]
        });
    let queue = Arc::new(WorkQueue::new());
    let controller = Arc::new(ReplicaSetController {
        client: context.client.clone(),
        recorder: context.recorder("replicaset-controller"),
        set_resource,
        pod_resource,
        sets: sets.clone(),
        pods: pods.clone(),
        expectations: Expectations::default(),
    });
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(sets.synced(), pods.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &sets, &queue, |change| vec![change.key.clone()]);
        let by_uid = sets.clone();
        feed(&context, &pods, &queue, move |change| {
            // Both owners count: the one that lost the pod and the one that has it.
            let owners: HashSet<&str> = [&change.before, &change.after]
                .into_iter()
                .flatten()
                .map(|pod| pod.controller.as_deref().unwrap_or_default())
                .collect();
            let orphan = owners.contains("");
            by_uid
                .by_namespace(&change.key.namespace)
                .into_iter()
                .filter(|(_, set)| {
                    owners.contains(set.uid.as_str())
                        || (orphan
                            && change.after.as_ref().is_some_and(|pod| set.selector.matches(&pod.labels)))
                })
                .map(|(key, _)| key)
                .collect()
        });
        spawn_workers(&context, &controller, &queue, WORKERS);
    });
}

impl Reconciler for ReplicaSetController {
    type Key = Key;
    const NAME: &'static str = "replicaset";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Action::AwaitChange);
        };
        if !self.expectations.satisfied(key, &self.pods) {
            // What was done will show as a change of a pod, which queues the set again.
            return Ok(Action::RequeueAfter(EXPECTATION_TIMEOUT));
        }
        let mut pods: Vec<_> = self.pods.by_index(&set.uid);
        pods.extend(self.pods.by_index("").into_iter().filter(|(pod, _)| pod.namespace == key.namespace));
        let decision = decide(&set, &pods, Timestamp::now());

        if !decision.adopt.is_empty() {
            self.check_alive(key, &set).await?;
        }
        for (pod, uid) in &decision.adopt {
            self.adopt(key, &set, pod, uid).await?;
        }
        for (pod, uid) in &decision.release {
            self.release(&set, pod, uid).await?;
        }
        let about = self.reference(key, &set);
        let failure = self.scale(key, &set, &decision, &about).await;
        self.update_status(key, &set, &decision, failure.as_ref().err()).await?;
        failure?;
        Ok(decision.look_again.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl ReplicaSetController {
    fn reference(&self, key: &Key, set: &SetView) -> ObjectRef {
        ObjectRef {
            api_version: self.set_resource.api_version(),
            kind: self.set_resource.kind.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: set.uid.clone(),
            field_path: String::new(),
        }
    }

    fn owner_reference(&self, key: &Key, set: &SetView) -> Value {
        json!({
            "apiVersion": self.set_resource.api_version(), "kind": self.set_resource.kind,
            "name": &*key.name, "uid": set.uid, "controller": true, "blockOwnerDeletion": true,
        })
    }

    /// Adoption by a set that has been deleted meanwhile would leave pods behind: ask the server, not the cache.
    async fn check_alive(&self, key: &Key, set: &SetView) -> Result<(), Error> {
        let live = self.client.get(&self.set_resource, &key.namespace, &key.name).await?;
        let meta = ObjectMeta::from_value(&live);
        if meta.uid == set.uid && meta.deletion_timestamp.is_none() {
            return Ok(());
        }
        Err(Error::Api(Box::new(api_objects::Status::conflict(
            "apps",
            "replicasets",
            &key.name,
            "it is gone",
        ))))
    }

    async fn adopt(&self, key: &Key, set: &SetView, pod: &Key, uid: &str) -> Result<(), Error> {
        let patch =
            json!({ "metadata": { "uid": uid, "ownerReferences": [self.owner_reference(key, set)] } });
        self.patch_owners(pod, &patch).await
    }

    async fn release(&self, set: &SetView, pod: &Key, uid: &str) -> Result<(), Error> {
        let patch = json!({ "metadata": { "uid": uid,
            "ownerReferences": [{ "$patch": "delete", "uid": set.uid }] } });
        self.patch_owners(pod, &patch).await
    }

    async fn patch_owners(&self, pod: &Key, patch: &Value) -> Result<(), Error> {
        let patched = self
            .client
            .patch(&self.pod_resource, &pod.namespace, &pod.name, None, PatchType::Strategic, patch)
            .await;
        match patched {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn scale(
        &self,
        key: &Key,
        set: &SetView,
        decision: &Decision,
        about: &ObjectRef,
    ) -> Result<(), Error> {
        if decision.create > 0 {
            let pod = self.pod_from_template(key, set)?;
            let (created, failed) = self.create_in_batches(key, &pod, decision.create, about).await;
            self.expectations.expect(key, created, Vec::new());
            if let Some(error) = failed {
                self.recorder.event(
                    about,
                    EventType::Warning,
                    "FailedCreate",
                    format!("Error creating: {error}"),
                );
                return Err(error);
            }
        } else if !decision.delete.is_empty() {
            let deletions = decision.delete.iter().map(|(pod, uid)| self.delete(pod, uid, about));
            let mut deleted = Vec::new();
            let mut failed = None;
            for (outcome, (_, uid)) in join_all(deletions).await.into_iter().zip(&decision.delete) {
                match outcome {
                    Ok(()) => deleted.push(uid.clone()),
                    Err(error) => failed = Some(error),
                }
            }
            self.expectations.expect(key, Vec::new(), deleted);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    fn pod_from_template(&self, key: &Key, set: &SetView) -> Result<Value, Error> {
        let template: Value =
            serde_json::from_str(set.template.get()).map_err(|error| Error::Decode(error.to_string()))?;
        let mut metadata = json!({
            "generateName": format!("{}-", key.name),
            "namespace": &*key.namespace,
            "ownerReferences": [self.owner_reference(key, set)],
        });
        for field in ["labels", "annotations", "finalizers"] {
            if let Some(value) = template["metadata"].get(field) {
                metadata[field] = value.clone();
            }
        }
        Ok(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] }))
    }

    /// Batches of 1, 2, 4 …: a quota or a bad template is found out by one request, not by five hundred.
    async fn create_in_batches(
        &self,
        key: &Key,
        pod: &Value,
        count: usize,
        about: &ObjectRef,
    ) -> (Vec<String>, Option<Error>) {
        let mut created = Vec::new();
        let mut batch = 1;
        while created.len() < count {
            let size = batch.min(count - created.len());
            let requests = (0..size).map(|_| self.client.create(&self.pod_resource, &key.namespace, pod));
            let mut failed = None;
            for outcome in join_all(requests).await {
                match outcome {
                    Ok(pod) => {
                        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                        let message = format!("Created pod: {name}");
                        self.recorder.event(about, EventType::Normal, "SuccessfulCreate", message);
                        created.push(name);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_some() {
                return (created, failed);
            }
            batch *= 2;
        }
        (created, None)
    }

    async fn delete(&self, pod: &Key, uid: &str, about: &ObjectRef) -> Result<(), Error> {
        let options = json!({ "preconditions": { "uid": uid } });
        match self.client.delete(&self.pod_resource, &pod.namespace, &pod.name, &options).await {
            Ok(_) => {
                let message = format!("Deleted pod: {}", pod.name);
                self.recorder.event(about, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // Gone, or another pod of that name: what was to be deleted is not there.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {error}");
                self.recorder.event(about, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn update_status(
        &self,
        key: &Key,
        set: &SetView,
        decision: &Decision,
        failure: Option<&Error>,
    ) -> Result<(), Error> {
        let status = next_status(set, decision, failure, Timestamp::now());
        if status == set.status {
            return Ok(());
        }
        // Merge patch: counts that became absent are taken away explicitly.
        let mut patch = status.clone();
        for (field, _) in set.status.as_object().into_iter().flatten() {
            if status.get(field).is_none() {
                patch[field] = Value::Null;
            }
        }
        let patch = json!({ "status": patch });
        let patched = self
            .client
            .patch(&self.set_resource, &key.namespace, &key.name, Some("status"), PatchType::Merge, &patch)
            .await;
        match patched {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The status that follows from a decision. Counts of zero are left out as upstream's encoding does, but for
/// `replicas`.
fn next_status(set: &SetView, decision: &Decision, failure: Option<&Error>, now: Timestamp) -> Value {
    let counts = decision.counts;
    let mut status = json!({ "replicas": counts.replicas });
    for (field, count) in [
        ("fullyLabeledReplicas", counts.fully_labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ] {
        if count > 0 {
            status[field] = json!(count);
        }
    }
    status["terminatingReplicas"] = json!(counts.terminating);
    status["observedGeneration"] = json!(set.generation);
    if let Some(error) = failure {
        let reason = if decision.create > 0 { "FailedCreate" } else { "FailedDelete" };
        let old = set.status["conditions"].as_array().and_then(|conditions| {
            conditions
                .iter()
                .find(|condition| condition["type"] == "ReplicaFailure" && condition["reason"] == reason)
        });
        let since = old.map_or_else(
            || json!(api_objects::time::rfc3339(now)),
            |condition| condition["lastTransitionTime"].clone(),
        );
        status["conditions"] = json!([{ "type": "ReplicaFailure", "status": "True", "reason": reason,
            "message": error.to_string(), "lastTransitionTime": since }]);
    }
    status
}

#[cfg(test)]
mod tests;
