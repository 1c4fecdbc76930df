//! NodeRestriction: a kubelet writes its own node, its own lease and the pods bound to it, nothing else.
//!
//! Upstream: `plugin/pkg/admission/noderestriction`.

use api_objects::{Status, Value, resource};

use super::{Attributes, Operation};
use crate::{
    auth::UserInfo,
    registry::{self, metadata},
};

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels that only administrators may put on nodes.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io/";
/// Labels of Kubernetes' own domains that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The node that a user is the kubelet of.
fn node_of(user: &UserInfo) -> Option<&str> {
    if !user.groups.iter().any(|group| group == "system:nodes") {
        return None;
    }
    user.name.strip_prefix("system:node:")
}

/// Refuses what is not the node's own. `object` is `None` for a deletion, `old` for a creation.
pub(super) async fn validate(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let call = attributes.call;
    let Some(node) = node_of(call.user) else { return Ok(()) };
    let verdict = match (&*call.resource.group, &*call.resource.plural, call.subresource) {
        ("", "pods", "" | "status" | "eviction") => pods(attributes, node, object, old),
        ("", "nodes", _) => nodes(attributes, node, object, old),
        ("", "persistentvolumes", _) => volume(node, object, old),
        ("coordination.k8s.io", "leases", _) => lease(attributes, node, object),
        ("", "serviceaccounts", "token") => token(attributes, node, object).await?,
        _ => Ok(()),
    };
    verdict.map_err(|why| attributes.forbidden(&why))
}

