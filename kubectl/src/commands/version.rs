//! `kubectl version`.

use api_objects::{Value, yaml};
use serde_json::json;

use crate::cli::{GlobalArgs, VersionArgs};
use crate::error::Error;
use crate::output;
use crate::session::Session;

/// The version of Kubernetes that this speaks, and ours.
pub(crate) const VERSION: &str = concat!("v1.36.0+minik8s-", env!("CARGO_PKG_VERSION"));

/// Carries out the command.
pub(crate) async fn run(args: &VersionArgs, global: &GlobalArgs) -> Result<(), Error> {
    let client = json!({
        "major": "1", "minor": "36", "gitVersion": VERSION,
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    let mut answer = json!({ "clientVersion": client });
    let mut failure = None;
    if !args.client {
        let server = async { Session::connect(global).await?.get("/version").await };
        match server.await {
            Ok(server) => answer["serverVersion"] = server,
            // What is known is printed before the failure is.
            Err(error) => failure = Some(error),
        }
    }
    match args.output.as_deref() {
        None => {
            output::line(&format!("Client Version: {VERSION}"))?;
            if let Some(version) = answer.pointer("/serverVersion/gitVersion").and_then(Value::as_str) {
                output::line(&format!("Server Version: {version}"))?;
            }
        }
        Some("json") => output::line(
            &serde_json::to_string_pretty(&answer).map_err(|error| Error::message(error.to_string()))?,
        )?,
        Some("yaml") => output::print(&yaml::to_string(&answer))?,
        Some(_) => return Err(Error::message("--output must be 'yaml' or 'json'")),
    }
    failure.map_or(Ok(()), Err)
}

/// The processor's name as Go has it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
