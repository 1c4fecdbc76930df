//! ConfigMaps, Secrets and Namespaces.

use api_objects::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Report, Subject, head, labels, text_at};

/// Describes a ConfigMap, with its data.
pub(super) fn config_map(report: &mut Report, subject: &Subject<'_>) {
    head(report, subject);
    labels(report, subject.object);
    report.raw("\nData\n====\n");
    for (key, value) in subject.object["data"].as_object().into_iter().flatten() {
        report.raw(&format!("{key}:\n----\n{}\n\n", value.as_str().unwrap_or_default()));
    }
    report.raw("\nBinaryData\n====\n");
    for (key, value) in subject.object["binaryData"].as_object().into_iter().flatten() {
        report.raw(&format!("{key}: {} bytes\n", decoded_length(value)));
    }
    report.raw("\n");
}

/// Describes a Secret: sizes only.
pub(super) fn secret(report: &mut Report, subject: &Subject<'_>) {
    head(report, subject);
    labels(report, subject.object);
    report.raw("\n");
    report.field(0, "Type", text_at(subject.object, "/type", "Opaque"));
    report.raw("\nData\n====\n");
    for (key, value) in subject.object["data"].as_object().into_iter().flatten() {
        report.field(0, key, &format!("{} bytes", decoded_length(value)));
    }
}

fn decoded_length(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

/// Describes a Namespace.
pub(super) fn namespace(report: &mut Report, subject: &Subject<'_>) {
    head(report, subject);
    labels(report, subject.object);
    report.field(0, "Status", text_at(subject.object, "/status/phase", ""));
}