fn pods(
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), String> {
    let bound_here = |pod: Option<&Value>| pod.is_some_and(|pod| pod["spec"]["nodeName"] == node);
    match (attributes.operation, attributes.call.subresource) {
        (Operation::Create, "") => {
            let mirrored = object.is_some_and(|pod| !pod["metadata"]["annotations"][MIRROR].is_null());
            if !mirrored {
                return Err(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !bound_here(object) {
                return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            Ok(())
        }
        (Operation::Create, "eviction") if !bound_here(old) => {
            Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        (Operation::Update, "status") if !bound_here(old) => {
            Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        (Operation::Update, "status") => {
            let labels = |pod: Option<&Value>| pod.map(|pod| pod["metadata"]["labels"].clone());
            if labels(object) == labels(old) {
                Ok(())
            } else {
                Err(format!("node {node:?} cannot update labels through pod status"))
            }
        }
        (Operation::Update, "") => Err(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
        (Operation::Delete, _) if !bound_here(old) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        _ => Ok(()),
    }
}

fn nodes(
    attributes: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), String> {
    let target = match object {
        Some(object) => metadata::text(object, "name"),
        None => attributes.call.name,
    };
    if target != node {
        return Err(format!("node {node:?} is not allowed to modify node {target:?}"));
    }
    let Some(object) = object else { return Ok(()) };
    let changed = changed_labels(object, old);
    if let Some(label) = changed.iter().find(|label| is_restricted(label)) {
        return Err(format!("is not allowed to modify labels: {label}"));
    }
    if attributes.operation == Operation::Update
        && old.is_some_and(|old| old["spec"]["taints"] != object["spec"]["taints"])
    {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    Ok(())
}

/// On volumes of the built-in provisioner: whose directory it is, and what keeps the object until that is gone.
const VOLUME_NODE: &str = "minik8s.io/node";
const VOLUME_FINALIZER: &str = "minik8s.io/hostpath";

/// A kubelet says that the directory of a volume on its node is gone, by taking one finalizer away; nothing else.
fn volume(node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), String> {
    let allowed = object.zip(old).is_some_and(|(object, old)| {
        let rest = |volume: &Value| {
            let mut rest = volume.clone();
            if let Some(meta) = rest["metadata"].as_object_mut() {
                for bookkeeping in ["finalizers", "resourceVersion", "managedFields"] {
                    meta.remove(bookkeeping);
                }
            }
            rest
        };
        let finalizers =
            |volume: &Value| volume["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let mut left = finalizers(old);
        left.retain(|finalizer| finalizer != VOLUME_FINALIZER);
        old["metadata"]["labels"][VOLUME_NODE] == node
            && !old["metadata"]["deletionTimestamp"].is_null()
            && rest(object) == rest(old)
            && finalizers(object) == left
    });
    if allowed { Ok(()) } else { Err(format!("node {node:?} can only let go of deleted volumes on itself")) }
}

fn changed_labels(object: &Value, old: Option<&Value>) -> Vec<String> {
    let empty = serde_json::Map::new();
    let of = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (of(object), old.map_or(empty, of));
    let mut changed: Vec<String> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, _)| key.clone())
        .chain(old.keys().filter(|key| !new.contains_key(*key)).cloned())
        .collect();
    changed.sort_unstable();
    changed
}

/// Whether a label is in one of Kubernetes' domains and not one of the kubelet's.
fn is_restricted(label: &str) -> bool {
    if label.starts_with(RESTRICTED_LABELS) {
        return true;
    }
    let Some((domain, _)) = label.split_once('/') else { return false };
    let ends_in = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    (ends_in("kubernetes.io") || ends_in("k8s.io"))
        && !KUBELET_LABELS.contains(&label)
        && !KUBELET_LABEL_DOMAINS.iter().any(|allowed| ends_in(allowed))
}

fn lease(attributes: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    let call = attributes.call;
    if call.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    let name = object.map_or(call.name, |lease| metadata::text(lease, "name"));
    if name == node {
        Ok(())
    } else {
        Err("can only access node lease with the same name as the requesting node".to_owned())
    }
}

/// A kubelet gets tokens only for the pods that are bound to its node.
async fn token(
    attributes: &Attributes<'_>,
    node: &str,
    request: Option<&Value>,
) -> Result<Result<(), String>, Status> {
    let call = attributes.call;
    let reference = request.map(|request| &request["spec"]["boundObjectRef"]);
    let Some(reference) =
        reference.filter(|reference| reference["kind"] == "Pod" && reference["apiVersion"] == "v1")
    else {
        return Ok(Err("node requested token not bound to a pod".to_owned()));
    };
    let uid = reference["uid"].as_str().unwrap_or_default();
    if uid.is_empty() {
        return Ok(Err("node requested token with a pod binding without a uid".to_owned()));
    }
    let pods = resource::find("", "v1", "pods").expect("pods must be in the table");
    let name = reference["name"].as_str().unwrap_or_default();
    let Some(pod) = registry::lookup(call.server, pods, call.namespace, name).await? else {
        return Err(Status::not_found("", "pods", name));
    };
    if metadata::text(&pod, "uid") != uid {
        return Ok(Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if pod["spec"]["nodeName"] != node {
        return Ok(Err("node requested token bound to a pod scheduled on a different node".to_owned()));
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_other_domains_are_free() {
        assert!(!is_restricted("team"));
        assert!(!is_restricted("example.com/team"));
        assert!(!is_restricted("kubernetes.io/hostname"));
        assert!(!is_restricted("node.kubernetes.io/anything"));
        assert!(is_restricted("node-restriction.kubernetes.io/team"));
        assert!(is_restricted("node-role.kubernetes.io/control-plane"));
    }

    #[test]
    fn volumes_are_let_go_and_not_changed() {
        let with = |finalizers: Value, node: &str, path: &str| {
            serde_json::json!({"metadata": {"finalizers": finalizers, "labels": {VOLUME_NODE: node},
                "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"hostPath": {"path": path}}})
        };
        let all = serde_json::json!(["a/b", VOLUME_FINALIZER]);
        let left = serde_json::json!(["a/b"]);
        let old = with(all.clone(), "n", "/v");
        assert!(volume("n", Some(&with(left.clone(), "n", "/v")), Some(&old)).is_ok());
        assert!(volume("m", Some(&with(left.clone(), "n", "/v")), Some(&old)).is_err(), "another's volume");
        assert!(volume("n", Some(&with(left, "n", "/w")), Some(&old)).is_err(), "something else changes");
        assert!(volume("n", Some(&with(serde_json::json!([]), "n", "/v")), Some(&old)).is_err());
        assert!(volume("n", None, Some(&old)).is_err(), "a deletion");
    }

    #[test]
    fn only_members_of_system_nodes_are_nodes() {
        assert_eq!(node_of(&UserInfo::new("system:node:n1", &["system:nodes"])), Some("n1"));
        assert_eq!(node_of(&UserInfo::new("system:node:n1", &[])), None);
    }
}
