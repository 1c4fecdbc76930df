//! A namespace that is being deleted is emptied, and goes once nothing is left in it.
//!
//! As upstream's `pkg/controller/namespace/deletion`: pods go first, so that nothing they live on is taken from under
//! them; then every namespaced resource is deleted as a collection. What remains (finalizers, pods within their
//! grace) is waited for, and conditions say what it is. Writes
//! `Namespace.status.conditions` and, through `finalize`, `spec.finalizers`.

use std::{sync::Arc, time::Duration};

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, Informer, Key, ListQuery, PatchType, Scope, WorkQueue};
use http::Method;
use jiff::Timestamp;
use serde_json::json;

use super::{Action, Context, Reconciler, feed, resource, spawn_workers, typed};

/// How long until what remains is counted again. Deletions are not watched here: upstream estimates from
/// the pods' grace periods; a short fixed time is simpler and bounds the work to one list per kind.
const RECOUNT: Duration = Duration::from_secs(2);

/// What is kept of a namespace.
#[derive(Debug)]
pub struct NamespaceView {
    deleting: bool,
    terminating: bool,
    finalizers: Vec<String>,
    conditions: Value,
}

impl NamespaceView {
    pub(super) fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let namespace: Value = typed(bytes)?;
        let finalizers = namespace["spec"]["finalizers"].as_array();
        Some(Self {
            deleting: meta.deletion_timestamp.is_some(),
            terminating: namespace["status"]["phase"] == "Terminating",
            finalizers: finalizers
                .into_iter()
                .flatten()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            conditions: namespace["status"]["conditions"].clone(),
        })
    }

    /// Whether objects can be created in it.
    pub(super) fn is_active(&self) -> bool {
        !self.deleting && !self.terminating
    }
}

/// The controller.
pub struct NamespaceController {
    client: Client,
    namespaces_resource: Arc<Resource>,
    namespaces: Informer<NamespaceView>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let namespaces_resource = resource("", "v1", "namespaces");
    let namespaces = context.informers.watch(&namespaces_resource, &Scope::default(), NamespaceView::project);
    let controller = Arc::new(NamespaceController {
        client: context.client.clone(),
        namespaces_resource,
        namespaces: namespaces.clone(),
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        if context.shutdown.run_until_cancelled(namespaces.synced()).await.is_none() {
            return;
        }
        feed(&context, &namespaces, &queue, |change| vec![change.key.clone()]);
        spawn_workers(&context, &controller, &queue, 2);
    });
}

/// What was found left of one resource.
struct Remaining {
    resource: String,
    count: usize,
    finalizers: Vec<(String, usize)>,
}

impl Reconciler for NamespaceController {
    type Key = Key;
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get(key).filter(|namespace| namespace.deleting) else {
            return Ok(Action::AwaitChange);
        };
        if !namespace.finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
            return Ok(Action::AwaitChange);
        }
        let (remaining, failures) = self.empty(&key.name).await;
        let wanted = conditions(&remaining, &failures);
        if !remaining.is_empty() || !failures.is_empty() {
            self.report(key, &namespace, &wanted).await?;
            return Ok(Action::RequeueAfter(RECOUNT));
        }
        self.finalize(key).await?;
        Ok(Action::AwaitChange)
    }
}

impl NamespaceController {
    /// Deletes everything in the namespace; answers what is still there.
    async fn empty(&self, namespace: &str) -> (Vec<Remaining>, Vec<String>) {
        let mut remaining = Vec::new();
        let mut failures = Vec::new();
        let is_pods = |resource: &Resource| resource.group.is_empty() && resource.plural == "pods";
        let (pods, others): (Vec<_>, Vec<_>) =
            api_objects::resource::builtin().iter().partition(|resource| is_pods(resource));
        for resource in pods.into_iter().chain(others) {
            let can = |verb: &str| resource.verbs.iter().any(|has| has == verb);
            // The same objects under a second group or version are emptied once.
            let primary = resource.storage.version == resource.version
                && (resource.storage.group == resource.group || resource.group.is_empty());
            if !resource.namespaced || !can("list") || !can("delete") || !primary {
                continue;
            }
            match self.empty_resource(resource, namespace, can("deletecollection")).await {
                Ok(Some(left)) => remaining.push(left),
                Ok(None) => {}
                Err(error) => failures.push(format!("{}: {error}", resource.plural)),
            }
            if is_pods(resource) && !remaining.is_empty() {
                break;
            }
        }
        (remaining, failures)
    }

