//! What a cluster has from its first moment: namespaces, roles and bindings, priority classes, and the
//! Service through which pods reach this server.
//!
//! Runs at every start and changes nothing that is as it should be. What a person changed is kept, as
//! upstream's reconciliation does: rules and subjects that are missing are added to roles and bindings, none
//! is taken away, and a role with `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone. All
//! writes go through the registry, like anybody's.

mod endpoints;
mod objects;
mod roles;

use std::{sync::Arc, time::Duration};

use api_objects::{Resource, Status, Value, resource};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    auth::{UserInfo, authz::follow},
    registry::{self, Call},
    state::Server,
};

/// How many writes are under way at once: the store puts all that wait into one sync.
const CONCURRENCY: usize = 128;
/// Before trying again what failed.
const RETRY: Duration = Duration::from_millis(200);

/// One object that should be there.
struct Planned {
    resource: &'static Resource,
    /// Empty for cluster-scoped kinds.
    namespace: String,
    object: Value,
    /// The subresource through which it is changed if it is there.
    subresource: &'static str,
    /// What to do if it is there already: the object as it should be then, or `None` to leave it.
    reconcile: fn(planned: &Value, found: &Value) -> Option<Value>,
}

impl Planned {
    /// An object that is made if it is missing, and never touched again.
    fn once(group: &str, version: &str, plural: &str, namespace: &str, object: Value) -> Self {
        let resource = resource::find(group, version, plural).expect("bootstrap kinds must be built in");
        Self { resource, namespace: namespace.to_owned(), object, subresource: "", reconcile: |_, _| None }
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Makes everything, trying again until it is all there; then keeps this server among the endpoints of the
/// Service `kubernetes`, until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let user = UserInfo::new("system:apiserver", &["system:masters"]);
    loop {
        match ensure_all(&server, &user).await {
            Ok(()) => {
                server.health.set_bootstrapped();
                return endpoints::keep(&server, &user).await;
            }
            Err(status) => tracing::warn!(reason = status.message, "the bootstrap objects are not all there"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = server.shutdown.cancelled() => return,
        }
    }
}

async fn ensure_all(server: &Arc<Server>, user: &UserInfo) -> Result<(), Status> {
    // Namespaces first: nothing can be made in one that is not there.
    ensure(server, user, objects::namespaces()).await?;
    let mut planned = roles::planned();
    planned.extend(objects::priority_classes());
    planned.extend(objects::storage_classes());
    planned.push(objects::kubernetes_service(&server.config, server.port));
    planned.push(objects::authentication_config(server.pki.ca_pem()));
    planned.push(objects::cluster_info(&server.config, server.port, server.pki.ca_pem()));
    planned.push(objects::service_range(&server.config));
    ensure(server, user, planned).await?;
    ensure(server, user, vec![objects::service_range_ready(&server.config)]).await?;
    endpoints::publish(server, user).await?;
    // Whoever waits for this to be done relies on its role at once.
    follow::refresh(server).await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn ensure(server: &Arc<Server>, user: &UserInfo, planned: Vec<Planned>) -> Result<(), Status> {
    stream::iter(planned)
        .map(|planned| Box::pin(async move { ensure_one(server, user, &planned).await }))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

async fn ensure_one(server: &Arc<Server>, user: &UserInfo, planned: &Planned) -> Result<(), Status> {
    let Planned { resource, namespace, object, subresource, reconcile } = planned;
    let call = Call::internal(server, user, resource, namespace, planned.name());
    let found = registry::lookup(server, resource, namespace, planned.name()).await?;
    match found {
        None => match registry::create(&call, object.clone()).await {
            // Another server on the same store was faster.
            Err(status) if status.is_already_exists() => Ok(()),
            other => other.map(drop),
        },
        Some(found) if reconcile(object, &found).is_some() => {
            let make = |current: &Value| Ok(reconcile(object, current).unwrap_or_else(|| current.clone()));
            registry::update(&Call { subresource, ..call }, &make).await.map(drop)
        }
        Some(_) => Ok(()),
    }
    .map_err(|status| Status {
        message: format!("{} {namespace}/{}: {}", resource.plural, planned.name(), status.message),
        ..status
    })
}
