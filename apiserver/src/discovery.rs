//! Discovery: what this server serves, derived from the table of resources.
//!
//! The classic documents (`/api`, `/apis`, one per group and per version) and the aggregated ones
//! (`apidiscovery.k8s.io/v2`, KEP-3352) are made once and kept with their ETags: the table never changes
//! while the server runs.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use api_objects::{Resource, Status, Value, resource};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use serde_json::json;
use sha2::{Digest as _, Sha512};

use crate::{
    Server,
    negotiate::{self, Offer, Shape},
};

const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A finished document.
struct Document {
    bytes: Bytes,
    etag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let mut bytes = value.to_string().into_bytes();
        bytes.push(b'\n');
        let digest = Sha512::digest(&bytes);
        let hex: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Self { bytes: bytes.into(), etag: format!("\"{hex}\"") }
    }
}

/// The classic documents by path.
static CLASSIC: LazyLock<HashMap<String, Document>> = LazyLock::new(classic);
/// The aggregated documents of `/api` and `/apis`.
static AGGREGATED: LazyLock<[Document; 2]> = LazyLock::new(|| {
    let (core, named): (Vec<_>, Vec<_>) = groups().into_iter().partition(|group| group.name.is_empty());
    [Document::new(&aggregated(&core)), Document::new(&aggregated(&named))]
});

/// Answers `/api`, `/apis` and what hangs below them, and the list of paths at `/`.
///
/// # Errors
/// 404 for paths that do not exist, 405 for anything but reading, 406.
pub fn serve(server: &Arc<Server>, parts: &Parts) -> Result<Response<Body>, Status> {
    let path = parts.uri.path().trim_end_matches('/');
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(if CLASSIC.contains_key(path) {
            Status::method_not_allowed()
        } else {
            Status::no_such_resource()
        });
    }
    let query = parts.uri.query().unwrap_or_default();
    if path == "/api" {
        let accepted = negotiate::accept(&parts.headers, query, Offer::Discovery)?;
        if accepted.shape == Shape::AggregatedDiscovery {
            return Ok(answer(&AGGREGATED[0], AGGREGATED_TYPE, &parts.headers));
        }
        let address =
            SocketAddr::new(server.config.advertise_address, server.config.listen.port()).to_string();
        return Ok(crate::handlers::respond::value(StatusCode::OK, &api_versions(&address), accepted));
    }
    if path == "/apis" {
        let accepted = negotiate::accept(&parts.headers, query, Offer::Discovery)?;
        if accepted.shape == Shape::AggregatedDiscovery {
            return Ok(answer(&AGGREGATED[1], AGGREGATED_TYPE, &parts.headers));
        }
    }
    let document = CLASSIC.get(path).ok_or_else(Status::no_such_resource)?;
    let accepted = negotiate::accept(&parts.headers, query, Offer::Plain)?;
    if accepted.pretty || accepted.encoding != negotiate::Encoding::Json {
        let bytes = document.bytes.trim_ascii_end().to_vec();
        return Ok(crate::handlers::respond::json(StatusCode::OK, bytes, accepted));
    }
    Ok(answer(document, "application/json", &parts.headers))
}

fn answer(document: &Document, media_type: &'static str, headers: &HeaderMap) -> Response<Body> {
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == document.etag));
    let mut response = if unchanged {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(document.bytes.clone()))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

// === the documents ===

struct Group {
    name: &'static str,
    versions: Vec<&'static str>,
}

fn groups() -> Vec<Group> {
    resource::groups().into_iter().map(|(name, versions)| Group { name, versions }).collect()
}

fn resources(group: &str, version: &str) -> impl Iterator<Item = &'static Arc<Resource>> {
    resource::builtin().iter().filter(move |resource| resource.group == group && resource.version == version)
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn api_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn classic() -> HashMap<String, Document> {
    let mut documents = HashMap::new();
    let mut listed = Vec::new();
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for group in groups() {
        for version in &group.versions {
            let base = if group.name.is_empty() {
                format!("/api/{version}")
            } else {
                format!("/apis/{}/{version}", group.name)
            };
            documents.insert(base, Document::new(&resource_list(group.name, version)));
        }
        if group.name.is_empty() {
            continue;
        }
        let mut object = group_object(&group);
        listed.push(object.clone());
        object["kind"] = json!("APIGroup");
        object["apiVersion"] = json!("v1");
        documents.insert(format!("/apis/{}", group.name), Document::new(&object));
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed});
    documents.insert("/apis".to_owned(), Document::new(&list));
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned),
    );
    paths.sort_unstable();
    documents.insert(String::new(), Document::new(&json!({ "paths": paths })));
    documents
}

fn group_object(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(group.name, version), "version": version}))
        .collect();
    json!({"name": group.name, "preferredVersion": versions[0], "versions": versions})
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    for resource in resources(group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        entries.push(entry);
        for subresource in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
            });
            if (&subresource.group, &subresource.version) != (&resource.group, &resource.version) {
                entry["group"] = json!(subresource.group);
                entry["version"] = json!(subresource.version);
            }
            entries.push(entry);
        }
    }
    let mut list =
        json!({"kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": entries});
    // Upstream leaves the apiVersion out of the legacy document of the core group.
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    list
}

fn aggregated(groups: &[Group]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = resources(group.name, version)
                        .map(|resource| aggregated_resource(resource))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({ "name": group.name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": {"group": subresource.group, "version": subresource.version, "kind": subresource.kind},
                    "verbs": subresource.verbs,
                })
            })
            .collect();
        entry["subresources"] = json!(subresources);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_as_documented() {
        let pods = resource_list("", "v1");
        let find = |name: &str| {
            pods["resources"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()
        };
        assert_eq!(
            *find("pods"),
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["po"], "categories": ["all"]})
        );
        assert_eq!(
            *find("pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy",
                "version": "v1", "kind": "Eviction", "verbs": ["create"]})
        );
    }

    #[test]
    fn aggregated_has_every_group_once() {
        let named: Value = serde_json::from_slice(&AGGREGATED[1].bytes).unwrap();
        let names: Vec<&str> = named["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names.len() + 1, resource::groups().len());
        let apps = named["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["metadata"]["name"] == "apps")
            .unwrap();
        let deployments = apps["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["resource"] == "deployments")
            .unwrap();
        assert_eq!(deployments["scope"], "Namespaced");
        assert_eq!(
            deployments["subresources"][0]["responseKind"],
            json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
        );
    }
}
