//! The examples of the documentation's "JSONPath Support" page, and what lies at the edges.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn example() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
             "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
            {"kind": "None", "metadata": {"name": "127.0.0.2"},
             "status": {"capacity": {"cpu": "8"}, "addresses": [
                {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}}
        ],
        "users": [
            {"name": "myself", "user": {}},
            {"name": "e2e", "user": {"username": "admin", "password": "secret"}}
        ],
        "n": [1, 2, 3, 4, 5]
    })
}

fn rendered(template: &str) -> Result<String, JsonPathError> {
    JsonPath::parse(template)?.render(&example(), MissingKeys::Refuse)
}

#[test]
fn documented_expressions() {
    for (template, expected) in [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{$.kind}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.items[*]['metadata.name', 'status.capacity.cpu']}", "127.0.0.1 127.0.0.2 4 8"),
        (r"{.items[0].metadata.labels['kubernetes\.io/hostname']}", "127.0.0.1"),
        ("{.items[0]['kind','kind']}", "None None"),
        (r#"{.users[?(@.name=="e2e")].user.password}"#, "secret"),
        (
            r#"{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}"#,
            r#"[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] "#,
        ),
        (r#"{range .items[*]}{.metadata.name}{'\t'}{end}"#, "127.0.0.1\t127.0.0.2\t"),
        (r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
        ("{.n[0:2]}", "1 2"),
        ("{.n[-2:]}", "4 5"),
        ("{.n[0:5:2]}", "1 3 5"),
        ("{.n[0,2]}", "1 3"),
        ("{.n[*]}", "1 2 3 4 5"),
        ("{.n}", "[1,2,3,4,5]"),
        ("{.users[?(@.user.username)].name}", "e2e"),
        (r#"{.items[*].status.addresses[?(@.type=="another")].address}"#, "127.0.0.3"),
        (r#"{range .users[?(@.name != "e2e")]}{.name}{"\n"}{end}"#, "myself\n"),
        (
            "{range .items[*]}{range .status.addresses[*]}{.address},{end};{end}",
            "127.0.0.1,;127.0.0.2,127.0.0.3,;",
        ),
        (r#"{"{"}{.kind}{"}"}"#, "{List}"),
    ] {
        let path = JsonPath::parse(template).unwrap();
        assert_eq!(path.render(&example(), MissingKeys::Allow).unwrap(), expected, "{template}");
    }
}

#[test]
fn errors_are_upstreams() {
    assert_eq!(rendered("{.missing}").unwrap_err().to_string(), "missing is not found");
    assert_eq!(
        rendered("{.users[7]}").unwrap_err().to_string(),
        "array index out of bounds: index 7, length 2"
    );
    assert_eq!(rendered("{.kind").unwrap_err().to_string(), "unclosed action");
    assert_eq!(rendered("{end}").unwrap_err().to_string(), "not in range, nothing to end");
    assert_eq!(rendered("{hello}").unwrap_err().to_string(), "unrecognized identifier hello");
    assert!(
        rendered("{.n[x]}").is_err() && rendered("{.n[?(@.x==)]}").is_err() && rendered("{.n[1").is_err()
    );
}

#[test]
fn loose_spellings() {
    for text in ["metadata.name", ".metadata.name", "{metadata.name}", "{.metadata.name}"] {
        assert_eq!(relaxed(text).unwrap(), "{.metadata.name}");
    }
    assert!(relaxed("{.metadata").is_err());
}

proptest! {
    #[test]
    fn no_template_panics(template in "[{}\\[\\]().$@?*:'\"a-c0-9 ,=<>!\\\\-]{0,24}") {
        if let Ok(path) = JsonPath::parse(&template) {
            let _ = path.render(&example(), MissingKeys::Refuse);
        }
    }
}
