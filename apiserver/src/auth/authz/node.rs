//! What a kubelet may do beyond its role: read what its own pods refer to, and look after its own node.
//!
//! By upstream's node authorizer (<https://kubernetes.io/docs/reference/access-authn-authz/node/>). Where
//! upstream keeps a graph of all pods' references, the pods bound to the node are looked at when a kubelet
//! asks: nodes have a hundred pods, the watch cache finds them by their selectable field, and nothing has to
//! be kept in step.

use api_objects::Value;
use apiserver_storage::{At, ListOptions};

use super::{Action, Decision};
use crate::{auth::UserInfo, projector::field_value, request_info::required_field, state::Storage};

const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// The node that a user is, if they are one.
pub(super) fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == GROUP).then_some(name)
}

/// Whether a node may do something.
pub(super) async fn authorize(storage: &Storage, node: &str, action: Action<'_>) -> Decision {
    let Action::Resource { verb, group, resource, subresource, namespace, name, field_selector, .. } = action
    else {
        return Decision::NoOpinion(String::new());
    };
    match (group, resource) {
        ("", "configmaps" | "secrets" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims") => {
            if !matches!(verb, "get" | "list" | "watch") || !subresource.is_empty() {
                return refuse("can only read resources of this type");
            }
            if name.is_empty() {
                return refuse("can only read resources of this type by name");
            }
            related(storage, node, namespace, &|pod| refers_to(pod, resource, name)).await
        }
        ("", "serviceaccounts") if matches!((verb, subresource), ("create", "token") | ("get", "")) => {
            related(storage, node, namespace, &|pod| account_of(pod) == name).await
        }
        ("", "serviceaccounts") => refuse("can only get service accounts and create tokens of them"),
        ("", "persistentvolumes") => match (verb, subresource) {
            // Wider than upstream, whose kubelets read only volumes of their pods: the node's half of the built-in
            // provisioner follows its own. Volumes hold no secrets; what may be changed is NodeRestriction's business.
            ("get" | "list" | "watch" | "patch", "") => Decision::Allowed(String::new()),
            _ => refuse("can only read persistent volumes and let go of its own"),
        },
        ("", "pods") => match (verb, subresource) {
            // Which pods a kubelet may change is NodeRestriction's business; which it may read:
            ("list" | "watch", "")
                if required_field(field_selector, "spec.nodeName").as_deref() == Some(node) =>
            {
                Decision::Allowed(String::new())
            }
            ("list" | "watch", "") if name.is_empty() => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            ("get" | "list" | "watch", "") => {
                related(storage, node, namespace, &|pod| pod["metadata"]["name"] == name).await
            }
            ("create" | "delete", "") | ("update" | "patch" | "get", "status") | ("create", "eviction") => {
                Decision::Allowed(String::new())
            }
            _ => refuse(""),
        },
        ("", "nodes") => match (verb, subresource) {
            ("create", "") => Decision::Allowed(String::new()),
            ("get" | "list" | "watch" | "update" | "patch", "") | ("get" | "update" | "patch", "status")
                if name == node =>
            {
                Decision::Allowed(String::new())
            }
            _ => refuse(&format!("node {node:?} can only look after its own Node object")),
        },
        ("coordination.k8s.io", "leases") => {
            if namespace != "kube-node-lease" {
                return refuse("can only access leases in the \"kube-node-lease\" system namespace");
            }
            match verb {
                "create" => Decision::Allowed(String::new()),
                "get" | "update" | "patch" | "delete" if name == node => Decision::Allowed(String::new()),
                _ => refuse("can only access node lease with the same name as the requesting node"),
            }
        }
        ("storage.k8s.io", "csinodes") => match verb {
            "create" => Decision::Allowed(String::new()),
            "get" | "update" | "patch" | "delete" if name == node => Decision::Allowed(String::new()),
            _ => refuse("can only access CSINode with the same name as the requesting node"),
        },
        ("", "services") | ("storage.k8s.io", "csidrivers") | ("node.k8s.io", "runtimeclasses") => {
            if matches!(verb, "get" | "list" | "watch") && subresource.is_empty() {
                Decision::Allowed(String::new())
            } else {
                refuse("")
            }
        }
        ("" | "events.k8s.io", "events") => {
            if matches!(verb, "create" | "update" | "patch") {
                Decision::Allowed(String::new())
            } else {
                refuse("")
            }
        }
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            if verb == "create" { Decision::Allowed(String::new()) } else { refuse("") }
        }
        ("certificates.k8s.io", "certificatesigningrequests") => {
            if matches!(verb, "create" | "get" | "list" | "watch") && subresource.is_empty() {
                Decision::Allowed(String::new())
            } else {
                refuse("")
            }
        }
        _ => refuse(""),
    }
}

