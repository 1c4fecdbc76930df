//! A small API server in memory: enough for one kubelet, with none of the real one's rules.
//!
//! It keeps objects by path, gives every write a revision, and answers list and watch, so that the client's
//! real informers run over it.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use client::Client;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// Collection path, revision and watch frame of every change.
    history: Vec<(String, u64, String)>,
}

/// The API.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    /// Whether it answers nobody.
    away: watch::Sender<bool>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0), away: watch::Sender::new(false) }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        Client::from_service(tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }))
    }

    /// Answers nobody any more, or again: requests hang meanwhile, and watches say nothing.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }

    async fn here(&self) {
        let mut away = self.away.subscribe();
        let _ = away.wait_for(|away| !away).await;
    }

    /// Puts an object there as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.write(path, Some(object));
    }

    /// Takes an object away as somebody else would.
    pub(crate) fn remove(&self, path: &str) {
        self.write(path, None);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// The messages of all events, with their reasons.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let state = self.state.lock();
        let events = state.objects.iter().filter(|(path, _)| path.contains("/events/"));
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        events.map(|(_, event)| (text(event, "reason"), text(event, "message"))).collect()
    }

    /// Waits until an object satisfies a condition; fails the test with what it is instead.
    pub(crate) async fn until(&self, path: &str, what: &str, holds: impl Fn(Option<&Value>) -> bool) {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if holds(self.get(path).as_ref()) {
                    return;
                }
                changes.changed().await.expect("the sender lives as long as the API");
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{path} never came to be {what}: {:#}", self.get(path).unwrap_or_default());
        }
    }

    fn write(&self, path: &str, object: Option<Value>) -> Value {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        let (kind, mut object) = match object {
            None => ("DELETED", state.objects.remove(path).unwrap_or_default()),
            Some(object) if state.objects.contains_key(path) => ("MODIFIED", object),
            Some(object) => ("ADDED", object),
        };
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        if kind != "DELETED" {
            state.objects.insert(path.to_owned(), object.clone());
        }
        let collection = path.rsplit_once('/').map_or("", |(collection, _)| collection);
        let frame = json!({"type": kind, "object": object}).to_string() + "\n";
        state.history.push((all_namespaces(collection), revision, frame));
        drop(state);
        self.changed.send_replace(revision);
        object
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        self.here().await;
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if let Some(account) = path.strip_suffix("/token") {
            let expires = jiff::Timestamp::now() + Duration::from_secs(3600);
            let token = format!("token of {account}");
            return answer(
                StatusCode::CREATED,
                &json!({"status": {"token": token, "expirationTimestamp": expires.to_string()}}),
            );
        }
        let (object_path, status) =
            path.strip_suffix("/status").map_or((path.as_str(), false), |path| (path, true));
        match parts.method {
            Method::GET if is_collection(&path) && query.contains("watch=") => self.watch(&path, &query),
            Method::GET if is_collection(&path) => self.list(&path),
            Method::GET => match self.get(&path) {
                Some(object) => answer(StatusCode::OK, &object),
                None => not_found(&path),
            },
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return failure(StatusCode::CONFLICT, "AlreadyExists", &path);
                }
                let mut object = body;
                let number = self.state.lock().revision;
                object["metadata"]["uid"] = json!(format!("uid-of-{name}-{number}"));
                answer(StatusCode::CREATED, &self.write(&path, Some(object)))
            }
            Method::PATCH => match self.get(object_path) {
                None => not_found(object_path),
                Some(object)
                    if body["metadata"]["uid"].is_string()
                        && body["metadata"]["uid"] != object["metadata"]["uid"] =>
                {
                    failure(StatusCode::CONFLICT, "Conflict", object_path)
                }
                Some(mut object) => {
                    let patch = if status { json!({"status": body["status"]}) } else { body };
                    merge(&mut object, &patch);
                    answer(StatusCode::OK, &self.write(object_path, Some(object)))
                }
            },
            Method::DELETE => match self.get(&path) {
                None => not_found(&path),
                Some(object)
                    if body["preconditions"]["uid"].is_string()
                        && body["preconditions"]["uid"] != object["metadata"]["uid"] =>
                {
                    failure(StatusCode::CONFLICT, "Conflict", &path)
                }
                Some(_) => answer(StatusCode::OK, &self.write(&path, None)),
            },
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &path),
        }
    }

    fn list(&self, path: &str) -> Response<Body> {
        let state = self.state.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(key, _)| {
                key.rsplit_once('/').is_some_and(|(collection, _)| all_namespaces(collection) == path)
            })
            .map(|(_, object)| object)
            .collect();
        answer(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
        )
    }

    /// Everything after the revision asked for, and then what comes.
    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let after = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|text| text.parse().ok());
        let (api, path) = (self.clone(), path.to_owned());
        let start = (after.unwrap_or(0u64), self.changed.subscribe());
        let frames = stream::unfold(start, move |(mut after, mut changes)| {
            let (api, path) = (api.clone(), path.clone());
            async move {
                loop {
                    api.here().await;
                    changes.borrow_and_update();
                    let next = {
                        let state = api.state.lock();
                        let found =
                            state.history.iter().find(|(of, revision, _)| *of == path && *revision > after);
                        found.map(|(_, revision, frame)| (*revision, Bytes::from(frame.clone())))
                    };
                    if let Some((revision, frame)) = next {
                        after = revision;
                        return Some((Ok::<_, Infallible>(frame), (after, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(Body::from_stream(frames.boxed()))
    }
}

/// The collection over all namespaces that a collection belongs to.
fn all_namespaces(collection: &str) -> String {
    match collection.split_once("/namespaces/") {
        Some((prefix, rest)) => match rest.split_once('/') {
            Some((_, plural)) => format!("{prefix}/{plural}"),
            None => collection.to_owned(),
        },
        None => collection.to_owned(),
    }
}

fn is_collection(path: &str) -> bool {
    let plural = path.rsplit('/').next().unwrap_or_default();
    matches!(plural, "pods" | "nodes" | "services")
}

/// A merge patch, with the two lists of a pod's status that are merged by key.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return };
    for (name, value) in fields {
        let key = match name.as_str() {
            "conditions" => Some("type"),
            "podIPs" => Some("ip"),
            _ => None,
        };
        match (value, key) {
            (Value::Null, _) => {
                if let Some(target) = target.as_object_mut() {
                    target.remove(name);
                }
            }
            (Value::Array(items), Some(key)) => merge_list(&mut target[name], items, key),
            (Value::Object(_), _) => {
                if !target[name].is_object() {
                    target[name] = json!({});
                }
                merge(&mut target[name], value);
            }
            _ => target[name] = value.clone(),
        }
    }
}

fn merge_list(target: &mut Value, items: &[Value], key: &str) {
    let mut list = target.as_array().cloned().unwrap_or_default();
    for item in items {
        let place = list.iter().position(|known| known[key] == item[key]);
        match (place, item["$patch"] == "delete") {
            (Some(place), true) => drop(list.remove(place)),
            (None, true) => {}
            (Some(place), false) => merge(&mut list[place], item),
            (None, false) => list.push(item.clone()),
        }
    }
    *target = Value::Array(list);
}

fn answer(code: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response
}

fn not_found(path: &str) -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "NotFound", path)
}

fn failure(code: StatusCode, reason: &str, path: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": format!("{reason}: {path}"), "code": code.as_u16()});
    answer(code, &status)
}
