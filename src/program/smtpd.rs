//! `smtpd`: the SMTP server.

use clap::Parser;

use super::{
    Common, DESCRIPTORS, Failure, handed, load, login_account, prepare_queue, run, services,
};
use crate::config::{Config, Wakeup};
use crate::net::activation::Handed;
use crate::net::limits::{Connections, Most};
use crate::net::tls::identity::Identity;
use crate::queue::{Spool, Wake};
use crate::server::Connection;
use crate::server::listener::Listener;
use crate::server::parent::Parent;
use crate::server::policy::greylist::Greylist;
use crate::server::policy::{self, Keeper};
use crate::server::smtp::{Host, Server, Service, busy};
use crate::server::spawner::Spawner;
use crate::sys::jail::Jail;
use crate::sys::{Account, Exit, Log, privilege, process};

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
    /// What is spoken: smtp, submission, or submissions (TLS from the start)
    #[arg(short, long, value_name = "WORD", value_parser = Service::WORDS, hide_possible_values = true,
        default_value = "smtp")]
    service: String,
}

/// Runs the program.
pub fn main() -> Exit {
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
    let jail = match handed {
        Handed::Session { .. } => Jail::prepare(),
        Handed::Listeners(_) => Jail::for_parents(),
    };
    let server = Server {
        config: &config,
        log: &log,
        inlet: spool.incoming().map_err(broken)?,
        wake: Wake::wanted(&config),
        jail: jail.map_err(|error| Failure::new(Exit::OsErr, error))?,
        knows_users: true,
        owner: privilege::is_root().then_some(owner),
    };
    if config.greylist.is_on() {
        Greylist::open(spool.root(), &config.greylist)
            .map_err(|error| Failure::new(Exit::OsFile, format!("[greylist] {error}")))?;
    }
    let mut identity = Identity::of(&config.smtp.tls.certificate, &config.smtp.tls.key);
    match handed {
        Handed::Session { input, output } => {
            if let Some(Err(error)) = identity.as_mut().map(Identity::refresh) {
                log.error(&error.to_string());
            }
            let connection = Connection::new(input, output);
            let mut policy = keeper(&config, &log, server.owner.as_ref());
            policy.tend(&log, || identity.iter_mut().for_each(Identity::forget));
            can_serve(&arguments.service, &config)?;
            let service = Service::by_word(&arguments.service);
            Ok(server.session(connection, service, identity.as_ref(), Some(&policy)))
        }
        Handed::Listeners(sockets) => {
            let spawner = (config.queue.wakeup == Wakeup::Spawn)
                .then(|| Spawner::open(&config.paths.queue, arguments.common.config.as_deref()))
                .transpose()
                .map_err(broken)?;
            if let Some(identity) = &mut identity {
                identity.refresh().map_err(|error| Failure::new(Exit::Config, error))?;
                identity.issue_tickets().map_err(|error| Failure::new(Exit::OsErr, error))?;
            }
            let sockets = services(sockets, &arguments.service, &Service::WORDS)?;
            for (_, word) in &sockets {
                can_serve(word, &config)?;
            }
            let limits = &config.smtp;
            let sessions = u64::try_from(limits.max_connections).unwrap_or(u64::MAX);
            process::raise_max_descriptors(sessions.saturating_add(DESCRIPTORS))
                .map_err(|error| Failure::new(Exit::OsErr, error))?;
            let services = sockets.iter().map(|(_, word)| Service::by_word(word)).collect();
            let policy = keeper(&config, &log, server.owner.as_ref());
            let host = Host { server: &server, services, policy };
            let (sessions, left_out) =
                Parent::new(host, identity).map_err(|error| Failure::new(Exit::OsErr, error))?;
            if let Some(what) = left_out.first() {
                return Err(Failure::new(Exit::Config, format!("[smtp.tls] {what}")));
            }
            Listener {
                sockets,
                connections: Connections::new(Most {
                    sessions: limits.max_connections,
                    per_address: limits.max_connections_per_ip,
                    per_minute: limits.max_connections_per_minute,
                    proxies: limits.proxies.clone(),
                }),
                busy: busy(&config.hostname).as_bytes(),
                spawner,
                log: &log,
            }
            .serve(sessions)
            .map_err(|error| Failure::new(Exit::OsErr, error))
        }
    }
}

/// The keeper of the policy process. Where the account for it is not there, the queue's owner has to
/// do: less is between him and the name servers then.
fn keeper(config: &Config, log: &Log, owner: Option<&Account>) -> Keeper {
    let account = login_account(config).unwrap_or_else(|failure| {
        log.warning(&format!(
            "{}; until then the queue's owner asks the name servers",
            failure.what
        ));
        owner.cloned()
    });
    Keeper::new(config, account, policy::process::run)
}

/// Users hand their mail in under TLS only.
fn can_serve(word: &str, config: &Config) -> Result<(), Failure> {
    let clear = Service::by_word(word) == Service::Submission && config.auth.plaintext_without_tls;
    if Service::by_word(word) == Service::Smtp || clear || !config.smtp.tls.certificate.is_empty() {
        return Ok(());
    }
    let what = format!("service {word} needs TLS: set certificate and key in [smtp.tls]");
    Err(Failure::new(Exit::Config, what))
}
