//! What a log or stream request means: which container, and the kubelet's form of its options. Pure.
//!
//! Rules and texts of `k8s.io/kubernetes/pkg/registry/core/pod` (`LogLocation`, `streamLocation`).

use std::fmt::Write;

use api_objects::{
    Status, Value,
    field::{FieldError, Path},
};

use crate::request_info::decode_query;

/// The options of `pods/log`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) container: Option<String>,
    /// The query for the kubelet.
    pub(super) query: String,
}

/// The options of `pods/exec` and `pods/attach`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StreamOptions {
    pub(super) container: Option<String>,
    /// The query for the kubelet.
    pub(super) query: String,
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_query(key), decode_query(value))
    })
}

/// Upstream reads a parameter without a value, and anything but `0` and `false`, as true.
fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "f" | "false")
}

fn append(query: &mut String, key: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(key);
    query.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            let _ = write!(query, "%{byte:02X}");
        }
    }
}

impl LogOptions {
    /// Reads `container follow previous timestamps sinceSeconds sinceTime tailLines limitBytes stream`.
    pub(super) fn parse(query: &str, pod: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        let mut errors = Vec::new();
        let (mut since_seconds, mut since_time, mut tail, mut stream) = (None, None, false, String::new());
        for (key, value) in pairs(query) {
            let path = Path::new(&key);
            let mut whole_number = |least: i64, message: &str| match value.parse::<i64>() {
                Ok(number) if number >= least => {}
                Ok(number) => errors.push(FieldError::invalid(&path, number, message)),
                Err(_) => errors.push(FieldError::invalid(&path, value.as_str(), "must be an integer")),
            };
            match key.as_str() {
                "container" if !value.is_empty() => options.container = Some(value),
                "follow" | "previous" | "timestamps" if truth(&value) => {
                    append(&mut options.query, &key, "true");
                }
                "tailLines" => {
                    tail = true;
                    whole_number(0, "must be greater than or equal to 0");
                    append(&mut options.query, &key, &value);
                }
                "limitBytes" => {
                    whole_number(1, "must be greater than 0");
                    append(&mut options.query, &key, &value);
                }
                "sinceSeconds" => {
                    whole_number(1, "must be greater than 0");
                    append(&mut options.query, &key, &value);
                    since_seconds = Some(value);
                }
                "sinceTime" if !value.is_empty() => {
                    if api_objects::time::parse(&value).is_none() {
                        errors.push(FieldError::invalid(
                            &path,
                            value.as_str(),
                            "must be a time as RFC 3339 writes it",
                        ));
                    }
                    append(&mut options.query, &key, &value);
                    since_time = Some(value);
                }
                "stream" if !value.is_empty() => {
                    append(&mut options.query, &key, &value);
                    stream = value;
                }
                _ => {}
            }
        }
        if since_seconds.is_some() && since_time.is_some() {
            errors.push(FieldError::forbidden(
                &Path::new(""),
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        match stream.as_str() {
            "" | "All" => {}
            "Stdout" | "Stderr" if !tail => {}
            "Stdout" | "Stderr" => errors.push(FieldError::forbidden(
                &Path::new(""),
                "`tailLines` and specific `stream` are mutually exclusive for now",
            )),
            other => errors.push(FieldError::not_supported(
                &Path::new("stream"),
                other,
                &["All", "Stdout", "Stderr"],
            )),
        }
        if errors.is_empty() { Ok(options) } else { Err(Status::invalid("", "PodLogOptions", pod, &errors)) }
    }
}

impl StreamOptions {
    /// Reads `container command stdin stdout stderr tty`; `stream` is `exec` or `attach`.
    pub(super) fn parse(query: &str, stream: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        let (mut some_stream, mut tty, mut stderr, mut command) = (false, false, false, false);
        for (key, value) in pairs(query) {
            // The kubelet has names of its own for the three streams.
            let kubelet_key = match key.as_str() {
                "stdin" => "input",
                "stdout" => "output",
                "stderr" => "error",
                "tty" => "tty",
                "command" if stream == "exec" => {
                    command = true;
                    append(&mut options.query, "command", &value);
                    continue;
                }
                "container" if !value.is_empty() => {
                    options.container = Some(value);
                    continue;
                }
                _ => continue,
            };
            if truth(&value) {
                some_stream |= key != "tty";
                tty |= key == "tty";
                stderr |= key == "stderr";
                append(&mut options.query, kubelet_key, "1");
            }
        }
        if !some_stream {
            return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
        }
        if tty && stderr {
            return Err(Status::bad_request("tty and stderr cannot both be true"));
        }
        if stream == "exec" && !command {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        Ok(options)
    }
}

/// The kubelet's form of a port-forward's query: it names ports one by one, where the API lists them. SPDY's streams
/// carry their ports themselves, and then there are none.
pub(super) fn port_forward_query(query: &str) -> Result<String, Status> {
    let mut ports = Vec::new();
    for (_, value) in pairs(query).filter(|(key, value)| key == "ports" && !value.is_empty()) {
        for port in value.split(',') {
            match port.parse::<i32>() {
                Ok(port) => ports.push(port.to_string()),
                Err(_) => return Err(Status::bad_request(format!("ports: {port:?} is not a number"))),
            }
        }
    }
    let mut out = String::new();
    if !ports.is_empty() {
        append(&mut out, "port", &ports.join(","));
        out.insert(0, '?');
    }
    Ok(out)
}

fn names<'a>(pod: &'a Value, field: &str) -> Vec<&'a str> {
    pod["spec"][field].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
}

/// The container that is meant: the named one, or the only one.
pub(super) fn choose_container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let containers = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    match asked {
        Some(name) if [&containers, &init, &ephemeral].iter().any(|list| list.contains(&name)) => {
            Ok(name.to_owned())
        }
        Some(name) => Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        None => match containers.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}"))),
            many => {
                let mut text = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    many.join(" ")
                );
                for (kind, list) in [("init", &init), ("ephemeral", &ephemeral)] {
                    if !list.is_empty() {
                        let _ = write!(text, " or one of the {kind} containers: [{}]", list.join(" "));
                    }
                }
                Err(Status::bad_request(text))
            }
        },
    }
}

