//! What is counted of the kubelet's own server (upstream's `pkg/kubelet/server/metrics`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    histogram::{DEFAULT, Histogram},
    text::{Kind, Text},
};

/// What a request is counted under: its method and the root of its path.
type Key = (&'static str, &'static str);

/// The methods and paths that are counted by their names. Both come from whoever is on the network: all others are
/// `other`, so that nobody can fill the memory with names.
const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "PUT", "DELETE"];
const PATHS: [&str; 11] = [
    "attach",
    "containerLogs",
    "exec",
    "healthz",
    "metrics",
    "metrics/cadvisor",
    "metrics/probes",
    "metrics/resource",
    "pods",
    "portForward",
    "stats",
];
/// Upstream's `longRunningRequestPathMap`; its `portforward` is not how that path is written.
const LONG_RUNNING: [&str; 2] = ["attach", "exec"];

struct Requests {
    received: u64,
    in_flight: u64,
    durations: Histogram,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct HttpMeasures {
    requests: Mutex<BTreeMap<Key, Requests>>,
}

/// A request that is being answered; ends when it is dropped.
pub(crate) struct InFlight {
    measures: Arc<super::Measures>,
    key: Key,
    begun: Instant,
}

/// The part of a path that is counted: `metrics/cadvisor` in full, of others the first word (`getURLRootPath`).
fn root(path: &str) -> &'static str {
    let mut words = path.trim_start_matches('/').splitn(3, '/');
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let of_metrics = second.filter(|_| first == "metrics").map(|second| format!("metrics/{second}"));
    let root = of_metrics.as_deref().unwrap_or(first);
    PATHS.into_iter().find(|known| *known == root).unwrap_or("other")
}

impl HttpMeasures {
    fn change(&self, key: Key, change: impl FnOnce(&mut Requests)) {
        let mut requests = self.requests.lock();
        let of_key = requests.entry(key).or_insert_with(|| Requests {
            received: 0,
            in_flight: 0,
            durations: Histogram::new(&DEFAULT),
        });
        change(of_key);
    }

    fn ended(&self, key: Key, took: Duration) {
        self.change(key, |requests| {
            requests.in_flight = requests.in_flight.saturating_sub(1);
            requests.durations.observe(took);
        });
    }

    /// Writes the families.
    pub(super) fn write(&self, text: &mut Text) {
        let requests = self.requests.lock();
        let labels = |(method, path): Key| {
            let long = if LONG_RUNNING.contains(&path) { "true" } else { "false" };
            [("long_running", long), ("method", method), ("path", path), ("server_type", "readwrite")]
        };
        let help = "[ALPHA] Number of the inflight http requests";
        let mut family = text.family("kubelet_http_inflight_requests", Kind::Gauge, help);
        for (key, of_key) in requests.iter() {
            family.sample(&labels(*key), of_key.in_flight);
        }
        let help = "[ALPHA] Duration in seconds to serve http requests";
        let mut family = text.family("kubelet_http_requests_duration_seconds", Kind::Histogram, help);
        for (key, of_key) in requests.iter() {
            of_key.durations.write(&mut family, &labels(*key));
        }
        let help = "[ALPHA] Number of the http requests received since the server started";
        let mut family = text.family("kubelet_http_requests_total", Kind::Counter, help);
        for (key, of_key) in requests.iter() {
            family.sample(&labels(*key), of_key.received);
        }
    }
}

impl InFlight {
    /// A request begins.
    pub(crate) fn begin(measures: &Arc<super::Measures>, method: &str, path: &str) -> Self {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let key = (method, root(path));
        measures.http.change(key, |requests| {
            requests.received += 1;
            requests.in_flight += 1;
        });
        Self { measures: Arc::clone(measures), key, begun: Instant::now() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.measures.http.ended(self.key, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_are_counted_by_the_root_of_their_path() {
        let measures = Arc::<crate::measures::Measures>::default();
        let exec = InFlight::begin(&measures, "POST", "/exec/default/web/app");
        drop(InFlight::begin(&measures, "GET", "/metrics/cadvisor"));
        drop(InFlight::begin(&measures, "GET", "/nobody/knows"));
        drop(InFlight::begin(&measures, "BREW", "/"));
        tokio::time::advance(Duration::from_secs(2)).await;
        let page = || {
            let mut text = Text::default();
            measures.http.write(&mut text);
            text.finish()
        };
        let of_exec = "{long_running=\"true\",method=\"POST\",path=\"exec\",server_type=\"readwrite\"}";
        let before = page();
        for line in [
            format!("kubelet_http_inflight_requests{of_exec} 1\n"),
            format!("kubelet_http_requests_total{of_exec} 1\n"),
            format!("kubelet_http_requests_duration_seconds_count{of_exec} 0\n"),
            "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"metrics/cadvisor\",server_type=\"readwrite\"} 1\n".to_owned(),
            "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"other\",server_type=\"readwrite\"} 1\n".to_owned(),
            "kubelet_http_requests_total{long_running=\"false\",method=\"other\",path=\"other\",server_type=\"readwrite\"} 1\n".to_owned(),
        ] {
            assert!(before.contains(&line), "{line} is not in\n{before}");
        }
        drop(exec);
        let after = page();
        assert!(after.contains(&format!("kubelet_http_inflight_requests{of_exec} 0\n")), "{after}");
        assert!(
            after.contains(&format!("kubelet_http_requests_duration_seconds_sum{of_exec} 2\n")),
            "{after}"
        );
    }
}
