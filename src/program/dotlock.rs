//! `dotlock`: the setgid helper that makes and removes a mailbox's dot lock.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::{Failure, run};
use crate::sys::Exit;

/// Dot lock helper: makes and removes FILE.lock beside a spool file that its caller may write.
///
/// Reads orders from stdin, one byte each: l lock, u unlock; the end of input unlocks.
#[derive(Debug, Parser)]
#[command(name = "dotlock", version, disable_help_subcommand = true)]
pub(super) struct Args {
    /// The mailbox
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), dotlock)
}

fn dotlock(_arguments: Args) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
