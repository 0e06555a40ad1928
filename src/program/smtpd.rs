//! `smtpd`: the SMTP server.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// SMTP server: receives mail into the queue.
///
/// Serves the addresses of --listen, or systemd's LISTEN_FDS, or one session on stdin and stdout.
#[derive(Debug, Parser)]
#[command(name = "smtpd", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Bind ADDR:PORT and serve it in the foreground (repeatable)
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<std::net::SocketAddr>,
    /// What is spoken: smtp
    #[arg(short, long, value_name = "WORD", value_parser = ["smtp"], default_value = "smtp")]
    service: String,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), smtpd)
}

fn smtpd(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
