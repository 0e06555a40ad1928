//! `sendmail`: submission by a command; also `mailq`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, load, run};
use crate::sys::Exit;

/// Submission command: puts the message on stdin into the queue.
///
/// Called as mailq it lists the queue.
#[derive(Debug, Parser)]
#[command(
    name = "sendmail",
    version,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Take the recipients from To, Cc and Bcc as well, and remove Bcc
    #[arg(short = 't')]
    from_header: bool,
    /// A line with a single dot does not end the message
    #[arg(short = 'i')]
    ignore_dots: bool,
    /// The envelope's sender
    #[arg(short = 'f', value_name = "ADDRESS", visible_short_alias = 'r')]
    sender: Option<OsString>,
    /// The sender's full name, for a From field that is missing
    #[arg(short = 'F', value_name = "NAME")]
    full_name: Option<OsString>,
    /// m: send (default); s: SMTP on stdin and stdout; p: list the queue
    #[arg(short = 'b', value_name = "MODE", default_value = "m", value_parser = ["m", "s", "p"])]
    mode: String,
    /// Run the queue now (a time such as -q15m is for daemons: cron or systemd does that here)
    #[arg(short = 'q', value_name = "TIME", num_args = 0..=1, require_equals = true,
        default_missing_value = "")]
    run_queue: Option<String>,
    /// i: as -i; any other option is accepted and has no effect
    #[arg(short = 'o', value_name = "OPTION")]
    option: Vec<String>,
    /// Accepted for compatibility, without effect: body type
    #[arg(short = 'B', value_name = "TYPE")]
    body: Option<String>,
    /// Accepted for compatibility, without effect: verbose, and others' delivery wishes
    #[arg(short = 'v', short_aliases = ['m', 'n', 'U'])]
    verbose: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Recipients
    #[arg(value_name = "RECIPIENT")]
    recipients: Vec<OsString>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), sendmail)
}

fn sendmail(arguments: Args) -> Result<Exit, Failure> {
    let _config = load(&arguments.common)?;
    Err(Failure::new(Exit::Unavailable, "not built yet"))
}
