//! When something that failed is tried again: restart policies and exponential back-off.
//!
//! The back-off follows upstream's `k8s.io/client-go/util/flowcontrol.Backoff` as the kubelet uses it: the
//! first restart is immediate, later ones wait 10 s doubling to 300 s after the end of the run before, and a
//! run of more than ten minutes starts over.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::{is_init, is_sidecar, spec};

/// First delay.
pub const INITIAL_DELAY: Duration = Duration::from_secs(10);
/// Longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(300);

/// Whether a container that ended is to run again.
#[must_use]
pub fn should_restart(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether a container of a pod that ended is to run again: the first of its own rules that matches decides,
/// else its own policy, else the pod's (KEP-5307). An init container that succeeded is done unless it is a sidecar.
#[must_use]
pub fn container_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let init = is_init(pod, &container.name);
    if init && !is_sidecar(container) && exit_code == 0 {
        return false;
    }
    if matching_rule(container, exit_code).is_some() {
        return true;
    }
    let policy = container.restart_policy.as_deref().or_else(|| spec(pod).restart_policy.as_deref());
    should_restart(policy.unwrap_or("Always"), exit_code)
}

/// Whether the end of a container restarts all containers of its pod (KEP-5532, on by default since v1.36).
#[must_use]
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    matching_rule(container, exit_code).is_some_and(|rule| rule.action == "RestartAllContainers")
}

fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            if codes.operator == "NotIn" { !listed } else { listed }
        })
    })
}

/// Exponential back-off per key.
#[derive(Debug, Default)]
pub struct BackOff {
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl BackOff {
    /// How long to wait still, if the last attempt ended at `since`; `None` to go ahead.
    #[must_use]
    pub fn remaining(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        if elapsed(entry.updated, since) > MAX_DELAY * 2 {
            return None;
        }
        entry.delay.checked_sub(elapsed(since, now)).filter(|left| !left.is_zero())
    }

    /// The delay that holds for `key`.
    #[must_use]
    pub fn delay(&self, key: &str) -> Option<Duration> {
        self.entries.get(key).map(|entry| entry.delay)
    }

    /// Records an attempt: the next wait is twice as long, or the first again after a quiet time.
    pub fn advance(&mut self, key: &str, ended: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if elapsed(entry.updated, ended) <= MAX_DELAY * 2 => (entry.delay * 2).min(MAX_DELAY),
            _ => INITIAL_DELAY,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Takes up the back-off of a container found at start: as if its `attempt` restarts had been recorded
    /// here, the last of them at `started`. A restarted kubelet so goes on where it was.
    pub fn resume(&mut self, key: &str, attempt: u32, started: Timestamp) {
        if attempt == 0 || self.entries.contains_key(key) {
            return;
        }
        let delay = INITIAL_DELAY.saturating_mul(2u32.saturating_pow((attempt - 1).min(8))).min(MAX_DELAY);
        self.entries.insert(key.to_owned(), Entry { delay, updated: started });
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// Time from `from` to `to`; zero if that is backwards.
#[must_use]
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn policies() {
        assert!(should_restart("Always", 0));
        assert!(should_restart("OnFailure", 1));
        assert!(!should_restart("OnFailure", 0));
        assert!(!should_restart("Never", 1));
    }

    #[test]
    fn a_container_s_own_rules_come_first() {
        let pod = crate::pod::testing::pod(serde_json::json!({"restartPolicy": "Never", "containers": [
            {"name": "plain"}, {"name": "own", "restartPolicy": "OnFailure"},
            {"name": "ruled", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [42, 43]}},
                {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}]}],
            "initContainers": [{"name": "once", "restartPolicy": "OnFailure"}, {"name": "side", "restartPolicy": "Always"}]}));
        let restarts =
            |name: &str, code| container_restarts(&pod, crate::pod::container(&pod, name).unwrap(), code);
        for (name, code, expected) in [
            ("plain", 1, false),
            ("own", 1, true),
            ("own", 0, false),
            ("ruled", 42, true),
            ("ruled", 2, true),
            ("ruled", 1, false),
            ("once", 1, true),
            ("once", 0, false),
            ("side", 0, true),
        ] {
            assert_eq!(restarts(name, code), expected, "{name} {code}");
        }
        let ruled = crate::pod::container(&pod, "ruled").unwrap();
        assert!(restarts_all(ruled, 2) && !restarts_all(ruled, 42) && !restarts_all(ruled, 0));
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = BackOff::default();
        let mut now = 0;
        assert_eq!(backoff.remaining("c", at(now), at(now)), None, "the first restart is immediate");
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.advance("c", at(now), at(now));
            now += 1; // it ran for a second
            assert_eq!(backoff.remaining("c", at(now), at(now)), Some(Duration::from_secs(expected)));
            assert_eq!(backoff.remaining("c", at(now), at(now + 3)), Some(Duration::from_secs(expected - 3)));
            now += i64::try_from(expected).unwrap();
            assert_eq!(backoff.remaining("c", at(now - i64::try_from(expected).unwrap()), at(now)), None);
        }
    }

    #[test]
    fn a_long_run_starts_over() {
        let mut backoff = BackOff::default();
        backoff.advance("c", at(0), at(0));
        backoff.advance("c", at(10), at(10));
        assert_eq!(backoff.remaining("c", at(10 + 601), at(10 + 601)), None);
        backoff.advance("c", at(10 + 601), at(10 + 601));
        assert_eq!(backoff.delay("c"), Some(INITIAL_DELAY));
    }

    #[test]
    fn resumes_from_the_restart_count() {
        let mut backoff = BackOff::default();
        backoff.resume("c", 3, at(0));
        assert_eq!(backoff.remaining("c", at(1), at(1)), Some(Duration::from_secs(40)));
        backoff.resume("d", 0, at(0));
        assert_eq!(backoff.remaining("d", at(1), at(1)), None);
        backoff.resume("e", 40, at(0));
        assert_eq!(backoff.delay("e"), Some(MAX_DELAY));
    }
}
