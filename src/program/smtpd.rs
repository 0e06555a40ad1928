//! `smtpd`: the SMTP server.

use std::process::ExitCode;

use clap::Parser;

use super::{Common, Failure, handed, load, prepare_queue, run, services};
use crate::config::Wakeup;
use crate::net::activation::Handed;
use crate::net::limits::Connections;
use crate::queue::{Spool, Wake};
use crate::server::Connection;
use crate::server::listener::Listener;
use crate::server::smtp::{Server, busy};
use crate::server::spawner::Spawner;
use crate::sys::jail::Jail;
use crate::sys::{Exit, Log, privilege};

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

fn smtpd(arguments: &Args) -> Result<Exit, Failure> {
    // First of all: no file that is opened later may take the number of one that was handed over.
    let handed = handed(&arguments.listen)?;
    let config = load(&arguments.common)?;
    let log = Log::open("smtpd", config.log.into());
    let spool = Spool::new(&config.paths.queue);
    let owner = prepare_queue(&spool)?;
    let broken = |error: std::io::Error| {
        Failure::new(Exit::OsFile, format!("{}: {error}", config.paths.queue.display()))
    };
    let server = Server {
        config: &config,
        log: &log,
        inlet: spool.incoming().map_err(broken)?,
        wake: Wake::wanted(&config),
        jail: Jail::prepare().map_err(|error| Failure::new(Exit::OsErr, error))?,
        knows_users: true,
        owner: privilege::is_root().then_some(owner),
    };
    match handed {
        Handed::Session { input, output } => Ok(server.session(Connection::new(input, output))),
        Handed::Listeners(sockets) => {
            let spawner = (config.queue.wakeup == Wakeup::Spawn)
                .then(|| Spawner::open(&config.paths.queue, arguments.common.config.as_deref()))
                .transpose()
                .map_err(broken)?;
            let limits = &config.smtp;
            Listener {
                sockets: services(sockets, &arguments.service, &["smtp"])?,
                connections: Connections::new(
                    limits.max_connections,
                    limits.max_connections_per_ip,
                ),
                busy: busy(&config.hostname).as_bytes(),
                spawner,
                log: &log,
            }
            .serve(|connection, _service| server.session(connection))
            .map_err(|error| Failure::new(Exit::OsErr, error))
        }
    }
}
