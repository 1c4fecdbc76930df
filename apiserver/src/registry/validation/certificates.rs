//! CertificateSigningRequests: who may change what through which subresource.
//!
//! Upstream: `pkg/apis/certificates/validation`. The spec never changes (the strategy puts it back), approval is
//! given through `approval`, certificates through `status`.

use std::collections::HashSet;

use api_objects::{
    Value,
    certificates::{LEGACY_SIGNER, SigningRequest, USAGES},
    names,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use x509_parser::{pem::Pem, prelude::FromDer};

use super::findings::{Findings, Spot};
use super::{given, items, text};

const SPEC: Spot<'static> = Spot::root("spec");
const STATUS: Spot<'static> = Spot::root("status");
const CONDITIONS: Spot<'static> = STATUS.field("conditions");
const CERTIFICATE: Spot<'static> = STATUS.field("certificate");

/// Upstream's least `spec.expirationSeconds`.
const SHORTEST_SECONDS: i64 = 600;
/// Conditions that are true or not there.
const ONLY_TRUE: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Conditions that only `approval` may add.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Domain, slash, and a path of two labels' length.
const LONGEST_SIGNER: usize = 253 + 1 + 253 + 1 + 63;

/// Through what an update comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Main,
    Status,
    Approval,
}

pub(super) fn request(new: &Value, findings: &mut Findings) {
    let spec = &new["spec"];
    let pem = STANDARD.decode(text(&spec["request"])).unwrap_or_default();
    if let Err(error) = SigningRequest::parse(&pem) {
        findings.invalid(&SPEC.field("request"), spec["request"].clone(), &error.to_string());
    }
    usages(&spec["usages"], findings);
    signer_name(text(&spec["signerName"]), &SPEC.field("signerName"), findings);
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|seconds| *seconds < SHORTEST_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        findings.invalid(&SPEC.field("expirationSeconds"), seconds, detail);
    }
    conditions(&new["status"]["conditions"], findings);
    if let Err(why) = certificates(text(&new["status"]["certificate"])) {
        findings.invalid(&CERTIFICATE, "<certificate data>", &why);
    }
}

fn usages(usages: &Value, findings: &mut Findings) {
    let at = SPEC.field("usages");
    if items(usages).is_empty() {
        findings.required(&at, "");
    }
    let mut seen = HashSet::new();
    for (index, usage) in items(usages).iter().map(text).enumerate() {
        if !USAGES.contains(&usage) {
            findings.not_supported(&at.index(index), usage, &USAGES);
        }
        if !seen.insert(usage) {
            findings.duplicate(&at.index(index), usage);
        }
    }
}

/// `example.com/signer` (`ValidateSignerName`).
fn signer_name(name: &str, at: &Spot<'_>, findings: &mut Findings) {
    if name.is_empty() {
        return findings.required(at, "");
    }
    if name == LEGACY_SIGNER {
        return findings.invalid(at, name, "the legacy signerName is not allowed via this API version");
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments[..] else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return findings.invalid(at, name, detail);
    };
    if domain.len() > 253 {
        findings.too_long(at, 253);
    }
    let mut labels = |segment: &str, check: fn(&str) -> Vec<String>| {
        let wrong =
            segment.split('.').map(|label| (label, check(label))).find(|(_, wrong)| !wrong.is_empty());
        for message in wrong.iter().flat_map(|(label, wrong)| {
            wrong.iter().map(move |message| format!("validating label {label:?}: {message}"))
        }) {
            findings.invalid(at, segment, &message);
        }
    };
    labels(domain, names::dns1123_label);
    labels(path, names::dns1123_subdomain);
    if !domain.contains('.') {
        findings.invalid(at, domain, "should be a domain with at least two segments separated by dots");
    }
    if name.len() > LONGEST_SIGNER {
        findings.too_long(at, LONGEST_SIGNER);
    }
}

fn conditions(conditions: &Value, findings: &mut Findings) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, condition) in items(conditions).iter().enumerate() {
        let at = CONDITIONS.index(index);
        let kind = text(&condition["type"]);
        if kind.is_empty() {
            findings.required(&at.field("type"), "");
        }
        let allowed = if ONLY_TRUE.contains(&kind) { &["True"][..] } else { &["False", "True", "Unknown"] };
        findings.one_of(&at.field("status"), &condition["status"], allowed);
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            findings.invalid(&at.field("type"), kind, detail);
        }
        if !seen.insert(kind) {
            findings.duplicate(&at.field("type"), kind);
        }
    }
}

/// PEM blocks of certificates and nothing else, or nothing at all.
fn certificates(encoded: &str) -> Result<(), String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        x509_parser::certificate::X509Certificate::from_der(&block.contents)
            .map_err(|error| error.to_string())?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// What an update may not do, besides being a request that is not valid.
pub(super) fn changes(new: &Value, old: &Value, door: Door, findings: &mut Findings) {
    let of = |object: &'_ Value, kind: &str| -> Vec<Value> {
        let conditions = items(&object["status"]["conditions"]).iter();
        conditions.filter(|condition| condition["type"] == kind).cloned().collect()
    };
    for kind in ONLY_TRUE {
        let (before, after) = (of(old, kind), of(new, kind));
        if after.len() < before.len() {
            findings.forbidden(&CONDITIONS, &format!("updates may not remove a condition of type {kind:?}"));
        } else if door != Door::Approval && DECISIONS.contains(&kind) && after != before {
            let what = if after.len() > before.len() { "add" } else { "modify" };
            findings.forbidden(&CONDITIONS, &format!("updates may not {what} a condition of type {kind:?}"));
        }
    }
    let (before, after) = (&old["status"]["certificate"], &new["status"]["certificate"]);
    if text(before) != text(after) {
        if door != Door::Status {
            findings.forbidden(&CERTIFICATE, "updates may not set certificate content");
        } else if given(before) && !text(before).is_empty() {
            findings.forbidden(&CERTIFICATE, "updates may not modify existing certificate content");
        }
    }
}
