//! Leader election over a Lease: at most one process acts, and a dead one is replaced.
//!
//! The rules are those of `k8s.io/client-go/tools/leaderelection`: the holder renews; others take over when
//! the record has not changed for the lease's duration *by their own clock*; a holder that cannot renew
//! within the renew deadline stops by itself.

use std::time::Duration;

use api_objects::Value;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{Client, Error};

/// Timings of an election; upstream's defaults are 15, 10 and 2 seconds.
#[derive(Debug, Clone)]
pub struct LeaderOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are: unique among candidates.
    pub identity: String,
    /// How long a silent holder keeps the lease.
    pub lease_duration: Duration,
    /// How long a holder tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry_period: Duration,
}

impl LeaderOptions {
    /// Upstream's timings for a Lease in `kube-system`.
    #[must_use]
    pub fn new(name: &str, identity: &str) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A candidate.
pub struct LeaderElector {
    client: Client,
    options: LeaderOptions,
    /// The record last seen, and when by our own clock.
    observed: Option<(Value, Instant)>,
}

impl LeaderElector {
    /// A candidate that has not yet tried.
    #[must_use]
    pub fn new(client: Client, options: LeaderOptions) -> Self {
        Self { client, options, observed: None }
    }

    /// Waits until this candidate leads; answers false if `shutdown` came first.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            match self.try_acquire_or_renew().await {
                Ok(true) => {
                    info!(lease = %self.options.name, identity = %self.options.identity, "became leader");
                    return true;
                }
                Ok(false) => {}
                Err(error) => debug!(error = %error, "failed to acquire the lease"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.retry_period) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    /// Keeps leading; returns once the lease is lost or `shutdown` came (then the lease is given back).
    pub async fn hold(&mut self, shutdown: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.options.retry_period) => {}
                () = shutdown.cancelled() => {
                    self.release().await;
                    return;
                }
            }
            let left = self.options.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => debug!(error = %error, "failed to renew the lease"),
                Err(_) => return,
            }
            if renewed.elapsed() >= self.options.renew_deadline {
                return;
            }
        }
    }

    async fn try_acquire_or_renew(&mut self) -> Result<bool, Error> {
        let leases = leases()?;
        let LeaderOptions { namespace, name, identity, lease_duration, .. } = &self.options;
        let now = micro_time(Timestamp::now());
        let seconds = lease_duration.as_secs();
        let lease = match self.client.get(leases, namespace, name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": name, "namespace": namespace },
                    "spec": { "holderIdentity": identity, "leaseDurationSeconds": seconds,
                        "acquireTime": now, "renewTime": now, "leaseTransitions": 0 },
                });
                return match self.client.create(leases, namespace, &lease).await {
                    Ok(_) => Ok(true),
                    Err(error) if error.is_already_exists() => Ok(false),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let spec = &lease["spec"];
        if self.observed.as_ref().is_none_or(|(seen, _)| seen != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let ours = holder == identity;
        let fresh = self.observed.as_ref().is_some_and(|(_, at)| at.elapsed() < *lease_duration);
        if !ours && !holder.is_empty() && fresh {
            return Ok(false);
        }
        let mut next = lease.clone();
        next["spec"]["renewTime"] = json!(now);
        next["spec"]["leaseDurationSeconds"] = json!(seconds);
        if !ours {
            let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
            next["spec"]["holderIdentity"] = json!(identity);
            next["spec"]["acquireTime"] = json!(now);
            next["spec"]["leaseTransitions"] = json!(transitions + 1);
        }
        match self.client.update(leases, namespace, name, &next).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self) {
        let Ok(leases) = leases() else { return };
        let LeaderOptions { namespace, name, identity, .. } = &self.options;
        let Ok(mut lease) = self.client.get(leases, namespace, name).await else { return };
        if lease["spec"]["holderIdentity"] != json!(identity) {
            return;
        }
        lease["spec"]["holderIdentity"] = json!("");
        lease["spec"]["leaseDurationSeconds"] = json!(1);
        if let Err(error) = self.client.update(leases, namespace, name, &lease).await {
            debug!(error = %error, "failed to release the lease; it will run out");
        }
    }
}

fn leases() -> Result<&'static api_objects::Resource, Error> {
    api_objects::resource::find("coordination.k8s.io", "v1", "leases")
        .map(AsRef::as_ref)
        .ok_or_else(|| Error::Config("leases are not in the table of resources".into()))
}

fn micro_time(at: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&at)
}
