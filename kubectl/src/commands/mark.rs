//! `kubectl label` and `kubectl annotate`: keys and values in an object's metadata.

use std::sync::Arc;

use api_objects::params::QueryWriter;
use api_objects::{Resource, Value, names};
use serde_json::{Map, json};

use crate::cli::{DryRun, FileArgs, MarkArgs};
use crate::error::Error;
use crate::manifests;
use crate::output;
use crate::printers::Printer;
use crate::resources::{self, Names, Target};
use crate::session::Session;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// `metadata.labels`
    Labels,
    /// `metadata.annotations`
    Annotations,
}

impl Marks {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotate",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }
}

/// An object that a command acts on.
pub(crate) struct Found {
    /// Its kind.
    pub(crate) resource: Arc<Resource>,
    /// As it is.
    pub(crate) object: Value,
    /// Where it is.
    pub(crate) path: String,
}

/// The objects that arguments, files and selectors mean, read from the server.
#[expect(clippy::too_many_arguments, reason = "one for each flag that several commands share")]
pub(crate) async fn find(
    session: &Session,
    args: &[String],
    files: &FileArgs,
    selector: Option<&str>,
    field_selector: Option<&str>,
    all: bool,
    all_namespaces: bool,
    verb: &str,
) -> Result<Vec<Found>, Error> {
    let listing = all || selector.is_some() || field_selector.is_some();
    let mut targets: Vec<(Target, String)> = Vec::new();
    if files.filenames.is_empty() {
        let names = if listing { Names::Optional } else { Names::Required };
        for target in resources::targets(session, args, names, verb).await? {
            targets.push((target, session.namespace.clone()));
        }
    } else {
        for manifest in manifests::read(files).await? {
            let mut object = manifest.object;
            let (resource, namespace, name) =
                super::apply::place(session, &mut object, &manifest.source).await?;
            targets.push((Target { resource, name: Some(name) }, namespace));
        }
    }
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for (target, namespace) in targets {
        if let Some(name) = &target.name {
            let path = target.resource.object_path(&namespace, name);
            match session.get(&path).await {
                Ok(object) => found.push(Found { resource: target.resource, object, path }),
                Err(error) => errors.push(error),
            }
            continue;
        }
        let mut query = QueryWriter::default();
        query.put_text("labelSelector", selector.unwrap_or_default());
        query.put_text("fieldSelector", field_selector.unwrap_or_default());
        let within = if all_namespaces { "" } else { namespace.as_str() };
        let list =
            session.get(&format!("{}?{}", target.resource.collection_path(within), query.finish())).await?;
        for object in super::get::typed_items(&list) {
            let text = |pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let path = target.resource.object_path(&text("/metadata/namespace"), &text("/metadata/name"));
            found.push(Found { resource: Arc::clone(&target.resource), object, path });
        }
    }
    Error::several(errors)?;
    Ok(found)
}

