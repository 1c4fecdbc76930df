//! Who a request is from, and whether it may do what it asks.

pub mod authn;
pub mod authz;
pub mod reviews;
pub mod tokens;

use std::collections::BTreeMap;

/// Somebody who has been authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// `system:serviceaccount:default:default`, `system:node:n1`, a certificate's common name.
    pub name: String,
    /// Unique over time; may be empty.
    pub uid: String,
    /// Groups, with `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// Further facts (`authentication.kubernetes.io/pod-name` …).
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups; `system:authenticated` is added.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        if !groups.iter().any(|group| group == "system:authenticated") {
            groups.push("system:authenticated".to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }
}
