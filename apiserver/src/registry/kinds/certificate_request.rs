//! CertificateSigningRequests: the spec is a fact of their creation; decisions and certificates come in by
//! subresources of their own.
//!
//! Upstream: `pkg/registry/certificates/certificates/strategy.go`.

use api_objects::{Value, time::rfc3339};
use jiff::Timestamp;
use serde_json::json;

/// Puts back what no update can change.
pub fn prepare_for_update(new: &mut Value, old: &Value) {
    new["spec"] = old["spec"].clone();
}

/// `approval` brings conditions and nothing else; `status` everything but decisions.
pub fn prepare_for_subresource(subresource: &str, new: &mut Value, old: &Value, now: Timestamp) {
    new["spec"] = old["spec"].clone();
    if subresource == "approval" {
        let conditions = new["status"]["conditions"].take();
        new["status"] = old["status"].clone();
        if !conditions.is_null() {
            new["status"]["conditions"] = conditions;
        }
    } else {
        preserve(new, old, "Approved");
        preserve(new, old, "Denied");
    }
    if new["status"].is_null() {
        new["status"] = json!({});
    }
    stamp(new, old, now);
}

/// Puts a decision back as it was, unless one was added or taken away: validation then says so.
fn preserve(new: &mut Value, old: &Value, kind: &str) {
    let old: Vec<&Value> = of_kind(old, kind);
    let Some(conditions) = new["status"]["conditions"].as_array_mut() else { return };
    let mut found: Vec<&mut Value> =
        conditions.iter_mut().filter(|condition| condition["type"] == kind).collect();
    if found.len() == old.len() {
        for (condition, old) in found.iter_mut().zip(old) {
            **condition = old.clone();
        }
    }
}

fn of_kind<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    let conditions = request["status"]["conditions"].as_array();
    conditions.into_iter().flatten().filter(|condition| condition["type"] == kind).collect()
}

/// Conditions that come without their times get them.
fn stamp(new: &mut Value, old: &Value, now: Timestamp) {
    let now = json!(rfc3339(now));
    for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.clone();
        }
        if condition["lastTransitionTime"].is_null() {
            let kind = condition["type"].as_str().unwrap_or_default();
            let same = of_kind(old, kind).into_iter().find(|old| old["status"] == condition["status"]);
            let since = same.map(|same| same["lastTransitionTime"].clone()).filter(|since| !since.is_null());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_lets_through_what_is_its_own() {
        let now = Timestamp::UNIX_EPOCH;
        let old = json!({"spec": {"signerName": "a/b"}, "status": {}});
        let approved = json!({"type": "Approved", "status": "True"});
        let mut new = json!({"spec": {}, "status": {"certificate": "x", "conditions": [approved]}});
        prepare_for_subresource("approval", &mut new, &old, now);
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["status"]["certificate"], Value::Null);
        assert_eq!(new["status"]["conditions"][0]["lastUpdateTime"], "1970-01-01T00:00:00Z");

        let mut signed = new.clone();
        signed["status"]["certificate"] = json!("x");
        signed["status"]["conditions"][0]["reason"] = json!("changed by the signer");
        prepare_for_subresource("status", &mut signed, &new, now);
        assert_eq!(signed["status"]["certificate"], "x");
        assert_eq!(signed["status"]["conditions"], new["status"]["conditions"]);
    }
}
