//! Whether what a token is bound to still lives, and who its bearer then is.

use std::time::Duration;

use api_objects::object::ObjectMeta;
use apiserver_storage::At;
use jiff::Timestamp;

use super::{Claims, KubernetesClaims, Reference, TokenError, username};
use crate::{auth::UserInfo, state::Storage};

/// What is being deleted keeps its tokens this long, so that it can end in order.
const DELETION_LEEWAY: Duration = Duration::from_secs(60);

/// Who bears a verified token.
///
/// # Errors
///
/// If its account, pod, secret or node is gone or was made anew.
pub(crate) async fn user_of(storage: &Storage, claims: &Claims) -> Result<UserInfo, TokenError> {
    let KubernetesClaims { namespace, serviceaccount, pod, secret, node } = &claims.kubernetes;
    let account_key = format!("/registry/core/serviceaccounts/{namespace}/{}", serviceaccount.name);
    alive(storage, "service account", &account_key, serviceaccount).await?;
    if let Some(secret) = secret {
        alive(storage, "secret", &format!("/registry/core/secrets/{namespace}/{}", secret.name), secret)
            .await?;
    }
    if let Some(pod) = pod {
        alive(storage, "pod", &format!("/registry/core/pods/{namespace}/{}", pod.name), pod).await?;
    }
    // A pod's node is told for information; a token is bound to a node only if it has no pod.
    if let (Some(node), None) = (node, pod) {
        alive(storage, "node", &format!("/registry/core/nodes/{}", node.name), node).await?;
    }

    let name = username(namespace, &serviceaccount.name);
    let group = format!("system:serviceaccounts:{namespace}");
    let mut user = UserInfo::new(&name, &["system:serviceaccounts", &group]);
    user.uid.clone_from(&serviceaccount.uid);
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, reference) in [("pod", pod), ("node", node)] {
        if let Some(reference) = reference {
            extra(&format!("{kind}-name"), &reference.name);
            extra(&format!("{kind}-uid"), &reference.uid);
        }
    }
    Ok(user)
}

/// That the object under `key` is the one that the reference means, and not long in deletion. The cache
/// answers; where it knows nothing, or something older, the store is asked.
async fn alive(storage: &Storage, kind: &str, key: &str, reference: &Reference) -> Result<(), TokenError> {
    let mut outcome = Err(TokenError::Gone(format!("{kind} {:?} has been deleted", reference.name)));
    for at in [At::Any, At::Latest] {
        match storage.get(key, at).await {
            Ok(Some(item)) => {
                outcome =
                    judge(kind, reference, &ObjectMeta::from_bytes(&item.entry.value), Timestamp::now());
                if outcome.is_ok() {
                    return Ok(());
                }
            }
            Ok(None) => {}
            Err(error) => return Err(TokenError::Invalid(format!("{kind} cannot be looked up: {error}"))),
        }
    }
    outcome
}

fn judge(kind: &str, reference: &Reference, found: &ObjectMeta, now: Timestamp) -> Result<(), TokenError> {
    let Reference { name, uid } = reference;
    if &found.uid != uid {
        return Err(TokenError::Gone(format!(
            "{kind} UID ({}) does not match claim ({uid}): {name:?} was deleted and made anew",
            found.uid
        )));
    }
    let deleted = found.deletion_timestamp.as_deref().and_then(api_objects::time::parse);
    if deleted.is_some_and(|deleted| deleted + DELETION_LEEWAY < now) {
        return Err(TokenError::Gone(format!("{kind} {name:?} has been deleted")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_uid_or_a_long_deletion_ends_a_token() {
        let reference = Reference { name: "p".into(), uid: "1".into() };
        let now: Timestamp = "2026-11-21T10:01:30Z".parse().unwrap();
        let mut found = ObjectMeta { uid: "1".into(), ..ObjectMeta::default() };
        assert!(judge("pod", &reference, &found, now).is_ok());
        found.deletion_timestamp = Some("2026-11-21T10:01:00Z".into());
        assert!(judge("pod", &reference, &found, now).is_ok());
        found.deletion_timestamp = Some("2026-11-21T10:00:00Z".into());
        assert!(judge("pod", &reference, &found, now).is_err());
        let other = ObjectMeta { uid: "2".into(), ..ObjectMeta::default() };
        assert!(judge("pod", &reference, &other, now).is_err());
    }
}
