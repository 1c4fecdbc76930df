//! `/healthz`, `/livez`, `/readyz` and `/version`.
//!
//! Named checks, `?verbose` and `?exclude=` as upstream's `k8s.io/apiserver/pkg/server/healthz`
//! (<https://kubernetes.io/docs/reference/using-api/health-checks/>). The reason of a failure goes to the log,
//! not to the caller, who may be anybody.

use std::{fmt::Write, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::SetOnce;

use crate::{request_info::decode_query, state::Server};

/// A store that takes longer to say where it is counts as failed.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the checks look at, set as the server comes up.
#[derive(Debug, Default)]
pub struct Health {
    bootstrapped: SetOnce<()>,
}

impl Health {
    /// Namespaces, roles and the like are there.
    pub fn set_bootstrapped(&self) {
        // An error means that it was said before.
        let _ = self.bootstrapped.set(());
    }

    /// Whether namespaces, roles and the like are there.
    #[must_use]
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.initialized()
    }

    /// Waits until namespaces, roles and the like are there.
    pub async fn bootstrapped(&self) {
        self.bootstrapped.wait().await;
    }
}

/// One of the three endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Healthz,
    Livez,
    Readyz,
}

impl Endpoint {
    /// The endpoint of a path, and the single check that it names (`/readyz/etcd`).
    pub(crate) fn of(path: &str) -> Option<(Self, Option<&str>)> {
        [Self::Healthz, Self::Livez, Self::Readyz].into_iter().find_map(|endpoint| {
            let rest = path.strip_prefix('/')?.strip_prefix(endpoint.name())?;
            match rest.strip_prefix('/') {
                None if rest.is_empty() => Some((endpoint, None)),
                None => None,
                Some("") => Some((endpoint, None)),
                Some(check) => Some((endpoint, Some(check))),
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Self::Healthz | Self::Livez => &[Check::Ping, Check::Log, Check::Store, Check::Bootstrap],
            Self::Readyz => {
                &[Check::Ping, Check::Log, Check::Store, Check::Cache, Check::Bootstrap, Check::Shutdown]
            }
        }
    }
}

/// A named check, under the name that upstream gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Ping,
    Log,
    Store,
    Cache,
    Bootstrap,
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Log => "log",
            Self::Store => "etcd",
            Self::Cache => "informer-sync",
            Self::Bootstrap => "poststarthook/rbac/bootstrap-roles",
            Self::Shutdown => "shutdown",
        }
    }

    async fn run(self, server: &Server) -> Result<(), String> {
        match self {
            // That this code runs is all that these two say.
            Self::Ping | Self::Log => Ok(()),
            Self::Store => store_answers(server).await,
            Self::Cache => {
                server.authorizer.synced().then_some(()).ok_or_else(|| "roles are not read yet".to_owned())
            }
            Self::Bootstrap => server
                .health
                .is_bootstrapped()
                .then_some(())
                .ok_or_else(|| "the bootstrap objects are not there yet".to_owned()),
            Self::Shutdown => {
                if server.shutdown.is_cancelled() {
                    Err("the server is stopping".to_owned())
                } else {
                    Ok(())
                }
            }
        }
    }
}

async fn store_answers(server: &Server) -> Result<(), String> {
    use apiserver_storage::Store;
    match tokio::time::timeout(STORE_TIMEOUT, server.storage.store().current_revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    }
}

/// Runs the checks that a request asks for.
pub(crate) async fn answer(
    server: &Server,
    endpoint: Endpoint,
    only: Option<&str>,
    query: &str,
) -> Response<Body> {
    let checks: Vec<Check> = match only {
        None => endpoint.checks().to_vec(),
        Some(name) => match endpoint.checks().iter().find(|check| check.name() == name) {
            Some(check) => vec![*check],
            None => return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        },
    };
    let mut excluded: Vec<String> = Vec::new();
    let mut verbose = false;
    for pair in query.split('&') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("exclude", value) => excluded.push(decode_query(value)),
            ("verbose", _) => verbose = true,
            _ => {}
        }
    }

    let mut report = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name();
        if let Some(at) = excluded.iter().position(|excluded| excluded == name) {
            excluded.swap_remove(at);
            let _ = writeln!(report, "[+]{name} excluded: ok");
            continue;
        }
        match check.run(server).await {
            Ok(()) => {
                let _ = writeln!(report, "[+]{name} ok");
            }
            Err(reason) => {
                failed = true;
                tracing::warn!(endpoint = endpoint.name(), check = name, reason, "health check failed");
                let _ = writeln!(report, "[-]{name} failed: reason withheld");
            }
        }
    }
    if !excluded.is_empty() {
        excluded.sort();
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let _ = writeln!(
            report,
            "warn: some health checks cannot be excluded: no matches for {}",
            names.join(", ")
        );
    }
    let label = match only {
        None => endpoint.name().to_owned(),
        Some(name) => format!("{}/{name}", endpoint.name()),
    };
    if failed {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{label} check failed\n"));
    }
    if verbose {
        text(StatusCode::OK, format!("{report}{label} check passed\n"))
    } else {
        text(StatusCode::OK, "ok".to_owned())
    }
}

fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The Kubernetes version whose API this server speaks.
pub const KUBERNETES_MINOR: &str = "36";

/// The version string that clients parse.
pub const GIT_VERSION: &str = concat!("v1.36.0+minik8s.", env!("CARGO_PKG_VERSION"));

/// The body of `/version` (`k8s.io/apimachinery/pkg/version`). Fields about Go are there because clients
/// print them, and say what is true.
#[must_use]
pub fn version() -> String {
    serde_json::json!({
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "emulationMajor": "1",
        "emulationMinor": KUBERNETES_MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("MINIK8S_GIT_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "unknown",
        "buildDate": option_env!("MINIK8S_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
    .to_string()
}

/// This machine's architecture as Kubernetes spells it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_endpoints_and_checks() {
        assert_eq!(Endpoint::of("/readyz"), Some((Endpoint::Readyz, None)));
        assert_eq!(Endpoint::of("/livez/"), Some((Endpoint::Livez, None)));
        assert_eq!(Endpoint::of("/readyz/etcd"), Some((Endpoint::Readyz, Some("etcd"))));
        assert_eq!(
            Endpoint::of("/healthz/poststarthook/rbac/bootstrap-roles"),
            Some((Endpoint::Healthz, Some("poststarthook/rbac/bootstrap-roles")))
        );
        assert_eq!(Endpoint::of("/healthzz"), None);
        assert_eq!(Endpoint::of("/version"), None);
    }
}
