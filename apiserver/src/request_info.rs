//! What a request is about, read from its method, path and query.
//!
//! The rules are those of upstream's `k8s.io/apiserver/pkg/endpoints/request` (`RequestInfoFactory`): what
//! authorization, metrics and handlers go by must be the same everywhere, or a role grants something else
//! than it says.

use std::borrow::Cow;

use api_objects::{params::Query, selector::FieldSelector};
use http::Method;

/// The parts of a request that authorization, metrics and handlers go by, as upstream's `RequestInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// Whether the path names a resource (`/api/v1/pods`), rather than `/healthz` and its like.
    pub is_resource_request: bool,
    /// The path without the query.
    pub path: String,
    /// Lower-case verb: `get list watch create update patch delete deletecollection`, or the method's name
    /// for requests that name no resource.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// Empty for the core group.
    pub api_group: String,
    /// `v1`.
    pub api_version: String,
    /// Empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    /// `status`, `log` …
    pub subresource: String,
    /// Empty for collections. A list or watch with a `metadata.name` field selector names that object, so
    /// that a role with `resourceNames` can allow it.
    pub name: String,
    /// Whether the path leads through a namespace (`/api/v1/namespaces/x/pods`): authorization then goes by
    /// that namespace, so nothing but its own resources may be served there.
    pub in_namespace: bool,
    /// How many segments of the path begin with the resource: 1 for a collection, 2 for an object.
    pub depth: usize,
    /// What follows the subresource (`proxy` paths).
    pub rest: String,
    /// The field selector of a list, watch or deletecollection, decoded.
    pub field_selector: String,
}

/// Subresources of a namespace itself; any other word after its name is a resource inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads a request's method, path and query.
    #[must_use]
    pub fn parse(method: &Method, raw_path: &str, query: Option<&str>) -> Self {
        // Decoded before it is split, as Go's `URL.Path` is: the escaped and the plain form of a name are
        // the same object to authorization and to handlers alike.
        let path = &*decode_path(raw_path);
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        // As upstream, an empty segment inside the path counts: `/api//v1/pods` is about nothing that exists.
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let prefix_length = match parts.first() {
            Some(&"api") if parts.len() >= 3 => 2,
            Some(&"apis") if parts.len() >= 4 => 3,
            _ => return info,
        };
        info.api_prefix = parts[0].to_owned();
        if prefix_length == 3 {
            info.api_group = parts[1].to_owned();
        }
        info.api_version = parts[prefix_length - 1].to_owned();
        parts.drain(..prefix_length);
        info.is_resource_request = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();

        // The old form `/api/v1/watch/pods`; still in the API, as is `/api/v1/proxy/…`, which nothing serves.
        let by_path = matches!(parts[0], "watch" | "proxy");
        if by_path {
            if parts.len() < 2 {
                return info;
            }
            info.verb = parts[0].to_owned();
            parts.remove(0);
        }

        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
                info.in_namespace = true;
            }
        }
        info.depth = parts.len();
        info.resource = parts[0].to_owned();
        info.name = parts.get(1).copied().unwrap_or_default().to_owned();
        info.subresource = parts.get(2).copied().unwrap_or_default().to_owned();
        if parts.len() > 3 {
            let before = prefix_length + usize::from(by_path) + if info.in_namespace { 2 } else { 0 };
            // Taken from the path as it was sent: escapes and doubled slashes mean something to what is
            // proxied.
            info.rest = after_segments(raw_path, before + 3);
        }
        if !by_path {
            info.refine_collection_verb(query.unwrap_or_default());
        }
        info
    }

    /// `get` and `delete` without a name are about a collection: its query says which verb it is and whether
    /// it is narrowed to one object. The query is read exactly as the handlers read it, or a role for one
    /// object would open a collection.
    fn refine_collection_verb(&mut self, query: &str) {
        if !self.name.is_empty() || !matches!(self.verb.as_str(), "get" | "delete") {
            return;
        }
        let query = Query::parse(query);
        self.field_selector = query.text("fieldSelector");
        if self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
            return;
        }
        let watch = query.switch("watch").unwrap_or(false);
        self.verb = if watch { "watch" } else { "list" }.to_owned();
        if let Some(name) = required_field(&self.field_selector, "metadata.name")
            // What cannot be a segment of a path is no name.
            && !name.contains(['/', '%'])
            && !matches!(name.as_str(), "." | "..")
        {
            self.name = name;
        }
    }

    /// Whether the request lives long by nature (watch, log, exec, attach, port-forward, proxy), and so is
    /// kept out of latency figures and deadlines.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }
}

