//! `/metrics`: what this server did, under upstream's names (`k8s.io/apiserver/pkg/endpoints/metrics`).
//!
//! The figures of one route (verb, group, version, resource, subresource, scope) are found once and then
//! counted through a shared handle, so that a request costs one lookup. Routes come from what clients ask,
//! so their number is bounded: what is beyond counts as `other`.

mod process;
mod storage;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt::Write,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::{process::ProcessMetrics, storage::StorageMetrics};
use crate::{request_info::RequestInfo, state::Storage};

/// Enough for every verb of every built-in resource and some thousand custom ones.
const MAX_ROUTES: usize = 8_192;

/// Upstream's buckets of request durations, in seconds.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    major: &'static str,
    minor: &'static str,
    git_version: &'static str,
}

/// The handles of one route.
struct Route {
    labels: RouteLabels,
    duration: Histogram,
    long_running: Gauge,
    /// By status code; a handful at most.
    codes: Mutex<Vec<(u16, Counter)>>,
}

type DurationFamily = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// The server's metrics.
pub struct Metrics {
    registry: RwLock<Registry>,
    routes: RwLock<HashMap<Box<str>, Arc<Route>>>,
    requests: Family<RequestLabels, Counter>,
    durations: DurationFamily,
    long_running: Family<RouteLabels, Gauge>,
    reading: Gauge,
    mutating: Gauge,
    process: ProcessMetrics,
    storage: StorageMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, dry run, group, version, resource, scope, component and HTTP response code",
            requests.clone(),
        );
        let durations = DurationFamily::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency in seconds by verb, group, version, resource, subresource, scope and component",
            durations.clone(),
        );
        let long_running = Family::<RouteLabels, Gauge>::default();
        registry.register(
            "apiserver_longrunning_requests",
            "Active long-running requests by verb, group, version, resource, scope and component",
            long_running.clone(),
        );
        let inflight = Family::<InflightLabels, Gauge>::default();
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being served now, by kind",
            inflight.clone(),
        );
        let build = Family::<BuildLabels, Gauge>::default();
        registry.register(
            "kubernetes_build_info",
            "Always 1; the labels say what this server is",
            build.clone(),
        );
        build
            .get_or_create(&BuildLabels {
                major: "1",
                minor: crate::health::KUBERNETES_MINOR,
                git_version: crate::health::GIT_VERSION,
            })
            .set(1);
        let process = ProcessMetrics::register(&mut registry);
        let storage = StorageMetrics::register(&mut registry);
        Self {
            registry: RwLock::new(registry),
            routes: RwLock::default(),
            requests,
            durations,
            long_running,
            reading: inflight.get_or_create_owned(&InflightLabels { request_kind: "readOnly" }),
            mutating: inflight.get_or_create_owned(&InflightLabels { request_kind: "mutating" }),
            process,
            storage,
        }
    }

    /// Lets another part of the server add its metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.write());
    }

    /// Begins to measure a request.
    pub(crate) fn start(&self, info: &RequestInfo) -> Measured {
        let route = self.route(info);
        let long_running = info.is_long_running();
        let inflight = if long_running {
            route.long_running.clone()
        } else if matches!(info.verb.as_str(), "get" | "list" | "head") {
            self.reading.clone()
        } else {
            self.mutating.clone()
        };
        inflight.inc();
        Measured {
            route,
            requests: self.requests.clone(),
            began: Instant::now(),
            long_running,
            inflight: InFlight(inflight),
        }
    }

    fn route(&self, info: &RequestInfo) -> Arc<Route> {
        thread_local! {
            // Reused, so that a known route is found without an allocation.
            static KEY: RefCell<String> = const { RefCell::new(String::new()) };
        }
        KEY.with_borrow_mut(|key| {
            key.clear();
            let scope = scope(info);
            // Not a path: its segments cannot hold slashes, so the key is unambiguous.
            let RequestInfo { verb, api_group, api_version, resource, subresource, .. } = info;
            let _ = write!(key, "{verb}/{api_group}/{api_version}/{resource}/{subresource}/{scope}");
            if let Some(route) = self.routes.read().get(key.as_str()) {
                return Arc::clone(route);
            }
            let mut routes = self.routes.write();
            let labels = if routes.len() < MAX_ROUTES {
                RouteLabels {
                    verb: verb_label(verb, subresource),
                    group: api_group.clone(),
                    version: api_version.clone(),
                    resource: resource.clone(),
                    subresource: subresource.clone(),
                    scope,
                    component: "apiserver",
                }
            } else {
                "other".clone_into(key);
                RouteLabels {
                    verb: "other",
                    group: String::new(),
                    version: String::new(),
                    resource: String::new(),
                    subresource: String::new(),
                    scope: "",
                    component: "apiserver",
                }
            };
            let route = routes.entry(key.as_str().into()).or_insert_with(|| {
                Arc::new(Route {
                    duration: self.durations.get_or_create_owned(&labels),
                    long_running: self.long_running.get_or_create_owned(&labels),
                    labels,
                    codes: Mutex::default(),
                })
            });
            Arc::clone(route)
        })
    }

    /// The metrics in OpenMetrics text.
    pub(crate) fn answer(&self, storage: &Storage) -> Response<Body> {
        self.process.update();
        self.storage.update(storage);
        let mut text = String::new();
        if encode(&mut text, &self.registry.read()).is_err() {
            return crate::chain::failure(&api_objects::Status::internal("the metrics could not be written"));
        }
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }
}

