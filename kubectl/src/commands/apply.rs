//! `kubectl apply`: makes the cluster's objects what the manifests say.
//!
//! Client-side: the configuration applied last is kept in an annotation, and what it set and the new one no longer
//! does is deleted; what others set is left alone. `--server-side` leaves the merging to the server.

use std::sync::Arc;

use api_objects::params::QueryWriter;
use api_objects::patch::{PatchKind, merge, strategic};
use api_objects::selector::LabelSelector;
use api_objects::{Resource, Value, schema};
use serde_json::json;

use crate::cli::{ApplyArgs, DryRun};
use crate::error::Error;
use crate::manifests::{self, Manifest};
use crate::output;
use crate::printers::Printer;
use crate::resources;
use crate::session::Session;

/// Where the configuration applied last is kept.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a conflict is met by looking again.
const ATTEMPTS: usize = 5;

/// Carries out the command.
pub(crate) async fn run(args: &ApplyArgs, session: &Session) -> Result<(), Error> {
    if args.files.filenames.is_empty() {
        return Err(Error::message("must specify one of -f and -k"));
    }
    if args.server_side && args.dry_run.dry_run == DryRun::Client {
        return Err(Error::message(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    let printer = Printer::new(&args.output)?;
    let selector = match &args.selector {
        Some(text) => LabelSelector::parse(text).map_err(|error| Error::message(error.to_string()))?,
        None => LabelSelector::everything(),
    };
    let mut errors = Vec::new();
    for manifest in manifests::read(&args.files).await? {
        let labels = api_objects::object::ObjectMeta::from_value(&manifest.object).labels;
        if !selector.matches(&labels) {
            continue;
        }
        match one(args, session, &manifest).await {
            Ok((resource, object, what)) => {
                printer.outcome(&resource, &object, &format!("{what}{}", args.dry_run.dry_run.note()))?;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}

/// A manifest's kind, name and namespace, with the namespace filled in.
pub(crate) async fn place(
    session: &Session,
    object: &mut Value,
    source: &str,
) -> Result<(Arc<Resource>, String, String), Error> {
    let resource = session.resource_of(object, source).await?;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, given) = (text("/metadata/name"), text("/metadata/namespace"));
    if !resource.namespaced {
        return Ok((resource, String::new(), name));
    }
    if session.namespace_given && !given.is_empty() && given != session.namespace {
        return Err(Error::message(format!(
            "the namespace from the provided object {given:?} does not match the namespace {:?}. You must pass \
             '--namespace={given}' to perform this operation.",
            session.namespace
        )));
    }
    let namespace = if given.is_empty() { session.namespace.clone() } else { given };
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["namespace"] = json!(namespace);
    Ok((resource, namespace, name))
}

/// The `fieldValidation` of a `--validate` flag.
pub(crate) fn field_validation(validate: &str) -> Result<&'static str, Error> {
    match validate {
        "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        other => Err(Error::message(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}

async fn one(
    args: &ApplyArgs,
    session: &Session,
    manifest: &Manifest,
) -> Result<(Arc<Resource>, Value, &'static str), Error> {
    let mut object = manifest.object.clone();
    let (resource, namespace, name) = place(session, &mut object, &manifest.source).await?;
    if name.is_empty() {
        return Err(Error::message(format!(
            "error when applying {:?}: resource name may not be empty",
            manifest.source
        )));
    }
    let manager = |default: &str| args.field_manager.clone().unwrap_or_else(|| default.to_owned());
    let mut query = QueryWriter::default();
    query.put_option("dryRun", (args.dry_run.dry_run == DryRun::Server).then_some("All"));
    query.put("fieldValidation", field_validation(&args.validate)?);
    let path = resource.object_path(&namespace, &name);
    if args.server_side {
        query.put("fieldManager", &manager("kubectl"));
        query.put("force", if args.force_conflicts { "true" } else { "false" });
        let path = format!("{path}?{}", query.finish());
        let applied = session.patch(&path, PatchKind::Apply.media_type(), &object).await;
        return applied.map(|applied| (resource, applied, "serverside-applied"));
    }
    query.put("fieldManager", &manager("kubectl-client-side-apply"));
    let query = query.finish();
    let modified = with_last_applied(&object);
    for attempt in 1.. {
        let live = match session.get(&path).await {
            Ok(live) => live,
            Err(error) if error.is_not_found() => {
                if args.dry_run.dry_run == DryRun::Client {
                    return Ok((resource, modified, "created"));
                }
                let collection = format!("{}?{query}", resource.collection_path(&namespace));
                match session.post(&collection, &modified).await {
                    // Somebody else was quicker: what they made is patched.
                    Err(error) if error.is_already_exists() && attempt < ATTEMPTS => continue,
                    created => {
                        return created
                            .map(|created| (Arc::clone(&resource), created, "created"))
                            .map_err(|error| error.doing("creating", &manifest.source));
                    }
                }
            }
            Err(error) => {
                return Err(
                    error.doing("retrieving current configuration of", &resources::label(&resource, &name))
                );
            }
        };
        let (patch, kind) = patch(&resource, &live, &modified);
        if patch == json!({}) {
            return Ok((resource, live, "unchanged"));
        }
        if live.pointer("/metadata/annotations").and_then(|notes| notes.get(LAST_APPLIED)).is_none() {
            output::complain(&format!(
                "Warning: resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. \
                 kubectl apply should only be used on resources created declaratively by either kubectl create \
                 --save-config or kubectl apply. The missing annotation will be patched automatically.",
                resource.plural
            ));
        }
        if args.dry_run.dry_run == DryRun::Client {
            return Ok((resource, modified, "configured"));
        }
        let patched = session.patch(&format!("{path}?{query}"), kind.media_type(), &patch).await;
        match patched {
            Ok(patched) => {
                let same = revision(&patched) == revision(&live) && args.dry_run.dry_run == DryRun::None;
                return Ok((resource, patched, if same { "unchanged" } else { "configured" }));
            }
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            Err(error)
                if args.force && error.status().is_some_and(|status| matches!(status.code, 409 | 422)) =>
            {
                return recreate(session, &resource, &path, &namespace, &query, &modified).await;
            }
            Err(error) => return Err(error.doing("applying patch to", &manifest.source)),
        }
    }
    unreachable!("the loop must return by its last attempt")
}

fn revision(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

async fn recreate(
    session: &Session,
    resource: &Arc<Resource>,
    path: &str,
    namespace: &str,
    query: &str,
    modified: &Value,
) -> Result<(Arc<Resource>, Value, &'static str), Error> {
    session.delete(path, &json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0})).await?;
    super::delete::until_gone(session, resource, path, None, None).await?;
    let collection = format!("{}?{query}", resource.collection_path(namespace));
    Ok((Arc::clone(resource), session.post(&collection, modified).await?, "configured"))
}

/// The object with its own configuration in the annotation.
pub(crate) fn with_last_applied(object: &Value) -> Value {
    let mut bare = object.clone();
    if !bare["metadata"].is_object() {
        bare["metadata"] = json!({});
    }
    if !bare["metadata"]["annotations"].is_object() {
        bare["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = bare["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let configuration = format!("{bare}\n");
    bare["metadata"]["annotations"][LAST_APPLIED] = json!(configuration);
    bare
}

/// What brings the live object to the new configuration, given the one applied last.
fn patch(resource: &Resource, live: &Value, modified: &Value) -> (Value, PatchKind) {
    let original = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| json!({}));
    match schema::definition(&resource.definition) {
        Some(schema) => (strategic::three_way(&original, modified, live, Some(schema)), PatchKind::Strategic),
        None => (merge::three_way(&original, modified, live), PatchKind::Merge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_holds_the_configuration() {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let modified = with_last_applied(&object);
        assert_eq!(
            modified["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\"}}\n"
        );
        assert_eq!(with_last_applied(&modified), modified);
    }

    #[test]
    fn removed_keys_are_deleted_and_strangers_stay() {
        let resource = api_objects::resource::find("", "v1", "configmaps").unwrap();
        let mut live = with_last_applied(&json!({"metadata": {"name": "a"}, "data": {"k": "v", "old": "x"}}));
        live["data"]["other"] = json!("theirs");
        let modified = with_last_applied(&json!({"metadata": {"name": "a"}, "data": {"k": "w"}}));
        let (patch, kind) = patch(resource, &live, &modified);
        assert_eq!(kind, PatchKind::Strategic);
        assert_eq!(patch["data"], json!({"k": "w", "old": null}));
        assert_eq!(super::patch(resource, &live, &live.clone()).0["data"], Value::Null);
    }
}
