//! Managed fields as the documentation of server-side apply and upstream's wire objects show them.

use serde_json::json;

use super::*;
use crate::schema::{Schema, definition};

fn pod() -> Option<&'static Schema> {
    definition("io.k8s.api.core.v1.Pod")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", api_version: "v1" }
}

fn entries(object: &Value) -> Value {
    object["metadata"]["managedFields"].clone()
}

#[test]
fn a_create_owns_what_it_writes() {
    // Section "Field management" of the server-side apply page.
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "test-cm", "namespace": "default", "labels": {"test-label": "test"}},
        "data": {"key": "some value"}});
    let schema = definition("io.k8s.api.core.v1.ConfigMap");
    update(None, &mut object, writer("kubectl"), schema, at("2019-03-30T15:00:00Z"));
    assert_eq!(
        entries(&object),
        json!([{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "2019-03-30T15:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:data": {".": {}, "f:key": {}},
                "f:metadata": {"f:labels": {".": {}, "f:test-label": {}}}}}])
    );
}

#[test]
fn a_pod_is_owned_as_upstream_writes_it() {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"run": "a"}},
        "spec": {"containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}]},
        "status": {}});
    update(None, &mut object, writer("kubectl-run"), pod(), at("2026-11-21T10:00:00Z"));
    assert_eq!(
        entries(&object)[0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:run": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                    "f:resources": {}}},
                "f:dnsPolicy": {}, "f:nodeSelector": {}, "f:securityContext": {}, "f:tolerations": {}}
        })
    );
}

#[test]
fn ownership_moves_with_changes() {
    let mut first = json!({"metadata": {"name": "a", "labels": {"x": "1", "y": "1"}, "finalizers": ["one"]}});
    update(None, &mut first, writer("creator"), pod(), at("2026-11-21T10:00:00Z"));
    let mut second = first.clone();
    second["metadata"]["labels"] = json!({"x": "2"});
    second["metadata"]["finalizers"] = json!(["one", "two"]);
    update(Some(&first), &mut second, writer("editor"), pod(), at("2026-11-21T11:00:00Z"));
    assert_eq!(
        entries(&second),
        json!([
            {"manager": "creator", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T10:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:finalizers": {".": {}, "v:\"one\"": {}}, "f:labels": {}}}},
            {"manager": "editor", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T11:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:finalizers": {"v:\"two\"": {}}, "f:labels": {"f:x": {}}}}}
        ])
    );
}

#[test]
fn writes_that_change_nothing_keep_times() {
    let mut first = json!({"metadata": {"name": "a", "labels": {"x": "1"}}});
    update(None, &mut first, writer("creator"), pod(), at("2026-11-21T10:00:00Z"));
    let mut again = first.clone();
    again["metadata"]["resourceVersion"] = json!("7");
    again["metadata"].as_object_mut().unwrap().remove("managedFields");
    update(Some(&first), &mut again, writer("editor"), pod(), at("2026-11-21T11:00:00Z"));
    assert_eq!(entries(&again), entries(&first));
}

#[test]
fn subresources_have_entries_of_their_own() {
    let mut first =
        json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Pending"}});
    update(None, &mut first, writer("creator"), pod(), at("2026-11-21T10:00:00Z"));
    assert_eq!(entries(&first)[0]["fieldsV1"], json!({"f:spec": {"f:nodeName": {}}}));
    let mut second = first.clone();
    second["status"]["phase"] = json!("Running");
    second["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    let kubelet = Writer { manager: "kubelet", subresource: "status", api_version: "v1" };
    update(Some(&first), &mut second, kubelet, pod(), at("2026-11-21T10:00:01Z"));
    assert_eq!(
        entries(&second)[1],
        json!({"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T10:00:01Z",
            "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:phase": {},
                "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}}})
    );
}

#[test]
fn an_emptied_list_starts_anew() {
    let mut first = json!({"metadata": {"name": "a", "labels": {"x": "1"}}});
    update(None, &mut first, writer("creator"), pod(), at("2026-11-21T10:00:00Z"));
    let mut second = first.clone();
    second["metadata"]["managedFields"] = json!([{}]);
    second["metadata"]["labels"]["y"] = json!("1");
    update(Some(&first), &mut second, writer("editor"), pod(), at("2026-11-21T11:00:00Z"));
    let managers: Vec<_> =
        entries(&second).as_array().unwrap().iter().map(|e| e["manager"].clone()).collect();
    assert_eq!(managers, ["editor"]);
    let mut third = second.clone();
    third["metadata"]["managedFields"] = json!([{}]);
    update(Some(&second), &mut third, writer("editor"), pod(), at("2026-11-21T12:00:00Z"));
    assert_eq!(entries(&third), Value::Null);
}

#[test]
fn old_updates_are_thrown_together() {
    let mut object = json!({"metadata": {"name": "a", "labels": {}}});
    for n in 0..15 {
        let live = object.clone();
        object["metadata"]["labels"][format!("l{n:02}")] = json!("x");
        let manager = format!("manager-{n:02}");
        let now = at(&format!("2026-11-21T10:{n:02}:00Z"));
        update((n > 0).then_some(&live), &mut object, writer(&manager), pod(), now);
    }
    let list = entries(&object);
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 10);
    assert_eq!(list[0]["manager"], "ancient-changes");
    assert_eq!(list[0]["time"], "2026-11-21T10:05:00Z");
    assert_eq!(list[0]["fieldsV1"]["f:metadata"]["f:labels"].as_object().unwrap().len(), 7);
    assert_eq!(list[9]["manager"], "manager-14");
}
