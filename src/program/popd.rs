//! `popd`: the POP3 server.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, handed, load, run, services};
use crate::config::Config;
use crate::net::activation::Handed;
use crate::net::limits::Connections;
use crate::server::Connection;
use crate::server::listener::Listener;
use crate::server::pop3::{Server, TIMEOUT, busy};
use crate::sys::jail::Jail;
use crate::sys::{Account, Exit, Log, privilege};

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
    run(std::env::args_os(), |arguments: Args| popd(&arguments))
}

fn popd(arguments: &Args) -> Result<Exit, Failure> {
    // First of all: no file that is opened later may take the number of one that was handed over.
    let handed = handed(&arguments.listen)?;
    let config = load(&arguments.common)?;
    let log = Log::open("popd", config.log.into());
    let os = |error| Failure::new(Exit::OsErr, error);
    let server = Server {
        config: &config,
        log: &log,
        jail: Jail::prepare().map_err(os)?,
        login: login(&config)?,
    };
    match handed {
        Handed::Session { input, output } => {
            let connection = Connection::handed(input, output, TIMEOUT).map_err(os)?;
            Ok(server.session(connection))
        }
        Handed::Listeners(sockets) => {
            let limits = &config.pop3;
            Listener {
                sockets: services(sockets, &arguments.service, &["pop3"])?,
                connections: Connections::new(
                    limits.max_connections,
                    limits.max_connections_per_ip,
                ),
                busy: busy(),
                timeout: TIMEOUT,
                spawner: None,
                log: &log,
            }
            .serve(|connection, _service| server.session(connection))
            .map_err(os)
        }
    }
}

/// The account of those who have not logged in; without root there is only our own.
fn login(config: &Config) -> Result<Option<Account>, Failure> {
    if !privilege::is_root() {
        return Ok(None);
    }
    let name = &config.users.login;
    let refused = |what: &str| Failure::new(Exit::Config, format!("[users] login: {name} {what}"));
    let account = Account::by_name(name)
        .map_err(|error| Failure::new(Exit::OsErr, error))?
        .ok_or_else(|| refused("is no account of this host; make it, or name another"))?;
    if account.uid.is_root() {
        return Err(refused("is root, which is what it must not be"));
    }
    Ok(Some(account))
}
