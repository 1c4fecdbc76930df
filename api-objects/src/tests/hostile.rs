//! Whatever a client sends: reading it answers an error or an object, and never panics.
//!
//! `PROPTEST_CASES` says how many inputs are tried; `scripts/test.sh --long` tries many.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, json};

use crate::{
    Value, duration, jsonpath,
    jsonpath::{JsonPath, MissingKeys},
    legacy,
    list::ContinueToken,
    names,
    object::ObjectMeta,
    params,
    patch::{self, PatchKind},
    quantity::Quantity,
    schema::{self, FieldValidation, Schema},
    selector::{FieldSelector, LabelSelector},
    time, watch, yaml,
};

fn pod() -> Option<&'static Schema> {
    schema::definition("io.k8s.api.core.v1.Pod")
}

/// Names that mean something to one of the readers.
const NAMES: [&str; 30] = [
    "metadata",
    "name",
    "labels",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "creationTimestamp",
    "spec",
    "containers",
    "ports",
    "containerPort",
    "protocol",
    "env",
    "volumes",
    "emptyDir",
    "sizeLimit",
    "resources",
    "limits",
    "cpu",
    "selector",
    "matchLabels",
    "matchExpressions",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/finalizers",
    "kind",
    "apiVersion",
    "cmd",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => ".{0,40}",
        3 => "[a-c0-9.,=!<>() /~\"'\\\\-]{0,30}",
        2 => "[-+0-9.eEkKMGTPinum]{0,20}",
        2 => "[{}\\[\\]().$@?*:a-c0-9 |&<\"'\n#-]{0,40}",
        1 => "(a|in|notin|exists|,|!|=|==|!=|\\(|\\)| |x/y){0,12}",
        1 => "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})?",
        1 => prop::sample::select(vec!["delete", "replace", "merge", "Pod", "v1", "ReplicaSet"]).prop_map(String::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        text().prop_map(Value::from),
        prop::sample::select(NAMES.to_vec()).prop_map(Value::from),
    ];
    let name = || prop_oneof![8 => prop::sample::select(NAMES.to_vec()).prop_map(String::from), 1 => text()];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An object that looks like a pod, so that patches find something in it.
fn object() -> impl Strategy<Value = Value> {
    let container = json!({"name": "a", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]});
    let whole = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "finalizers": ["a/b"], "labels": {"a": "b"}},
        "spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}});
    prop_oneof![Just(whole), value()]
}

fn pointer() -> impl Strategy<Value = String> {
    prop_oneof![
        "(/(spec|containers|0|-|a|~0|~1|~|~2|99999999999999999999|name)){0,5}",
        "[/~a0-9-]{0,12}",
        Just(String::new()),
    ]
}

fn operations() -> impl Strategy<Value = Value> {
    let verb = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "grow"]);
    let operation = (verb, pointer(), prop::option::of(pointer()), prop::option::of(value())).prop_map(
        |(verb, path, from, value)| {
            let mut operation = json!({"op": verb, "path": path});
            from.into_iter().for_each(|from| operation["from"] = from.into());
            value.into_iter().for_each(|value| operation["value"] = value);
            operation
        },
    );
    prop::collection::vec(operation, 0..12).prop_map(Value::from)
}

