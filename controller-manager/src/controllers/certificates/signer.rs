//! Signs approved requests of the three signers that Kubernetes itself has.
//!
//! As upstream's `pkg/controller/certificates/signer`: a request that is not what its signer signs gets the
//! condition `Failed`; requests of foreign signers are left to them.

use std::{sync::Arc, time::Duration};

use api_objects::{
    Resource, Value,
    certificates::{
        API_CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, SigningRequest,
        api_client_usages_problem,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{Client, Error, Informer, Key};
use jiff::Timestamp;
use serde_json::json;

use super::{
    super::{Action, Context, Reconciler},
    RequestView,
    authority::{Authority, Certificate, Validity},
};
use crate::config::Signing;

/// Upstream's least lifetime of a certificate that asks for one.
const SHORTEST: Duration = Duration::from_secs(600);

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is not approved, done, or not ours.
    Leave,
    /// It can never be signed.
    Fail(String),
    /// It is signed.
    Sign(Box<SigningRequest>),
}

/// Pure.
fn decide(view: &RequestView) -> Decision {
    if !view.is("Approved") || view.is("Denied") || view.is("Failed") || !view.certificate.is_empty() {
        return Decision::Leave;
    }
    let usages = view.usages();
    let check: &dyn Fn(&SigningRequest) -> Option<String> = match view.signer.as_str() {
        API_CLIENT_SIGNER => &|_| api_client_usages_problem(&usages),
        KUBELET_CLIENT_SIGNER => &|request| request.kubelet_client_problem(&usages),
        KUBELET_SERVING_SIGNER => &|request| request.kubelet_serving_problem(&usages),
        _ => return Decision::Leave,
    };
    match SigningRequest::parse(&view.request) {
        Err(error) => Decision::Fail(error.to_string()),
        Ok(request) => check(&request).map_or_else(|| Decision::Sign(Box::new(request)), Decision::Fail),
    }
}

/// How long a certificate lives: as asked, but not longer than we give and not shorter than makes sense.
fn lifetime(asked_seconds: Option<i64>, most: Duration) -> Duration {
    let asked = asked_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    asked.map_or(most, |asked| asked.max(SHORTEST).min(most))
}

/// The controller. Keys are requests.
pub(super) struct Signer {
    client: Client,
    requests_resource: Arc<Resource>,
    requests: Informer<RequestView>,
    signing: Signing,
}

impl Signer {
    pub(super) fn new(
        context: &Context,
        requests_resource: &Arc<Resource>,
        requests: &Informer<RequestView>,
        signing: &Signing,
    ) -> Self {
        Self {
            client: context.client.clone(),
            requests_resource: requests_resource.clone(),
            requests: requests.clone(),
            signing: signing.clone(),
        }
    }

    /// The files are read for each certificate: they are few, and a new authority counts at once.
    async fn sign(&self, view: &RequestView, request: &SigningRequest) -> Result<String, Error> {
        let read = async |path: &std::path::Path| {
            let text = tokio::fs::read_to_string(path).await;
            text.map_err(|error| Error::Config(format!("failed to read `{}`: {error}", path.display())))
        };
        let (certificate, key) = (read(&self.signing.certificate).await?, read(&self.signing.key).await?);
        let signed = Authority::load(&certificate, &key).and_then(|authority| {
            let lifetime = lifetime(view.expiration_seconds, self.signing.duration);
            authority.sign(&Certificate {
                request,
                usages: &view.usages(),
                validity: Validity::new(Timestamp::now(), lifetime, authority.not_after()),
            })
        });
        signed.map_err(|error| Error::Config(client::error::chain(&error)))
    }
}

impl Reconciler for Signer {
    type Key = Key;
    const NAME: &'static str = "certificate-signer";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let Some(view) = self.requests.get(key) else { return Ok(Action::AwaitChange) };
        let status = match decide(&view) {
            Decision::Leave => return Ok(Action::AwaitChange),
            Decision::Fail(message) => Err(json!({"type": "Failed", "status": "True",
                "reason": "SignerValidationFailure", "message": message})),
            Decision::Sign(request) => Ok(self.sign(&view, &request).await?),
        };
        let mut object: Value = self.client.get(&self.requests_resource, "", &key.name).await?;
        let is_done =
            object["status"]["certificate"].as_str().is_some_and(|certificate| !certificate.is_empty());
        if object["metadata"]["uid"] != json!(view.uid) || is_done {
            return Ok(Action::AwaitChange);
        }
        match status {
            Ok(certificate) => object["status"]["certificate"] = json!(STANDARD.encode(certificate)),
            Err(condition) => {
                let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.push(condition);
                object["status"]["conditions"] = json!(conditions);
            }
        }
        self.client.update_subresource(&self.requests_resource, "", &key.name, "status", &object).await?;
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Condition, *};

    #[test]
    fn what_is_asked_for_is_bounded() {
        let year = Duration::from_secs(31_536_000);
        assert_eq!(lifetime(None, year), year);
        assert_eq!(lifetime(Some(3600), year), Duration::from_secs(3600));
        assert_eq!(lifetime(Some(1), year), SHORTEST);
        assert_eq!(lifetime(Some(99_999_999), year), year);
        assert_eq!(lifetime(Some(3600), Duration::from_secs(30)), Duration::from_secs(30));
    }

    #[test]
    fn only_what_is_approved_is_judged_and_foreign_signers_are_left_alone() {
        let approved = Condition { r#type: "Approved".into(), status: "True".into(), last_update_time: None };
        let mut view = RequestView { signer: KUBELET_CLIENT_SIGNER.into(), ..RequestView::default() };
        assert_eq!(decide(&view), Decision::Leave);
        view.conditions = vec![approved];
        assert_eq!(decide(&view), Decision::Fail("PEM block type must be CERTIFICATE REQUEST".into()));
        view.signer = "example.com/own".into();
        assert_eq!(decide(&view), Decision::Leave);
    }
}
