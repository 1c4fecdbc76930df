//! Docker's long answers: events, logs, exec and attach.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::{EventMessage, ExecConfig},
    query_parameters::{
        AttachContainerOptions, EventsOptions, InspectContainerOptions, LogsOptions,
        ResizeContainerTTYOptions, ResizeExecOptions,
    },
};
use futures_util::{Stream, StreamExt};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::io::AsyncWrite;

use super::{errors, labels};
use crate::{
    EventStream, ExecControl, ExecOutput, ExecSession, ExecSpec, LogOptions, LogStream, Output, RuntimeError,
    RuntimeEvent,
};

/// How much of a command's output is kept (upstream's limit for probe output).
const SYNC_OUTPUT_LIMIT: usize = 10 << 10;

/// Hints from now on. Docker replays what happened between this call and the first read, so nothing falls between
/// an `events` call and the `list` after it.
pub(super) fn events(docker: &Docker, node: &str) -> EventStream {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kinds = ["start", "die", "oom", "destroy"].map(|kind| ("event", kind));
    let further: Vec<(&str, &str)> = kinds.into_iter().chain([("type", "container")]).collect();
    let options = EventsOptions {
        since: Some(format!("{}.{:09}", now.as_secs(), now.subsec_nanos())),
        until: None,
        filters: Some(labels::filter(node, &further)),
    };
    // A broken connection may have cost some: the stream ends there, as the contract wants.
    let stream = docker.events(Some(options)).take_while(|event| std::future::ready(event.is_ok()));
    Box::pin(stream.filter_map(|event| std::future::ready(event.ok().and_then(pod_of))))
}

fn pod_of(event: EventMessage) -> Option<RuntimeEvent> {
    let mut attributes = event.actor?.attributes?;
    attributes.remove(labels::POD_UID).map(|pod_uid| RuntimeEvent { pod_uid })
}

/// The log of a container, standard output and error in the order they came.
pub(super) async fn logs(docker: &Docker, id: &str, options: &LogOptions) -> Result<LogStream, RuntimeError> {
    let options = LogsOptions {
        follow: options.follow,
        stdout: true,
        stderr: true,
        since: options.since.map_or(0, |since| i32::try_from(since).unwrap_or(i32::MAX)),
        until: 0,
        timestamps: options.timestamps,
        tail: options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
    };
    // The stream makes its call when it is first read, and then a quiet container says nothing for long: whether there
    // is a log must be known before it is promised.
    let container = docker.inspect_container(id, None::<InspectContainerOptions>).await;
    container.map_err(|error| errors::not_found("container", error))?;
    let stream = docker.logs(id, Some(options));
    Ok(Box::pin(stream.map(|piece| piece.map(LogOutput::into_bytes).map_err(errors::unavailable))))
}

async fn start_exec(
    docker: &Docker,
    id: &str,
    spec: &ExecSpec,
) -> Result<(String, RawOutput, RawInput), RuntimeError> {
    let config = ExecConfig {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.tty),
        cmd: Some(spec.command.clone()),
        ..ExecConfig::default()
    };
    let exec = match docker.create_exec(id, config).await {
        Ok(exec) => exec.id,
        // 409: the container does not run.
        Err(error) if errors::is_conflict(&error) => {
            return Err(RuntimeError::NotFound("running container".to_owned()));
        }
        Err(error) => return Err(errors::not_found("container", error)),
    };
    let options = StartExecOptions { detach: false, tty: spec.tty, output_capacity: None };
    match docker.start_exec(&exec, Some(options)).await.map_err(errors::start)? {
        StartExecResults::Attached { output, input } => Ok((exec, output, input)),
        StartExecResults::Detached => Err(RuntimeError::Unavailable("the exec was detached".to_owned())),
    }
}

type RawOutput = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type RawInput = Pin<Box<dyn AsyncWrite + Send>>;

