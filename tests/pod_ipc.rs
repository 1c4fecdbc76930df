//! Seed 3, shared memory in pods: every scenario of its document, with our kubectl and with upstream's.

use std::process::Command;

use crate::harness::{Cluster, Kubectl, root, run};

/// Its demo applies every file of it.
const FOLDER: &str = "examples/pod-ipc";

/// The programs, which the image is built of.
const PROGRAMS: &str = "examples/pod-ipc/src";

/// What the demo must have printed, in this order.
const EXPECTED: [&str; 22] = [
    // System V with a shared path.
    "pod/podsysvsendershmtest created\n",
    "pod/podsysvsendershmtest condition met\n",
    "identity of the file named FTOK_PATH=/shared/me\nsending success This is the way the world ends...\n",
    "receive starts\nidentity of the file named FTOK_PATH=/shared/me\nread This is the way the world ends...\n",
    "pod \"podsysvsendershmtest\" deleted",
    // Without: once, and in the loop that only ^C ends.
    "FTOK_PATH=/dummy\nsending success This is the way the world ends...\n",
    "main: ftok() for shm failed\ncommand terminated with exit code 1\nexit code 1\n",
    "main: ftok() for shm failed\nthis is an unlimited loop, waiting 5s\n",
    "command terminated with exit code 130\nexit code 130\n",
    // POSIX.
    "0/2     Completed   0",
    "[0..511]\nbacking file:       /dev/shm/shMemEx\n",
    "This is the way the world ends...\n",
    // The default size, and its end.
    "shm                      65536         0     65536   0% /dev/shm\n",
    "dd: error writing '/dev/shm/test': No space left on device\n131073+0 records in\n131072+0 records out\n",
    "shm                      65536     65536         0 100% /dev/shm\n",
    // Memory as a volume: the pod's limit, and a size.
    "$ kubectl exec updateshm -- df /dev/shm\n",
    "tmpfs                    98304         0     98304   0% /dev/shm\n",
    "tmpfs                   524288         0    524288   0% /dev/shm\n",
    // The node's own.
    "pod/hostipc created\n",
    "the segment is there\n",
    "the node's sentence\n",
    "no such segment\n",
];

#[test]
fn shared_memory_in_pods() {
    assert!(root().join(PROGRAMS).is_dir());
    let cluster = Cluster::start(&[]);
    let ours = format!("{} kubectl", env!("CARGO_BIN_EXE_minik8s"));
    let newest = Kubectl::newest();
    for program in [ours, newest.program().display().to_string()] {
        let mut command = Command::new("bash");
        command.arg(format!("{FOLDER}/demo.sh")).current_dir(root());
        let environment = cluster.command(&Kubectl::ours(), &[]);
        command.envs(environment.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("KUBECTL", &program);
        let answer = run(&mut command);
        assert_eq!(answer.code, 0, "{program}:\n{}{}", answer.stdout, answer.stderr);
        // Lines off a terminal end with a carriage return.
        let printed = answer.stdout.replace('\r', "");
        let mut rest = printed.as_str();
        for text in EXPECTED {
            let at = rest
                .find(text)
                .unwrap_or_else(|| panic!("{program} did not print {text:?} then:\n{printed}"));
            rest = &rest[at + text.len()..];
        }
        assert_eq!(size_without_limit(&printed), allocatable(&printed), "{printed}");
    }
}

/// Kibibytes of the memory volume that has no size of its own.
fn size_without_limit(printed: &str) -> &str {
    let (_, after) =
        printed.split_once("$ kubectl exec updateshm -- df /dev/shm\n").expect("it was asked for");
    let row = after.lines().nth(1).expect("df prints a row");
    row.split_whitespace().nth(1).expect("df prints the size")
}

/// Kibibytes that the node may give to pods.
fn allocatable(printed: &str) -> &str {
    let (_, after) = printed.split_once("{.status.allocatable.memory}").expect("it was asked for");
    after.lines().nth(1).and_then(|line| line.strip_suffix("Ki")).expect("it is given in Ki")
}
