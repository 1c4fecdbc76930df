//! `kubectl cordon` and `kubectl uncordon`.

use api_objects::{Resource, Value, resource};
use serde_json::json;

use crate::cli::{CordonArgs, DryRun, FileArgs};
use crate::error::Error;
use crate::output;
use crate::session::Session;

use super::mark::{Found, find};

/// Whether pods may be scheduled onto a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheduling {
    /// They may.
    On,
    /// They may not.
    Off,
}

/// Carries out the command.
pub(crate) async fn run(args: &CordonArgs, scheduling: Scheduling, session: &Session) -> Result<(), Error> {
    for node in nodes(args, session).await? {
        set(session, &node, scheduling, args.dry_run.dry_run).await?;
    }
    Ok(())
}

/// The nodes that are meant.
pub(crate) async fn nodes(args: &CordonArgs, session: &Session) -> Result<Vec<Value>, Error> {
    if args.nodes.is_empty() == args.selector.is_none() {
        return Err(Error::message("name nodes, or select them with -l, but not both"));
    }
    let mut words = vec!["nodes".to_owned()];
    words.extend(args.nodes.iter().map(|node| node.trim_start_matches("node/").to_owned()));
    let files = FileArgs::default();
    let found = find(session, &words, &files, args.selector.as_deref(), None, false, false, "cordon").await?;
    Ok(found.into_iter().map(|Found { object, .. }| object).collect())
}

fn node_resource() -> Result<&'static std::sync::Arc<Resource>, Error> {
    resource::find("", "v1", "nodes").ok_or_else(|| Error::message("nodes must be a known resource"))
}

/// Marks one node, and says so.
pub(crate) async fn set(
    session: &Session,
    node: &Value,
    scheduling: Scheduling,
    dry_run: DryRun,
) -> Result<(), Error> {
    let name = node.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let off = scheduling == Scheduling::Off;
    let now = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    let word = if off { "cordoned" } else { "uncordoned" };
    if now == off {
        return output::line(&format!("node/{name} already {word}{}", dry_run.note()));
    }
    if dry_run != DryRun::Client {
        let query = if dry_run == DryRun::Server { "?dryRun=All" } else { "" };
        let path = format!("{}{query}", node_resource()?.object_path("", name));
        let patch = json!({"spec": {"unschedulable": if off { json!(true) } else { Value::Null }}});
        session.patch(&path, "application/strategic-merge-patch+json", &patch).await?;
    }
    output::line(&format!("node/{name} {word}{}", dry_run.note()))
}
