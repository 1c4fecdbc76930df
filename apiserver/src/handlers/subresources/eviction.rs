//! `pods/eviction`: a deletion that respects disruption budgets.
//!
//! Upstream: `pkg/registry/core/pod/storage/eviction.go`.

use api_objects::{
    Status, Value,
    params::{DeleteParams, WriteParams, WriteVerb},
    resource,
    selector::LabelSelector,
    status::{StatusCause, StatusDetails},
    time::rfc3339,
};
use apiserver_storage::{At, ListOptions};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::json;

use super::super::{Exchange, body, respond};
use crate::{
    admission,
    registry::{self, Call, metadata},
    status::{Subject, from_store},
};

/// Evicts the pod, or answers 429 when a budget has nothing left.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = WriteParams::parse(exchange.query(), WriteVerb::Create)?;
    let json = exchange.read_json().await?;
    let expected = body::Expected {
        kind: "Eviction",
        api_version: "policy/v1",
        version: "v1",
        definition: "io.k8s.api.policy.v1.Eviction",
    };
    let (eviction, _) = body::decode_as(&expected, &json, params.field_validation)?;
    let call = exchange.call(exchange.manager(&params.field_manager), params.dry_run);
    let given = metadata::text(&eviction, "name");
    if !given.is_empty() && given != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = match &eviction["deleteOptions"] {
        Value::Null => DeleteParams::default(),
        options => DeleteParams::parse("", options.to_string().as_bytes())?,
    };
    options.dry_run |= params.dry_run;
    let item = registry::read(&call, At::Latest).await?;
    let pod = registry::decode(&item.entry.value, item.entry.revision, &exchange.resource);
    let attributes = admission::Attributes::new(&call, admission::Operation::Create);
    admission::validate(&attributes, Some(&eviction), Some(&pod)).await?;

    // A pod that has ended, has not begun or is going already disturbs nothing by leaving.
    let harmless = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || metadata::is_being_deleted(&pod);
    if !harmless {
        spend_budget(&call, &pod, options.dry_run).await?;
    }
    let deletion = Call { subresource: "", dry_run: options.dry_run, ..call };
    registry::delete(&deletion, &options).await?;
    let mut done = Status::success(StatusDetails::default());
    done.details = None;
    done.code = 201;
    let mut response = respond::status(&done, exchange.accepted);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Takes one disruption from the budget that covers the pod, if there is one.
async fn spend_budget(call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<(), Status> {
    let budgets =
        resource::find("policy", "v1", "poddisruptionbudgets").expect("budgets must be in the table");
    let prefix = budgets.key_prefix(call.namespace);
    let listing = call
        .server
        .storage
        .list(&prefix, &ListOptions::default(), None)
        .await
        .map_err(|error| from_store(&error, Subject { resource: budgets, name: "" }))?;
    let covering: Vec<Value> = listing
        .items
        .iter()
        .map(|item| registry::decode(&item.entry.value, item.entry.revision, budgets))
        .filter(|budget| covers(budget, pod))
        .collect();
    let budget = match covering.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let name = metadata::text(budget, "name");
    let spend = Call { resource: budgets, subresource: "status", name, dry_run, ..*call };
    registry::update(&spend, &|budget| decrement(budget, call)).await?;
    Ok(())
}

fn covers(budget: &Value, pod: &Value) -> bool {
    let Ok(selector) = LabelSelector::from_object(budget["spec"].get("selector")) else { return false };
    selector.matches_with(|key| pod["metadata"]["labels"][key].as_str())
}

fn decrement(budget: &Value, call: &Call<'_>) -> Result<Value, Status> {
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    let observed = budget["status"]["observedGeneration"].as_i64().unwrap_or(0);
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or(0);
    let name = metadata::text(budget, "name");
    let refuse = |detail: String, seconds: u32| {
        let cause =
            StatusCause { reason: "DisruptionBudget".to_owned(), message: detail, field: String::new() };
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Status::too_many_requests(message, seconds).with_causes(vec![cause])
    };
    if observed < generation {
        return Err(refuse(
            format!("The disruption budget {name} is still being processed by the server."),
            10,
        ));
    }
    if allowed <= 0 {
        let healthy = budget["status"]["currentHealthy"].as_i64().unwrap_or(0);
        let desired = budget["status"]["desiredHealthy"].as_i64().unwrap_or(0);
        return Err(refuse(
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"),
            0,
        ));
    }
    let mut changed = budget.clone();
    changed["status"]["disruptionsAllowed"] = json!(allowed - 1);
    changed["status"]["disruptedPods"][call.name] = json!(rfc3339(call.now));
    Ok(changed)
}
