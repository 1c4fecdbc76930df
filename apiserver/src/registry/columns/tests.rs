//! Tables as kubectl's users know them: expectations from the documentation of kubectl and of the kinds.

use api_objects::resource;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn shown(group: &str, version: &str, plural: &str, object: &Value) -> Vec<String> {
    let resource = resource::find(group, version, plural).unwrap();
    let cells = cells(resource, object, now());
    assert_eq!(cells.len(), columns(resource).len(), "{plural}: one cell per column");
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for resource in resource::builtin() {
        let cells = cells(resource, &json!({"metadata": {"name": "x"}}), now());
        assert_eq!(cells.len(), columns(resource).len(), "{}", resource.plural);
        assert!(columns(resource).iter().any(|column| column.format == "name"), "{}", resource.plural);
    }
}

#[test]
fn columns_are_kubectls() {
    let headings = |plural| -> Vec<(&str, i32)> {
        columns(resource::find_by_any_name(plural).unwrap())
            .iter()
            .map(|column| (column.name, column.priority))
            .collect()
    };
    assert_eq!(
        headings("pods"),
        [
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1)
        ]
    );
    assert_eq!(headings("crd"), [("Name", 0), ("Created At", 0)]);
    assert_eq!(headings("ns"), [("Name", 0), ("Status", 0), ("Age", 0)]);
}

fn pod(spec: Value, status: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "web", "creationTimestamp": "2026-11-21T09:55:00Z"}});
    pod["spec"] = spec;
    pod["status"] = status;
    pod
}

#[test]
fn a_running_pod() {
    let pod = pod(
        json!({"nodeName": "node-1", "containers": [{"name": "a"}, {"name": "b"}],
            "readinessGates": [{"conditionType": "lb"}]}),
        json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.7"}], "conditions": [{"type": "lb", "status": "True"}],
        "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T09:59:12Z"}}},
        ]}),
    );
    assert_eq!(
        shown("", "v1", "pods", &pod),
        ["web", "1/2", "CrashLoopBackOff", "3 (48s ago)", "5m", "10.1.0.7", "node-1", "<none>", "1/1"]
    );
}

#[test]
fn the_status_of_a_pod() {
    let containers = json!({"containers": [{"name": "a"}]});
    let cases = [
        (json!({"phase": "Pending"}), "Pending"),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "SchedulingGated",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            "ContainerCreating",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "Completed",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "ExitCode:3",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            "Signal:9",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
                {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"ready": true, "state": {"running": {}}},
            ]}),
            "NotReady",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"ready": true, "state": {"running": {}}},
            ]}),
            "Running",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}},
            ]}),
            "Error",
        ),
    ];
    for (status, expected) in cases {
        assert_eq!(pods::summarize(&pod(containers.clone(), status.clone())).reason, expected, "{status}");
    }
}

#[test]
fn pods_that_initialize_or_end() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    let reason = |statuses: Value| {
        pods::summarize(&pod(spec.clone(), json!({"phase": "Pending", "initContainerStatuses": statuses})))
            .reason
    };
    assert_eq!(reason(json!([{"name": "i", "state": {"running": {}}}])), "Init:0/2");
    assert_eq!(
        reason(json!([{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}])),
        "Init:ImagePullBackOff"
    );
    assert_eq!(
        reason(json!([{"name": "i", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}])),
        "Init:Error"
    );
    assert_eq!(
        reason(
            json!([{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "state": {"waiting": {"reason": "PodInitializing"}}}])
        ),
        "Init:1/2"
    );

    let mut terminating = pod(json!({"containers": [{}]}), json!({"phase": "Running"}));
    terminating["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:30Z".into();
    assert_eq!(pods::summarize(&terminating).reason, "Terminating");
    terminating["status"]["phase"] = "Succeeded".into();
    assert_eq!(pods::summarize(&terminating).reason, "Succeeded");
    terminating["status"]["reason"] = "NodeLost".into();
    assert_eq!(pods::summarize(&terminating).reason, "Unknown");
}

#[test]
fn a_ready_sidecar_counts() {
    let pod = pod(
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}),
        json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 1, "state": {"running": {}}}]}),
    );
    assert_eq!(shown("", "v1", "pods", &pod)[1..4], ["2/2", "Running", "2"]);
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {"name": "node-1", "creationTimestamp": "2026-11-20T10:00:00Z", "labels": {
            "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.168.1.5"}, {"type": "Hostname", "address": "node-1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64",
                "containerRuntimeVersion": "docker://20.10.24"},
        },
    });
    assert_eq!(
        shown("", "v1", "nodes", &node),
        [
            "node-1",
            "Ready,SchedulingDisabled",
            "control-plane,edge",
            "24h",
            "v1.36.0",
            "192.168.1.5",
            "<none>",
            "Debian",
            "6.1 (amd64)",
            "docker://20.10.24"
        ]
    );
    let silent = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    assert_eq!(shown("", "v1", "nodes", &silent)[1..4], ["NotReady", "<none>", "<unknown>"]);
}

#[test]
fn workloads_and_services() {
    let set = json!({
        "metadata": {"name": "frontend", "creationTimestamp": "2026-11-21T09:59:54Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"tier": "frontend"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
        "status": {"replicas": 3, "readyReplicas": 2},
    });
    assert_eq!(
        shown("apps", "v1", "replicasets", &set),
        ["frontend", "3", "3", "2", "6s", "a,b", "x:1,y:2", "tier=frontend"]
    );
    assert_eq!(shown("apps", "v1", "deployments", &set)[..5], ["frontend", "2/3", "0", "0", "6s"]);

    let service = json!({
        "metadata": {"name": "s", "creationTimestamp": "2026-11-21T09:00:00Z"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
        "status": {"loadBalancer": {}},
    });
    assert_eq!(
        shown("", "v1", "services", &service),
        ["s", "LoadBalancer", "10.96.0.9", "<pending>", "80:30080/TCP,53/UDP", "60m", "a=1,b=2"]
    );

    let autoscaler = json!({"metadata": {"name": "h"}, "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9,
        "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "1k"}}},
            {"type": "External", "external": {"target": {"averageValue": "30"}}},
        ]},
        "status": {"currentReplicas": 2, "currentMetrics": [{"resource": {"current": {"averageUtilization": 7}}}]}});
    assert_eq!(
        shown("autoscaling", "v2", "horizontalpodautoscalers", &autoscaler)[1..6],
        ["Deployment/web", "cpu: 7%/50%, <unknown>/1k + 1 more...", "1", "9", "2"]
    );
}

#[test]
fn events() {
    let event = json!({
        "metadata": {"name": "web.17a"}, "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"},
        "type": "Normal", "reason": "Pulled", "message": " ok ", "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": "2026-11-21T09:58:00Z", "lastTimestamp": "2026-11-21T09:59:30Z", "count": 4,
    });
    assert_eq!(
        shown("", "v1", "events", &event),
        [
            "30s",
            "Normal",
            "Pulled",
            "pod/web",
            "spec.containers{a}",
            "kubelet, node-1",
            "ok",
            "2m",
            "4",
            "web.17a"
        ]
    );
    let new = json!({
        "metadata": {"name": "x"}, "regarding": {"kind": "Node"}, "eventTime": "2026-11-21T09:59:00.000000Z",
        "note": "hello", "reportingController": "scheduler",
    });
    assert_eq!(
        shown("events.k8s.io", "v1", "events", &new),
        ["60s", "", "", "node", "", "scheduler", "hello", "60s", "1", "x"]
    );
}