    async fn empty_resource(
        &self,
        resource: &Resource,
        namespace: &str,
        as_collection: bool,
    ) -> Result<Option<Remaining>, Error> {
        let listed = self.client.list(resource, namespace, &ListQuery::default()).await?;
        let Some(items) = listed["items"].as_array().filter(|items| !items.is_empty()) else {
            return Ok(None);
        };
        if as_collection {
            self.client.request(Method::DELETE, &resource.collection_path(namespace), None, None).await?;
        } else {
            for item in items {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                match self.client.delete(resource, namespace, name, &Value::Null).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        let left = self.client.list(resource, namespace, &ListQuery::default()).await?;
        let left = left["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if left.is_empty() {
            return Ok(None);
        }
        let mut finalizers: Vec<(String, usize)> = Vec::new();
        for finalizer in left.iter().filter_map(|item| item["metadata"]["finalizers"].as_array()).flatten() {
            let name = finalizer.as_str().unwrap_or_default();
            match finalizers.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => finalizers.push((name.to_owned(), 1)),
            }
        }
        let resource = format!("{}.{}", resource.plural, resource.group);
        Ok(Some(Remaining { resource, count: left.len(), finalizers }))
    }

    async fn report(&self, key: &Key, namespace: &NamespaceView, wanted: &[Value]) -> Result<(), Error> {
        let merged = merge_conditions(&namespace.conditions, wanted, Timestamp::now());
        if merged == namespace.conditions {
            return Ok(());
        }
        let patch = json!({ "status": { "conditions": merged } });
        let patched = self
            .client
            .patch(&self.namespaces_resource, "", &key.name, Some("status"), PatchType::Merge, &patch)
            .await;
        match patched {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn finalize(&self, key: &Key) -> Result<(), Error> {
        let mut namespace = match self.client.get(&self.namespaces_resource, "", &key.name).await {
            Ok(namespace) => namespace,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(finalizers) = namespace["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
        }
        let path = format!("{}/finalize", self.namespaces_resource.object_path("", &key.name));
        let body = serde_json::to_vec(&namespace).map_err(|error| Error::Decode(error.to_string()))?;
        match self.client.request(Method::PUT, &path, Some(("application/json", body)), None).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The conditions upstream sets while a namespace is emptied, true ones with what is in the way.
fn conditions(remaining: &[Remaining], failures: &[String]) -> Vec<Value> {
    let mut content: Vec<String> = remaining
        .iter()
        .map(|left| format!("{} has {} resource instances", left.resource, left.count))
        .collect();
    content.sort();
    let mut finalizers: Vec<(String, usize)> = Vec::new();
    for (name, count) in remaining.iter().flat_map(|left| &left.finalizers) {
        match finalizers.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => *total += count,
            None => finalizers.push((name.clone(), *count)),
        }
    }
    finalizers.sort();
    let finalizers = finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
    let condition = |kind: &str, bad: Vec<String>, head: &str, reasons: (&str, &str), fine: &str| {
        let status = if bad.is_empty() { "False" } else { "True" };
        let (reason, message) = if bad.is_empty() {
            (reasons.1, fine.to_owned())
        } else {
            (reasons.0, format!("{head}{}", bad.join(", ")))
        };
        json!({ "type": kind, "status": status, "reason": reason, "message": message })
    };
    vec![
        condition(
            "NamespaceDeletionContentFailure",
            failures.to_vec(),
            &format!("Failed to delete all resource types, {} remaining: ", failures.len()),
            ("ContentDeletionFailed", "ContentDeleted"),
            "All content successfully deleted, may be waiting on finalization",
        ),
        condition(
            "NamespaceContentRemaining",
            content,
            "Some resources are remaining: ",
            ("SomeResourcesRemain", "ContentRemoved"),
            "All content successfully removed",
        ),
        condition(
            "NamespaceFinalizersRemaining",
            finalizers.collect(),
            "Some content in the namespace has finalizers remaining: ",
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            "All content-preserving finalizers finished",
        ),
    ]
}

/// Puts new conditions over old ones; the time of transition moves only with the status.
fn merge_conditions(old: &Value, wanted: &[Value], now: Timestamp) -> Value {
    let mut merged: Vec<Value> = old.as_array().cloned().unwrap_or_default();
    for condition in wanted {
        let mut condition = condition.clone();
        let known = merged.iter_mut().find(|known| known["type"] == condition["type"]);
        condition["lastTransitionTime"] = match &known {
            Some(known) if known["status"] == condition["status"] => known["lastTransitionTime"].clone(),
            _ => json!(api_objects::time::rfc3339(now)),
        };
        match known {
            Some(known) => *known = condition,
            None => merged.push(condition),
        }
    }
    Value::Array(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_is_left() {
        let remaining =
            [Remaining { resource: "pods.".into(), count: 2, finalizers: vec![("x/y".into(), 1)] }];
        let conditions = conditions(&remaining, &[]);
        assert_eq!(conditions[0]["status"], "False");
        assert_eq!(conditions[1]["message"], "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            conditions[2]["message"],
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
    }

    #[test]
    fn transition_times_move_with_the_status_only() {
        let early = Timestamp::from_second(1).unwrap();
        let late = Timestamp::from_second(2).unwrap();
        let first = merge_conditions(&Value::Null, &[json!({ "type": "A", "status": "True" })], early);
        let same = merge_conditions(&first, &[json!({ "type": "A", "status": "True" })], late);
        assert_eq!(first, same);
        let other = merge_conditions(&first, &[json!({ "type": "A", "status": "False" })], late);
        assert_eq!(other[0]["lastTransitionTime"], "1970-01-01T00:00:02Z");
    }
}
