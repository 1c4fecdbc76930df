//! `kubectl logs`: what containers have written, and write.

use std::time::Duration;

use api_objects::Value;
use api_objects::duration::parse_go;
use api_objects::params::{LogParams, QueryWriter};
use api_objects::time;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::cli::LogsArgs;
use crate::error::Error;
use crate::output;
use crate::remote;
use crate::session::Session;

/// How long a refused log is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// One container's log.
struct Source {
    pod: String,
    namespace: String,
    container: String,
}

/// Carries out the command.
pub(crate) async fn run(args: &LogsArgs, session: &Session) -> Result<(), Error> {
    refuse_nonsense(args)?;
    let mut params = LogParams {
        follow: args.follow,
        previous: args.previous,
        timestamps: args.timestamps,
        limit_bytes: args.limit_bytes.filter(|bytes| *bytes > 0),
        ..LogParams::default()
    };
    if let Some(since) = &args.since {
        let since = parse_go(since).map_err(|error| Error::message(error.to_string()))?;
        params.since_seconds = Some(i64::try_from(since.as_millis().div_ceil(1000)).unwrap_or(i64::MAX));
    }
    if let Some(at) = &args.since_time {
        params.since_time = Some(time::parse(at).ok_or_else(|| {
            Error::message(format!("invalid --since-time {at:?}: must be RFC 3339, as 2026-11-21T10:00:00Z"))
        })?);
    }
    params.tail_lines = match args.tail {
        Some(tail) => (tail >= 0).then_some(tail),
        // Many logs at once are cut short unless one says how much is wanted.
        None => args.selector.as_ref().map(|_| 10),
    };
    let sources = sources(args, session).await?;
    if sources.is_empty() {
        output::complain(&format!("No resources found in {} namespace.", session.namespace));
        return Ok(());
    }
    if args.follow && sources.len() > 1 {
        if sources.len() > args.max_log_requests {
            return Err(Error::message(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
                 --max-log-requests to increase the limit",
                sources.len(),
                args.max_log_requests
            )));
        }
        let mut copies: FuturesUnordered<_> =
            sources.iter().map(|source| copy(args, session, source, &params)).collect();
        while let Some(outcome) = copies.next().await {
            report(args, outcome)?;
        }
        return Ok(());
    }
    for source in &sources {
        report(args, copy(args, session, source, &params).await)?;
    }
    Ok(())
}

/// What upstream's `LogsOptions.Validate` refuses.
fn refuse_nonsense(args: &LogsArgs) -> Result<(), Error> {
    let wrong = |text: &str| Err(Error::message(text));
    if args.since.is_some() && args.since_time.is_some() {
        return wrong("at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if let (true, Some(name)) =
        (args.all_containers, args.container_flag.as_ref().or(args.container.as_ref()))
    {
        return wrong(&format!("--all-containers=true should not be specified with container name {name}"));
    }
    if args.container_flag.is_some() && args.container.is_some() {
        return wrong("only one of -c or an inline [CONTAINER] arg is allowed");
    }
    if args.limit_bytes.is_some_and(|bytes| bytes < 0) {
        return wrong("--limit-bytes must be greater than 0");
    }
    if args.tail.is_some_and(|tail| tail < -1) {
        return wrong("--tail must be greater than or equal to -1");
    }
    Ok(())
}

fn report(args: &LogsArgs, outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        // Among the lines, as upstream has it.
        Err(error) if args.ignore_errors => match &error {
            Error::Server { status } => output::line(&format!("error: {}", status.message)),
            other => output::line(&other.to_string()),
        },
        other => other,
    }
}

async fn sources(args: &LogsArgs, session: &Session) -> Result<Vec<Source>, Error> {
    let wanted = args.container_flag.as_ref().or(args.container.as_ref());
    let pods = match (&args.pod, &args.selector) {
        (Some(_), Some(_)) => return Err(Error::message("only a selector (-l) or a POD name is allowed")),
        (None, None) => {
            return Err(Error::message(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
            ));
        }
        (Some(pod), None) => {
            let found = if args.all_pods {
                remote::pods_of(session, pod).await
            } else {
                remote::pod_of(session, pod, true).await.map(|pod| vec![pod])
            };
            found.map_err(|error| match error {
                Error::Server { status } if status.is_not_found() => Error::message(format!(
                    "error from server (NotFound): {} in namespace {:?}",
                    status.message, session.namespace
                )),
                error => error,
            })?
        }
        (None, Some(selector)) => {
            let mut query = QueryWriter::default();
            query.put("labelSelector", selector);
            let path = format!("/api/v1/namespaces/{}/pods?{}", session.namespace, query.finish());
            session.get(&path).await?["items"].as_array().cloned().unwrap_or_default()
        }
    };
    let mut sources = Vec::new();
    for pod in &pods {
        let text =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let source = |container: String| Source {
            pod: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            container,
        };
        if args.all_containers {
            sources.extend(remote::containers(pod).into_iter().map(source));
        } else {
            let say = !args.all_pods;
            sources.push(source(remote::container(pod, wanted.map(String::as_str), say)?));
        }
    }
    Ok(sources)
}

/// Copies a log. A followed one may be asked for before its container runs: it is asked for again until it is there
/// or the patience ends (`LogsOptions.consumeWithRetry` of v1.36).
async fn copy(args: &LogsArgs, session: &Session, source: &Source, params: &LogParams) -> Result<(), Error> {
    let patience = parse_go(&args.pod_running_timeout).map_err(|error| Error::message(error.to_string()))?;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match copy_once(args, session, source, params).await {
            Err(Error::Server { status }) if args.follow && !args.ignore_errors => {
                output::complain(&status.message);
                if tokio::time::Instant::now() + RETRY > deadline {
                    return Err(Error::message("context deadline exceeded"));
                }
                tokio::time::sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

async fn copy_once(
    args: &LogsArgs,
    session: &Session,
    source: &Source,
    params: &LogParams,
) -> Result<(), Error> {
    let params = LogParams { container: source.container.clone(), ..params.clone() };
    let path =
        format!("/api/v1/namespaces/{}/pods/{}/log?{}", source.namespace, source.pod, params.to_query());
    let mut stream = session.stream(&path, Some("*/*")).await?;
    let prefix = format!("[pod/{}/{}] ", source.pod, source.container);
    // Lines of several logs must not be torn apart, so that whole ones are printed.
    let mut line = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Error::Unreachable(error.to_string()))?;
        line.extend_from_slice(&chunk);
        let whole = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = line.split_off(whole);
        print_lines(&line, (args.prefix || args.all_pods).then_some(prefix.as_str()))?;
        line = rest;
    }
    print_lines(&line, (args.prefix || args.all_pods).then_some(prefix.as_str()))
}

fn print_lines(lines: &[u8], prefix: Option<&str>) -> Result<(), Error> {
    let Some(prefix) = prefix else {
        return output::bytes(lines);
    };
    let mut out = Vec::with_capacity(lines.len() + prefix.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
    output::bytes(&out)
}
