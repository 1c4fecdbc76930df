//! Command lines that make no sense, in the words that people and scripts know from upstream's kubectl (cobra and
//! pflag), and flags and commands that this kubectl does not have, by name.

use clap::{
    CommandFactory,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Cli;

/// Commands of upstream's kubectl that are not here.
const ABSENT_COMMANDS: [&str; 19] = [
    "alpha",
    "auth",
    "autoscale",
    "certificate",
    "cp",
    "debug",
    "diff",
    "events",
    "expose",
    "kuberc",
    "kustomize",
    "options",
    "plugin",
    "port-forward",
    "proxy",
    "replace",
    "rollout",
    "set",
    "taint",
];

/// Flags of upstream's kubectl that are not here, and what serves instead.
const ABSENT_FLAGS: [(&str, &str); 6] = [
    ("-k", "kustomizations are not supported: build them with kustomize and apply what it prints, with -f -"),
    (
        "--kustomize",
        "kustomizations are not supported: build them with kustomize and apply what it prints, with -f -",
    ),
    ("--template", "go templates are not supported: use -o jsonpath=… or -o custom-columns=…"),
    ("--prune", "pruning is not supported: delete what is gone by name or selector"),
    ("--applyset", "apply sets are not supported: delete what is gone by name or selector"),
    ("--as-uid", "impersonation by uid is not supported: use --as and --as-group"),
];

/// What to say of a line that could not be read; `None` where clap's own words are as good.
pub(crate) fn refusal(error: &clap::Error, line: &[String]) -> Option<String> {
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = command_of(line);
    let usage = format!("See '{command} --help' for usage.");
    let help = format!("See '{command} -h' for help and examples");
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let argument = text(ContextKind::InvalidArg)?;
            let flag = argument.split('=').next().unwrap_or(argument);
            if let Some((flag, instead)) = ABSENT_FLAGS.iter().find(|(absent, _)| *absent == flag) {
                return Some(format!("error: {flag}: {instead}"));
            }
            if flag.starts_with("--") {
                return Some(format!("error: unknown flag: {flag}\n{usage}"));
            }
            let letter = flag.strip_prefix('-').and_then(|rest| rest.chars().next())?;
            let whole = line.iter().find(|word| is_short_with(word, letter)).map_or(flag, String::as_str);
            Some(format!("error: unknown shorthand flag: '{letter}' in {whole}\n{usage}"))
        }
        ErrorKind::MissingRequiredArgument => {
            let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
                return None;
            };
            let flags: Vec<String> = missing
                .iter()
                .filter_map(|argument| argument.strip_prefix("--")?.split([' ', '=']).next())
                .map(|name| format!("{name:?}"))
                .collect();
            if !flags.is_empty() {
                return Some(format!("error: required flag(s) {} not set", flags.join(", ")));
            }
            match missing.first()?.trim_end_matches("...") {
                "<NAME>" => Some(format!("error: exactly one NAME is required, got 0\n{help}")),
                "<COMMAND>" => {
                    Some("error: you must specify at least one command for the container".to_owned())
                }
                _ => None,
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
            let flag = argument.split([' ', '=', '[']).next().unwrap_or(argument);
            Some(match flag {
                "--dry-run" => {
                    format!("error: Invalid dry-run value ({value}). Must be \"none\", \"server\", or \"client\".")
                }
                "--type" => format!("error: --type must be one of [json merge strategic], not {value:?}"),
                "--restart" => format!("error: invalid restart policy: {value}\n{help}"),
                "--replicas" if value.parse::<i64>().is_ok() => {
                    "error: The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"
                        .to_owned()
                }
                flag if flag.starts_with('-') => {
                    let allowed = match error.get(ContextKind::ValidValue) {
                        Some(ContextValue::Strings(values)) if !values.is_empty() => {
                            format!(": must be one of {}", values.join(", "))
                        }
                        _ => String::new(),
                    };
                    format!("error: invalid argument {value:?} for {flag:?} flag{allowed}\n{usage}")
                }
                _ => return None,
            })
        }
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let mut said = format!("error: unknown command {word:?} for {command:?}");
            if command == "kubectl" && ABSENT_COMMANDS.contains(&word) {
                said.push_str(
                    "\nThis kubectl does not have it yet; upstream's kubectl works with the same cluster.",
                );
            } else if let Some(ContextValue::Strings(similar)) = error.get(ContextKind::SuggestedSubcommand)
                && !similar.is_empty()
            {
                said.push_str(&format!("\n\nDid you mean this?\n\t{}\n", similar.join("\n\t")));
            }
            Some(said)
        }
        _ => None,
    }
}

/// `-x`, or several letters behind one dash.
fn is_short_with(word: &str, letter: char) -> bool {
    word.strip_prefix('-').is_some_and(|rest| !rest.starts_with('-') && rest.contains(letter))
}

/// The command that a line names: `kubectl create secret`.
fn command_of(line: &[String]) -> String {
    let root = Cli::command();
    let mut at = &root;
    let mut named = "kubectl".to_owned();
    for word in line.iter().skip(1).take_while(|word| *word != "--") {
        if let Some(below) = at.find_subcommand(word) {
            at = below;
            named.push(' ');
            named.push_str(below.get_name());
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn said(line: &str) -> String {
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = Cli::try_parse_from(&line).expect_err("the line must be refused");
        refusal(&error, &line).unwrap_or_else(|| panic!("nothing is said of {line:?}: {error}"))
    }

    #[test]
    fn words_are_upstreams() {
        for (line, expected) in [
            (
                "kubectl get cm one --bogus",
                "error: unknown flag: --bogus\nSee 'kubectl get --help' for usage.",
            ),
            (
                "kubectl get cm -n a -x",
                "error: unknown shorthand flag: 'x' in -x\nSee 'kubectl get --help' for usage.",
            ),
            (
                "kubectl create configmap",
                "error: exactly one NAME is required, got 0\nSee 'kubectl create configmap -h' for help and examples",
            ),
            ("kubectl create deployment d", "error: required flag(s) \"image\" not set"),
            ("kubectl scale rs a", "error: required flag(s) \"replicas\" not set"),
            (
                "kubectl scale rs a --replicas=-1",
                "error: The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
            ),
            (
                "kubectl apply -f a --dry-run=bogus",
                "error: Invalid dry-run value (bogus). Must be \"none\", \"server\", or \"client\".",
            ),
            (
                "kubectl patch cm a --type=bogus -p {}",
                "error: --type must be one of [json merge strategic], not \"bogus\"",
            ),
            ("kubectl exec web", "error: you must specify at least one command for the container"),
            ("kubectl nosuchcommand", "error: unknown command \"nosuchcommand\" for \"kubectl\""),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        assert!(said("kubectl apply -k dir").starts_with("error: -k: kustomizations are not supported"));
        assert!(said("kubectl get pods --template=x").starts_with("error: --template: go templates"));
        assert!(said("kubectl apply -f a --prune").starts_with("error: --prune: "));
        assert!(said("kubectl rollout status").contains("does not have it yet"));
        assert!(said("kubectl describ pods").contains("Did you mean this?\n\tdescribe\n"));
    }
}
