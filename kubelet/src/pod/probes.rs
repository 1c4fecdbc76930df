//! What a probe's outcomes mean: thresholds, and what a container counts as before the first one.
//!
//! As `pkg/kubelet/prober` has it: readiness starts as failed, liveness as passed, startup as unknown; a
//! result changes after `successThreshold` passes or `failureThreshold` failures in a row; while the startup
//! probe has not passed, the others do not run.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Holds traffic back.
    Readiness,
    /// Restarts the container.
    Liveness,
    /// Holds the other two back, and restarts the container.
    Startup,
}

impl Kind {
    /// As messages name it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
            Self::Startup => "Startup",
        }
    }

    /// The container's probe of this kind.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }

    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];
}

/// The counting of one probe of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
    result: Option<bool>,
}

impl Counter {
    /// Starts counting, from what the container counts as before any outcome.
    #[must_use]
    pub fn new(kind: Kind, probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            in_a_row: 0,
            result: match kind {
                Kind::Readiness => Some(false),
                Kind::Liveness => Some(true),
                Kind::Startup => None,
            },
        }
    }

    /// Starts from a result known from before (an adopted container).
    #[must_use]
    pub fn resumed(mut self, result: bool) -> Self {
        self.result = Some(result);
        self
    }

    /// The result so far; `None` while a startup probe has not decided.
    #[must_use]
    pub fn result(&self) -> Option<bool> {
        self.result
    }

    /// Takes one outcome in; says whether the result changed.
    pub fn observe(&mut self, passed: bool) -> bool {
        self.in_a_row = if self.last == Some(passed) { self.in_a_row + 1 } else { 1 };
        self.last = Some(passed);
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if self.in_a_row < threshold || self.result == Some(passed) {
            return false;
        }
        self.result = Some(passed);
        true
    }
}

/// Seconds of a probe's field; the API server has filled defaults in, so absence only happens in tests.
#[must_use]
pub fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

/// What a probe or hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Runs a command in the container.
    Exec(Vec<String>),
    /// Asks for a page; 200 to 399 passes.
    Http(HttpRequest),
    /// Opens a connection.
    Tcp {
        /// Host, the pod's address if empty.
        host: String,
        /// Port.
        port: u16,
    },
    /// Asks a gRPC server at the pod's address for its health (`grpc.health.v1.Health`).
    Grpc {
        /// Port.
        port: u16,
        /// The service that is asked about; the whole server if empty.
        service: String,
    },
}

/// An HTTP request of a probe or hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Whether TLS is spoken (the certificate is not checked, as documented).
    pub tls: bool,
    /// Host, the pod's address if empty.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// Reads what a probe is to do; the error names what is wrong.
pub fn action(probe: &Probe, container: &Container) -> Result<Action, String> {
    if let Some(exec) = &probe.exec {
        return Ok(Action::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = &probe.http_get {
        return Ok(Action::Http(http_request(http, container)?));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(Action::Tcp {
            host: tcp.host.clone().unwrap_or_default(),
            port: resolve_port(&tcp.port, container)?,
        });
    }
    if let Some(grpc) = &probe.grpc {
        return Ok(Action::Grpc {
            port: resolve_port(&IntOrString::Int(grpc.port), container)?,
            service: grpc.service.clone().unwrap_or_default(),
        });
    }
    Err(format!("missing probe handler for container {}", container.name))
}

/// The request of an `httpGet` action.
pub fn http_request(http: &HTTPGetAction, container: &Container) -> Result<HttpRequest, String> {
    let mut path = http.path.clone().unwrap_or_default();
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    Ok(HttpRequest {
        tls: http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: http.host.clone().unwrap_or_default(),
        port: resolve_port(&http.port, container)?,
        path,
        headers: http
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}

/// A port given by number or by the name of one of the container's ports.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name.as_str()))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let shown = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("couldn't find port: {shown} in container {}", container.name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn probe(success: i32, failure: i32) -> Probe {
        Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() }
    }

    #[test]
    fn readiness_needs_its_thresholds() {
        let mut counter = Counter::new(Kind::Readiness, &probe(2, 3));
        assert_eq!(counter.result(), Some(false));
        assert!(!counter.observe(true));
        assert!(counter.observe(true));
        assert_eq!(counter.result(), Some(true));
        assert!(!counter.observe(false) && !counter.observe(false));
        assert!(!counter.observe(true), "a pass between starts the count of failures over");
        assert!(!counter.observe(false) && !counter.observe(false));
        assert!(counter.observe(false));
    }

    #[test]
    fn liveness_counts_as_passed_and_startup_as_open() {
        let mut liveness = Counter::new(Kind::Liveness, &probe(1, 1));
        assert_eq!(liveness.result(), Some(true));
        assert!(liveness.observe(false));
        let mut startup = Counter::new(Kind::Startup, &probe(1, 2));
        assert_eq!(startup.result(), None);
        assert!(!startup.observe(false));
        assert!(startup.observe(true));
    }

    #[test]
    fn ports_by_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "http", "containerPort": 8080}]}))
                .unwrap();
        assert_eq!(resolve_port(&IntOrString::String("http".into()), &container), Ok(8080));
        assert_eq!(resolve_port(&IntOrString::Int(81), &container), Ok(81));
        assert!(resolve_port(&IntOrString::String("grpc".into()), &container).is_err());
    }

    proptest! {
        /// A result only ever changes after a full row of equal outcomes.
        #[test]
        fn changes_follow_a_full_row(success in 1i32..4, failure in 1i32..4, outcomes in prop::collection::vec(any::<bool>(), 0..40)) {
            let mut counter = Counter::new(Kind::Readiness, &probe(success, failure));
            for (index, outcome) in outcomes.iter().enumerate() {
                if counter.observe(*outcome) {
                    let needed = usize::try_from(if *outcome { success } else { failure }).unwrap();
                    prop_assert!(index + 1 >= needed);
                    prop_assert!(outcomes[index + 1 - needed..=index].iter().all(|past| past == outcome));
                }
            }
        }
    }
}
