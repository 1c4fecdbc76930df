//! This server among the endpoints of the Service `kubernetes`.
//!
//! On a store of its own a server is the only endpoint. Servers that share an etcd each hold a lease in it,
//! an entry that lives as long as it is renewed; whoever renews publishes the addresses of all leases, so that
//! a server that dies leaves the Service within seconds, as upstream's lease endpoint reconciler has it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use api_objects::Status;
use apiserver_storage::{At, ListOptions, Store, StoreError, backend::Backend};
use bytes::Bytes;

use super::{ensure, objects};
use crate::{auth::UserInfo, state::Server};

const PREFIX: &str = "/registry/apiserver/leases/";
/// How long a lease lives without being renewed.
const LIFETIME: Duration = Duration::from_secs(15);
/// How often it is renewed: one failure does not end it.
const INTERVAL: Duration = Duration::from_secs(6);

fn is_shared(server: &Server) -> bool {
    matches!(&**server.storage.store(), Backend::Etcd(_))
}

fn key(server: &Server) -> String {
    format!("{PREFIX}{}", server.config.advertise_address)
}

/// Publishes the addresses of all servers, this one included.
pub(super) async fn publish(server: &Arc<Server>, user: &UserInfo) -> Result<(), Status> {
    let own = server.config.advertise_address;
    if own.is_loopback() {
        tracing::warn!(
            "no address but loopback: pods will not reach this server through the Service `kubernetes`"
        );
        return Ok(());
    }
    let mut addresses = BTreeSet::from([own]);
    if is_shared(server) {
        let unavailable =
            |error: StoreError| Status::unavailable(format!("the lease of this server: {error}"));
        renew(server).await.map_err(unavailable)?;
        addresses.extend(others(server).await.map_err(unavailable)?);
    }
    ensure(server, user, objects::kubernetes_endpoints(&addresses, server.port)).await
}

/// Renews the lease until the server stops, and gives it back then.
pub(super) async fn keep(server: &Arc<Server>, user: &UserInfo) {
    if !is_shared(server) {
        return;
    }
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = server.shutdown.cancelled() => break,
        }
        if let Err(status) = publish(server, user).await {
            tracing::warn!(
                reason = status.message,
                "failed to publish the endpoints of the Service `kubernetes`"
            );
        }
    }
    if let Err(error) = leave(server, user).await {
        tracing::debug!(%error, "this server did not leave the Service `kubernetes`; its lease ends by itself");
    }
}

async fn renew(server: &Server) -> Result<(), StoreError> {
    let (store, key) = (server.storage.store(), key(server));
    let value = Bytes::from_static(b"{}");
    let written = match store.get(&key, At::Latest).await?.entry {
        Some(entry) => store.update(&key, value, entry.revision, Some(LIFETIME)).await,
        None => store.create(&key, value, Some(LIFETIME)).await,
    };
    match written {
        // It ended, or was written by our own earlier try, in between: the next renewal is soon.
        Ok(_) | Err(StoreError::Conflict { .. } | StoreError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn others(server: &Server) -> Result<Vec<IpAddr>, StoreError> {
    let listing = server.storage.store().list(PREFIX, &ListOptions::default()).await?;
    Ok(listing.entries.iter().filter_map(|entry| entry.key.strip_prefix(PREFIX)?.parse().ok()).collect())
}

/// Gives the lease back, and leaves the Service to the others. The last one leaves its address: nothing
/// answers anyway, and an empty Service would have to be told from one that was never made.
async fn leave(server: &Arc<Server>, user: &UserInfo) -> Result<(), Status> {
    let unavailable = |error: StoreError| Status::unavailable(error.to_string());
    let (store, key) = (server.storage.store(), key(server));
    if let Some(entry) = store.get(&key, At::Latest).await.map_err(unavailable)?.entry {
        store.delete(&key, entry.revision).await.map_err(unavailable)?;
    }
    let rest = others(server).await.map_err(unavailable)?.into_iter().collect();
    ensure(server, user, objects::kubernetes_endpoints(&rest, server.port)).await
}
