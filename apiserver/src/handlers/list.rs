//! GET of a collection: one state of it, whole or in pages, put together from the stored bytes.
//!
//! The meaning of `resourceVersion`, `resourceVersionMatch`, `limit` and `continue` is the table of
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>.

use std::sync::Arc;

use api_objects::{
    Resource, Status, Value,
    list::{ContinueToken, ListMeta},
    object,
    params::{ListParams, VersionMatch},
};
use apiserver_storage::{
    At, ListOptions, StoreError,
    cacher::{Filter, Item, ItemListing},
};
use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::{
    Exchange, get, list_kind, respond,
    selection::Selection,
    shape::{Columns, Include, View, write_partial},
};
use crate::{
    negotiate::{Encoding, Shape},
    projector::ObjectIndex,
    registry::{Call, conversion, serve as served_bytes},
};

/// Lists above this size are sent in pieces of it, so that no reader makes the server hold a whole list.
const PIECE: usize = 128 * 1024;

/// Answers a list.
pub(super) async fn serve(exchange: Exchange) -> Result<Response<Body>, Status> {
    let params = ListParams::parse(exchange.query())?;
    let selection = Selection::new(&exchange.resource, exchange.namespace(), &params)?;
    let page = read(&exchange.call("", false), &params, &selection).await?;
    let meta = page.meta(&params, &selection);
    let resource = &exchange.resource;
    let view = View {
        resource,
        shape: exchange.accepted.shape,
        include: Include::parse(exchange.query())?,
        now: Timestamp::now(),
    };
    let items = page.listing.items;
    match exchange.accepted.shape {
        Shape::Table => {
            let objects = items.iter().map(|item| (&item.entry.value, item.entry.revision));
            let table = view.table_with(objects, &meta, Columns::Shown);
            Ok(respond::json(StatusCode::OK, table, exchange.accepted))
        }
        Shape::Partial => {
            let head = head("PartialObjectMetadataList", "meta.k8s.io/v1", &meta);
            Ok(assembled(head, items, Arc::clone(resource), Form::Partial, &exchange))
        }
        Shape::Object | Shape::AggregatedDiscovery => {
            let head = head(&list_kind(resource), &resource.api_version(), &meta);
            Ok(assembled(head, items, Arc::clone(resource), Form::Whole, &exchange))
        }
    }
}

/// One page of a collection.
pub(super) struct Page {
    pub(super) listing: ItemListing<ObjectIndex>,
}

