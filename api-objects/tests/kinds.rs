//! Every stored built-in kind, from a minimal manifest to what the server makes of it.
//!
//! `kinds/<plural>.<group>.<version>.yaml` holds two documents, the input and the expected output, both written
//! from the Kubernetes documentation: the examples of its pages, the defaults and tags of its API reference.

use std::path::PathBuf;

use api_objects::resource;
use api_objects::schema::{self, FieldValidation};
use serde_json::Value;

fn documents(path: &std::path::Path) -> (Value, Value) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
        panic!("{}: {error}: every kind needs its defaults documented", path.display())
    });
    let options = serde_yaml::options! { legacy_octal_numbers: true };
    let mut documents: Vec<Value> = serde_yaml::from_multiple_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(documents.len(), 2, "{}: an input and an output", path.display());
    let output = documents.remove(1);
    (documents.remove(0), output)
}

#[test]
fn minimal_manifests_get_their_documented_defaults() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kinds");
    let mut expected_files = 0;
    for row in resource::builtin() {
        if !row.verbs.iter().any(|verb| verb == "create") || !row.verbs.iter().any(|verb| verb == "list") {
            continue;
        }
        let dot = if row.group.is_empty() { "" } else { "." };
        let file = folder.join(format!("{}{dot}{}.{}.yaml", row.plural, row.group, row.version));
        expected_files += 1;
        let (mut value, expected) = documents(&file);
        for round in ["once", "twice"] {
            schema::check(schema::for_resource(row), &mut value, FieldValidation::Strict)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            schema::apply_defaults(row, &mut value);
            assert_eq!(value, expected, "{} ({round})", file.display());
        }
    }
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, expected_files, "every file in {} must belong to a kind", folder.display());
}
