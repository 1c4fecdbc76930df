//! `kubectl exec` and `kubectl attach`.

use std::io::IsTerminal;

use api_objects::Value;
use api_objects::params::ExecParams;

use crate::cli::{AttachArgs, ExecArgs};
use crate::describe::{items_at, text_at};
use crate::error::Error;
use crate::output;
use crate::remote::{self, Streams};
use crate::session::Session;

/// Carries out `exec`.
pub(crate) async fn run(args: &ExecArgs, session: &Session) -> Result<(), Error> {
    let pod = remote::pod_of(session, &args.pod, false).await?;
    refuse_finished(&pod, "exec into")?;
    let container = remote::container(&pod, args.container.as_deref(), !args.quiet)?;
    let command: Vec<String> = match args.command.split_first() {
        Some((first, rest)) if first == "--" => rest.to_vec(),
        _ => args.command.clone(),
    };
    if command.is_empty() {
        return Err(Error::message("you must specify at least one command for the container"));
    }
    let params = ExecParams {
        container,
        command,
        stdin: args.stdin,
        stdout: true,
        // A terminal has no stream of errors of its own.
        stderr: !args.tty,
        tty: args.tty,
    };
    let path = path(&pod, "exec", &params);
    remote::connect(session, &path, Streams { stdin: args.stdin, tty: args.tty }).await
}

/// Carries out `attach`.
pub(crate) async fn attach(args: &AttachArgs, session: &Session) -> Result<(), Error> {
    let pod = remote::pod_of(session, &args.pod, false).await?;
    refuse_finished(&pod, "attach")?;
    let container = remote::container(&pod, args.container.as_deref(), !args.quiet)?;
    to_container(session, &pod, container, Streams { stdin: args.stdin, tty: args.tty }, args.quiet).await
}

/// Attaches to a container that runs.
pub(crate) async fn to_container(
    session: &Session,
    pod: &Value,
    container: String,
    streams: Streams,
    quiet: bool,
) -> Result<(), Error> {
    let streams = Streams { tty: terminal_of(pod, &container, streams.tty, quiet), ..streams };
    if !quiet {
        output::complain(
            "All commands and output from this session will be recorded in container logs, including credentials and \
             sensitive information passed through the command prompt.",
        );
        output::complain("If you don't see a command prompt, try pressing enter.");
    }
    let params = ExecParams {
        container,
        command: Vec::new(),
        stdin: streams.stdin,
        stdout: true,
        stderr: !streams.tty,
        tty: streams.tty,
    };
    let name = params.container.clone();
    remote::connect(session, &path(pod, "attach", &params), streams).await?;
    if !quiet && streams.stdin && streams.tty && std::io::stdin().is_terminal() {
        output::line(&format!(
            "Session ended, resume using 'kubectl attach {} -c {name} -n {} -i -t' command",
            text_at(pod, "/metadata/name", ""),
            text_at(pod, "/metadata/namespace", "")
        ))?;
    }
    Ok(())
}

/// Whether the container has a terminal: it decides, whatever was asked for.
fn terminal_of(pod: &Value, container: &str, wanted: bool, quiet: bool) -> bool {
    let mut all = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items_at(pod, list));
    let has = all.any(|entry| entry["name"] == container && entry["tty"] == true);
    if wanted && !has && !quiet {
        output::complain(&format!("error: Unable to use a TTY - container {container} did not allocate one"));
    }
    has
}

fn path(pod: &Value, verb: &str, params: &ExecParams) -> String {
    let (namespace, name) = (text_at(pod, "/metadata/namespace", ""), text_at(pod, "/metadata/name", ""));
    format!("/api/v1/namespaces/{namespace}/pods/{name}/{verb}?{}", params.to_query())
}

fn refuse_finished(pod: &Value, what: &str) -> Result<(), Error> {
    let phase = text_at(pod, "/status/phase", "");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::message(format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok(())
}
