//! OpenAPI: the API's description for tools, made from the table of resources and the schema facts.
//!
//! v3 is an index and a document per group version; v2 is one document, as JSON and, for clients as old as
//! `kubectl` 1.20, as protobuf. Each is made when it is first asked for and kept compressed: few clients ask,
//! and the whole is several megabytes.

mod gnostic;
mod paths;
mod schemas;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    sync::{LazyLock, OnceLock},
};

use api_objects::{Status, Value, resource, schema::explain};
use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

use crate::negotiate;
use schemas::Form;

const JSON: &str = "application/json";
/// The media types under which the protobuf form of v2 is asked for: the current one, and the one of before
/// v1.23, which no media type parser takes, so that answers always name the current one.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// A finished document, compressed.
struct Document {
    gzip: Bytes,
    etag: HeaderValue,
}

impl Document {
    fn new(bytes: &[u8]) -> Self {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::default());
        encoder.write_all(bytes).expect("writing to a Vec must succeed");
        Self {
            gzip: encoder.finish().expect("writing to a Vec must succeed").into(),
            etag: HeaderValue::from_str(&format!("\"{digest}\""))
                .expect("a hex digest must be a header value"),
        }
    }

    fn of_json(value: &Value) -> Self {
        Self::new(value.to_string().as_bytes())
    }

    fn answer(&self, media_type: &'static str, headers: &HeaderMap, query: &str) -> Response<Body> {
        let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|tags| {
            tags.as_bytes().split(|byte| *byte == b',').any(|tag| self.etag == tag.trim_ascii())
        });
        let takes_gzip =
            negotiate::accept(headers, query, negotiate::Offer::Plain).is_ok_and(|accepted| accepted.gzip);
        let mut response = Response::new(Body::empty());
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
        out.insert(header::ETAG, self.etag.clone());
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if takes_gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            *response.body_mut() = Body::from(self.gzip.clone());
        } else {
            let mut plain = Vec::new();
            GzDecoder::new(&self.gzip[..])
                .read_to_end(&mut plain)
                .expect("a document of our own must unpack");
            *response.body_mut() = Body::from(plain);
        }
        response
    }
}

/// The v3 document of one group version, made at first use.
struct GroupVersion {
    /// `api/v1`, `apis/apps/v1`.
    path: String,
    group: &'static str,
    version: &'static str,
    document: OnceLock<Document>,
}

static GROUP_VERSIONS: LazyLock<Vec<GroupVersion>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for (group, versions) in resource::groups() {
        for version in versions {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            all.push(GroupVersion { path, group, version, document: OnceLock::new() });
        }
    }
    all
});

static INDEX: LazyLock<Document> = LazyLock::new(|| {
    let paths: Map<String, Value> = GROUP_VERSIONS
        .iter()
        .map(|group_version| {
            // The hash only tells builds apart; the documents' ETags are exact, and always checked.
            let digest = Sha256::digest(format!("{} {}", env!("CARGO_PKG_VERSION"), group_version.path));
            let hash: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
            let url = format!("/openapi/v3/{}?hash={hash}", group_version.path);
            (group_version.path.clone(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    Document::of_json(&json!({ "paths": paths }))
});

static V2: LazyLock<Document> = LazyLock::new(|| Document::of_json(&v2()));
static V2_PROTOBUF: LazyLock<Document> = LazyLock::new(|| Document::new(&gnostic::encode(&v2())));

/// Answers `/openapi/v2`, `/openapi/v3` and what hangs below it.
///
/// # Errors
/// 404 for documents that do not exist, 405 for anything but reading, 406.
pub async fn serve(parts: &Parts) -> Result<Response<Body>, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let parts = parts.clone();
    // Making a document takes milliseconds of pure work: not on a thread that serves others.
    tokio::task::spawn_blocking(move || find(&parts))
        .await
        .unwrap_or_else(|_| Err(Status::internal("the OpenAPI document could not be made")))
}

fn find(parts: &Parts) -> Result<Response<Body>, Status> {
    let headers = &parts.headers;
    let query = parts.uri.query().unwrap_or_default();
    match parts.uri.path().trim_end_matches('/') {
        "/openapi/v2" => {
            let accept =
                headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let wanted =
                accept.split(',').next().unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if PROTOBUF.contains(&wanted) {
                Ok(V2_PROTOBUF.answer(PROTOBUF[0], headers, query))
            } else {
                Ok(V2.answer(JSON, headers, query))
            }
        }
        "/openapi/v3" => Ok(INDEX.answer(JSON, headers, query)),
        path => {
            let wanted = path.strip_prefix("/openapi/v3/").ok_or_else(Status::no_such_resource)?;
            let found = GROUP_VERSIONS.iter().find(|group_version| group_version.path == wanted);
            let group_version = found.ok_or_else(Status::no_such_resource)?;
            let document = group_version
                .document
                .get_or_init(|| Document::of_json(&v3(group_version.group, group_version.version)));
            Ok(document.answer(JSON, headers, query))
        }
    }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.36.0" })
}

/// Whether a subresource carries streams instead of objects.
fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// The definition of a kind that is no resource of its own (`Scale`, `Eviction`).
fn definition_of(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

/// What a patch is, to a schema: anything.
fn patch_schema() -> Value {
    json!({ "type": "object",
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body." })
}

/// The definitions that a group version's paths name.
fn roots(group: &str, version: &str) -> BTreeSet<String> {
    let mut roots: BTreeSet<String> = ["DeleteOptions", "Status", "WatchEvent", "APIResourceList"]
        .map(|kind| format!("{META}.{kind}"))
        .into();
    for resource in resource::builtin() {
        if resource.group == group && resource.version == version {
            roots.insert(resource.definition.to_string());
            roots.insert(format!("{}List", resource.definition));
            for subresource in
                resource.subresources.iter().filter(|subresource| !is_stream(&subresource.name))
            {
                roots.insert(definition_of(&subresource.group, &subresource.version, &subresource.kind));
            }
        }
    }
    roots
}

fn v3(group: &str, version: &str) -> Value {
    let descriptions = explain::descriptions(group, version);
    let mut schemas = schemas::closure(roots(group, version), Form::V3, &descriptions);
    schemas.insert(format!("{META}.Patch"), patch_schema());
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of_group_version(group, version, Form::V3),
        "components": { "schemas": schemas },
    })
}

fn v2() -> Value {
    let descriptions = explain::all_descriptions();
    let mut all_roots = BTreeSet::new();
    let mut all_paths = Map::new();
    for group_version in GROUP_VERSIONS.iter() {
        all_roots.extend(roots(group_version.group, group_version.version));
        all_paths.extend(paths::of_group_version(group_version.group, group_version.version, Form::V2));
    }
    let mut definitions = schemas::closure(all_roots, Form::V2, &descriptions);
    definitions.insert(format!("{META}.Patch"), patch_schema());
    json!({ "swagger": "2.0", "info": info(), "paths": all_paths, "definitions": definitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_every_document_resolves() {
        for group_version in GROUP_VERSIONS.iter() {
            let document = v3(group_version.group, group_version.version);
            let text = document.to_string();
            for reference in text.split("\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(
                    document["components"]["schemas"][name].is_object(),
                    "{}: {name}",
                    group_version.path
                );
            }
        }
    }

    #[test]
    fn kubectl_finds_what_it_checks() {
        let document = v3("apps", "v1");
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
        );
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(spec["required"], json!(["selector", "template"]));
        assert_eq!(spec["properties"]["replicas"]["format"], "int32");
    }
}
