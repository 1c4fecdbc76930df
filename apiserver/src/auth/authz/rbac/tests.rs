//! The evaluation of roles and bindings, case by case from upstream's documentation.

use serde_json::json;

use super::*;
use crate::request_info::RequestInfo;

fn policy(objects: &[(&str, Value)]) -> Policy {
    let mut policy = Policy::default();
    for (key, object) in objects {
        let key = Arc::from(format!("{PREFIX}{key}"));
        policy.apply(&key, Some(object.to_string().as_bytes()));
    }
    policy
}

fn asks(index: &Index, user: &UserInfo, method: &str, target: &str) -> bool {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let info = RequestInfo::parse(&method.parse().unwrap(), path, query);
    matches!(index.authorize(user, Action::from(&info)), Decision::Allowed(_))
}

fn binding(name: &str, namespace: &str, role: (&str, &str), subject: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}})
}

#[test]
fn a_role_binding_reaches_its_namespace_and_a_cluster_role_binding_everything() {
    let role = json!({"metadata": {"name": "reader", "namespace": "a"},
        "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
    let cluster_role = json!({"metadata": {"name": "reader"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "nodes"]}]});
    let index = policy(&[
        ("roles/a/reader", role),
        ("clusterroles/reader", cluster_role),
        (
            "rolebindings/a/b1",
            binding("b1", "a", ("Role", "reader"), &json!({"kind": "User", "name": "ann"})),
        ),
        (
            "rolebindings/a/b2",
            binding("b2", "a", ("ClusterRole", "reader"), &json!({"kind": "Group", "name": "dev"})),
        ),
        (
            "clusterrolebindings/b3",
            binding(
                "b3",
                "",
                ("ClusterRole", "reader"),
                &json!({"kind": "ServiceAccount", "name": "s", "namespace": "x"}),
            ),
        ),
    ])
    .index(1);
    let ann = UserInfo::new("ann", &[]);
    assert!(asks(&index, &ann, "GET", "/api/v1/namespaces/a/pods"));
    assert!(!asks(&index, &ann, "GET", "/api/v1/namespaces/a/pods?watch=1"));
    assert!(!asks(&index, &ann, "GET", "/api/v1/namespaces/b/pods"));
    assert!(!asks(&index, &ann, "GET", "/api/v1/pods"));
    assert!(!asks(&index, &ann, "GET", "/api/v1/namespaces/a/pods/p/log"));
    let dev = UserInfo::new("bob", &["dev"]);
    assert!(asks(&index, &dev, "GET", "/api/v1/namespaces/a/pods/p"));
    assert!(
        !asks(&index, &dev, "GET", "/api/v1/nodes/n"),
        "a RoleBinding grants nothing at the cluster scope"
    );
    let account = UserInfo::new("system:serviceaccount:x:s", &[]);
    assert!(asks(&index, &account, "GET", "/api/v1/nodes/n"));
    assert!(asks(&index, &account, "GET", "/api/v1/namespaces/b/pods/p"));
}

#[test]
fn rules_match_as_upstreams() {
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| Rule {
        verbs: verbs.iter().map(ToString::to_string).collect(),
        api_groups: groups.iter().map(ToString::to_string).collect(),
        resources: resources.iter().map(ToString::to_string).collect(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        non_resource_urls: Vec::new(),
    };
    let allows = |rule: &Rule, method: &str, target: &str| {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        rule.allows(Action::from(&RequestInfo::parse(&method.parse().unwrap(), path, query)))
    };
    let everything = rule(&["*"], &["*"], &["*"], &[]);
    assert!(allows(&everything, "POST", "/apis/apps/v1/namespaces/a/replicasets/r/scale"));
    assert!(!allows(&everything, "GET", "/healthz"), "resource rules say nothing about paths");
    let scale = rule(&["update"], &["*"], &["*/scale"], &[]);
    assert!(allows(&scale, "PUT", "/apis/apps/v1/namespaces/a/replicasets/r/scale"));
    assert!(!allows(&scale, "PUT", "/apis/apps/v1/namespaces/a/replicasets/r"));
    let log = rule(&["get"], &[""], &["pods/log"], &[]);
    assert!(allows(&log, "GET", "/api/v1/namespaces/a/pods/p/log"));
    assert!(!allows(&log, "GET", "/api/v1/namespaces/a/pods/p"));
    let named = rule(&["get", "list"], &[""], &["configmaps"], &["c"]);
    assert!(allows(&named, "GET", "/api/v1/namespaces/a/configmaps/c"));
    assert!(!allows(&named, "GET", "/api/v1/namespaces/a/configmaps/d"));
    assert!(!allows(&named, "GET", "/api/v1/namespaces/a/configmaps"));
    assert!(allows(&named, "GET", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dc"));
    let no_group = rule(&["get"], &[""], &["deployments"], &[]);
    assert!(!allows(&no_group, "GET", "/apis/apps/v1/namespaces/a/deployments/d"));
}

#[test]
fn paths_match_exactly_or_by_a_trailing_star() {
    for (rule, path, expected) in [
        ("/healthz", "/healthz", true),
        ("/healthz", "/healthz/etcd", false),
        ("/healthz/*", "/healthz/etcd", true),
        ("/apis/*", "/apis", false),
        ("*", "/anything", true),
    ] {
        assert_eq!(matches_path(rule, path), expected, "{rule} {path}");
    }
}

#[test]
fn aggregates_follow_their_selectors() {
    let part = |name: &str, label: &str, resource: &str| {
        json!({"metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    };
    let whole = json!({"metadata": {"name": "whole"}, "rules": null,
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"in-whole": "true"}}]}});
    let mut policy = policy(&[
        ("clusterroles/part-1", part("part-1", "in-whole", "pods")),
        ("clusterroles/part-2", part("part-2", "elsewhere", "secrets")),
        ("clusterroles/whole", whole),
        (
            "clusterrolebindings/b",
            binding("b", "", ("ClusterRole", "whole"), &json!({"kind": "User", "name": "ann"})),
        ),
    ]);
    let ann = UserInfo::new("ann", &[]);
    assert!(asks(&policy.index(1), &ann, "GET", "/api/v1/namespaces/a/pods/p"));
    assert!(!asks(&policy.index(1), &ann, "GET", "/api/v1/namespaces/a/secrets/s"));
    let stale = policy.stale_aggregates();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].rules[0].resources, ["pods"]);

    policy.apply(&Arc::from(format!("{CLUSTER_ROLES}part-1")), None);
    assert!(!asks(&policy.index(1), &ann, "GET", "/api/v1/namespaces/a/pods/p"));
    assert_eq!(policy.stale_aggregates(), [], "no part is left, and none is stored");
}

#[test]
fn a_binding_of_a_missing_role_is_named_in_the_refusal() {
    let index = policy(&[(
        "clusterrolebindings/b",
        binding("b", "", ("ClusterRole", "gone"), &json!({"kind": "User", "name": "ann"})),
    )])
    .index(1);
    let info = RequestInfo::parse(&http::Method::GET, "/api/v1/nodes", None);
    assert_eq!(
        index.authorize(&UserInfo::new("ann", &[]), Action::from(&info)),
        Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found".to_owned())
    );
}

#[test]
fn unreadable_objects_grant_nothing() {
    let mut policy = policy(&[]);
    policy.apply(&Arc::from(format!("{CLUSTER_ROLES}broken")), Some(b"{\"rules\": 7}"));
    assert!(policy.roles.is_empty());
}
