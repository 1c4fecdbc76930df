//! ConfigMaps and Secrets.

use api_objects::{Value, names};
use base64::Engine;

use super::findings::{Findings, Spot};
use super::{entries, given, text};

/// The data of a Secret or ConfigMap, in bytes.
const DATA_MAX: usize = 1024 * 1024;

const DATA: Spot<'static> = Spot::root("data");
const BINARY_DATA: Spot<'static> = Spot::root("binaryData");

/// How many bytes base64 text stands for; the schema has checked its form.
fn decoded_length(text: &str) -> usize {
    let symbols = text.bytes().filter(|byte| !matches!(byte, b'=' | b'\r' | b'\n')).count();
    symbols * 3 / 4
}

pub(super) fn config_map(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    if let Some(old) = old {
        stays_immutable(new, old, &["data", "binaryData"], findings);
    }
    let mut size = 0;
    for (key, value) in entries(&new["data"]) {
        findings.invalid_each(&DATA.key(key), key, names::config_map_key(key));
        if given(&new["binaryData"][key]) {
            findings.invalid(&DATA.key(key), key, "duplicate of key present in binaryData");
        }
        size += text(value).len();
    }
    for (key, value) in entries(&new["binaryData"]) {
        findings.invalid_each(&BINARY_DATA.key(key), key, names::config_map_key(key));
        size += decoded_length(text(value));
    }
    if size > DATA_MAX {
        findings.object_too_long(DATA_MAX);
    }
}

fn stays_immutable(new: &Value, old: &Value, fields: &[&str], findings: &mut Findings) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        findings.forbidden(&Spot::root("immutable"), DETAIL);
    }
    for field in fields {
        if new[*field] != old[*field] {
            findings.forbidden(&Spot::root(field), DETAIL);
        }
    }
}

pub(super) fn secret(new: &Value, old: Option<&Value>, findings: &mut Findings) {
    if let Some(old) = old {
        findings.immutable(&Spot::root("type"), &new["type"], &old["type"]);
        stays_immutable(new, old, &["data"], findings);
    }
    let data = &new["data"];
    let mut size = 0;
    for (key, value) in entries(data) {
        findings.invalid_each(&DATA.key(key), key, names::config_map_key(key));
        size += decoded_length(text(value));
    }
    if size > DATA_MAX {
        findings.too_long(&DATA, DATA_MAX);
    }
    let mut must_have = |key: &str| {
        if !given(&data[key]) {
            findings.required(&DATA.key(key), "");
        }
    };
    match text(&new["type"]) {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if text(&new["metadata"]["annotations"][annotation]).is_empty() {
                findings.required(&Spot::root("metadata").field("annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_configuration(data, ".dockercfg", findings),
        "kubernetes.io/dockerconfigjson" => docker_configuration(data, ".dockerconfigjson", findings),
        "kubernetes.io/basic-auth" if !given(&data["username"]) && !given(&data["password"]) => {
            must_have("username");
            must_have("password");
        }
        "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => {
            findings.required(&DATA.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            must_have("tls.crt");
            must_have("tls.key");
        }
        _ => {}
    }
}

fn docker_configuration(data: &Value, key: &str, findings: &mut Findings) {
    let Some(encoded) = data[key].as_str() else {
        findings.required(&DATA.key(key), "");
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        findings.invalid(&DATA.key(key), "<secret contents redacted>", &error.to_string());
    }
}
