//! `popd`: the POP3 server.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// POP3 server: gives users their mail.
///
/// Serves the addresses of --listen, or systemd's LISTEN_FDS, or one session on stdin and stdout.
#[derive(Debug, Parser)]
#[command(name = "popd", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Bind ADDR:PORT and serve it in the foreground (repeatable)
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<std::net::SocketAddr>,
    /// What is spoken: pop3
    #[arg(short, long, value_name = "WORD", value_parser = ["pop3"], default_value = "pop3")]
    service: String,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), popd)
}

fn popd(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