proptest! {
    #[test]
    fn patches_answer(current in object(), patch in prop_oneof![operations(), value(), object()]) {
        let bytes = serde_json::to_vec(&patch).unwrap();
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply] {
            for schema in [pod(), None] {
                if let Ok(mut patched) = patch::apply(kind, &current, &bytes, schema) {
                    // What came out is stored only after this.
                    if let Some(schema) = schema {
                        let _ = schema::check(schema, &mut patched, FieldValidation::Strict);
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), current in object()) {
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
            let _ = patch::apply(kind, &current, &bytes, pod());
        }
        let _ = ObjectMeta::from_bytes(&bytes);
        let _ = watch::Frame::parse(&bytes).map(|frame| frame.status());
        let _ = params::DeleteParams::parse("", &bytes);
        let _ = yaml::documents(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn objects_answer(mut object in prop_oneof![object(), value()]) {
        let _ = ObjectMeta::from_value(&object);
        let _ = LabelSelector::from_object(Some(&object));
        let _ = Quantity::from_value(&object);
        let written = yaml::to_string(&object);
        prop_assert!(yaml::documents(&written).is_ok(), "{}", written);
        let _ = legacy::translate(&mut object.clone());
        for definition in ["io.k8s.api.core.v1.Pod", "io.k8s.api.rbac.v1.ClusterRole"] {
            let schema = schema::definition(definition).unwrap();
            let _ = schema::check(schema, &mut object.clone(), FieldValidation::Warn);
        }
        let _ = schema::check(pod().unwrap(), &mut object, FieldValidation::Strict);
    }

    #[test]
    fn texts_answer(text in text(), object in object()) {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        if let Ok(selector) = LabelSelector::parse(&text) {
            let _ = (selector.matches(&labels), selector.to_string());
        }
        let _ = FieldSelector::parse(&text).map(|selector| selector.matches(|_| Some("a")));
        if let Ok(quantity) = text.parse::<Quantity>() {
            let _ = (quantity.value(), quantity.milli_value(), quantity.as_f64(), quantity.signum());
            let canonical = quantity.to_string();
            prop_assert!(canonical.parse::<Quantity>().is_ok(), "{} from {}", canonical, text);
        }
        if let Ok(path) = JsonPath::parse(&text) {
            let _ = path.render(&object, MissingKeys::Refuse);
            let _ = path.find(&object, MissingKeys::Refuse);
        }
        let _ = jsonpath::relaxed(&text).map(|text| JsonPath::parse(&text));
        let _ = duration::parse_go(&text).map(duration::format_go);
        let _ = time::parse(&text);
        let _ = ContinueToken::decode(&text);
        let _ = yaml::documents(&text);
        for check in [names::dns1123_label, names::dns1123_subdomain, names::dns1035_label,
            names::qualified_name, names::label_value, names::config_map_key,
            names::environment_name, names::port_name, names::path_segment] {
            let _ = check(&text);
        }
        let query = format!("labelSelector={text}&limit={text}&resourceVersion={text}&continue={text}");
        for query in [&query, &text] {
            let _ = params::ListParams::parse(query);
            let _ = params::GetParams::parse(query);
            let _ = params::DeleteParams::parse(query, b"");
        }
    }
}

/// Depth is the one size that a proptest does not reach, and the one that ends a process without a panic.
#[test]
fn no_depth_overflows_the_stack() {
    const DEEP: usize = 100_000;
    let around = |open: &str, inner: &str, close: &str| open.repeat(DEEP) + inner + &close.repeat(DEEP);
    for text in [
        around("[", "", "]"),
        around("{\"a\":", "1", "}"),
        around("{a: ", "1", "}"),
        around("- ", "1", ""),
        around("? ", "1", ""),
        "[".repeat(DEEP),
        "{a: [".repeat(DEEP),
        "!a ".repeat(DEEP),
    ] {
        let _ = yaml::documents(&text);
        let _ = ObjectMeta::from_bytes(text.as_bytes());
        for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
            assert!(patch::apply(kind, &json!({}), text.as_bytes(), pod()).is_err());
        }
    }
    for template in [
        around("{range .a}", "", "{end}"),
        "{range .a}".repeat(DEEP),
        format!("{{{}}}", around("[?(@.a", "", ")]")),
        format!("{{{}}}", "..a".repeat(DEEP)),
        format!("{{{}}}", "[0,".repeat(DEEP)),
    ] {
        if let Ok(path) = JsonPath::parse(&template) {
            let _ = path.render(&json!({"a": [{"a": 1}]}), MissingKeys::Allow);
        }
    }
    let _ = LabelSelector::parse(&around("a in (", "b", ")"));
    // Each line names the one before it nine times: nine to the ninth.
    let laughs: String = (1..10)
        .map(|line| format!("a{line}: &a{line} [{}]\n", vec![format!("*a{}", line - 1); 9].join(",")))
        .collect();
    assert!(yaml::documents(&format!("a0: &a0 x\n{laughs}")).is_err(), "a text must not grow without bound");
    // Copies of the whole into itself double it each time.
    let copies: Vec<Value> =
        (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")})).collect();
    let refused =
        patch::apply(PatchKind::Json, &json!({"a": 1}), &serde_json::to_vec(&copies).unwrap(), None);
    assert!(refused.is_err(), "a patch must not grow without bound");
}
