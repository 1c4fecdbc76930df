//! The write pipeline: strategy, defaults, admission, validation, managed fields, one encoding, one store
//! write at an expected revision.
//!
//! [`update`] holds the only retry loop of the server (upstream: `GuaranteedUpdate`). It first works on what
//! the watch cache holds; if that turns out to be outdated it works again on the latest state, so that a
//! client is told of a conflict only if it named a resource version, and of an error only if it is true of
//! the latest state.

use std::{sync::Arc, time::Duration};

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
    object::encode_canonical,
    params::DeleteParams,
    patch::managed_fields,
    schema,
};
use apiserver_storage::{At, Revision, Store as _, StoreError, cacher::Item};

use super::{Call, Stored, conversion, decode, deletion, kinds, metadata, strategy, validation};
use crate::{admission, allocators, projector::ObjectIndex};

/// How many names are tried for a `generateName` before the client is told (upstream: 8).
const NAME_ATTEMPTS: usize = 8;
/// How often an update is redone because another writer was faster, before the client is told. Every
/// failure means that somebody else progressed, so this bounds a request, not the cluster.
const UPDATE_ATTEMPTS: usize = 100;

/// A changed object, or the wish to leave it as it is, made from the current one.
pub type Make<'a> = &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync);

/// The time to live of a kind's objects.
fn time_to_live(call: &Call<'_>) -> Option<Duration> {
    (call.resource.storage.plural == "events").then_some(call.server.config.event_ttl)
}

// === create ===

/// Creates an object that has been decoded and checked by its schema.
///
/// # Errors
/// 409 if the name is taken, 422 if it is not valid, 403 from admission, or what the store says.
pub async fn create(call: &Call<'_>, mut object: Value) -> Result<Stored, Status> {
    metadata::prepare_for_create(call, &mut object)?;
    let base = metadata::text(&object, "generateName").to_owned();
    if !metadata::text(&object, "name").is_empty() || base.is_empty() {
        return create_once(call, object).await;
    }
    let mut attempt = 1;
    loop {
        let mut named = object.clone();
        metadata::of(&mut named).insert("name".to_owned(), metadata::generate_name(&base).into());
        let name = metadata::text(&named, "name").to_owned();
        match create_once(call, named).await {
            Err(status) if status.is_already_exists() && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(status) if status.is_already_exists() => {
                let mut status = status.retry_after(1);
                status.message = format!(
                    "{} {name:?} already exists, the server was not able to generate a unique name for the object",
                    api_objects::status::qualified(&call.resource.group, &call.resource.plural)
                );
                return Err(status);
            }
            outcome => return outcome,
        }
    }
}

async fn create_once(call: &Call<'_>, mut object: Value) -> Result<Stored, Status> {
    let name = metadata::text(&object, "name").to_owned();
    let call = &Call { name: &name, ..*call };
    let resource = call.resource;
    let policy = strategy::of(resource);
    if resource.subresource("status").is_some() && !policy.keeps_status_on_create {
        match kinds::empty_status(resource) {
            Some(status) => object["status"] = status.clone(),
            None => remove_member(&mut object, "status"),
        }
    }
    (policy.normalize)(&mut object);
    schema::apply_defaults(resource, &mut object);
    own_fields(call, None, &mut object);
    (policy.prepare_for_create)(&mut object);
    let attributes = admission::Attributes::new(call, admission::Operation::Create);
    admission::mutate(&attributes, &mut object, None).await?;
    let claims = allocators::claim(call, &mut object, None).await?;
    let outcome = create_prepared(&attributes, object).await;
    if outcome.is_err() {
        allocators::give_back(call, &claims).await;
    }
    outcome
}

/// The second half of a creation: from a finished object to a stored one.
async fn create_prepared(
    attributes: &admission::Attributes<'_>,
    mut object: Value,
) -> Result<Stored, Status> {
    let call = attributes.call;
    let resource = call.resource;
    reject_invalid(call, &validation::validate_create(resource, &object))?;
    admission::validate(attributes, Some(&object), None).await?;
    if conversion::is_needed(resource) {
        conversion::to_stored(resource, &mut object);
    }
    let canonical = encode_canonical(&object);
    let key = call.key();
    if call.dry_run {
        return match call.server.storage.get(&key, At::Latest).await {
            Ok(None) => Ok(Stored { canonical, revision: 0 }),
            Ok(Some(_)) => Err(Status::already_exists(&resource.group, &resource.plural, call.name)),
            Err(error) => Err(call.store_error(&error)),
        };
    }
    let store = call.server.storage.store();
    let revision = store
        .create(&key, canonical.clone(), time_to_live(call))
        .await
        .map_err(|error| call.store_error(&error))?;
    settle(call, &key, revision).await;
    Ok(Stored { canonical, revision })
}

/// Kinds that admission consults for other requests.
const CONSULTED: [&str; 3] = ["namespaces", "serviceaccounts", "priorityclasses"];

