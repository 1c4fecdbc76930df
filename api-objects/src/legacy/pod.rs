//! Pods: `cmd`, ports as text, `clusterIp`.

use super::{drop_field, items, number, rename};
use crate::object::Value;

/// Translates a pod's spec, which stands at `path`.
pub(super) fn translate(spec: &mut Value, path: &str, notes: &mut Vec<String>) {
    if !spec.is_object() {
        return;
    }
    drop_field(spec, "clusterIp", path, "pods get their address from the node", notes);
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec.get_mut(list)).enumerate() {
            translate_container(container, &format!("{path}.{list}[{index}]"), notes);
        }
    }
}

fn translate_container(container: &mut Value, path: &str, notes: &mut Vec<String>) {
    rename(container, "cmd", "command", path, notes);
    for (index, port) in items(container.get_mut("ports")).enumerate() {
        let path = format!("{path}.ports[{index}]");
        number(port, "containerPort", &path, notes);
        number(port, "hostPort", &path, notes);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probed) = container.get_mut(probe) else { continue };
        let path = format!("{path}.{probe}");
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds"] {
            number(probed, field, &path, notes);
        }
        if let Some(http) = probed.get_mut("httpGet") {
            number(http, "port", &format!("{path}.httpGet"), notes);
        }
        if let Some(exec) = probed.get_mut("exec") {
            rename(exec, "cmd", "command", &format!("{path}.exec"), notes);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(exec) = container.pointer_mut(&format!("/lifecycle/{hook}/exec")) {
            rename(exec, "cmd", "command", &format!("{path}.lifecycle.{hook}.exec"), notes);
        }
    }
}
