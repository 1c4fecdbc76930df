//! Bearer tokens out of a file: `token,user,uid,"group1,group2"` per line, as upstream's `--token-auth-file`
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file>).

use std::{collections::HashMap, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{auth::UserInfo, config::ConfigError};

/// The tokens of a file, read once at start. Held as digests, so that a lookup takes no longer for a token
/// that is nearly right.
#[derive(Debug, Default)]
pub struct StaticTokens {
    users: HashMap<[u8; 32], Arc<UserInfo>>,
}

impl StaticTokens {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or a line has fewer than three columns, an empty token, or a token twice.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|message| ConfigError::Parse { path: path.to_owned(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = split_columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(format!("line {}: needs at least token, user name and uid", number + 1));
            };
            if token.is_empty() || name.is_empty() {
                return Err(format!("line {}: token and user name must not be empty", number + 1));
            }
            let groups: Vec<&str> = rest
                .first()
                .map(|groups| groups.split(',').map(str::trim).filter(|group| !group.is_empty()).collect())
                .unwrap_or_default();
            let user = UserInfo { uid: uid.clone(), ..UserInfo::new(name, &groups) };
            if users.insert(digest(token), Arc::new(user)).is_some() {
                return Err(format!("line {}: the token stands in the file twice", number + 1));
            }
        }
        Ok(Self { users })
    }

    /// The user of a token.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<Arc<UserInfo>> {
        if self.users.is_empty() {
            return None;
        }
        self.users.get(&digest(token)).cloned()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Splits a line at commas outside of double quotes; a doubled quote inside quotes stands for one.
fn split_columns(line: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let column = columns.last_mut().expect("there must be a column");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                column.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            ' ' if !quoted && column.is_empty() => {}
            other => column.push(other),
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let tokens = StaticTokens::parse("t1,ann,1\n# comment\nt2, bob ,2,\"dev, ops\"\n").unwrap();
        assert_eq!(tokens.find("t1").unwrap().groups, ["system:authenticated"]);
        assert_eq!(tokens.find("t2").unwrap().groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.find("t3"), None);
    }

    #[test]
    fn broken_files_are_refused_with_the_line() {
        for (text, expected) in [
            ("a,b", "line 1: needs at least token, user name and uid"),
            ("t,u,1\n,u,2", "line 2: token and user name must not be empty"),
            ("t,u,1\nt,v,2", "line 2: the token stands in the file twice"),
        ] {
            assert_eq!(StaticTokens::parse(text).unwrap_err(), expected);
        }
    }
}
