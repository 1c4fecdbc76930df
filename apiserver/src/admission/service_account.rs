//! ServiceAccount: every pod runs as an account of its namespace, with a token that is bound to it.
//!
//! The token comes through a projected volume beside the cluster's CA and the pod's namespace, as since
//! v1.24; nothing is kept in Secrets. Upstream: `plugin/pkg/admission/serviceaccount`.

use api_objects::{Status, Value, resource};
use serde_json::json;

use super::{Attributes, Operation};
use crate::registry::{self, metadata};

/// Where the token, the CA and the namespace are mounted.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name of the volume, before its random suffix.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and seven seconds: recognisable, so that tokens without an expiry of their own can be told.
const TOKEN_SECONDS: i64 = 3607;
/// Pods that the kubelet mirrors run on no account.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Names the account and adds the volume to a new pod.
pub(super) async fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    let mirrored = !pod["metadata"]["annotations"][MIRROR].is_null();
    if !attributes.is("", "pods")
        || attributes.operation != Operation::Create
        || mirrored
        || !pod["spec"].is_object()
    {
        return Ok(());
    }
    let given = pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    let name = given.unwrap_or("default").to_owned();
    let call = attributes.call;
    let accounts =
        resource::find("", "v1", "serviceaccounts").expect("service accounts must be in the table");
    let Some(account) = registry::lookup(call.server, accounts, call.namespace, &name).await? else {
        let named = registry::Call { name: metadata::text(pod, "name"), ..*call };
        return Err(named.forbidden(&format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            call.namespace
        )));
    };
    pod["spec"]["serviceAccountName"] = json!(name);
    // The deprecated alias always says the same.
    pod["spec"]["serviceAccount"] = json!(name);
    let automount = [&pod["spec"], &account]
        .iter()
        .find_map(|holder| holder["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())
    {
        pod["spec"]["imagePullSecrets"] = json!(secrets);
    }
    Ok(())
}

/// Mounts the token in every container that has nothing at its path.
fn mount_token(pod: &mut Value) {
    let present = pod["spec"]["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", metadata::random_suffix()));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if !mounted || present.is_some() {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match pod["spec"]["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod);
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(volume.starts_with(VOLUME_PREFIX) && volume.len() == VOLUME_PREFIX.len() + 5);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume.as_str());
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let before = pod.clone();
        mount_token(&mut pod);
        assert_eq!(pod, before);
    }
}
