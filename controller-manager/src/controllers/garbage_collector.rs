//! Objects go when their owners are gone.
//!
//! As upstream's `pkg/controller/garbagecollector`: an object whose owners are all absent is deleted; one with
//! some absent owners loses these references; an owner that waits for its dependents (`foregroundDeletion`)
//! is released once no blocking dependent is left; one that orphans (`orphan`) once no dependent names it.
//! An owner that the cache does not show is asked for before anything is deleted for it. Deletes objects and
//! writes `metadata.ownerReferences` and the two finalizers.

use std::{collections::HashMap, fmt, hash::Hash, sync::Arc};

use api_objects::{
    Resource, Value,
    object::{ObjectMeta, OwnerReference},
};
use client::{Client, Error, Informer, Key, PatchType, Scope, WorkQueue};
use parking_lot::RwLock;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, spawn_workers};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Upstream's `--concurrent-gc-syncs` is 20; objects here are few and requests cheap.
const WORKERS: usize = 8;

/// What is kept of every object.
#[derive(Debug, Clone, PartialEq)]
struct ObjectView {
    uid: String,
    owners: Vec<OwnerReference>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl ObjectView {
    #[expect(clippy::unnecessary_wraps, reason = "the signature of a projection")]
    fn project(_: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let has = |name: &str| meta.finalizers.iter().any(|finalizer| finalizer == name);
        Some(Self {
            uid: meta.uid.clone(),
            owners: meta.owner_references.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        })
    }
}

/// One object of any kind.
#[derive(Debug, Clone)]
pub struct ObjectId {
    resource: Arc<Resource>,
    key: Key,
}

impl PartialEq for ObjectId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.resource.storage == other.resource.storage
    }
}
impl Eq for ObjectId {}
impl Hash for ObjectId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        self.resource.plural.hash(state);
    }
}
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.plural, self.key)
    }
}

/// What is to be done for one object. Pure outcome of [`decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Nothing,
    /// Delete with this propagation policy.
    Delete(&'static str),
    /// The same in the foreground, once it blocks its owners no more: one of them waits for it in a circle.
    BreakCircle,
    /// Take away the references to these uids.
    RemoveOwners(Vec<String>),
    /// Take away this finalizer.
    RemoveFinalizer(&'static str),
    /// Orphan the dependents, then take away the finalizer.
    OrphanDependents,
}

/// The state of an owner named by a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerState {
    Present,
    /// Being deleted in the foreground: waits for its dependents.
    Waiting,
    Absent,
}

fn decide(
    object: &ObjectView,
    owners: &[(OwnerReference, OwnerState)],
    blocking: usize,
    dependents: usize,
    dependent_waits: bool,
) -> Decision {
    if object.deleting {
        if object.orphan {
            return if dependents > 0 {
                Decision::OrphanDependents
            } else {
                Decision::RemoveFinalizer(ORPHAN)
            };
        }
        if object.foreground && blocking == 0 {
            return Decision::RemoveFinalizer(FOREGROUND);
        }
        return Decision::Nothing;
    }
    if owners.is_empty() {
        return Decision::Nothing;
    }
    let with = |state: OwnerState| owners.iter().filter(move |(_, of)| *of == state);
    if with(OwnerState::Present).next().is_some() {
        let gone: Vec<String> = with(OwnerState::Absent)
            .chain(with(OwnerState::Waiting))
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if gone.is_empty() { Decision::Nothing } else { Decision::RemoveOwners(gone) };
    }
    if with(OwnerState::Waiting).next().is_some() {
        // The object may have dependents of its own to wait for as well, and wait for itself by way of one of them.
        return match dependents {
            0 => Decision::Delete("Background"),
            _ if dependent_waits => Decision::BreakCircle,
            _ => Decision::Delete("Foreground"),
        };
    }
    Decision::Delete(if object.orphan {
        "Orphan"
    } else if object.foreground {
        "Foreground"
    } else {
        "Background"
    })
}

struct Followed {
    resource: Arc<Resource>,
    objects: Informer<ObjectView>,
}

/// The controller.
pub struct GarbageCollector {
    client: Client,
    followed: Vec<Followed>,
    /// Where each uid is; kept by the feeding tasks.
    by_uid: Arc<RwLock<HashMap<String, ObjectId>>>,
}

/// Starts the controller over every built-in resource that can be listed, watched and deleted.
pub fn start(context: &Context) {
    let can = |resource: &Resource, verb: &str| resource.verbs.iter().any(|has| has == verb);
    let followed: Vec<Followed> = api_objects::resource::builtin()
        .iter()
        .filter(|resource| {
            let stored = resource.storage.version == resource.version
                && (resource.storage.group == resource.group || resource.group.is_empty());
            // Events own nothing, are owned by nothing and outnumber all else; upstream ignores them too.
            stored
                && resource.plural != "events"
                && ["list", "watch", "delete"].iter().all(|verb| can(resource, verb))
        })
        .map(|resource| Followed {
            resource: resource.clone(),
            objects: context.informers.watch_indexed(
                resource,
                &Scope::default(),
                ObjectView::project,
                |_, object| object.owners.iter().map(|owner| owner.uid.clone()).collect(),
            ),
        })
        .collect();
    let queue: Arc<WorkQueue<ObjectId>> = Arc::new(WorkQueue::new());
    let controller =
        Arc::new(GarbageCollector { client: context.client.clone(), followed, by_uid: Arc::default() });
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async {
            for followed in &controller.followed {
                followed.objects.synced().await;
            }
        };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        for followed in &controller.followed {
            let (collector, resource) = (controller.clone(), followed.resource.clone());
            feed(&context, &followed.objects, &queue, move |change| collector.touched(&resource, change));
        }
        spawn_workers(&context, &controller, &queue, WORKERS);
    });
}

