//! Keeps the [`Authorizer`](super::Authorizer)'s index in step with the roles in the store, and the stored
//! rules of aggregated ClusterRoles in step with their selectors.

use std::{sync::Arc, time::Duration};

use api_objects::object::encode_canonical;
use apiserver_storage::{
    At, ListOptions, Revision, Store, StoreError,
    cacher::{CacheWatchOptions, ItemEvent, ItemListing, ItemMessage},
};
use futures_util::{FutureExt, StreamExt};

use super::rbac::{self, Policy, StaleAggregate};
use crate::{projector::ObjectIndex, state::Server};

/// Before trying again when the store does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the roles until the server stops. The index is current as soon as the first list is in, which
/// [`synced`](super::Authorizer::synced) tells.
pub(crate) async fn follow(server: Arc<Server>) {
    loop {
        let ended = tokio::select! {
            ended = follow_once(&server) => ended,
            () = server.shutdown.cancelled() => return,
        };
        match ended {
            // History was compacted or we were slow: list again, at once.
            Ok(()) | Err(StoreError::Compacted { .. } | StoreError::SlowWatcher) => {}
            Err(error) => {
                tracing::warn!(%error, "the watch of roles ended; the last known roles stay in force");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = server.shutdown.cancelled() => return,
                }
            }
        }
    }
}

/// Reads the roles as they are now, and takes them into force before it answers.
pub(crate) async fn refresh(server: &Server) -> Result<(), StoreError> {
    let listing = server.storage.list(rbac::PREFIX, &ListOptions::default(), None).await?;
    server.authorizer.replace(policy_of(&listing).index(listing.revision));
    Ok(())
}

fn policy_of(listing: &ItemListing<ObjectIndex>) -> Policy {
    let mut policy = Policy::default();
    for item in &listing.items {
        policy.apply(&item.entry.key, Some(&item.entry.value));
    }
    policy
}

async fn follow_once(server: &Server) -> Result<(), StoreError> {
    let (listing, mut watch) =
        server.storage.list_and_watch(rbac::PREFIX, At::Latest, None, CacheWatchOptions::default()).await?;
    let mut policy = policy_of(&listing);
    let mut revision = listing.revision;
    publish(server, &policy, revision).await;
    while let Some(message) = watch.next().await {
        let mut message = Some(message?);
        // A burst of changes (the bootstrap writes a hundred) is one new index.
        while let Some(current) = message.take() {
            if let ItemMessage::Events(events) = current {
                for event in events.iter() {
                    apply(&mut policy, event);
                    revision = event.revision;
                }
            }
            if let Some(Some(next)) = watch.next().now_or_never() {
                message = Some(next?);
            }
        }
        publish(server, &policy, revision).await;
    }
    Ok(())
}

fn apply(policy: &mut Policy, event: &ItemEvent<ObjectIndex>) {
    match (&event.item, &event.previous) {
        (Some(item), _) => policy.apply(&item.entry.key, Some(&item.entry.value)),
        (None, Some(previous)) => policy.apply(&previous.entry.key, None),
        (None, None) => {}
    }
}

async fn publish(server: &Server, policy: &Policy, revision: Revision) {
    server.authorizer.replace(policy.index(revision));
    for stale in policy.stale_aggregates() {
        let name = stale.name.clone();
        if let Err(error) = store_aggregate(server, stale).await {
            // Its next change, or the next start, tries again; requests are judged by the selectors anyway.
            tracing::warn!(cluster_role = name, %error, "failed to store the rules of an aggregated ClusterRole");
        }
    }
}

/// Writes an aggregate's rules. Another server on the same store may be doing the same: a conflict is its
/// success, and comes back as an event.
async fn store_aggregate(server: &Server, stale: StaleAggregate) -> Result<(), StoreError> {
    let key = format!("{}clusterroles/{}", rbac::PREFIX, stale.name);
    let Some(item) = server.storage.get(&key, At::Latest).await? else { return Ok(()) };
    let Ok(mut object) = serde_json::from_slice::<api_objects::Value>(&item.entry.value) else {
        return Ok(());
    };
    object["rules"] = serde_json::to_value(&stale.rules).expect("rules must serialise");
    let value = encode_canonical(&object);
    if value == item.entry.value {
        return Ok(());
    }
    match server.storage.store().update(&key, value, item.entry.revision, None).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
