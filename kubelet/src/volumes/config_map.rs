//! `configMap` volumes: keys of a ConfigMap as files.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath};

use super::atomic_writer::{File, Payload};
use crate::pod::environment::{Data, DataKind, DataObjects};

/// The files of a `configMap` volume.
pub(super) fn payload(source: &ConfigMapVolumeSource, objects: &DataObjects) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    project(
        DataKind::ConfigMap,
        &source.name,
        source.items.as_deref(),
        source.default_mode,
        optional,
        objects,
    )
}

/// Keys of a data object as files: all of them, or the listed ones under their paths.
pub(super) fn project(
    kind: DataKind,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    objects: &DataObjects,
) -> Result<Payload, String> {
    let empty = Data::new();
    let data = match objects.get(kind, name) {
        Ok(data) => data,
        Err(_) if optional => &empty,
        Err(missing) => return Err(missing),
    };
    let default_mode = mode(default_mode, 0o644);
    let file = |content: &Vec<u8>, mode| File { data: content.clone(), mode };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, content)| (key.clone(), file(content, default_mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                payload.insert(item.path.clone(), file(content, mode(item.mode, default_mode)));
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "{} references non-existent {} key: {}",
                    kind.noun(),
                    kind.noun(),
                    item.key
                ));
            }
        }
    }
    Ok(payload)
}

/// Permission bits of an item or the default.
pub(super) fn mode(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default) & 0o777
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects() -> DataObjects {
        let data: Data = [("k".to_owned(), b"v".to_vec()), ("l".to_owned(), b"w".to_vec())].into();
        DataObjects([((DataKind::ConfigMap, "c".to_owned()), data)].into())
    }

    fn files(source: serde_json::Value) -> Result<Payload, String> {
        payload(&serde_json::from_value(source).unwrap(), &objects())
    }

    #[test]
    fn keys_become_files() {
        let all = files(json!({"name": "c", "defaultMode": 420})).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["k", "l"]);
        assert_eq!(all["k"], File { data: b"v".to_vec(), mode: 0o644 });
        let some = files(json!({"name": "c", "items": [{"key": "k", "path": "a/b", "mode": 256}]})).unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(some["a/b"].mode, 0o400);
    }

    #[test]
    fn what_is_missing() {
        assert_eq!(files(json!({"name": "x"})).unwrap_err(), "configmap \"x\" not found");
        assert_eq!(files(json!({"name": "x", "optional": true})).unwrap(), Payload::new());
        assert_eq!(
            files(json!({"name": "c", "items": [{"key": "z", "path": "z"}]})).unwrap_err(),
            "configmap references non-existent configmap key: z"
        );
    }
}