/// The number of a pod's port, given as a number or by its name.
pub(super) fn port_number(pod: &Value, port: &str) -> Option<u64> {
    if let Ok(number) = port.parse() {
        return Some(number);
    }
    pod["spec"]["containers"]
        .as_array()?
        .iter()
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|entry| entry["name"] == port)?["containerPort"]
        .as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn log_options_reach_the_kubelet_in_its_form() {
        let options = LogOptions::parse(
            "container=a&follow=true&previous=false&tailLines=5&sinceTime=2026-11-21T10%3A00%3A00Z",
            "p",
        )
        .unwrap();
        assert_eq!(options.container.as_deref(), Some("a"));
        assert_eq!(options.query, "follow=true&tailLines=5&sinceTime=2026-11-21T10%3A00%3A00Z");
    }

    #[test]
    fn nonsense_in_log_options_is_refused_with_the_field() {
        for (query, expected) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=x", "sinceSeconds: Invalid value: \"x\": must be an integer"),
        ] {
            let message = LogOptions::parse(query, "p").unwrap_err().message;
            assert!(message.ends_with(expected), "{message}");
        }
        assert!(LogOptions::parse("sinceSeconds=1&sinceTime=2026-11-21T10:00:00Z", "p").is_err());
    }

    #[test]
    fn stream_options_reach_the_kubelet_in_its_form() {
        let options = StreamOptions::parse(
            "command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=true",
            "exec",
        )
        .unwrap();
        assert_eq!(options.query, "command=sh&command=-c&command=a%20b&input=1&output=1&tty=1");
        assert!(StreamOptions::parse("command=sh", "exec").is_err());
        assert!(StreamOptions::parse("stdout=1", "exec").is_err());
        assert!(StreamOptions::parse("stdout=1", "attach").is_ok());
        assert!(StreamOptions::parse("stderr=1&tty=1", "attach").is_err());
    }

    #[test]
    fn ports_to_forward_reach_the_kubelet_in_its_form() {
        assert_eq!(port_forward_query("").unwrap(), "");
        assert_eq!(port_forward_query("ports=80%2C443&ports=9").unwrap(), "?port=80%2C443%2C9");
        assert!(port_forward_query("ports=http").is_err());
    }

    #[test]
    fn the_container_is_the_named_or_the_only_one() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(choose_container(&one, None).unwrap(), "a");
        assert_eq!(
            choose_container(&one, Some("b")).unwrap_err().message,
            "container b is not valid for pod p"
        );
        let many = json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(choose_container(&many, Some("i")).unwrap(), "i");
        assert_eq!(
            choose_container(&many, None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }
}
