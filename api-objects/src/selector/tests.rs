//! Selectors read, print and match as the documentation of labels and field selectors says.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn documented_forms_match() {
    let set = labels(&[("environment", "production"), ("tier", "frontend"), ("n", "5")]);
    for (text, expected) in [
        ("", true),
        ("environment=production", true),
        ("environment==production", true),
        ("environment = production , tier != backend", true),
        ("environment in (production, qa)", true),
        ("tier notin (frontend, backend)", false),
        ("partition", false),
        ("!partition", true),
        ("partition!=x", true),
        ("n>4,n<6", true),
        ("n>5", false),
        ("tier>1", false),
        ("partition=", false),
        ("x in (,production)", false),
        ("tier in ()", false),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&set), expected, "{text}");
    }
}

#[test]
fn errors_are_upstreams() {
    for (text, message) in [
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let error = LabelSelector::parse("_a=b").unwrap_err().to_string();
    assert!(
        error.starts_with("unable to parse requirement: <nil>: Invalid value: \"_a\": name part must"),
        "{error}"
    );
}

#[test]
fn objects_are_read() {
    assert_eq!(LabelSelector::from_object(None).unwrap(), LabelSelector::Nothing);
    assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().is_everything());
    let selector = LabelSelector::from_object(Some(&json!({
        "matchLabels": {"component": "redis"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["cache"]},
            {"key": "environment", "operator": "NotIn", "values": ["dev"]},
            {"key": "x", "operator": "DoesNotExist"},
        ],
    })))
    .unwrap();
    assert_eq!(selector.to_string(), "component=redis,environment notin (dev),tier in (cache),!x");
    assert!(selector.matches(&labels(&[("component", "redis"), ("tier", "cache")])));
    assert!(!selector.matches(&labels(&[("component", "redis"), ("tier", "cache"), ("x", "")])));
    let error =
        LabelSelector::from_object(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})));
    assert_eq!(error.unwrap_err().to_string(), r#""Is" is not a valid label selector operator"#);
}

#[test]
fn fields_match() {
    let lookup = |field: &str| match field {
        "metadata.name" => Some("a,b"),
        "status.phase" => Some("Running"),
        _ => None,
    };
    for (text, expected) in [
        ("", true),
        (r"metadata.name=a\,b", true),
        ("status.phase!=Running", false),
        ("status.phase==Running,spec.nodeName=", true),
        ("spec.nodeName!=", false),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(lookup), expected, "{text}");
    }
    assert_eq!(FieldSelector::parse("a=1,metadata.name=x").unwrap().required("metadata.name"), Some("x"));
    assert_eq!(
        FieldSelector::parse("a").unwrap_err().to_string(),
        "invalid selector: 'a'; can't understand 'a'"
    );
    assert!(FieldSelector::parse(r"a=\b").unwrap_err().to_string().ends_with(r"invalid escape sequence: \b"));
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let value = "[a-z0-9]{0,4}";
    ("[a-z]{1,3}", 0..9usize, proptest::collection::vec(value, 1..4), any::<i32>()).prop_map(
        |(key, which, values, number)| {
            let one = vec![values[0].clone()];
            let (operator, values) = match which {
                0 => (Operator::Equals, one),
                1 => (Operator::DoubleEquals, one),
                2 => (Operator::NotEquals, one),
                3 => (Operator::In, values),
                4 => (Operator::NotIn, values),
                5 => (Operator::Exists, Vec::new()),
                6 => (Operator::DoesNotExist, Vec::new()),
                7 => (Operator::GreaterThan, vec![number.unsigned_abs().to_string()]),
                _ => (Operator::LessThan, vec![number.unsigned_abs().to_string()]),
            };
            Requirement::new(&key, operator, values).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn printed_selectors_read_back(requirements in proptest::collection::vec(requirement(), 0..5)) {
        let mut requirements = requirements;
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        let selector = LabelSelector::All(requirements);
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn negation_is_the_complement(key in "[a-c]", values in proptest::collection::vec("[xy]", 1..3),
                                  found in proptest::option::of("[xyz]")) {
        let is_in = Requirement::new(&key, Operator::In, values.clone()).unwrap();
        let is_not_in = Requirement::new(&key, Operator::NotIn, values).unwrap();
        prop_assert_ne!(is_in.matches(found.as_deref()), is_not_in.matches(found.as_deref()));
    }

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn printed_field_selectors_read_back(value in ".{0,12}") {
        let selector = FieldSelector { terms: vec![FieldTerm { field: "a.b".into(), value, equal: true }] };
        prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
    }
}