/// Runs a command to its end; one that takes too long is killed.
pub(super) async fn exec_sync(
    docker: &Docker,
    id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<ExecOutput, RuntimeError> {
    let spec = ExecSpec { command: command.to_vec(), stdin: false, tty: false };
    let (exec, mut pieces, _input) = start_exec(docker, id, &spec).await?;
    let mut output = Vec::new();
    let collect = async {
        while let Some(piece) = pieces.next().await {
            let bytes = piece.map_err(errors::unavailable)?.into_bytes();
            let room = SYNC_OUTPUT_LIMIT.saturating_sub(output.len());
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Ok(())
    };
    match tokio::time::timeout(timeout, collect).await {
        Ok(result) => result?,
        Err(_elapsed) => {
            kill_exec(docker, &exec).await;
            return Err(RuntimeError::Timeout(timeout));
        }
    }
    let exit_code = exit_code(docker, &exec).await?.unwrap_or_default();
    Ok(ExecOutput { exit_code, output })
}

async fn exit_code(docker: &Docker, exec: &str) -> Result<Option<i32>, RuntimeError> {
    let inspected = docker.inspect_exec(exec).await.map_err(|error| errors::not_found("exec", error))?;
    Ok(inspected.exit_code.and_then(|code| i32::try_from(code).ok()))
}

/// Docker has no call that ends an exec, but tells its process on this machine, which leads a session of its own.
async fn kill_exec(docker: &Docker, exec: &str) {
    let Ok(inspected) = docker.inspect_exec(exec).await else { return };
    let running = inspected.running == Some(true);
    let Some(pid) = inspected.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| running && *pid > 1)
    else {
        return;
    };
    let pid = Pid::from_raw(pid);
    if killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL)).is_err() {
        tracing::debug!(%pid, "the command that took too long ended by itself");
    }
}

/// Starts a command and hands over its streams.
pub(super) async fn exec(docker: &Docker, id: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
    let (exec, output, input) = start_exec(docker, id, spec).await?;
    let control = Control { docker: docker.clone(), target: Target::Exec(exec) };
    Ok(session(output, spec.stdin.then_some(input), control))
}

/// Joins a container's main process.
pub(super) async fn attach(docker: &Docker, id: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
    let inspected = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
        .map_err(|error| errors::not_found("container", error))?;
    if inspected.state.and_then(|state| state.running) != Some(true) {
        return Err(RuntimeError::NotFound("running container".to_owned()));
    }
    let options = AttachContainerOptions {
        stream: true,
        stdin: spec.stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: None,
    };
    let attached = docker.attach_container(id, Some(options)).await.map_err(errors::unavailable)?;
    let control = Control { docker: docker.clone(), target: Target::Container(id.to_owned()) };
    Ok(session(attached.output, spec.stdin.then_some(attached.input), control))
}

fn session(output: RawOutput, input: Option<RawInput>, control: Control) -> ExecSession {
    let output = output.map(|piece| match piece.map_err(errors::unavailable)? {
        LogOutput::StdErr { message } => Ok(Output::Stderr(message)),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            Ok(Output::Stdout(message))
        }
    });
    let stdin =
        input.map(|input| Box::pin(ClosingInput { inner: Some(input) }) as Pin<Box<dyn AsyncWrite + Send>>);
    ExecSession { stdin, output: Box::pin(output), control: Box::new(control) }
}

struct Control {
    docker: Docker,
    target: Target,
}

enum Target {
    Exec(String),
    Container(String),
}

#[async_trait::async_trait]
impl ExecControl for Control {
    async fn resize(&self, width: u16, height: u16) -> Result<(), RuntimeError> {
        let (w, h) = (i32::from(width), i32::from(height));
        match &self.target {
            Target::Exec(id) => self.docker.resize_exec(id, ResizeExecOptions { w, h }).await,
            Target::Container(id) => {
                self.docker.resize_container_tty(id, ResizeContainerTTYOptions { w, h }).await
            }
        }
        .map_err(errors::unavailable)
    }

    async fn exit_code(&self) -> Result<Option<i32>, RuntimeError> {
        match &self.target {
            Target::Exec(id) => exit_code(&self.docker, id).await,
            Target::Container(_) => Ok(None),
        }
    }
}

/// Standard input that ends when it is dropped: the two halves of Docker's connection share one socket, so that
/// dropping the writing half alone would leave the command waiting for more.
struct ClosingInput {
    /// `None` only while being dropped.
    inner: Option<RawInput>,
}

impl ClosingInput {
    fn inner(&mut self) -> Pin<&mut (dyn AsyncWrite + Send)> {
        self.inner.as_mut().expect("input must be there until it is dropped").as_mut()
    }
}

impl AsyncWrite for ClosingInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(context)
    }
}

impl Drop for ClosingInput {
    fn drop(&mut self) {
        let (Some(mut inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // Detached: it lives for one write to a local socket and owns all that it touches.
        runtime.spawn(async move {
            let _closed_already = tokio::io::AsyncWriteExt::shutdown(&mut inner).await;
        });
    }
}
