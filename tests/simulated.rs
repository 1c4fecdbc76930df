//! A large cluster that only pretends: a hundred nodes, a thousand pods.

use crate::harness::Cluster;

#[test]
fn a_thousand_pods_on_a_hundred_simulated_nodes() {
    let cluster = Cluster::start(&["--simulated-nodes", "100", "--container-runtime", "simulated"]);
    cluster.apply(
        r#"{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "many"},
            "spec": {"replicas": 1000, "selector": {"matchLabels": {"app": "many"}},
                "template": {"metadata": {"labels": {"app": "many"}},
                    "spec": {"containers": [{"name": "pretend", "image": "nothing"}]}}}}"#,
    );
    cluster.wait("replicaset/many", "jsonpath={.status.readyReplicas}=1000");
    let nodes =
        cluster.kubectl(&["get", "pods", "-l", "app=many", "-o", "jsonpath={.items[*].spec.nodeName}"]).ok();
    let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert!(nodes.len() >= 100, "pods are spread over the nodes, not heaped on {}", nodes.len());
}
