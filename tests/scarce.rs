//! What not every node has: huge pages, resources that somebody has told a node's object of, and AppArmor; and what
//! only an image knows: which groups its users are in.

use std::{
    fs,
    path::Path,
    process::{Command, id},
};

use crate::harness::{Cluster, IMAGE, Kubectl, root, run};

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Pages of 2 MiB that this test sets aside, besides those that are there.
const PAGES: u64 = 4;

#[test]
fn what_not_every_node_and_image_has() {
    let _pages = SetAside::some();
    let cluster = Cluster::start(&[]);
    let image = Image::make();
    huge_pages(&cluster, &image);
    extended_resources(&cluster);
    groups_of_an_image(&cluster, &image);
    confinement(&cluster);
}

/// Huge pages of this machine, until the end of the test.
struct SetAside(String);

impl SetAside {
    fn some() -> Self {
        let before = fs::read_to_string(HUGE_PAGES).expect("the kernel must have huge pages");
        let count: u64 = before.trim().parse().expect("it must be a number");
        fs::write(HUGE_PAGES, (count + PAGES).to_string()).expect("tests run as root");
        let now = fs::read_to_string(HUGE_PAGES).expect("it was read before");
        assert_eq!(now.trim(), (count + PAGES).to_string(), "memory must be had for {PAGES} huge pages");
        Self(before)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        let _ = fs::write(HUGE_PAGES, &self.0);
    }
}

/// A busybox with a user who is in several groups, and a program that fills huge pages. Gone with the test.
struct Image(String);

impl Image {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a directory must be had");
        let (etc, bin) = (folder.path().join("etc"), folder.path().join("bin"));
        for directory in [&etc, &bin] {
            fs::create_dir(directory).expect("a directory must be made");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n";
        fs::write(etc.join("passwd"), passwd).expect("a file must be written");
        let group = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:50000:app\n";
        fs::write(etc.join("group"), group).expect("a file must be written");
        let (source, program) = (root().join("tests/tools/huge_pages.c"), bin.join("huge_pages"));
        run(Command::new("cc").args(["-static", "-O1", "-o"]).args([&program, &source])).ok();
        let name = format!("minik8s.test/accounts-{}:1", id());
        let script =
            format!(". scripts/lib/images.sh && make_image_with_files {name} '{}'", folder.path().display());
        run(Command::new("bash").args(["-c", &script]).current_dir(root())).ok();
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

fn huge_pages(cluster: &Cluster, Image(image): &Image) {
    let node = format!("node/{}", cluster.node());
    let count = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    let count: u64 = count.expect("there are such pages").trim().parse().expect("it must be a number");
    assert_eq!(cluster.field(&node, "{.status.allocatable.hugepages-2Mi}"), format!("{}Mi", 2 * count));
    let kib = |field: &str| {
        let text = cluster.field(&node, &format!("{{.status.{field}.memory}}"));
        text.trim_end_matches("Ki").parse::<u64>().expect("memory is told in Ki")
    };
    assert!(kib("capacity") - kib("allocatable") >= count * 2048, "what was set aside is no other memory");
    let size = 2 * count - 2;
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}restartPolicy: Never, terminationGracePeriodSeconds: 0, \
             volumes: [{{name: pages, emptyDir: {{medium: HugePages}}}}], containers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent, \
             command: [sh, -c, 'echo $HAS; exec huge_pages /pages/file 4194304'], volumeMounts: [{{name: pages, mountPath: /pages}}], \
             env: [{{name: HAS, valueFrom: {{resourceFieldRef: {{resource: limits.hugepages-2Mi}}}}}}], \
             resources: {{limits: {{hugepages-2Mi: {size}Mi, memory: 16Mi, cpu: 50m}}}}}}]}}}}\n---\n"
        )
    };
    let rest = format!("nodeName: {}, ", cluster.node());
    cluster.apply(&pod("huge", ""));
    cluster.wait("pod/huge", "jsonpath={.status.phase}=Running");
    let printed = "4194304 bytes in pages of 2097152";
    cluster.watch_with(&Kubectl::newest(), &["logs", "huge", "--follow"], |line| line == printed);
    assert_eq!(cluster.kubectl(&["logs", "huge"]).ok(), format!("{}\n{printed}\n", size << 20));
    // Where the kernel counts them for each group, the pod's is limited.
    let group = format!("kubepods/pod{}", cluster.field("pod/huge", "{.metadata.uid}"));
    let files = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
    let places = cluster.control_groups(&group);
    let limits = places.iter().flat_map(|place| files.map(|file| place.join(file)));
    let limits: Vec<String> = limits.filter_map(|file| fs::read_to_string(file).ok()).collect();
    assert_eq!(limits.len(), usize::from(huge_pages_are_counted()), "{places:?}");
    assert!(limits.iter().all(|limit| limit.trim() == (size << 20).to_string()), "{limits:?}");
    // One page is left, too few for another: the scheduler lets it wait, and the node does not take it.
    cluster.apply(&(pod("huge-waits", "") + &pod("huge-fails", &rest)));
    cluster.wait("pod/huge-fails", "jsonpath={.status.reason}=OutOfhugepages-2Mi");
    cluster.wait_for_event("FailedScheduling", "1 Insufficient hugepages-2Mi");
    // With grace, however short, the object goes after everything else.
    let gone = ["delete", "pod", "huge", "huge-fails", "huge-waits", "--grace-period=1", "--wait"];
    cluster.kubectl(&gone).ok();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("there are mounts");
    let home = cluster.home().to_str().expect("the path must be text");
    assert!(!mounts.lines().any(|line| line.contains(home) && line.contains("hugetlbfs")), "{mounts}");
}

