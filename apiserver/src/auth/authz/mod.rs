//! Whether somebody may do what they ask.
//!
//! Everything is refused that nothing allows. `system:masters` is always allowed, so that no broken role
//! locks everybody out (`k8s.io/apiserver/pkg/authorization/authorizerfactory`).

pub(crate) mod follow;
mod node;
pub(crate) mod rbac;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;

use super::UserInfo;
use crate::{request_info::RequestInfo, state::Storage};

/// The group that is always allowed.
pub const MASTERS: &str = "system:masters";

/// What somebody asks to do: a verb on a resource or on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// On objects.
    Resource {
        /// `get list watch create update patch delete deletecollection …`
        verb: &'a str,
        /// Empty for the core group.
        group: &'a str,
        /// `v1`.
        version: &'a str,
        /// Plural.
        resource: &'a str,
        /// `status`, `log` …
        subresource: &'a str,
        /// Empty for cluster scope and for all namespaces.
        namespace: &'a str,
        /// Empty for all.
        name: &'a str,
        /// The field selector that narrows a collection.
        field_selector: &'a str,
    },
    /// On a path.
    Path {
        /// `get`, `post` …
        verb: &'a str,
        /// `/healthz`.
        path: &'a str,
    },
}

impl<'a> From<&'a RequestInfo> for Action<'a> {
    fn from(info: &'a RequestInfo) -> Self {
        if info.is_resource_request {
            Self::Resource {
                verb: &info.verb,
                group: &info.api_group,
                version: &info.api_version,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: &info.name,
                field_selector: &info.field_selector,
            }
        } else {
            Self::Path { verb: &info.verb, path: &info.path }
        }
    }
}

/// The answer to an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Somebody allows it; the text says who.
    Allowed(String),
    /// Nobody allows it; the text, often empty, says more.
    NoOpinion(String),
}

/// Tells whether somebody may do what they ask.
#[derive(Debug, Default)]
pub struct Authorizer {
    /// Exchanged whole when roles change; empty, and so refusing everybody, until they have been read.
    index: ArcSwap<rbac::Index>,
    synced: AtomicBool,
}

impl Authorizer {
    /// Whether `user` may do `action`. `storage` is what a node's own pods are looked up in.
    pub async fn authorize(&self, storage: &Storage, user: &UserInfo, action: Action<'_>) -> Decision {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allowed(String::new());
        }
        let decision = self.index.load().authorize(user, action);
        match (&decision, node::node_name(user)) {
            (Decision::NoOpinion(_), Some(node)) => node::authorize(storage, node, action).await,
            _ => decision,
        }
    }

    /// All rules that a user has in a namespace.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<rbac::Rule> {
        self.index.load().rules_of(user, namespace)
    }

    /// Whether roles and bindings have been read.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Takes an index into force, unless a newer one is: two readers of the roles may overtake one another.
    pub(crate) fn replace(&self, index: rbac::Index) {
        let index = Arc::new(index);
        self.index
            .rcu(|current| Arc::clone(if current.revision > index.revision { current } else { &index }));
        self.synced.store(true, Ordering::Release);
    }
}

/// The text of a refusal, after `is forbidden: `
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`).
#[must_use]
pub fn refusal(user: &UserInfo, action: Action<'_>, reason: &str) -> String {
    let name = &user.name;
    let mut text = match action {
        Action::Path { verb, path } => format!("User {name:?} cannot {verb} path {path:?}"),
        Action::Resource { verb, group, resource, subresource, namespace, .. } => {
            let resource = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
        }
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}
