//! The downward API: a pod's own fields as text, for environment variables and files.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;

use super::{name, namespace, resources::Demand, spec, uid};

/// What a pod can learn about itself that is not in its object.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The pod's addresses; empty until it is on the network.
    pub pod_ips: Vec<IpAddr>,
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The node's allocatable resources, for missing limits.
    pub allocatable: Demand,
}

/// The value of a `fieldRef`; the error names a path that is not supported.
pub fn field(pod: &Pod, path: &str, around: &Surroundings) -> Result<String, String> {
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(format!("invalid fieldPath with subscript: {path}")),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&around.host_ips),
        "status.hostIPs" => join(&around.host_ips),
        "status.podIP" => first(&around.pod_ips),
        "status.podIPs" => join(&around.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Splits `metadata.labels['key']` into its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// A map as lines of `key="value"`, sorted, with Go's quoting (`fieldpath.FormatMap`).
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Quotes as Go's `%q` does for what occurs in labels and annotations.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documented_fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "n", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "say \"1\""}},
            "spec": {"containers": [], "nodeName": "node", "serviceAccountName": "sa"},
        }))
        .unwrap();
        let around = Surroundings {
            pod_ips: vec!["10.0.0.2".parse().unwrap()],
            host_ips: vec!["192.168.0.1".parse().unwrap()],
            ..Surroundings::default()
        };
        for (path, expected) in [
            ("metadata.name", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels['b']", "2"),
            ("metadata.labels['missing']", ""),
            ("metadata.labels", "a=\"say \\\"1\\\"\"\nb=\"2\""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.0.0.2"),
            ("status.hostIPs", "192.168.0.1"),
        ] {
            assert_eq!(field(&pod, path, &around).unwrap(), expected, "{path}");
        }
        assert!(field(&pod, "spec.restartPolicy", &around).is_err());
    }
}
