//! `mailctl`: the operator's single commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// The operator's tool.
#[derive(Debug, Parser)]
#[command(name = "mailctl", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, the queue's directories and the accounts, and say what is wrong
    Check,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), mailctl)
}

fn mailctl(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    match arguments.command {
        Command::Check => Ok(Exit::Ok),
    }
}
