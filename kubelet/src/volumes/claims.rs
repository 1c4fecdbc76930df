//! `persistentVolumeClaim` and `ephemeral` volumes: the claim's volume, found through the API and set up by its kind.
//!
//! What a claim led to is remembered for the pod's life: a claim may be marked for deletion while its pod runs, and that
//! changes nothing for the pod (upstream's `desired_state_of_world_populator` reads claims only for pods that are new).

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use api_objects::Value;
use client::Client;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use parking_lot::Mutex;

use super::{
    host_path,
    ownership::{self, Group},
    reclaim,
};
use crate::{
    api,
    pod::{name, namespace, uid},
};

/// Finds the volumes of claims.
pub(crate) struct Claims {
    client: Client,
    node: String,
    /// By uid of the pod and name of the volume.
    found: Mutex<HashMap<(String, String), Arc<Value>>>,
}

impl Claims {
    /// Reads through `client`, for the node of that name.
    #[must_use]
    pub(crate) fn new(client: Client, node: String) -> Self {
        Self { client, node, found: Mutex::default() }
    }

    /// The PersistentVolume of a pod's volume, if that goes through a claim at all.
    pub(super) async fn volume(&self, pod: &Pod, volume: &Volume) -> Option<Result<Arc<Value>, String>> {
        let claim = claim_name(pod, volume)?;
        let key = (uid(pod).to_owned(), volume.name.clone());
        if let Some(found) = self.found.lock().get(&key) {
            return Some(Ok(Arc::clone(found)));
        }
        let found = self.read(pod, &claim, volume.ephemeral.is_some()).await.map(Arc::new);
        if let Ok(found) = &found {
            self.found.lock().insert(key, Arc::clone(found));
        }
        Some(found.map_err(|why| format!("error processing PVC {}/{claim}: {why}", namespace(pod))))
    }

    async fn read(&self, pod: &Pod, claim: &str, ephemeral: bool) -> Result<Value, String> {
        let found = self.client.get(api::claims(), namespace(pod), claim).await;
        let claim = found.map_err(|error| {
            format!("failed to fetch PVC from API server: {}", client::error::chain(&error))
        })?;
        let volume = usable(pod, &claim, ephemeral)?;
        let found = self.client.get(api::volumes(), "", volume).await;
        let volume = found.map_err(|error| {
            format!("failed to fetch PV {volume} from API server: {}", client::error::chain(&error))
        })?;
        belongs(&volume, &claim, &self.node)?;
        Ok(volume)
    }

    /// What carries the PersistentVolume of a pod's volume, once that is known.
    pub(super) fn plugin(&self, pod: &Pod, volume: &Volume) -> Option<&'static str> {
        let found = self.found.lock();
        let spec = &found.get(&(uid(pod).to_owned(), volume.name.clone()))?["spec"];
        let kinds = [("local", LOCAL_VOLUME), ("hostPath", "kubernetes.io/host-path")];
        kinds.into_iter().find_map(|(field, name)| spec.get(field).map(|_| name))
    }

    /// Forgets a pod.
    pub(super) fn forget(&self, pod_uid: &str) {
        self.found.lock().retain(|(uid, _), _| uid != pod_uid);
    }
}

/// What carries local volumes.
pub(crate) const LOCAL_VOLUME: &str = "kubernetes.io/local-volume";

/// The claim that a volume goes through.
pub(super) fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.is_some().then(|| format!("{}-{}", name(pod), volume.name)),
    }
}

/// The name of a claim's volume, if the pod may have it now.
fn usable<'a>(pod: &Pod, claim: &'a Value, ephemeral: bool) -> Result<&'a str, String> {
    let meta = &claim["metadata"];
    if ephemeral {
        let owners = meta["ownerReferences"].as_array();
        let owned =
            owners.into_iter().flatten().any(|owner| owner["uid"] == uid(pod) && owner["controller"] == true);
        if !owned {
            let (space, claim) = (namespace(pod), meta["name"].as_str().unwrap_or_default());
            return Err(format!(
                "PVC {space}/{claim} was not created for pod {space}/{} (pod is not owner)",
                name(pod)
            ));
        }
    }
    if !meta["deletionTimestamp"].is_null() {
        return Err("PVC is being deleted".to_owned());
    }
    let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    if claim["status"]["phase"] != "Bound" || volume.is_empty() {
        return Err("PVC is not bound".to_owned());
    }
    Ok(volume)
}

