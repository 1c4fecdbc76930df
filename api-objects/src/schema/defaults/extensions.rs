//! Defaults of admissionregistration.k8s.io, apiextensions.k8s.io and apiregistration.k8s.io.

use serde_json::{Value, json};

use super::{Fields, absent, each, ensure, inside, is_empty, text, text_of};

pub(super) fn validating_webhooks(object: &mut Fields) {
    each(object, "webhooks", webhook);
}

pub(super) fn mutating_webhooks(object: &mut Fields) {
    each(object, "webhooks", |hook| {
        webhook(hook);
        absent(hook, "reinvocationPolicy", "Never");
    });
}

fn webhook(hook: &mut Fields) {
    absent(hook, "failurePolicy", "Fail");
    match_resources(hook);
    absent(hook, "timeoutSeconds", 10);
    each(hook, "rules", rule);
    inside(hook, "clientConfig", client_config);
}

fn match_resources(fields: &mut Fields) {
    absent(fields, "matchPolicy", "Equivalent");
    absent(fields, "namespaceSelector", json!({}));
    absent(fields, "objectSelector", json!({}));
}

fn rule(rule: &mut Fields) {
    absent(rule, "scope", "*");
}

fn client_config(config: &mut Fields) {
    inside(config, "service", service_port);
}

fn service_port(service: &mut Fields) {
    absent(service, "port", 443);
}

pub(super) fn admission_policy(object: &mut Fields) {
    inside(object, "spec", |spec| {
        absent(spec, "failurePolicy", "Fail");
        inside(spec, "matchConstraints", resource_rules);
    });
}

pub(super) fn admission_policy_binding(object: &mut Fields) {
    inside(object, "spec", |spec| inside(spec, "matchResources", resource_rules));
}

fn resource_rules(constraints: &mut Fields) {
    match_resources(constraints);
    each(constraints, "resourceRules", rule);
    each(constraints, "excludeResourceRules", rule);
}

pub(super) fn custom_resource_definition(object: &mut Fields) {
    let mut storage_version = None;
    ensure(object, "spec", |spec| {
        inside(spec, "names", |names| {
            let kind = text_of(names, "kind").to_owned();
            if !kind.is_empty() {
                text(names, "singular", &kind.to_lowercase());
                text(names, "listKind", &format!("{kind}List"));
            }
        });
        absent(spec, "conversion", json!({"strategy": "None"}));
        inside(spec, "conversion", |conversion| {
            inside(conversion, "webhook", |webhook| inside(webhook, "clientConfig", client_config));
        });
        let versions = spec.get("versions").and_then(Value::as_array);
        storage_version = versions
            .into_iter()
            .flatten()
            .find(|version| version["storage"] == true)
            .map(|version| version["name"].clone());
    });
    if let Some(version) = storage_version {
        ensure(object, "status", |status| {
            if is_empty(status, "storedVersions") {
                status.insert("storedVersions".to_owned(), Value::Array(vec![version]));
            }
        });
    }
}

pub(super) fn api_service(object: &mut Fields) {
    inside(object, "spec", |spec| inside(spec, "service", service_port));
}