/// `resource`, `namespace` or `cluster`, as upstream's `CleanScope`; empty for paths.
fn scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource_request, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

/// The verb as upstream's metrics spell it.
fn verb_label(verb: &str, subresource: &str) -> &'static str {
    if matches!(subresource, "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match verb {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

/// Counts one request in flight until it is dropped, cancelled ones included.
struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that is being measured.
pub(crate) struct Measured {
    route: Arc<Route>,
    requests: Family<RequestLabels, Counter>,
    began: Instant,
    long_running: bool,
    inflight: InFlight,
}

impl Measured {
    /// The handler has answered. A long-running request counts as running until its body has ended.
    pub(crate) fn finish(self, response: Response<Body>) -> Response<Body> {
        let Self { route, requests, began, long_running, inflight } = self;
        route.count(response.status().as_u16(), &requests);
        if !long_running {
            route.duration.observe(began.elapsed().as_secs_f64());
            return response;
        }
        response.map(|body| Body::new(Counted { body, _inflight: inflight }))
    }
}

impl Route {
    fn count(&self, code: u16, requests: &Family<RequestLabels, Counter>) {
        let mut codes = self.codes.lock();
        if let Some((_, counter)) = codes.iter().find(|(known, _)| *known == code) {
            counter.inc();
            return;
        }
        let RouteLabels { verb, group, version, resource, subresource, scope, component } =
            self.labels.clone();
        let labels = RequestLabels {
            verb,
            dry_run: "",
            group,
            version,
            resource,
            subresource,
            scope,
            component,
            code,
        };
        let counter = requests.get_or_create_owned(&labels);
        counter.inc();
        codes.push((code, counter));
    }
}

/// A body that keeps its request counted.
struct Counted {
    body: Body,
    _inflight: InFlight,
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_request_is_counted_by_route_and_code() {
        let metrics = Metrics::new();
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/default/pods", None);
        for _ in 0..2 {
            let _ = metrics.start(&info).finish(Response::new(Body::empty()));
        }
        let mut text = String::new();
        encode(&mut text, &metrics.registry.read()).unwrap();
        let expected = "apiserver_request_total{verb=\"LIST\",dry_run=\"\",group=\"\",version=\"v1\",\
                        resource=\"pods\",subresource=\"\",scope=\"namespace\",component=\"apiserver\",\
                        code=\"200\"} 2";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0"), "{text}");
    }

    #[test]
    fn a_watch_counts_as_running_until_its_body_is_dropped() {
        let metrics = Metrics::new();
        let info = RequestInfo::parse(&Method::GET, "/api/v1/pods", Some("watch=1"));
        let response = metrics.start(&info).finish(Response::new(Body::empty()));
        let running = metrics.route(&info).long_running.clone();
        assert_eq!(running.get(), 1);
        drop(response);
        assert_eq!(running.get(), 0);
    }
}
