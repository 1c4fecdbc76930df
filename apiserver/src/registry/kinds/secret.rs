//! Secrets: `stringData` is a way to write `data`, and is never read back.
//!
//! Upstream: `pkg/apis/core/v1/conversion.go`.

use api_objects::Value;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

/// Encodes `stringData` into `data`, over what stands there under the same keys.
pub fn fold_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|secret| secret.remove("stringData"))
    else {
        return;
    };
    if !secret["data"].is_object() {
        secret["data"] = json!({});
    }
    for (key, text) in texts {
        secret["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_data() {
        let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}});
        fold_string_data(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "eg==", "b": "eQ=="}}));
        let mut plain = json!({"data": {"a": "eA=="}});
        fold_string_data(&mut plain);
        assert_eq!(plain, json!({"data": {"a": "eA=="}}));
    }
}
