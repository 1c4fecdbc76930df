//! Every kubectl in use says what Kubernetes' documentation promises.
//!
//! One table of commands with hand-written answers ([`table`]), run in a namespace of its own by each of: the
//! kubectl on PATH, Debian's v1.20, upstream's v1.36 and ours. All of them run at once, on one cluster.

mod step;
mod table;

use std::{fmt::Write as _, thread};

use crate::harness::{Cluster, Kubectl};
use step::Step;

/// A kubectl with its minor version and the namespace that it works in.
struct Client {
    kubectl: Kubectl,
    minor: u32,
    namespace: String,
}

impl Client {
    fn new(cluster: &Cluster, kubectl: Kubectl) -> Self {
        let version = cluster.with(&kubectl, &["version", "--client", "-o", "json"]).ok();
        let version: serde_json::Value = serde_json::from_str(&version).expect("a version must be JSON");
        let text = version["clientVersion"]["gitVersion"].as_str().expect("there must be a git version");
        let minor = text.split('.').nth(1).and_then(|minor| minor.parse().ok());
        Self {
            minor: minor.unwrap_or_else(|| panic!("{text} must have a minor version")),
            namespace: kubectl.name.replace('.', "-"),
            kubectl,
        }
    }

    /// Runs a step; answers what was wrong.
    fn run(&self, cluster: &Cluster, step: &Step) -> Option<String> {
        let words = step.words(&self.namespace);
        let mut args = vec!["--namespace", self.namespace.as_str()];
        args.extend(words.iter().map(String::as_str));
        if let Some(last) = step.until {
            cluster.watch_with(&self.kubectl, &args, |line| step::line_matches(last, line));
            return None;
        }
        let answer = cluster.with_editor(&self.kubectl, &args, step.input, step.editor);
        let expected = step.expected(self.minor, &self.namespace);
        let mut wrong = String::new();
        if answer.code != expected.code {
            let _ = writeln!(wrong, "  exit code {}, not {}", answer.code, expected.code);
        }
        for (stream, found, wanted) in
            [("stdout", &answer.stdout, &expected.stdout), ("stderr", &answer.stderr, &expected.stderr)]
        {
            if !step::matches(wanted, found) {
                let _ = writeln!(wrong, "  {stream}:\n{}  expected:\n{}", quote(found), quote(wanted));
            }
        }
        (!wrong.is_empty())
            .then(|| format!("{} ({}): kubectl {}\n{wrong}", self.kubectl.name, self.minor, words.join(" ")))
    }
}

/// A text in a report: indented, its end visible.
fn quote(text: &str) -> String {
    let mut out: String = text.lines().map(|line| format!("    | {line}\n")).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        out.push_str("    (no line break at the end)\n");
    }
    out
}

#[test]
fn every_kubectl_gets_and_says_what_is_documented() {
    let cluster = Cluster::start(&[]);
    let makes = [Kubectl::upstream(), Kubectl::debian(), Kubectl::newest(), Kubectl::ours()];
    let wrong: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = makes
            .into_iter()
            .map(|kubectl| {
                let cluster = &cluster;
                scope.spawn(move || {
                    let client = Client::new(cluster, kubectl);
                    let steps = table::steps();
                    let mine = steps.iter().filter(|step| client.minor >= step.since);
                    mine.filter_map(|step| client.run(cluster, step)).collect::<Vec<_>>()
                })
            })
            .collect();
        runs.into_iter().flat_map(|run| run.join().expect("no client may panic")).collect()
    });
    // What was wrong stands last, where it is seen.
    assert!(wrong.is_empty(), "{}\n{} answers were wrong:\n{}", cluster.log(), wrong.len(), wrong.join("\n"));
}

#[test]
fn every_kubectl_follows_a_watch() {
    let cluster = Cluster::start(&[]);
    for kubectl in [Kubectl::upstream(), Kubectl::debian(), Kubectl::newest(), Kubectl::ours()] {
        let client = Client::new(&cluster, kubectl);
        let namespace = client.namespace.as_str();
        cluster.with(&client.kubectl, &["create", "namespace", namespace]).ok();
        let run = |line: &str| {
            let words = [&["-n", namespace], &line.split(' ').collect::<Vec<_>>()[..]].concat();
            cluster.with(&client.kubectl, &words).ok();
        };
        run("create configmap first --from-literal=a=1");
        run("label configmap first seen=yes");
        // Each line that appears causes the next: the existing object, its change, a second object, a deletion.
        let mut seen = Vec::new();
        let args = ["-n", namespace, "get", "configmaps", "-l", "seen=yes", "-w"];
        cluster.watch_with(&client.kubectl, &args, |line| {
            // The age changes from run to run.
            seen.push(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
            match seen.len() {
                2 => run("patch configmap first -p {\"data\":{\"b\":\"2\"}}"),
                3 => {
                    run("create configmap second");
                    run("label configmap second seen=yes");
                }
                4 => run("delete configmap first"),
                _ => {}
            }
            seen.len() == 5
        });
        assert_eq!(
            seen,
            ["NAME DATA", "first 1", "first 2", "second 0", "first 2"],
            "{}",
            client.kubectl.name
        );
    }
}
