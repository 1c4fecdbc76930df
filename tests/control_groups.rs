//! Control groups of pods, in the kernel's own files: made, set, changed in place, swept and gone with their pods.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::harness::{Cluster, IMAGE, Kubectl, PATIENCE, run};

#[test]
fn pods_have_control_groups_of_their_own() {
    let cluster = Cluster::start(&["--pod-max-pids", "64"]);
    classes_and_limits(&cluster);
    a_resize_takes_the_group_along(&cluster);
    a_request_alone_restarts_where_its_policy_says_so(&cluster);
    a_limit_below_what_is_used_is_refused(&cluster);
    a_pod_is_limited_as_a_whole(&cluster);
    a_class_has_its_handler_and_its_price(&cluster);
    orphans_are_swept(&cluster);
    figures(&cluster);
    a_group_goes_with_its_pod(&cluster);
}

fn pod(name: &str, containers: &[&str]) -> String {
    let containers: Vec<String> = containers
        .iter()
        .enumerate()
        .map(|(index, resources)| {
            format!(
                "{{name: c{index}, image: '{IMAGE}', command: [sleep, '100000'], resources: {{{resources}}}}}"
            )
        })
        .collect();
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{}]}}}}\n---\n",
        containers.join(", ")
    )
}

/// Shares, microseconds of quota, bytes of memory and processes of a group, as one version of control groups or the
/// other has them; no number for no limit.
fn limits(cluster: &Cluster, group: &str) -> BTreeMap<&'static str, Option<u64>> {
    let places = cluster.control_groups(group);
    assert!(!places.is_empty(), "there is no control group {group}:\n{}", cluster.log());
    let read = |files: [&str; 2]| {
        let found = places.iter().flat_map(|place| files.map(|file| place.join(file)));
        let text = found.filter_map(|file| fs::read_to_string(file).ok()).next();
        let text = text.unwrap_or_else(|| panic!("{group} has neither of {files:?}"));
        let number = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        number.filter(|number| *number < 1 << 62)
    };
    [
        ("shares", read(["cpu.shares", "cpu.weight"])),
        ("quota", read(["cpu.cfs_quota_us", "cpu.max"])),
        ("memory", read(["memory.limit_in_bytes", "memory.max"])),
        ("processes", read(["pids.max", "pids.max"])),
    ]
    .into()
}

fn expected(shares: u64, quota: Option<u64>, memory: Option<u64>) -> BTreeMap<&'static str, Option<u64>> {
    let weights = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    // What runc makes of shares in version 2.
    let weight = |shares| match shares {
        2 => 1,
        102 => 17,
        204 => 29,
        other => panic!("what weight are {other} shares?"),
    };
    let shares = if weights { weight(shares) } else { shares };
    [("shares", Some(shares)), ("quota", quota), ("memory", memory), ("processes", Some(64))].into()
}

fn group_of(cluster: &Cluster, class: &str, pod: &str) -> String {
    let uid = cluster.field(&format!("pod/{pod}"), "{.metadata.uid}");
    format!("kubepods/{class}pod{uid}")
}

/// What the kernel calls a group: its path below where it is mounted.
fn name_of(cluster: &Cluster, group: &str) -> String {
    let places = cluster.control_groups(group);
    let place = places.first().and_then(|place| place.to_str()).expect("the group must be there");
    place[place.find("/minik8s").expect("it must be ours")..].to_owned()
}

