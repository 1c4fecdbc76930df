//! Strategic merge patches against the kinds of the API, by the examples of the Kubernetes documentation.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::definition;

fn deployment() -> Option<&'static Schema> {
    definition("io.k8s.api.apps.v1.Deployment")
}

fn pod() -> Option<&'static Schema> {
    definition("io.k8s.api.core.v1.Pod")
}

fn patched(current: &Value, patch: Value, schema: Option<&Schema>) -> Value {
    let mut target = current.clone();
    apply(&mut target, patch, schema).unwrap();
    target
}

#[expect(clippy::needless_pass_by_value, reason = "reads better with a literal")]
fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

#[test]
fn containers_merge_by_name() {
    // "Update API Objects in Place Using kubectl patch": the patch adds a container in front.
    let current = containers(json!([{"name": "patch-demo-ctr", "image": "nginx"}]));
    let patch = containers(json!([{"name": "patch-demo-ctr-2", "image": "redis"}]));
    assert_eq!(
        patched(&current, patch, deployment()),
        containers(json!([
            {"name": "patch-demo-ctr-2", "image": "redis"},
            {"name": "patch-demo-ctr", "image": "nginx"}
        ]))
    );
    let change = containers(json!([{"name": "patch-demo-ctr", "image": "nginx:2"}]));
    assert_eq!(
        patched(&current, change, deployment()),
        containers(json!([{"name": "patch-demo-ctr", "image": "nginx:2"}]))
    );
}

#[test]
fn tolerations_are_replaced() {
    // The same page: tolerations have no merge strategy.
    let of = |list: Value| json!({"spec": {"tolerations": list}});
    let current = of(json!([{"key": "dedicated", "value": "test-team", "effect": "NoSchedule"}]));
    let patch = of(json!([{"key": "disktype", "value": "ssd", "effect": "NoSchedule"}]));
    assert_eq!(patched(&current, patch.clone(), pod()), patch);
}

#[test]
fn retained_keys_clear_a_union() {
    // The same page: changing the strategy to Recreate needs $retainKeys.
    let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched(&current, patch, deployment()), json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let contradiction = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(apply(&mut current.clone(), contradiction, deployment()).unwrap_err().code, 400);
}

#[test]
fn directives() {
    let current = containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    let delete = containers(json!([{"$patch": "delete", "name": "a"}]));
    assert_eq!(patched(&current, delete, deployment()), containers(json!([{"name": "b", "image": "y"}])));
    let replace = containers(json!([{"$patch": "replace"}, {"name": "c", "image": "z"}]));
    assert_eq!(patched(&current, replace, deployment()), containers(json!([{"name": "c", "image": "z"}])));
    let order = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}}});
    assert_eq!(
        patched(&current, order, deployment()),
        containers(json!([{"name": "b", "image": "y"}, {"name": "a", "image": "x"}]))
    );
    let map = json!({"metadata": {"labels": {"$patch": "replace", "only": "this"}}});
    assert_eq!(
        patched(&json!({"metadata": {"labels": {"a": "b"}}}), map, pod()),
        json!({"metadata": {"labels": {"only": "this"}}})
    );
    let finalizers = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
    assert_eq!(
        patched(&json!({"metadata": {"finalizers": ["a", "b"]}}), finalizers, pod()),
        json!({"metadata": {"finalizers": ["c", "b"]}})
    );
    let nulls = json!({"metadata": {"labels": {"a": null}, "annotations": {"x": null, "y": "z"}}});
    assert_eq!(
        patched(&json!({"metadata": {"labels": {"a": "b"}}}), nulls, pod()),
        json!({"metadata": {"labels": {}, "annotations": {"y": "z"}}})
    );
}

#[test]
fn malformed_patches_are_refused() {
    let current = containers(json!([{"name": "a"}]));
    for (patch, message) in [
        (
            containers(json!([{"image": "x"}])),
            "map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (json!({"spec": {"$patch": "explode"}}), "unknown patch type: explode in map: {}"),
        (
            json!([]),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ] {
        let status = apply(&mut current.clone(), patch, deployment()).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, message));
    }
}

