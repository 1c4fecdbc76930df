//! One client for every component: requests and answers as bytes or decoded values.

use std::{path::Path, time::Duration};

use api_objects::{Resource, Value};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::{
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{BoxError, Service};

use crate::{Error, watch::WatchEvent};

/// How long a request that is no watch or stream may take. Generous: a server that deletes a collection or
/// waits for a proxied kubelet may need tens of seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to an API server: cheap to clone, over TLS or in process.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    /// How long a request may take that is no watch or stream.
    patience: Duration,
}

/// A WebSocket to a pod, through the server.
pub type WebSocket = kube::client::Connection;

/// The media type of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902
    Json,
    /// RFC 7396
    Merge,
    /// Kubernetes' strategic merge patch
    Strategic,
}

impl PatchType {
    /// The `Content-Type` of the patch.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// What a list or watch should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Label selector; empty for all.
    pub label_selector: String,
    /// Field selector; empty for all.
    pub field_selector: String,
    /// At most this many; 0 for all.
    pub limit: u64,
    /// Where the last page ended.
    pub continue_token: String,
    /// Not older than this; empty for the latest.
    pub resource_version: String,
}

impl ListQuery {
    /// The query string, without a question mark; empty if nothing is asked for.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = Query::default();
        query.add("labelSelector", &self.label_selector);
        query.add("fieldSelector", &self.field_selector);
        if self.limit > 0 {
            query.add("limit", &self.limit.to_string());
        }
        query.add("continue", &self.continue_token);
        query.add("resourceVersion", &self.resource_version);
        query.0
    }
}

/// Builds a query string with the escaping that every server reads the same way.
#[derive(Debug, Default)]
pub(crate) struct Query(pub(crate) String);

impl Query {
    /// Adds `key=value` unless the value is empty.
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&escape(value));
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
#[must_use]
pub fn escape(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String must succeed");
        }
    }
    out
}

