//! The lives of pods on real Docker: what starts in which order, what is restarted, added, held back and ended.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Cluster, IMAGE, Kubectl, run};

#[test]
fn pods_live_as_documented() {
    let folder = tempfile::tempdir().expect("a directory must be had");
    let path = folder.path().to_str().expect("the path must be text");
    // What pods write is seen soon: by default, a figure of it may be a minute old.
    let prompt = ["--housekeeping-interval", "1s", "--volume-stats-agg-period", "0s"];
    let cluster = Cluster::start(&[&["--pod-manifest-path", path][..], &prompt].concat());
    cluster.kubectl(&["apply", "-f", "examples/pods"]).ok();
    cluster.apply(&gates());
    order_probes_and_restart(&cluster);
    a_debugger_sees_its_target(&cluster);
    restart_rules(&cluster);
    variables_and_a_budget(&cluster);
    readiness_and_scheduling_gates(&cluster);
    deadline(&cluster);
    a_resize(&cluster);
    readiness_follows_startup(&cluster);
    pods_go_before_what_they_live_on(&cluster);
    those_that_write_too_much_are_evicted(&cluster);
    static_pods(&cluster, folder.path());
}

/// A node that is short of disk and process ids, and then one that is short of memory: conditions and taints tell, what
/// it has is evicted in upstream's order, and what asks for nothing is not taken.
#[test]
fn a_node_that_is_short_of_something_evicts() {
    let mut cluster = Cluster::start(&["--housekeeping-interval", "1s"]);
    let node = format!("node/{}", cluster.node());
    let writer = |name: &str, request: &str, megabytes: u32| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: '{IMAGE}', \
             command: [sh, -c, 'dd if=/dev/zero of=/x bs=1M count={megabytes}; touch /done; exec sleep 100000'], \
             readinessProbe: {{periodSeconds: 1, exec: {{command: [test, -e, /done]}}}}, \
             resources: {{requests: {{{request}}}}}}}]}}}}\n---\n"
        )
    };
    let light = writer("light", "", 1);
    cluster.apply(&(light + &writer("modest", "ephemeral-storage: 100Mi", 5) + &writer("heavy", "", 5)));
    for pod in ["pod/light", "pod/modest", "pod/heavy"] {
        cluster.wait(pod, "condition=Ready");
    }

    cluster.kill();
    cluster.change_flag("--eviction-hard", "nodefs.available<1Ei,pid.available<1Gi");
    cluster.up();
    for condition in ["condition=DiskPressure", "condition=PIDPressure", "condition=MemoryPressure=False"] {
        cluster.wait(&node, condition);
    }
    for (pod, uses) in [("light", "1"), ("modest", ""), ("heavy", "5")] {
        cluster.wait(&format!("pod/{pod}"), "jsonpath={.status.phase}=Failed");
        let message = cluster.field(&format!("pod/{pod}"), "{.status.reason}: {.status.message}");
        let low =
            "Evicted: The node was low on resource: ephemeral-storage. Threshold quantity: 1Ei, available: ";
        assert!(message.starts_with(low), "{message}");
        // Blocks of the file system and the log come on top.
        let blamed = message.contains(&format!(". Container main was using {uses}"))
            && message.ends_with(", request is 0, has larger consumption of ephemeral-storage. ");
        assert_eq!(blamed, pod != "modest", "{message}");
    }
    let events = cluster.kubectl(&[
        "get",
        "events",
        "--field-selector=reason=Evicted",
        "-o",
        "jsonpath={range .items[*]}{.metadata.resourceVersion} {.involvedObject.name}{\"\\n\"}{end}",
    ]);
    let mut order: Vec<(u64, String)> = events
        .ok()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(version, pod)| (version.parse().expect("a resource version must be a number"), pod.to_owned()))
        .collect();
    order.sort_unstable();
    let order: Vec<&str> = order.iter().map(|(_, pod)| pod.as_str()).collect();
    assert_eq!(order, ["heavy", "light", "modest"], "above its request first, and of those the largest");
    let taints = cluster.field(&node, "{.spec.taints[*].key}");
    for taint in ["node.kubernetes.io/disk-pressure", "node.kubernetes.io/pid-pressure"] {
        assert!(taints.contains(taint), "{taint} is not in {taints}");
    }

    cluster.kill();
    cluster.change_flag("--eviction-hard", "memory.available<1Ei");
    cluster.up();
    cluster.wait(&node, "condition=MemoryPressure");
    cluster.wait(&node, "condition=DiskPressure=False");
    let node = cluster.node();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: greedy}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 100, containers: [{{name: main, image: '{IMAGE}', command: [sleep, '100000'], resources: {{requests: {{memory: 1Mi}}}}}}]}}}}\n---\n\
         {{apiVersion: v1, kind: Pod, metadata: {{name: best-effort}}, spec: {{nodeName: {node}, containers: [{{name: main, image: '{IMAGE}'}}]}}}}\n"
    ));
    cluster.wait("pod/greedy", "jsonpath={.status.reason}=Evicted");
    cluster.wait("pod/greedy", "condition=DisruptionTarget");
    let message = cluster.field("pod/greedy", "{.status.message}");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 1Ei, available: "),
        "{message}"
    );
    cluster.wait("pod/greedy", "jsonpath={.status.phase}=Failed");
    cluster.wait("pod/best-effort", "jsonpath={.status.reason}=Evicted");
    let message = cluster.field("pod/best-effort", "{.status.message}");
    assert_eq!(message, "Pod was rejected: The node had condition: [MemoryPressure]. ");
}

