//! CertificateSigningRequests: approved, signed and cleaned up, by one controller each.
//!
//! They meet through the request: the approver writes `Approved` through `approval`, the signer the certificate
//! through `status`, and the cleaner deletes what nobody waits for any more. As upstream's
//! `pkg/controller/certificates`. Only the signer sees the authority's key, and only while it signs.

mod approver;
mod authority;
mod cleaner;
mod signer;

use std::{collections::BTreeMap, sync::Arc};

use api_objects::{Value, object::ObjectMeta};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{Informer, Key, Scope, WorkQueue};
use serde::Deserialize;

use super::{Context, Reconciler, feed, resource, spawn_workers, typed};
use crate::config::Signing;

/// A condition of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    last_update_time: Option<jiff::Timestamp>,
}

/// What is kept of a request.
#[derive(Debug, Clone, Default)]
struct RequestView {
    uid: String,
    created: Option<jiff::Timestamp>,
    /// Who asks.
    username: String,
    user_uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
    /// What is asked for.
    signer: String,
    usages: Vec<String>,
    expiration_seconds: Option<i64>,
    /// PEM.
    request: Vec<u8>,
    conditions: Vec<Condition>,
    /// PEM; empty until it is signed.
    certificate: Vec<u8>,
}

impl RequestView {
    fn project(bytes: &[u8], meta: &ObjectMeta) -> Option<Self> {
        let object: Value = typed(bytes)?;
        let (spec, status) = (&object["spec"], &object["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        Some(Self {
            uid: meta.uid.clone(),
            created: meta.creation_timestamp.as_deref().and_then(|time| time.parse().ok()),
            username: text(&spec["username"]),
            user_uid: text(&spec["uid"]),
            groups: serde_json::from_value(spec["groups"].clone()).unwrap_or_default(),
            extra: serde_json::from_value(spec["extra"].clone()).unwrap_or_default(),
            signer: text(&spec["signerName"]),
            usages: serde_json::from_value(spec["usages"].clone()).unwrap_or_default(),
            expiration_seconds: spec["expirationSeconds"].as_i64(),
            request: decoded(&spec["request"]),
            conditions: serde_json::from_value(status["conditions"].clone()).unwrap_or_default(),
            certificate: decoded(&status["certificate"]),
        })
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    fn usages(&self) -> Vec<&str> {
        self.usages.iter().map(String::as_str).collect()
    }
}

/// Starts the three; without files of an authority nothing is signed, as upstream.
pub fn start(context: &Context, signing: Option<&Signing>) {
    let requests_resource = resource("certificates.k8s.io", "v1", "certificatesigningrequests");
    let requests = context.informers.watch_indexed(
        &requests_resource,
        &Scope::default(),
        RequestView::project,
        |_, request| vec![request.username.clone()],
    );
    let approver = approver::Approver::new(context, &requests_resource, &requests);
    let nodes = approver.nodes.clone();
    let queue = spawn(context, &requests, approver);
    // A kubelet may ask for its serving certificate before its Node has addresses.
    let asking = requests.clone();
    feed(context, &nodes, &queue, move |change| {
        let user = format!("{}{}", api_objects::certificates::NODE_USER_PREFIX, change.key.name);
        asking.by_index(&user).into_iter().map(|(key, _)| key).collect()
    });
    match signing {
        Some(signing) => {
            spawn(context, &requests, signer::Signer::new(context, &requests_resource, &requests, signing));
        }
        None => tracing::info!("no --cluster-signing-cert-file is given: nothing signs certificates here"),
    }
    spawn(context, &requests, cleaner::Cleaner::new(context, &requests_resource, &requests));
}

/// Runs a controller on every change of a request.
fn spawn<R: Reconciler<Key = Key>>(
    context: &Context,
    requests: &Informer<RequestView>,
    controller: R,
) -> Arc<WorkQueue<Key>> {
    let (controller, queue) = (Arc::new(controller), Arc::new(WorkQueue::new()));
    feed(context, requests, &queue, |change| vec![change.key.clone()]);
    spawn_workers(context, &controller, &queue, 2);
    queue
}
