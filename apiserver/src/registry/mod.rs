//! What the handlers do to objects: one generic pipeline, and one small strategy per kind.
//!
//! `read` and `write` are the only ways to the store. A [`Call`] says what is done where and by whom;
//! server-side writers (bootstrap, allocators) make one with [`Call::internal`] and go the same way as any
//! client's request, admission included.

pub mod columns;
pub mod conversion;
pub mod deletion;
pub mod kinds;
pub mod metadata;
pub mod strategy;
pub mod validation;
pub mod write;

use std::sync::Arc;

use api_objects::{Resource, Status, Value, object};
use apiserver_storage::{At, Entry, Revision, StoreError, cacher::Item};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

pub use write::{create, delete, update};

use crate::{
    Server,
    auth::UserInfo,
    projector::ObjectIndex,
    status::{Subject, from_store},
};

/// One operation on one resource: where, by whom, and how.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The server's parts.
    pub server: &'a Arc<Server>,
    /// The resource, in the version that the caller speaks.
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty for a creation whose name stands in the object.
    pub name: &'a str,
    /// On whose behalf.
    pub user: &'a UserInfo,
    /// Who owns the fields that are written (`metadata.managedFields[].manager`).
    pub manager: &'a str,
    /// Whether everything is done but the write.
    pub dry_run: bool,
    /// When.
    pub now: Timestamp,
}

impl<'a> Call<'a> {
    /// A call of the server itself, which no authorization restricts.
    #[must_use]
    pub fn internal(
        server: &'a Arc<Server>,
        user: &'a UserInfo,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
    ) -> Self {
        Self {
            server,
            resource,
            subresource: "",
            namespace,
            name,
            user,
            manager: "kube-apiserver",
            dry_run: false,
            now: Timestamp::now(),
        }
    }

    /// The store's key of the object that `name` names.
    #[must_use]
    pub fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }

    /// 404 for the object that `name` names.
    #[must_use]
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, self.name)
    }

    /// 409 for the object that `name` names.
    #[must_use]
    pub fn conflict(&self, detail: &str) -> Status {
        Status::conflict(&self.resource.group, &self.resource.plural, self.name, detail)
    }

    /// 403 for the object that `name` names.
    #[must_use]
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.plural, self.name, why)
    }

    /// The answer to a store's error about the object that `name` names.
    #[must_use]
    pub fn store_error(&self, error: &StoreError) -> Status {
        from_store(error, Subject { resource: self.resource, name: self.name })
    }
}

/// An object as it was read or written: canonical bytes in the stored version, and their revision.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Without a resource version.
    pub canonical: Bytes,
    /// 0 if it was never written (a dry run of a creation).
    pub revision: Revision,
}

impl Stored {
    /// The decoded object in the version of `resource`, with its resource version.
    #[must_use]
    pub fn to_value(&self, resource: &Resource) -> Value {
        decode(&self.canonical, self.revision, resource)
    }
}

impl From<&Entry> for Stored {
    fn from(entry: &Entry) -> Self {
        Self { canonical: entry.value.clone(), revision: entry.revision }
    }
}

/// Decodes stored bytes into the version of `resource`, with the resource version in its place. Bytes that
/// are no JSON become `null`: they were checked when they were written, and one odd object must not stop
/// the others.
#[must_use]
pub fn decode(canonical: &[u8], revision: Revision, resource: &Resource) -> Value {
    let mut value: Value = serde_json::from_slice(canonical).unwrap_or_else(|error| {
        tracing::error!(%error, kind = %resource.kind, "stored object cannot be decoded");
        Value::Null
    });
    if conversion::is_needed(resource) {
        conversion::to_served(resource, &mut value);
    }
    if revision > 0 && value.is_object() {
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
    }
    value
}

/// The bytes to serve for stored ones: the same, or converted into the version of `resource`.
#[must_use]
pub fn serve(canonical: &Bytes, resource: &Resource) -> Bytes {
    if conversion::is_needed(resource) {
        object::encode_canonical(&decode(canonical, 0, resource))
    } else {
        canonical.clone()
    }
}

/// Reads one object.
///
/// # Errors
/// 404 if there is none, or what the store says.
pub async fn read(call: &Call<'_>, at: At) -> Result<Arc<Item<ObjectIndex>>, Status> {
    match call.server.storage.get(&call.key(), at).await {
        Ok(Some(item)) => Ok(item),
        Ok(None) => Err(call.not_found()),
        Err(error) => Err(call.store_error(&error)),
    }
}

/// Reads and decodes one object of a built-in resource for the server's own use; `None` if it is absent.
///
/// # Errors
/// What the store says.
pub async fn lookup(
    server: &Server,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Status> {
    let key = resource.key(namespace, name);
    let failed = |error| from_store(&error, Subject { resource, name });
    // What is there is there at once; only its absence is worth waiting for the latest state.
    let item = match server.storage.get(&key, At::Any).await.map_err(failed)? {
        Some(item) => Some(item),
        None => server.storage.get(&key, At::Latest).await.map_err(failed)?,
    };
    Ok(item.map(|item| decode(&item.entry.value, item.entry.revision, resource)))
}
