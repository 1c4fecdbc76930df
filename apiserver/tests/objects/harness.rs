//! A server in this process, and the few requests that tests make of it.

use std::time::Duration;

use apiserver::{auth::UserInfo, config::Config, local_service};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with a namespace `default` and its account.
pub struct Cluster {
    server: apiserver::Running,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

/// An answer, read to its end.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.to_vec()).unwrap()
    }

    /// The object, if the answer has this code.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

impl Cluster {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let config = Config::for_directory(directory.path());
        let server = apiserver::start(config, shutdown.clone()).await.unwrap();
        let cluster = Self { server, shutdown, _directory: directory };
        for (path, name) in
            [("/api/v1/namespaces", "default"), ("/api/v1/namespaces/default/serviceaccounts", "default")]
        {
            // The server makes the namespace itself; whoever is first is right.
            let answer = cluster.post(path, &json!({"metadata": {"name": name}})).await;
            assert!(matches!(answer.code, 201 | 409), "{}", answer.text());
        }
        cluster
    }

    /// Any request, by an administrator.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Body> {
        self.request_as(UserInfo::new("kubernetes-admin", &["system:masters"]), method, path, headers, body)
            .await
    }

    /// Any request, by anyone.
    pub async fn request_as(
        &self,
        user: UserInfo,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(path).header("user-agent", "tester/1.0");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = local_service(self.server.server.clone(), user);
        let call = service.oneshot(request.body(Body::from(body)).unwrap());
        tokio::time::timeout(PATIENCE, call).await.expect("the server must answer").unwrap()
    }

    /// Any request, read to its end.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let response = self.request(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], object.to_string().into())
            .await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], object.to_string().into()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        let kind = format!("application/{kind}+json");
        self.send(Method::PATCH, path, &[("content-type", &kind)], patch.to_string().into()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Vec::new()).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.request(Method::GET, path, &[], Vec::new()).await;
        assert_eq!(response.status().as_u16(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }

    /// A ConfigMap in `default`.
    pub async fn config_map(&self, name: &str, data: &Value) -> Value {
        let object = json!({"metadata": {"name": name}, "data": data});
        self.post("/api/v1/namespaces/default/configmaps", &object).await.expect(201)
    }

    /// Stops the server and waits for its end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.server.wait()).await.expect("the server must end");
    }
}

/// The paths of ConfigMaps in `default`.
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An open watch.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the watch must go on")?;
            self.buffer.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// The next frame as its type and its object's name.
    pub async fn event(&mut self) -> (String, String) {
        let frame = self.next().await.expect("the watch must go on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&frame["type"]), text(&frame["object"]["metadata"]["name"]))
    }
}

/// An expected event.
pub fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}
