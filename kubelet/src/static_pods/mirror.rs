//! Mirror pods: the API's copies of static pods, for people to see. Deleting one changes nothing but the copy.

use api_objects::{Value, object::ObjectMeta};
use bytes::Bytes;
use client::{Client, Error};
use serde_json::json;

use super::{HASH, SOURCE};
use crate::{api, pod::status::as_it_came};

/// Marks a mirror pod; holds the hash of what it mirrors.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where a mirror pod's own uid stands, once it was given its static pod's.
const OWN_UID: &str = "minik8s.io/mirror-uid";

/// What the API has of a static pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The mirror pod's own uid.
    pub(crate) uid: String,
    /// The hash that it mirrors.
    pub(crate) hash: String,
    /// Whether somebody has asked for its deletion.
    pub(crate) deleted: bool,
    /// Its status, see [`as_it_came`].
    pub(crate) status: Box<str>,
}

/// Gives a mirror pod the uid of the pod that runs, under which the runtime, the logs and the figures know it. Other
/// pods stay as they are.
pub(crate) fn project(bytes: &[u8], meta: &ObjectMeta) -> Bytes {
    let hash = meta.annotations.get(MIRROR);
    let renamed = hash.and_then(|hash| {
        let mut pod: Value = serde_json::from_slice(bytes).ok()?;
        pod["metadata"]["annotations"][OWN_UID] = pod["metadata"]["uid"].clone();
        pod["metadata"]["uid"] = json!(hash);
        serde_json::to_vec(&pod).ok()
    });
    renamed.map_or_else(|| Bytes::copy_from_slice(bytes), Bytes::from)
}

/// Reads a projected pod as a mirror pod, if it is one.
pub(crate) fn read(bytes: &[u8]) -> Option<Mirror> {
    let meta = ObjectMeta::from_bytes(bytes);
    let hash = meta.annotations.get(MIRROR)?.clone();
    let uid = meta.annotations.get(OWN_UID)?.clone();
    Some(Mirror { uid, hash, deleted: meta.deletion_timestamp.is_some(), status: as_it_came(bytes) })
}

/// What is to be done about a mirror pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it should be.
    Keep,
    /// There is none: make it.
    Create,
    /// It mirrors something else, or somebody has deleted it: take it away, and the next look makes a new one.
    Remove,
}

/// Decides (upstream's `tryReconcileMirrorPods`).
pub(crate) fn decide(mirror: Option<&Mirror>, hash: &str) -> Step {
    match mirror {
        None => Step::Create,
        Some(mirror) if mirror.deleted || mirror.hash != hash => Step::Remove,
        Some(_) => Step::Keep,
    }
}

/// Makes the mirror pod of a static pod. That the name is taken is no failure: what has it will be told of.
pub(crate) async fn create(client: &Client, pod: &Value, node_uid: &str) -> Result<(), Error> {
    let mut mirror = pod.clone();
    let hash = pod["metadata"]["annotations"][HASH].clone();
    let metadata = &mut mirror["metadata"];
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("uid");
    }
    metadata["annotations"][MIRROR] = hash;
    // It goes with its node.
    metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node",
        "name": pod["spec"]["nodeName"], "uid": node_uid, "controller": true}]);
    if let Some(mirror) = mirror.as_object_mut() {
        mirror.remove("status");
    }
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
    match client.create(api::pods(), namespace, &mirror).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Takes a mirror pod away at once.
pub(crate) async fn remove(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": uid}});
    match client.delete(api::pods(), namespace, name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Whether a pod is a static one.
pub(crate) fn is_static(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|annotations| annotations.get(SOURCE));
    source.is_some_and(|source| source == "file")
        && !annotations.is_some_and(|annotations| annotations.contains_key(MIRROR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_pod_is_known_by_what_it_mirrors() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "d", "uid": "own",
            "annotations": {MIRROR: "h"}}, "status": {"phase": "Running"}});
        let bytes = pod.to_string();
        let projected = project(bytes.as_bytes(), &ObjectMeta::from_value(&pod));
        assert_eq!(ObjectMeta::from_bytes(&projected).uid, "h");
        let mirror = read(&projected).expect("it must be read back");
        assert_eq!(
            (mirror.uid.as_str(), mirror.hash.as_str(), &*mirror.status),
            ("own", "h", r#"{"phase":"Running"}"#)
        );
        assert_eq!(decide(Some(&mirror), "h"), Step::Keep);
        assert_eq!(decide(Some(&mirror), "other"), Step::Remove);
        assert_eq!(decide(Some(&Mirror { deleted: true, ..mirror }), "h"), Step::Remove);
        assert_eq!(decide(None, "h"), Step::Create);
        let plain = json!({"metadata": {"name": "a", "uid": "u"}});
        let text = plain.to_string();
        assert_eq!(project(text.as_bytes(), &ObjectMeta::from_value(&plain)), text.as_bytes());
        assert_eq!(read(text.as_bytes()), None);
    }
}
