//! Every filter with its reason, and how the reasons read together.

use std::sync::Arc;

use api_objects::{Value, object::ObjectMeta};
use client::Key;
use serde_json::json;

use super::*;
use crate::scheduler::snapshot::NodeInfo;

fn project<T>(object: &Value, project: fn(&[u8], &ObjectMeta) -> Option<T>) -> Arc<T> {
    let bytes = object.to_string();
    Arc::new(
        project(bytes.as_bytes(), &ObjectMeta::from_bytes(bytes.as_bytes()))
            .expect("the object must be readable"),
    )
}

fn pod(spec: &Value) -> Arc<PodInfo> {
    let mut spec = spec.clone();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "i" }]);
    }
    project(
        &json!({ "metadata": { "name": "p", "namespace": "ns", "labels": { "app": "web" } }, "spec": spec }),
        PodInfo::project,
    )
}

fn node(name: &str, spec: &Value) -> Arc<NodeInfo> {
    project(
        &json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "disk": "ssd", "cores": "8" } },
            "spec": spec, "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "2" } } }),
        NodeInfo::project,
    )
}

/// The reasons of one node that carries `placed`.
fn reasons(spec: &Value, node_spec: &Value, placed: &[Value]) -> Reasons {
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node("n1", node_spec));
    for (index, spec) in placed.iter().enumerate() {
        snapshot.place(&Key::new("ns", &format!("placed-{index}")), &pod(spec), "n1");
    }
    let state = snapshot.nodes().next().expect("the node must be there").clone();
    obstacles("ns", &pod(spec), &state, &snapshot)
}

#[test]
fn each_filter_gives_upstreams_reason() {
    let none = json!({});
    assert!(reasons(&none, &none, &[]).is_empty());
    assert_eq!(reasons(&none, &json!({ "unschedulable": true }), &[]), ["node(s) were unschedulable"]);
    let tainted = json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] });
    assert_eq!(reasons(&none, &tainted, &[]), ["node(s) had untolerated taint(s)"]);
    let tolerant = json!({ "tolerations": [{ "key": "a", "operator": "Exists" }] });
    assert!(reasons(&tolerant, &tainted, &[]).is_empty());
    let preferred = json!({ "taints": [{ "key": "a", "effect": "PreferNoSchedule" }] });
    assert!(reasons(&none, &preferred, &[]).is_empty());
    let selector = json!({ "nodeSelector": { "disk": "hdd" } });
    assert_eq!(reasons(&selector, &none, &[]), ["node(s) didn't match Pod's node affinity/selector"]);
}

#[test]
fn node_affinity_operators() {
    for (operator, values, fits) in [
        ("In", json!(["ssd", "hdd"]), true),
        ("NotIn", json!(["ssd"]), false),
        ("Exists", json!(null), true),
        ("DoesNotExist", json!(null), false),
    ] {
        let term = json!({ "key": "disk", "operator": operator, "values": values });
        let spec = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [term] }] } } } });
        assert_eq!(reasons(&spec, &json!({}), &[]).is_empty(), fits, "{operator}");
    }
    let greater = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "cores", "operator": "Gt", "values": ["4"] }] }] } } } });
    assert!(reasons(&greater, &json!({}), &[]).is_empty());
}

#[test]
fn resources_name_everything_that_is_short() {
    let big = json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1500m", "memory": "3Gi" } } }] });
    assert!(reasons(&big, &json!({}), &[]).is_empty());
    assert_eq!(
        reasons(&big, &json!({}), std::slice::from_ref(&big)),
        ["Insufficient cpu", "Insufficient memory"]
    );
    assert_eq!(reasons(&json!({}), &json!({}), &[json!({}), json!({})]), ["Too many pods"]);
}

#[test]
fn an_init_container_counts_beside_earlier_sidecars() {
    let container =
        |name: &str, cpu: &str| json!({ "name": name, "resources": { "requests": { "cpu": cpu } } });
    let mut sidecar = container("side", "500m");
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({ "initContainers": [sidecar, container("init", "1200m")], "containers": [container("main", "1")] });
    assert_eq!(pod(&spec).requests.get("cpu"), 1700);
}

#[test]
fn host_ports_conflict_by_address_and_protocol() {
    let port = |ip: &str, protocol: &str| json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol }] }] });
    let taken = [port("", "TCP")];
    assert_eq!(
        reasons(&port("10.0.0.1", "TCP"), &json!({}), &taken),
        ["node(s) didn't have free ports for the requested pod ports"]
    );
    assert!(reasons(&port("", "UDP"), &json!({}), &taken).is_empty());
    assert!(reasons(&port("10.0.0.2", "TCP"), &json!({}), &[port("10.0.0.1", "TCP")]).is_empty());
}

#[test]
fn anti_affinity_works_both_ways_and_affinity_lets_the_first_pod_in() {
    let term = json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }]);
    let anti = json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } });
    let with =
        json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } });
    let plain = json!({});
    assert_eq!(
        reasons(&anti, &plain, std::slice::from_ref(&plain)),
        ["node(s) didn't match pod anti-affinity rules"]
    );
    assert_eq!(
        reasons(&plain, &plain, std::slice::from_ref(&anti)),
        ["node(s) didn't satisfy existing pods anti-affinity rules"]
    );
    assert!(reasons(&with, &plain, &[]).is_empty(), "the first of its group");
    assert!(reasons(&with, &plain, std::slice::from_ref(&plain)).is_empty());
}

#[test]
fn spread_constraints_bound_the_skew() {
    let spread = json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] });
    let mut snapshot = Snapshot::default();
    snapshot.set_node(node("n1", &json!({})));
    snapshot.set_node(node("n2", &json!({})));
    snapshot.place(&Key::new("ns", "a"), &pod(&json!({})), "n1");
    let verdicts: Vec<_> =
        snapshot.nodes().map(|state| obstacles("ns", &pod(&spread), state, &snapshot)).collect();
    assert_eq!(verdicts[0], ["node(s) didn't match pod topology spread constraints"]);
    assert!(verdicts[1].is_empty());
}

#[test]
fn explanations_read_as_upstreams() {
    let reasons = [
        vec!["Insufficient cpu".to_owned()],
        vec!["Insufficient cpu".into(), "Insufficient memory".into()],
        vec!["node(s) were unschedulable".into()],
    ];
    assert_eq!(
        explain(3, &reasons),
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu."
    );
    assert_eq!(explain(0, &[]), "no nodes available to schedule pods");
}
