//! Node ports: one stored set, compared and swapped.
//!
//! Upstream keeps a bitmap under `ranges/servicenodeports` (`pkg/registry/core/service/portallocator`); this is
//! the same as a sorted list of `port → Service`, so that a claim that was left behind can be told.

use std::collections::BTreeMap;

use apiserver_storage::{At, Revision, Store as _, StoreError};
use bytes::Bytes;
use rand::seq::IteratorRandom as _;
use serde::{Deserialize, Serialize};

use super::{holder, service_key};
use crate::registry::Call;

/// Three segments, as every key: group, resource, name.
const KEY: &str = "/registry/ranges/servicenodeports/default";
/// How often a lost race for the range is run again; every loss is somebody else's progress.
const ATTEMPTS: usize = 100;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Range {
    /// Port → `namespace/name` of the Service.
    ports: BTreeMap<u16, String>,
}

async fn read(call: &Call<'_>) -> Result<(Range, Option<Revision>), String> {
    match call.server.storage.get(KEY, At::Latest).await {
        Ok(Some(item)) => {
            let range = serde_json::from_slice(&item.entry.value)
                .map_err(|error| format!("the stored range of node ports cannot be read: {error}"))?;
            Ok((range, Some(item.entry.revision)))
        }
        Ok(None) => Ok((Range::default(), None)),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes the range if nobody else did meanwhile.
async fn swap(call: &Call<'_>, range: &Range, expected: Option<Revision>) -> Result<bool, String> {
    let bytes = Bytes::from(serde_json::to_vec(range).map_err(|error| error.to_string())?);
    let store = call.server.storage.store();
    let written = match expected {
        Some(revision) => store.update(KEY, bytes, revision, None).await,
        None => store.create(KEY, bytes, None).await,
    };
    match written {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. } | StoreError::AlreadyExists(_)) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Claims a port: the asked-for one, or with 0 any that is free.
///
/// # Errors
/// Why not, in upstream's words.
pub(super) async fn claim(call: &Call<'_>, asked: u16) -> Result<u16, String> {
    let (first, last) = call.server.config.node_ports;
    if asked != 0 && !(first..=last).contains(&asked) {
        return Err(format!(
            "provided port is not in the valid range. The range of valid ports is {first}-{last}"
        ));
    }
    let (namespace, name) = holder(call);
    for _ in 0..ATTEMPTS {
        let (mut range, revision) = read(call).await?;
        let port = if asked == 0 {
            (first..=last)
                .filter(|port| !range.ports.contains_key(port))
                .choose(&mut rand::rng())
                .ok_or("failed to allocate a nodePort: range is full")?
        } else {
            asked
        };
        if let Some(holder) = range.ports.get(&port)
            && !is_abandoned(call, holder).await
        {
            return Err("provided port is already allocated".to_owned());
        }
        if call.dry_run {
            return Ok(port);
        }
        range.ports.insert(port, format!("{namespace}/{name}"));
        if swap(call, &range, revision).await? {
            return Ok(port);
        }
    }
    Err("too many others are claiming node ports; try again".to_owned())
}

/// Whether the Service that holds a port does not exist.
async fn is_abandoned(call: &Call<'_>, holder: &str) -> bool {
    let Some((namespace, name)) = holder.split_once('/') else { return true };
    // The Service that is being made has no entry yet, and is no stranger to its own claims.
    (namespace, name) == super::holder(call)
        || matches!(call.server.storage.get(&service_key(namespace, name), At::Latest).await, Ok(None))
}

/// Gives a port back, if it is this Service's.
pub(super) async fn release(call: &Call<'_>, port: u16) {
    let (namespace, name) = holder(call);
    let own = format!("{namespace}/{name}");
    for _ in 0..ATTEMPTS {
        let Ok((mut range, revision)) = read(call).await else { return };
        if range.ports.get(&port) != Some(&own) {
            return;
        }
        range.ports.remove(&port);
        match swap(call, &range, revision).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(port, %error, "failed to give back a node port");
                return;
            }
        }
    }
}
