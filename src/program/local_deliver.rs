//! `local-deliver`: the delivery agent.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// Delivery agent: appends the message on stdin to users' mailboxes.
#[derive(Debug, Parser)]
#[command(name = "local-deliver", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Deliver for USER (repeatable; default: the caller)
    #[arg(short = 'd', long = "deliver-to", value_name = "USER")]
    deliver_to: Vec<String>,
    /// The envelope's sender, for Return-Path; empty or <> for none
    #[arg(short = 'f', long = "from", value_name = "SENDER")]
    from: Option<String>,
    /// Speak LMTP on stdin and stdout, for one USER
    #[arg(short = 'l', long)]
    lmtp: bool,
    /// More recipients
    #[arg(value_name = "USER")]
    users: Vec<String>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), local_deliver)
}

fn local_deliver(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
