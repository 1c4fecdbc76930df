//! `kubectl describe`.

use api_objects::params::QueryWriter;
use api_objects::{Resource, Value};
use jiff::Timestamp;

use crate::cli::DescribeArgs;
use crate::describe::{self, Subject};
use crate::error::Error;
use crate::manifests;
use crate::output;
use crate::resources::{self, Names, Target};
use crate::session::Session;

/// Carries out the command.
pub(crate) async fn run(args: &DescribeArgs, session: &Session) -> Result<(), Error> {
    let mut targets = Vec::new();
    for manifest in manifests::read(&args.files).await? {
        let resource = session.resource_of(&manifest.object, &manifest.source).await?;
        let name = manifest.object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        targets.push(Target { resource, name });
    }
    if targets.is_empty() {
        targets = resources::targets(session, &args.targets, Names::Optional, "describe").await?;
    }
    let mut errors = Vec::new();
    let mut found = Vec::new();
    for target in &targets {
        match find(args, session, target).await {
            Ok(objects) => {
                found.extend(objects.into_iter().map(|object| (&target.resource, object)));
            }
            Err(error) => errors.push(error),
        }
    }
    // Of several objects only what they are is told, as upstream does it.
    let with_events = args.show_events && found.len() < 2;
    let mut texts = Vec::new();
    for (resource, object) in &found {
        texts.push(one(with_events, session, resource, object).await);
    }
    if texts.is_empty() && errors.is_empty() {
        output::complain(&format!("No resources found in {} namespace.", session.namespace));
    }
    output::print(&texts.join("\n\n"))?;
    Error::several(errors)
}

async fn list(args: &DescribeArgs, session: &Session, resource: &Resource) -> Result<Vec<Value>, Error> {
    let mut query = QueryWriter::default();
    query.put_text("labelSelector", args.selector.as_deref().unwrap_or_default());
    let namespace = if args.all_namespaces { "" } else { session.namespace.as_str() };
    let path = format!("{}?{}", resource.collection_path(namespace), query.finish());
    Ok(super::get::typed_items(&session.get(&path).await?))
}

/// The objects of a target. A name that does not exist may be the beginning of others.
async fn find(args: &DescribeArgs, session: &Session, target: &Target) -> Result<Vec<Value>, Error> {
    let Some(name) = &target.name else {
        return list(args, session, &target.resource).await;
    };
    match session.get_object(&target.resource, &session.namespace, name).await {
        Ok(object) => Ok(vec![object]),
        Err(error) if error.is_not_found() => {
            let mut objects = list(args, session, &target.resource).await?;
            objects
                .retain(|object| describe::text_at(object, "/metadata/name", "").starts_with(name.as_str()));
            if objects.is_empty() { Err(error) } else { Ok(objects) }
        }
        Err(error) => Err(error),
    }
}

async fn one(with_events: bool, session: &Session, resource: &Resource, object: &Value) -> String {
    let text = |pointer: &str| describe::text_at(object, pointer, "").to_owned();
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let mut events = None;
    if with_events {
        let mut query = QueryWriter::default();
        let mut selector = format!("involvedObject.name={name},involvedObject.kind={}", resource.kind);
        if resource.namespaced {
            selector.push_str(&format!(",involvedObject.uid={}", text("/metadata/uid")));
        }
        query.put("fieldSelector", &selector);
        let path = if namespace.is_empty() {
            format!("/api/v1/events?{}", query.finish())
        } else {
            format!("/api/v1/namespaces/{namespace}/events?{}", query.finish())
        };
        // A description without events is better than none.
        events = session.get(&path).await.ok().and_then(|list| list["items"].as_array().cloned());
    }
    let selection = match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Node") => Some(("/api/v1/pods".to_owned(), "fieldSelector", format!("spec.nodeName={name}"))),
        ("apps", "ReplicaSet") => {
            let selector = describe::selector_text(object.pointer("/spec/selector"));
            Some((format!("/api/v1/namespaces/{namespace}/pods"), "labelSelector", selector))
        }
        _ => None,
    };
    let mut pods = Vec::new();
    if let Some((path, parameter, selector)) = selection {
        let mut query = QueryWriter::default();
        query.put(parameter, &selector);
        if let Ok(list) = session.get(&format!("{path}?{}", query.finish())).await {
            pods = list["items"].as_array().cloned().unwrap_or_default();
        }
    }
    describe::describe(&Subject {
        resource,
        object,
        events: events.as_deref(),
        pods: &pods,
        now: Timestamp::now(),
    })
}