#[test]
fn applying_a_configuration() {
    // The last configuration had containers a and b and a label; the server added a sidecar and defaults.
    let original = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 2, "template": {"spec": {
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}}});
    let modified = json!({"metadata": {}, "spec": {"template": {"spec": {
        "containers": [{"name": "a", "image": "x:2"}]}}}});
    let current = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 2, "paused": false,
        "template": {"spec": {"containers": [
            {"name": "a", "image": "x", "imagePullPolicy": "Always"}, {"name": "b", "image": "y"},
            {"name": "sidecar", "image": "s"}]}}}});
    let patch = three_way(&original, &modified, &current, deployment());
    assert_eq!(
        patch,
        json!({"metadata": {"labels": null}, "spec": {"replicas": null, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"image": "x:2", "name": "a"}, {"$patch": "delete", "name": "b"}]}}}})
    );
    assert_eq!(
        patched(&current, patch, deployment()),
        json!({"metadata": {}, "spec": {"paused": false, "template": {"spec": {"containers": [
            {"name": "a", "image": "x:2", "imagePullPolicy": "Always"}, {"name": "sidecar", "image": "s"}]}}}})
    );
    assert_eq!(
        three_way(&modified, &modified, &patched(&current, modified.clone(), deployment()), deployment()),
        json!({})
    );
}

/// Pods with a few containers, volumes, labels and finalizers, in any order.
fn some_pod() -> impl Strategy<Value = Value> {
    let container = ("[a-d]", "[xy]", proptest::option::of("[pq]"));
    let volume = ("[v-w]", any::<bool>());
    (
        proptest::collection::vec(container, 1..4),
        proptest::collection::vec(volume, 0..3),
        proptest::collection::btree_map("[kl]", "[mn]", 0..3),
        proptest::collection::btree_set("[f-h]", 0..3),
    )
        .prop_map(|(containers, volumes, labels, finalizers)| {
            let mut names = Vec::new();
            let mut list = Vec::new();
            for (name, image, policy) in containers {
                if !names.contains(&name) {
                    let mut container = json!({"name": name, "image": image});
                    if let Some(policy) = policy {
                        container["imagePullPolicy"] = json!(policy);
                    }
                    list.push(container);
                    names.push(name);
                }
            }
            let mut seen = Vec::new();
            let mut mounts = Vec::new();
            for (name, memory) in volumes {
                if !seen.contains(&name) {
                    mounts.push(if memory {
                        json!({"name": name, "emptyDir": {"medium": "Memory"}})
                    } else {
                        json!({"name": name, "hostPath": {"path": "/x"}})
                    });
                    seen.push(name);
                }
            }
            json!({"metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": list, "volumes": mounts}})
        })
}

proptest! {
    #[test]
    fn an_apply_onto_its_own_configuration_reaches_the_next(from in some_pod(), to in some_pod()) {
        let patch = three_way(&from, &to, &from, pod());
        prop_assert_eq!(patched(&from, patch, pod()), to);
    }

    #[test]
    fn an_apply_settles(original in some_pod(), modified in some_pod(), current in some_pod()) {
        let patch = three_way(&original, &modified, &current, pod());
        let reached = patched(&current, patch, pod());
        prop_assert_eq!(three_way(&modified, &modified, &reached, pod()), json!({}));
    }

    #[test]
    fn applying_twice_is_applying_once(current in some_pod(), patch in some_pod()) {
        let once = patched(&current, patch.clone(), pod());
        prop_assert_eq!(patched(&once, patch, pod()), once);
    }

    #[test]
    fn an_empty_patch_changes_nothing(current in some_pod()) {
        prop_assert_eq!(patched(&current, json!({}), pod()), current);
    }
}
