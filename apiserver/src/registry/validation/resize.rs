//! What may be asked of a running pod's resources (upstream's `ValidatePodResize`, KEP-1287).

use api_objects::Value;

use super::findings::{Findings, Spot};
use super::pods::{SPEC, check_spec};
use super::{entries, given, items, text};
use crate::registry::kinds::pod::quality_of_service;

/// A pod whose containers are to be resized.
pub(super) fn pod(new: &Value, old: &Value, findings: &mut Findings) {
    if given(&old["metadata"]["annotations"]["kubernetes.io/config.mirror"]) {
        findings.forbidden(&Spot::root(""), "static pods cannot be resized");
        return;
    }
    check_spec(&new["spec"], &SPEC, findings);
    for list in ["containers", "initContainers"] {
        let (now, before) = (items(&new["spec"][list]), items(&old["spec"][list]));
        let at = SPEC.field(list);
        if now.len() != before.len() {
            findings.forbidden(&at, &format!("{list} may not be added or removed on resize"));
            return;
        }
        let renamed: Vec<usize> =
            (0..now.len()).filter(|&index| now[index]["name"] != before[index]["name"]).collect();
        for &index in &renamed {
            let detail = format!("{list} may not be renamed or reordered on resize");
            findings.forbidden(&at.index(index).field("name"), &detail);
        }
        if !renamed.is_empty() {
            return;
        }
        for (index, (now, before)) in now.iter().zip(before).enumerate() {
            let at = at.index(index);
            if list == "initContainers"
                && now["restartPolicy"] != "Always"
                && now["resources"] != before["resources"]
                && items(&now["resizePolicy"])
                    .iter()
                    .any(|policy| policy["restartPolicy"] == "RestartContainer")
            {
                let detail =
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                findings.forbidden(&at, detail);
            }
            container(&now["resources"], &before["resources"], &at.field("resources"), findings);
        }
    }
    pod_level(&new["spec"]["resources"], &old["spec"]["resources"], findings);
    let class = quality_of_service(new);
    if class != text(&old["status"]["qosClass"]) && class != quality_of_service(old) {
        findings.invalid(&SPEC, class, "Pod QOS Class may not change as a result of resizing");
    }
    if keeps_only_cpu_and_memory(&new["spec"]) != keeps_only_cpu_and_memory(&old["spec"]) {
        findings.forbidden(&SPEC, "only cpu and memory resources are mutable");
    }
}

/// The same of the pod as a whole (`validatePodLevelResourcesResize`, KEP-5419).
fn pod_level(now: &Value, before: &Value, findings: &mut Findings) {
    let at = SPEC.field("resources");
    if given(before) && !given(now) {
        findings.forbidden(&at, "pod-level resources cannot be removed");
        return;
    }
    for side in ["requests", "limits"] {
        if entries(&before[side]).any(|(name, _)| !given(&now[side][name])) {
            let detail = format!("pod-level resource {side} cannot be removed");
            findings.forbidden(&at.field(side), &detail);
        }
        let others =
            |list| entries(list).filter(|(name, _)| !matches!(*name, "cpu" | "memory")).collect::<Vec<_>>();
        if others(&now[side]) != others(&before[side]) {
            findings.forbidden(&SPEC, "only cpu and memory resources are mutable at pod-level");
        }
    }
}

/// Limits and requests that there are can change, and new ones can come; none can go.
fn container(now: &Value, before: &Value, at: &Spot<'_>, findings: &mut Findings) {
    for side in ["limits", "requests"] {
        for (name, _) in entries(&before[side]).filter(|(name, _)| matches!(*name, "cpu" | "memory")) {
            if !given(&now[side][name]) {
                findings.forbidden(&at.field(side), &format!("resource {side} cannot be removed"));
            }
        }
    }
}

/// The spec without what a resize may change, and without what is the pod's as a whole.
fn keeps_only_cpu_and_memory(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("resources");
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("resizePolicy");
            }
            for side in ["limits", "requests"] {
                let Some(list) =
                    container.pointer_mut(&format!("/resources/{side}")).and_then(Value::as_object_mut)
                else {
                    continue;
                };
                list.remove("cpu");
                list.remove("memory");
                if list.is_empty()
                    && let Some(resources) = container["resources"].as_object_mut()
                {
                    resources.remove(side);
                }
            }
            if container["resources"].as_object().is_some_and(serde_json::Map::is_empty)
                && let Some(fields) = container.as_object_mut()
            {
                fields.remove("resources");
            }
        }
    }
    spec
}
