//! Descriptions look as kubectl's do.

use std::sync::Arc;

use serde_json::json;

use super::*;

fn described(group: &str, plural: &str, object: &Value, events: &[Value]) -> String {
    let resource = api_objects::resource::find(group, "v1", plural).map(Arc::clone).unwrap();
    let now = "2026-11-21T10:05:00Z".parse().unwrap();
    describe(&Subject { resource: &resource, object, events: Some(events), pods: &[], now })
}

#[test]
fn a_pod() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default", "labels": {"app": "x", "tier": "y"}},
        "spec": {"nodeName": "n", "serviceAccountName": "default", "containers": [{"name": "c", "image": "nginx",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
            "qosClass": "BestEffort", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": "docker://1", "imageID": "sha256:1", "ready": true,
                "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    let events =
        [json!({"type": "Normal", "reason": "Scheduled", "message": "Successfully assigned default/a to n",
        "source": {"component": "default-scheduler"}, "lastTimestamp": "2026-11-21T10:00:00Z",
        "firstTimestamp": "2026-11-21T09:55:00Z", "count": 3})];
    let text = described("", "pods", &pod, &events);
    for expected in [
        "Name:             a\n",
        "Node:             n/10.0.0.1\n",
        "Labels:           app=x\n                  tier=y\n",
        "Annotations:      <none>\n",
        "  c:\n    Container ID:   docker://1\n",
        "    State:          Waiting\n      Reason:       CrashLoopBackOff\n",
        "    Restart Count:  2\n",
        "      /v from v (ro)\n",
        "Tolerations:     node.kubernetes.io/not-ready:NoExecute op=Exists for 300s\n",
        "  Type    Reason     Age               From               Message\n",
        "  Normal  Scheduled  5m (x3 over 10m)  default-scheduler  Successfully assigned default/a to n\n",
    ] {
        assert!(text.contains(expected), "{expected:?} not in\n{text}");
    }
}

#[test]
fn secrets_stay_secret() {
    let secret =
        json!({"metadata": {"name": "s", "namespace": "d"}, "type": "Opaque", "data": {"key": "c2VjcmV0"}});
    let text = described("", "secrets", &secret, &[]);
    assert!(
        text.contains("key:  6 bytes\n") && !text.contains("secret") && !text.contains("c2VjcmV0"),
        "{text}"
    );
}

#[test]
fn any_kind_can_be_described() {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "namespace": "d", "creationTimestamp": "2026-11-21T10:00:00Z"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}});
    let text = described("coordination.k8s.io", "leases", &lease, &[]);
    assert!(text.contains("  Creation Timestamp:  2026-11-21T10:00:00Z\n"), "{text}");
    assert!(text.contains("Spec:\n  Holder Identity:         me\n  Lease Duration Seconds:  15\n"), "{text}");
}

#[test]
fn names_become_titles() {
    assert_eq!(title("creationTimestamp"), "Creation Timestamp");
    assert_eq!(title("uid"), "Uid");
    assert_eq!(title("hostIP"), "Host IP");
}
