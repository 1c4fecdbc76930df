//! kubectl: what a person runs.
//!
//! `cli` reads the command line, `settings` finds the cluster, `session` talks to it, one file per command in
//! `commands` decides what to do, and `printers` and `describe` say what came of it. Names of built-in kinds are
//! known without asking the server, which is most of why it starts quickly.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub mod cli;
mod commands;
mod describe;
mod error;
mod manifests;
mod output;
mod printers;
mod remote;
mod resources;
mod session;
mod settings;

pub use error::Error;

/// Runs a command line (the program's name first) on a runtime of its own.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("error: failed to start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(args));
    // A blocked read of the terminal must not keep the process.
    runtime.shutdown_background();
    code
}

/// Runs a command line (the program's name first) and answers the exit code: 0, 1 for failures, or that of a
/// command run in a container.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let line: Vec<OsString> = args.into_iter().collect();
    let cli = match cli::Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            let words: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            if let Some(text) = cli::refusal::refusal(&error, &words) {
                output::complain(&text);
                return ExitCode::FAILURE;
            }
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    match Box::pin(commands::run(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for text in error.texts() {
                output::complain(&text);
            }
            ExitCode::from(error.code())
        }
    }
}