/// Admission reads the cache as it is, which is right only if a change of what it reads is in the cache
/// before its writer hears of it. These kinds change seldom: their writers wait, everybody else does not.
async fn settle(call: &Call<'_>, key: &str, revision: Revision) {
    if CONSULTED.contains(&&*call.resource.plural) {
        // An error here would say nothing of the write, which has been done.
        let _ = call.server.storage.get(key, At::NotOlderThan(revision)).await;
    }
}

// === update ===

/// An object as the pipeline found it.
struct Current {
    /// Whether it was the latest state when it was read; else it may lag a moment behind.
    latest: bool,
    item: Arc<Item<ObjectIndex>>,
    /// In the version that the caller speaks, with its resource version.
    value: Value,
}

impl Current {
    fn revision(&self) -> Revision {
        self.item.entry.revision
    }

    fn stored(&self) -> Stored {
        Stored::from(&*self.item.entry)
    }
}

async fn current(call: &Call<'_>, at: At) -> Result<Current, Status> {
    let item = super::read(call, at).await?;
    let value = decode(&item.entry.value, item.entry.revision, call.resource);
    Ok(Current { latest: at == At::Latest, item, value })
}

/// What one attempt came to.
enum Attempt {
    Done(Stored),
    /// Somebody else wrote in between.
    Lost,
}

/// Changes an object: `make` gets the current one (in the version that the caller speaks) and answers the
/// whole changed one. If that names a resource version, it must be the current one.
///
/// An object that comes out unchanged is not written.
///
/// # Errors
/// 404, 409, 422, 403 from admission, whatever `make` says, or what the store says.
pub async fn update(call: &Call<'_>, make: Make<'_>) -> Result<Stored, Status> {
    let mut base = match current(call, At::Any).await {
        Err(status) if status.is_not_found() => current(call, At::Latest).await?,
        other => other?,
    };
    for _ in 0..UPDATE_ATTEMPTS {
        match attempt_update(call, &base, make).await {
            Ok(Attempt::Done(stored)) => return Ok(stored),
            Ok(Attempt::Lost) => base = current(call, At::Latest).await?,
            Err(status) => {
                let latest = current(call, At::Latest).await?;
                if base.latest || latest.revision() == base.revision() {
                    return Err(status);
                }
                base = latest;
            }
        }
    }
    Err(call.conflict(Status::MODIFIED))
}

async fn attempt_update(call: &Call<'_>, base: &Current, make: Make<'_>) -> Result<Attempt, Status> {
    let resource = call.resource;
    let old = &base.value;
    let mut new = make(old)?;
    check_resource_version(call, &new, old)?;
    metadata::prepare_for_update(call, &mut new, old)?;
    shape_for_subresource(call, &mut new, old);
    schema::apply_defaults(resource, &mut new);
    metadata::of(&mut new).insert("resourceVersion".to_owned(), old["metadata"]["resourceVersion"].clone());
    own_fields(call, Some(old), &mut new);
    let attributes = admission::Attributes::new(call, admission::Operation::Update);
    admission::mutate(&attributes, &mut new, Some(old)).await?;
    let claims = allocators::claim(call, &mut new, Some(old)).await?;
    let outcome = update_prepared(&attributes, base, new).await;
    if !matches!(outcome, Ok(Attempt::Done(_))) {
        allocators::give_back(call, &claims).await;
    }
    outcome
}

/// The second half of an update: from a finished object to a stored one.
async fn update_prepared(
    attributes: &admission::Attributes<'_>,
    base: &Current,
    mut new: Value,
) -> Result<Attempt, Status> {
    let call = attributes.call;
    let resource = call.resource;
    let old = &base.value;
    if strategy::of(resource).counts_generation && !matches!(call.subresource, "status" | "binding") {
        metadata::count_generation(&mut new, old);
    }
    let errors = match call.subresource {
        "status" => validation::validate_status_update(resource, &new, old),
        // A binding is the one change of a pod's node; it has its own checks.
        "binding" => Vec::new(),
        "approval" => validation::validate_approval_update(&new, old),
        subresource => validation::validate_update(resource, subresource, &new, old),
    };
    reject_invalid(call, &errors)?;
    admission::validate(attributes, Some(&new), Some(old)).await?;
    // What is not written must be judged on the latest state: nothing else will notice that it is not.
    if !base.latest && (new == *old || call.dry_run) {
        return Ok(Attempt::Lost);
    }
    if new == *old {
        return Ok(Attempt::Done(base.stored()));
    }
    let finished = deletion::is_finished(resource, &new);
    let kept = (!finished && allocators::concerns(call)).then(|| new.clone());
    if conversion::is_needed(resource) {
        conversion::to_stored(resource, &mut new);
    }
    let canonical = encode_canonical(&new);
    if call.dry_run {
        return Ok(Attempt::Done(Stored { canonical, revision: base.revision() }));
    }
    let store = call.server.storage.store();
    let key = &base.item.entry.key;
    let written = if finished {
        store.delete(key, base.revision()).await
    } else {
        store.update(key, canonical.clone(), base.revision(), time_to_live(call)).await
    };
    match written {
        Ok(revision) => {
            settle(call, key, revision).await;
            allocators::release_unused(call, old, kept.as_ref()).await;
            Ok(Attempt::Done(Stored { canonical, revision }))
        }
        Err(StoreError::Conflict { .. }) => Ok(Attempt::Lost),
        Err(error) => Err(call.store_error(&error)),
    }
}

