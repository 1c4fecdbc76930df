//! Bootstrap tokens: Secrets in `kube-system` with which a machine that has no identity yet asks for one.
//!
//! As upstream's `plugin/pkg/auth/authenticator/token/bootstrap`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>). A token that does not fit is
//! nobody's token, whatever the reason; the log says which.

use api_objects::{Status, Value, resource};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use subtle::ConstantTimeEq;

use crate::{auth::UserInfo, registry, state::Server};

const NAMESPACE: &str = "kube-system";
const SECRET_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
/// Everybody with a bootstrap token is in it; extra groups lie below it.
const GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Splits `abcdef.0123456789abcdef` into id and secret, if it is of that form.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH)).then_some((id, secret))
}

/// Whose token this is; `None` if it is no bootstrap token, or not a good one.
///
/// # Errors
/// If the store cannot be read.
pub(super) async fn authenticate(server: &Server, token: &str) -> Result<Option<UserInfo>, Status> {
    let Some((id, secret)) = split(token) else { return Ok(None) };
    let secrets = resource::find("", "v1", "secrets").expect("secrets must be built in");
    let name = format!("{SECRET_PREFIX}{id}");
    let Some(found) = registry::lookup(server, secrets, NAMESPACE, &name).await? else { return Ok(None) };
    match check(&found, id, secret, Timestamp::now()) {
        Ok(groups) => {
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            Ok(Some(UserInfo::new(&format!("{USER_PREFIX}{id}"), &groups)))
        }
        Err(why) => {
            tracing::info!(secret = name, "a bootstrap token was refused: {why}");
            Ok(None)
        }
    }
}

/// The groups that a Secret gives to who shows its token. Pure.
fn check(found: &Value, id: &str, secret: &str, now: Timestamp) -> Result<Vec<String>, String> {
    let data = |key: &str| {
        let encoded = found["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    if !found["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted".to_owned());
    }
    if found["type"] != SECRET_TYPE {
        return Err(format!("its Secret is not of type {SECRET_TYPE}"));
    }
    if !bool::from(data("token-secret").as_bytes().ct_eq(secret.as_bytes())) {
        return Err("its secret part is wrong".to_owned());
    }
    if data("token-id") != id {
        return Err("token-id does not fit the Secret's name".to_owned());
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        match expiration.parse::<Timestamp>() {
            Ok(end) if now < end => {}
            Ok(end) => return Err(format!("it expired at {end}")),
            Err(_) => return Err(format!("its expiration {expiration:?} is no time")),
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("usage-bootstrap-authentication is not true".to_owned());
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|group| !group.is_empty()) {
        if !is_group(group) {
            return Err(format!("{group:?} in auth-extra-groups is not a group below {GROUP}:"));
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    Ok(groups)
}

/// Upstream's `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|byte| letter(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(letter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(changes: &[(&str, &str)]) -> Value {
        let mut data = json!({});
        let standard = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in standard.iter().chain(changes) {
            data[*key] = json!(STANDARD.encode(value));
        }
        json!({"metadata": {}, "type": SECRET_TYPE, "data": data})
    }

    #[test]
    fn a_token_is_good_as_its_secret_says() {
        let now = Timestamp::UNIX_EPOCH;
        let check = |changes: &[(&str, &str)]| check(&secret(changes), "abcdef", "0123456789abcdef", now);
        assert_eq!(check(&[]).unwrap(), [GROUP]);
        let extra = [("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b-1:c")];
        assert_eq!(check(&extra).unwrap().len(), 3);
        assert_eq!(check(&[("expiration", "1970-01-01T00:00:01Z")]).unwrap(), [GROUP]);
        for wrong in [
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdee"),
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "1969-12-31T23:59:59Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
        ] {
            assert!(check(&[wrong]).is_err(), "{wrong:?}");
        }
        let mut other = secret(&[]);
        other["type"] = json!("Opaque");
        assert!(super::check(&other, "abcdef", "0123456789abcdef", now).is_err());
    }

    #[test]
    fn only_one_form_is_a_bootstrap_token() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "a.b.c"] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
