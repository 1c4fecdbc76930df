//! Certificate requests carry who made them, and only who may decide of a signer's certificates decides.
//!
//! That the requester's facts are the request's and never its body's is part of the kind's strategy upstream
//! (`pkg/registry/certificates/certificates`), which knows the user there. The checks are upstream's plug-ins
//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction (`plugin/pkg/admission/certificates`).

use api_objects::{
    Status, Value,
    certificates::{API_CLIENT_SIGNER, SigningRequest},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Attributes, Operation};
use crate::auth::authz::{Action, Decision, MASTERS};

const GROUP: &str = "certificates.k8s.io";

/// Writes the requester into a new request.
pub(super) fn mutate(attributes: &Attributes<'_>, request: &mut Value) {
    let is_new =
        attributes.operation == Operation::Create && attributes.is(GROUP, "certificatesigningrequests");
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut).filter(|_| is_new) else {
        return;
    };
    let user = attributes.call.user;
    for (field, value, given) in [
        ("username", json!(user.name), !user.name.is_empty()),
        ("uid", json!(user.uid), !user.uid.is_empty()),
        ("groups", json!(user.groups), !user.groups.is_empty()),
        ("extra", json!(user.extra), !user.extra.is_empty()),
    ] {
        spec.remove(field);
        if given {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// Refuses decisions and certificates of who may not give them, and administrators made by a request.
pub(super) async fn validate(
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let call = attributes.call;
    if call.resource.group != GROUP || call.resource.plural != "certificatesigningrequests" {
        return Ok(());
    }
    match (attributes.operation, call.subresource, object, old) {
        (Operation::Create, "", Some(new), _) => restrict_subject(attributes, new),
        // By the old object: who approves must not choose the signer.
        (Operation::Update, "approval", _, Some(old)) => {
            check_signer(attributes, "approve", &old["spec"]["signerName"]).await
        }
        (Operation::Update, "status", Some(new), Some(old)) => {
            let fields = ["certificate", "conditions"];
            if fields.iter().all(|field| new["status"][field] == old["status"][field]) {
                return Ok(());
            }
            check_signer(attributes, "sign", &old["spec"]["signerName"]).await
        }
        _ => Ok(()),
    }
}

fn restrict_subject(attributes: &Attributes<'_>, new: &Value) -> Result<(), Status> {
    let spec = &new["spec"];
    if spec["signerName"] != API_CLIENT_SIGNER {
        return Ok(());
    }
    let pem = STANDARD.decode(spec["request"].as_str().unwrap_or_default()).unwrap_or_default();
    let request = SigningRequest::parse(&pem)
        .map_err(|error| attributes.forbidden(&format!("failed to parse CSR: {error}")))?;
    if request.organizations.iter().any(|group| group == MASTERS) {
        let why = format!("use of {API_CLIENT_SIGNER} signer with system:masters group is not allowed");
        return Err(attributes.forbidden(&why));
    }
    Ok(())
}

/// Whether the user may use `verb` on the signer, by its name or by its domain (`example.com/*`).
async fn check_signer(attributes: &Attributes<'_>, verb: &str, signer: &Value) -> Result<(), Status> {
    let call = attributes.call;
    let signer = signer.as_str().unwrap_or_default();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let action = Action::Resource {
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            field_selector: "",
        };
        let decision = call.server.authorizer.authorize(&call.server.storage, call.user, action).await;
        if matches!(decision, Decision::Allowed(_)) {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(attributes.forbidden(&why))
}
