//! `kubectl delete`: deletes objects and waits until they are gone.

use std::sync::Arc;
use std::time::Duration;

use api_objects::duration::parse_go;
use api_objects::params::{Propagation, QueryWriter};
use api_objects::watch::{EventType, Frame};
use api_objects::{Resource, Value};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde_json::json;

use crate::cli::{Cascade, DeleteArgs, DryRun};
use crate::error::Error;
use crate::manifests;
use crate::output;
use crate::resources::{self, Names};
use crate::session::Session;

/// An object that is to go.
struct Doomed {
    resource: Arc<Resource>,
    namespace: String,
    name: String,
    source: Option<String>,
}

/// Carries out the command.
pub(crate) async fn run(args: &DeleteArgs, session: &Session) -> Result<(), Error> {
    let by_name = args.output.as_deref().unwrap_or_default();
    if !matches!(by_name, "" | "name") {
        return Err(Error::message(format!(
            "unexpected -o output mode: {by_name}. We only support '-o name'"
        )));
    }
    let mut grace = (args.grace_period >= 0).then_some(args.grace_period);
    if args.now {
        grace = Some(1);
    }
    if args.force {
        output::complain(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
             The resource may continue to run on the cluster indefinitely.",
        );
        grace = grace.or(Some(0));
    } else if grace == Some(0) {
        // Upstream: without --force a pod's record is kept until its node confirms.
        grace = Some(1);
    }
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": match args.cascade {
        Cascade::Background => Propagation::Background,
        Cascade::Orphan => Propagation::Orphan,
        Cascade::Foreground => Propagation::Foreground,
    }});
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    if args.dry_run.dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    let doomed = find(args, session).await?;
    if doomed.is_empty() {
        return output::line("No resources found");
    }
    if session.namespace_given && doomed.iter().any(|object| !object.resource.namespaced) {
        output::complain("Warning: deleting cluster-scoped resources, not scoped to the provided namespace");
    }
    let ignore_missing = args.ignore_not_found || args.all || args.select.selector.is_some();
    let mut errors = Vec::new();
    let mut pending = Vec::new();
    for object in &doomed {
        let path = object.resource.object_path(&object.namespace, &object.name);
        let mut uid = None;
        if args.dry_run.dry_run != DryRun::Client {
            match session.delete(&path, &options).await {
                Ok(answer) => {
                    let own = answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid"));
                    uid = own.and_then(Value::as_str).map(str::to_owned);
                }
                Err(error) if error.is_not_found() && ignore_missing => continue,
                Err(error) => {
                    errors.push(match &object.source {
                        Some(source) => error.doing("deleting", source),
                        None => error,
                    });
                    continue;
                }
            }
        }
        output::line(&message(
            object,
            by_name == "name",
            args.force && grace == Some(0),
            args.dry_run.dry_run,
        ))?;
        if args.dry_run.dry_run == DryRun::None {
            pending.push((object, path, uid));
        }
    }
    if args.wait {
        let timeout = parse_go(&args.timeout).map_err(|error| Error::message(error.to_string()))?;
        let everything = async {
            for (object, path, uid) in &pending {
                until_gone(session, &object.resource, path, uid.as_deref(), Some(&object.name)).await?;
            }
            Ok(())
        };
        if timeout.is_zero() {
            everything.await?;
        } else {
            tokio::time::timeout(timeout, everything).await.unwrap_or_else(|_| {
                Err(Error::message(format!(
                    "timed out waiting for the condition on {}",
                    pending_labels(&pending)
                )))
            })?;
        }
    }
    Error::several(errors)
}

fn pending_labels(pending: &[(&Doomed, String, Option<String>)]) -> String {
    let labels: Vec<String> =
        pending.iter().map(|(object, ..)| format!("{}/{}", object.resource.plural, object.name)).collect();
    labels.join(", ")
}

/// `pod "a" deleted from default namespace`
fn message(object: &Doomed, by_name: bool, forced: bool, dry_run: DryRun) -> String {
    let kind = resources::kind_label(&object.resource);
    if by_name {
        return format!("{kind}/{}", object.name);
    }
    let verb = if forced { "force deleted" } else { "deleted" };
    let place = if object.namespace.is_empty() {
        String::new()
    } else {
        format!(" from {} namespace", object.namespace)
    };
    format!("{kind} {:?} {verb}{place}{}", object.name, dry_run.note())
}