/// Whether a volume is the claim's, a directory of files, and here.
fn belongs(volume: &Value, claim: &Value, node: &str) -> Result<(), String> {
    let reference = &volume["spec"]["claimRef"];
    let uid = &claim["metadata"]["uid"];
    if reference["uid"] != *uid {
        return Err(format!(
            "PV.Spec.ClaimRef.UID {} is different than PVC UID {}",
            reference["uid"].as_str().unwrap_or_default(),
            uid.as_str().unwrap_or_default()
        ));
    }
    if volume["spec"]["volumeMode"] == "Block" {
        return Err("volume has volumeMode Block, but is specified in volumeMounts".to_owned());
    }
    let home = &volume["metadata"]["labels"][reclaim::NODE_LABEL];
    if reclaim::is_ours(volume) && home != node {
        return Err(format!("the volume is on node {home}, not here"));
    }
    Ok(())
}

/// Sets a PersistentVolume up and gives its path.
pub(super) fn set_up(volume: &Value, group: Option<Group>) -> Result<PathBuf, String> {
    let spec = &volume["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if spec["mountOptions"].as_array().is_some_and(|options| !options.is_empty()) {
        return Err("mount options are not supported for this volume type".to_owned());
    }
    if let Some(path) = text(&spec["hostPath"]["path"]) {
        let fresh = reclaim::is_ours(volume) && !Path::new(&path).exists();
        let source = HostPathVolumeSource { path, type_: text(&spec["hostPath"]["type"]) };
        let path = host_path::set_up(&source)?;
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        if fresh {
            // Whoever the pod runs as may write.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(named)?;
        }
        if reclaim::is_ours(volume)
            && let Some(group) = group
        {
            ownership::give_volume(&path, group).map_err(named)?;
        }
        return Ok(path);
    }
    if let Some(path) = text(&spec["local"]["path"]) {
        // A local volume is made by whoever runs the node: a missing one is an error, not a new directory.
        let found = PathBuf::from(&path);
        if !found.exists() {
            return Err(format!("path \"{path}\" does not exist"));
        }
        if let Some(group) = group {
            ownership::give_volume(&found, group).map_err(|error| format!("{path}: {error}"))?;
        }
        return Ok(found);
    }
    Err("no volume plugin matched: only hostPath and local PersistentVolumes can be mounted".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}})).unwrap()
    }

    #[test]
    fn which_claims_a_pod_may_have() {
        let claim = |meta: Value, phase: &str| {
            let mut claim = json!({"metadata": {"name": "p-v", "uid": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": phase}});
            for (key, value) in meta.as_object().unwrap() {
                claim["metadata"][key] = value.clone();
            }
            claim
        };
        assert_eq!(usable(&pod(), &claim(json!({}), "Bound"), false), Ok("v"));
        assert_eq!(usable(&pod(), &claim(json!({}), "Pending"), false), Err("PVC is not bound".into()));
        let going = claim(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "Bound");
        assert_eq!(usable(&pod(), &going, false), Err("PVC is being deleted".into()));
        assert!(usable(&pod(), &claim(json!({}), "Bound"), true).unwrap_err().contains("(pod is not owner)"));
        let owned = claim(json!({"ownerReferences": [{"uid": "u", "controller": true}]}), "Bound");
        assert_eq!(usable(&pod(), &owned, true), Ok("v"));
    }

    #[test]
    fn which_volumes_belong_to_a_claim_here() {
        let claim = json!({"metadata": {"uid": "c"}});
        let volume = json!({"metadata": {"labels": {reclaim::NODE_LABEL: "n"},
            "annotations": {"pv.kubernetes.io/provisioned-by": "minik8s.io/hostpath"}},
            "spec": {"claimRef": {"uid": "c"}, "volumeMode": "Filesystem"}});
        assert_eq!(belongs(&volume, &claim, "n"), Ok(()));
        assert!(belongs(&volume, &claim, "m").unwrap_err().contains("not here"));
        assert!(belongs(&volume, &json!({"metadata": {"uid": "d"}}), "n").unwrap_err().contains("different"));
    }

    #[test]
    fn kinds_of_volumes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("v");
        let ours = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "minik8s.io/hostpath"}},
            "spec": {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}});
        assert_eq!(set_up(&ours, None).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(set_up(&json!({"spec": {"local": {"path": path}}}), None).unwrap(), path);
        let missing = json!({"spec": {"local": {"path": home.path().join("w")}}});
        assert!(set_up(&missing, None).unwrap_err().ends_with("does not exist"));
        assert!(
            set_up(&json!({"spec": {"nfs": {}}}), None).unwrap_err().starts_with("no volume plugin matched")
        );
    }
}
