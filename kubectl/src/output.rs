//! Where text goes: standard output for results, standard error for everything about them.
//!
//! A closed pipe (`kubectl get … | head -1`) ends the command without a word.

use std::io::{self, Write};

use crate::error::Error;

/// Prints a result and a line break.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a result as it is.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    bytes(text.as_bytes())
}

/// Prints raw bytes, at once.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Says something about a result, without being part of it. A closed standard error cannot be told of.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
