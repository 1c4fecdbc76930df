//! Roles and bindings out of `roles.txt`, whose head says how it reads.

use api_objects::Value;
use serde_json::{Map, json};

use super::Planned;

const TABLE: &str = include_str!("roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const CONTROLLER: &str = "system:controller:";
/// The identity of all controllers that run as one process; upstream asks that it be given the roles of
/// every controller that it runs without an account of its own.
const CONTROLLER_MANAGER: &str = "user:system:kube-controller-manager";

/// Every role and binding.
pub(super) fn planned() -> Vec<Planned> {
    parse(TABLE).expect("the table of roles must parse")
}

#[derive(Debug)]
struct Role<'a> {
    namespace: &'a str,
    name: &'a str,
    aggregates: Option<&'a str>,
    into: Option<&'a str>,
    rules: Vec<Value>,
}

fn parse(table: &str) -> Result<Vec<Planned>, String> {
    let mut roles: Vec<Role<'_>> = Vec::new();
    let mut bindings = Vec::new();
    for (number, line) in table.lines().enumerate() {
        let line = line.trim();
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("role ") {
            roles.push(parse_role(rest).ok_or_else(|| wrong("not a role"))?);
        } else if let Some(rest) = line.strip_prefix("bind ") {
            bindings.push(parse_binding(rest).ok_or_else(|| wrong("not a binding"))?);
        } else {
            let rule = parse_rule(line).ok_or_else(|| wrong("not a rule"))?;
            roles.last_mut().ok_or_else(|| wrong("a rule before any role"))?.rules.push(rule);
        }
    }
    for role in &roles {
        if let (Some(controller), "") = (role.name.strip_prefix(CONTROLLER), role.namespace) {
            let account = format!("account:kube-system/{controller}");
            let subjects: Vec<Value> =
                [subject(&account), subject(CONTROLLER_MANAGER)].into_iter().flatten().collect();
            bindings.push(binding("", role.name, role.name, &subjects));
        }
    }
    Ok(roles.iter().map(role_object).chain(bindings).collect())
}

fn split_name(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

fn parse_role(text: &str) -> Option<Role<'_>> {
    let mut words = text.split_whitespace();
    let (namespace, name) = split_name(words.next()?);
    let mut role = Role { namespace, name, aggregates: None, into: None, rules: Vec::new() };
    for word in words {
        match word.split_once('=')? {
            ("aggregates", label) => role.aggregates = Some(label),
            ("into", label) => role.into = Some(label),
            _ => return None,
        }
    }
    Some(role)
}

fn parse_rule(line: &str) -> Option<Value> {
    let mut columns = line.split('|').map(str::trim);
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(ToOwned::to_owned).collect() };
    let verbs_text = columns.next()?;
    if verbs_text == "events" {
        return parse_rule("create patch update | core events.k8s.io | events");
    }
    let mut verbs: Vec<&str> = verbs_text
        .split_whitespace()
        .flat_map(|word| -> Vec<&str> {
            match word {
                "read" => vec!["get", "list", "watch"],
                "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
                verb => vec![verb],
            }
        })
        .collect();
    verbs.sort_unstable();
    let groups = words(columns.next()?);
    let targets = words(columns.next()?);
    if verbs.is_empty() || groups.is_empty() || targets.is_empty() {
        return None;
    }
    if groups == ["paths"] {
        return Some(json!({"verbs": verbs, "nonResourceURLs": targets}));
    }
    let groups: Vec<&str> = groups.iter().map(|group| if group == "core" { "" } else { group }).collect();
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": targets});
    if let Some(names) = columns.next() {
        rule["resourceNames"] = json!(words(names));
    }
    columns.next().is_none().then_some(rule)
}

