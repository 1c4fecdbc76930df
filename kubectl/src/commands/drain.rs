//! `kubectl drain`: cordons nodes and evicts their pods.

use std::time::Duration;

use api_objects::duration::parse_go;
use api_objects::params::QueryWriter;
use api_objects::{Value, resource};
use serde_json::json;

use crate::cli::{DrainArgs, DryRun};
use crate::describe::{items_at, text_at};
use crate::error::Error;
use crate::output;
use crate::session::Session;

use super::cordon::{self, Scheduling};

/// The annotation on pods that a kubelet runs from files of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long to wait before an eviction that a disruption budget refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes.
    Evict,
    /// It goes, and something is to be said about it.
    EvictWith(&'static str),
    /// It stays.
    Leave(&'static str),
    /// The whole drain is refused.
    Refuse(&'static str),
}

/// Carries out the command.
pub(crate) async fn run(args: &DrainArgs, session: &Session) -> Result<(), Error> {
    let timeout = parse_go(&args.timeout).map_err(|error| Error::message(error.to_string()))?;
    let work = async {
        for node in cordon::nodes(&args.cordon(), session).await? {
            cordon::set(session, &node, Scheduling::Off, args.dry_run.dry_run).await?;
            drain(args, session, text_at(&node, "/metadata/name", "")).await?;
        }
        Ok(())
    };
    if timeout.is_zero() {
        return work.await;
    }
    let late = || Error::message(format!("unable to drain within {}: timed out", args.timeout));
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late()))
}

async fn drain(args: &DrainArgs, session: &Session, node: &str) -> Result<(), Error> {
    let mut query = QueryWriter::default();
    query.put("fieldSelector", &format!("spec.nodeName={node}"));
    query.put_text("labelSelector", args.pod_selector.as_deref().unwrap_or_default());
    let list = session.get(&format!("/api/v1/pods?{}", query.finish())).await?;
    let mut evicted = Vec::new();
    let mut refused: Vec<(&'static str, Vec<String>)> = Vec::new();
    let mut warned: Vec<(&'static str, Vec<String>)> = Vec::new();
    let note = |notes: &mut Vec<(&'static str, Vec<String>)>, why: &'static str, name: String| match notes
        .iter_mut()
        .find(|(other, _)| *other == why)
    {
        Some((_, names)) => names.push(name),
        None => notes.push((why, vec![name])),
    };
    for pod in items_at(&list, "/items") {
        let name =
            format!("{}/{}", text_at(pod, "/metadata/namespace", ""), text_at(pod, "/metadata/name", ""));
        match judge(args, pod) {
            Verdict::Leave("") => {}
            Verdict::Leave(why) => note(&mut warned, why, name),
            Verdict::Refuse(why) => note(&mut refused, why, name),
            Verdict::Evict => evicted.push(pod.clone()),
            Verdict::EvictWith(why) => {
                note(&mut warned, why, name);
                evicted.push(pod.clone());
            }
        }
    }
    if !refused.is_empty() {
        let reasons: Vec<String> =
            refused.iter().map(|(why, names)| format!("cannot delete {why}: {}", names.join(", "))).collect();
        return Err(Error::message(format!(
            "unable to drain node {node:?} due to error: [{}]",
            reasons.join(", ")
        )));
    }
    for (why, names) in &warned {
        output::complain(&format!("Warning: {why}: {}", names.join(", ")));
    }
    for pod in &evicted {
        let (namespace, name) = (text_at(pod, "/metadata/namespace", ""), text_at(pod, "/metadata/name", ""));
        output::line(&format!("evicting pod {namespace}/{name}{}", args.dry_run.dry_run.note()))?;
        if args.dry_run.dry_run == DryRun::None {
            evict(args, session, namespace, name).await?;
        }
    }
    if args.dry_run.dry_run == DryRun::None {
        let pods = resource::find("", "v1", "pods")
            .ok_or_else(|| Error::message("pods must be a known resource"))?;
        for pod in &evicted {
            let (namespace, name) =
                (text_at(pod, "/metadata/namespace", ""), text_at(pod, "/metadata/name", ""));
            let uid = pod.pointer("/metadata/uid").and_then(Value::as_str);
            super::delete::until_gone(session, pods, &pods.object_path(namespace, name), uid, None).await?;
            output::line(&format!("pod/{name} evicted"))?;
        }
    }
    output::line(&format!("node/{node} drained{}", args.dry_run.dry_run.note()))
}

/// Decides about a pod by the rules of `k8s.io/kubectl/pkg/drain`.
fn judge(args: &DrainArgs, pod: &Value) -> Verdict {
    let finished = matches!(text_at(pod, "/status/phase", ""), "Succeeded" | "Failed");
    let owner = items_at(pod, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true);
    if pod.pointer("/metadata/annotations").is_some_and(|notes| notes.get(MIRROR).is_some()) {
        return Verdict::Leave("");
    }
    if owner.is_some_and(|owner| owner["kind"] == "DaemonSet") && !finished {
        return if args.ignore_daemonsets {
            Verdict::Leave("ignoring DaemonSet-managed Pods")
        } else {
            Verdict::Refuse("DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")
        };
    }
    if finished {
        return Verdict::Evict;
    }
    let local = items_at(pod, "/spec/volumes").iter().any(|volume| volume.get("emptyDir").is_some());
    if local && !args.delete_emptydir_data {
        return Verdict::Refuse("Pods with local storage (use --delete-emptydir-data to override)");
    }
    match (owner, args.force) {
        (None, false) => Verdict::Refuse("Pods that declare no controller (use --force to override)"),
        (None, true) => Verdict::EvictWith("deleting Pods that declare no controller"),
        (Some(_), _) => Verdict::Evict,
    }
}

/// Evicts a pod, again and again while a disruption budget forbids it.
async fn evict(args: &DrainArgs, session: &Session, namespace: &str, name: &str) -> Result<(), Error> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let mut options = json!({});
    if args.grace_period >= 0 {
        options["gracePeriodSeconds"] = json!(args.grace_period);
    }
    loop {
        let outcome = if args.disable_eviction {
            session.delete(&path, &options).await
        } else {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options});
            session.post(&format!("{path}/eviction"), &eviction).await
        };
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.status().is_some_and(|status| status.code == 429) => {
                output::complain(&format!(
                    "error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {}",
                    error.status().map(|status| status.message.as_str()).unwrap_or_default()
                ));
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.doing("evicting", &format!("pods/{name}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &str) -> DrainArgs {
        let line = format!("kubectl drain n {flags}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Drain(args) => args,
            other => panic!("not a drain: {other:?}"),
        }
    }

    #[test]
    fn pods_are_judged() {
        let owned =
            |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
        assert_eq!(judge(&args(""), &owned("ReplicaSet")), Verdict::Evict);
        assert!(matches!(judge(&args(""), &owned("DaemonSet")), Verdict::Refuse(_)));
        assert!(matches!(judge(&args("--ignore-daemonsets"), &owned("DaemonSet")), Verdict::Leave(_)));
        assert!(matches!(judge(&args(""), &json!({})), Verdict::Refuse(_)));
        assert!(matches!(judge(&args("--force"), &json!({})), Verdict::EvictWith(_)));
        assert_eq!(judge(&args(""), &json!({"status": {"phase": "Succeeded"}})), Verdict::Evict);
        let mut local = owned("ReplicaSet");
        local["spec"] = json!({"volumes": [{"emptyDir": {}}]});
        assert!(matches!(judge(&args(""), &local), Verdict::Refuse(_)));
        assert_eq!(judge(&args("--delete-emptydir-data"), &local), Verdict::Evict);
    }
}
