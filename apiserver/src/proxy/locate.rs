//! Where nodes, pods and Services answer.
//!
//! Rules and texts of `k8s.io/kubernetes/pkg/registry/core`'s `ResourceLocation`s.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
};

use api_objects::{Resource, Status, Value, resource};
use apiserver_storage::ListOptions;

use super::{
    connect::{Peer, Target},
    pod::port_number,
};
use crate::{
    Server, registry,
    status::{Subject, from_store},
};

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The decoded object of the core group.
pub(super) async fn find(
    server: &Server,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let resource = resource::find("", "v1", resource).expect("the resource must be built in");
    match registry::lookup(server, resource, namespace, name).await? {
        Some(object) => Ok(object),
        None => Err(Status::not_found("", &resource.plural, name)),
    }
}

async fn list(server: &Server, resource: &Resource, namespace: &str) -> Result<Vec<Value>, Status> {
    let listing = server
        .storage
        .list(&resource.key_prefix(namespace), &ListOptions::default(), None)
        .await
        .map_err(|error| from_store(&error, Subject { resource, name: "" }))?;
    let decoded =
        listing.items.iter().map(|item| registry::decode(&item.entry.value, item.entry.revision, resource));
    Ok(decoded.collect())
}

/// Where a node's kubelet answers.
pub(super) async fn node(server: &Server, name: &str) -> Result<Target, Status> {
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let node = find(server, "nodes", "", name).await?;
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    // Addresses before names: they need no resolver.
    let host = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address["type"] == *kind))
        .and_then(|address| address["address"].as_str())
        .ok_or_else(|| Status::unavailable(format!("node {name:?} has no address yet")))?;
    let port = match port {
        Some(port) => port.parse().map_err(|_| Status::bad_request(format!("{port:?} is not a port")))?,
        None => node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(10_250),
    };
    Ok(Target { host: host.to_owned(), port, peer: Peer::Kubelet })
}

/// The parts of `NAME`, `NAME:PORT` and `SCHEME:NAME:PORT`.
fn split(text: &str) -> Option<(Peer, &str, &str)> {
    let (peer, name, port) = match *text.split(':').collect::<Vec<_>>().as_slice() {
        [name] => (Peer::Plain, name, ""),
        [name, port] | ["" | "http", name, port] => (Peer::Plain, name, port),
        ["https", name, port] => (Peer::Tls, name, port),
        _ => return None,
    };
    (!name.is_empty()).then_some((peer, name, port))
}

/// A target, unless its address is one that leads elsewhere than to a pod: this server must not be made to call itself
/// or its neighbours.
fn target(host: &str, port: u64, peer: Peer) -> Result<Target, Status> {
    let refused = || Status::bad_request("address not allowed");
    let address: IpAddr = host.parse().map_err(|_| refused())?;
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    if local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(refused());
    }
    let port = u16::try_from(port).map_err(|_| Status::bad_request(format!("{port} is not a port")))?;
    Ok(Target { host: host.to_owned(), port, peer })
}

/// Where a pod answers.
pub(super) async fn pod(server: &Server, namespace: &str, name: &str) -> Result<Target, Status> {
    let (peer, name, port) =
        split(name).ok_or_else(|| Status::bad_request(format!("invalid pod request {name:?}")))?;
    let pod = find(server, "pods", namespace, name).await?;
    let port = if port.is_empty() {
        pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().unwrap_or(80)
    } else {
        port_number(&pod, port)
            .ok_or_else(|| Status::bad_request(format!("pod {name:?} has no port {port:?}")))?
    };
    target(pod["status"]["podIP"].as_str().unwrap_or_default(), port, peer)
}

/// Where one of a Service's pods answers.
pub(super) async fn service(server: &Server, namespace: &str, name: &str) -> Result<Target, Status> {
    let (peer, name, port) =
        split(name).ok_or_else(|| Status::bad_request(format!("invalid service request {name:?}")))?;
    let service = find(server, "services", namespace, name).await?;
    let port = port_name(&service, name, port)?;
    let row =
        resource::find("discovery.k8s.io", "v1", "endpointslices").expect("slices must be in the table");
    let mut slices = list(server, row, namespace).await?;
    slices.retain(|slice| slice["metadata"]["labels"][SERVICE_NAME] == name);
    let backends = if slices.is_empty() {
        // Nothing has made slices of it: its selector says the same.
        let row = resource::find("", "v1", "pods").expect("pods must be in the table");
        let pods = list(server, row, namespace).await?;
        pods.iter().filter_map(|pod| of_pod(pod, &service, port)).collect()
    } else {
        slices.iter().flat_map(|slice| of_slice(slice, port)).collect()
    };
    let (host, port) = any_of(backends)
        .ok_or_else(|| Status::unavailable(format!("no endpoints available for service {name:?}")))?;
    target(&host, port, peer)
}

