//! `serviceaccounts/token`: a token for an account, bound to a pod where that is asked for.

use api_objects::{
    Status,
    params::{WriteParams, WriteVerb},
};
use axum::body::Body;
use http::{Response, StatusCode};

use super::super::{Exchange, respond};
use crate::{admission, auth::tokens::request_token};

/// Issues the token that the body asks for.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    WriteParams::parse(exchange.query(), WriteVerb::Create)?;
    let json = exchange.read_json().await?;
    let request = serde_json::from_slice(&json)
        .map_err(|error| Status::bad_request(format!("the TokenRequest cannot be read: {error}")))?;
    let info = &exchange.context.info;
    let call = exchange.call("", false);
    let attributes = admission::Attributes::new(&call, admission::Operation::Create);
    admission::validate(&attributes, Some(&request), None).await?;
    let answer = request_token(&exchange.server, &info.namespace, &info.name, request).await?;
    Ok(respond::value(StatusCode::CREATED, &answer, exchange.accepted))
}
