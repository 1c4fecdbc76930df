//! A certificate by request: a new key, a CertificateSigningRequest, and the wait until it is signed or refused.

use api_objects::{Resource, Value, certificates::NODES_GROUP, resource::find};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{Client, Error as ClientError, ListQuery, WatchEventType};
use futures_util::StreamExt;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::JoinError;

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Who signs.
    pub(super) signer: &'static str,
    /// `client auth` or `server auth`.
    pub(super) usage: &'static str,
    /// The common name; the group is always that of nodes.
    pub(super) user: String,
    /// Alternative names.
    pub(super) names: Vec<String>,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

fn requests() -> &'static Resource {
    find("certificates.k8s.io", "v1", "certificatesigningrequests").expect("requests must be in the table")
}

fn parameters(wanted: &Wanted) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(wanted.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES_GROUP);
    params.distinguished_name.push(DnType::CommonName, wanted.user.as_str());
    Ok(params)
}

/// A key and a certificate that only says so itself: what is served until the cluster's is there.
pub(super) fn self_signed(wanted: &Wanted) -> Result<Issued, JoinError> {
    let make = || {
        let key = KeyPair::generate()?;
        Ok(Issued { certificate: parameters(wanted)?.self_signed(&key)?.pem(), key: key.serialize_pem() })
    };
    make().map_err(JoinError::Key)
}

/// Asks, and waits for the answer as long as it takes: a person may have to give it.
pub(super) async fn certificate(client: &Client, wanted: &Wanted) -> Result<Issued, JoinError> {
    let make = || {
        let key = KeyPair::generate()?;
        let request = parameters(wanted)?.serialize_request(&key)?.pem()?;
        Ok((key.serialize_pem(), request))
    };
    let (key, request) = make().map_err(JoinError::Key)?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {"request": STANDARD.encode(request), "signerName": wanted.signer,
            "usages": ["digital signature", wanted.usage]},
    });
    let failed = |source: ClientError| JoinError::Api { action: "ask for a certificate", source };
    let made = client.create(requests(), "", &object).await.map_err(failed)?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    tracing::info!(request = name, signer = wanted.signer, "asked for a certificate");
    let certificate = wait(client, &name, &made).await?;
    Ok(Issued { certificate, key })
}

async fn wait(client: &Client, name: &str, made: &Value) -> Result<String, JoinError> {
    let failed = |source: ClientError| JoinError::Api { action: "wait for a certificate", source };
    let query = ListQuery { field_selector: format!("metadata.name={name}"), ..ListQuery::default() };
    let mut seen = made.clone();
    loop {
        if let Some(outcome) = outcome(name, &seen) {
            return outcome;
        }
        let after = seen["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let mut events = client.watch(requests(), "", &query, &after).await.map_err(failed)?;
        while let Some(event) = events.next().await {
            let event = event.map_err(failed)?;
            match event.kind {
                WatchEventType::Added | WatchEventType::Modified => {
                    seen = serde_json::from_slice(&event.object)
                        .map_err(|error| failed(ClientError::Decode(error.to_string())))?;
                    if let Some(outcome) = outcome(name, &seen) {
                        return outcome;
                    }
                }
                WatchEventType::Deleted => {
                    let message = "it was deleted".to_owned();
                    return Err(JoinError::Refused { name: name.to_owned(), message });
                }
                WatchEventType::Bookmark => {}
            }
        }
        // The watch ended, as watches do: look again from what is there now.
        seen = client.get(requests(), "", name).await.map_err(failed)?;
    }
}

/// What became of a request; `None` while it is open. Pure.
fn outcome(name: &str, request: &Value) -> Option<Result<String, JoinError>> {
    let status = &request["status"];
    for condition in status["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "Denied" || condition["type"] == "Failed" {
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            let message = format!("{} ({}): {}", text("type"), text("reason"), text("message"));
            return Some(Err(JoinError::Refused { name: name.to_owned(), message }));
        }
    }
    let bytes = STANDARD.decode(status["certificate"].as_str()?).ok()?;
    let certificate = String::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
    Some(Ok(certificate))
}

#[cfg(test)]
mod tests {
    use api_objects::certificates::SigningRequest;

    use super::*;

    #[test]
    fn a_request_is_open_until_it_is_signed_or_refused() {
        assert!(outcome("a", &json!({"status": {}})).is_none());
        let approved = json!({"type": "Approved", "status": "True"});
        assert!(outcome("a", &json!({"status": {"conditions": [approved]}})).is_none());
        let signed = json!({"status": {"certificate": STANDARD.encode("pem")}});
        assert_eq!(outcome("a", &signed).unwrap().unwrap(), "pem");
        let denied =
            json!({"status": {"conditions": [{"type": "Denied", "reason": "No", "message": "never"}]}});
        let error = outcome("a", &denied).unwrap().unwrap_err().to_string();
        assert_eq!(error, "the certificate request a was refused: Denied (No): never");
    }

    #[test]
    fn what_is_asked_is_what_the_signers_take() {
        let wanted = Wanted {
            signer: "",
            usage: "server auth",
            user: "system:node:a".into(),
            names: vec!["a".into(), "10.0.0.1".into()],
        };
        let pem = parameters(&wanted).unwrap().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let request = SigningRequest::parse(pem.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(request.kubelet_serving_problem(&["digital signature", "server auth"]), None);
    }
}