/// Any of several; none of none.
fn any_of<T>(mut several: Vec<T>) -> Option<T> {
    let count = u64::try_from(several.len()).ok().filter(|count| *count > 0)?;
    // Every one of these starts with a seed of its own.
    let at = RandomState::new().build_hasher().finish() % count;
    Some(several.swap_remove(usize::try_from(at).ok()?))
}

/// The name of the port that a number means; a name is taken as it is.
fn port_name<'a>(service: &'a Value, name: &str, port: &'a str) -> Result<&'a str, Status> {
    let Ok(number) = port.parse::<u64>() else { return Ok(port) };
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = ports
        .iter()
        .find(|entry| entry["port"] == number)
        .ok_or_else(|| Status::unavailable(format!("no service port {number} found for service {name:?}")))?;
    Ok(found["name"].as_str().unwrap_or_default())
}

/// The ready addresses of a slice that has the port.
fn of_slice(slice: &Value, port: &str) -> Vec<(String, u64)> {
    let all = |field: &str| slice[field].as_array().cloned().unwrap_or_default();
    let ports = all("ports");
    let entry = ports.iter().find(|entry| entry["name"].as_str().unwrap_or_default() == port);
    let Some(number) = entry.and_then(|entry| entry["port"].as_u64()) else { return Vec::new() };
    all("endpoints")
        .iter()
        // Unknown is ready.
        .filter(|endpoint| endpoint["conditions"]["ready"] != false)
        .filter_map(|endpoint| Some((endpoint["addresses"][0].as_str()?.to_owned(), number)))
        .collect()
}

/// Where a pod answers for a Service, if it is one of its pods and ready.
fn of_pod(pod: &Value, service: &Value, port: &str) -> Option<(String, u64)> {
    let selector = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty())?;
    let labels = &pod["metadata"]["labels"];
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready =
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if !ready || selector.iter().any(|(key, value)| labels[key.as_str()] != *value) {
        return None;
    }
    let ports = service["spec"]["ports"].as_array()?;
    let entry = ports.iter().find(|entry| entry["name"].as_str().unwrap_or_default() == port)?;
    let number = match &entry["targetPort"] {
        Value::String(name) => port_number(pod, name)?,
        number => number.as_u64().filter(|number| *number > 0).or_else(|| entry["port"].as_u64())?,
    };
    Some((pod["status"]["podIP"].as_str()?.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_as_paths_carry_them() {
        assert_eq!(split("web"), Some((Peer::Plain, "web", "")));
        assert_eq!(split("web:80"), Some((Peer::Plain, "web", "80")));
        assert_eq!(split("http:web:"), Some((Peer::Plain, "web", "")));
        assert_eq!(split("https:web:tls"), Some((Peer::Tls, "web", "tls")));
        for wrong in ["", ":80", "ftp:web:1", "a:b:c:d"] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_pods_are_called() {
        assert!(target("10.1.2.3", 80, Peer::Plain).is_ok());
        for host in
            ["", "127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"]
        {
            assert_eq!(target(host, 80, Peer::Plain).unwrap_err().message, "address not allowed", "{host}");
        }
    }

    #[test]
    fn a_services_pods_are_found_by_slices_and_by_its_selector() {
        let service = json!({"spec": {"selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"name": "plain", "port": 81}]}});
        assert_eq!(port_name(&service, "s", "80").unwrap(), "http");
        assert_eq!(
            port_name(&service, "s", "82").unwrap_err().message,
            "no service port 82 found for service \"s\""
        );
        let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}]});
        assert_eq!(of_slice(&slice, "http"), [("10.0.0.1".to_owned(), 8080), ("10.0.0.2".to_owned(), 8080)]);
        assert!(of_slice(&slice, "plain").is_empty());
        let pod = |app: &str, ready: &str| {
            json!({"metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": ready}]}})
        };
        assert_eq!(of_pod(&pod("web", "True"), &service, "http"), Some(("10.0.0.9".to_owned(), 8080)));
        assert_eq!(of_pod(&pod("web", "True"), &service, "plain"), Some(("10.0.0.9".to_owned(), 81)));
        assert_eq!(of_pod(&pod("web", "False"), &service, "http"), None);
        assert_eq!(of_pod(&pod("db", "True"), &service, "http"), None);
        assert_eq!(any_of(Vec::<u8>::new()), None);
        assert_eq!(any_of(vec![7]), Some(7));
    }
}
