//! smtpd's sessions.
//!
//! A session's monitor (root, or the account that runs everything; `monitor`) answers questions of
//! bounded size: is there such a user, write this line into the log, and those of a login (`login`).
//! The session child, jailed, speaks to the client (`talk`), and asks [`super::policy`] what depends
//! on others. One session alone is two processes ([`Server::session`]); those of a listener are made
//! by a zygote and answered by the listener as far as that goes ([`parent`]).

mod admission;
mod incoming;
mod lines;
mod login;
mod monitor;
pub mod parent;
mod talk;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::policy::Keeper;
use super::{Connection, Peer};
use crate::auth;
use crate::config::Config;
use crate::net::tls::identity::Identity;
use crate::queue::{Inlet, Wake};
use crate::sasl::Facts;
use crate::sasl::scram::Hash;
use crate::smtp::Login;
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::{Account, Exit, Log, clock, process};
use monitor::Monitor;
use talk::{Kit, Talk};

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Mail comes in, from everybody (port 25).
    Smtp,
    /// Users hand their mail in, under TLS and after a login (RFC 6409, port 587).
    Submission,
    /// Likewise, with TLS from the first byte on (RFC 8314 section 3.3, port 465).
    Submissions,
}

impl Service {
    /// All, by the word of `--service`.
    pub const WORDS: [&'static str; 3] = ["smtp", "submission", "submissions"];

    /// By its word.
    pub fn by_word(word: &str) -> Self {
        match word {
            "submission" => Self::Submission,
            "submissions" => Self::Submissions,
            _ => Self::Smtp,
        }
    }
}

/// What every session of a server shares.
pub struct Server<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// Where messages enter.
    pub inlet: Inlet,
    /// Who is told of them.
    pub wake: Option<Wake>,
    /// The cell of the session children.
    pub jail: Jail,
    /// Whether somebody can tell who is here. With sendmail there is no policy process, and its caller
    /// may not look accounts up; what is handed in to nobody comes back.
    pub knows_users: bool,
    /// The queue's owner, whom session children become, with root.
    pub owner: Option<Account>,
}

/// A question of the session child to its monitor: one byte of kind, then at most `MAX` of text.
#[derive(Clone, Copy)]
enum Ask {
    User = 0,
    Info = 1,
    Warning = 2,
    Error = 3,
    Login = 4,
    Client = 5,
    /// The session ends as it should.
    End = 6,
}

/// The monitor's answer to [`Ask::User`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    No = 0,
    Yes = 1,
    Unknown = 2,
}

/// What a client is called whose name nobody vouches for.
const UNKNOWN: &str = "unknown";

/// Longest text of a question.
const MAX: usize = 2048;

impl Server<'_> {
    /// One session, alone: forks the child that speaks, and is its monitor.
    pub fn session(
        &self,
        connection: Connection,
        service: Service,
        identity: Option<&Identity>,
        policy: Option<&Keeper>,
    ) -> Exit {
        let mut connection = Some(connection);
        let peer = connection.as_ref().and_then(|connection| connection.peer.address);
        let refuse = |connection: &mut Option<Connection>, what: &str| {
            if let Some(client) = connection {
                self.turn_away(client, service);
            }
            self.log.error(what);
            Exit::OsErr
        };
        let (monitor, session) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                return refuse(&mut connection, &format!("can't make a channel: {error}"));
            }
        };
        let line = policy.and_then(|keeper| keeper.open(Peer { address: peer }.address_or_local()));
        let mut line = line.unwrap_or_default();
        let forked = process::fork(|| {
            let Some(mut connection) = connection.take() else {
                return Exit::OsErr;
            };
            let scram = scram(self);
            let keep = connection.descriptors().into_iter().chain([session.as_fd()]);
            let keep: Vec<BorrowedFd<'_>> = keep.chain(line.descriptor()).collect();
            if let Err(error) = self.lock_up(&keep) {
                let _ = ask(&session, Ask::Error, format!("can't lock a session up: {error}"));
                self.turn_away(&mut connection, service);
                return Exit::OsErr;
            }
            let (kit, left_out) = Kit::new(self, identity, scram);
            for what in left_out {
                let _ = ask(&session, Ask::Error, what);
            }
            Talk::new(self, connection, &kit, std::mem::take(&mut line), &session).run(service)
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return refuse(&mut connection, &format!("can't fork: {error}")),
        };
        // All are the child's: when that ends, the client must see it.
        drop((session, connection, line));
        let exit = Monitor::new(self, peer).stay(&monitor, &[], policy);
        match process::wait(child) {
            Ok(_) => exit,
            Err(error) => {
                self.log.error(&format!("wait: {error}"));
                Exit::OsErr
            }
        }
    }

    /// How clients of a service may log in, if at all.
    fn login(&self, service: Service, scram: &[Hash]) -> Option<Login> {
        let required = service != Service::Smtp;
        (required || self.config.smtp.auth).then(|| Login {
            without_tls: self.config.auth.plaintext_without_tls,
            required,
            facts: Facts { scram: scram.to_vec(), ..Facts::default() },
        })
    }

    /// Tells a client that there can be no session now. Under TLS from the first byte on there is no
    /// way to say so.
    fn turn_away(&self, client: &mut Connection, service: Service) {
        if service != Service::Submissions {
            let _ = client.send(busy(&self.config.hostname).as_bytes(), 0);
        }
    }

    /// Gives everything up but these descriptors, the wake FIFO and incoming/.
    fn lock_up(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Before it loses sight of /etc/localtime.
        clock::zone();
        let mut keep = keep.to_vec();
        keep.extend(self.wake.as_ref().map(AsFd::as_fd));
        keep.extend(self.jail.descriptor());
        keep.extend(self.inlet.descriptors());
        process::close_others(&keep)?;
        self.jail.enter(self.owner.as_ref(), Some(self.inlet.grant()))
    }
}

/// The hash functions by which somebody can log in with SCRAM.
fn scram(server: &Server<'_>) -> Vec<Hash> {
    auth::scram::stored(server.config).unwrap_or_else(|error| {
        server.log.error(&format!("SCRAM is not offered: {error}"));
        Vec::new()
    })
}

fn ask(monitor: &Channel, kind: Ask, text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut record = vec![kind as u8];
    record.extend(text.as_ref().iter().take(MAX));
    monitor.send(&record)
}

/// Turns a client away when there are too many.
pub fn busy(hostname: &str) -> String {
    format!("421 4.3.2 {hostname} Error: too many connections\r\n")
}