fn classes_and_limits(cluster: &Cluster) {
    let both = "requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 200m, memory: 32Mi}";
    cluster.apply(&format!(
        "{}{}{}{}",
        pod("whole", &[both, both]),
        pod("part", &[both, "requests: {cpu: 100m}"]),
        pod("free", &[""]),
        pod("sure", &["limits: {cpu: 100m, memory: 32Mi}"]),
    ));
    for name in ["whole", "part", "free", "sure"] {
        cluster.wait(&format!("pod/{name}"), "condition=Ready");
    }
    for (name, class, limited) in [
        ("whole", "burstable/", expected(204, Some(40_000), Some(64 << 20))),
        ("part", "burstable/", expected(204, None, None)),
        ("free", "besteffort/", expected(2, None, None)),
        ("sure", "", expected(102, Some(10_000), Some(32 << 20))),
    ] {
        assert_eq!(limits(cluster, &group_of(cluster, class, name)), limited, "{name}");
    }
    // Burstable pods together weigh what they request, best-effort ones nothing.
    let burstable = limits(cluster, "kubepods/burstable")["shares"];
    assert!(burstable == Some(409) || burstable == Some(49), "{burstable:?}");
    assert_eq!(limits(cluster, "kubepods/besteffort")["shares"], expected(2, None, None)["shares"]);

    // The pause program is in it too.
    let group = group_of(cluster, "burstable/", "whole");
    let name = name_of(cluster, &group);
    let uid = group.rsplit_once("pod").expect("it must be a pod's").1;
    let running = cluster.containers(&format!("label=io.kubernetes.pod.uid={uid}"));
    assert_eq!(running.len(), 3, "two containers and the sandbox");
    for id in running {
        let pid = run(Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", &id])).ok();
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("it must run");
        assert!(groups.contains(&format!(":{name}/")), "{groups}");
    }
}

/// Up, the group goes before its containers; down, after them. The kernel refuses anything else.
fn a_resize_takes_the_group_along(cluster: &Cluster) {
    let group = group_of(cluster, "", "sure");
    for (cpu, memory, quota, bytes) in
        [("300m", "48Mi", 30_000, 48u64 << 20), ("100m", "40Mi", 10_000, 40 << 20)]
    {
        let list = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
        let patch = format!(
            r#"{{"spec":{{"containers":[{{"name":"c0","resources":{{"requests":{list},"limits":{list}}}}}]}}}}"#
        );
        cluster.kubectl(&["patch", "pod", "sure", "--subresource=resize", "-p", &patch]).ok();
        cluster.wait(
            "pod/sure",
            &format!("jsonpath={{.status.containerStatuses[0].resources.limits.memory}}={memory}"),
        );
        cluster.wait(
            "pod/sure",
            &format!("jsonpath={{.status.containerStatuses[0].resources.limits.cpu}}={cpu}"),
        );
        // The group is settled before the pod says that its resize is over.
        cluster.watch_with(
            &Kubectl::newest(),
            &["get", "pod", "sure", "--watch", "-o", "jsonpath={.status.conditions[*].type}{\"\\n\"}"],
            |line| !line.contains("PodResizeInProgress"),
        );
        let found = limits(cluster, &group);
        assert_eq!((found["quota"], found["memory"]), (Some(quota), Some(bytes)), "{cpu}");
    }
    assert_eq!(cluster.field("pod/sure", "{.status.containerStatuses[0].restartCount}"), "0");
}

fn resize(cluster: &Cluster, pod: &str, resources: &str) {
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c0","resources":{{{resources}}}}}]}}}}"#);
    cluster.kubectl(&["patch", "pod", pod, "--subresource=resize", "-p", &patch]).ok();
}

/// A request of memory is written nowhere in the kernel: what the container was started with is noted.
fn a_request_alone_restarts_where_its_policy_says_so(cluster: &Cluster) {
    let policy = "resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}], resources: ";
    let manifest = pod("strict", &["requests: {memory: 16Mi}, limits: {memory: 32Mi}"]);
    cluster.apply(&manifest.replace("resources: ", policy));
    cluster.wait("pod/strict", "condition=Ready");
    resize(cluster, "strict", r#""requests":{"memory":"24Mi"}"#);
    cluster.wait("pod/strict", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    cluster.wait("pod/strict", "jsonpath={.status.containerStatuses[0].resources.requests.memory}=24Mi");
    cluster.kubectl(&["delete", "pod", "strict", "--wait"]).ok();
}

/// The pod keeps what it has and says why, and goes on once it uses less: here, once the resize is taken back.
fn a_limit_below_what_is_used_is_refused(cluster: &Cluster) {
    let fills = "sh, -c, 'dd if=/dev/zero of=/dev/shm/x bs=1M count=20; exec sleep 100000'";
    let manifest = pod("full", &["limits: {cpu: 50m, memory: 48Mi}"]).replace("sleep, '100000'", fills);
    cluster.apply(&manifest);
    cluster.wait("pod/full", "condition=Ready");
    let written = ["exec", "full", "--", "sh", "-c", "until [ -e /dev/shm/x ] && ! pidof dd; do :; done"];
    cluster.kubectl(&written).ok();
    resize(cluster, "full", r#""requests":{"memory":"16Mi"},"limits":{"memory":"16Mi"}"#);
    let told = "jsonpath={.status.conditions[?(@.type==\"PodResizeInProgress\")].message}{\"\\n\"}";
    cluster.watch_with(&Kubectl::newest(), &["get", "pod", "full", "--watch", "-o", told], |line| {
        let both = ["pod memory limit (16777216)", "container \"c0\" memory limit (16777216)"];
        line.starts_with("Container c0 could not be resized: cannot decrease memory limits: [")
            && both.iter().all(|one| line.contains(&format!("attempting to set {one} below current usage (")))
    });
    assert_eq!(cluster.field("pod/full", "{.status.containerStatuses[0].resources.limits.memory}"), "48Mi");
    resize(cluster, "full", r#""requests":{"memory":"48Mi"},"limits":{"memory":"48Mi"}"#);
    cluster.watch_with(&Kubectl::newest(), &["get", "pod", "full", "--watch", "-o", told], str::is_empty);
    assert_eq!(cluster.field("pod/full", "{.status.containerStatuses[0].restartCount}"), "0");
    cluster.kubectl(&["delete", "pod", "full", "--wait"]).ok();
}

/// Neither container has a limit of its own, and both together use more than the pod may.
fn a_pod_is_limited_as_a_whole(cluster: &Cluster) {
    let hungry = |name: &str| {
        // It keeps that much of what has no end, and so never tells it.
        format!("{{name: {name}, image: '{IMAGE}', command: [tail, -c, '40000000', /dev/zero]}}")
    };
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: shared}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 0, \
         resources: {{limits: {{cpu: 200m, memory: 64Mi}}}}, containers: [{}, {}]}}}}",
        hungry("one"),
        hungry("other")
    ));
    assert_eq!(
        cluster.field("pod/shared", "{.spec.resources.requests}"),
        r#"{"cpu":"200m","memory":"64Mi"}"#
    );
    assert_eq!(cluster.field("pod/shared", "{.status.qosClass}"), "Guaranteed");
    let codes = "jsonpath={.status.containerStatuses[*].state.terminated.exitCode}{\"\\n\"}";
    cluster.watch_with(&Kubectl::newest(), &["get", "pod", "shared", "--watch", "-o", codes], |line| {
        line == "137"
    });
    assert_eq!(
        limits(cluster, &group_of(cluster, "", "shared")),
        expected(204, Some(20_000), Some(64 << 20))
    );
    // What is asked for the pod is what its group gets, while it runs.
    let patch = r#"{"spec":{"resources":{"requests":{"cpu":"400m","memory":"96Mi"},"limits":{"cpu":"400m","memory":"96Mi"}}}}"#;
    cluster.kubectl(&["patch", "pod", "shared", "--subresource=resize", "-p", patch]).ok();
    cluster.wait("pod/shared", "jsonpath={.status.resources.limits.memory}=96Mi");
    let grown = limits(cluster, &group_of(cluster, "", "shared"));
    assert_eq!((grown["quota"], grown["memory"]), (Some(40_000), Some(96 << 20)));
    let removed = r#"{"spec":{"resources":null}}"#;
    let refused = cluster.kubectl(&["patch", "pod", "shared", "--subresource=resize", "-p", removed]);
    assert!(refused.stderr.contains("pod-level resources cannot be removed"), "{}", refused.stderr);
    cluster.kubectl(&["delete", "pod", "shared", "--wait"]).ok();
}

