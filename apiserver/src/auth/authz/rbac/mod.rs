//! Role-based access control: which rules a user has, by upstream's evaluation.
//!
//! Pure. [`Policy`] holds the roles and bindings as they stand in the store; [`Index`] is made from it and
//! answers requests. Aggregated ClusterRoles are evaluated from their selectors directly, so that a new part
//! counts at once, whether or not the stored copy of the rules has caught up.
//!
//! Rules of matching: `k8s.io/kubernetes/pkg/apis/rbac/v1` (evaluation helpers) and
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use api_objects::{Value, selector::LabelSelector};
use apiserver_storage::Revision;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Action, Decision};
use crate::auth::UserInfo;

const CLUSTER_ROLES: &str = "/registry/rbac.authorization.k8s.io/clusterroles/";
const ROLES: &str = "/registry/rbac.authorization.k8s.io/roles/";
const CLUSTER_ROLE_BINDINGS: &str = "/registry/rbac.authorization.k8s.io/clusterrolebindings/";
const ROLE_BINDINGS: &str = "/registry/rbac.authorization.k8s.io/rolebindings/";
/// What all keys of this group begin with.
pub(crate) const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// A list that upstream also writes as `null`.
fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    /// `get`, `*` …
    #[serde(deserialize_with = "null_as_empty")]
    pub verbs: Vec<String>,
    /// API groups; `""` is the core group.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Empty for all.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// `/healthz`, `/apis/*`, `*`.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_as_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Whether the rule allows the action.
    pub(crate) fn allows(&self, action: Action<'_>) -> bool {
        match action {
            Action::Resource { verb, group, resource, subresource, name, .. } => {
                matches_any(&self.verbs, verb)
                    && matches_any(&self.api_groups, group)
                    && self.resources.iter().any(|rule| matches_resource(rule, resource, subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|rule| rule == name))
            }
            Action::Path { verb, path } => {
                matches_any(&self.verbs, verb)
                    && self.non_resource_urls.iter().any(|rule| matches_path(rule, path))
            }
        }
    }
}

fn matches_any(rules: &[String], asked: &str) -> bool {
    rules.iter().any(|rule| rule == "*" || rule == asked)
}

/// `*` matches everything, subresources too; `pods` only the pods themselves; `*/scale` that subresource of
/// every resource. There is no `pods/*`.
fn matches_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((rule_resource, rule_subresource)) => {
            !subresource.is_empty()
                && rule_subresource == subresource
                && (rule_resource == "*" || rule_resource == resource)
        }
    }
}

fn matches_path(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RoleMeta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Role {
    metadata: RoleMeta,
    #[serde(deserialize_with = "null_as_empty")]
    rules: Vec<Rule>,
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AggregationRule {
    #[serde(deserialize_with = "null_as_empty")]
    cluster_role_selectors: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    metadata: RoleMeta,
    #[serde(deserialize_with = "null_as_empty")]
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Subject {
    /// The index key of the users that this subject means; `None` for a kind that does not exist.
    fn key(&self, binding_namespace: &str) -> Option<String> {
        match self.kind.as_str() {
            "User" => Some(user_key(&self.name)),
            "Group" => Some(group_key(&self.name)),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                (!namespace.is_empty())
                    .then(|| user_key(&format!("system:serviceaccount:{namespace}:{}", self.name)))
            }
            _ => None,
        }
    }

    /// As upstream prints it in the reason of a decision.
    fn describe(&self) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => format!("ServiceAccount {:?}", format!("{}/{}", self.name, self.namespace)),
            kind => format!("{kind} {:?}", self.name),
        }
    }
}

fn user_key(name: &str) -> String {
    format!("u/{name}")
}

fn group_key(name: &str) -> String {
    format!("g/{name}")
}

/// The roles and bindings as they stand in the store, by key.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    roles: BTreeMap<Arc<str>, Role>,
    bindings: BTreeMap<Arc<str>, Binding>,
}

/// An aggregated ClusterRole whose stored rules are not what its selectors say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StaleAggregate {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
}

impl Policy {
    /// Takes in one object, or its deletion. An object that cannot be read grants nothing.
    pub(crate) fn apply(&mut self, key: &Arc<str>, value: Option<&[u8]>) {
        if key.starts_with(CLUSTER_ROLES) || key.starts_with(ROLES) {
            apply(&mut self.roles, key, value);
        } else if key.starts_with(CLUSTER_ROLE_BINDINGS) || key.starts_with(ROLE_BINDINGS) {
            apply(&mut self.bindings, key, value);
        }
    }

