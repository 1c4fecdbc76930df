//! `kubectl scale`.

use api_objects::Value;
use serde_json::json;

use crate::cli::{DryRun, ScaleArgs};
use crate::error::Error;
use crate::printers::Printer;
use crate::session::Session;

use super::mark::{Found, find};

/// Carries out the command.
pub(crate) async fn run(args: &ScaleArgs, session: &Session) -> Result<(), Error> {
    let printer = Printer::new(&args.output)?;
    let found =
        find(session, &args.targets, &args.files, args.selector.as_deref(), None, false, false, "scale")
            .await?;
    let mut errors = Vec::new();
    for Found { resource, object, path } in found {
        if resource.subresource("scale").is_none() {
            // What a server without that path answers.
            errors.push(Error::from(api_objects::Status::no_such_resource()));
            continue;
        }
        let now = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
        if let Some(expected) = args.current_replicas.filter(|expected| u64::from(*expected) != now) {
            errors.push(Error::message(format!("Expected replicas to be {expected}, was {now}")));
            continue;
        }
        let mut patch = json!({"spec": {"replicas": args.replicas}});
        if let Some(version) = &args.resource_version {
            patch["metadata"] = json!({"resourceVersion": version});
        }
        let outcome = match args.dry_run.dry_run {
            DryRun::Client => Ok(json!({})),
            dry_run => {
                let query = if dry_run == DryRun::Server { "?dryRun=All" } else { "" };
                session.patch(&format!("{path}/scale{query}"), "application/merge-patch+json", &patch).await
            }
        };
        match outcome {
            Ok(_) => {
                let mut scaled = object;
                scaled["spec"]["replicas"] = json!(args.replicas);
                printer.outcome(&resource, &scaled, &format!("scaled{}", args.dry_run.dry_run.note()))?;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}
