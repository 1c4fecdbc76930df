//! Volumes of a pod.

use std::collections::BTreeMap;

use api_objects::{Value, names, quantity::Quantity};

use super::containers::{PULL_POLICIES, field_reference, no_backsteps};
use super::findings::{Findings, Spot};
use super::{entries, given, integer, items, text};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FILE_FIELDS: [&str; 6] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
];

/// Checks the volumes, and answers those that can be used, by name: the ones without fault.
pub(super) fn volumes<'a>(
    volumes: &'a Value,
    at: &Spot<'_>,
    findings: &mut Findings,
) -> BTreeMap<&'a str, &'a Value> {
    let mut mountable = BTreeMap::new();
    for (index, volume) in items(volumes).iter().enumerate() {
        let at = at.index(index);
        let before = findings.count();
        source(volume, &at, findings);
        let name = text(&volume["name"]);
        if name.is_empty() {
            findings.required(&at.field("name"), "");
        } else {
            findings.invalid_each(&at.field("name"), name, names::dns1123_label(name));
        }
        if mountable.contains_key(name) {
            findings.duplicate(&at.field("name"), name);
        }
        if findings.count() == before {
            mountable.insert(name, volume);
        }
    }
    mountable
}

fn source(volume: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let mut first = true;
    for (kind, source) in entries(volume).filter(|(name, source)| *name != "name" && given(source)) {
        let at = at.field(kind);
        if !std::mem::take(&mut first) {
            findings.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        check_source(kind, source, &at, findings);
    }
    if first {
        findings.required(at, "must specify a volume type");
    }
}

fn check_source(kind: &str, source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let mut must_have = |field: &str| {
        if text(&source[field]).is_empty() {
            findings.required(&at.field(field), "");
        }
    };
    match kind {
        "emptyDir" => {
            let negative = Quantity::from_value(&source["sizeLimit"]).is_ok_and(|limit| limit.signum() < 0);
            if negative {
                let detail = "SizeLimit field must be a valid resource quantity";
                findings.forbidden(&at.field("sizeLimit"), detail);
            }
        }
        "hostPath" => {
            let path = text(&source["path"]);
            if path.is_empty() {
                findings.required(&at.field("path"), "");
                return;
            }
            no_backsteps(path, &at.field("path"), findings);
            if !HOST_PATH_TYPES.contains(&text(&source["type"])) {
                findings.not_supported(&at.field("type"), text(&source["type"]), &HOST_PATH_TYPES);
            }
        }
        "secret" => {
            must_have("secretName");
            modes_and_items(source, at, findings);
        }
        "configMap" => {
            must_have("name");
            modes_and_items(source, at, findings);
        }
        "downwardAPI" => {
            mode(&source["defaultMode"], &at.field("defaultMode"), findings);
            downward_files(source, at, findings);
        }
        "projected" => projected(source, at, findings),
        "persistentVolumeClaim" => must_have("claimName"),
        "nfs" => {
            must_have("server");
            must_have("path");
            let path = text(&source["path"]);
            if !path.is_empty() && !path.starts_with('/') {
                findings.invalid(&at.field("path"), path, "must be an absolute path");
            }
        }
        "csi" => must_have("driver"),
        "ephemeral" if !given(&source["volumeClaimTemplate"]) => {
            findings.required(&at.field("volumeClaimTemplate"), "");
        }
        "image" => {
            must_have("reference");
            findings.one_of(&at.field("pullPolicy"), &source["pullPolicy"], &PULL_POLICIES);
        }
        _ => {}
    }
}

fn mode(mode: &Value, at: &Spot<'_>, findings: &mut Findings) {
    if given(mode) && !(0..=0o777).contains(&integer(mode)) {
        findings.invalid(at, mode.clone(), MODE);
    }
}

fn modes_and_items(source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    mode(&source["defaultMode"], &at.field("defaultMode"), findings);
    key_paths(source, at, findings);
}

/// Which keys become which files.
fn key_paths(source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let at = at.field("items");
    for (index, item) in items(&source["items"]).iter().enumerate() {
        let at = at.index(index);
        for field in ["key", "path"] {
            if text(&item[field]).is_empty() {
                findings.required(&at.field(field), "");
            }
        }
        local_path(text(&item["path"]), &at.field("path"), findings);
        mode(&item["mode"], &at.field("mode"), findings);
    }
}

/// A path below the volume that does not look like the kubelet's own bookkeeping.
pub(super) fn local_path(path: &str, at: &Spot<'_>, findings: &mut Findings) {
    if path.starts_with('/') {
        findings.invalid(at, path, "must be a relative path");
    }
    no_backsteps(path, at, findings);
    if path.starts_with("..") && !path.starts_with("../") {
        findings.invalid(at, path, "must not start with '..'");
    }
}

fn downward_files(source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    let at = at.field("items");
    for (index, file) in items(&source["items"]).iter().enumerate() {
        let at = at.index(index);
        if text(&file["path"]).is_empty() {
            findings.required(&at.field("path"), "");
        }
        local_path(text(&file["path"]), &at.field("path"), findings);
        match (given(&file["fieldRef"]), given(&file["resourceFieldRef"])) {
            (true, true) => findings.invalid(
                &at,
                file.clone(),
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (false, false) => findings.required(&at, "one of fieldRef and resourceFieldRef is required"),
            (true, false) => {
                field_reference(&file["fieldRef"], &FILE_FIELDS, &at.field("fieldRef"), findings)
            }
            (false, true) => {
                let at = at.field("resourceFieldRef");
                for field in ["containerName", "resource"] {
                    if text(&file["resourceFieldRef"][field]).is_empty() {
                        findings.required(&at.field(field), "");
                    }
                }
            }
        }
        mode(&file["mode"], &at.field("mode"), findings);
    }
}

/// Tokens live ten minutes at least.
const MIN_TOKEN_SECONDS: i64 = 600;

fn projected(source: &Value, at: &Spot<'_>, findings: &mut Findings) {
    mode(&source["defaultMode"], &at.field("defaultMode"), findings);
    let at = at.field("sources");
    for (index, source) in items(&source["sources"]).iter().enumerate() {
        let at = at.index(index);
        let mut first = true;
        for (kind, part) in entries(source).filter(|(_, part)| given(part)) {
            let at = at.field(kind);
            if !std::mem::take(&mut first) {
                findings.forbidden(&at, "may not specify more than 1 volume type");
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    if text(&part["name"]).is_empty() {
                        findings.required(&at.field("name"), "");
                    }
                    key_paths(part, &at, findings);
                }
                "downwardAPI" => downward_files(part, &at, findings),
                "serviceAccountToken" => {
                    let seconds = &part["expirationSeconds"];
                    if integer(seconds) < MIN_TOKEN_SECONDS {
                        let detail = "may not specify a duration less than 10 minutes";
                        findings.invalid(&at.field("expirationSeconds"), seconds.clone(), detail);
                    } else if integer(seconds) > 1 << 32 {
                        let detail = "may not specify a duration larger than 2^32 seconds";
                        findings.invalid(&at.field("expirationSeconds"), seconds.clone(), detail);
                    }
                    if text(&part["path"]).is_empty() {
                        findings.required(&at.field("path"), "");
                    } else {
                        local_path(text(&part["path"]), &at.field("path"), findings);
                    }
                }
                _ => {}
            }
        }
        if first {
            findings.required(&at, "must specify a volume type");
        }
    }
}