/// A container that has started is asked at once whether it is ready, however seldom it is asked else.
fn readiness_follows_startup(cluster: &Cluster) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: late}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '{IMAGE}', \
         command: [sh, -c, 'sleep 3; touch /up; exec sleep 100000'], \
         startupProbe: {{periodSeconds: 1, failureThreshold: 100, exec: {{command: [test, -e, /up]}}}}, \
         readinessProbe: {{periodSeconds: 3600, exec: {{command: ['true']}}}}}}]}}}}\n"
    ));
    cluster.wait("pod/late", "condition=Ready");
    cluster.kubectl(&["delete", "pod", "late"]).ok();
}

/// A namespace that is deleted keeps all else until its pods are gone.
fn pods_go_before_what_they_live_on(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", "passing"]).ok();
    let accounts = ["get", "serviceaccounts", "-n", "passing", "--watch", "-o", "name"];
    cluster.watch_with(&Kubectl::ours(), &accounts, |line| line == "serviceaccount/default");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: kept, namespace: passing}}}}\n---\n\
         {{apiVersion: v1, kind: Pod, metadata: {{name: held, namespace: passing, finalizers: [example.com/hold]}}, \
         spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '{IMAGE}', command: [sleep, '100000']}}]}}}}\n"
    ));
    cluster.kubectl(&["delete", "namespace", "passing", "--wait=false"]).ok();
    cluster.wait("namespace/passing", "condition=NamespaceContentRemaining");
    let told = "{.status.conditions[?(@.type=='NamespaceContentRemaining')].message}";
    assert_eq!(
        cluster.field("namespace/passing", told),
        "Some resources are remaining: pods. has 1 resource instances"
    );
    assert_eq!(
        cluster.kubectl(&["get", "configmap", "kept", "-n", "passing", "-o", "name"]).ok(),
        "configmap/kept\n"
    );
    let released = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&["patch", "pod", "held", "-n", "passing", "--type=merge", "-p", released]).ok();
    cluster.wait("namespace/passing", "delete");
}

fn order_probes_and_restart(cluster: &Cluster) {
    cluster.wait("pod/lifecycle", "condition=Ready");
    let written =
        cluster.kubectl(&["exec", "lifecycle", "-c", "web", "--", "cat", "/site/index.html", "/site/hook"]);
    assert_eq!(written.ok(), "prepared\nstarted\n");
    assert_eq!(cluster.kubectl(&["logs", "lifecycle", "-c", "beat"]).ok(), "beating\n");
    cluster.wait("pod/lifecycle", "jsonpath={.status.containerStatuses[1].restartCount}=1");
    let previous = cluster.kubectl(&["logs", "lifecycle", "-c", "flaky", "--previous"]).ok();
    assert_eq!(previous, "first try fails\n");
    let last = cluster.field("pod/lifecycle", "{.status.containerStatuses[1].lastState.terminated.exitCode}");
    assert_eq!(last, "1");
}