impl GarbageCollector {
    /// Which objects a change touches: itself, the dependents of what went, and the owners it had.
    fn touched(&self, resource: &Arc<Resource>, change: &client::Change<ObjectView>) -> Vec<ObjectId> {
        let id = ObjectId { resource: resource.clone(), key: change.key.clone() };
        let mut touched = Vec::new();
        let gone = match (&change.before, &change.after) {
            (Some(before), Some(after)) if before.uid == after.uid => None,
            (before, _) => before.as_ref(),
        };
        if let Some(gone) = gone {
            self.by_uid.write().remove(&gone.uid);
            touched.extend(self.dependents(&gone.uid).into_iter().map(|(id, _)| id));
        }
        // An owner that waits for its dependents looks again when one of them has gone or let go.
        if let Some(before) = &change.before {
            let by_uid = self.by_uid.read();
            touched.extend(before.owners.iter().filter_map(|owner| by_uid.get(&owner.uid).cloned()));
        }
        if let Some(after) = &change.after {
            self.by_uid.write().insert(after.uid.clone(), id.clone());
            if after.deleting && after.foreground {
                touched.extend(self.dependents(&after.uid).into_iter().map(|(id, _)| id));
            }
            if !after.owners.is_empty() || after.foreground || after.orphan {
                touched.push(id);
            }
        }
        touched
    }

    fn dependents(&self, uid: &str) -> Vec<(ObjectId, Arc<ObjectView>)> {
        self.followed
            .iter()
            .flat_map(|followed| {
                followed
                    .objects
                    .by_index(uid)
                    .into_iter()
                    .map(|(key, object)| (ObjectId { resource: followed.resource.clone(), key }, object))
            })
            .collect()
    }

    fn view(&self, id: &ObjectId) -> Option<Arc<ObjectView>> {
        let followed =
            self.followed.iter().find(|followed| followed.resource.storage == id.resource.storage)?;
        followed.objects.get(&id.key)
    }

