//! `imapd`: the IMAP server.

use clap::Parser;

use super::{Common, access, run};
use crate::server::imap::PROTOCOL;
use crate::sys::Exit;

/// IMAP server: gives users their mail.
///
/// Serves the addresses of --listen, or systemd's LISTEN_FDS, or one session on stdin and stdout.
#[derive(Debug, Parser)]
#[command(name = "imapd", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Bind ADDR:PORT and serve it in the foreground (repeatable)
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<std::net::SocketAddr>,
    /// What is spoken: imap, or imaps (TLS from the start)
    #[arg(short, long, value_name = "WORD", value_parser = PROTOCOL.words, hide_possible_values = true,
        default_value = "imap")]
    service: String,
}

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), |arguments: &Args| {
        let Args { common, listen, service } = arguments;
        access::serve("imapd", &PROTOCOL, common, listen, service)
    })
}
