//! `kubectl reset`: removes every object that a user made from a local cluster.
//!
//! What the cluster makes for itself stays. Any server that is not ours is refused, whatever flags say.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use api_objects::{Resource, Value, resource};
use serde_json::json;

use crate::cli::ResetArgs;
use crate::describe::text_at;
use crate::error::Error;
use crate::output;
use crate::resources;
use crate::session::Session;

/// Namespaces that the cluster makes at its start.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// Kinds whose objects are the cluster's own records, or go with others.
const KEPT: [&str; 11] = [
    "nodes",
    "leases",
    "endpoints",
    "endpointslices",
    "componentstatuses",
    "apiservices",
    "certificatesigningrequests",
    "flowschemas",
    "prioritylevelconfigurations",
    "ipaddresses",
    "servicecidrs",
];

/// How long an object may take to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out the command.
pub(crate) async fn run(args: &ResetArgs, session: &Session) -> Result<(), Error> {
    let version = session.get("/version").await?;
    let version = version["gitVersion"].as_str().unwrap_or_default();
    if !version.contains("minik8s") {
        return Err(Error::message(format!(
            "the server {} is no cluster of ours (it calls itself {version:?}): reset refuses to touch it",
            session.server
        )));
    }
    let doomed = find(session).await?;
    if doomed.is_empty() {
        return output::line("There is nothing to remove.");
    }
    if !args.yes && !confirmed(session, &doomed)? {
        return Err(Error::message("nothing was removed"));
    }
    let mut errors = Vec::new();
    for (resource, namespace, name) in &doomed {
        let path = resource.object_path(namespace, name);
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        match session.delete(&path, &options).await {
            Ok(_) => output::line(&format!("{} deleted", resources::label(resource, name)))?,
            // Gone with its owner or namespace.
            Err(error) if error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    for (resource, namespace, name) in &doomed {
        let path = resource.object_path(namespace, name);
        let gone = super::delete::until_gone(session, resource, &path, None, None);
        match tokio::time::timeout(PATIENCE, gone).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => errors.push(error),
            Err(_) => errors.push(Error::message(format!(
                "{} is still there after {}s: do the controllers run, and does something hold it by a finalizer?",
                resources::label(resource, name),
                PATIENCE.as_secs()
            ))),
        }
    }
    Error::several(errors)
}

fn confirmed(session: &Session, doomed: &[(Arc<Resource>, String, String)]) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::message(
            "reset asks before it removes anything: run it at a terminal, or pass --yes",
        ));
    }
    for (resource, namespace, name) in doomed {
        let place = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
        output::complain(&format!("  {}{place}", resources::label(resource, name)));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "Remove these {} objects from {}? [y/N] ", doomed.len(), session.server)?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether an object is the cluster's own.
fn is_own(resource: &Resource, object: &Value) -> bool {
    let (name, namespace) =
        (text_at(object, "/metadata/name", ""), text_at(object, "/metadata/namespace", ""));
    let bootstrapped = object
        .pointer("/metadata/labels")
        .is_some_and(|labels| labels["kubernetes.io/bootstrapping"].is_string());
    let made_by_cluster = match resource.kind.as_ref() {
        "Namespace" => OWN_NAMESPACES.contains(&name),
        "ServiceAccount" => name == "default" || namespace == "kube-system",
        "ConfigMap" => {
            name == "kube-root-ca.crt"
                || namespace == "kube-system" && name == "extension-apiserver-authentication"
        }
        "Service" => name == "kubernetes" && namespace == "default",
        "PriorityClass" => name.starts_with("system-"),
        "Event" => true,
        _ => name.starts_with("system:"),
    };
    // What has a controller goes with it.
    let owned = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    bootstrapped || made_by_cluster || owned
}

/// What a user made: owners before what they own, namespaces last.
async fn find(session: &Session) -> Result<Vec<(Arc<Resource>, String, String)>, Error> {
    let mut seen = BTreeSet::new();
    let mut doomed = Vec::new();
    let mut namespaces = Vec::new();
    let known = session.discover().await?;
    let rows = if known.is_empty() { resource::builtin() } else { known };
    for row in rows {
        let has = |verb: &str| row.verbs.iter().any(|other| other == verb);
        let first = seen.insert((row.storage.group.to_string(), row.plural.to_string()));
        if !first || !has("list") || !has("delete") || KEPT.contains(&row.plural.as_ref()) {
            continue;
        }
        let list = session.get(&row.collection_path("")).await?;
        for item in list["items"].as_array().into_iter().flatten().filter(|item| !is_own(row, item)) {
            let text = |pointer: &str| text_at(item, pointer, "").to_owned();
            let entry = (Arc::clone(row), text("/metadata/namespace"), text("/metadata/name"));
            if row.kind == "Namespace" { namespaces.push(entry) } else { doomed.push(entry) }
        }
    }
    // Workloads go first, so that they do not make anew what is deleted after them.
    doomed.sort_by_key(|(row, ..)| row.kind == "Pod");
    doomed.extend(namespaces);
    Ok(doomed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_objects_stay() {
        let find = |plural: &str| resource::find("", "v1", plural).unwrap();
        let named = |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace}});
        for (plural, object, own) in [
            ("namespaces", named("default", ""), true),
            ("namespaces", named("mine", ""), false),
            ("configmaps", named("kube-root-ca.crt", "mine"), true),
            ("configmaps", named("mine", "default"), false),
            ("services", named("kubernetes", "default"), true),
            ("services", named("kubernetes", "mine"), false),
            ("serviceaccounts", named("default", "mine"), true),
            ("pods", json!({"metadata": {"name": "a", "ownerReferences": [{"controller": true}]}}), true),
            ("pods", named("a", "default"), false),
        ] {
            assert_eq!(is_own(find(plural), &object), own, "{plural} {object}");
        }
    }
}
