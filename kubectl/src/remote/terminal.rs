//! The person's terminal: raw while a container has it, and its size as it changes.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// A terminal in raw mode; put back when dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// Enters raw mode; nothing when standard input is no terminal.
    pub(super) fn enter() -> Result<Option<Self>, Error> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            crate::output::complain(
                "Unable to use a TTY - input is not a terminal or the right kind of file",
            );
            return Ok(None);
        }
        let before = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(io::Error::from)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that has gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The sizes of the terminal: the present one first, then each new one.
pub(super) struct Sizes {
    changes: Option<Signal>,
    first: bool,
}

impl Sizes {
    pub(super) fn new(wanted: bool) -> Self {
        let changes = wanted.then(|| signal(SignalKind::window_change()).ok()).flatten();
        Self { changes, first: true }
    }

    /// The next size, as columns and rows; never when there is no terminal.
    pub(super) async fn next(&mut self) -> (u16, u16) {
        loop {
            let Some(changes) = &mut self.changes else {
                return std::future::pending().await;
            };
            if !std::mem::replace(&mut self.first, false) {
                changes.recv().await;
            }
            match tcgetwinsize(io::stdin()) {
                Ok(size) if size.ws_col > 0 && size.ws_row > 0 => return (size.ws_col, size.ws_row),
                _ => self.changes = None,
            }
        }
    }
}
