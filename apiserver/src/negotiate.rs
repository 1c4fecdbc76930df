//! Which representation a client wants, and which one it sent.
//!
//! JSON and YAML are served and read, protobuf is read; in `Accept` it falls back to JSON where the client
//! allows it, as `kubectl` and typed Go clients do. See `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`.

use api_objects::Status;
use http::{HeaderMap, header};

/// The media types that can be served, in the order in which errors name them.
pub const SERVED: [&str; 2] = ["application/json", "application/yaml"];

/// The media types of bodies that are read.
const READ: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// How the bytes of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// One line of JSON.
    #[default]
    Json,
    /// YAML, as `kubectl get -o yaml` prints it.
    Yaml,
}

impl Encoding {
    /// The `Content-Type` of the answer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What shape of objects the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The objects themselves.
    #[default]
    Object,
    /// A server-side table.
    Table,
    /// Only the metadata, of an object or of every object of a list.
    Partial,
    /// Aggregated discovery (`apidiscovery.k8s.io`), v2.
    AggregatedDiscovery,
}

/// What one answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// How it is encoded.
    pub encoding: Encoding,
    /// What is encoded.
    pub shape: Shape,
    /// Whether the client takes gzip.
    pub gzip: bool,
    /// Whether people will read it.
    pub pretty: bool,
}

/// What a handler can answer with beyond the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Tables and partial metadata too: lists, objects and watches of them.
    Objects,
    /// Aggregated discovery too.
    Discovery,
    /// Nothing else.
    Plain,
}

/// Reads `Accept`, `Accept-Encoding`, `User-Agent` and the `pretty` parameter.
///
/// # Errors
/// 406 if nothing that the client accepts can be served.
pub fn accept(headers: &HeaderMap, query: &str, offer: Offer) -> Result<Accepted, Status> {
    let (encoding, shape) = match headers.get(header::ACCEPT).map(|value| value.to_str()) {
        None => (Encoding::Json, Shape::Object),
        Some(Ok("application/json" | "*/*" | "")) => (Encoding::Json, Shape::Object),
        Some(Ok(text)) => negotiate(text, offer).ok_or_else(|| Status::not_acceptable(&SERVED))?,
        Some(Err(_)) => return Err(Status::not_acceptable(&SERVED)),
    };
    Ok(Accepted { encoding, shape, gzip: takes_gzip(headers), pretty: wants_pretty(headers, query) })
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
}

fn parse_clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let mut clause =
        Clause { media: parts.next().unwrap_or_default(), quality: 1.0, kind: "", group: "", version: "" };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim() {
            "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
            "as" => clause.kind = value.trim(),
            "g" => clause.group = value.trim(),
            "v" => clause.version = value.trim(),
            _ => {}
        }
    }
    clause
}

fn negotiate(text: &str, offer: Offer) -> Option<(Encoding, Shape)> {
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(parse_clause).collect();
    // Stable: equal qualities keep the client's order, which is how upstream's goautoneg ranks them.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses.into_iter().filter(|clause| clause.quality > 0.0).find_map(|clause| {
        let encoding = match clause.media {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let shape = match (offer, clause.kind, clause.group, clause.version) {
            (_, "", ..) => Shape::Object,
            (Offer::Objects, "Table", "meta.k8s.io", "v1") => Shape::Table,
            (Offer::Objects, "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Shape::Partial
            }
            (Offer::Discovery, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                Shape::AggregatedDiscovery
            }
            _ => return None,
        };
        Some((encoding, shape))
    })
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).is_some_and(|text| {
        text.split(',').any(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
    })
}

/// Upstream indents for `?pretty=true` and, without the parameter, for browsers, curl and wget.
fn wants_pretty(headers: &HeaderMap, query: &str) -> bool {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("pretty="));
    match asked {
        Some(value) => matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE"),
        None => headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).is_some_and(|agent| {
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|start| agent.starts_with(start))
        }),
    }
}

/// The form of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// JSON, also without any `Content-Type`.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

/// The media type in a header, without its parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// Reads `Content-Type` of a body that holds an object.
///
/// # Errors
/// 415 for forms that are not read here, CBOR among them.
pub fn body_form(headers: &HeaderMap) -> Result<BodyForm, Status> {
    match media_type(headers).to_ascii_lowercase().as_str() {
        "" | "application/json" => Ok(BodyForm::Json),
        "application/yaml" => Ok(BodyForm::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyForm::Protobuf),
        _ => Err(Status::unsupported_media_type(&READ)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: &str, offer: Offer) -> Result<(Encoding, Shape), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        accept(&headers, "", offer).map(|accepted| (accepted.encoding, accepted.shape)).map_err(|s| s.code)
    }

    #[test]
    fn what_kubectl_asks_for() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accepted(table, Offer::Objects), Ok((Encoding::Json, Shape::Table)));
        assert_eq!(accepted(table, Offer::Plain), Ok((Encoding::Json, Shape::Object)));
        let discovery =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accepted(discovery, Offer::Discovery), Ok((Encoding::Json, Shape::AggregatedDiscovery)));
    }

    #[test]
    fn protobuf_falls_back_only_where_it_may() {
        let with_fallback = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accepted(with_fallback, Offer::Objects), Ok((Encoding::Json, Shape::Object)));
        assert_eq!(accepted("application/vnd.kubernetes.protobuf", Offer::Objects), Err(406));
    }

    #[test]
    fn quality_ranks_clauses() {
        let text = "application/json;q=0.5, application/yaml;q=0.9, text/html";
        assert_eq!(accepted(text, Offer::Plain), Ok((Encoding::Yaml, Shape::Object)));
        assert_eq!(accepted("application/json;q=0", Offer::Plain), Err(406));
    }

    #[test]
    fn bodies() {
        let mut headers = HeaderMap::new();
        assert_eq!(body_form(&headers), Ok(BodyForm::Json));
        headers.insert(header::CONTENT_TYPE, "application/yaml; charset=utf-8".parse().unwrap());
        assert_eq!(body_form(&headers), Ok(BodyForm::Yaml));
        headers.insert(header::CONTENT_TYPE, "application/vnd.kubernetes.protobuf".parse().unwrap());
        assert_eq!(body_form(&headers), Ok(BodyForm::Protobuf));
        headers.insert(header::CONTENT_TYPE, "application/cbor".parse().unwrap());
        assert_eq!(body_form(&headers).unwrap_err().code, 415);
    }
}
