//! Defaults of rbac.authorization.k8s.io.

use super::{Fields, each, ensure, text, text_of};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles, users and groups belong to this group; service accounts to the core group.
pub(super) fn binding(object: &mut Fields) {
    ensure(object, "roleRef", |role| text(role, "apiGroup", GROUP));
    each(object, "subjects", |subject| {
        if matches!(text_of(subject, "kind"), "User" | "Group") {
            text(subject, "apiGroup", GROUP);
        }
    });
}