    async fn owner_state(&self, namespace: &str, owner: &OwnerReference) -> Result<OwnerState, Error> {
        let known = self.by_uid.read().get(&owner.uid).cloned();
        if let Some(view) = known.and_then(|id| self.view(&id)).filter(|view| view.uid == owner.uid) {
            return Ok(if view.deleting && view.foreground {
                OwnerState::Waiting
            } else {
                OwnerState::Present
            });
        }
        // Not in the cache: that may be its lag. The server knows.
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let Some(resource) = api_objects::resource::find_kind(group, version, &owner.kind) else {
            // A kind that is not served here: its objects cannot be looked up, so nothing is deleted for it.
            return Ok(OwnerState::Present);
        };
        let namespace = if resource.namespaced { namespace } else { "" };
        match self.client.get(resource, namespace, &owner.name).await {
            Ok(live) => {
                let meta = ObjectMeta::from_value(&live);
                Ok(if meta.uid != owner.uid {
                    OwnerState::Absent
                } else if meta.deletion_timestamp.is_some()
                    && meta.finalizers.iter().any(|name| name == FOREGROUND)
                {
                    OwnerState::Waiting
                } else {
                    OwnerState::Present
                })
            }
            Err(error) if error.is_not_found() => Ok(OwnerState::Absent),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, id: &ObjectId, patch: &Value) -> Result<(), Error> {
        let patched = self
            .client
            .patch(&id.resource, &id.key.namespace, &id.key.name, None, PatchType::Merge, patch)
            .await;
        ignore_gone(patched)
    }

    async fn delete(&self, id: &ObjectId, uid: &str, policy: &str) -> Result<(), Error> {
        let options = json!({ "propagationPolicy": policy, "preconditions": { "uid": uid } });
        ignore_gone(self.client.delete(&id.resource, &id.key.namespace, &id.key.name, &options).await)
    }

    /// The object as the server has it; `None` if it is gone, or another one has its name.
    async fn live(&self, id: &ObjectId, uid: &str) -> Result<Option<Value>, Error> {
        match self.client.get(&id.resource, &id.key.namespace, &id.key.name).await {
            Ok(live) => Ok(Some(live).filter(|live| live["metadata"]["uid"] == uid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets the owners of an object go without waiting for it.
    async fn unblock_owners(&self, id: &ObjectId, uid: &str) -> Result<(), Error> {
        let Some(mut live) = self.live(id, uid).await? else { return Ok(()) };
        let version = live["metadata"]["resourceVersion"].take();
        let mut owners = live["metadata"]["ownerReferences"].take();
        for owner in owners.as_array_mut().into_iter().flatten() {
            owner["blockOwnerDeletion"] = json!(false);
        }
        let patch =
            json!({ "metadata": { "uid": uid, "resourceVersion": version, "ownerReferences": owners } });
        self.patch(id, &patch).await
    }

    /// Changes a list of the metadata at the version that is read; a conflict tries the object again.
    async fn edit(
        &self,
        id: &ObjectId,
        uid: &str,
        field: &str,
        keep: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let Some(live) = self.live(id, uid).await? else { return Ok(()) };
        let Some(list) = live["metadata"][field].as_array() else { return Ok(()) };
        let kept: Vec<&Value> = list.iter().filter(|element| keep(element)).collect();
        if kept.len() == list.len() {
            return Ok(());
        }
        let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
        let version = &live["metadata"]["resourceVersion"];
        let patch = json!({ "metadata": { "uid": uid, "resourceVersion": version, field: kept } });
        self.patch(id, &patch).await
    }
}

impl Reconciler for GarbageCollector {
    type Key = ObjectId;
    const NAME: &'static str = "garbage-collector";

    async fn reconcile(&self, id: &ObjectId) -> Result<Action, Error> {
        let Some(object) = self.view(id) else { return Ok(Action::AwaitChange) };
        let mut owners = Vec::new();
        if !object.deleting {
            for owner in &object.owners {
                let state = self.owner_state(&id.key.namespace, owner).await?;
                owners.push((owner.clone(), state));
            }
        }
        let dependents = self.dependents(&object.uid);
        let blocking = dependents
            .iter()
            .flat_map(|(_, dependent)| &dependent.owners)
            .filter(|owner| owner.uid == object.uid && owner.block_owner_deletion == Some(true))
            .count();
        let waits = dependents.iter().any(|(_, dependent)| dependent.deleting && dependent.foreground);
        match decide(&object, &owners, blocking, dependents.len(), waits) {
            Decision::Nothing => {}
            Decision::Delete(policy) => self.delete(id, &object.uid, policy).await?,
            Decision::BreakCircle => {
                self.unblock_owners(id, &object.uid).await?;
                self.delete(id, &object.uid, "Foreground").await?;
            }
            Decision::RemoveOwners(uids) => {
                let keep = |owner: &Value| !uids.iter().any(|uid| owner["uid"] == **uid);
                self.edit(id, &object.uid, "ownerReferences", keep).await?;
            }
            Decision::RemoveFinalizer(finalizer) => {
                self.edit(id, &object.uid, "finalizers", |name| name != finalizer).await?;
            }
            Decision::OrphanDependents => {
                for (dependent, view) in &dependents {
                    let keep = |owner: &Value| owner["uid"] != *object.uid;
                    self.edit(dependent, &view.uid, "ownerReferences", keep).await?;
                }
                self.edit(id, &object.uid, "finalizers", |name| name != ORPHAN).await?;
            }
        }
        Ok(Action::AwaitChange)
    }
}

fn ignore_gone(outcome: Result<Value, Error>) -> Result<(), Error> {
    match outcome {
        // A conflict of uids: the object that was meant is gone. A conflict of versions shows as a change.
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(deleting: bool, foreground: bool, orphan: bool) -> ObjectView {
        ObjectView { uid: "o".into(), owners: Vec::new(), deleting, foreground, orphan }
    }

    fn owner(uid: &str, state: OwnerState) -> (OwnerReference, OwnerState) {
        (OwnerReference { uid: uid.into(), ..OwnerReference::default() }, state)
    }

    #[test]
    fn deleted_when_every_owner_is_absent() {
        use OwnerState::{Absent, Present, Waiting};
        let plain = object(false, false, false);
        assert_eq!(decide(&plain, &[], 0, 0, false), Decision::Nothing);
        assert_eq!(decide(&plain, &[owner("a", Absent)], 0, 0, false), Decision::Delete("Background"));
        assert_eq!(
            decide(&plain, &[owner("a", Absent), owner("b", Present)], 0, 0, false),
            Decision::RemoveOwners(vec!["a".into()])
        );
        assert_eq!(decide(&plain, &[owner("a", Waiting)], 0, 2, false), Decision::Delete("Foreground"));
        assert_eq!(decide(&plain, &[owner("a", Waiting)], 0, 2, true), Decision::BreakCircle);
        assert_eq!(decide(&plain, &[owner("a", Present)], 0, 0, false), Decision::Nothing);
    }

    #[test]
    fn a_waiting_owner_is_released_by_its_last_blocking_dependent() {
        assert_eq!(decide(&object(true, true, false), &[], 1, 1, false), Decision::Nothing);
        assert_eq!(
            decide(&object(true, true, false), &[], 0, 1, false),
            Decision::RemoveFinalizer(FOREGROUND)
        );
        assert_eq!(decide(&object(true, false, true), &[], 0, 3, false), Decision::OrphanDependents);
        assert_eq!(decide(&object(true, false, true), &[], 0, 0, false), Decision::RemoveFinalizer(ORPHAN));
    }
}
