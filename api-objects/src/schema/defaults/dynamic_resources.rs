//! Defaults of resource.k8s.io (devices).
//!
//! A device taint's `timeAdded` is not set here: defaults read no clock.

use serde_json::Value;

use super::{Fields, absent, each, inside, number, text, text_of};

pub(super) fn claim(object: &mut Fields) {
    inside(object, "spec", claim_spec);
}

pub(super) fn claim_template(object: &mut Fields) {
    inside(object, "spec", |spec| inside(spec, "spec", claim_spec));
}

fn claim_spec(spec: &mut Fields) {
    inside(spec, "devices", |devices| {
        each(devices, "requests", |request| {
            inside(request, "exactly", device_request);
            each(request, "firstAvailable", device_request);
        });
    });
}

fn device_request(request: &mut Fields) {
    text(request, "allocationMode", "ExactCount");
    if text_of(request, "allocationMode") == "ExactCount" {
        number(request, "count", 1);
    }
    each(request, "tolerations", |toleration| text(toleration, "operator", "Equal"));
}

pub(super) fn slice(object: &mut Fields) {
    inside(object, "spec", |spec| {
        each(spec, "devices", |device| {
            inside(device, "nodeAllocatableResourceMappings", |mappings| {
                for mapping in mappings.values_mut().filter_map(Value::as_object_mut) {
                    absent(mapping, "allocationMultiplier", "1");
                }
            });
        });
    });
}
