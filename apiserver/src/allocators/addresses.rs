//! Cluster IPs: an `IPAddress` object per address in use, made before its Service.
//!
//! Creation fails if the object is there, which is all the exclusion that is needed. Upstream:
//! `pkg/registry/core/service/ipallocator` (the IPAddress allocator).

use std::net::IpAddr;

use api_objects::{Value, object::encode_canonical, resource, time::rfc3339};
use apiserver_storage::{At, Store as _, StoreError};
use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use serde_json::json;

use super::{holder, service_key};
use crate::registry::{Call, decode};

/// How many random addresses are tried before the range is walked.
const RANDOM_ATTEMPTS: usize = 16;
/// How many addresses are tried in all. A range this full needs an administrator more than patience.
const ATTEMPTS: usize = 4096;
/// How old a claim without a Service must be before somebody else may have it: longer than any write takes.
const ABANDONED_AFTER: SignedDuration = SignedDuration::from_secs(60);

fn key(address: &str) -> String {
    let addresses =
        resource::find("networking.k8s.io", "v1", "ipaddresses").expect("addresses must be in the table");
    addresses.key("", address)
}

/// Claims an address: the asked-for one, or any that is free.
///
/// # Errors
/// Why not, in upstream's words.
pub(super) async fn claim(call: &Call<'_>, asked: &str) -> Result<String, String> {
    let range = call.server.config.service_cidr;
    if !asked.is_empty() {
        let address: IpAddr = asked.parse().map_err(|_| "must be a valid IP address".to_owned())?;
        if !range.contains(&address) || address == range.network() {
            return Err(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        return match take(call, address).await? {
            true => Ok(address.to_string()),
            false => Err(format!("failed to allocate IP {address}: provided IP is already allocated")),
        };
    }
    let size = size(range);
    let start = rand::rng().random_range(1..=size);
    for attempt in 0..ATTEMPTS.min(usize::try_from(size).unwrap_or(ATTEMPTS) + RANDOM_ATTEMPTS) {
        let offset = if attempt < RANDOM_ATTEMPTS {
            rand::rng().random_range(1..=size)
        } else {
            (start + attempt as u64) % size + 1
        };
        let address = nth(range, offset);
        // The first address is the Service `kubernetes`', also while that is not yet there.
        if address == call.server.config.kubernetes_service_ip() {
            continue;
        }
        if take(call, address).await? {
            return Ok(address.to_string());
        }
    }
    Err("failed to allocate a serviceIP: range is full".to_owned())
}

/// How many usable addresses a range has, within reason: its network and broadcast addresses are none.
fn size(range: ipnet::IpNet) -> u64 {
    let bits = range.max_prefix_len() - range.prefix_len();
    (1_u64 << bits.min(32)).saturating_sub(2).max(1)
}

/// The address at an offset from the range's first.
fn nth(range: ipnet::IpNet, offset: u64) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => {
            IpAddr::V4((u32::from(first).wrapping_add(u32::try_from(offset).unwrap_or(1))).into())
        }
        IpAddr::V6(first) => IpAddr::V6((u128::from(first).wrapping_add(u128::from(offset))).into()),
    }
}

/// Makes the object of a claim; `false` if somebody else has it.
async fn take(call: &Call<'_>, address: IpAddr) -> Result<bool, String> {
    let (namespace, name) = holder(call);
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let object = json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": address.to_string(), "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": rfc3339(call.now),
            "labels": {"ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    });
    let key = key(&address.to_string());
    let storage = &call.server.storage;
    if call.dry_run {
        return Ok(matches!(storage.get(&key, At::Latest).await, Ok(None)));
    }
    match storage.store().create(&key, encode_canonical(&object), None).await {
        Ok(_) => Ok(true),
        Err(StoreError::AlreadyExists(entry)) => {
            let claim: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            if !is_abandoned(call, &claim).await {
                return Ok(false);
            }
            tracing::info!(%address, "taking over the address of a Service that does not exist");
            Ok(storage.store().update(&key, encode_canonical(&object), entry.revision, None).await.is_ok())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a claim was left behind: its Service is not there, and has had time to come. The same Service's
/// own earlier claim counts as such at once.
async fn is_abandoned(call: &Call<'_>, claim: &Value) -> bool {
    let parent = &claim["spec"]["parentRef"];
    if parent["resource"] != "services" {
        return false;
    }
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let made: Option<Timestamp> =
        claim["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
    let old = made.is_none_or(|made| call.now.duration_since(made) > ABANDONED_AFTER);
    if !old {
        return false;
    }
    match call.server.storage.get(&service_key(&namespace, &name), At::Latest).await {
        Ok(None) => true,
        Ok(Some(item)) => {
            let services = resource::find("", "v1", "services").expect("services must be in the table");
            let service = decode(&item.entry.value, item.entry.revision, services);
            service["spec"]["clusterIP"] != claim["metadata"]["name"]
        }
        Err(_) => false,
    }
}

/// Gives an address back, if it is this Service's.
pub(super) async fn release(call: &Call<'_>, address: &str) {
    let (namespace, name) = holder(call);
    let key = key(address);
    let Ok(Some(item)) = call.server.storage.get(&key, At::Latest).await else { return };
    let claim: Value = serde_json::from_slice(&item.entry.value).unwrap_or_default();
    let parent = &claim["spec"]["parentRef"];
    if parent["name"] == name && parent["namespace"] == namespace {
        // If this fails the claim is abandoned, and taken over in time.
        if let Err(error) = call.server.storage.store().delete(&key, item.entry.revision).await {
            tracing::warn!(%address, %error, "failed to give back a cluster IP");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_range() {
        let range: ipnet::IpNet = "10.96.0.0/16".parse().unwrap();
        assert_eq!(size(range), 65_534);
        assert_eq!(nth(range, 1).to_string(), "10.96.0.1");
        assert_eq!(nth(range, size(range)).to_string(), "10.96.255.254");
        let six: ipnet::IpNet = "fd00::/108".parse().unwrap();
        assert_eq!(nth(six, 10).to_string(), "fd00::a");
    }
}