fn a_class_has_its_handler_and_its_price(cluster: &Cluster) {
    cluster.apply(
        "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: plain}, handler: runc, overhead: {podFixed: {cpu: 50m, memory: 8Mi}}}\n---\n\
         {apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: nowhere}, handler: no-such}\n",
    );
    let with = |name: &str, class: &str| {
        pod(name, &["limits: {cpu: 150m, memory: 32Mi}"])
            .replace("spec: {", &format!("spec: {{runtimeClassName: {class}, "))
    };
    cluster.apply(&format!("{}{}", with("priced", "plain"), with("lost", "nowhere")));
    cluster.wait("pod/priced", "condition=Ready");
    assert_eq!(cluster.field("pod/priced", "{.spec.overhead}"), r#"{"cpu":"50m","memory":"8Mi"}"#);
    assert_eq!(
        limits(cluster, &group_of(cluster, "", "priced")),
        expected(204, Some(20_000), Some(40 << 20))
    );
    let id = cluster.field("pod/priced", "{.status.containerStatuses[0].containerID}");
    let inspect = ["inspect", "-f", "{{.HostConfig.Runtime}}", id.trim_start_matches("docker://")];
    assert_eq!(run(Command::new("docker").args(inspect)).ok().trim(), "runc");
    let described = cluster.kubectl(&["describe", "pod", "priced"]).ok();
    assert!(
        described.lines().any(|line| line.starts_with("Runtime Class Name:") && line.ends_with(" plain"))
    );
    let described = cluster.kubectl(&["describe", "node", cluster.node()]).ok();
    let row = described.lines().find(|line| line.contains(" priced ")).expect("the pod must be listed");
    assert!(row.contains("200m (") && row.contains("40Mi ("), "with its overhead: {row}");
    let events = ["get", "events", "--watch", "-o", "jsonpath={.reason} {.message}{\"\\n\"}"];
    let told = "FailedCreatePodSandBox Failed to create pod sandbox: failed to get sandbox runtime: no runtime for \"no-such\" is configured";
    cluster.watch_with(&Kubectl::newest(), &events, |line| line == told);
    cluster.kubectl(&["delete", "pod", "lost", "priced", "--wait"]).ok();
}

/// What nobody owns any more when the kubelet starts: a group with a process in it, as a crash may leave one.
fn orphans_are_swept(cluster: &Cluster) {
    let id = cluster.field("pod/free", "{.status.containerStatuses[0].containerID}");
    let beside = group_of(cluster, "besteffort/", "free");
    cluster.kill();
    let orphan = "kubepods/besteffort/pod5f3c1c9e-0000-4000-8000-000000000000";
    let [there, new] = [&beside, orphan].map(|group| group.rsplit_once("pod").expect("it must be a pod's").1);
    for place in cluster.control_groups(&beside) {
        // A slice's name has underscores for dashes.
        let place = place.to_str().expect("it must be text").replace(there, new);
        let place = place.replace(&there.replace('-', "_"), &new.replace('-', "_"));
        fs::create_dir(place).expect("the group must be made");
    }
    let patience = PATIENCE.as_secs().to_string();
    let mut left = Command::new("sleep").arg(patience).spawn().expect("a process must start");
    let place = cluster.control_groups(orphan).into_iter().next();
    let procs = place.expect("it must be there").join("cgroup.procs");
    fs::write(procs, left.id().to_string()).expect("the process must be taken into the group");
    cluster.up();
    // The process that was left is killed, which the kernel tells: by itself it would end well.
    assert!(!left.wait().expect("it must end").success());
    until_gone(cluster, orphan);
    cluster.apply(&pod("after", &[""]));
    cluster.wait("pod/after", "condition=Ready");
    assert_eq!(cluster.field("pod/free", "{.status.containerStatuses[0].containerID}"), id);
    assert!(!cluster.control_groups(&group_of(cluster, "besteffort/", "free")).is_empty());
}

fn figures(cluster: &Cluster) {
    let through = format!("/api/v1/nodes/{}/proxy", cluster.node());
    let page = cluster.kubectl(&["get", "--raw", &format!("{through}/metrics/cadvisor")]).ok();
    let id = name_of(cluster, &group_of(cluster, "burstable/", "whole"));
    let row = format!(
        "container_spec_memory_limit_bytes{{container=\"\",id=\"{id}\",image=\"\",name=\"\",namespace=\"default\",pod=\"whole\"}} 67108864"
    );
    assert!(page.lines().any(|line| line == row), "{row} is not in\n{page}");
    let inside = format!("container_memory_usage_bytes{{container=\"c0\",id=\"{id}/");
    assert!(page.contains(&inside), "{inside} is not in\n{page}");
    let summary = cluster.kubectl(&["get", "--raw", &format!("{through}/stats/summary")]).ok();
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("the summary must be JSON");
    let pods = summary["pods"].as_array().expect("there must be pods");
    let whole = pods.iter().find(|pod| pod["podRef"]["name"] == "whole").expect("the pod must be there");
    let memory = |field: &str| whole["memory"][field].as_u64().expect("it must be a number");
    assert_eq!(memory("availableBytes") + memory("workingSetBytes"), 64 << 20, "{whole}");
}

fn a_group_goes_with_its_pod(cluster: &Cluster) {
    let group = group_of(cluster, "burstable/", "whole");
    // With grace, however short, the kubelet deletes the object; without, the API server does, at once.
    cluster.kubectl(&["delete", "pod", "whole", "--grace-period=1", "--wait"]).ok();
    assert_eq!(
        cluster.control_groups(&group),
        Vec::<PathBuf>::new(),
        "the object goes after everything else"
    );
}

/// Directories of control groups go without a word.
fn until_gone(cluster: &Cluster, group: &str) {
    let begun = Instant::now();
    while !cluster.control_groups(group).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{group} stays:\n{}", cluster.log());
        std::thread::yield_now();
    }
}
