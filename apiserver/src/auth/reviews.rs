//! The virtual resources that answer questions about identity and permission: TokenReview,
//! SelfSubjectReview, the SubjectAccessReviews and SelfSubjectRulesReview.
//!
//! Each function takes the decoded request and answers it with its `status` filled in; nothing is stored.
//! See <https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/>.

use std::collections::BTreeMap;

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
};
use serde_json::json;

use super::{
    UserInfo,
    authz::{Action, Decision},
};
use crate::state::Server;

/// A user as reviews show it.
fn user_value(user: &UserInfo) -> Value {
    let UserInfo { name, uid, groups, extra } = user;
    let mut value = json!({"username": name});
    if !uid.is_empty() {
        value["uid"] = json!(uid);
    }
    if !groups.is_empty() {
        value["groups"] = json!(groups);
    }
    if !extra.is_empty() {
        value["extra"] = json!(extra);
    }
    value
}

/// `selfsubjectreviews`: who am I?
#[must_use]
pub fn self_subject_review(user: &UserInfo, mut review: Value) -> Value {
    review["status"] = json!({"userInfo": user_value(user)});
    review
}

/// `tokenreviews`: whose token is this, and is it for one of these audiences?
///
/// # Errors
///
/// If the review names no token.
pub async fn token_review(server: &Server, mut review: Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = strings(&review["spec"]["audiences"]);
    let outcome = server.authenticator.authenticate_token(server, &token, &asked).await;
    review["status"] = match outcome {
        Ok((user, audiences)) => {
            let mut status = json!({"authenticated": true, "user": user_value(&user)});
            if !audiences.is_empty() {
                status["audiences"] = json!(audiences);
            }
            status
        }
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    };
    Ok(review)
}

/// `subjectaccessreviews`: may somebody do something?
///
/// # Errors
///
/// If the review names nobody, or not exactly one action.
pub async fn subject_access_review(server: &Server, review: Value) -> Result<Value, Status> {
    let user = subject(&review["spec"]);
    validate(&review["spec"], "SubjectAccessReview", true)?;
    Ok(answer_access(server, &user, review).await)
}

/// `localsubjectaccessreviews`: may somebody do something in this namespace?
///
/// # Errors
///
/// As [`subject_access_review`]; and if the review's namespace is another than the request's.
pub async fn local_subject_access_review(
    server: &Server,
    namespace: &str,
    review: Value,
) -> Result<Value, Status> {
    const KIND: &str = "LocalSubjectAccessReview";
    let spec = &review["spec"];
    validate(spec, KIND, true)?;
    let asked = spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    let attributes = Path::new("spec").child("resourceAttributes");
    if spec["nonResourceAttributes"].is_object() {
        let error = FieldError::invalid(
            &Path::new("spec").child("nonResourceAttributes"),
            spec["nonResourceAttributes"].clone(),
            "disallowed on this kind of request",
        );
        return Err(invalid(KIND, error));
    }
    if asked != namespace {
        let error =
            FieldError::invalid(&attributes.child("namespace"), asked, "must match metadata.namespace");
        return Err(invalid(KIND, error));
    }
    let user = subject(spec);
    Ok(answer_access(server, &user, review).await)
}

/// `selfsubjectaccessreviews`: may I do something?
///
/// # Errors
///
/// If the review does not name exactly one action.
pub async fn self_subject_access_review(
    server: &Server,
    user: &UserInfo,
    review: Value,
) -> Result<Value, Status> {
    validate(&review["spec"], "SelfSubjectAccessReview", false)?;
    Ok(answer_access(server, user, review).await)
}

/// `selfsubjectrulesreviews`: what may I do in a namespace?
///
/// # Errors
///
/// If the review names no namespace.
pub fn self_subject_rules_review(
    server: &Server,
    user: &UserInfo,
    mut review: Value,
) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in server.authorizer.rules_of(user, &namespace) {
        if rule.non_resource_urls.is_empty() {
            let mut value =
                json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                value["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(value);
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    review["status"] = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    Ok(review)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|entry| entry.as_str().map(ToOwned::to_owned)).collect()
}

/// The user that a review asks about, exactly as given: no group is added.
fn subject(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.to_lowercase(), strings(values)))
        .collect();
    UserInfo {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: strings(&spec["groups"]),
        extra,
    }
}

fn invalid(kind: &str, error: FieldError) -> Status {
    Status::invalid("authorization.k8s.io", kind, "", &[error])
}

/// Exactly one action; and somebody, where the review is not about its sender
/// (`k8s.io/kubernetes/pkg/apis/authorization/validation`).
fn validate(spec: &Value, kind: &str, needs_subject: bool) -> Result<(), Status> {
    let path = Path::new("spec");
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => {
            let error = FieldError::invalid(
                &path.child("nonResourceAttributes"),
                spec["nonResourceAttributes"].clone(),
                "cannot be specified in combination with resourceAttributes",
            );
            return Err(invalid(kind, error));
        }
        (false, false) => {
            let error = FieldError::invalid(
                &path.child("resourceAttributes"),
                spec["resourceAttributes"].clone(),
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            );
            return Err(invalid(kind, error));
        }
        _ => {}
    }
    let nobody = spec["user"].as_str().unwrap_or_default().is_empty() && strings(&spec["groups"]).is_empty();
    if needs_subject && nobody {
        let error = FieldError::invalid(
            &path.child("user"),
            spec["user"].clone(),
            "at least one of user or group must be specified",
        );
        return Err(invalid(kind, error));
    }
    Ok(())
}

async fn answer_access(server: &Server, user: &UserInfo, mut review: Value) -> Value {
    let spec = &review["spec"];
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let decision = if resource.is_object() {
        let field_selector = field_selector(&resource["fieldSelector"]);
        let action = Action::Resource {
            verb: &text(resource, "verb"),
            group: &text(resource, "group"),
            version: &text(resource, "version"),
            resource: &text(resource, "resource"),
            subresource: &text(resource, "subresource"),
            namespace: &text(resource, "namespace"),
            name: &text(resource, "name"),
            field_selector: &field_selector,
        };
        server.authorizer.authorize(&server.storage, user, action).await
    } else {
        let action = Action::Path { verb: &text(path, "verb"), path: &text(path, "path") };
        server.authorizer.authorize(&server.storage, user, action).await
    };
    let (allowed, reason) = match decision {
        Decision::Allowed(reason) => (true, reason),
        Decision::NoOpinion(reason) => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    review["status"] = status;
    review
}

/// A review's field selector as the text that a request would carry: the raw form, or the requirements that
/// name one value.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    selector["requirements"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|requirement| requirement["operator"] == "In")
        .filter_map(|requirement| {
            let key = requirement["key"].as_str()?;
            match strings(&requirement["values"]).as_slice() {
                [value] => Some(format!("{key}={value}")),
                _ => None,
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_exactly_one_thing_about_somebody() {
        let message = |spec: Value, needs_subject| {
            validate(&spec, "SubjectAccessReview", needs_subject).map_err(|status| status.message)
        };
        assert_eq!(message(json!({"user": "a", "resourceAttributes": {}}), true), Ok(()));
        assert_eq!(message(json!({"nonResourceAttributes": {}}), false), Ok(()));
        assert!(message(json!({"resourceAttributes": {}}), true).unwrap_err().contains("spec.user"));
        assert!(message(json!({"user": "a"}), true).unwrap_err().contains("spec.resourceAttributes"));
        let both = json!({"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {}});
        assert!(message(both, true).unwrap_err().contains("in combination with resourceAttributes"));
    }
}
