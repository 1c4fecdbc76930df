//! `pods/binding`, and the older `bindings`: the one way in which a pod gets its node.
//!
//! Upstream: `pkg/registry/core/pod/storage` (`BindingREST.assignPod`).

use api_objects::{
    Resource, Status, Value,
    field::{FieldError, Path},
    params::{WriteParams, WriteVerb},
    resource,
    time::rfc3339,
};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use super::super::{Exchange, body, respond, warn};
use crate::registry::{self, Call, metadata};

/// Binds the pod that the path or the body names.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Create)?;
    let json = exchange.read_json().await?;
    let expected = body::Expected {
        kind: "Binding",
        api_version: "v1",
        version: "v1",
        definition: "io.k8s.api.core.v1.Binding",
    };
    let (binding, warnings) = body::decode_as(&expected, &json, params.field_validation)?;
    let node = target(&binding)?;
    let pods: &Resource = resource::find("", "v1", "pods").expect("pods must be in the table");
    let asked = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let in_body = metadata::text(&binding, "name");
    // On the path of a pod the name in the body must be that pod's, or absent.
    if !asked.subresource.is_empty() && !in_body.is_empty() && in_body != asked.name {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Binding object: {in_body} != {}",
            asked.name
        )));
    }
    let name = if asked.subresource.is_empty() { in_body } else { asked.name };
    let call = Call { resource: pods, subresource: "binding", name, ..asked };
    registry::update(&call, &|pod| bind(&call, pod, &binding, node)).await?;
    let mut done = Status::success(api_objects::status::StatusDetails::default());
    done.details = None;
    done.code = 201;
    let mut response = respond::status(&done, exchange.accepted);
    *response.status_mut() = StatusCode::CREATED;
    warn(&mut response, &warnings);
    Ok(response)
}

/// The node that a binding names.
fn target(binding: &Value) -> Result<&str, Status> {
    let target = &binding["target"];
    let path = Path::new("target");
    let mut errors = Vec::new();
    let kind = target["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    let name = target["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        Ok(name)
    } else {
        Err(Status::invalid("", "Binding", metadata::text(binding, "name"), &errors))
    }
}

/// The pod on its node.
fn bind(call: &Call<'_>, pod: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let wanted = &binding["metadata"];
    if let Some(uid) =
        wanted["uid"].as_str().filter(|uid| !uid.is_empty() && *uid != metadata::text(pod, "uid"))
    {
        return Err(call.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            metadata::text(pod, "uid")
        )));
    }
    if metadata::is_being_deleted(pod) {
        return Err(
            call.conflict(&format!("pod {} is being deleted, cannot be assigned to a host", call.name))
        );
    }
    let present = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !present.is_empty() {
        return Err(call.conflict(&format!("pod {} is already assigned to node {present:?}", call.name)));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(call.conflict(&format!("pod {} has non-empty .spec.schedulingGates", call.name)));
    }
    let mut bound = pod.clone();
    if let Some(version) = wanted["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        bound["metadata"]["resourceVersion"] = json!(version);
    }
    bound["spec"]["nodeName"] = json!(node);
    for field in ["annotations", "labels"] {
        for (key, value) in wanted[field].as_object().into_iter().flatten() {
            bound["metadata"][field][key] = value.clone();
        }
    }
    set_scheduled(&mut bound, call.now);
    Ok(bound)
}

/// The condition that the assignment makes true.
fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": rfc3339(now)});
    if !pod["metadata"]["generation"].is_null() {
        scheduled["observedGeneration"] = pod["metadata"]["generation"].clone();
    }
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(condition) if condition["status"] == "True" => {}
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    pod["status"]["conditions"] = Value::Array(conditions);
}
