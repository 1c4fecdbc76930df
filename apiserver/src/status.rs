//! The one place that turns what the store says into a `Status`.
//!
//! Every other layer passes a [`StoreError`] up unchanged, so that the words a client reads are chosen once.
//! The texts are those of `k8s.io/apiserver/pkg/storage` and `pkg/registry/generic/registry`.

use api_objects::{Resource, Status, status::StatusCause};
use apiserver_storage::StoreError;

/// What a failed call was about, for the message.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The resource that was read or written.
    pub resource: &'a Resource,
    /// The object's name; empty for collections.
    pub name: &'a str,
}

/// The answer to a store's error. `subject` is what the caller asked for.
#[must_use]
pub fn from_store(error: &StoreError, subject: Subject<'_>) -> Status {
    let Subject { resource, name } = subject;
    match error {
        StoreError::AlreadyExists(_) => Status::already_exists(&resource.group, &resource.plural, name),
        StoreError::Conflict { .. } => {
            Status::conflict(&resource.group, &resource.plural, name, Status::MODIFIED)
        }
        StoreError::Compacted { asked, oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, current } => too_large_resource_version(*asked, *current),
        StoreError::SlowWatcher => Status::expired("the watcher did not keep up; list and watch again"),
        StoreError::NoSpace => Status::failure(
            507,
            "InsufficientStorage",
            "the store has no space left; the write did not happen, and writes go on once there is room",
        ),
        StoreError::TooLarge { size, limit } => Status::too_large(format!(
            "Request entity is too large: the object has {size} bytes, the limit is {limit}"
        )),
        StoreError::Unavailable(why) => Status::unavailable(format!("the store is unavailable: {why}")),
        StoreError::Corrupt(why) => Status::internal(&format!("the store is damaged: {why}")),
        other => Status::internal(&other.to_string()),
    }
}

/// 504: a resource version that this server has not seen yet; clients wait and try again
/// (`NewTooLargeResourceVersionError` of `k8s.io/apiserver/pkg/storage`).
#[must_use]
pub fn too_large_resource_version(asked: u64, current: u64) -> Status {
    Status::timeout(format!("Timeout: Too large resource version: {asked}, current: {current}"), 1)
        .with_causes(vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }])
}