/// Whether there is a controller for them, in either version of control groups.
fn huge_pages_are_counted() -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    controllers.split_whitespace().any(|one| one == "hugetlb") || Path::new("/sys/fs/cgroup/hugetlb").is_dir()
}

/// As the documentation tells people to advertise them: a patch of the node's capacity.
fn extended_resources(cluster: &Cluster) {
    let node = cluster.node();
    let patch = |patch: &str| {
        cluster.kubectl(&["patch", "node", node, "--subresource=status", "--type=json", "-p", patch]).ok();
    };
    let allocatable = "jsonpath={.status.allocatable.example\\.com/dongle}";
    patch(r#"[{"op": "add", "path": "/status/capacity/example.com~1dongle", "value": "3"}]"#);
    cluster.wait(&format!("node/{node}"), &format!("{allocatable}=3"));
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}terminationGracePeriodSeconds: 0, containers: [{{name: main, \
             image: '{IMAGE}', command: [sleep, '100000'], resources: {{limits: {{example.com/dongle: 2}}}}}}]}}}}\n---\n"
        )
    };
    cluster.apply(&pod("plugged", ""));
    cluster.wait("pod/plugged", "condition=Ready");
    cluster.apply(&(pod("unplugged", "") + &pod("bound", &format!("nodeName: {node}, "))));
    cluster.wait("pod/bound", "jsonpath={.status.reason}=OutOfexample.com/dongle");
    let message = "Pod was rejected: Node didn't have enough resource: example.com/dongle, requested: 2, used: 2, capacity: 3";
    assert_eq!(cluster.field("pod/bound", "{.status.message}"), message);
    cluster.wait_for_event("FailedScheduling", "1 Insufficient example.com/dongle");
    // It waits until there is one more, and what runs goes on without any.
    patch(r#"[{"op": "replace", "path": "/status/capacity/example.com~1dongle", "value": "4"}]"#);
    cluster.wait("pod/unplugged", "condition=Ready");
    patch(r#"[{"op": "remove", "path": "/status/capacity/example.com~1dongle"}]"#);
    let path = format!("{allocatable}{{\"\\n\"}}");
    let watch = ["get", "node", node, "--watch", "-o", path.as_str()];
    cluster.watch_with(&Kubectl::newest(), &watch, str::is_empty);
    assert_eq!(cluster.field("pod/plugged", "{.status.containerStatuses[0].restartCount}"), "0");
    cluster.kubectl(&["delete", "pod", "plugged", "unplugged", "bound", "--wait"]).ok();
}

/// KEP-3619: what the container has is what its status tells.
fn groups_of_an_image(cluster: &Cluster, Image(image): &Image) {
    let cases = [
        ("merged", "runAsUser: 1000, supplementalGroups: [60000]", "1001 10 50000 60000"),
        ("merged-beside-a-group", "runAsUser: 1000, runAsGroup: 3000, fsGroup: 4000", "3000 10 50000 4000"),
        (
            "strict",
            "runAsUser: 1000, supplementalGroups: [60000], supplementalGroupsPolicy: Strict",
            "1001 60000",
        ),
        ("strict-root", "supplementalGroupsPolicy: Strict", "0"),
        ("nobody-s", "runAsUser: 7, supplementalGroupsPolicy: Merge", "0"),
    ];
    let pods: String = cases
        .iter()
        .map(|(name, context, _)| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, securityContext: {{{context}}}, \
                 containers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent, command: [sh, -c, 'id -u; id -g; id -G']}}]}}}}\n---\n"
            )
        })
        .collect();
    cluster.apply(&pods);
    let sorted = |text: &str| {
        let mut numbers: Vec<u32> = text.split([' ', ',']).filter_map(|number| number.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    for (name, _, groups) in cases {
        let pod = format!("pod/{name}");
        cluster.wait(&pod, "jsonpath={.status.phase}=Succeeded");
        let printed = cluster.kubectl(&["logs", name]).ok();
        let printed: Vec<&str> = printed.lines().collect();
        assert_eq!(sorted(printed[2]), sorted(groups), "{name}: {printed:?}");
        let user = cluster.field(&pod, "{.status.containerStatuses[0].user.linux}");
        let user: serde_json::Value = serde_json::from_str(&user).expect("a user must be told");
        assert_eq!([user["uid"].to_string(), user["gid"].to_string()], printed[..2], "{name}");
        let told: Vec<String> = user["supplementalGroups"]
            .as_array()
            .expect("groups must be told")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told.join(" "), groups, "{name}");
    }
    let features =
        cluster.field(&format!("node/{}", cluster.node()), "{.status.features.supplementalGroupsPolicy}");
    assert_eq!(features, "true");
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    cluster.kubectl(&[&["delete", "pod", "--wait"][..], &names].concat()).ok();
}

fn confinement(cluster: &Cluster) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: confined}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '{IMAGE}', \
         command: [sleep, '100000'], securityContext: {{appArmorProfile: {{type: RuntimeDefault}}}}}}]}}}}\n"
    ));
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.trim() == "Y" {
        cluster.wait("pod/confined", "condition=Ready");
    } else {
        cluster.wait("pod/confined", "jsonpath={.status.reason}=AppArmor");
        let message = cluster.field("pod/confined", "{.status.message}");
        assert_eq!(message, "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
}
