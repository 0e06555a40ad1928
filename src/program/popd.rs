//! `popd`: the POP3 server.

use clap::Parser;

use super::{Common, Failure, handed, load, login_account, run, services};
use crate::net::activation::Handed;
use crate::net::limits::{Connections, Most};
use crate::server::Connection;
use crate::server::listener::{Forked, Listener};
use crate::server::pop3::Server;
use crate::sys::jail::Jail;
use crate::sys::{Exit, Log};

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
pub fn main() -> Exit {
    run(std::env::args_os(), popd)
}

fn popd(arguments: &Args) -> Result<Exit, Failure> {
    let handed = handed(&arguments.listen)?;
    let config = load(&arguments.common)?;
    let log = Log::open("popd", config.log.into());
    let server = Server {
        config: &config,
        log: &log,
        jail: Jail::prepare().map_err(|error| Failure::new(Exit::OsErr, error))?,
        login: login_account(&config)?,
    };
    match handed {
        Handed::Session { input, output } => Ok(server.session(Connection::new(input, output))),
        Handed::Listeners(sockets) => {
            let limits = &config.pop3;
            Listener {
                sockets: services(sockets, &arguments.service, &["pop3"])?,
                connections: Connections::new(Most {
                    sessions: limits.max_connections,
                    per_address: limits.max_connections_per_ip,
                    per_minute: 0,
                    proxies: Vec::new(),
                }),
                busy: b"-ERR [SYS/TEMP] too many connections\r\n",
                spawner: None,
                log: &log,
            }
            .serve(Forked::new(|connection| server.session(connection)))
            .map_err(|error| Failure::new(Exit::OsErr, error))
        }
    }
}