/// Upstream's `kubectl debug`: the patch, the watch, and the attach to what it added.
fn a_debugger_sees_its_target(cluster: &Cluster) {
    assert_eq!(debug(cluster, "first", "hello"), ["1", "got hello"], "it sees the one web server");
    assert_eq!(debug(cluster, "second", "again"), ["1", "got again"]);
    let ended = "jsonpath={.status.ephemeralContainerStatuses[1].state.terminated.exitCode}=0";
    cluster.wait("pod/lifecycle", ended);
    let shown = cluster.field("pod/lifecycle",
        "{range .status.ephemeralContainerStatuses[*]}{.name} {.restartCount} {.state.terminated.reason}{\"\\n\"}{end}",
    );
    assert_eq!(shown, "first 0 Completed\nsecond 0 Completed\n", "what has ended stays so");
    assert_eq!(cluster.field("pod/lifecycle", "{.status.phase}"), "Running");
}

/// What a debugger beside the web server printed, once it was told a word. Its input stays open meanwhile, as a
/// terminal does.
fn debug(cluster: &Cluster, name: &str, word: &str) -> Vec<String> {
    let image = format!("--image={IMAGE}");
    let script = "read line; ps | grep -c '[h]ttpd -f'; echo got $line";
    let args = ["debug", "lifecycle", "-i", "-c", name, &image, "--target=web", "--", "sh", "-c", script];
    let mut child = cluster
        .command(&Kubectl::newest(), &args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl must start");
    let mut input = child.stdin.take().expect("there must be an input");
    writeln!(input, "{word}").expect("kubectl must read");
    let output = BufReader::new(child.stdout.take().expect("there must be an output"));
    // Before it stands what kubectl itself has to say.
    let own = |line: &String| !line.starts_with("Targeting container");
    let lines = output.lines().map_while(Result::ok).filter(own).take(2).collect();
    drop(input);
    let status = child.wait().expect("kubectl must end");
    assert!(status.success(), "{status} after {lines:?}\n{}", cluster.log());
    lines
}

fn restart_rules(cluster: &Cluster) {
    for pod in ["pod/restart-rules", "pod/restart-all"] {
        cluster.wait(pod, "jsonpath={.status.phase}=Succeeded");
    }
    let count = |pod: &str, list: &str| cluster.field(pod, &format!("{{.status.{list}[0].restartCount}}"));
    assert_eq!(count("pod/restart-rules", "containerStatuses"), "1");
    assert_eq!(count("pod/restart-all", "containerStatuses"), "1");
    assert_eq!(count("pod/restart-all", "initContainerStatuses"), "1", "init containers run again as well");
    let condition = "{.status.conditions[?(@.type==\"AllContainersRestarting\")].status}";
    assert_eq!(cluster.field("pod/restart-all", condition), "False");
}

/// What an init container wrote is in the environment of a container that does not see the volume; and a pod has limits
/// as a whole.
fn variables_and_a_budget(cluster: &Cluster) {
    cluster.wait("pod/env-file", "jsonpath={.status.phase}=Succeeded");
    let printed = cluster.kubectl(&["logs", "env-file"]).ok();
    assert_eq!(printed, "10.0.0.7 ls: /data: No such file or directory\n");
    cluster.wait("pod/budget", "condition=Ready");
    assert_eq!(cluster.field("pod/budget", "{.status.qosClass}"), "Guaranteed");
    let requested = cluster.field("pod/budget", "{.spec.resources.requests}");
    assert_eq!(requested, r#"{"cpu":"200m","memory":"32Mi"}"#);
}

fn gates() -> String {
    let container = format!(
        "containers: [{{name: main, image: '{IMAGE}', command: [sleep, '100000']}}], terminationGracePeriodSeconds: 0"
    );
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: gated}}, spec: {{schedulingGates: [{{name: example.com/wait}}], {container}}}}}\n---\n\
         {{apiVersion: v1, kind: Pod, metadata: {{name: held}}, spec: {{readinessGates: [{{conditionType: example.com/up}}], {container}}}}}\n---\n\
         {{apiVersion: v1, kind: Pod, metadata: {{name: brief}}, spec: {{activeDeadlineSeconds: 1, {container}}}}}\n"
    )
}

