//! Jobs find their pods by a selector that the server makes, so that no two Jobs share pods.
//!
//! Upstream: `pkg/registry/batch/job/strategy.go` (`generateSelector`).

use api_objects::Value;
use serde_json::json;

/// Labels the template with the Job's name and uid and selects by the uid, unless the client insists on a
/// selector of its own.
pub fn prepare_for_create(job: &mut Value) {
    if job["spec"]["manualSelector"].as_bool().unwrap_or(false) || !job["spec"]["template"].is_object() {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let template = &mut job["spec"]["template"];
    for (label, value) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        // A label that the client gave is left for validation to compare.
        if template["metadata"]["labels"][label].is_null() {
            template["metadata"]["labels"][label] = value.clone();
        }
    }
    if job["metadata"]["labels"].is_null() {
        job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"].clone();
    }
    job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = json!(uid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_names_the_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        prepare_for_create(&mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        let mut manual = json!({"spec": {"manualSelector": true, "template": {}}});
        let before = manual.clone();
        prepare_for_create(&mut manual);
        assert_eq!(manual, before);
    }
}
