//! What admission adds and refuses.

use apiserver::auth::UserInfo;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn a_pod_gets_its_account_and_token() {
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, &pod("a", &json!({}))).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    let volume = &spec["volumes"][0];
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]})
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": volume["name"], "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    let without =
        cluster.post(PODS, &pod("b", &json!({"automountServiceAccountToken": false}))).await.expect(201);
    assert_eq!(without["spec"].get("volumes"), None);
    let refused = cluster.post(PODS, &pod("c", &json!({"serviceAccountName": "robot"}))).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"c\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_gets_tolerations_and_a_priority() {
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, &pod("a", &json!({}))).await.expect(201);
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    assert_eq!(
        made["spec"]["tolerations"],
        json!([toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")])
    );
    // Whoever writes others over them has them back.
    let mut changed = made.clone();
    let another = json!({"key": "a", "operator": "Exists"});
    changed["spec"]["tolerations"] = json!([another]);
    let changed = cluster.put(&format!("{PODS}/a"), &changed).await.expect(200);
    assert_eq!(
        changed["spec"]["tolerations"],
        json!([
            another,
            toleration("node.kubernetes.io/not-ready"),
            toleration("node.kubernetes.io/unreachable")
        ])
    );
    let hasty =
        cluster.post(PODS, &pod("hasty", &json!({"terminationGracePeriodSeconds": -1}))).await.expect(201);
    assert_eq!(hasty["spec"]["terminationGracePeriodSeconds"], 1);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");

    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str, value: i64, global: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": global});
    cluster.post(classes, &class("normal", 10, true)).await.expect(201);
    cluster.post(classes, &class("high", 1000, false)).await.expect(201);
    let second = cluster.post(classes, &class("other", 20, true)).await.expect(403);
    assert_eq!(
        second["message"],
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass normal is already marked as default. Only one default can exist"
    );
    let made = cluster.post(PODS, &pod("b", &json!({}))).await.expect(201);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
        (&json!(10), &json!("normal"))
    );
    let made = cluster.post(PODS, &pod("c", &json!({"priorityClassName": "high"}))).await.expect(201);
    assert_eq!(made["spec"]["priority"], 1000);
    let unknown = cluster.post(PODS, &pod("d", &json!({"priorityClassName": "none"}))).await.expect(403);
    assert_eq!(unknown["message"], "pods \"d\" is forbidden: no PriorityClass with name none was found");
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_gets_what_its_runtime_class_costs_and_where_it_runs() {
    let cluster = Cluster::start().await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"metadata": {"name": "boxed"}, "handler": "box", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"boxes": "yes"}, "tolerations": [{"key": "boxes", "operator": "Exists"}]}});
    cluster.post(classes, &class).await.expect(201);
    cluster.post(classes, &json!({"metadata": {"name": "plain"}, "handler": "runc"})).await.expect(201);
    let wrong =
        json!({"metadata": {"name": "wrong"}, "handler": "a.b", "overhead": {"podFixed": {"cpu": "-1"}}});
    let wrong = cluster.post(classes, &wrong).await.expect(422);
    let causes = wrong["details"]["causes"].as_array().unwrap().iter().map(|cause| cause["field"].clone());
    assert_eq!(causes.collect::<Vec<_>>(), [json!("handler"), json!("overhead.limits[cpu]")]);

    let boxed = json!({"runtimeClassName": "boxed", "nodeSelector": {"disk": "ssd"}});
    let made = cluster.post(PODS, &pod("a", &boxed)).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(spec["overhead"], json!({"cpu": "250m"}));
    assert_eq!(spec["nodeSelector"], json!({"disk": "ssd", "boxes": "yes"}));
    assert!(spec["tolerations"].as_array().unwrap().contains(&json!({"key": "boxes", "operator": "Exists"})));
    for (name, spec, message) in [
        ("b", json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            "c",
            json!({"runtimeClassName": "boxed", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            "d",
            json!({"runtimeClassName": "boxed", "nodeSelector": {"boxes": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[boxes] = yes; pod.spec.nodeSelector[boxes] = no",
        ),
        (
            "e",
            json!({"runtimeClassName": "plain", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            "f",
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        let refused = cluster.post(PODS, &pod(name, &spec)).await.expect(403);
        assert_eq!(refused["message"], format!("pods \"{name}\" is forbidden: {message}"));
    }
    let same = json!({"runtimeClassName": "boxed", "overhead": {"cpu": "0.25"}});
    cluster.post(PODS, &pod("g", &same)).await.expect(201);
    cluster.post(PODS, &pod("h", &json!({"runtimeClassName": "plain"}))).await.expect(201);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_is_tainted_until_ready_and_kept_to_itself() {
    let cluster = Cluster::start().await;
    // The groups of the administrator let the request pass authorization: what refuses is admission.
    let kubelet = || UserInfo::new("system:node:n1", &["system:nodes", "system:masters"]);
    let send = async |path: &str, object: &Value| {
        let body = object.to_string().into_bytes();
        let response = cluster.request_as(kubelet(), Method::POST, path, &[], body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let (code, made) = send("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    let (code, other) = send("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    assert_eq!(code, 403);
    assert_eq!(
        other["message"],
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let (code, plain) = send(PODS, &pod("a", &json!({"nodeName": "n1"}))).await;
    assert_eq!(code, 403);
    assert_eq!(
        plain["message"],
        "pods \"a\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods"
    );
    cluster.stop().await;
}