/// The value that a field selector requires of a field; nothing for a selector that cannot be read, or an
/// empty value.
#[must_use]
pub fn required_field(selector: &str, field: &str) -> Option<String> {
    if selector.is_empty() {
        return None;
    }
    let selector = FieldSelector::parse(selector).ok()?;
    selector.required(field).filter(|value| !value.is_empty()).map(ToOwned::to_owned)
}

/// What follows the first `count` segments of a path, without the slash between. An escaped slash separates
/// like any other.
fn after_segments(path: &str, count: usize) -> String {
    let escaped_slash = |at: usize| path.get(at..at + 3).is_some_and(|text| text.eq_ignore_ascii_case("%2F"));
    let (mut at, mut seen, mut begun) = (0, 0, false);
    while at < path.len() {
        let separator = match path.as_bytes()[at] {
            b'/' => 1,
            _ if escaped_slash(at) => 3,
            _ => 0,
        };
        at += separator.max(1);
        match separator {
            0 => begun = true,
            // Slashes before the first segment separate nothing.
            _ if !begun => {}
            _ => {
                seen += 1;
                if seen == count {
                    return path.get(at..).unwrap_or_default().to_owned();
                }
            }
        }
    }
    String::new()
}

/// Decodes the percent escapes of a path. Malformed escapes stay as they are.
fn decode_path(path: &str) -> Cow<'_, str> {
    if path.contains('%') { decode(path, false).into() } else { path.into() }
}

