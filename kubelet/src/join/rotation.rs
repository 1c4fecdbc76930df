//! Certificates are renewed in place before they end: at a random moment between 70 and 90 percent of their life, as
//! upstream's certificate manager, so that a thousand nodes that were made together do not ask together.

use std::{sync::Arc, time::Duration};

use api_objects::certificates::{KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, NODE_USER_PREFIX};
use client::{Backoff, Client, error::chain};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    JoinError, Names,
    identity::{Facts, Files},
    request::{self, Issued, Wanted},
};

/// The longest sleep: a clock that was set, or a machine that slept, is noticed within it.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Between attempts that failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Keeps both certificates of a node.
pub(super) struct Rotation {
    pub(super) client: Client,
    pub(super) switch: client::Switch,
    pub(super) files: Files,
    pub(super) node: String,
    pub(super) names: Names,
    pub(super) shutdown: CancellationToken,
}

/// When a certificate is due for renewal; `chance` is 0 to 1. Pure.
fn due(since: Timestamp, until: Timestamp, chance: f64) -> Timestamp {
    let life = until.duration_since(since).max(SignedDuration::ZERO);
    since + life.mul_f64(0.7 + 0.2 * chance.clamp(0.0, 1.0))
}

fn chance() -> f64 {
    // Randomness enough for a moment, out of what is here already.
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

/// Which of a node's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// With which the API server is called.
    Client,
    /// With which others are served.
    Serving,
}

impl Rotation {
    /// Gets a certificate where there is none, and renews it in time, until shutdown.
    pub(super) async fn keep(self: Arc<Self>, role: Role) {
        let shutdown = self.shutdown.clone();
        let _ = shutdown.run_until_cancelled(self.renew_for_ever(role)).await;
    }

    fn wanted(&self, role: Role) -> Wanted {
        let (signer, usage, names) = match role {
            Role::Client => (KUBELET_CLIENT_SIGNER, "client auth", Vec::new()),
            Role::Serving => (KUBELET_SERVING_SIGNER, "server auth", self.names.all()),
        };
        Wanted { signer, usage, user: format!("{NODE_USER_PREFIX}{}", self.node), names }
    }

    fn current(&self, role: Role) -> Option<Facts> {
        match role {
            Role::Client => self.files.client(),
            // One that says so only itself is a place holder.
            Role::Serving => self.files.serving().filter(|facts| !facts.self_signed),
        }
    }

    /// Takes a new certificate into use; the server looks at its file by itself.
    async fn take(&self, role: Role, issued: &Issued) -> Result<(), JoinError> {
        if role == Role::Serving {
            return self.files.write_serving(issued);
        }
        self.files.replace_client(issued)?;
        let next = Client::from_kubeconfig(Some(&self.files.kubeconfig), None).await;
        let next = next.map_err(|source| JoinError::Api { action: "use the new certificate", source })?;
        self.switch.replace(&next);
        Ok(())
    }

    async fn renew_for_ever(&self, role: Role) {
        let wanted = self.wanted(role);
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            if let Some(facts) = self.current(role) {
                sleep_until(due(facts.since, facts.until, chance())).await;
            }
            let renewed = match request::certificate(&self.client, &wanted).await {
                Ok(issued) => self.take(role, &issued).await,
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => {
                    tracing::info!(signer = wanted.signer, "the node has a new certificate");
                    backoff.reset();
                }
                Err(error) => {
                    tracing::warn!(signer = wanted.signer, "no new certificate: {}", chain(&error));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

async fn sleep_until(moment: Timestamp) {
    while let Ok(left) = Duration::try_from(moment.duration_since(Timestamp::now()))
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_between_seven_and_nine_tenths() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(due(at(0), at(1000), 0.0), at(700));
        assert_eq!(due(at(0), at(1000), 1.0), at(900));
        // One that has ended is due at once.
        assert_eq!(due(at(1000), at(0), 0.5), at(1000));
        for _ in 0..100 {
            let moment = due(at(0), at(1000), chance());
            assert!(at(700) <= moment && moment <= at(900), "{moment}");
        }
    }
}
