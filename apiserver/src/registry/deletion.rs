//! What a deletion does to one object: remove it, mark it, or nothing more. Pure.
//!
//! Follows `k8s.io/apiserver/pkg/registry/rest/delete.go` and the generic store's `Delete`: pods end
//! gracefully, finalizers hold an object back, and the propagation policy becomes a finalizer for the
//! garbage collector.

use api_objects::{
    Resource, Status, Value,
    params::{DeleteParams, Propagation},
    time::rfc3339,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    Call,
    kinds::{namespace, pod},
    metadata,
    strategy::{self, Strategy},
};

/// The finalizer of a foreground deletion.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that leaves dependents alone.
pub const ORPHAN: &str = "orphan";

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The object goes now.
    Remove,
    /// The object is written with these marks and stays until they are resolved.
    Mark(Value),
    /// It is being deleted already, and this deletion asks for nothing more.
    Pending,
}

/// Checks what the client expects of the object.
///
/// # Errors
/// 409 if it is another object, or has moved on.
pub fn check_preconditions(call: &Call<'_>, options: &DeleteParams, current: &Value) -> Result<(), Status> {
    let present = metadata::text(current, "uid");
    if let Some(asked) = options.preconditions.uid.as_deref().filter(|asked| *asked != present) {
        return Err(conflict(
            call,
            &format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({present}). \
             The object might have been deleted and then recreated"
            ),
        ));
    }
    let present = metadata::text(current, "resourceVersion");
    if let Some(asked) = options.preconditions.resource_version.as_deref().filter(|asked| *asked != present) {
        return Err(conflict(
            call,
            &format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
             ({present}). The object might have been modified"
            ),
        ));
    }
    Ok(())
}

/// 409; upstream's `BeforeDelete` names the kind where others name the resource.
fn conflict(call: &Call<'_>, detail: &str) -> Status {
    Status::conflict(&call.resource.group, &call.resource.kind, call.name, detail)
}

/// Decides on the deletion of `current`.
#[must_use]
pub fn decide(resource: &Resource, current: &Value, options: &DeleteParams, now: Timestamp) -> Decision {
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let mut object = current.clone();
    let marked = metadata::is_being_deleted(current);
    let mut grace = 0;
    if is_pod {
        match grace_of_pod(current, options, now) {
            PodGrace::AlreadyPending => return Decision::Pending,
            PodGrace::Force => {}
            PodGrace::Until { seconds, at } => {
                grace = seconds;
                mark(&mut object, &at, seconds, !marked);
            }
        }
    }
    set_collector_finalizers(strategy::of(resource), &mut object, options);
    let held = !metadata::finalizers(&object).is_empty()
        || (is_namespace(resource) && !namespace::is_emptied(&object));
    if held && !metadata::is_being_deleted(&object) {
        mark(&mut object, &rfc3339(now), 0, true);
    }
    if held && is_namespace(resource) {
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("deletionGracePeriodSeconds"));
        object["status"]["phase"] = json!("Terminating");
    }
    if !held && grace == 0 {
        Decision::Remove
    } else if object == *current {
        Decision::Pending
    } else {
        Decision::Mark(object)
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
#[must_use]
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    metadata::is_being_deleted(object)
        && metadata::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (!is_namespace(resource) || namespace::is_emptied(object))
}

fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

enum PodGrace {
    /// Nothing to add to the deletion that is under way.
    AlreadyPending,
    /// Without grace, whatever was said before.
    Force,
    /// Until a time.
    Until { seconds: i64, at: String },
}

/// A deletion under way can only be shortened.
fn grace_of_pod(current: &Value, options: &DeleteParams, now: Timestamp) -> PodGrace {
    if !metadata::is_being_deleted(current) {
        let seconds = pod::grace_period(current, options.grace_period_seconds);
        return PodGrace::Until { seconds, at: rfc3339(now + SignedDuration::from_secs(seconds)) };
    }
    let Some(granted) = current["metadata"]["deletionGracePeriodSeconds"].as_i64() else {
        return PodGrace::Force;
    };
    match options.grace_period_seconds {
        Some(asked) if asked.max(0) < granted => {
            let seconds = asked.max(0);
            let deadline: Timestamp = metadata::text(current, "deletionTimestamp").parse().unwrap_or(now);
            let at = deadline - SignedDuration::from_secs(granted) + SignedDuration::from_secs(seconds);
            PodGrace::Until { seconds, at: rfc3339(at) }
        }
        // Without grace and nothing to wait for: a second request finishes what the first one began.
        Some(_) if granted == 0 => PodGrace::Force,
        _ => PodGrace::AlreadyPending,
    }
}

fn mark(object: &mut Value, at: &str, grace_seconds: i64, counts: bool) {
    let metadata = metadata::of(object);
    metadata.insert("deletionTimestamp".to_owned(), json!(at));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace_seconds));
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|_| counts) {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

/// The propagation policy as a finalizer: the client's word, else the one that stands there, else the
/// kind's default.
fn set_collector_finalizers(strategy: &Strategy, object: &mut Value, options: &DeleteParams) {
    let present = metadata::finalizers(object);
    let has = |name: &str| present.contains(&name);
    let wanted = match options.propagation {
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Background) => None,
        None if has(ORPHAN) => Some(ORPHAN),
        None if has(FOREGROUND) => Some(FOREGROUND),
        None => strategy.orphans_by_default.then_some(ORPHAN),
    };
    let mut finalizers: Vec<&str> =
        present.iter().copied().filter(|name| *name != ORPHAN && *name != FOREGROUND).collect();
    finalizers.extend(wanted);
    if finalizers.len() == present.len() && finalizers.iter().all(|name| has(name)) {
        return;
    }
    let finalizers = json!(finalizers);
    if finalizers == json!([]) {
        metadata::of(object).remove("finalizers");
    } else {
        metadata::of(object).insert("finalizers".to_owned(), finalizers);
    }
}
