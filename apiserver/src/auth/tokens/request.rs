//! `serviceaccounts/token`: a token for an account, perhaps bound to a Pod, Secret or Node.
//!
//! Rules and texts of `k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage` and
//! `pkg/apis/authentication/validation`.

use std::time::Duration;

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
    object::ObjectMeta,
    time,
};
use apiserver_storage::At;
use jiff::Timestamp;
use serde_json::json;

use super::{Claims, KubernetesClaims, Reference, username};
use crate::state::{Server, Storage};

/// The default of `spec.expirationSeconds`.
const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

/// Answers a TokenRequest for an account: the request with its status filled in.
///
/// # Errors
///
/// If the account or the bound object does not exist, or the request is not valid.
pub async fn request_token(
    server: &Server,
    namespace: &str,
    account: &str,
    mut request: Value,
) -> Result<Value, Status> {
    let now = Timestamp::now();
    let storage = &server.storage;
    let found = find(storage, namespace, "serviceaccounts", account).await?;
    let meta = ObjectMeta::from_bytes(&found);
    check_name(&request, "name", account)?;
    check_name(&request, "namespace", namespace)?;
    let spec = &request["spec"];
    let seconds = expiration(spec)
        .map_err(|error| Status::invalid("authentication.k8s.io", "TokenRequest", account, &[error]))?;
    let audiences = match spec["audiences"].as_array() {
        Some(list) if !list.is_empty() => {
            list.iter().filter_map(|audience| audience.as_str().map(ToOwned::to_owned)).collect()
        }
        _ => server.tokens.audiences().to_vec(),
    };
    let mut claims = KubernetesClaims {
        namespace: namespace.to_owned(),
        serviceaccount: Reference { name: account.to_owned(), uid: meta.uid.clone() },
        pod: None,
        secret: None,
        node: None,
    };
    if let Some(reference) = spec.get("boundObjectRef").filter(|reference| !reference.is_null()) {
        bind(storage, &mut claims, reference).await?;
    }
    let expires = now + Duration::from_secs(seconds.unsigned_abs());
    let token = server
        .tokens
        .sign(&Claims {
            aud: audiences.clone(),
            exp: expires.as_second(),
            iat: now.as_second(),
            iss: server.config.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: claims,
            nbf: now.as_second(),
            sub: username(namespace, account),
        })
        .map_err(|error| Status::internal(&format!("failed to generate token: {error}")))?;

    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"]["name"] = json!(account);
    request["metadata"]["namespace"] = json!(namespace);
    request["metadata"]["creationTimestamp"] = json!(time::rfc3339(now));
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"expirationTimestamp": time::rfc3339(expires), "token": token});
    Ok(request)
}

/// The name that a request may repeat must be the one in its path.
fn check_name(request: &Value, field: &str, expected: &str) -> Result<(), Status> {
    match request["metadata"][field].as_str() {
        Some(given) if !given.is_empty() && given != expected => Err(Status::bad_request(format!(
            "metadata.{field}: the request names {given:?}, its path {expected:?}"
        ))),
        _ => Ok(()),
    }
}

fn expiration(spec: &Value) -> Result<i64, FieldError> {
    let path = Path::new("spec").child("expirationSeconds");
    let Some(value) = spec.get("expirationSeconds").filter(|value| !value.is_null()) else {
        return Ok(DEFAULT_SECONDS);
    };
    match value.as_i64() {
        Some(seconds) if seconds < SHORTEST_SECONDS => {
            Err(FieldError::invalid(&path, value.clone(), "may not specify a duration less than 10 minutes"))
        }
        Some(seconds) if seconds > LONGEST_SECONDS => Err(FieldError::invalid(
            &path,
            value.clone(),
            "may not specify a duration larger than 2^32 seconds",
        )),
        Some(seconds) => Ok(seconds),
        None => Err(FieldError::invalid(&path, value.clone(), "must be an integer")),
    }
}

/// Adds the object that the token is to live with.
async fn bind(storage: &Storage, claims: &mut KubernetesClaims, reference: &Value) -> Result<(), Status> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, version, name, uid) = (text("kind"), text("apiVersion"), text("name"), text("uid"));
    let (namespace, resource) = match (version, kind) {
        ("v1", "Pod") => (claims.namespace.as_str(), "pods"),
        ("v1", "Secret") => (claims.namespace.as_str(), "secrets"),
        ("v1", "Node") => ("", "nodes"),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount to a {version}, Kind={kind}"
            )));
        }
    };
    let found = find(storage, namespace, resource, name).await?;
    let meta = ObjectMeta::from_bytes(&found);
    if !uid.is_empty() && uid != meta.uid {
        return Err(Status::conflict(
            "",
            resource,
            name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ),
        ));
    }
    let bound = Reference { name: name.to_owned(), uid: meta.uid };
    match kind {
        "Secret" => claims.secret = Some(bound),
        "Node" => claims.node = Some(bound),
        _ => {
            let pod: Value = serde_json::from_slice(&found)
                .map_err(|error| Status::internal(&format!("pod {name:?} cannot be read: {error}")))?;
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != claims.serviceaccount.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    claims.serviceaccount.name
                )));
            }
            claims.pod = Some(bound);
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
                && let Ok(found) = find(storage, "", "nodes", node).await
            {
                let uid = ObjectMeta::from_bytes(&found).uid;
                claims.node = Some(Reference { name: node.to_owned(), uid });
            }
        }
    }
    Ok(())
}

/// The bytes of an object of the core group.
async fn find(
    storage: &Storage,
    namespace: &str,
    resource: &str,
    name: &str,
) -> Result<bytes::Bytes, Status> {
    let key = if namespace.is_empty() {
        format!("/registry/core/{resource}/{name}")
    } else {
        format!("/registry/core/{resource}/{namespace}/{name}")
    };
    match storage.get(&key, At::Latest).await {
        Ok(Some(item)) => Ok(item.entry.value.clone()),
        Ok(None) => Err(Status::not_found("", resource, name)),
        Err(error) => Err(Status::unavailable(format!("{resource} {name:?} cannot be looked up: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_bounds() {
        assert_eq!(expiration(&json!({})), Ok(3600));
        assert_eq!(expiration(&json!({"expirationSeconds": 600})), Ok(600));
        assert_eq!(
            expiration(&json!({"expirationSeconds": 599})).unwrap_err().to_string(),
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        );
        assert!(expiration(&json!({"expirationSeconds": 1_i64 << 33})).is_err());
    }
}
