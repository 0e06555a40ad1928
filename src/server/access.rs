//! What the servers of mailboxes, popd and imapd, have in common: all that is before a user's session.
//!
//! A child in a cell speaks to the client (`talk`); its monitor, which is root, answers its questions
//! (`monitor`). After a login the child hands the client over and ends, and the monitor becomes the
//! user for good and runs the session. Under TLS the child stays, as a relay: it never has the user's
//! rights, and the session never has a key.

mod monitor;
mod talk;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::ask::Ask;
use super::listener::{Client, turn_away};
use super::parent::{self, Heard};
use super::record::HandOver;
use super::zygote::Arrival;
use super::{Connection, login};
use crate::auth::Scope;
use crate::config::{self, Config};
use crate::net::tls::identity::Identity;
use crate::net::tls::server::{Settings, settings};
use crate::sasl::scram::Hash;
use crate::sasl::{self, Terms};
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::{Account, Exit, Log, fd, process};
use monitor::Monitor;
use talk::Talk;

/// What one protocol has of its own.
pub struct Protocol {
    /// What app passwords must be for.
    pub scope: Scope,
    /// The words of its services: in the clear at first, and with TLS from the first byte on.
    pub words: [&'static str; 2],
    /// So long a client may say nothing before it has logged in.
    pub silence: Duration,
    /// What is said to one client too many.
    pub busy: &'static str,
    /// Its section of the configuration.
    pub section: fn(&Config) -> &config::Access,
    /// A session before login.
    pub begin: fn(Terms) -> Box<dyn Dialogue>,
    /// The session of a user, as that user.
    pub serve: fn(&Config, &mut Connection, &Account, &HandOver, &Log) -> Exit,
    /// What is said where there can be none; to the command with this tag.
    pub refusal: fn(&str) -> Vec<u8>,
}

/// A session before login, pure.
pub trait Dialogue {
    /// Takes input.
    fn push(&mut self, bytes: &[u8]);
    /// What is to be done; `None` when input is wanted.
    fn next(&mut self) -> Option<Step>;
    /// Takes the answer to a question.
    fn answer(&mut self, answer: sasl::Answer);
    /// TLS has begun; this names the connection.
    fn encrypted(&mut self, bindings: Vec<sasl::Binding>);
}

/// What is to be done.
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Begin TLS.
    StartTls,
    /// Ask whoever knows the accounts.
    Ask(sasl::Mechanism, sasl::Question),
    /// The session goes on as its user.
    LoggedIn {
        /// The tag of the command that is still to be answered.
        tag: String,
        /// Input that came behind it.
        leftover: Vec<u8>,
    },
    /// End the connection.
    Close,
}

/// What every session of a server shares.
pub struct Server<'a> {
    /// What is spoken.
    pub protocol: &'static Protocol,
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// The cell of the login children.
    pub jail: Jail,
    /// Whom login children become, with root.
    pub login: Option<Account>,
}

/// What sessions are born with: what is made of files, and need not be made for each.
pub struct Kit {
    /// Whether TLS is offered; there are no settings where nothing is right with the files.
    offers_tls: bool,
    settings: Option<Settings>,
    scram: Vec<Hash>,
}