/// What to set and what to take away.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// Parts `pod a k=v x-` into what is meant and what is to be done to it.
fn split(args: &[String], marks: Marks) -> Result<(Vec<String>, Changes), Error> {
    let mut targets = Vec::new();
    let mut changes = Changes::default();
    for arg in args {
        if let Some((key, value)) = arg.split_once('=') {
            check(key, value, marks)?;
            changes.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = arg.strip_suffix('-').filter(|key| !key.is_empty() && !targets.is_empty()) {
            changes.remove.push(key.to_owned());
        } else {
            targets.push(arg.clone());
        }
    }
    if changes.set.iter().any(|(key, _)| changes.remove.contains(key)) {
        return Err(Error::message(format!(
            "can not both modify and remove a {} in the same command",
            marks.noun()
        )));
    }
    Ok((targets, changes))
}

fn check(key: &str, value: &str, marks: Marks) -> Result<(), Error> {
    let mut errors = names::qualified_name(key);
    if marks == Marks::Labels {
        errors.extend(names::label_value(value));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::message(format!("invalid {} {key:?}={value:?}: {}", marks.verb(), errors.join("; "))))
}

/// Carries out the command.
pub(crate) async fn run(args: &MarkArgs, marks: Marks, session: &Session) -> Result<(), Error> {
    let printer = Printer::new(&args.output)?;
    let (targets, changes) = split(&args.targets, marks)?;
    if changes == Changes::default() && !args.list && !(targets.is_empty() && args.files.filenames.is_empty())
    {
        return Err(Error::message(format!("at least one {} update is required", marks.noun())));
    }
    let found = find(
        session,
        &targets,
        &args.files,
        args.select.selector.as_deref(),
        args.select.field_selector.as_deref(),
        args.all,
        args.all_namespaces,
        marks.verb(),
    )
    .await?;
    let mut errors = Vec::new();
    for Found { resource, object, path } in found {
        let label = resources::label(
            &resource,
            object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default(),
        );
        let present = object
            .pointer(&format!("/metadata/{}", marks.field()))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if args.list {
            output::line(&format!("Listing {} for {label}:", marks.field()))?;
            for (key, value) in &present {
                output::line(&format!(" {key}={}", value.as_str().unwrap_or_default()))?;
            }
            continue;
        }
        match decide(&present, &changes, args.overwrite, marks) {
            Err(error) => errors.push(error),
            Ok((patch, what)) => {
                for key in changes.remove.iter().filter(|key| !present.contains_key(*key)) {
                    output::line(&format!("{} {key:?} not found.", marks.verb()))?;
                }
                if patch.is_empty() {
                    printer.outcome(&resource, &object, &format!("not {what}"))?;
                    continue;
                }
                let mut body = json!({"metadata": {marks.field(): patch}});
                if let Some(version) = &args.resource_version {
                    body["metadata"]["resourceVersion"] = json!(version);
                }
                let outcome = match args.dry_run.dry_run {
                    DryRun::Client => {
                        let mut changed = object.clone();
                        api_objects::patch::merge::apply(&mut changed, body);
                        Ok(changed)
                    }
                    dry_run => {
                        let all = if dry_run == DryRun::Server { "&dryRun=All" } else { "" };
                        let path = format!("{path}?fieldManager=kubectl-{}{all}", marks.verb());
                        session.patch(&path, "application/merge-patch+json", &body).await
                    }
                };
                match outcome {
                    Ok(object) => printer.outcome(
                        &resource,
                        &object,
                        &format!("{what}{}", args.dry_run.dry_run.note()),
                    )?,
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    Error::several(errors)
}

/// The patch for an object, and the word for what is done.
fn decide(
    present: &Map<String, Value>,
    changes: &Changes,
    overwrite: bool,
    marks: Marks,
) -> Result<(Map<String, Value>, &'static str), Error> {
    let mut patch = Map::new();
    for (key, value) in &changes.set {
        match present.get(key).and_then(Value::as_str) {
            Some(old) if old == value => {}
            Some(old) if !overwrite => {
                return Err(Error::message(match marks {
                    Marks::Labels => format!("'{key}' already has a value ({old}), and --overwrite is false"),
                    Marks::Annotations => format!(
                        "--overwrite is false but found the following declared annotation(s): \
                         '{key}' already has a value ({old})"
                    ),
                }));
            }
            _ => {
                patch.insert(key.clone(), json!(value));
            }
        }
    }
    for key in &changes.remove {
        if present.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    let what = match marks {
        Marks::Annotations => "annotated",
        Marks::Labels if changes.set.is_empty() => "unlabeled",
        Marks::Labels => "labeled",
    };
    Ok((patch, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_parted() {
        let (targets, changes) = split(&words("pods a b k=v example.com/x= old-"), Marks::Labels).unwrap();
        assert_eq!(targets, ["pods", "a", "b"]);
        assert_eq!(changes.set, [("k".into(), "v".into()), ("example.com/x".into(), String::new())]);
        assert_eq!(changes.remove, ["old"]);
        assert!(split(&words("pod a k=v k-"), Marks::Labels).is_err());
        assert!(split(&words("pod a k=not/good"), Marks::Labels).is_err());
        assert!(split(&words("pod a k=anything/goes here"), Marks::Annotations).is_ok());
    }

    #[test]
    fn values_are_not_replaced_unasked() {
        let present = json!({"a": "1", "b": "2"}).as_object().unwrap().clone();
        let change = |set: &str| Changes { set: vec![("a".into(), set.into())], remove: Vec::new() };
        let error = decide(&present, &change("9"), false, Marks::Labels).unwrap_err();
        assert_eq!(error.to_string(), "error: 'a' already has a value (1), and --overwrite is false");
        assert_eq!(decide(&present, &change("1"), false, Marks::Labels).unwrap(), (Map::new(), "labeled"));
        let (patch, _) = decide(&present, &change("9"), true, Marks::Labels).unwrap();
        assert_eq!(Value::Object(patch), json!({"a": "9"}));
        let removal = Changes { set: Vec::new(), remove: vec!["b".into(), "missing".into()] };
        let (patch, what) = decide(&present, &removal, false, Marks::Labels).unwrap();
        assert_eq!((Value::Object(patch), what), (json!({"b": null}), "unlabeled"));
    }
}
