//! Fifty pods at once, and nothing left of them afterwards.

use crate::harness::{Cluster, IMAGE};

#[test]
fn fifty_pods_come_and_go() {
    let cluster = Cluster::start(&[]);
    cluster.apply(&format!(
        r#"{{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {{"name": "crowd"}},
            "spec": {{"replicas": 50, "selector": {{"matchLabels": {{"app": "crowd"}}}},
                "template": {{"metadata": {{"labels": {{"app": "crowd"}}}},
                    "spec": {{"terminationGracePeriodSeconds": 1, "containers": [
                        {{"name": "sleep", "image": "{IMAGE}", "imagePullPolicy": "Never", "command": ["sleep", "100000"]}}]}}}}}}}}"#
    ));
    cluster.wait("replicaset/crowd", "jsonpath={.status.readyReplicas}=50");
    let addresses =
        cluster.kubectl(&["get", "pods", "-l", "app=crowd", "-o", "jsonpath={.items[*].status.podIP}"]).ok();
    let mut addresses: Vec<&str> = addresses.split_whitespace().collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "every pod has an address of its own");

    cluster.kubectl(&["delete", "replicaset", "crowd", "--cascade=foreground"]).ok();
    let names = cluster.kubectl(&["get", "pods", "-o", "name"]).ok();
    assert_eq!(names, "", "a foreground deletion waits for every pod");
    assert_eq!(cluster.containers("label=io.kubernetes.pod.namespace=default"), Vec::<String>::new());
}
