//! Nodes: an `ip` beside the metadata.

use serde_json::json;

use crate::object::Value;

/// Turns `ip` into the node's internal address.
pub(super) fn translate(document: &mut Value, notes: &mut Vec<String>) {
    let Some(fields) = document.as_object_mut() else { return };
    let Some(Value::String(address)) = fields.get("ip").cloned() else { return };
    fields.remove("ip");
    let status = fields.entry("status").or_insert_with(|| json!({}));
    if status.get("addresses").is_none() && status.is_object() {
        status["addresses"] = json!([{ "type": "InternalIP", "address": address }]);
    }
    notes.push("ip: read as status.addresses".to_owned());
}
