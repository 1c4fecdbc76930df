//! Every example's `demo.sh` runs on a cluster, shows what it says, and leaves nothing behind.

use std::process::Command;

use crate::harness::{Cluster, Kubectl, root, run};

/// The demo, and what it must have printed.
const DEMOS: &[(&str, &[&str])] = &[
    (
        "examples/quickstart/demo.sh",
        &["pod/hello created", "hello from hello", "replicaset.apps/quickstart condition met"],
    ),
    ("examples/legacy/demo.sh", &["pod/viewer created", "replicaset.apps/web condition met", "\nshared\n"]),
    (
        "examples/scheduling/demo.sh",
        &[
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "pod/picky condition met",
        ],
    ),
    (
        "examples/streams/demo.sh",
        &[
            "Forwarding from 127.0.0.1:",
            "\nfirst page\n",
            "\nsecond page\n",
            // Apart: where `script` has no input, the terminal may show its end in between.
            "/dev/pts/0\r\n",
            "root\r\n",
            "\n3\n",
        ],
    ),
    (
        "examples/persistent-volumes/demo.sh",
        &[
            "persistentvolumeclaim/data created",
            "standard (default)   minik8s.io/hostpath",
            "\nstill here\n",
            "exit code 1",
            "persistentvolumeclaim/data condition met",
            "   128Mi\n",
            "Terminating",
            "persistentvolumeclaim/archive condition met",
            "persistentvolume/archive condition met",
            "scratch-data   Bound",
        ],
    ),
    (
        "examples/pods/demo.sh",
        &[
            "\nprepared\nstarted\n",
            "\nfirst try fails\n",
            "httpd -f -p 8080",
            "1 restart of the init container",
            "10.0.0.7 ls: /data: No such file or directory",
            r#"Guaranteed {"cpu":"200m","memory":"32Mi"}"#,
        ],
    ),
    // Sixteen mebibytes, as df of busybox counts them.
    (
        "examples/volumes/demo.sh",
        &["\nblue\nblue\n400\n", " 16 ", "\ngreen\n", "pod/borrower condition met", "exit code 1"],
    ),
    (
        "examples/store/demo.sh",
        &["\nsound\n", "entries at revision", "; goes on at revision 1", "\nvalue\n", " entries moved; "],
    ),
    (
        "examples/nodes/demo.sh",
        &[
            "mover runs on the second node",
            "mover runs on the first node",
            "nothing of it is left on the second node",
            "has left its cluster",
        ],
    ),
];

#[test]
fn every_demo_runs_and_cleans_up() {
    // One demo looks after the embedded store; in another a silent node must be noticed soon.
    let cluster = Cluster::start(&[
        "--store",
        "embedded",
        "--node-monitor-grace-period",
        "8",
        "--node-lease-duration-seconds",
        "8",
    ]);
    // Manifests by themselves, without the demo around them.
    for file in [
        "examples/volumes/settings.yaml",
        "examples/volumes/image.yaml",
        "examples/scheduling/picky.yaml",
        "examples/nodes/mover.yaml",
        "examples/streams/pod.yaml",
    ] {
        assert!(root().join(file).is_file(), "{file}");
    }
    let before = objects(&cluster);
    for (demo, expected) in DEMOS.iter().copied() {
        let mut command = Command::new("bash");
        let kubectl = cluster.command(&Kubectl::ours(), &[]);
        command.arg(demo).current_dir(root());
        command.envs(kubectl.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("MINIK8S", env!("CARGO_BIN_EXE_minik8s")).env("MINIK8S_HOME", cluster.home());
        command.env("KUBECTL", format!("{} kubectl", env!("CARGO_BIN_EXE_minik8s")));
        let answer = run(&mut command);
        assert_eq!(answer.code, 0, "{demo}:\n{}{}", answer.stdout, answer.stderr);
        for text in expected {
            assert!(
                answer.stdout.contains(text),
                "{demo} did not print {text:?}:\n{}{}",
                answer.stdout,
                answer.stderr
            );
        }
        // Pods that were asked to go may still be on their way.
        cluster.kubectl(&["wait", "--for=delete", "pod", "--all", "--timeout=60s"]);
        assert_eq!(objects(&cluster), before, "{demo} left something behind");
    }
}

/// What people make.
const KINDS: &str = "pods,replicasets,configmaps,secrets,services,persistentvolumeclaims,persistentvolumes,storageclasses,nodes";

/// Every object a person could have left behind in the namespace, and the nodes but for the cluster's own, which
/// registers itself in its own time.
fn objects(cluster: &Cluster) -> String {
    let names = cluster.kubectl(&["get", KINDS, "-o", "name"]).ok();
    names.lines().filter(|name| !name.starts_with("node/test-")).map(|name| format!("{name}\n")).collect()
}
