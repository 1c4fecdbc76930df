//! Seed 1's manifests, in its dialect, through our kubectl: accepted, translated aloud, and run.

use crate::harness::Cluster;

#[test]
fn the_first_dialect_is_translated_and_runs() {
    let cluster = Cluster::start(&[]);
    let applied = cluster.kubectl(&["apply", "-f", "examples/legacy/pod.yaml"]);
    assert_eq!((applied.code, applied.stdout.as_str()), (0, "pod/viewer created\n"), "{}", applied.stderr);
    assert!(applied.stderr.contains("cmd"), "what was translated is said: {}", applied.stderr);
    cluster.wait("pod/viewer", "condition=Ready");
    let page = cluster
        .kubectl(&["exec", "viewer", "-c", "downloader", "--", "wget", "-qO-", "http://127.0.0.1:80/"])
        .ok();
    assert_eq!(page, "shared\n", "containers of a pod share network and volumes");

    let applied = cluster.kubectl(&["apply", "-f", "examples/legacy/replicaset.yaml"]);
    assert_eq!(
        (applied.code, applied.stdout.as_str()),
        (0, "replicaset.apps/web created\n"),
        "{}",
        applied.stderr
    );
    cluster.wait("replicaset/web", "jsonpath={.status.readyReplicas}=2");
    let names = cluster.kubectl(&["get", "rss", "-o", "name"]).ok();
    assert_eq!(names, "replicaset.apps/web\n", "the dialect's plural is known");

    let applied = cluster.kubectl(&["apply", "-f", "examples/legacy/node.yaml"]);
    assert_eq!((applied.code, applied.stdout.as_str()), (0, "node/worker created\n"), "{}", applied.stderr);
    let address = cluster.kubectl(&["get", "node", "worker", "-o", "jsonpath={.metadata.labels.os}"]).ok();
    assert_eq!(address, "linux");
}
