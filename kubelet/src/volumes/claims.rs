//! `persistentVolumeClaim` and `ephemeral` volumes: the claim's volume, found through the API and set up by its kind.
//!
//! What a claim led to is remembered for the pod's life: a claim may be marked for deletion while its pod runs, and that
//! changes nothing for the pod (upstream's `desired_state_of_world_populator` reads claims only for pods that are new).

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use api_objects::Value;
use client::Client;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use parking_lot::Mutex;

use super::{
    host_path, mounts,
    ownership::{self, Group},
    reclaim,
};
use crate::{
    api,
    pod::{self, name, namespace, uid},
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
        let found = self.read(pod, volume, &claim).await.map(Arc::new);
        if let Ok(found) = &found {
            self.found.lock().insert(key, Arc::clone(found));
        }
        Some(found.map_err(|why| format!("error processing PVC {}/{claim}: {why}", namespace(pod))))
    }

    async fn read(&self, pod: &Pod, volume: &Volume, claim: &str) -> Result<Value, String> {
        let (name, ephemeral) = (&volume.name, volume.ephemeral.is_some());
        let found = self.client.get(api::claims(), namespace(pod), claim).await;
        let claim = found.map_err(|error| {
            format!("failed to fetch PVC from API server: {}", client::error::chain(&error))
        })?;
        let volume = usable(pod, &claim, ephemeral)?;
        fits_use(pod, name, &claim)?;
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

/// Whether a container wants a volume as a device.
pub(super) fn is_device(pod: &Pod, name: &str) -> bool {
    let ephemeral = pod::ephemeral_containers(pod).map(|container| &container.volume_devices);
    let lists = pod::all_containers(pod).map(|container| &container.volume_devices).chain(ephemeral);
    lists.flatten().flatten().any(|device| device.name == name)
}

/// Whether a container wants a volume as a directory.
fn is_mounted(pod: &Pod, name: &str) -> bool {
    let ephemeral = pod::ephemeral_containers(pod).map(|container| &container.volume_mounts);
    let lists = pod::all_containers(pod).map(|container| &container.volume_mounts).chain(ephemeral);
    lists.flatten().flatten().any(|mount| mount.name == name)
}

/// Whether containers use a volume as what its claim asks for: files are mounted, a block device is not.
fn fits_use(pod: &Pod, name: &str, claim: &Value) -> Result<(), String> {
    let block = claim["spec"]["volumeMode"] == "Block";
    if block && is_mounted(pod, name) {
        return Err(format!("volume {name} has volumeMode Block, but is specified in volumeMounts"));
    }
    if !block && is_device(pod, name) {
        return Err(format!("volume {name} has volumeMode Filesystem, but is specified in volumeDevices"));
    }
    Ok(())
}

/// Whether a PersistentVolume is a block device.
pub(super) fn is_block(volume: &Value) -> bool {
    volume["spec"]["volumeMode"] == "Block"
}

/// The device of a block volume. Of the kinds that we mount only `local` has block volumes upstream.
pub(super) fn device(volume: &Value) -> Result<PathBuf, String> {
    let Some(path) = volume["spec"]["local"]["path"].as_str() else {
        return Err(
            "no block volume plugin matched: only local PersistentVolumes can be block devices".to_owned()
        );
    };
    // A link is followed now: names by id are links, and the container gets the device itself.
    let found = fs::canonicalize(path).map_err(|error| format!("path \"{path}\": {error}"))?;
    let kind = fs::metadata(&found).map_err(|error| format!("path \"{path}\": {error}"))?.file_type();
    if !kind.is_block_device() {
        return Err(format!("path \"{path}\" is not a block device"));
    }
    Ok(found)
}

/// Whether a volume is the claim's, and here.
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
    let home = &volume["metadata"]["labels"][reclaim::NODE_LABEL];
    if reclaim::is_ours(volume) && home != node {
        return Err(format!("the volume is on node {home}, not here"));
    }
    Ok(())
}

/// Sets a PersistentVolume up and gives its path. One with options of its own is mounted below `pod`.
pub(super) fn set_up(volume: &Value, group: Option<Group>, pod: &Path) -> Result<PathBuf, String> {
    let spec = &volume["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let options: Vec<String> =
        spec["mountOptions"].as_array().into_iter().flatten().filter_map(text).collect();
    // Upstream's `SupportsMountOption` of the two kinds.
    if !options.is_empty() && spec["local"].is_null() {
        return Err("Mount options are not supported for this volume type".to_owned());
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
        if options.is_empty() {
            return Ok(found);
        }
        let name = volume["metadata"]["name"].as_str().unwrap_or_default();
        let target = pod.join("volumes/kubernetes.io~local-volume").join(name);
        mounts::bind_with(&found, &target, &options)?;
        return Ok(target);
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
    fn files_are_mounted_and_devices_are_not() {
        let pod = |field: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", field: [
                {"name": "v", "mountPath": "/v", "devicePath": "/v"}]}]}}))
            .unwrap()
        };
        let claim = |mode: &str| json!({"spec": {"volumeMode": mode}});
        let (mounts, devices) = (pod("volumeMounts"), pod("volumeDevices"));
        assert_eq!(fits_use(&mounts, "v", &claim("Filesystem")), Ok(()));
        assert_eq!(fits_use(&devices, "v", &claim("Block")), Ok(()));
        assert_eq!(
            fits_use(&mounts, "v", &claim("Block")),
            Err("volume v has volumeMode Block, but is specified in volumeMounts".into())
        );
        assert_eq!(
            fits_use(&devices, "v", &claim("Filesystem")),
            Err("volume v has volumeMode Filesystem, but is specified in volumeDevices".into())
        );
    }

    #[test]
    fn a_block_volume_is_a_local_device() {
        let local = |path: &str| json!({"spec": {"volumeMode": "Block", "local": {"path": path}}});
        assert!(device(&local("/dev/null")).unwrap_err().ends_with("is not a block device"));
        assert!(device(&local("/dev/no-such-device")).unwrap_err().contains("No such file"));
        let path = json!({"spec": {"volumeMode": "Block", "hostPath": {"path": "/dev/null"}}});
        assert!(device(&path).unwrap_err().starts_with("no block volume plugin matched"));
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
        assert_eq!(set_up(&ours, None, home.path()).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(set_up(&json!({"spec": {"local": {"path": path}}}), None, home.path()).unwrap(), path);
        let options = json!({"spec": {"hostPath": {"path": path}, "mountOptions": ["ro"]}});
        let refused = "Mount options are not supported for this volume type";
        assert_eq!(set_up(&options, None, home.path()).unwrap_err(), refused);
        let missing = json!({"spec": {"local": {"path": home.path().join("w")}}});
        assert!(set_up(&missing, None, home.path()).unwrap_err().ends_with("does not exist"));
        assert!(
            set_up(&json!({"spec": {"nfs": {}}}), None, home.path())
                .unwrap_err()
                .starts_with("no volume plugin matched")
        );
    }
}