/// Reads what the parameters ask for.
pub(super) async fn read(
    call: &Call<'_>,
    params: &ListParams,
    selection: &Selection,
) -> Result<Page, Status> {
    let token = match params.continue_token.as_str() {
        "" => None,
        text => Some(ContinueToken::decode(text).map_err(|error| Status::bad_request(error.to_string()))?),
    };
    let at = match &token {
        Some(_) if !matches!(params.resource_version.as_str(), "" | "0") => {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Some(token) => token.revision.map_or(At::Latest, At::Exact),
        None => state(params)?,
    };
    let after_key =
        token.as_ref().map(|token| format!("{}{}", selection.collection, token.start.trim_end_matches('\0')));
    let options = ListOptions {
        at,
        limit: (params.limit > 0).then(|| usize::try_from(params.limit).unwrap_or(usize::MAX)),
        after_key,
    };
    let filter = |item: &Item<ObjectIndex>| selection.matches(item);
    let filter: Filter<'_, ObjectIndex> = if selection.is_everything() { None } else { Some(&filter) };
    match call.server.storage.list(&selection.prefix, &options, filter).await {
        Ok(listing) => Ok(Page { listing }),
        Err(StoreError::Compacted { .. }) => Err(expired(token)),
        Err(error) => Err(call.store_error(&error)),
    }
}

/// The state that a list without a token shows.
fn state(params: &ListParams) -> Result<At, Status> {
    Ok(match (params.resource_version.as_str(), params.resource_version_match) {
        ("", _) => At::Latest,
        ("0", _) => At::Any,
        (text, Some(VersionMatch::Exact)) => At::Exact(get::parse_revision(text)?),
        // The legacy meaning of a resource version together with a limit is Exact.
        (text, None) if params.limit > 0 => At::Exact(get::parse_revision(text)?),
        (text, _) => At::NotOlderThan(get::parse_revision(text)?),
    })
}

/// 410, with a token that goes on from the same place in a later state where there was one.
fn expired(token: Option<ContinueToken>) -> Status {
    let Some(token) = token else {
        return Status::expired("The resourceVersion for the provided list is too old.");
    };
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let fresh = ContinueToken { revision: None, start: token.start };
    status.metadata.insert("continue".to_owned(), fresh.encode().into());
    status
}

impl Page {
    /// What the list says of itself: its revision, and where it goes on.
    pub(super) fn meta(&self, params: &ListParams, selection: &Selection) -> ListMeta {
        let listing = &self.listing;
        let mut meta = ListMeta { resource_version: listing.revision.to_string(), ..ListMeta::default() };
        if params.limit > 0
            && listing.remaining > 0
            && let Some(last) = listing.items.last()
        {
            let start = last.entry.key.strip_prefix(&*selection.collection).unwrap_or(&last.entry.key);
            let token = ContinueToken { revision: Some(listing.revision), start: format!("{start}\0") };
            meta.continue_token = token.encode();
            // How many of the rest match a selector is not known, and upstream does not say.
            if selection.is_everything() {
                meta.remaining_item_count = Some(listing.remaining as u64);
            }
        }
        meta
    }
}

// === writing ===

/// What stands before the items.
fn head(kind: &str, api_version: &str, meta: &ListMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"kind\":");
    out.extend_from_slice(Value::from(kind).to_string().as_bytes());
    out.extend_from_slice(b",\"apiVersion\":");
    out.extend_from_slice(Value::from(api_version).to_string().as_bytes());
    out.extend_from_slice(b",\"metadata\":");
    serde_json::to_writer(&mut out, meta).expect("a list's metadata must be encodable");
    out.extend_from_slice(b",\"items\":[");
    out
}

/// How an item is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Partial,
}

/// The response of a list of encoded items.
fn assembled(
    head: Vec<u8>,
    items: Vec<Arc<Item<ObjectIndex>>>,
    resource: Arc<Resource>,
    form: Form,
    exchange: &Exchange,
) -> Response<Body> {
    let size = head.len() + items.iter().map(|item| item.entry.value.len() + 32).sum::<usize>();
    let pieces = Pieces { out: Some(head), items: items.into_iter(), first: true, resource, form };
    let accepted = exchange.accepted;
    if size <= PIECE || accepted.pretty || accepted.encoding == Encoding::Yaml {
        return respond::json(StatusCode::OK, pieces.flatten().collect(), accepted);
    }
    respond::pieces(pieces, size, accepted)
}

/// Writes a list piece by piece.
struct Pieces {
    /// The piece under construction; `None` once the list is closed.
    out: Option<Vec<u8>>,
    items: std::vec::IntoIter<Arc<Item<ObjectIndex>>>,
    first: bool,
    resource: Arc<Resource>,
    form: Form,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = self.out.take()?;
        let converted = conversion::is_needed(&self.resource);
        for item in self.items.by_ref() {
            if !std::mem::replace(&mut self.first, false) {
                out.push(b',');
            }
            let entry = &item.entry;
            match (self.form, converted) {
                (Form::Whole, false) => object::write_list_item(&entry.value, entry.revision, &mut out),
                (Form::Whole, true) => {
                    let bytes = served_bytes(&entry.value, &self.resource);
                    object::write_list_item(&bytes, entry.revision, &mut out);
                }
                (Form::Partial, _) => {
                    write_partial(&served_bytes(&entry.value, &self.resource), entry.revision, &mut out);
                }
            }
            if out.len() >= PIECE {
                self.out = Some(Vec::with_capacity(PIECE + PIECE / 8));
                return Some(out);
            }
        }
        out.extend_from_slice(b"]}");
        Some(out)
    }
}
