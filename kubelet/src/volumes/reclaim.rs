//! The node's half of the built-in provisioner: when one of its volumes on this node is deleted, its directory goes.
//!
//! The volume's finalizer keeps the object until that is done, so that a node that was away does it when it comes back.
//! Only directories that carry the volume's own name are touched.

use std::{path::PathBuf, time::Duration};

use api_objects::{Value, object::ObjectMeta};
use client::{Client, Informers, Key, PatchType, Scope};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::api;

/// On a volume of ours: the node that has its directory.
pub(super) const NODE_LABEL: &str = "minik8s.io/node";
const PROVISIONER: &str = "minik8s.io/hostpath";
const FINALIZER: &str = "minik8s.io/hostpath";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Before trying again what failed.
const RETRY: Duration = Duration::from_secs(10);

/// Whether the built-in provisioner has made a volume.
pub(super) fn is_ours(volume: &Value) -> bool {
    volume["metadata"]["annotations"][PROVISIONED_BY] == PROVISIONER
}

/// A volume that waits for its directory to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Doomed {
    directory: PathBuf,
    finalizers: Vec<String>,
    resource_version: String,
}

/// Every volume of the node is kept, most of them as nothing to do.
fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Option<Doomed>> {
    serde_json::from_slice(bytes).ok().map(|volume| doomed(&volume, meta))
}

fn doomed(volume: &Value, meta: &ObjectMeta) -> Option<Doomed> {
    let directory = PathBuf::from(volume["spec"]["hostPath"]["path"].as_str()?);
    let waits = meta.deletion_timestamp.is_some() && meta.finalizers.iter().any(|name| name == FINALIZER);
    // A claim may still have it: deletion begins when the protection of bound volumes has gone.
    let is_bound = volume["status"]["phase"] == "Bound";
    let named = directory.file_name().is_some_and(|name| *name == *meta.name);
    (waits && !is_bound && named && is_ours(volume)).then(|| Doomed {
        directory,
        finalizers: meta.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect(),
        resource_version: meta.resource_version.clone(),
    })
}

/// Takes directories away until shutdown.
pub(crate) async fn keep(client: Client, informers: Informers, node: String, shutdown: CancellationToken) {
    let scope = Scope { label_selector: format!("{NODE_LABEL}={node}"), ..Scope::default() };
    let volumes = informers.watch(api::volumes(), &scope, project);
    let mut changes = volumes.subscribe();
    let work = async {
        loop {
            let mut failed = false;
            for (key, volume) in volumes.list() {
                if let Some(volume) = volume.as_ref().clone() {
                    failed |= !take_away(&client, &key, volume).await;
                }
            }
            if failed {
                tokio::select! { _ = changes.recv() => {} () = tokio::time::sleep(RETRY) => {} }
            } else {
                changes.recv().await;
            }
        }
    };
    shutdown.run_until_cancelled(work).await;
}

async fn take_away(client: &Client, key: &Key, volume: Doomed) -> bool {
    let Doomed { directory, finalizers, resource_version } = volume;
    let removed = blocking(move || match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(()),
    });
    if let Err(message) = removed.await {
        tracing::warn!(volume = %key, "the directory of a deleted volume cannot be removed: {message}");
        return false;
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource_version}});
    match client.patch(api::volumes(), "", &key.name, None, PatchType::Merge, &patch).await {
        Err(error) if !error.is_conflict() && !error.is_not_found() => {
            tracing::warn!(volume = %key, "a deleted volume cannot be let go: {}", client::error::chain(&error));
            false
        }
        // Changed meanwhile: its next version brings us here again.
        Ok(_) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str, phase: &str, by: &str) -> Option<Doomed> {
        let volume = json!({"metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["a/b", FINALIZER], "annotations": {PROVISIONED_BY: by}},
            "spec": {"hostPath": {"path": path}}, "status": {"phase": phase}});
        doomed(&volume, &ObjectMeta::from_value(&volume))
    }

    #[test]
    fn only_our_own_directories() {
        let ours = found("pvc-1", "/var/lib/v/pvc-1", "Released", PROVISIONER).unwrap();
        assert_eq!(ours.finalizers, ["a/b"]);
        assert_eq!(found("pvc-1", "/etc", "Released", PROVISIONER), None);
        assert_eq!(found("pvc-1", "/var/lib/v/pvc-1", "Bound", PROVISIONER), None);
        assert_eq!(found("pvc-1", "/var/lib/v/pvc-1", "Released", "other"), None);
    }
}
