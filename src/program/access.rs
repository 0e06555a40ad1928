//! What `popd` and `imapd` have in common.

use std::net::SocketAddr;

use super::{Common, DESCRIPTORS, Failure, handed, load, login_account, services};
use crate::config::Config;
use crate::net::activation::Handed;
use crate::net::limits::{Connections, Most};
use crate::net::tls::identity::Identity;
use crate::server::Connection;
use crate::server::access::{Host, Protocol, Server};
use crate::server::listener::Listener;
use crate::server::parent::Parent;
use crate::sys::jail::Jail;
use crate::sys::{Exit, Log, process};

/// Serves what the program was handed.
pub(super) fn serve(
    name: &'static str,
    protocol: &'static Protocol,
    common: &Common,
    listen: &[SocketAddr],
    word: &str,
) -> Result<Exit, Failure> {
    // First of all: no file that is opened later may take the number of one that was handed over.
    let handed = handed(listen)?;
    let config = load(common)?;
    let log = Log::open(name, config.log.into());
    let jail = match handed {
        Handed::Session { .. } => Jail::prepare(),
        Handed::Listeners(_) => Jail::for_parents(),
    };
    let server = Server {
        protocol,
        config: &config,
        log: &log,
        jail: jail.map_err(|error| Failure::new(Exit::OsErr, error))?,
        login: login_account(&config)?,
    };
    let section = (protocol.section)(&config);
    let mut identity = Identity::of(&section.tls.certificate, &section.tls.key);
    match handed {
        Handed::Session { input, output } => {
            can_serve(word, protocol, &config)?;
            if let Some(Err(error)) = identity.as_mut().map(Identity::refresh) {
                log.error(&error.to_string());
            }
            Ok(server.session(Connection::new(input, output), word, identity))
        }
        Handed::Listeners(sockets) => {
            let sockets = services(sockets, word, &protocol.words)?;
            for (_, word) in &sockets {
                can_serve(word, protocol, &config)?;
            }
            if let Some(identity) = &mut identity {
                identity.refresh().map_err(|error| Failure::new(Exit::Config, error))?;
                identity.issue_tickets().map_err(|error| Failure::new(Exit::OsErr, error))?;
            }
            let sessions = u64::try_from(section.max_connections).unwrap_or(u64::MAX);
            process::raise_max_descriptors(sessions.saturating_add(DESCRIPTORS))
                .map_err(|error| Failure::new(Exit::OsErr, error))?;
            let words = sockets.iter().map(|(_, word)| word.clone()).collect();
            let (sessions, left_out) = Parent::new(Host { server: &server, words }, identity)
                .map_err(|error| Failure::new(Exit::OsErr, error))?;
            if let Some(what) = left_out.first() {
                let [section, _] = protocol.words;
                return Err(Failure::new(Exit::Config, format!("[{section}.tls] {what}")));
            }
            Listener {
                sockets,
                connections: Connections::new(Most {
                    sessions: section.max_connections,
                    per_address: section.max_connections_per_ip,
                    per_minute: 0,
                    proxies: section.proxies.clone(),
                }),
                busy: protocol.busy.as_bytes(),
                spawner: None,
                log: &log,
            }
            .serve(sessions)
            .map_err(|error| Failure::new(Exit::OsErr, error))
        }
    }
}

/// TLS from the first byte on needs a certificate.
fn can_serve(word: &str, protocol: &Protocol, config: &Config) -> Result<(), Failure> {
    let [section, encrypted] = protocol.words;
    if word != encrypted || !(protocol.section)(config).tls.certificate.is_empty() {
        return Ok(());
    }
    let what = format!("service {word} needs TLS: set certificate and key in [{section}.tls]");
    Err(Failure::new(Exit::Config, what))
}
