//! The bootstrap objects that are no roles.

use std::{collections::BTreeSet, net::IpAddr};

use api_objects::Value;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::Planned;
use crate::config::Config;

/// The namespaces of every cluster
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces>).
pub(super) fn namespaces() -> Vec<Planned> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            Planned::once("", "v1", "namespaces", "", object)
        })
        .collect()
}

/// The two priority classes that system pods name
/// (<https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/>).
pub(super) fn priority_classes() -> Vec<Planned> {
    let classes = [
        (
            "system-cluster-critical",
            2_000_000_000,
            "For system pods that the cluster cannot do without, and that may run on any node.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "For system pods that their node cannot do without; the highest priority there is.",
        ),
    ];
    classes
        .into_iter()
        .map(|(name, value, description)| {
            let object = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": {"name": name}, "value": value, "description": description});
            Planned::once("scheduling.k8s.io", "v1", "priorityclasses", "", object)
        })
        .collect()
}

/// The class of claims that name none: directories of the node that the pod runs on, made by the built-in provisioner.
pub(super) fn storage_classes() -> Vec<Planned> {
    let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "minik8s.io/hostpath", "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
        "volumeBindingMode": "WaitForFirstConsumer"});
    vec![Planned::once("storage.k8s.io", "v1", "storageclasses", "", object)]
}

/// The range of Services as an object.
pub(super) fn service_range(config: &Config) -> Planned {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_cidr.to_string()]}});
    Planned::once("networking.k8s.io", "v1", "servicecidrs", "", object)
}

/// The same, which says in its status that it can be used.
pub(super) fn service_range_ready(config: &Config) -> Planned {
    Planned { subresource: "status", reconcile: with_ready, ..service_range(config) }
}

/// The range with that condition, if it is this server's and says nothing of itself yet (upstream:
/// `pkg/controlplane/controller/defaultservicecidr`).
fn with_ready(planned: &Value, found: &Value) -> Option<Value> {
    let conditions = found["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = conditions.iter().any(|condition| condition["type"] == "Ready");
    if told || found["spec"]["cidrs"] != planned["spec"]["cidrs"] {
        return None;
    }
    let mut ready = found.clone();
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": api_objects::time::rfc3339(jiff::Timestamp::now())}]);
    Some(ready)
}

/// The Service `kubernetes` with the first address of the range.
pub(super) fn kubernetes_service(config: &Config, port: u16) -> Planned {
    let cluster_ip = config.kubernetes_service_ip().to_string();
    let object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": [family(&config.service_cidr.addr())], "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}});
    let mut service = Planned::once("", "v1", "services", "default", object);
    service.reconcile = same_target_port;
    service
}

/// Where the Service `kubernetes` leads: every server's address.
pub(super) fn kubernetes_endpoints(addresses: &BTreeSet<IpAddr>, port: u16) -> Vec<Planned> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subset: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": subset, "ports": ports}]});
    let mut endpoints = Planned::once("", "v1", "endpoints", "default", endpoints);
    endpoints.reconcile = |planned, found| replaced(planned, found, &["subsets"]);
    let entries: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family(first), "endpoints": entries, "ports": ports});
    let mut slice = Planned::once("discovery.k8s.io", "v1", "endpointslices", "default", slice);
    slice.reconcile = |planned, found| replaced(planned, found, &["endpoints", "ports"]);
    vec![endpoints, slice]
}

/// What servers behind this one need to know who signs client certificates.
pub(super) fn authentication_config(ca_pem: &str) -> Planned {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": ca_pem}});
    let mut planned = Planned::once("", "v1", "configmaps", "kube-system", object);
    planned.reconcile = |planned, found| replaced(planned, found, &["data"]);
    planned
}

/// Where the cluster is and whom it trusts, for machines that are to join it: kubeadm's ConfigMap. Signatures that
/// somebody adds beside it stay.
pub(super) fn cluster_info(config: &Config, port: u16, ca_pem: &str) -> Planned {
    let server = format!("https://{}", std::net::SocketAddr::new(config.advertise_address, port));
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": {
        "server": server, "certificate-authority-data": STANDARD.encode(ca_pem)}}]});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": api_objects::yaml::to_string(&kubeconfig)}});
    let mut planned = Planned::once("", "v1", "configmaps", "kube-public", object);
    planned.reconcile = |planned, found| {
        let kubeconfig = &planned["data"]["kubeconfig"];
        if found["data"]["kubeconfig"] == *kubeconfig {
            return None;
        }
        let mut next = found.clone();
        next["data"]["kubeconfig"] = kubeconfig.clone();
        Some(next)
    };
    planned
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The port behind the Service follows the listener's.
fn same_target_port(planned: &Value, found: &Value) -> Option<Value> {
    let port = &planned["spec"]["ports"][0]["targetPort"];
    if &found["spec"]["ports"][0]["targetPort"] == port {
        return None;
    }
    let mut next = found.clone();
    *next.pointer_mut("/spec/ports/0/targetPort")? = port.clone();
    Some(next)
}

/// The found object with the planned one's `fields`, if they differ.
fn replaced(planned: &Value, found: &Value, fields: &[&str]) -> Option<Value> {
    if fields.iter().all(|field| planned[*field] == found[*field]) {
        return None;
    }
    let mut next = found.clone();
    for field in fields {
        next[*field] = planned[*field].clone();
    }
    Some(next)
}
