//! The dialect reads as kubectl's does, and what is written reads back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn the_dialect_is_yaml_1_1() {
    let text =
        "mode: 0644\non: yes\nname: 'yes'\nbig: 1_000\nbase: &b {x: 1}\nuse:\n  <<: *b\n  y: 2\n1: one\n";
    let value = document(text).unwrap();
    assert_eq!(value["mode"], 420);
    assert_eq!(value["on"], true, "a key is text, a value a boolean: {value}");
    assert_eq!(value["name"], "yes");
    assert_eq!(value["use"], json!({"x": 1, "y": 2}));
    assert_eq!(value["1"], "one");
}

#[test]
fn documents_are_told_apart() {
    assert_eq!(
        documents("a: 1\n---\n---\n# nothing\n---\nb: 2\n").unwrap(),
        [json!({"a": 1}), json!({"b": 2})]
    );
    assert_eq!(documents("{\"a\": 1}\n{\"b\": 2}").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
    assert_eq!(documents("{a: 1}").unwrap(), [json!({"a": 1})]);
    assert_eq!(documents("").unwrap(), Vec::<Value>::new());
    assert!(documents("a: 1\na: 2\n").is_err(), "a repeated key must be an error");
    assert!(documents("a: [1\n").is_err());
    assert!(matches!(documents("{\"a\": 1,, \"b\"}"), Err(YamlError::Json(_))));
}

#[test]
fn the_layout_is_kubectls() {
    let value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"annotations": {"a": "true", "b": "x: y", "c": "*", "d": "12:30"},
            "creationTimestamp": "2026-11-21T10:00:00Z", "name": "a", "uid": "1e5"},
        "spec": {"containers": [{"args": ["-c", "- x", "echo \"hi\""], "image": "nginx:1", "name": "n",
            "ports": [{"containerPort": 80}], "resources": {}}], "tolerations": [], "script": "a\nb\n",
            "open": "a\n\nb", "tabbed": "a\tb\n", "empty": "", "none": null, "nested": [["x"], []]},
    });
    let text = r#"apiVersion: v1
kind: Pod
metadata:
  annotations:
    a: "true"
    b: 'x: y'
    c: '*'
    d: "12:30"
  creationTimestamp: "2026-11-21T10:00:00Z"
  name: a
  uid: "1e5"
spec:
  containers:
  - args:
    - -c
    - '- x'
    - echo "hi"
    image: nginx:1
    name: "n"
    ports:
    - containerPort: 80
    resources: {}
  empty: ""
  nested:
  - - x
  - []
  none: null
  open: |-
    a

    b
  script: |
    a
    b
  tabbed: "a\tb\n"
  tolerations: []
"#;
    assert_eq!(to_string(&value), text);
    assert_eq!(document(text).unwrap(), value);
    // What `sigs.k8s.io/yaml` prints of a text alone.
    assert_eq!(to_string(&json!("\n0")), "|2-\n\n  0\n");
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "[a-z0-9:#'\" \n\t,\\[\\]{}&*!|>%@`?.~=<_+-]{0,14}",
        "\\PC{0,8}",
        prop::sample::select(vec![
            "yes",
            "No",
            "0x1f",
            "1e3",
            "0644",
            "1_000",
            "-.inf",
            "2001-01-01",
            "1:30",
            "---",
            "...",
            "null",
            "+1",
            "a\n",
            "\na",
            " a\n b",
            "a\n\n"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2 * ProptestConfig::default().cases, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_reads_back(value in value()) {
        let text = to_string(&json!({ "v": value }));
        let read = document(&text);
        prop_assert!(read.is_ok(), "{read:?}\n{text}");
        prop_assert_eq!(&read.unwrap()["v"], &value, "{}", text);
    }
}