fn refuse(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_owned())
}

/// Allowed if a pod of the namespace, bound to the node, satisfies `test`.
async fn related(
    storage: &Storage,
    node: &str,
    namespace: &str,
    test: &(dyn Fn(&Value) -> bool + Send + Sync),
) -> Decision {
    let prefix = format!("/registry/core/pods/{namespace}/");
    let options = ListOptions { at: At::Any, ..ListOptions::default() };
    let bound_here =
        |item: &apiserver_storage::cacher::Item<_>| field_value(item, "spec.nodeName") == Some(node);
    let no_relation = || refuse(&format!("no relationship found between node {node:?} and this object"));
    let Ok(listing) = storage.list(&prefix, &options, Some(&bound_here)).await else {
        return no_relation();
    };
    let found = listing
        .items
        .iter()
        .filter_map(|item| serde_json::from_slice::<Value>(&item.entry.value).ok())
        .any(|pod| test(&pod));
    if found { Decision::Allowed(String::new()) } else { no_relation() }
}

fn account_of(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().unwrap_or("default")
}

/// Whether a pod refers to an object: in volumes, environment, image pull secrets.
fn refers_to(pod: &Value, resource: &str, name: &str) -> bool {
    let spec = &pod["spec"];
    let named = |value: &Value, field: &str| value[field].as_str() == Some(name);
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let volumes = items(&spec["volumes"]);
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    match resource {
        "persistentvolumeclaims" => volumes.iter().any(|volume| {
            named(&volume["persistentVolumeClaim"], "claimName")
                || (volume.get("ephemeral").is_some()
                    && pod["metadata"]["name"].as_str().zip(volume["name"].as_str()).is_some_and(
                        |(pod, volume)| {
                            name.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-')) == Some(volume)
                        },
                    ))
        }),
        "resourceclaims" => {
            items(&spec["resourceClaims"]).iter().any(|claim| named(claim, "resourceClaimName"))
                || items(&pod["status"]["resourceClaimStatuses"])
                    .iter()
                    .any(|claim| named(claim, "resourceClaimName"))
        }
        _ => {
            let (volume_field, name_field, source, from, key_ref) = if resource == "secrets" {
                ("secret", "secretName", "secret", "secretRef", "secretKeyRef")
            } else {
                ("configMap", "name", "configMap", "configMapRef", "configMapKeyRef")
            };
            let in_volumes = volumes.iter().any(|volume| {
                named(&volume[volume_field], name_field)
                    || items(&volume["projected"]["sources"])
                        .iter()
                        .any(|entry| named(&entry[source], "name"))
                    || (resource == "secrets" && volume_secret(volume) == Some(name))
            });
            let in_environment = containers.iter().flat_map(|field| items(&spec[*field])).any(|container| {
                items(&container["envFrom"]).iter().any(|entry| named(&entry[from], "name"))
                    || items(&container["env"])
                        .iter()
                        .any(|entry| named(&entry["valueFrom"][key_ref], "name"))
            });
            let pulls = resource == "secrets"
                && items(&spec["imagePullSecrets"]).iter().any(|secret| named(secret, "name"));
            in_volumes || in_environment || pulls
        }
    }
}

/// The secret that a volume of a network file system names.
fn volume_secret(volume: &Value) -> Option<&str> {
    ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"]
        .iter()
        .find_map(|kind| volume[*kind]["secretRef"]["name"].as_str())
        .or_else(|| volume["azureFile"]["secretName"].as_str())
        .or_else(|| volume["csi"]["nodePublishSecretRef"]["name"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_of_a_pod() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env-secret"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "env-map"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol-secret"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "proj-map"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {}}]}});
        for (resource, name) in [
            ("secrets", "pull"),
            ("secrets", "env-secret"),
            ("secrets", "vol-secret"),
            ("configmaps", "env-map"),
            ("configmaps", "proj-map"),
            ("persistentvolumeclaims", "claim"),
            ("persistentvolumeclaims", "p-scratch"),
        ] {
            assert!(refers_to(&pod, resource, name), "{resource}/{name}");
            assert!(!refers_to(&pod, resource, "other"), "{resource}");
        }
        assert!(!refers_to(&pod, "secrets", "env-map"));
        assert!(!refers_to(&pod, "configmaps", "pull"));
    }

    #[test]
    fn only_members_of_system_nodes_are_nodes() {
        assert_eq!(node_name(&UserInfo::new("system:node:a", &["system:nodes"])), Some("a"));
        assert_eq!(node_name(&UserInfo::new("system:node:a", &[])), None);
        assert_eq!(node_name(&UserInfo::new("a", &["system:nodes"])), None);
    }
}
