//! The `kubectl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl::main(std::env::args_os())
}
