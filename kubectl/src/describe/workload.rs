//! ReplicaSets and Deployments.

use api_objects::Value;

use super::pod::{containers, toleration, volumes};
use super::{Report, Subject, head, items_at, labels, long_time, selector_text, text_at};

/// Describes a ReplicaSet or Deployment.
pub(super) fn describe(report: &mut Report, subject: &Subject<'_>) {
    let object = subject.object;
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector = selector_text(object.pointer("/spec/selector"));
    head(report, subject);
    if subject.resource.kind == "Deployment" {
        report.field(0, "CreationTimestamp", &long_time(object.pointer("/metadata/creationTimestamp")));
        labels(report, object);
        report.field(0, "Selector", &selector);
        let total = number("/status/replicas");
        let ready = number("/status/availableReplicas");
        let counts = format!(
            "{} desired | {} updated | {total} total | {ready} available | {} unavailable",
            number("/spec/replicas"),
            number("/status/updatedReplicas"),
            number("/status/unavailableReplicas")
        );
        report.field(0, "Replicas", &counts);
        report.field(0, "StrategyType", text_at(object, "/spec/strategy/type", ""));
        report.field(0, "MinReadySeconds", &number("/spec/minReadySeconds").to_string());
    } else {
        report.field(0, "Selector", &selector);
        labels(report, object);
        if let Some(owner) =
            items_at(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)
        {
            let owner = format!("{}/{}", text_at(owner, "/kind", ""), text_at(owner, "/name", ""));
            report.field(0, "Controlled By", &owner);
        }
        let counts = format!("{} current / {} desired", number("/status/replicas"), number("/spec/replicas"));
        report.field(0, "Replicas", &counts);
        let phase = |wanted: &str| {
            subject.pods.iter().filter(|pod| text_at(pod, "/status/phase", "") == wanted).count()
        };
        let counts = format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            phase("Running"),
            phase("Pending"),
            phase("Succeeded"),
            phase("Failed")
        );
        report.field(0, "Pods Status", &counts);
    }
    report.line(0, "Pod Template:");
    let empty = Value::Null;
    let template = object.pointer("/spec/template").unwrap_or(&empty);
    report.map(1, "Labels", template.pointer("/metadata/labels"));
    containers(report, template, "  Containers", "/spec/containers", "/none");
    volumes(report, 1, template);
    report.map(1, "Node-Selectors", template.pointer("/spec/nodeSelector"));
    let tolerations: Vec<String> = items_at(template, "/spec/tolerations").iter().map(toleration).collect();
    report.list(1, "Tolerations", &tolerations);
    let conditions = items_at(object, "/status/conditions");
    if !conditions.is_empty() {
        report.line(0, "Conditions:");
        report.line(1, "Type\tStatus\tReason");
        report.line(1, "----\t------\t------");
        for condition in conditions {
            let cells = [
                text_at(condition, "/type", ""),
                text_at(condition, "/status", ""),
                text_at(condition, "/reason", ""),
            ];
            report.line(1, &cells.join("\t"));
        }
    }
}
