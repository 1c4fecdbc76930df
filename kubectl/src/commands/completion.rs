//! `kubectl completion`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionArgs};
use crate::error::Error;
use crate::output;

/// Carries out the command.
pub(crate) fn run(args: &CompletionArgs) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kubectl", &mut script);
    output::bytes(&script)
}
