//! `kill -9` of everything at once: the same objects, the same containers, the same processes; watches resume.

use std::process::Command;

use crate::{
    harness::{Cluster, Kubectl, run},
    quickstart,
};

#[test]
fn kill_nine_disturbs_nothing() {
    let cluster = Cluster::start(&[]);
    survives(&cluster);
}

/// Kills the cluster's process and starts it again; nothing that ran may notice.
pub(crate) fn survives(cluster: &Cluster) {
    quickstart::apply_and_wait(cluster);
    let before = picture(cluster);
    let version = resource_version(cluster);
    // Acknowledged before the kill, and seen by nobody's watch yet.
    cluster.kubectl(&["create", "configmap", "late", "--from-literal=a=1"]).ok();

    cluster.kill();
    cluster.up();

    cluster.wait("pod/hello", "condition=Ready");
    assert_eq!(picture(cluster), before, "objects, containers and their processes are the same");
    let path = format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={version}");
    let mut first = String::new();
    cluster.watch_with(&Kubectl::upstream(), &["get", "--raw", &path], |line| {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event must be JSON");
        let text = |pointer| event.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        first = format!("{} {}", text("/type"), text("/object/metadata/name"));
        true
    });
    assert_eq!(first, "ADDED late", "the watch goes on where it was, over the restart");

    // And it is alive: what is asked for now is done.
    cluster.kubectl(&["scale", "replicaset", "quickstart", "--replicas=3"]).ok();
    cluster.wait("replicaset/quickstart", "jsonpath={.status.readyReplicas}=3");
}

fn resource_version(cluster: &Cluster) -> String {
    let list =
        cluster.with(&Kubectl::upstream(), &["get", "--raw", "/api/v1/namespaces/default/configmaps"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).expect("a list must be JSON");
    list["metadata"]["resourceVersion"].as_str().expect("a list must have a version").to_owned()
}

/// Every pod with its uid, container id, restarts and the process in the container.
fn picture(cluster: &Cluster) -> Vec<String> {
    let path = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.podIP}{\"\\n\"}{end}";
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=quickstart", "-o", path]).ok();
    let mut picture: Vec<String> = pods
        .lines()
        .map(|line| {
            let id = line
                .split_whitespace()
                .nth(1)
                .and_then(|id| id.strip_prefix("docker://"))
                .expect("a container must run");
            let pid = run(Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", id])).ok();
            format!("{line} {}", pid.trim())
        })
        .collect();
    picture.sort();
    assert_eq!(picture.len(), 3, "{pods}");
    picture
}