/// Says in `metadata.managedFields` who wrote what. Before admission, as upstream: nobody comes to own what
/// the server adds.
fn own_fields(call: &Call<'_>, old: Option<&Value>, new: &mut Value) {
    let api_version = call.resource.api_version();
    let writer = managed_fields::Writer {
        manager: call.manager,
        subresource: call.subresource,
        api_version: &api_version,
    };
    managed_fields::update(old, new, writer, Some(schema::for_resource(call.resource)), call.now);
}

/// A resource version that the caller names must be the current one.
fn check_resource_version(call: &Call<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    match metadata::text(new, "resourceVersion") {
        "" | "0" if strategy::of(call.resource).unconditional_update => Ok(()),
        "" | "0" => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name, &[error]))
        }
        asked if asked == metadata::text(old, "resourceVersion") => Ok(()),
        _ => Err(call.conflict(Status::MODIFIED)),
    }
}

/// Main and status are written apart: each leaves the other as it was.
fn shape_for_subresource(call: &Call<'_>, new: &mut Value, old: &Value) {
    match call.subresource {
        "" => {
            if call.resource.subresource("status").is_some() {
                copy_member(new, old, "status");
            }
            let policy = strategy::of(call.resource);
            (policy.normalize)(new);
            (policy.prepare_for_update)(new, old);
        }
        "status" => {
            let members: Vec<String> = [&*new, old]
                .iter()
                .filter_map(|object| object.as_object())
                .flat_map(|object| object.keys().cloned())
                .filter(|key| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata" | "status"))
                .collect();
            members.iter().for_each(|member| copy_member(new, old, member));
        }
        _ => {}
    }
    if !call.subresource.is_empty() {
        (strategy::of(call.resource).prepare_for_subresource)(call.subresource, new, old, call.now);
    }
}

fn copy_member(new: &mut Value, old: &Value, member: &str) {
    match old.get(member) {
        Some(value) => new[member] = value.clone(),
        None => remove_member(new, member),
    }
}

fn remove_member(object: &mut Value, member: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(member);
    }
}

fn reject_invalid(call: &Call<'_>, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name, errors))
}

// === delete ===

/// What became of an object that was to be deleted.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// It is gone; this is what it was.
    Gone(Stored),
    /// It stays until its finalizers or its grace period are over.
    Pending(Stored),
}

/// Deletes an object, or marks it for deletion.
///
/// # Errors
/// 404, 409 for a failed precondition, 403 from admission, or what the store says.
pub async fn delete(call: &Call<'_>, options: &DeleteParams) -> Result<Deleted, Status> {
    let resource = call.resource;
    for _ in 0..UPDATE_ATTEMPTS {
        let base = current(call, At::Latest).await?;
        deletion::check_preconditions(call, options, &base.value)?;
        let attributes = admission::Attributes::new(call, admission::Operation::Delete);
        admission::validate(&attributes, None, Some(&base.value)).await?;
        let store = call.server.storage.store();
        let key = &base.item.entry.key;
        let outcome = match deletion::decide(resource, &base.value, options, call.now) {
            deletion::Decision::Pending => return Ok(Deleted::Pending(base.stored())),
            deletion::Decision::Remove if call.dry_run => return Ok(Deleted::Gone(base.stored())),
            deletion::Decision::Remove => {
                let written = store.delete(key, base.revision()).await;
                written.map(|revision| (revision, Deleted::Gone(base.stored())))
            }
            deletion::Decision::Mark(mut object) => {
                if conversion::is_needed(resource) {
                    conversion::to_stored(resource, &mut object);
                }
                let canonical = encode_canonical(&object);
                if call.dry_run {
                    return Ok(Deleted::Pending(Stored { canonical, revision: base.revision() }));
                }
                let written = store.update(key, canonical.clone(), base.revision(), time_to_live(call)).await;
                written.map(|revision| (revision, Deleted::Pending(Stored { canonical, revision })))
            }
        };
        match outcome {
            Ok((revision, deleted)) => {
                settle(call, key, revision).await;
                if matches!(deleted, Deleted::Gone(_)) {
                    allocators::release_unused(call, &base.value, None).await;
                }
                return Ok(deleted);
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(call.store_error(&error)),
        }
    }
    Err(call.conflict(Status::MODIFIED))
}