impl Client {
    /// A client as a kubeconfig says; `path` instead of the usual places, `context` instead of the current.
    ///
    /// # Errors
    /// If there is no configuration, or it cannot be used.
    pub async fn from_kubeconfig(path: Option<&Path>, context: Option<&str>) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: context.map(str::to_owned), cluster: None, user: None };
        let config = match path {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .map_err(|error| Error::Config(crate::error::chain(&error)))?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            None => kube::Config::from_kubeconfig(&options).await,
        }
        .map_err(|error| Error::Config(crate::error::chain(&error)))?;
        Self::from_config(config)
    }

    /// A client for a configuration that has been resolved already.
    ///
    /// # Errors
    /// If the configuration's certificates or keys cannot be used.
    pub fn from_config(mut config: kube::Config) -> Result<Self, Error> {
        // An idle watch is silent for up to a minute (bookmarks); kube's own read timeout would be right for
        // it too, but `logs -f` and `exec` may be silent for ever.
        config.read_timeout = None;
        // The server takes the first part for the manager of what is written; like client-go, the program.
        if !config.headers.iter().any(|(name, _)| *name == http::header::USER_AGENT) {
            let program = std::env::args().next().unwrap_or_default();
            let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
            let agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
            if let Ok(agent) = http::HeaderValue::from_str(&agent) {
                config.headers.push((http::header::USER_AGENT, agent));
            }
        }
        let inner = crate::connect::client(config);
        let inner = inner.map_err(|error| Error::Config(crate::error::chain(&error)))?;
        Ok(Self { inner, patience: REQUEST_TIMEOUT })
    }

    /// A client whose transport is a service in this process: the API server's own, with an identity that no
    /// socket can claim.
    pub fn from_service<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { inner: kube::Client::new(service, "default"), patience: REQUEST_TIMEOUT }
    }

    /// The same client with another patience for requests that are no watch or stream: what is said again in a
    /// moment is better given up early, and said over a new connection.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same connection as `kube`'s client.
    #[must_use]
    pub fn kube(&self) -> &kube::Client {
        &self.inner
    }

    /// Sends a request and reads the whole answer; any status code is an answer.
    ///
    /// # Errors
    /// If the server is not reached in time.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, Error> {
        let exchange = async {
            let response = self.inner.send(request.map(Body::from)).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| Error::Transport(crate::error::chain(&error)))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let patience = self.patience;
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or_else(|_| Err(Error::Transport(format!("no answer within {patience:?}"))))
    }

    /// Sends a request and answers the body; a status code of 400 and more is an error.
    ///
    /// # Errors
    /// The server's Status, or why it was not reached.
    pub async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<(&str, Vec<u8>)>,
        accept: Option<&str>,
    ) -> Result<Bytes, Error> {
        let response = self.send(build(method, path_and_query, body, accept)?).await?;
        let (parts, body) = response.into_parts();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            return Err(Error::from_answer(parts.status, &body));
        }
        Ok(body)
    }

    async fn request_value(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        let body = match body {
            Some((content_type, value)) => Some((content_type, encode(value)?)),
            None => None,
        };
        let answer = self.request(method, path, body, None).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::Decode(error.to_string()))
    }

    /// Reads one object. `namespace` is empty for cluster-scoped kinds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value, Error> {
        self.request_value(Method::GET, &resource.object_path(namespace, name), None).await
    }

    /// Lists a namespace, or everything if `namespace` is empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &ListQuery,
    ) -> Result<Value, Error> {
        let path = with_query(&resource.collection_path(namespace), &query.to_query());
        self.request_value(Method::GET, &path, None).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value, Error> {
        let body = Some((JSON, object));
        self.request_value(Method::POST, &resource.collection_path(namespace), body).await
    }

    /// Replaces an object; it must carry the resource version that was read.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        let body = Some((JSON, object));
        self.request_value(Method::PUT, &resource.object_path(namespace, name), body).await
    }

    /// Replaces an object through a subresource that shows it (`approval`, `status`).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_subresource(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        let path = subresource_path(resource, namespace, name, Some(subresource));
        self.request_value(Method::PUT, &path, Some((JSON, object))).await
    }

    /// Patches an object or a subresource of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        kind: PatchType,
        patch: &Value,
    ) -> Result<Value, Error> {
        let path = subresource_path(resource, namespace, name, subresource);
        self.request_value(Method::PATCH, &path, Some((kind.content_type(), patch))).await
    }

    /// Deletes an object; `options` is a `DeleteOptions` or null. Answers the object or a Status.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &Value,
    ) -> Result<Value, Error> {
        let body = (!options.is_null()).then_some((JSON, options));
        self.request_value(Method::DELETE, &resource.object_path(namespace, name), body).await
    }

    /// Posts to a subresource: `binding`, `eviction`, `token`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_subresource(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let path = subresource_path(resource, namespace, name, Some(subresource));
        self.request_value(Method::POST, &path, Some((JSON, body))).await
    }

    /// Reads an answer as it comes: logs and watches. No timeout.
    ///
    /// # Errors
    /// If the server refuses or is not reached; later trouble comes as an item.
    pub async fn stream(
        &self,
        path_and_query: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        self.stream_as(path_and_query, None).await
    }

    /// The same with a wish for a representation: watches of tables.
    ///
    /// # Errors
    /// If the server refuses or is not reached; later trouble comes as an item.
    pub async fn stream_as(
        &self,
        path_and_query: &str,
        accept: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let request = build(Method::GET, path_and_query, None, accept)?;
        let response = self.inner.send(request.map(Body::from)).await?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            let body = body.collect().await.map_err(|error| Error::Transport(crate::error::chain(&error)))?;
            return Err(Error::from_answer(parts.status, &body.to_bytes()));
        }
        // One frame of at most a few KiB is in flight at a time: the body is read only as fast as we are.
        Ok(body.into_data_stream().map_err(|error| Error::Transport(crate::error::chain(&error))).boxed())
    }

    /// Watches a collection after a resource version; bookmarks are asked for.
    ///
    /// # Errors
    /// If the server refuses or is not reached; later trouble comes as an item.
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &ListQuery,
        after: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent, Error>> + Send + Unpin + use<>, Error> {
        let mut params =
            Query(ListQuery { resource_version: after.to_owned(), limit: 0, ..query.clone() }.to_query());
        params.add("watch", "true");
        params.add("allowWatchBookmarks", "true");
        let path = with_query(&resource.collection_path(namespace), &params.0);
        Ok(crate::watch::decode(self.stream(&path).await?))
    }

    /// Opens a WebSocket (exec, attach) with the channel protocols v5 and v4.
    ///
    /// # Errors
    /// The server's Status, or why it was not reached.
    pub async fn websocket(&self, path_and_query: &str) -> Result<WebSocket, Error> {
        let request = build(Method::GET, path_and_query, None, None)?;
        self.inner.connect(request).await.map_err(|error| match error {
            kube::Error::Api(status) => {
                let body = serde_json::to_vec(&status).unwrap_or_default();
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Error::from_answer(code, &body)
            }
            other => Error::from(other),
        })
    }

    /// Turns a connection into SPDY/3.1 (port-forward), whose streams follow `protocol`; answers its bytes.
    ///
    /// # Errors
    /// The server's Status, or why it was not reached.
    pub async fn spdy(
        &self,
        path_and_query: &str,
        protocol: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Error> {
        let mut request = build(Method::POST, path_and_query, None, None)?;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        let wrong = |error: &dyn std::error::Error| Error::Config(crate::error::chain(error));
        let value = HeaderValue::from_str(protocol).map_err(|error| wrong(&error))?;
        headers.insert("x-stream-protocol-version", value);
        let response = self.inner.send(request.map(Body::from)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| Error::Transport(crate::error::chain(&error)))?;
            return Err(Error::from_answer(parts.status, &body.to_bytes()));
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map(TokioIo::new).map_err(|error| Error::Transport(crate::error::chain(&error)))
    }
}

const JSON: &str = "application/json";

fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Decode(error.to_string()))
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn subresource_path(resource: &Resource, namespace: &str, name: &str, subresource: Option<&str>) -> String {
    let mut path = resource.object_path(namespace, name);
    if let Some(subresource) = subresource {
        path.push('/');
        path.push_str(subresource);
    }
    path
}

fn build(
    method: Method,
    path_and_query: &str,
    body: Option<(&str, Vec<u8>)>,
    accept: Option<&str>,
) -> Result<Request<Vec<u8>>, Error> {
    let mut request =
        Request::builder().method(method).uri(path_and_query).header(header::ACCEPT, accept.unwrap_or(JSON));
    if let Some((content_type, _)) = &body {
        request = request.header(header::CONTENT_TYPE, *content_type);
    }
    request
        .body(body.map(|(_, bytes)| bytes).unwrap_or_default())
        .map_err(|error| Error::Config(format!("request {path_and_query:?} is not valid: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let query = ListQuery { label_selector: "a in (b,c)".into(), limit: 5, ..ListQuery::default() };
        assert_eq!(query.to_query(), "labelSelector=a%20in%20%28b%2Cc%29&limit=5");
    }
}