fn readiness_and_scheduling_gates(cluster: &Cluster) {
    let reason = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    assert_eq!(cluster.field("pod/gated", reason), "SchedulingGated");
    assert_eq!(cluster.field("pod/gated", "{.spec.nodeName}"), "");
    cluster
        .kubectl(&[
            "patch",
            "pod",
            "gated",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#,
        ])
        .ok();
    cluster.wait("pod/gated", "condition=Ready");

    cluster.wait("pod/held", "condition=ContainersReady");
    let reason = "{.status.conditions[?(@.type==\"Ready\")].reason}";
    assert_eq!(cluster.field("pod/held", reason), "ReadinessGatesNotReady");
    let up = r#"{"status":{"conditions":[{"type":"example.com/up","status":"True"}]}}"#;
    cluster.kubectl(&["patch", "pod", "held", "--subresource=status", "-p", up]).ok();
    cluster.wait("pod/held", "condition=Ready");
}

fn deadline(cluster: &Cluster) {
    cluster.wait("pod/brief", "jsonpath={.status.reason}=DeadlineExceeded");
    assert_eq!(cluster.field("pod/brief", "{.status.phase}"), "Failed");
}

/// Into a volume with a size, into a container's own layer, and into a log.
fn those_that_write_too_much_are_evicted(cluster: &Cluster) {
    let pod = |name: &str, volumes: &str, containers: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{volumes: [{volumes}], containers: [{containers}]}}}}\n---\n"
        )
    };
    let container = |name: &str, script: &str, more: &str| {
        format!(
            "{{name: {name}, image: '{IMAGE}', command: [sh, -c, '{script}; exec sleep 100000'], {more}}}"
        )
    };
    let limit = |size: &str| format!("resources: {{limits: {{ephemeral-storage: {size}}}}}");
    let heap = "{name: heap, emptyDir: {sizeLimit: 1Mi}}";
    let mount = "volumeMounts: [{name: heap, mountPath: /heap}]";
    let fill = container("main", "dd if=/dev/zero of=/heap/x bs=1M count=3", mount);
    // These two write only once they are told to: they have been measured before.
    let quiet = container("quiet", "true", &limit("20Mi"));
    let scribble = container("main", "true", &limit("2Mi"));
    let talk =
        container("main", "trap \"seq 60000\" USR1; sleep 100000 & while true; do wait; done", &limit("2Mi"));
    cluster.apply(
        &[
            pod("hoarder", heap, &fill),
            pod("scribbler", "", &format!("{scribble}, {quiet}")),
            pod("talker", "", &talk),
        ]
        .concat(),
    );
    cluster.wait("pod/scribbler", "condition=Ready");
    cluster.wait("pod/talker", "condition=Ready");
    let write = ["exec", "scribbler", "-c", "main", "--", "dd", "if=/dev/zero", "of=/x", "bs=1M", "count=4"];
    cluster.kubectl(&write).ok();
    cluster.kubectl(&["exec", "talker", "--", "kill", "-USR1", "1"]).ok();
    for (name, expected) in [
        ("hoarder", "Usage of EmptyDir volume \"heap\" exceeds the limit \"1Mi\". "),
        ("scribbler", "Container main exceeded its local ephemeral storage limit \"2Mi\". "),
        ("talker", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ] {
        let pod = format!("pod/{name}");
        cluster.wait(&pod, "jsonpath={.status.phase}=Failed");
        assert_eq!(cluster.field(&pod, "{.status.reason}"), "Evicted");
        assert_eq!(cluster.field(&pod, "{.status.message}"), expected);
    }
    let metrics = format!("/api/v1/nodes/{}/proxy/metrics", cluster.node());
    let metrics = cluster.kubectl(&["get", "--raw", &metrics]).ok();
    for signal in ["emptydirfs.limit", "ephemeralcontainerfs.limit", "ephemeralpodfs.limit"] {
        let line = format!("kubelet_evictions{{eviction_signal=\"{signal}\"}} 1\n");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

/// A file in the folder is a pod with a copy in the API; deleting the copy changes nothing but the copy.
fn static_pods(cluster: &Cluster, folder: &Path) {
    let node = cluster.field("nodes", "{.items[0].metadata.name}");
    let (name, pod) = (format!("still-{node}"), format!("pod/still-{node}"));
    let manifest = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: still}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: main, image: '{IMAGE}', command: [sh, -c, 'echo {word}; exec sleep 100000']}}\n"
        )
    };
    let until = |template: &str, enough: &dyn Fn(&str) -> bool| {
        let (selector, output) = (format!("metadata.name={name}"), format!("jsonpath={template}{{\"\\n\"}}"));
        let args = ["get", "pods", "--field-selector", &selector, "--watch", "-o", &output];
        cluster.watch_with(&Kubectl::newest(), &args, |line| enough(line));
    };
    std::fs::write(folder.join("still.yaml"), manifest("one")).expect("the manifest must be written");
    until("{.status.phase}", &|line| line == "Running");
    assert_eq!(cluster.kubectl(&["logs", &name]).ok(), "one\n");
    let id = "{.status.containerStatuses[0].containerID}";
    let (uid, container) = (cluster.field(&pod, "{.metadata.uid}"), cluster.field(&pod, id));

    // A kubelet that starts again takes it up before it sweeps away what no pod of the API owns.
    cluster.kill();
    cluster.up();
    cluster.kubectl(&["delete", &pod, "--wait=false"]).ok();
    until("{.metadata.uid} {.status.phase}", &|line| line.ends_with(" Running") && !line.starts_with(&uid));
    assert_eq!(cluster.field(&pod, id), container, "the container did not notice");

    std::fs::write(folder.join("still.yaml"), manifest("two")).expect("the manifest must be written");
    until("{.status.containerStatuses[0].containerID} {.status.phase}", &|line| {
        line.starts_with("docker://") && line.ends_with(" Running") && !line.starts_with(&container)
    });
    assert_eq!(cluster.kubectl(&["logs", &name]).ok(), "two\n");

    std::fs::remove_file(folder.join("still.yaml")).expect("the manifest must be removed");
    cluster.wait(&pod, "delete");
}

