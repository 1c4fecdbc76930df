//! client-go as a client: the library that most programs for Kubernetes are written with.
//!
//! The program is `tests/tools/client-go`, built by `scripts/setup.sh --test`.

use std::process::Command;

use crate::harness::{Cluster, run, test_tools};

#[test]
fn client_go_does_everything_a_client_does() {
    let program = test_tools().join("client-go");
    assert!(
        program.is_file(),
        "{} is missing: run scripts/setup.sh --test with Go 1.26 or newer on PATH",
        program.display()
    );
    let cluster = Cluster::start(&["--container-runtime", "simulated"]);
    let answer = run(Command::new(program).env("KUBECONFIG", cluster.kubeconfig()));
    let log = if answer.code == 0 { String::new() } else { cluster.log() };
    assert_eq!(answer.code, 0, "{}{}\n{log}", answer.stdout, answer.stderr);
    let done: Vec<&str> = answer.stdout.lines().collect();
    let expected = [
        "typed",
        "protobuf",
        "refusals",
        "dynamic and metadata",
        "discovery",
        "informers",
        "pages",
        "scale",
        "reviews",
        "leader election",
        "events",
        "namespace deleted",
        "done",
    ];
    assert_eq!(done, expected);
}