impl Server<'_> {
    /// One session, alone: forks the child that speaks, is its monitor, and then its user.
    pub fn session(
        &self,
        connection: Connection,
        word: &str,
        mut identity: Option<Identity>,
    ) -> Exit {
        let mut connection = Some(connection);
        let peer = connection.as_ref().and_then(|connection| connection.peer.address);
        let (line, theirs) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return self.fail(connection, &format!("can't make a channel: {error}")),
        };
        let mut theirs = Some(theirs);
        let forked = process::fork(|| {
            let (Some(connection), Some(line)) = (connection.take(), theirs.take()) else {
                return Exit::OsErr;
            };
            let scram = login::scram(self.config, self.log);
            let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
            keep.push(line.as_fd());
            if let Err(error) = self.lock_up(keep) {
                let _ = Ask::Error.say(&line, format!("can't lock a session up: {error}"));
                return self.fail(Some(connection), "there is no session");
            }
            let (kit, left_out) = Kit::new(identity.as_ref(), scram);
            for what in left_out {
                let _ = Ask::Error.say(&line, what);
            }
            Talk::new(self, connection, &kit, line).run(self.is_encrypted(word))
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return self.fail(connection, &format!("can't fork: {error}")),
        };
        // All are the child's: when that ends, the client must see it.
        drop((theirs, connection));
        identity.iter_mut().for_each(Identity::forget);
        if let Err(error) = fd::ensure_standard() {
            return self.fail(None, &format!("/dev/null: {error}"));
        }
        Monitor::new(self, peer).stay(line, &[], Some(child))
    }

    fn is_encrypted(&self, word: &str) -> bool {
        self.protocol.words.get(1) == Some(&word)
    }

    fn fail(&self, client: Option<Connection>, what: &str) -> Exit {
        self.log.error(what);
        if let Some(mut client) = client {
            let _ = client.send(self.protocol.busy.as_bytes(), 0);
        }
        Exit::OsErr
    }

    /// Gives everything up but these descriptors.
    fn lock_up<'f>(&'f self, mut keep: Vec<BorrowedFd<'f>>) -> io::Result<()> {
        keep.extend(self.jail.descriptor());
        process::close_others(&keep)?;
        self.jail.enter(self.login.as_ref(), None)
    }

    fn section(&self) -> &config::Access {
        (self.protocol.section)(self.config)
    }
}

impl Kit {
    /// Parses certificates and keys, which is done in a cell. What is wrong with them is told.
    fn new(identity: Option<&Identity>, scram: Vec<Hash>) -> (Self, Vec<String>) {
        let (settings, errors) =
            identity.map(|identity| settings(identity, false)).unwrap_or_default();
        let kit = Self { offers_tls: identity.is_some(), settings, scram };
        (kit, errors.iter().map(ToString::to_string).collect())
    }
}

/// A server that listens.
pub struct Host<'a> {
    /// What the sessions share.
    pub server: &'a Server<'a>,
    /// The words of the listening sockets, in their order.
    pub words: Vec<String>,
}

impl Host<'_> {
    fn is_encrypted(&self, client: &Client) -> bool {
        self.words.get(client.service).is_some_and(|word| self.server.is_encrypted(word))
    }
}

impl<'a> parent::Host for Host<'a> {
    type Kit = Kit;
    type Monitor = Monitor<'a>;

    fn log(&self) -> &Log {
        self.server.log
    }

    fn users(&self) -> &Path {
        &self.server.config.users.file
    }

    fn prepare(
        &self,
        orders: &Channel,
        identity: Option<&Identity>,
    ) -> io::Result<(Kit, Vec<String>)> {
        let scram = login::scram(self.server.config, self.server.log);
        self.server.lock_up(vec![orders.as_fd()])?;
        Ok(Kit::new(identity, scram))
    }

    fn run(&self, kit: &Kit, arrival: Arrival) -> Exit {
        let is_encrypted = self.is_encrypted(&arrival.client);
        let Arrival { client: Client { socket, from, .. }, line, .. } = arrival;
        let connection = Connection::accepted(socket, from);
        Talk::new(self.server, connection, kit, line).run(is_encrypted)
    }

    fn turn_away(&self, arrival: &Arrival) {
        // Under TLS from the first byte on there is no way to say so.
        if !self.is_encrypted(&arrival.client) {
            turn_away(&arrival.client.socket, self.server.protocol.busy.as_bytes());
        }
    }

    fn monitor(&self, from: Option<IpAddr>) -> Monitor<'a> {
        Monitor::new(self.server, from)
    }

    fn hear(&self, monitor: &mut Monitor<'a>, record: &[u8]) -> Heard {
        monitor.hear(record)
    }

    fn gone(&self, monitor: &Monitor<'a>) {
        monitor.end();
    }

    fn stay(&self, monitor: Monitor<'a>, line: Channel, first: &[u8]) -> Exit {
        monitor.stay(line, first, None)
    }
}

#[cfg(test)]
mod tests;