/// A running container gets more CPU without noticing, and more memory by a restart, as its policy says.
fn a_resize(cluster: &Cluster) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: growing}}, spec: {{terminationGracePeriodSeconds: 0, containers: [\
         {{name: main, image: '{IMAGE}', command: [sleep, '100000'], resources: {{limits: {{cpu: 100m, memory: 32Mi}}}}, \
         resizePolicy: [{{resourceName: cpu, restartPolicy: NotRequired}}, {{resourceName: memory, restartPolicy: RestartContainer}}]}}]}}}}"
    ));
    cluster.wait("pod/growing", "condition=Ready");
    let resize = |limits: &str| {
        let patch = format!(
            r#"{{"spec":{{"containers":[{{"name":"main","resources":{{"requests":{limits},"limits":{limits}}}}}]}}}}"#
        );
        cluster.kubectl(&["patch", "pod", "growing", "--subresource=resize", "-p", &patch])
    };
    let id = cluster.field("pod/growing", "{.status.containerStatuses[0].containerID}");
    resize(r#"{"cpu":"200m"}"#).ok();
    cluster.wait("pod/growing", "jsonpath={.status.containerStatuses[0].resources.limits.cpu}=200m");
    assert_eq!(
        cluster.field("pod/growing", "{.status.containerStatuses[0].containerID}"),
        id,
        "not restarted"
    );
    let container = id.trim_start_matches("docker://");
    let quota =
        run(Command::new("docker").args(["inspect", "-f", "{{.HostConfig.CpuQuota}}", container])).ok();
    assert_eq!(quota.trim(), "20000");

    resize(r#"{"cpu":"200m","memory":"48Mi"}"#).ok();
    cluster.wait("pod/growing", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    cluster.wait("pod/growing", "jsonpath={.status.containerStatuses[0].resources.limits.memory}=48Mi");

    resize(r#"{"cpu":"10000"}"#).ok();
    cluster.wait("pod/growing", "condition=PodResizePending");
    let reason = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";
    assert_eq!(cluster.field("pod/growing", reason), "Infeasible");
    assert!(
        resize(r#"{"cpu":"200m","ephemeral-storage":"1Gi"}"#)
            .stderr
            .contains("only cpu and memory resources are mutable")
    );
    resize(r#"{"cpu":"200m"}"#).ok();
    cluster.wait("pod/growing", "jsonpath={.status.containerStatuses[0].allocatedResources.cpu}=200m");
}
