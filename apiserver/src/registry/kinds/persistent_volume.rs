//! Volumes and claims start pending, until their controllers have bound them.

use api_objects::Value;
use serde_json::json;

/// The status of a new volume or claim.
pub fn pending_on_create(object: &mut Value) {
    object["status"] = json!({ "phase": "Pending" });
}
