//! `mta-queue`: the delivery runner, and the queue's tool.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// Delivery runner: tries every message that is due once, then ends.
#[derive(Debug, Parser)]
#[command(name = "mta-queue", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Try every message now, whether it is due or not
    #[arg(short, long, conflicts_with_all = ["list", "show"])]
    flush: bool,
    /// Stay and deliver what comes, until SIGTERM
    #[arg(short, long, conflicts_with_all = ["list", "show"])]
    watch: bool,
    /// List the queue
    #[arg(short, long, conflicts_with = "show")]
    list: bool,
    /// Show one message: its envelope, its history and its text
    #[arg(short, long, value_name = "ID")]
    show: Option<String>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), mta_queue)
}

fn mta_queue(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
