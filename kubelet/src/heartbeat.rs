//! The node's Lease: the sign of life that the node lifecycle controller looks at.
//!
//! `kube-node-lease/<node>`, renewed every 10 seconds for 40 where nothing else is configured, as upstream's
//! (`nodeLeaseDurationSeconds`, renewed four times as often). It is renewed by a
//! patch of `renewTime` only, which is the smallest write there is; a Lease that is missing is made.

use std::time::Duration;

use client::{Client, Error, PatchType};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{api, node::Registered};

/// How often.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How many renewals a Lease lives.
const RENEWALS: u32 = 4;
/// Where.
const NAMESPACE: &str = "kube-node-lease";

/// Renews the Lease until shutdown, from the registration of the node on.
pub(crate) async fn keep(
    client: Client,
    node: String,
    mut registered: Registered,
    every: Duration,
    shutdown: CancellationToken,
) {
    loop {
        let node_uid = tokio::select! {
            () = shutdown.cancelled() => return,
            known = registered.wait_for(Option::is_some) => match known {
                Ok(node) => node.as_ref().map(|node| node.uid.clone()).unwrap_or_default(),
                Err(_) => return,
            },
        };
        if let Err(error) = renew(&client, &node, &node_uid, every).await {
            tracing::warn!("cannot renew the node's lease: {}", client::error::chain(&error));
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Renews it once.
pub(crate) async fn renew(client: &Client, node: &str, node_uid: &str, every: Duration) -> Result<(), Error> {
    let seconds = (every * RENEWALS).as_secs().max(1);
    let patch = json!({"spec": {
        "holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": micro_time(Timestamp::now()),
    }});
    match client.patch(api::leases(), NAMESPACE, node, None, PatchType::Merge, &patch).await {
        Err(error) if error.is_not_found() => {
            let lease = lease(node, node_uid, seconds, Timestamp::now());
            client.create(api::leases(), NAMESPACE, &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// The Lease, owned by its node so that it goes with it.
fn lease(node: &str, node_uid: &str, seconds: u64, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node, "namespace": NAMESPACE, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": micro_time(now)},
    })
}

/// A `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_shape() {
        let now = "2026-11-21T10:00:00.5Z".parse().unwrap();
        let lease = lease("n1", "u1", 40, now);
        assert_eq!(lease["spec"]["renewTime"], "2026-11-21T10:00:00.500000Z");
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
        assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
    }
}
