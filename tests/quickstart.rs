//! The quickstart: what `scripts/up.sh` applies runs, is reached, and is replaced when it is killed.

use std::process::Command;

use crate::harness::{Cluster, Kubectl, run};

#[test]
fn quickstart_runs_and_heals() {
    let cluster = Cluster::start(&[]);
    apply_and_wait(&cluster);

    // The real kubectl sees what ours applied, in the columns people know.
    let table = cluster.with(&Kubectl::upstream(), &["get", "pods", "-o", "wide"]).ok();
    let header = table.lines().next().expect("there must be a header");
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>().join(" "),
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
    );
    assert_eq!(
        table.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count(),
        3,
        "{table}"
    );

    a_link_named_kubectl_is_kubectl(&cluster);
    reaches_pods_and_server(&cluster);
    logs_and_exec(&cluster);
    kill_a_container(&cluster);
    kill_a_sandbox(&cluster);
    replace_a_deleted_pod(&cluster);
}

/// Applies the quickstart's folder and waits until all of it is ready.
pub(crate) fn apply_and_wait(cluster: &Cluster) {
    let applied = cluster.kubectl(&["apply", "-f", "examples/quickstart"]).ok();
    assert_eq!(applied, "pod/hello created\nreplicaset.apps/quickstart created\n");
    cluster.wait("pod/hello", "condition=Ready");
    cluster.wait("replicaset/quickstart", "jsonpath={.status.readyReplicas}=2");
}

fn a_link_named_kubectl_is_kubectl(cluster: &Cluster) {
    let link = cluster.home().join("kubectl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_minik8s"), &link).expect("a link must be made");
    let args = ["get", "pod", "hello", "-o", "name"];
    assert_eq!(
        run(Command::new(&link).args(args).env("KUBECONFIG", cluster.kubeconfig())).ok(),
        "pod/hello\n"
    );
}

fn pod_of_the_set(cluster: &Cluster) -> String {
    let name =
        cluster.kubectl(&["get", "pods", "-l", "role=web", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    assert!(name.starts_with("quickstart-"), "{name}");
    name
}

fn reaches_pods_and_server(cluster: &Cluster) {
    let pod = pod_of_the_set(cluster);
    let address = cluster.field(&format!("pod/{pod}"), "{.status.podIP}");
    // From the node, and from another pod.
    let page =
        run(Command::new("curl").args(["-sS", "--max-time", "10", &format!("http://{address}:8080/")])).ok();
    assert_eq!(page, format!("served by {pod}\n"));
    let page =
        cluster.kubectl(&["exec", "hello", "--", "wget", "-qO-", &format!("http://{address}:8080/")]).ok();
    assert_eq!(page, format!("served by {pod}\n"));
    // The Service `kubernetes`, by the variables that every pod has.
    let script =
        "echo | nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT >/dev/null && echo reached";
    assert_eq!(cluster.kubectl(&["exec", "hello", "--", "sh", "-c", script]).ok(), "reached\n");
    // The token that every pod has is one that the server knows.
    let script = "cat /var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = cluster.kubectl(&["exec", "hello", "--", "sh", "-c", script]).ok();
    let url = format!("{}/api/v1/namespaces/default/pods", server(cluster));
    let answer = run(Command::new("curl").args([
        "-sS",
        "--cacert",
        cluster.home().join("pki/ca.crt").to_str().expect("the path must be UTF-8"),
        "-H",
        &format!("Authorization: Bearer {token}"),
        &url,
    ]))
    .ok();
    assert!(
        answer.contains(r#"User \"system:serviceaccount:default:default\" cannot list resource \"pods\""#),
        "{answer}"
    );
}

fn server(cluster: &Cluster) -> String {
    cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok()
}

fn logs_and_exec(cluster: &Cluster) {
    for kubectl in [Kubectl::ours(), Kubectl::upstream()] {
        let log = cluster.with(&kubectl, &["logs", "hello", "--tail=1"]).ok();
        assert_eq!(log, "hello from hello\n", "{}", kubectl.name);
        assert_eq!(
            cluster.with(&kubectl, &["exec", "hello", "--", "hostname"]).ok(),
            "hello\n",
            "{}",
            kubectl.name
        );
        let failed = cluster.with(&kubectl, &["exec", "hello", "--", "sh", "-c", "echo no >&2; exit 3"]);
        assert_eq!((failed.code, failed.stderr.lines().next()), (3, Some("no")), "{}", kubectl.name);
    }
}

fn kill_a_container(cluster: &Cluster) {
    let containers = cluster.containers("label=io.kubernetes.container.name=hello");
    assert_eq!(containers.len(), 1, "{containers:?}");
    run(Command::new("docker").args(["kill", &containers[0]])).ok();
    cluster.wait("pod/hello", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    cluster.wait("pod/hello", "condition=Ready");
    let code = cluster.field("pod/hello", "{.status.containerStatuses[0].lastState.terminated.exitCode}");
    assert_eq!(code, "137");
    let log = cluster.kubectl(&["logs", "hello", "--previous", "--tail=1"]).ok();
    assert_eq!(log, "hello from hello\n", "the killed container's log is kept");
}

fn kill_a_sandbox(cluster: &Cluster) {
    let uid = cluster.field("pod/hello", "{.metadata.uid}");
    let pause = run(Command::new("docker").args([
        "ps",
        "-q",
        "--filter",
        &format!("label=io.kubernetes.pod.uid={uid}"),
        "--filter",
        "label=io.kubernetes.docker.type=podsandbox",
    ]))
    .ok();
    run(Command::new("docker").args(["kill", pause.trim()])).ok();
    cluster.wait("pod/hello", "jsonpath={.status.containerStatuses[0].restartCount}=2");
    cluster.wait("pod/hello", "condition=Ready");
    assert_eq!(cluster.field("pod/hello", "{.metadata.uid}"), uid, "the same pod");
}

fn replace_a_deleted_pod(cluster: &Cluster) {
    let pod = pod_of_the_set(cluster);
    let deleted = cluster.kubectl(&["delete", "pod", &pod]).ok();
    assert!(deleted.starts_with(&format!("pod \"{pod}\" deleted")), "{deleted}");
    cluster.wait("replicaset/quickstart", "jsonpath={.status.readyReplicas}=2");
    let names = cluster.kubectl(&["get", "pods", "-l", "role=web", "-o", "name"]).ok();
    assert_eq!(names.lines().count(), 2, "{names}");
    assert!(!names.contains(&pod), "{pod} is gone: {names}");
}