async fn find(args: &DeleteArgs, session: &Session) -> Result<Vec<Doomed>, Error> {
    let mut doomed = Vec::new();
    if !args.files.filenames.is_empty() {
        for manifest in manifests::read(&args.files).await? {
            let mut object = manifest.object;
            let (resource, namespace, name) =
                super::apply::place(session, &mut object, &manifest.source).await?;
            doomed.push(Doomed { resource, namespace, name, source: Some(manifest.source) });
        }
        return Ok(doomed);
    }
    let listing = args.all || args.select.selector.is_some() || args.select.field_selector.is_some();
    let names = if listing { Names::Optional } else { Names::Required };
    for target in resources::targets(session, &args.targets, names, "delete").await? {
        let resource = target.resource;
        let namespace = if resource.namespaced { session.namespace.clone() } else { String::new() };
        match target.name {
            Some(_) if listing => {
                return Err(Error::message("name cannot be provided when a selector is specified"));
            }
            Some(name) => doomed.push(Doomed { resource, namespace, name, source: None }),
            None => {
                let mut query = QueryWriter::default();
                query.put_text("labelSelector", args.select.selector.as_deref().unwrap_or_default());
                query.put_text("fieldSelector", args.select.field_selector.as_deref().unwrap_or_default());
                let within = if args.all_namespaces { "" } else { namespace.as_str() };
                let list =
                    session.get(&format!("{}?{}", resource.collection_path(within), query.finish())).await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let text = |pointer: &str| {
                        item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
                    };
                    doomed.push(Doomed {
                        resource: Arc::clone(&resource),
                        namespace: text("/metadata/namespace"),
                        name: text("/metadata/name"),
                        source: None,
                    });
                }
            }
        }
    }
    Ok(doomed)
}

/// Returns when the object at a path is gone, or another has taken its name.
pub(crate) async fn until_gone(
    session: &Session,
    resource: &Resource,
    path: &str,
    uid: Option<&str>,
    name: Option<&str>,
) -> Result<(), Error> {
    let (collection, own_name) = path.rsplit_once('/').unwrap_or((path, ""));
    let name = name.unwrap_or(own_name);
    let watchable = resource.verbs.iter().any(|verb| verb == "watch");
    loop {
        let live = match session.get(path).await {
            Ok(live) => live,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if uid.is_some_and(|uid| live.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid)) {
            return Ok(());
        }
        if !watchable {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let revision = live.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let mut query = QueryWriter::default();
        query.put("watch", "true");
        query.put("fieldSelector", &format!("metadata.name={name}"));
        query.put("resourceVersion", revision);
        // A watch that cannot be had or breaks is answered by looking again.
        let Ok(mut stream) = session.stream(&format!("{collection}?{}", query.finish()), None).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let mut buffer = BytesMut::new();
        'watch: while let Some(Ok(chunk)) = stream.next().await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                match Frame::parse(&line) {
                    Ok(frame) if frame.event == EventType::Deleted => return Ok(()),
                    Ok(frame) if frame.event != EventType::Error => {}
                    _ => break 'watch,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kubectls() {
        let find =
            |group, version, plural| Arc::clone(api_objects::resource::find(group, version, plural).unwrap());
        let pod = Doomed {
            resource: find("", "v1", "pods"),
            namespace: "default".into(),
            name: "a".into(),
            source: None,
        };
        assert_eq!(message(&pod, false, false, DryRun::None), r#"pod "a" deleted from default namespace"#);
        assert_eq!(
            message(&pod, false, true, DryRun::None),
            r#"pod "a" force deleted from default namespace"#
        );
        assert_eq!(message(&pod, true, false, DryRun::None), "pod/a");
        let role = Doomed {
            resource: find("rbac.authorization.k8s.io", "v1", "clusterroles"),
            namespace: String::new(),
            name: "r".into(),
            source: None,
        };
        assert_eq!(
            message(&role, false, false, DryRun::Server),
            r#"clusterrole.rbac.authorization.k8s.io "r" deleted (server dry run)"#
        );
    }
}
