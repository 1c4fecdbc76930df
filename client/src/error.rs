//! Why a call to the API server failed.

use api_objects::Status;

/// Why a call to the API server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with a failure.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// The request did not reach the server or the answer did not come back; the outcome of a write is
    /// unknown.
    #[error("failed to reach the API server: {0}")]
    Transport(String),
    /// The answer could not be read.
    #[error("failed to decode the server's answer: {0}")]
    Decode(String),
    /// There is no usable configuration.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// The server's Status, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            Self::Transport(_) | Self::Decode(_) | Self::Config(_) => None,
        }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// Whether the object has moved on.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// Whether the name was taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// Whether the history that a watch asked for is gone.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(Status::is_expired)
    }

    /// Turns an unsuccessful answer into an error: its Status if it carries one.
    pub(crate) fn from_answer(code: http::StatusCode, body: &[u8]) -> Self {
        let mut status = serde_json::from_slice::<Status>(body)
            .ok()
            .filter(|status| !status.message.is_empty() || !status.reason.is_empty())
            .unwrap_or_else(|| {
                Status::failure(code.as_u16(), "", String::from_utf8_lossy(body).trim().to_owned())
            });
        if status.code == 0 {
            status.code = code.as_u16();
        }
        Self::Api(Box::new(status))
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Transport(chain(&error))
    }
}

/// An error with everything that caused it, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
