//! What goes wrong, in kubectl's words.

use api_objects::Status;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused.
    #[error("{}", server_text(status))]
    Server {
        /// Its answer.
        status: Box<Status>,
    },
    /// The server was not reached.
    #[error("{0}")]
    Unreachable(String),
    /// Anything else that a person can do something about.
    #[error("error: {0}")]
    Message(String),
    /// The same, in words that do not begin with `error`.
    #[error("{0}")]
    Usage(String),
    /// A command in a container failed with this code; it has said why itself.
    #[error("command terminated with exit code {0}")]
    Exit(u8),
    /// A pod ended with this code.
    #[error("{message}")]
    Ended {
        /// Which, and how.
        message: String,
        /// Its container's code.
        code: u8,
    },
    /// The reader of the output has gone; nothing is left to say.
    #[error("the output was closed")]
    Closed,
    /// Several things at once.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

/// The text of a Status, as `k8s.io/kubectl/pkg/cmd/util` words it.
fn server_text(status: &Status) -> String {
    if status.reason == "Invalid" {
        let details = status.details.clone().unwrap_or_default();
        let mut causes: Vec<String> = Vec::new();
        for cause in &details.causes {
            let text = if cause.field.is_empty() || cause.field == "<nil>" {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !causes.contains(&text) {
                causes.push(text);
            }
        }
        let head = if details.kind.is_empty() && details.name.is_empty() {
            "The request is invalid".to_owned()
        } else {
            format!("The {} {:?} is invalid", details.kind, details.name)
        };
        return match causes.as_slice() {
            [] if details.kind.is_empty() => format!("{head}: {}", status.message),
            [] => head,
            [only] => format!("{head}: {only}"),
            several => format!("{head}: \n* {}", several.join("\n* ")),
        };
    }
    match (status.code, status.reason.as_str()) {
        (401, _) => format!(
            "error: You must be logged in to the server ({}); check the kubeconfig's user with 'kubectl config view'",
            status.message
        ),
        (_, "") => format!("Error from server: {}", status.message),
        (_, reason) => format!("Error from server ({reason}): {}", status.message),
    }
}

impl Error {
    /// Something that a person did or forgot.
    pub(crate) fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    /// The failures of several objects: none is success.
    pub(crate) fn several(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Says what was being done to which file or object: `error when creating "a.yaml": …`.
    pub(crate) fn doing(self, verb: &str, source: &str) -> Self {
        match self {
            Self::Server { mut status } => {
                status.message = format!("error when {verb} {source:?}: {}", status.message);
                Self::Server { status }
            }
            Self::Message(text) => Self::Message(format!("error when {verb} {source:?}: {text}")),
            other => other,
        }
    }

    /// The server's answer, if it gave one.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Server { status } => Some(status),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// What to print, one text per failure.
    pub(crate) fn texts(&self) -> Vec<String> {
        match self {
            Self::Closed => Vec::new(),
            Self::Several(errors) => errors.iter().flat_map(Self::texts).collect(),
            other => vec![other.to_string()],
        }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Exit(code) | Self::Ended { code, .. } => *code,
            Self::Closed => 0,
            _ => 1,
        }
    }
}

/// What the system said of a file, without the number that Rust puts behind it.
pub(crate) fn file_problem(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Server { status: Box::new(status) }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Message(error.to_string())
        }
    }
}

impl From<api_objects::yaml::YamlError> for Error {
    fn from(error: api_objects::yaml::YamlError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<api_objects::jsonpath::JsonPathError> for Error {
    fn from(error: api_objects::jsonpath::JsonPathError) -> Self {
        Self::Message(format!("error executing jsonpath: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use api_objects::field::{FieldError, Path};

    use super::*;

    #[test]
    fn texts_are_kubectls() {
        let not_found = Error::from(Status::not_found("", "pods", "x"));
        assert_eq!(not_found.to_string(), r#"Error from server (NotFound): pods "x" not found"#);
        let exists = Error::from(Status::already_exists("", "pods", "x")).doing("creating", "a.yaml");
        assert_eq!(
            exists.to_string(),
            r#"Error from server (AlreadyExists): error when creating "a.yaml": pods "x" already exists"#
        );
        let path = Path::new("spec").child("containers");
        let one = Status::invalid("", "Pod", "x", &[FieldError::required(&path, "")]);
        assert_eq!(
            Error::from(one).to_string(),
            r#"The Pod "x" is invalid: spec.containers: Required value"#
        );
        let two = [FieldError::required(&path, ""), FieldError::required(&path.index(0), "")];
        assert_eq!(
            Error::from(Status::invalid("", "Pod", "x", &two)).to_string(),
            "The Pod \"x\" is invalid: \n* spec.containers: Required value\n* spec.containers[0]: Required value"
        );
        assert_eq!(Error::Exit(42).code(), 42);
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(file_problem(&missing), "no such file or directory");
    }
}
