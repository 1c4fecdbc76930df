//! `kubectl patch`.

use api_objects::patch::{self, PatchKind};
use api_objects::{schema, yaml};

use crate::cli::{DryRun, PatchArgs, PatchFlavor};
use crate::error::Error;
use crate::printers::Printer;
use crate::session::Session;

use super::mark::{Found, find};

/// Carries out the command.
pub(crate) async fn run(args: &PatchArgs, session: &Session) -> Result<(), Error> {
    let printer = Printer::new(&args.output)?;
    let text = match (&args.patch, &args.patch_file) {
        (Some(patch), None) => patch.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Error::message(format!("unable to read patch file: {error}")))?,
        _ => {
            return Err(Error::message(
                "must specify --patch or --patch-file containing the contents of the patch",
            ));
        }
    };
    let patch = yaml::document(&text)
        .map_err(|error| Error::message(format!("unable to parse {text:?}: {error}")))?;
    let found = find(session, &args.targets, &args.files, None, None, false, false, "patch").await?;
    let mut errors = Vec::new();
    for Found { resource, object, path } in found {
        let schema = schema::definition(&resource.definition);
        let kind = match args.kind {
            PatchFlavor::Strategic => PatchKind::Strategic,
            PatchFlavor::Merge => PatchKind::Merge,
            PatchFlavor::Json => PatchKind::Json,
        };
        let outcome = if args.dry_run.dry_run == DryRun::Client {
            patch::apply(kind, &object, patch.to_string().as_bytes(), schema).map_err(Error::from)
        } else {
            let subresource = args.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
            let all = if args.dry_run.dry_run == DryRun::Server { "&dryRun=All" } else { "" };
            let path = format!("{path}{subresource}?fieldManager=kubectl-patch{all}");
            session.patch(&path, kind.media_type(), &patch).await
        };
        match outcome {
            Ok(patched) => {
                let version =
                    |object: &api_objects::Value| object.pointer("/metadata/resourceVersion").cloned();
                let same = args.dry_run.dry_run == DryRun::None && version(&patched) == version(&object);
                let what = if same { "patched (no change)" } else { "patched" };
                printer.outcome(&resource, &patched, &format!("{what}{}", args.dry_run.dry_run.note()))?;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}
