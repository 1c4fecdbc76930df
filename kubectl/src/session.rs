//! One conversation with one cluster: requests with kubectl's errors and warnings, and what the server serves.

use std::sync::Arc;
use std::time::Duration;

use api_objects::duration::parse_go;
use api_objects::resource::{self, StorageLocation, Subresource};
use api_objects::{Resource, Status, Value};
use bytes::Bytes;
use client::Client;
use futures_util::Stream;
use http::{Method, Request, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;

use crate::cli::GlobalArgs;
use crate::error::Error;
use crate::output;
use crate::settings::Settings;

/// Asks for tables, and takes objects from servers that make none.
pub(crate) const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A connection and what is known about its other end.
pub(crate) struct Session {
    client: Client,
    /// The namespace to work in.
    pub(crate) namespace: String,
    /// Whether it was given on the command line.
    pub(crate) namespace_given: bool,
    /// The server's address, for messages.
    pub(crate) server: String,
    /// How long one request may take.
    request_timeout: Option<Duration>,
    discovered: OnceCell<Vec<Arc<Resource>>>,
}

/// `--request-timeout`: a duration, or a whole number of seconds; nothing for 0.
fn request_timeout(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse::<u64>().ok().map(Duration::from_secs).or_else(|| parse_go(text).ok());
    match parsed {
        Some(limit) => Ok(Some(limit).filter(|limit| !limit.is_zero())),
        None => Err(Error::message(
            "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a \
             corresponding time unit (e.g. 1s | 2m | 3h)",
        )),
    }
}

impl Session {
    /// Connects as flags and kubeconfig say. No request is sent yet.
    pub(crate) async fn connect(args: &GlobalArgs) -> Result<Self, Error> {
        let request_timeout = request_timeout(args.request_timeout.as_deref())?;
        let settings = Settings::load(args).await?;
        let server = settings.config.cluster_url.to_string();
        let client =
            Client::from_config(settings.config).map_err(|error| Error::message(error.to_string()))?;
        Ok(Self {
            client,
            namespace: settings.namespace,
            namespace_given: settings.namespace_given,
            server: server.trim_end_matches('/').to_owned(),
            request_timeout,
            discovered: OnceCell::new(),
        })
    }

    fn explain(&self, error: client::Error) -> Error {
        let text = match error {
            client::Error::Api(status) => return Error::Server { status },
            other => other.to_string(),
        };
        let address = self.server.split("://").nth(1).unwrap_or(&self.server);
        if text.contains("Connection refused") || text.contains("onnection refused") {
            Error::Unreachable(format!(
                "The connection to the server {address} was refused - did you specify the right host or port? (Is the \
                 cluster up? 'minik8s up' starts the local one)"
            ))
        } else {
            Error::Unreachable(format!("Unable to connect to the server: {text}"))
        }
    }

    /// Sends a request; warnings go to standard error, failures are errors.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
        accept: &str,
    ) -> Result<Bytes, Error> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if let Some((content_type, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        let request = request
            .body(body.map(|(_, bytes)| bytes).unwrap_or_default())
            .map_err(|error| Error::message(format!("cannot ask for {path:?}: {error}")))?;
        let response = match self.request_timeout {
            None => self.client.send(request).await,
            Some(limit) => tokio::time::timeout(limit, self.client.send(request)).await.map_err(|_| {
                Error::Unreachable(format!(
                    "Unable to connect to the server: no answer within {limit:?} (--request-timeout)"
                ))
            })?,
        };
        let response = response.map_err(|error| self.explain(error))?;
        for warning in response.headers().get_all(header::WARNING) {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                output::complain(&format!("Warning: {text}"));
            }
        }
        let code = response.status();
        let body = response.into_body();
        if code.is_client_error() || code.is_server_error() {
            let status = serde_json::from_slice::<Status>(&body)
                .ok()
                .filter(|status| !status.message.is_empty() || !status.reason.is_empty())
                .unwrap_or_else(|| {
                    Status::failure(code.as_u16(), "", String::from_utf8_lossy(&body).trim().to_owned())
                });
            return Err(status.into());
        }
        Ok(body)
    }

    async fn value(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, Error> {
        let body = body.map(|(content_type, value)| (content_type, value.to_string().into_bytes()));
        let answer = self.call(method, path, body, "application/json").await?;
        decode(&answer)
    }

    /// GET, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.value(Method::GET, path, None).await
    }

    /// GET of one object.
    pub(crate) async fn get_object(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Error> {
        self.get(&resource.object_path(namespace, name)).await
    }

    /// POST of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.value(Method::POST, path, Some(("application/json", body))).await
    }

    /// PATCH.
    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Result<Value, Error> {
        self.value(Method::PATCH, path, Some((content_type, body))).await
    }

    /// DELETE with options.
    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.value(Method::DELETE, path, Some(("application/json", options))).await
    }

    /// A body that comes bit by bit.
    pub(crate) async fn stream(
        &self,
        path: &str,
        accept: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Bytes, client::Error>> + Send + Unpin + use<>, Error> {
        self.client.stream_as(path, accept).await.map_err(|error| self.explain(error))
    }

    /// A WebSocket into a container.
    pub(crate) async fn websocket(&self, path: &str) -> Result<client::WebSocket, Error> {
        self.client.websocket(path).await.map_err(|error| self.explain(error))
    }

    /// A connection of SPDY streams into a pod.
    pub(crate) async fn spdy(
        &self,
        path: &str,
        protocol: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Error> {
        self.client.spdy(path, protocol).await.map_err(|error| self.explain(error))
    }

    /// The resource that a person means.
    pub(crate) async fn resource(&self, name: &str) -> Result<Arc<Resource>, Error> {
        let name = api_objects::legacy::resource_alias(name).unwrap_or(name);
        if let Some(found) = resource::find_by_any_name(name) {
            return Ok(Arc::clone(found));
        }
        let lower = name.to_lowercase();
        let (word, group) = lower.split_once('.').unwrap_or((&lower, ""));
        let known = self.discover().await?;
        let named = |row: &&Arc<Resource>| {
            let word_fits = row.plural == word
                || row.singular == word
                || row.kind.to_lowercase() == word
                || row.short_names.iter().any(|short| short == word);
            let group_fits =
                group.is_empty() || row.group == group || group == format!("{}.{}", row.version, row.group);
            word_fits && group_fits
        };
        known
            .iter()
            .find(named)
            .cloned()
            .ok_or_else(|| Error::message(format!("the server doesn't have a resource type {word:?}")))
    }

    /// The resource of an object's kind; `source` is where the object was read.
    pub(crate) async fn resource_of(&self, object: &Value, source: &str) -> Result<Arc<Resource>, Error> {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.is_empty() {
            return Err(Error::message("Object 'Kind' is missing in the manifest"));
        }
        if api_version.is_empty() {
            return Err(Error::message(format!(
                "error validating {source:?}: error validating data: apiVersion not set; if you choose to ignore \
                 these errors, turn validation off with --validate=false"
            )));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if let Some(found) = resource::find_kind(group, version, kind) {
            return Ok(Arc::clone(found));
        }
        let fits = |row: &&Arc<Resource>| row.group == group && row.version == version && row.kind == kind;
        self.discover().await?.iter().find(fits).cloned().ok_or_else(|| {
            let text = |pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            Error::message(format!(
                "resource mapping not found for name: {:?} namespace: {:?} from {source:?}: \
                 no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first",
                text("/metadata/name"),
                text("/metadata/namespace"),
            ))
        })
    }

    /// Everything that the server serves, asked for once.
    pub(crate) async fn discover(&self) -> Result<&[Arc<Resource>], Error> {
        let rows = self.discovered.get_or_try_init(|| self.ask_for_resources()).await?;
        Ok(rows)
    }

    async fn ask_for_resources(&self) -> Result<Vec<Arc<Resource>>, Error> {
        let mut rows = Vec::new();
        let core = self.get("/api/v1").await?;
        add_resources(&mut rows, "", "v1", &core);
        let groups = self.get("/apis").await?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            let name = group["name"].as_str().unwrap_or_default();
            let preferred = group["preferredVersion"]["version"].as_str().unwrap_or_default();
            let mut versions: Vec<&str> = group["versions"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|row| row["version"].as_str())
                .collect();
            versions.sort_by_key(|version| *version != preferred);
            for version in versions {
                // A group whose server is away must not hide the others.
                match self.get(&format!("/apis/{name}/{version}")).await {
                    Ok(list) => add_resources(&mut rows, name, version, &list),
                    Err(error) => {
                        output::complain(&format!("Warning: {name}/{version} cannot be read: {error}"))
                    }
                }
            }
        }
        Ok(rows.into_iter().map(Arc::new).collect())
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::message(format!("failed to read the server's answer: {error}")))
}

/// The text of a `Warning` header (`299 - "text"`).
fn warning_text(header: &str) -> Option<String> {
    let quoted = header.splitn(3, ' ').nth(2)?;
    let text = quoted.strip_prefix('"')?.strip_suffix('"')?;
    Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn add_resources(rows: &mut Vec<Resource>, group: &str, version: &str, list: &Value) {
    let texts = |value: &Value| -> Vec<resource::Text> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|text| text.to_owned().into())
            .collect()
    };
    for row in list["resources"].as_array().into_iter().flatten() {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        if let Some((parent, subresource)) = name.split_once('/') {
            let parent = rows
                .iter_mut()
                .rev()
                .find(|row| row.plural == parent && row.group == group && row.version == version);
            if let Some(parent) = parent {
                parent.subresources.push(Subresource {
                    name: subresource.to_owned().into(),
                    kind: text("kind").into(),
                    group: text("group").into(),
                    version: text("version").into(),
                    verbs: texts(&row["verbs"]),
                });
            }
            continue;
        }
        let kind = text("kind");
        let singular =
            Some(text("singularName")).filter(|name| !name.is_empty()).unwrap_or_else(|| kind.to_lowercase());
        rows.push(Resource {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: kind.into(),
            plural: name.clone().into(),
            singular: singular.into(),
            short_names: texts(&row["shortNames"]),
            categories: texts(&row["categories"]),
            namespaced: row["namespaced"].as_bool().unwrap_or(false),
            verbs: texts(&row["verbs"]),
            subresources: Vec::new(),
            definition: "".into(),
            storage: StorageLocation {
                group: group.to_owned().into(),
                plural: name.into(),
                version: version.to_owned().into(),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_durations_or_seconds() {
        let read = |text| request_timeout(text).ok().flatten();
        assert_eq!(
            (read(Some("5")), read(Some("2m"))),
            (Some(Duration::from_secs(5)), Some(Duration::from_secs(120)))
        );
        assert_eq!((read(Some("0")), read(None)), (None, None));
        assert!(request_timeout(Some("bogus")).is_err());
    }

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#).unwrap(), r#"unknown field "spec.x""#);
        assert_eq!(warning_text("299"), None);
    }

    #[test]
    fn discovery_is_read() {
        let mut rows = Vec::new();
        let list = serde_json::json!({"resources": [
            {"name": "crontabs", "singularName": "crontab", "namespaced": true, "kind": "CronTab",
             "verbs": ["get"], "shortNames": ["ct"]},
            {"name": "crontabs/status", "singularName": "", "namespaced": true, "kind": "CronTab", "verbs": ["get"]}]});
        add_resources(&mut rows, "stable.example.com", "v1", &list);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].subresources[0].name, "status");
        assert_eq!(
            rows[0].collection_path("default"),
            "/apis/stable.example.com/v1/namespaces/default/crontabs"
        );
    }
}
