//! `kubectl wait`: until a condition holds.

use std::time::Duration;

use api_objects::duration::parse_go;
use api_objects::jsonpath::{self, JsonPath, MissingKeys};
use api_objects::params::QueryWriter;
use api_objects::watch::{EventType, Frame};
use api_objects::{Value, object::ObjectMeta};
use bytes::BytesMut;
use futures_util::StreamExt;

use crate::cli::WaitArgs;
use crate::error::Error;
use crate::output;
use crate::resources;
use crate::session::{Session, decode};

use super::mark::{Found, find};

/// What is waited for.
#[derive(Debug)]
enum Condition {
    Delete,
    Create,
    /// A condition of `status.conditions` and the value it is to have.
    Named(String, String),
    /// A path and the value it is to lead to; nothing for any.
    Path(JsonPath, Option<String>),
}

impl Condition {
    fn parse(text: &str) -> Result<Self, Error> {
        match text.to_lowercase().as_str() {
            "delete" => return Ok(Self::Delete),
            "create" => return Ok(Self::Create),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Named(name.to_owned(), value.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let end = rest.rfind('}').map_or(rest.len(), |at| at + 1);
            let (path, value) = rest.split_at(end);
            let value = value.strip_prefix('=').map(str::to_owned);
            let path = jsonpath::relaxed(path.trim_matches('\''))?;
            return Ok(Self::Path(JsonPath::parse(&path)?, value));
        }
        Err(Error::message(format!("unrecognized condition: {text:?}")))
    }

    fn holds(&self, object: &Value) -> bool {
        match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Named(name, value) => {
                let conditions =
                    object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
                let own = |condition: &&Value| {
                    condition["type"].as_str().is_some_and(|other| other.eq_ignore_ascii_case(name))
                };
                conditions.into_iter().find(own).is_some_and(|condition| {
                    // A condition about an older generation says nothing about this one.
                    let observed = condition["observedGeneration"].as_i64();
                    let generation = ObjectMeta::from_value(object).generation;
                    observed.is_none_or(|observed| observed >= generation)
                        && condition["status"]
                            .as_str()
                            .is_some_and(|status| status.eq_ignore_ascii_case(value))
                })
            }
            Self::Path(path, value) => {
                let found = path.find(object, MissingKeys::Allow).unwrap_or_default();
                match value {
                    None => !found.is_empty(),
                    Some(value) => found.len() == 1 && jsonpath::print(found[0]) == *value,
                }
            }
        }
    }
}

/// Carries out the command.
pub(crate) async fn run(args: &WaitArgs, session: &Session) -> Result<(), Error> {
    let condition = Condition::parse(&args.condition)?;
    let timeout = if args.timeout.starts_with('-') {
        Duration::from_secs(7 * 24 * 3600)
    } else {
        parse_go(&args.timeout).map_err(|error| Error::message(error.to_string()))?
    };
    let looked_up = async {
        loop {
            let found = find(
                session,
                &args.targets,
                &args.files,
                args.select.selector.as_deref(),
                args.select.field_selector.as_deref(),
                args.all,
                args.all_namespaces,
                "wait",
            )
            .await;
            match (&condition, found) {
                (Condition::Create, Err(error)) if error.is_not_found() => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                (Condition::Delete, Err(error)) if error.is_not_found() => return Ok(Vec::new()),
                (_, found) => return found,
            }
        }
    };
    let deadline = tokio::time::Instant::now() + timeout.max(Duration::from_millis(1));
    let late = |label: &str| Error::message(format!("timed out waiting for the condition on {label}"));
    let found = if timeout.is_zero() {
        looked_up.await?
    } else {
        tokio::time::timeout_at(deadline, looked_up)
            .await
            .unwrap_or_else(|_| Err(late(&args.targets.join(" "))))?
    };
    if found.is_empty() && !matches!(condition, Condition::Delete) {
        return Err(Error::message("no matching resources found"));
    }
    let mut errors = Vec::new();
    for found in &found {
        let name = found.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let label = format!("{}/{name}", found.resource.plural);
        let outcome = if timeout.is_zero() {
            if condition.holds(&found.object) { Ok(()) } else { Err(late(&label)) }
        } else {
            tokio::time::timeout_at(deadline, until(session, found, &condition))
                .await
                .unwrap_or_else(|_| Err(late(&label)))
        };
        match outcome {
            Ok(()) => {
                let met = if matches!(condition, Condition::Delete) { "deleted" } else { "condition met" };
                output::line(&format!("{} {met}", resources::label(&found.resource, name)))?;
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}

async fn until(session: &Session, found: &Found, condition: &Condition) -> Result<(), Error> {
    let Found { resource, path, object } = found;
    if matches!(condition, Condition::Delete) {
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
        return super::delete::until_gone(session, resource, path, uid, None).await;
    }
    followed(session, path, |live| condition.holds(live)).await.map(drop)
}

/// Follows an object until it is as wanted, and answers it.
pub(super) async fn followed(
    session: &Session,
    path: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value, Error> {
    let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
    loop {
        let live = session.get(path).await?;
        if wanted(&live) {
            return Ok(live);
        }
        let mut query = QueryWriter::default();
        query.put("watch", "true");
        query.put("fieldSelector", &format!("metadata.name={name}"));
        query.put(
            "resourceVersion",
            live.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("0"),
        );
        let mut stream = session.stream(&format!("{collection}?{}", query.finish()), None).await?;
        let mut buffer = BytesMut::new();
        // A watch that ends is answered by looking again.
        'watch: while let Some(Ok(chunk)) = stream.next().await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                let Ok(frame) = Frame::parse(&line) else { break 'watch };
                match frame.event {
                    EventType::Added | EventType::Modified => {
                        let object = decode(frame.bytes())?;
                        if wanted(&object) {
                            return Ok(object);
                        }
                    }
                    EventType::Deleted | EventType::Error => break 'watch,
                    EventType::Bookmark => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_read_and_checked() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (text, expected) in [
            ("condition=Ready", true),
            ("condition=ready=true", true),
            ("condition=Ready=False", false),
            ("condition=Old", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Pending", false),
            ("jsonpath={.status.podIP}", false),
            ("create", true),
            ("delete", false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&pod), expected, "{text}");
        }
        assert_eq!(
            Condition::parse("ready").unwrap_err().to_string(),
            r#"error: unrecognized condition: "ready""#
        );
    }
}
