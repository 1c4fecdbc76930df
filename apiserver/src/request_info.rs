//! What a request is about, read from its method, path and query.
//!
//! The rules are those of upstream's `k8s.io/apiserver/pkg/endpoints/request` (`RequestInfoFactory`): what
//! authorization, metrics and handlers go by must be the same everywhere, or a role grants something else
//! than it says.

use std::borrow::Cow;

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
    /// Empty for collections. A list, watch or deletecollection with a `metadata.name` field selector names
    /// that object, so that a role with `resourceNames` can allow it.
    pub name: String,
    /// What follows the subresource (`proxy` paths).
    pub rest: String,
    /// The field selector of a collection's request, decoded.
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
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
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
        if matches!(parts[0], "watch" | "proxy") {
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
            }
        }
        info.resource = parts[0].to_owned();
        info.name = parts.get(1).copied().unwrap_or_default().to_owned();
        info.subresource = parts.get(2).copied().unwrap_or_default().to_owned();
        if parts.len() > 3 {
            // Taken from the path as it was sent: escapes and doubled slashes mean something to what is
            // proxied.
            let segments = raw_path.split('/').filter(|part| !part.is_empty()).count();
            info.rest = after_segment(raw_path, segments - (parts.len() - 3).min(segments));
        }
        if info.name.is_empty() {
            info.refine_collection_verb(query.unwrap_or_default());
        }
        info
    }

    /// `get` and `delete` without a name are about a collection: its query says which verb it is and whether
    /// it is narrowed to one object.
    fn refine_collection_verb(&mut self, query: &str) {
        let mut watch = false;
        let mut field_selector = String::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "watch" => watch = !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F"),
                "fieldSelector" => field_selector = decode_query(value),
                _ => {}
            }
        }
        match self.verb.as_str() {
            "get" if watch => self.verb = "watch".to_owned(),
            "get" => self.verb = "list".to_owned(),
            "delete" => self.verb = "deletecollection".to_owned(),
            "watch" => {}
            _ => return,
        }
        if let Some(name) =
            required_field(&field_selector, "metadata.name").filter(|name| !name.contains('/'))
        {
            name.clone_into(&mut self.name);
        }
        self.field_selector = field_selector;
    }

    /// Whether the request lives long by nature (watch, log, exec, attach, port-forward, proxy), and so is
    /// kept out of latency figures and deadlines.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }
}

/// The value that a field selector requires of a field.
#[must_use]
pub fn required_field<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|term| {
        let (name, value) = term.split_once('=')?;
        // `a!=b` is cut at its `=` into `a!` and `b`, and so is no requirement of `a`.
        let value = value.strip_prefix('=').unwrap_or(value);
        (name == field && !value.is_empty()).then_some(value)
    })
}

/// What follows the `count`th segment of a path, without the slash between.
fn after_segment(path: &str, count: usize) -> String {
    let mut seen = 0;
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' {
            if inside && seen == count {
                return path[at + 1..].to_owned();
            }
            inside = false;
        } else if !inside {
            inside = true;
            seen += 1;
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
    }
}
