//! `kubectl run`: one pod with one container.

use api_objects::patch::merge;
use api_objects::{Value, resource, yaml};
use serde_json::json;

use crate::cli::{DryRun, RunArgs};
use crate::commands::wait::followed;
use crate::describe::text_at;
use crate::error::Error;
use crate::output;
use crate::printers::Printer;
use crate::remote::{self, Streams};
use crate::session::Session;

/// Carries out the command.
pub(crate) async fn run(args: &RunArgs, session: &Session) -> Result<(), Error> {
    let attaching = args.attach || args.stdin;
    if args.tty && !args.stdin {
        return Err(Error::message("-i/--stdin is required for containers with -t/--tty=true"));
    }
    if args.rm && !attaching {
        return Err(Error::message("--rm should only be used for attached containers"));
    }
    if attaching && args.dry_run.dry_run != DryRun::None {
        return Err(Error::message("--dry-run=none is required for attaching"));
    }
    let printer = Printer::new(&args.output)?;
    let pod = manifest(args, &session.namespace)?;
    let resource =
        resource::find("", "v1", "pods").ok_or_else(|| Error::message("pods must be a known resource"))?;
    let created = if args.dry_run.dry_run == DryRun::Client {
        pod
    } else {
        let dry_run = if args.dry_run.dry_run == DryRun::Server { "&dryRun=All" } else { "" };
        let path =
            format!("{}?fieldManager=kubectl-run{dry_run}", resource.collection_path(&session.namespace));
        session.post(&path, &pod).await?
    };
    if !attaching {
        return printer.outcome(resource, &created, &format!("created{}", args.dry_run.dry_run.note()));
    }
    let outcome = attach(args, session).await;
    if args.rm {
        let path = resource.object_path(&session.namespace, &args.name);
        let gone = session.delete(&path, &json!({"propagationPolicy": "Background"})).await;
        if gone.is_ok() && !args.quiet {
            output::line(&format!("pod {:?} deleted from {} namespace", args.name, session.namespace))?;
        }
    }
    outcome
}

/// The pod that the flags describe.
fn manifest(args: &RunArgs, namespace: &str) -> Result<Value, Error> {
    let pairs = |text: &[String], what: &str| -> Result<serde_json::Map<String, Value>, Error> {
        text.iter()
            .map(|pair| {
                let (key, value) = pair
                    .split_once('=')
                    .ok_or_else(|| Error::message(format!("invalid {what} {pair:?}: expected KEY=VALUE")))?;
                Ok((key.to_owned(), json!(value)))
            })
            .collect()
    };
    let labels: Vec<String> = match &args.labels {
        Some(labels) => labels.split(',').map(str::to_owned).collect(),
        None => vec![format!("run={}", args.name)],
    };
    let mut container = json!({"name": args.name, "image": args.image, "resources": {}});
    let mut words: &[String] = &args.args;
    if words.first().is_some_and(|word| word == "--") {
        words = &words[1..];
    }
    if !words.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(words);
    }
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    let environment = pairs(&args.env, "env")?;
    if !environment.is_empty() {
        let list: Vec<Value> =
            environment.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        container["env"] = json!(list);
    }
    if args.stdin {
        container["stdin"] = json!(true);
        container["stdinOnce"] = json!(true);
    }
    if args.tty {
        container["tty"] = json!(true);
    }
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": args.name, "namespace": namespace, "labels": pairs(&labels, "label")?},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": args.restart.as_str()},
    });
    let annotations = pairs(&args.annotations, "annotation")?;
    if !annotations.is_empty() {
        pod["metadata"]["annotations"] = Value::Object(annotations);
    }
    if let Some(overrides) = &args.overrides {
        merge::apply(&mut pod, yaml::document(overrides)?);
    }
    Ok(pod)
}

/// Waits until the container runs (or has run), shows what it has written, attaches, and answers how it ended.
async fn attach(args: &RunArgs, session: &Session) -> Result<(), Error> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", session.namespace, args.name);
    let pod = followed(session, &path, |pod| runs(pod) || is_over(pod)).await?;
    let container = remote::container(&pod, None, false)?;
    let log = format!("{path}/log?container={container}");
    // What was written before we came would be lost otherwise.
    output::bytes(&session.call(http::Method::GET, &log, None, "*/*").await?)?;
    if !is_over(&pod) {
        let streams = Streams { stdin: args.stdin, tty: args.tty };
        if let Err(error) = super::exec::to_container(session, &pod, container, streams, args.quiet).await {
            output::complain(&format!(
                "warning: couldn't attach to pod/{}, falling back to streaming logs: {error}",
                args.name
            ));
            output::bytes(&session.call(http::Method::GET, &log, None, "*/*").await?)?;
        }
    }
    if args.restart.as_str() == "Always" {
        return Ok(());
    }
    let pod = followed(session, &path, is_over).await?;
    if text_at(&pod, "/status/phase", "") == "Succeeded" {
        return Ok(());
    }
    let ended = pod.pointer("/status/containerStatuses/0/state/terminated");
    let code = ended.and_then(|ended| ended["exitCode"].as_i64()).filter(|code| *code != 0);
    let name = format!("{}/{}", session.namespace, args.name);
    match (code, ended) {
        (Some(code), Some(ended)) => {
            let (reason, message) = (text_at(ended, "/reason", ""), text_at(ended, "/message", ""));
            let message = format!("pod {name} terminated ({reason})\n{message}");
            Err(Error::Ended {
                message: message.trim_end().to_owned(),
                code: u8::try_from(code).unwrap_or(1),
            })
        }
        _ => Err(Error::message(format!("pod {name} failed with unknown exit code"))),
    }
}

/// Whether all containers of a pod run and are ready (upstream's `podRunningAndReady`).
fn runs(pod: &Value) -> bool {
    let statuses = crate::describe::items_at(pod, "/status/containerStatuses");
    text_at(pod, "/status/phase", "") == "Running"
        && !statuses.is_empty()
        && statuses.iter().all(|status| status["ready"] == true)
}

fn is_over(pod: &Value) -> bool {
    matches!(text_at(pod, "/status/phase", ""), "Succeeded" | "Failed")
}
