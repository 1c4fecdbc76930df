//! From Docker's errors to ours: the one place that reads its status codes.

use bollard::errors::Error;

use crate::RuntimeError;

/// Whether Docker says that the thing does not exist.
pub(super) fn is_not_found(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Whether Docker says that the thing is there already, or is not in the state for that.
pub(super) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What Docker said, or why it could not be asked.
pub(super) fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        other => {
            // bollard's Display leaves the cause to the chain; ours ends here, so it is told whole.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

/// A failure of the daemon, not of what was asked.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn unavailable(error: Error) -> RuntimeError {
    RuntimeError::Unavailable(message(&error))
}

/// No daemon at the socket, or not for this user.
pub(super) fn not_reached(socket: &str, error: &Error) -> RuntimeError {
    let message = message(error);
    RuntimeError::Unavailable(format!(
        "no Docker daemon answers at {socket}; is dockerd running? ({message})"
    ))
}

/// A failed lookup of a named thing.
pub(super) fn not_found(what: &str, error: Error) -> RuntimeError {
    if is_not_found(&error) { RuntimeError::NotFound(what.to_owned()) } else { unavailable(error) }
}

/// A failed create call. Docker answers 404 for an image (or a joined container) that is not there.
pub(super) fn create(image: &str, error: Error) -> RuntimeError {
    match status(&error) {
        Some(404) if message(&error).contains("No such image") => {
            RuntimeError::ImageNotPresent(image.to_owned())
        }
        Some(_) => RuntimeError::Create(message(&error)),
        None => unavailable(error),
    }
}

/// A failed start call: whatever Docker answers is about this container; no answer is about Docker.
pub(super) fn start(error: Error) -> RuntimeError {
    match status(&error) {
        Some(_) => RuntimeError::Start(message(&error)),
        None => unavailable(error),
    }
}

/// `Ok` where the failure means that the work was done already.
pub(super) fn ignore(result: Result<(), Error>, expected: fn(&Error) -> bool) -> Result<(), RuntimeError> {
    match result {
        Err(error) if !expected(&error) => Err(unavailable(error)),
        _ => Ok(()),
    }
}