fn parse_binding(text: &str) -> Option<Planned> {
    let mut words = text.split_whitespace();
    let (namespace, role) = split_name(words.next()?);
    let mut name = role;
    let mut subjects = Vec::new();
    for word in words {
        match word.strip_prefix("as=") {
            Some(given) => name = given,
            None => subjects.push(subject(word)?),
        }
    }
    Some(binding(namespace, name, role, &subjects))
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    match kind {
        "user" => Some(json!({"apiGroup": GROUP, "kind": "User", "name": name})),
        "group" => Some(json!({"apiGroup": GROUP, "kind": "Group", "name": name})),
        "account" => {
            let (namespace, name) = name.split_once('/')?;
            Some(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
        _ => None,
    }
}

fn metadata(namespace: &str, name: &str, into: Option<&str>) -> Value {
    let mut labels = Map::from_iter([("kubernetes.io/bootstrapping".to_owned(), json!("rbac-defaults"))]);
    if let Some(label) = into {
        labels.insert(aggregation_label(label), json!("true"));
    }
    let mut metadata = json!({"name": name, "labels": labels,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn aggregation_label(label: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{label}")
}

fn role_object(role: &Role<'_>) -> Planned {
    let Role { namespace, name, aggregates, into, rules } = role;
    let (kind, plural) =
        if namespace.is_empty() { ("ClusterRole", "clusterroles") } else { ("Role", "roles") };
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": metadata(namespace, name, *into), "rules": rules});
    if let Some(label) = aggregates {
        object["aggregationRule"] = json!({"clusterRoleSelectors": [
            {"matchLabels": {aggregation_label(label): "true"}}]});
    }
    let mut planned = Planned::once(GROUP, "v1", plural, namespace, object);
    if aggregates.is_none() {
        planned.reconcile = |planned, found| completed(planned, found, "rules");
    }
    planned
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[Value]) -> Planned {
    let (kind, plural, role_kind) = if namespace.is_empty() {
        ("ClusterRoleBinding", "clusterrolebindings", "ClusterRole")
    } else {
        ("RoleBinding", "rolebindings", "Role")
    };
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": metadata(namespace, name, None),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}});
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    let mut planned = Planned::once(GROUP, "v1", plural, namespace, object);
    planned.reconcile = |planned, found| completed(planned, found, "subjects");
    planned
}

/// The found object with the planned entries of `field` that it lacks; `None` if it has them all, or asks to
/// be left alone.
fn completed(planned: &Value, found: &Value, field: &str) -> Option<Value> {
    if found["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false" {
        return None;
    }
    let mut entries = found[field].as_array().cloned().unwrap_or_default();
    let missing: Vec<Value> =
        planned[field].as_array()?.iter().filter(|entry| !entries.contains(entry)).cloned().collect();
    if missing.is_empty() {
        return None;
    }
    entries.extend(missing);
    let mut next = found.clone();
    next[field] = json!(entries);
    Some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_binding_has_its_role_and_every_name_is_once() {
        let planned = planned();
        let mut keys = BTreeSet::new();
        for Planned { resource, namespace, object, .. } in &planned {
            let key = resource.key(namespace, object["metadata"]["name"].as_str().unwrap());
            assert!(keys.insert(key.clone()), "{key} stands in the table twice");
        }
        for Planned { namespace, object, .. } in &planned {
            let Some(role) = object["roleRef"]["name"].as_str() else { continue };
            let plural = if namespace.is_empty() { "clusterroles" } else { "roles" };
            let key = api_objects::resource::find(GROUP, "v1", plural).unwrap().key(namespace, role);
            assert!(keys.contains(&key), "{key} is bound and does not exist");
        }
    }

    #[test]
    fn lines_read_as_documented() {
        assert_eq!(
            parse_rule("read delete | core apps | pods | a b").unwrap(),
            json!({"verbs": ["delete", "get", "list", "watch"], "apiGroups": ["", "apps"],
                "resources": ["pods"], "resourceNames": ["a", "b"]})
        );
        assert_eq!(
            parse_rule("get | paths | /healthz").unwrap(),
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]})
        );
        assert_eq!(parse("get | core | pods").err().as_deref(), Some("line 1: a rule before any role"));
        assert_eq!(parse("role a\nget | core").err().as_deref(), Some("line 2: not a rule"));
    }

    #[test]
    fn what_a_person_added_stays_and_what_is_missing_comes_back() {
        let planned = json!({"rules": [1, 2]});
        assert_eq!(completed(&planned, &json!({"rules": [2, 3, 1]}), "rules"), None);
        assert_eq!(
            completed(&planned, &json!({"rules": [3, 1]}), "rules"),
            Some(json!({"rules": [3, 1, 2]}))
        );
        let kept = json!({"metadata": {"annotations":
            {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
        assert_eq!(completed(&planned, &kept, "rules"), None);
    }
}
