//! `kubectl edit`: an object in the person's editor, and back.

use std::io::Write;
use std::process::Command;

use api_objects::patch::{PatchKind, merge, strategic};
use api_objects::{Value, schema, yaml};
use serde_json::json;

use crate::cli::{EditArgs, FileArgs, OutputArgs};
use crate::error::Error;
use crate::output;
use crate::printers::Printer;
use crate::resources;
use crate::session::Session;

use super::mark::{Found, find};

const HEAD: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n\
    # and an empty file will abort the edit. If an error occurs while saving this file will be\n\
    # reopened with the relevant failures.\n#\n";

/// Carries out the command.
pub(crate) async fn run(args: &EditArgs, session: &Session) -> Result<(), Error> {
    if !matches!(args.output.as_str(), "yaml" | "json") {
        return Err(Error::message(format!(
            "the output format {:?} cannot be edited; use yaml or json",
            args.output
        )));
    }
    let printer = Printer::new(&OutputArgs { output: Some(args.output.clone()), ..OutputArgs::default() })?;
    let mut errors = Vec::new();
    for found in find(session, &args.targets, &FileArgs::default(), None, None, false, false, "edit").await? {
        if let Err(error) = edit(args, session, &printer, &found).await {
            errors.push(error);
        }
    }
    Error::several(errors)
}

async fn edit(args: &EditArgs, session: &Session, printer: &Printer, found: &Found) -> Result<(), Error> {
    let Found { resource, object, path } = found;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let label = resources::label(resource, name);
    let before = printer.render(Some(resource), object)?;
    let shown = yaml::document(&before)?;
    let mut text = format!("{HEAD}{before}");
    let suffix = format!(".{}", args.output);
    let mut file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(&suffix).tempfile()?;
    loop {
        file.as_file_mut().set_len(0)?;
        std::io::Seek::rewind(file.as_file_mut())?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        open_editor(file.path())?;
        // Editors replace files, so that the name is read, not what is open.
        let edited = std::fs::read_to_string(file.path())?;
        let body: String =
            edited.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
        if body.trim().is_empty() || edited == text {
            output::complain("Edit cancelled, no changes made.");
            return Ok(());
        }
        let outcome = match yaml::document(&body) {
            Ok(changed) if changed == shown => {
                output::complain("Edit cancelled, no changes made.");
                return Ok(());
            }
            Ok(changed) => send(session, resource, path, &shown, &changed).await,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => return output::line(&format!("{label} edited")),
            Err(error) if text.contains("\n# was not valid") && edited.trim_end() == text.trim_end() => {
                return Err(error);
            }
            Err(error) => {
                let reason: String =
                    error.to_string().lines().flat_map(|line| ["# * ", line, "\n"]).collect();
                text = format!("{HEAD}# {label} was not valid:\n{reason}#\n{body}");
            }
        }
    }
}

async fn send(
    session: &Session,
    resource: &api_objects::Resource,
    path: &str,
    before: &Value,
    after: &Value,
) -> Result<(), Error> {
    let (patch, kind) = match schema::definition(&resource.definition) {
        Some(schema) => (strategic::three_way(before, after, before, Some(schema)), PatchKind::Strategic),
        None => (merge::diff(before, after), PatchKind::Merge),
    };
    if patch == json!({}) {
        return Ok(());
    }
    session
        .patch(&format!("{path}?fieldManager=kubectl-edit&fieldValidation=Strict"), kind.media_type(), &patch)
        .await?;
    Ok(())
}

fn open_editor(path: &std::path::Path) -> Result<(), Error> {
    let editor = ["KUBE_EDITOR", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty()))
        .unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(path).status().map_err(|error| {
        Error::message(format!(
            "unable to launch the editor {editor:?}: {error}; set $KUBE_EDITOR or $EDITOR"
        ))
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::message(format!("there was a problem with the editor {editor:?}")))
    }
}
