//! Turns `pods a b`, `pod/a svc/b`, `po,svc` and `all` into objects to act on.

use std::sync::Arc;

use api_objects::{Resource, resource};

use crate::error::Error;
use crate::session::Session;

/// One thing to act on.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its kind.
    pub(crate) resource: Arc<Resource>,
    /// Its name; nothing for all of the kind.
    pub(crate) name: Option<String>,
}

/// `pod/a`, `deployment.apps/a`.
pub(crate) fn label(resource: &Resource, name: &str) -> String {
    format!("{}/{name}", kind_label(resource))
}

/// `pod`, `deployment.apps`.
pub(crate) fn kind_label(resource: &Resource) -> String {
    let kind = resource.kind.to_lowercase();
    if resource.group.is_empty() { kind } else { format!("{kind}.{}", resource.group) }
}

/// Whether a command may act on all objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Names must be given.
    Required,
    /// None means all.
    Optional,
}

/// Reads arguments; `verb` is for messages.
pub(crate) async fn targets(
    session: &Session,
    args: &[String],
    names: Names,
    verb: &str,
) -> Result<Vec<Target>, Error> {
    let Some(first) = args.first() else {
        return Err(Error::Usage(nothing_named(verb)));
    };
    if args.iter().any(|arg| arg.contains('/')) {
        let mut targets = Vec::new();
        for arg in args {
            let Some((kind, name)) = arg.split_once('/') else {
                return Err(Error::message(format!(
                    "there is no need to specify a resource type as a separate argument when passing arguments in \
                     resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource \
                     resource/<resource_name>'; found {arg:?})"
                )));
            };
            if kind.is_empty() || name.is_empty() || name.contains('/') {
                return Err(Error::message(
                    "arguments in resource/name form may not have more than one slash".to_owned(),
                ));
            }
            for kind in kinds(session, kind).await? {
                targets.push(Target { resource: kind, name: Some(name.to_owned()) });
            }
        }
        return Ok(targets);
    }
    let kinds = kinds(session, first).await?;
    if args.len() == 1 {
        if names == Names::Required {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        return Ok(kinds.into_iter().map(|resource| Target { resource, name: None }).collect());
    }
    let mut targets = Vec::new();
    for resource in kinds {
        for name in &args[1..] {
            targets.push(Target { resource: Arc::clone(&resource), name: Some(name.clone()) });
        }
    }
    Ok(targets)
}

/// What upstream says when a command is given nothing to act on: `get` and `describe` in their own words, others in
/// those of `k8s.io/cli-runtime/pkg/resource`.
fn nothing_named(verb: &str) -> String {
    let kind_missing = format!(
        "You must specify the type of resource to {verb}. Use \"kubectl api-resources\" for a complete list of supported \
         resources."
    );
    match verb {
        "get" => format!(
            "{kind_missing}\n\nerror: Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed \
             description of that resource (e.g. kubectl explain pods).\nSee 'kubectl get -h' for help and examples"
        ),
        "describe" => format!("error: {kind_missing}"),
        "label" | "annotate" => "error: one or more resources must be specified as <resource> <name> or \
                                   <resource>/<name>"
            .to_owned(),
        _ => "error: You must provide one or more resources by argument or filename.\nExample resource specifications \
              include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'"
            .to_owned(),
    }
}

/// The kinds of `pods,svc`; a category stands for its kinds.
async fn kinds(session: &Session, list: &str) -> Result<Vec<Arc<Resource>>, Error> {
    let mut kinds: Vec<Arc<Resource>> = Vec::new();
    for name in list.split(',').filter(|name| !name.is_empty()) {
        let category = category(session, name).await;
        if category.is_empty() {
            kinds.push(session.resource(name).await?);
        } else {
            kinds.extend(category);
        }
    }
    Ok(kinds)
}

/// The listable resources of a category such as `all`; only preferred versions.
async fn category(session: &Session, name: &str) -> Vec<Arc<Resource>> {
    if resource::find_by_any_name(name).is_some() {
        return Vec::new();
    }
    let in_category = |row: &&Arc<Resource>| {
        row.categories.iter().any(|category| category == name) && row.verbs.iter().any(|verb| verb == "list")
    };
    if !resource::builtin().iter().any(|row| row.categories.iter().any(|category| category == name)) {
        return Vec::new();
    }
    // Custom resources may be in a category too; a server that cannot say is taken to have none.
    let known: Vec<Arc<Resource>> = match session.discover().await {
        Ok(rows) => rows.iter().filter(in_category).cloned().collect(),
        Err(_) => resource::builtin().iter().filter(in_category).cloned().collect(),
    };
    let mut rows: Vec<Arc<Resource>> = Vec::new();
    for row in known {
        if !rows.iter().any(|seen| seen.group == row.group && seen.plural == row.plural) {
            rows.push(row);
        }
    }
    rows
}