    /// The rules of a ClusterRole, collected by its selectors if it is an aggregate: those of every other
    /// ClusterRole that one of them matches, by name, each rule once.
    fn cluster_rules(&self, key: &str, role: &Role) -> Vec<Rule> {
        let Some(aggregation) = &role.aggregation_rule else { return role.rules.clone() };
        let mut rules: Vec<Rule> = Vec::new();
        for selector in &aggregation.cluster_role_selectors {
            let Ok(selector) = LabelSelector::from_object(Some(selector)) else { continue };
            for (other_key, other) in
                self.roles.range::<str, _>((Bound::Included(CLUSTER_ROLES), Bound::Unbounded))
            {
                if !other_key.starts_with(CLUSTER_ROLES) {
                    break;
                }
                if &**other_key == key || !selector.matches(&other.metadata.labels) {
                    continue;
                }
                for rule in &other.rules {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        rules
    }

    /// The aggregated ClusterRoles whose stored rules differ from what their selectors say.
    pub(crate) fn stale_aggregates(&self) -> Vec<StaleAggregate> {
        self.roles
            .iter()
            .filter(|(key, role)| key.starts_with(CLUSTER_ROLES) && role.aggregation_rule.is_some())
            .filter_map(|(key, role)| {
                let rules = self.cluster_rules(key, role);
                (rules != role.rules).then(|| StaleAggregate { name: role.metadata.name.clone(), rules })
            })
            .collect()
    }

    /// What answers requests, as of a revision.
    pub(crate) fn index(&self, revision: Revision) -> Index {
        let rules: HashMap<&str, Arc<[Rule]>> =
            self.roles.iter().map(|(key, role)| (&**key, self.cluster_rules(key, role).into())).collect();
        let mut grants: HashMap<String, Vec<Arc<Grant>>> = HashMap::new();
        for (key, binding) in &self.bindings {
            let namespace = binding.metadata.namespace.as_str();
            let role_key = match binding.role_ref.kind.as_str() {
                "ClusterRole" => format!("{CLUSTER_ROLES}{}", binding.role_ref.name),
                "Role" if !namespace.is_empty() => format!("{ROLES}{namespace}/{}", binding.role_ref.name),
                _ => continue,
            };
            let everywhere = key.starts_with(CLUSTER_ROLE_BINDINGS);
            for subject in &binding.subjects {
                let Some(subject_key) = subject.key(namespace) else { continue };
                grants.entry(subject_key).or_default().push(Arc::new(Grant {
                    namespace: (!everywhere).then(|| namespace.into()),
                    binding: binding.metadata.name.clone(),
                    role: binding.role_ref.clone(),
                    subject: subject.describe(),
                    rules: rules.get(role_key.as_str()).cloned(),
                }));
            }
        }
        Index { revision, grants }
    }
}

fn apply<T: for<'de> Deserialize<'de>>(
    map: &mut BTreeMap<Arc<str>, T>,
    key: &Arc<str>,
    value: Option<&[u8]>,
) {
    match value.map(serde_json::from_slice::<T>) {
        Some(Ok(object)) => {
            map.insert(Arc::clone(key), object);
        }
        Some(Err(error)) => {
            tracing::warn!(%key, %error, "a role or binding cannot be read and grants nothing");
            map.remove(key);
        }
        None => {
            map.remove(key);
        }
    }
}

/// One binding for one of its subjects.
#[derive(Debug)]
struct Grant {
    /// `None` for everywhere.
    namespace: Option<Box<str>>,
    binding: String,
    role: RoleRef,
    subject: String,
    /// `None` if the role does not exist.
    rules: Option<Arc<[Rule]>>,
}

impl Grant {
    /// Whether the grant holds in a namespace (empty: at the cluster scope).
    fn holds_in(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|granted| !namespace.is_empty() && granted == namespace)
    }

    fn reason(&self) -> String {
        let Self { namespace, binding, role, subject, .. } = self;
        match namespace {
            None => format!(
                "RBAC: allowed by ClusterRoleBinding {binding:?} of {} {:?} to {subject}",
                role.kind, role.name
            ),
            Some(namespace) => format!(
                "RBAC: allowed by RoleBinding {:?} of {} {:?} to {subject}",
                format!("{binding}/{namespace}"),
                role.kind,
                role.name
            ),
        }
    }
}

/// Answers who may do what. Immutable; a change of roles makes a new one.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The store's revision of the roles and bindings.
    pub(crate) revision: Revision,
    /// By user or group.
    grants: HashMap<String, Vec<Arc<Grant>>>,
}

impl Index {
    /// Whether a role allows the action.
    pub(crate) fn authorize(&self, user: &UserInfo, action: Action<'_>) -> Decision {
        let namespace = match action {
            Action::Resource { namespace, .. } => namespace,
            Action::Path { .. } => "",
        };
        let mut missing: Vec<&Grant> = Vec::new();
        for grant in self.grants_of(user).filter(|grant| grant.holds_in(namespace)) {
            match &grant.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(action)) => {
                    return Decision::Allowed(grant.reason());
                }
                Some(_) => {}
                None => missing.push(grant),
            }
        }
        Decision::NoOpinion(missing_roles(&missing))
    }

    /// All rules that a user has in a namespace, for SelfSubjectRulesReview.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.grants_of(user)
            .filter(|grant| grant.holds_in(namespace))
            .filter_map(|grant| grant.rules.as_deref())
            .flatten()
            .cloned()
            .collect()
    }

    fn grants_of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let keys = user.groups.iter().map(|group| group_key(group)).chain([user_key(&user.name)]);
        keys.filter_map(|key| self.grants.get(&key)).flatten().map(AsRef::as_ref)
    }
}

/// What upstream says about bindings of roles that do not exist.
fn missing_roles(missing: &[&Grant]) -> String {
    let mut messages: Vec<String> = missing
        .iter()
        .map(|grant| {
            let RoleRef { kind, name } = &grant.role;
            format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_lowercase())
        })
        .collect();
    messages.dedup();
    match messages.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests;
