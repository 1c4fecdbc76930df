//! Defaults of the batch group.

use serde_json::Value;

use super::core::inherit_labels;
use super::{Fields, absent, each, ensure, inside, pod, text};

pub(super) fn job(object: &mut Fields) {
    let mut labels = Value::Null;
    ensure(object, "spec", |spec| {
        job_spec(spec);
        labels = spec.get("template").map_or(Value::Null, |template| template["metadata"]["labels"].clone());
    });
    inherit_labels(object, labels);
}

fn job_spec(spec: &mut Fields) {
    inside(spec, "template", pod::template);
    if !given(spec, "completions") && !given(spec, "parallelism") {
        absent(spec, "completions", 1);
    }
    absent(spec, "parallelism", 1);
    let backoff_limit = if given(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    absent(spec, "backoffLimit", backoff_limit);
    absent(spec, "completionMode", "NonIndexed");
    absent(spec, "suspend", false);
    let replacement = if given(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    absent(spec, "podReplacementPolicy", replacement);
    absent(spec, "manualSelector", false);
    inside(spec, "podFailurePolicy", |policy| {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| text(pattern, "status", "True"));
        });
    });
}

fn given(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

/// The job template gets its pod template's defaults, not a Job's: those come when the Job is made.
pub(super) fn cron_job(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        text(spec, "concurrencyPolicy", "Allow");
        absent(spec, "suspend", false);
        absent(spec, "successfulJobsHistoryLimit", 3);
        absent(spec, "failedJobsHistoryLimit", 1);
        inside(spec, "jobTemplate", |template| {
            inside(template, "spec", |job| {
                inside(job, "template", pod::template);
                inside(job, "podFailurePolicy", |policy| {
                    each(policy, "rules", |rule| {
                        each(rule, "onPodConditions", |pattern| text(pattern, "status", "True"));
                    });
                });
            });
        });
    });
}