/// Decodes one query value: `+` and percent escapes. Malformed escapes stay as they are.
#[must_use]
pub fn decode_query(text: &str) -> String {
    decode(text, true)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3).and_then(hex_byte)).flatten();
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, target: &str) -> RequestInfo {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        RequestInfo::parse(&method.parse().unwrap(), path, query)
    }

    /// method, target → verb, prefix, group, version, namespace, resource, subresource, name. The cases are
    /// those of upstream's `TestGetAPIRequestInfo`, in our words.
    #[test]
    fn resource_requests() {
        let table = [
            ("GET", "/api/v1/namespaces", "list api  v1  namespaces  "),
            ("GET", "/api/v1/namespaces/other", "get api  v1 other namespaces  other"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update api  v1 other namespaces finalize other"),
            ("GET", "/api/v1/namespaces/other/pods", "list api  v1 other pods  "),
            ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch api  v1 other pods  "),
            ("GET", "/api/v1/namespaces/other/pods?watch=0", "list api  v1 other pods  "),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get api  v1 other pods  foo"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get api  v1 other pods  foo"),
            ("GET", "/api/v1/pods", "list api  v1  pods  "),
            ("HEAD", "/api/v1/pods", "list api  v1  pods  "),
            ("GET", "/api/v1/watch/pods", "watch api  v1  pods  "),
            ("GET", "/api/v1/watch/namespaces/other/pods", "watch api  v1 other pods  "),
            ("GET", "/api/v1/namespaces/other/pods/foo/status", "get api  v1 other pods status foo"),
            ("POST", "/api/v1/namespaces/other/pods", "create api  v1 other pods  "),
            ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch api  v1 other pods  foo"),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete api  v1 other pods  foo"),
            ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection api  v1 other pods  "),
            ("GET", "/apis/apps/v1/namespaces/other/replicasets", "list apis apps v1 other replicasets  "),
            ("GET", "/apis/apps/v1/replicasets?watch=true", "watch apis apps v1  replicasets  "),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list api  v1  pods  x"),
            (
                "GET",
                "/api/v1/namespaces/n/pods?fieldSelector=a%3Db,metadata.name%3D%3Dx&watch=1",
                "watch api  v1 n pods  x",
            ),
        ];
        for (method, target, expected) in table {
            let info = parse(method, target);
            let actual = format!(
                "{} {} {} {} {} {} {} {}",
                info.verb,
                info.api_prefix,
                info.api_group,
                info.api_version,
                info.namespace,
                info.resource,
                info.subresource,
                info.name
            );
            assert_eq!(actual, expected, "{method} {target}");
            assert!(info.is_resource_request);
        }
    }

    #[test]
    fn a_selector_names_an_object_only_if_the_handlers_read_it_so() {
        let pods = "/api/v1/namespaces/n/pods?fieldSelector=";
        for (query, name) in [
            ("metadata.name%3Dx", "x"),
            ("metadata.name%3D%3Dx,status.phase%3DRunning", "x"),
            // An escaped comma belongs to the value: this asks for everything but one strange name.
            ("metadata.name!%3Da%5C,metadata.name%3Dx", ""),
            ("metadata.name!%3Dx", ""),
            ("metadata.name%3Dx,nonsense", ""),
            ("metadata.name%3Da%2Fb", ""),
            ("metadata.name%3D..", ""),
            // Of a parameter that stands twice the first one counts, escaped or not.
            ("&fieldSelector=metadata.name%3Dx", ""),
        ] {
            assert_eq!(parse("GET", &format!("{pods}{query}")).name, name, "{query}");
        }
        let twice = "/api/v1/pods?%66ieldSelector=&fieldSelector=metadata.name%3Dx";
        assert_eq!(parse("GET", twice).name, "");
        // As upstream: who may delete one object may not delete collections.
        let info = parse("DELETE", &format!("{pods}metadata.name%3Dx"));
        assert_eq!((&*info.verb, &*info.name), ("deletecollection", ""));
        // The old form of a watch is not narrowed by selectors.
        let info = parse("GET", "/api/v1/watch/namespaces/n/pods?fieldSelector=metadata.name%3Dx");
        assert_eq!((&*info.name, &*info.field_selector), ("", ""));
        assert_eq!(parse("GET", "/api/v1/watch/namespaces/n/pods/x").name, "x");
    }

    #[test]
    fn paths_say_whether_they_lead_through_a_namespace() {
        let depth = |target: &str| {
            let info = parse("GET", target);
            (info.in_namespace, info.depth)
        };
        assert_eq!(depth("/api/v1/namespaces/n/nodes"), (true, 1));
        assert_eq!(depth("/api/v1/nodes/x"), (false, 2));
        assert_eq!(depth("/api/v1/namespaces/n"), (false, 2));
        assert_eq!(depth("/api/v1/namespaces/n/namespaces/n"), (true, 2));
        assert_eq!(depth("/api/v1/namespaces/n/status/x"), (false, 4));
        assert_eq!(parse("GET", "/api//v1/pods").api_version, "");
    }

    #[test]
    fn other_requests_keep_the_method_as_verb() {
        for target in ["/", "/healthz", "/version", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1"]
        {
            let info = parse("GET", target);
            assert!(!info.is_resource_request, "{target}");
            assert_eq!(info.verb, "get");
            assert_eq!(info.path, target);
        }
    }

    #[test]
    fn escaped_names_are_the_same_names() {
        let info = parse("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        assert_eq!(info.name, "system:node");
        // An escaped slash separates like any other: what is authorized is what is served.
        let info = parse("GET", "/api/v1/namespaces/a%2Fsecrets/b");
        assert_eq!((&*info.resource, &*info.name, &*info.namespace), ("secrets", "b", "a"));
        assert_eq!(parse("GET", "/api/v1/namespaces/n/pods/100%/status").name, "100%");
    }

    #[test]
    fn the_rest_keeps_its_slashes_and_escapes() {
        assert_eq!(parse("GET", "/api/v1/nodes/n/proxy/a%20b//c").rest, "a%20b//c");
        assert_eq!(parse("GET", "/api/v1/namespaces/n/services/s/proxy/a/b/").rest, "a/b/");
        assert_eq!(parse("GET", "/api/v1/nodes/n/proxy/").rest, "");
        assert_eq!(parse("GET", "/api/v1/nodes/n/proxy/logs").rest, "logs");
        assert_eq!(parse("GET", "/api/v1/namespaces/n%2Fservices/s/proxy/a%2Fb/é").rest, "a%2Fb/é");
    }
}
