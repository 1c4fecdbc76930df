//! Defaults of the apps group.

use serde_json::json;

use super::{Fields, absent, each, ensure, inside, pod, text, text_of};

pub(super) fn deployment(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        inside(spec, "template", pod::template);
        absent(spec, "replicas", 1);
        ensure(spec, "strategy", |strategy| {
            text(strategy, "type", "RollingUpdate");
            if text_of(strategy, "type") == "RollingUpdate" {
                ensure(strategy, "rollingUpdate", |rolling| {
                    absent(rolling, "maxUnavailable", "25%");
                    absent(rolling, "maxSurge", "25%");
                });
            }
        });
        absent(spec, "revisionHistoryLimit", 10);
        absent(spec, "progressDeadlineSeconds", 600);
    });
}

pub(super) fn replica_set(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        inside(spec, "template", pod::template);
        absent(spec, "replicas", 1);
    });
}

pub(super) fn stateful_set(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        inside(spec, "template", pod::template);
        each(spec, "volumeClaimTemplates", |claim| {
            inside(claim, "spec", |spec| absent(spec, "volumeMode", "Filesystem"));
            ensure(claim, "status", |status| text(status, "phase", "Pending"));
        });
        text(spec, "podManagementPolicy", "OrderedReady");
        ensure(spec, "updateStrategy", |strategy| {
            // Only a strategy that was not chosen gets the struct of the rolling update.
            if text_of(strategy, "type").is_empty() {
                text(strategy, "type", "RollingUpdate");
                absent(strategy, "rollingUpdate", json!({}));
            }
            if text_of(strategy, "type") == "RollingUpdate" {
                inside(strategy, "rollingUpdate", |rolling| {
                    absent(rolling, "partition", 0);
                });
            }
        });
        ensure(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
            text(policy, "whenDeleted", "Retain");
            text(policy, "whenScaled", "Retain");
        });
        absent(spec, "replicas", 1);
        absent(spec, "revisionHistoryLimit", 10);
    });
}

pub(super) fn daemon_set(object: &mut Fields) {
    ensure(object, "spec", |spec| {
        inside(spec, "template", pod::template);
        ensure(spec, "updateStrategy", |strategy| {
            text(strategy, "type", "RollingUpdate");
            if text_of(strategy, "type") == "RollingUpdate" {
                ensure(strategy, "rollingUpdate", |rolling| {
                    absent(rolling, "maxUnavailable", 1);
                    absent(rolling, "maxSurge", 0);
                });
            }
        });
        absent(spec, "revisionHistoryLimit", 10);
    });
}
