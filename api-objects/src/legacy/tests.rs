//! Manifests of the first dialect become those of Kubernetes; Kubernetes' own stay as they are.

use serde_json::json;

use super::*;

#[test]
fn pods() {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"clusterIp": "x",
        "containers": [{"name": "c", "image": "i", "cmd": ["sh"], "args": ["-c", "true"],
            "ports": [{"containerPort": "80", "hostPort": "8888"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": "80"}},
            "lifecycle": {"preStop": {"exec": {"cmd": ["stop"]}}}}]}});
    let notes = translate(&mut pod);
    assert_eq!(
        pod["spec"],
        json!({"containers": [{"name": "c", "image": "i", "command": ["sh"], "args": ["-c", "true"],
            "ports": [{"containerPort": 80, "hostPort": 8888}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            "lifecycle": {"preStop": {"exec": {"command": ["stop"]}}}}]})
    );
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert_eq!(translate(&mut pod), Vec::<String>::new(), "what is translated needs no more");
}

#[test]
fn nodes() {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "ip": "10.0.0.1"});
    assert_eq!(translate(&mut node), ["ip: read as status.addresses"]);
    assert_eq!(node["status"], json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}));
    assert!(node.get("ip").is_none());
}

#[test]
fn replica_sets() {
    let mut bare = json!({"apiVersion": "v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    translate(&mut bare);
    assert_eq!(bare["apiVersion"], "apps/v1");
    assert_eq!(bare["spec"]["selector"], json!({"matchLabels": {"minik8s.io/replicaset": "r"}}));
    assert_eq!(bare["spec"]["template"]["metadata"]["labels"], json!({"minik8s.io/replicaset": "r"}));
    let mut labelled = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}});
    translate(&mut labelled);
    assert_eq!(labelled["spec"]["selector"], json!({"matchLabels": {"app": "x"}}));
}

#[test]
fn services_and_autoscalers() {
    let mut service = json!({"kind": "Service", "spec": {"ports": [{"port": "8080", "targetPort": "80"}]}});
    translate(&mut service);
    assert_eq!(service["spec"]["ports"], json!([{"port": 8080, "targetPort": 80}]));
    let mut autoscaler = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": {
        "minReplicas": 1, "maxReplicas": 3, "scaleInterval": 15,
        "scaleTargetRef": {"kind": "ReplicaSet", "metadata": {"name": "r"}},
        "metrics": {"CPUUtilizationPercentage": 50}}});
    translate(&mut autoscaler);
    assert_eq!(
        autoscaler,
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {
            "minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}})
    );
}

#[test]
fn kubernetes_manifests_pass_through() {
    for manifest in [
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "command": ["x"],
            "ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": "http"}}}]}}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {
            "selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"metrics": []}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"port": "80"}}),
    ] {
        let mut translated = manifest.clone();
        assert_eq!(translate(&mut translated), Vec::<String>::new());
        assert_eq!(translated, manifest);
    }
}
