//! DELETE of one object or of a whole selection.

use api_objects::{
    Status,
    params::{DeleteParams, ListParams, Preconditions},
    status::StatusDetails,
};
use axum::body::Body;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Response, StatusCode};

use super::{Exchange, list, list_kind, respond, selection::Selection};
use crate::registry::{self, Call, metadata, strategy, write::Deleted};

/// How many objects of a collection are deleted at once: enough to share syncs of the store, too few to
/// crowd out other writers.
const CONCURRENCY: usize = 32;

/// Deletes the object, and answers it or a Status, as upstream does for its kind.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let json = exchange.read_json().await?;
    let params = DeleteParams::parse(exchange.query(), &json)?;
    let call = exchange.call("", params.dry_run);
    match registry::delete(&call, &params).await? {
        Deleted::Pending(stored) => exchange.answer(StatusCode::OK, &stored, &[]),
        Deleted::Gone(stored) if strategy::of(call.resource).returns_deleted => {
            exchange.answer(StatusCode::OK, &stored, &[])
        }
        Deleted::Gone(stored) => {
            let object = stored.to_value(call.resource);
            let details = StatusDetails {
                name: call.name.to_owned(),
                group: call.resource.group.to_string(),
                kind: call.resource.plural.to_string(),
                uid: metadata::text(&object, "uid").to_owned(),
                ..StatusDetails::default()
            };
            Ok(respond::status(&Status::success(details), exchange.accepted))
        }
    }
}

/// Deletes everything that is selected, and answers the list of it.
pub(super) async fn serve_collection(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let json = exchange.read_json().await?;
    let params = DeleteParams::parse(exchange.query(), &json)?;
    let selected = ListParams::parse(exchange.query())?;
    let selection = Selection::new(&exchange.resource, exchange.namespace(), &selected)?;
    let call = exchange.call("", params.dry_run);
    let page = list::read(&call, &selected, &selection).await?;
    let meta = page.meta(&selected, &selection);
    let listing = page.listing;
    // The preconditions are one object's; of a collection they mean nothing.
    let params = DeleteParams { preconditions: Preconditions::default(), ..params };
    let mut deletions = Vec::with_capacity(listing.items.len());
    for item in &listing.items {
        deletions.push(delete_listed(&call, &item.entry.key, &params));
    }
    futures_util::stream::iter(deletions)
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let api_version = call.resource.api_version();
    let mut writer = api_objects::list::ListWriter::new(&list_kind(call.resource), &api_version, &meta, 0);
    for item in &listing.items {
        writer.object(&registry::serve(&item.entry.value, call.resource), item.entry.revision);
    }
    Ok(respond::json(StatusCode::OK, writer.finish(), exchange.accepted))
}

/// Deletes an object of a collection; one that has gone meanwhile is no error.
async fn delete_listed(call: &Call<'_>, key: &str, params: &DeleteParams) -> Result<(), Status> {
    let mut from_the_end = key.rsplit('/');
    let name = from_the_end.next().unwrap_or_default();
    let namespace = if call.resource.namespaced { from_the_end.next().unwrap_or_default() } else { "" };
    match registry::delete(&Call { name, namespace, ..*call }, params).await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}
