//! Reviews: objects that are questions, and come back with the answer in their status.

use api_objects::Status;
use axum::body::Body;
use http::{Response, StatusCode};

use super::super::{Exchange, body, respond};
use crate::{auth::reviews, registry::metadata};

/// Answers the question in the body.
pub(super) async fn serve(mut exchange: Exchange) -> Result<Response<Body>, Status> {
    let params =
        api_objects::params::WriteParams::parse(exchange.query(), api_objects::params::WriteVerb::Create)?;
    let json = exchange.read_json().await?;
    let (mut review, _) = body::decode(&exchange.resource, &json, params.field_validation)?;
    metadata::fit_namespace(&exchange.resource, exchange.namespace(), &mut review)?;
    let user = &exchange.context.user;
    let server = &exchange.server;
    let review = match &*exchange.resource.plural {
        "selfsubjectreviews" => reviews::self_subject_review(user, review),
        "tokenreviews" => reviews::token_review(server, review).await?,
        "subjectaccessreviews" => reviews::subject_access_review(server, review).await?,
        "localsubjectaccessreviews" => {
            reviews::local_subject_access_review(server, &exchange.context.info.namespace, review).await?
        }
        "selfsubjectaccessreviews" => reviews::self_subject_access_review(server, user, review).await?,
        "selfsubjectrulesreviews" => reviews::self_subject_rules_review(server, user, review)?,
        other => return Err(Status::unavailable(format!("{other} are not answered by this server yet"))),
    };
    Ok(respond::value(StatusCode::CREATED, &review, exchange.accepted))
}
