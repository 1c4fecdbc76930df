//! Which ports a person means: `LOCAL:REMOTE`, numbers or names, of a pod or of a Service. Pure.
//!
//! Rules and texts of `k8s.io/kubectl/pkg/cmd/portforward` and `k8s.io/client-go/tools/portforward`.

use api_objects::Value;

use crate::describe::{items_at, text_at};
use crate::error::Error;

/// One port to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Where to listen; 0 for any free port.
    pub(crate) local: u16,
    /// The pod's port.
    pub(crate) remote: u16,
}

/// Reads what stands on the command line, for that pod, and if a Service was named, through its ports.
pub(crate) fn resolve(specs: &[String], pod: &Value, service: Option<&Value>) -> Result<Vec<Forward>, Error> {
    specs.iter().map(|spec| one(spec, pod, service).map_err(Error::message)).collect()
}

fn one(spec: &str, pod: &Value, service: Option<&Value>) -> Result<Forward, String> {
    let (local, remote) = match spec.split(':').collect::<Vec<_>>().as_slice() {
        [both] => (*both, *both),
        [local, remote] => (*local, *remote),
        _ => return Err(format!("invalid port format '{spec}'")),
    };
    if remote.is_empty() {
        return Err("remote port cannot be empty".to_owned());
    }
    let (same, named) = (local == remote, remote.parse::<u64>().is_err());
    let (asked, number) = match service {
        Some(service) => {
            let port = match remote.parse::<u64>() {
                Ok(port) => port,
                Err(_) => named_service_port(service, remote)?,
            };
            (port, target_port(service, pod, port)?)
        }
        None if named => named_pod_port(pod, remote).map(|port| (port, port))?,
        None => {
            let port = remote
                .parse::<u64>()
                .map_err(|error| format!("error parsing remote port '{remote}': {error}"))?;
            (port, port)
        }
    };
    refuse_udp(pod, service, asked, remote)?;
    let remote = u16::try_from(number)
        .map_err(|_| format!("error parsing remote port '{number}': value out of range"))?;
    if remote == 0 {
        return Err("remote port must be > 0".to_owned());
    }
    // `https` alone listens on the Service's number or the pod's, `443` alone on 443.
    let local = match local {
        "" => 0,
        _ if same && named => u16::try_from(asked).unwrap_or(0),
        text => text.parse().map_err(|error| format!("error parsing local port '{text}': {error}"))?,
    };
    Ok(Forward { local, remote })
}

fn named_service_port(service: &Value, name: &str) -> Result<u64, String> {
    let port = items_at(service, "/spec/ports").iter().find(|port| port["name"] == name);
    port.and_then(|port| port["port"].as_u64()).ok_or_else(|| {
        format!("Service '{}' does not have a named port '{name}'", text_at(service, "/metadata/name", ""))
    })
}

fn named_pod_port(pod: &Value, name: &str) -> Result<u64, String> {
    let ports = container_ports(pod).find(|port| port["name"] == name);
    ports.and_then(|port| port["containerPort"].as_u64()).ok_or_else(|| {
        format!("Pod '{}' does not have a named port '{name}'", text_at(pod, "/metadata/name", ""))
    })
}

/// Ports of containers, those of sidecars included.
fn container_ports(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|list| items_at(pod, list))
        .flat_map(|container| items_at(container, "/ports"))
}

/// The pod's port behind a port of a Service.
fn target_port(service: &Value, pod: &Value, port: u64) -> Result<u64, String> {
    let entry =
        items_at(service, "/spec/ports").iter().find(|entry| entry["port"] == port).ok_or_else(|| {
            format!("Service {} does not have a service port {port}", text_at(service, "/metadata/name", ""))
        })?;
    if text_at(service, "/spec/clusterIP", "") == "None" {
        return Ok(port);
    }
    match &entry["targetPort"] {
        Value::String(name) => named_pod_port(pod, name),
        number => Ok(number.as_u64().filter(|number| *number != 0).unwrap_or(port)),
    }
}

/// Streams are TCP: a port that is UDP and nothing else cannot be forwarded.
fn refuse_udp(pod: &Value, service: Option<&Value>, port: u64, text: &str) -> Result<(), String> {
    let protocols: Vec<&str> = match service {
        Some(service) => {
            let ports = items_at(service, "/spec/ports").iter().filter(|entry| entry["port"] == port);
            ports.map(|entry| entry["protocol"].as_str().unwrap_or("TCP")).collect()
        }
        None => {
            let ports = container_ports(pod).filter(|entry| entry["containerPort"] == port);
            ports.map(|entry| entry["protocol"].as_str().unwrap_or("TCP")).collect()
        }
    };
    if protocols.contains(&"UDP") && !protocols.contains(&"TCP") {
        return Err(format!("UDP protocol is not supported for {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_as_people_write_them() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": [
            {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.0.0.1", "ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 9000}, {"port": 82}]}});
        let ask = |spec: &str, service: Option<&Value>| {
            resolve(&[spec.to_owned()], &pod, service)
                .map(|found| (found[0].local, found[0].remote))
                .map_err(|error| error.to_string())
        };
        for (spec, expected) in [
            ("80", (80, 80)),
            ("8080:80", (8080, 80)),
            (":80", (0, 80)),
            ("web", (8080, 8080)),
            ("1:web", (1, 8080)),
        ] {
            assert_eq!(ask(spec, None), Ok(expected), "{spec}");
        }
        for (spec, expected) in [
            ("80", (80, 8080)),
            ("http", (80, 8080)),
            ("5:http", (5, 8080)),
            ("81", (81, 9000)),
            (":82", (0, 82)),
        ] {
            assert_eq!(ask(spec, Some(&service)), Ok(expected), "{spec} of the Service");
        }
        for (spec, service, why) in [
            ("1:2:3", None, "error: invalid port format '1:2:3'"),
            ("80:", None, "error: remote port cannot be empty"),
            ("x", None, "error: Pod 'p' does not have a named port 'x'"),
            ("0", None, "error: remote port must be > 0"),
            ("53", None, "error: UDP protocol is not supported for 53"),
            ("83", Some(&service), "error: Service s does not have a service port 83"),
            ("x", Some(&service), "error: Service 's' does not have a named port 'x'"),
        ] {
            assert_eq!(ask(spec, service).unwrap_err(), why);
        }
    }
}
