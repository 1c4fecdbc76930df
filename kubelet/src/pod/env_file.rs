//! Environment variables out of a file that the pod itself wrote (KEP-3721).
//!
//! The format is a part of what a POSIX shell reads, and means there what it means here:
//! <https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-via-file/#env-file-syntax>.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Container;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// Files by volume and path: their variables, `None` for one that is not there, or why it cannot be used.
#[derive(Debug, Clone, Default)]
pub struct EnvFiles(pub BTreeMap<(String, String), Result<Option<Variables>, String>>);

/// The files that a container's environment refers to: volume and path.
#[must_use]
pub fn references(container: &Container) -> BTreeSet<(String, String)> {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    sources
        .filter_map(|source| source.file_key_ref.as_ref())
        .map(|reference| (reference.volume_name.clone(), reference.path.clone()))
        .collect()
}

/// Reads a file's text; the error tells the line.
pub fn parse(text: &str) -> Result<Variables, String> {
    let mut variables = Variables::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        let wrong = |what: &str| {
            let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
            Err(format!("line {line}: {what}"))
        };
        let (line, after_line) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.starts_with('#') {
            rest = after_line;
            continue;
        }
        let Some((name, _)) = line.split_once('=') else {
            return wrong("expected VAR='value'");
        };
        let name = name.trim_end();
        if name.is_empty() || !name.chars().all(|character| character.is_ascii_graphic() || character == ' ')
        {
            return wrong("the name of a variable must be printable ASCII");
        }
        let value = rest.split_once('=').map_or("", |(_, value)| value.trim_start_matches([' ', '\t']));
        let Some(quoted) = value.strip_prefix('\'') else {
            return wrong("the value must be enclosed in single quotes");
        };
        let Some((value, after)) = quoted.split_once('\'') else {
            return wrong("the closing single quote is missing");
        };
        let (tail, after_line) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim().is_empty() {
            return wrong("nothing may follow the closing single quote");
        }
        // As in a shell, the last one counts.
        variables.insert(name.to_owned(), value.to_owned());
        rest = after_line;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_syntax() {
        let text = "# comment\nDB_ADDRESS='address'\n\n  SPACED = 'a # b = c'  \nMULTI='line1\nline2'\nEMPTY=''\nTWICE='1'\nTWICE='2'";
        let expected = [
            ("DB_ADDRESS", "address"),
            ("SPACED", "a # b = c"),
            ("MULTI", "line1\nline2"),
            ("EMPTY", ""),
            ("TWICE", "2"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), Ok(expected.into()));
        assert_eq!(parse(""), Ok(Variables::new()));
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_refused() {
        for (text, error) in [
            ("VAR=value", "line 1: the value must be enclosed in single quotes"),
            ("\nVAR=\"value\"", "line 2: the value must be enclosed in single quotes"),
            ("VAR='val1''val2'", "line 1: nothing may follow the closing single quote"),
            ("VAR='a'$OTHER", "line 1: nothing may follow the closing single quote"),
            ("A='1\n2'\nVAR='open\n", "line 3: the closing single quote is missing"),
            ("export", "line 1: expected VAR='value'"),
            ("='x'", "line 1: the name of a variable must be printable ASCII"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }
}
