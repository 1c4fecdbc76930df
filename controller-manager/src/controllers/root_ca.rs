//! Every active namespace has the ConfigMap `kube-root-ca.crt`, with which pods verify the API server.
//!
//! As upstream's `pkg/controller/certificates/rootcacertpublisher`. Writes ConfigMaps of that name only.

use std::sync::Arc;

use api_objects::{Resource, Value, object::ObjectMeta};
use client::{Client, Error, Informer, Key, PatchType, Scope, WorkQueue};
use serde_json::json;

use super::{
    Action, Context, Reconciler, feed, namespace::NamespaceView, resource, service_account::is_terminating,
    spawn_workers, typed,
};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

/// The controller. Keys are namespaces.
pub struct RootCaController {
    client: Client,
    maps_resource: Arc<Resource>,
    namespaces: Informer<NamespaceView>,
    /// The certificate that each map holds.
    maps: Informer<String>,
    certificate: String,
}

fn certificate_of(bytes: &[u8], _: &ObjectMeta) -> Option<String> {
    let map: Value = typed(bytes)?;
    Some(map["data"]["ca.crt"].as_str().unwrap_or_default().to_owned())
}

/// Starts the controller with the CA's certificates in PEM.
pub fn start(context: &Context, certificate: &str) {
    let maps_resource = resource("", "v1", "configmaps");
    let scope = Scope { field_selector: format!("metadata.name={NAME}"), ..Scope::default() };
    let maps = context.informers.watch(&maps_resource, &scope, certificate_of);
    let namespaces =
        context.informers.watch(&resource("", "v1", "namespaces"), &Scope::default(), NamespaceView::project);
    let controller = Arc::new(RootCaController {
        client: context.client.clone(),
        maps_resource,
        namespaces: namespaces.clone(),
        maps: maps.clone(),
        certificate: certificate.to_owned(),
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(namespaces.synced(), maps.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &namespaces, &queue, |change| vec![change.key.clone()]);
        feed(&context, &maps, &queue, |change| vec![Key::new("", &change.key.namespace)]);
        spawn_workers(&context, &controller, &queue, 1);
    });
}

impl Reconciler for RootCaController {
    type Key = Key;
    const NAME: &'static str = "root-ca-certificate-publisher";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        if !self.namespaces.get(key).is_some_and(|namespace| namespace.is_active()) {
            return Ok(Action::AwaitChange);
        }
        let written = match self.maps.get(&Key::new(&key.name, NAME)) {
            Some(certificate) if *certificate == self.certificate => return Ok(Action::AwaitChange),
            Some(_) => {
                let patch = json!({ "data": { "ca.crt": self.certificate } });
                self.client.patch(&self.maps_resource, &key.name, NAME, None, PatchType::Merge, &patch).await
            }
            None => {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": NAME, "annotations": { "kubernetes.io/description": DESCRIPTION } },
                    "data": { "ca.crt": self.certificate },
                });
                self.client.create(&self.maps_resource, &key.name, &map).await
            }
        };
        match written {
            Err(error) if !error.is_already_exists() && !is_terminating(&error) => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}
