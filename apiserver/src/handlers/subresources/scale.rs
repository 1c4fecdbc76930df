//! `scale`: the number of replicas of a workload, in one form for every kind (autoscaling/v1 Scale).
//!
//! Upstream: `pkg/registry/apps/*/storage` (`ScaleREST`).

use api_objects::{
    Resource, Status, Value,
    field::{FieldError, Path},
    params::{WriteParams, WriteVerb},
    patch::{PatchKind, apply},
    schema,
    selector::LabelSelector,
};
use apiserver_storage::At;
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::json;

use super::super::{Exchange, body, respond};
use crate::{
    negotiate,
    registry::{self, metadata},
};

const DEFINITION: &str = "io.k8s.api.autoscaling.v1.Scale";

fn expected() -> body::Expected<'static> {
    body::Expected { kind: "Scale", api_version: "autoscaling/v1", version: "v1", definition: DEFINITION }
}

/// A workload's scale.
fn of(resource: &Resource, workload: &Value) -> Value {
    let metadata = &workload["metadata"];
    let mut scale =
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {}, "status": {}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !metadata[field].is_null() {
            scale["metadata"][field] = metadata[field].clone();
        }
    }
    // A count of zero is left out of spec, as Go's omitempty does; the status always has it.
    if let Some(replicas) = workload["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    scale["status"]["replicas"] = json!(workload["status"]["replicas"].as_i64().unwrap_or(0));
    let selector = &workload["spec"]["selector"];
    // A ReplicationController's selector is a plain map of labels.
    let wrapped = json!({ "matchLabels": selector });
    let selector = if resource.plural == "replicationcontrollers" { &wrapped } else { selector };
    if let Ok(selector) = LabelSelector::from_object(Some(selector)) {
        let text = selector.to_string();
        if !text.is_empty() {
            scale["status"]["selector"] = json!(text);
        }
    }
    scale
}

/// Puts a scale's wish into the workload. The resource version travels with it.
fn put(workload: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", metadata::text(scale, "name"), &[error]));
    }
    let mut changed = workload.clone();
    changed["spec"]["replicas"] = json!(replicas);
    match metadata::text(scale, "resourceVersion") {
        "" => {}
        version => changed["metadata"]["resourceVersion"] = json!(version),
    }
    match metadata::text(scale, "uid") {
        "" => {}
        uid => changed["metadata"]["uid"] = json!(uid),
    }
    Ok(changed)
}

/// GET.
pub(super) async fn get(exchange: Exchange) -> Result<Response<Body>, Status> {
    let item = registry::read(&exchange.call("", false), At::Latest).await?;
    let workload = registry::decode(&item.entry.value, item.entry.revision, &exchange.resource);
    Ok(respond::value(StatusCode::OK, &of(&exchange.resource, &workload), exchange.accepted))
}

/// PUT.
pub(super) async fn update(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Update)?;
    let json = exchange.read_json().await?;
    let (scale, _) = body::decode_as(&expected(), &json, params.field_validation)?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let stored = registry::update(&call, &|workload| put(workload, &scale)).await?;
    let workload = stored.to_value(&exchange.resource);
    Ok(respond::value(StatusCode::OK, &of(&exchange.resource, &workload), exchange.accepted))
}

/// PATCH: the patch is of the scale, not of the workload.
pub(super) async fn patch(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let kind = match negotiate::media_type(&exchange.parts.headers) {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        _ => {
            return Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ]));
        }
    };
    let params = WriteParams::parse(exchange.query(), WriteVerb::Patch)?;
    let taken = std::mem::replace(&mut exchange.body, Body::empty());
    let patch = body::read(taken).await?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let make = |workload: &Value| {
        let mut scale =
            apply(kind, &of(&exchange.resource, workload), &patch, schema::definition(DEFINITION))?;
        body::check_type(&mut scale, &expected(), b"")?;
        put(workload, &scale)
    };
    let stored = registry::update(&call, &make).await?;
    let workload = stored.to_value(&exchange.resource);
    Ok(respond::value(StatusCode::OK, &of(&exchange.resource, &workload), exchange.accepted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_changes_replicas() {
        let resource = api_objects::resource::find("apps", "v1", "replicasets").unwrap();
        let workload = json!({"metadata": {"name": "rs", "namespace": "default", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}});
        let mut scale = of(resource, &workload);
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        scale["spec"]["replicas"] = json!(5);
        assert_eq!(put(&workload, &scale).unwrap()["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(put(&workload, &scale).unwrap_err().code, 422);
    }
}
