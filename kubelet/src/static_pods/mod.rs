//! Static pods: pods out of a folder of this node, which run whether or not there is an API server.
//!
//! [`folder`] follows the folder, this module reads a manifest into a pod of this node (pure; upstream's
//! `pkg/kubelet/config/common.go`), and [`mirror`] keeps a copy of each in the API, so that people see it. Its uid is
//! the hash of what was read: a changed file is another pod.

pub(crate) mod folder;
pub(crate) mod mirror;

use api_objects::{
    Value, resource,
    schema::{self, FieldValidation},
};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Where a pod comes from: `file` for those of a folder.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The hash of what was read.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";

/// Reads a manifest as a pod of this node. `file` tells two files of the same content apart.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(text: &str, file: &str, node: &str) -> Result<Value, String> {
    let mut pod: Value = api_objects::yaml::from_str(text).map_err(|error| error.to_string())?;
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err("it is not a Pod of v1".to_owned());
    }
    let row = resource::find("", "v1", "pods").ok_or("there are no pods")?;
    // Unknown fields are dropped here as by upstream's decoder; those that mean something refuse the pod later.
    schema::check(schema::for_resource(row), &mut pod, FieldValidation::Ignore)
        .map_err(|error| error.to_string())?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    if pod["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("it has no containers".to_owned());
    }
    let name = format!("{name}-{node}");
    let namespace =
        pod["metadata"]["namespace"].as_str().filter(|given| !given.is_empty()).unwrap_or("default");
    let namespace = namespace.to_owned();
    let hash = hash(&[node, file, &pod.to_string()]);
    let metadata = &mut pod["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    metadata["uid"] = json!(hash);
    metadata["annotations"][SOURCE] = json!("file");
    metadata["annotations"][HASH] = json!(hash);
    let spec = &mut pod["spec"];
    spec["nodeName"] = json!(node);
    // It is not for taints to end it: nothing would bring it back elsewhere.
    let tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let mut tolerations: Vec<Value> = tolerations;
    tolerations.push(json!({"operator": "Exists", "effect": "NoExecute"}));
    spec["tolerations"] = json!(tolerations);
    pod["status"] = json!({"phase": "Pending"});
    schema::apply_defaults(row, &mut pod);
    Ok(pod)
}

fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    // As long as upstream's, which is an MD5.
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {a: b}}\nspec:\n  containers: [{name: a, image: 'busybox:1'}]\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = read(MANIFEST, "web.yaml", "n1").unwrap();
        let metadata = &pod["metadata"];
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("web-n1"), &json!("default")));
        assert_eq!(metadata["annotations"][HASH], metadata["uid"]);
        assert_eq!(metadata["uid"].as_str().unwrap().len(), 32);
        assert_eq!(
            (&pod["spec"]["nodeName"], &pod["spec"]["restartPolicy"]),
            (&json!("n1"), &json!("Always"))
        );
        let changed = MANIFEST.replace("busybox:1", "busybox:2");
        for other in [
            read(&changed, "web.yaml", "n1"),
            read(MANIFEST, "b.yaml", "n1"),
            read(MANIFEST, "web.yaml", "n2"),
        ] {
            assert_ne!(other.unwrap()["metadata"]["uid"], metadata["uid"]);
        }
        for wrong in [
            "",
            "kind: Pod",
            "apiVersion: v1\nkind: Service\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}",
        ] {
            assert!(read(wrong, "f", "n").is_err(), "{wrong}");
        }
    }
}
