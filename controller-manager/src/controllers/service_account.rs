//! Every active namespace has the ServiceAccount `default`.
//!
//! As upstream's `pkg/controller/serviceaccount/serviceaccounts_controller.go`. Writes ServiceAccounts named
//! `default`, nothing else.

use std::sync::Arc;

use api_objects::Resource;
use client::{Client, Error, Informer, Key, Scope, WorkQueue};
use serde_json::json;

use super::{Action, Context, Reconciler, feed, namespace::NamespaceView, resource, spawn_workers};

const ACCOUNT: &str = "default";

/// The controller. Keys are namespaces.
pub struct ServiceAccountController {
    client: Client,
    accounts_resource: Arc<Resource>,
    namespaces: Informer<NamespaceView>,
    accounts: Informer<()>,
}

/// Starts the controller.
pub fn start(context: &Context) {
    let accounts_resource = resource("", "v1", "serviceaccounts");
    let scope = Scope { field_selector: format!("metadata.name={ACCOUNT}"), ..Scope::default() };
    let accounts = context.informers.watch(&accounts_resource, &scope, |_, _| Some(()));
    let namespaces =
        context.informers.watch(&resource("", "v1", "namespaces"), &Scope::default(), NamespaceView::project);
    let controller = Arc::new(ServiceAccountController {
        client: context.client.clone(),
        accounts_resource,
        namespaces: namespaces.clone(),
        accounts: accounts.clone(),
    });
    let queue = Arc::new(WorkQueue::new());
    let (context, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn(async move {
        let synced = async { tokio::join!(namespaces.synced(), accounts.synced()) };
        if context.shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        feed(&context, &namespaces, &queue, |change| vec![change.key.clone()]);
        feed(&context, &accounts, &queue, |change| vec![Key::new("", &change.key.namespace)]);
        spawn_workers(&context, &controller, &queue, 1);
    });
}

impl Reconciler for ServiceAccountController {
    type Key = Key;
    const NAME: &'static str = "serviceaccount";

    async fn reconcile(&self, key: &Key) -> Result<Action, Error> {
        let wanted = self.namespaces.get(key).is_some_and(|namespace| namespace.is_active());
        if !wanted || self.accounts.get(&Key::new(&key.name, ACCOUNT)).is_some() {
            return Ok(Action::AwaitChange);
        }
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": ACCOUNT } });
        match self.client.create(&self.accounts_resource, &key.name, &account).await {
            Err(error) if !error.is_already_exists() && !is_terminating(&error) => Err(error),
            Ok(_) | Err(_) => Ok(Action::AwaitChange),
        }
    }
}

/// Whether the namespace is going away, so that nothing can be created in it.
pub(super) fn is_terminating(error: &Error) -> bool {
    error.is_not_found()
        || error.status().is_some_and(|status| {
            status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .any(|cause| cause.reason == "NamespaceTerminating")
        })
}
