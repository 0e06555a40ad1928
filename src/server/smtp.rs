//! smtpd's two processes of a session.
//!
//! The monitor (root, or the account that runs everything) answers three questions of bounded size:
//! is there such a recipient, what is the client called, and write this line into the log. The session
//! child, jailed, speaks to the client (`talk`).

mod talk;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Connection;
use super::listener::Visit;
use super::names::Question;
use crate::config::Config;
use crate::message::Address;
use crate::queue::{Inlet, Wake};
use crate::route::{self, Tables, Verdict};
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::log::Level;
use crate::sys::{Account, Exit, Log, clock, process};
use talk::Talk;

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
    /// Whether this process can tell who is a user here. sendmail's caller may not look; what it
    /// hands in to nobody comes back to it.
    pub knows_users: bool,
    /// The queue's owner, whom session children become, with root.
    pub owner: Option<Account>,
}

/// A question of the session child to its monitor: one byte of kind, then at most `MAX` of text.
#[derive(Clone, Copy)]
enum Ask {
    Recipient = 0,
    Info = 1,
    Warning = 2,
    Error = 3,
    Name = 4,
}

/// The monitor's answer to [`Ask::Recipient`], as a byte.
const VERDICTS: [Verdict; 5] =
    [Verdict::Ok, Verdict::Relay, Verdict::Foreign, Verdict::Unknown, Verdict::TempFail];

/// What a client is called whose name nobody vouches for.
const UNKNOWN: &str = "unknown";

/// Longest text of a question.
const MAX: usize = 2048;

impl Server<'_> {
    /// One session: forks the child that speaks, and is its monitor.
    pub fn session(&self, visit: Visit<'_>) -> Exit {
        let Visit { connection, identity, name, .. } = visit;
        let peer = connection.peer;
        let (monitor, session) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return self.fail(&format!("can't make a channel: {error}")),
        };
        // Read, at the latest, before the child loses sight of /etc/localtime.
        clock::zone();
        let forked = process::fork(|| {
            let inlet = self.inlet.for_this_process().and_then(|inlet| {
                self.lock_up(&inlet, &connection, &session)?;
                Ok(inlet)
            });
            match inlet {
                Ok(inlet) => Talk::new(self, connection, identity, &inlet, &session).run(),
                Err(error) => {
                    let _ = ask(&session, Ask::Error, &format!("can't lock a session up: {error}"));
                    Exit::OsErr
                }
            }
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return self.fail(&format!("can't fork: {error}")),
        };
        drop(session);
        self.monitor(&monitor, name);
        match process::wait(child) {
            Ok(process::Ended::Exited(0)) => Exit::Ok,
            Ok(how) => {
                self.fail(&format!("session of [{}] ended by {how:?}", peer.address_or_local()))
            }
            Err(error) => self.fail(&format!("wait: {error}")),
        }
    }

    fn fail(&self, what: &str) -> Exit {
        self.log.error(what);
        Exit::OsErr
    }

    /// Whether mail for this address is to be taken.
    fn verify(&self, tables: &Tables, address: &str) -> Verdict {
        let Ok(parsed) = Address::parse(address.as_bytes()) else {
            return Verdict::Unknown;
        };
        let has_account = |local: &str| Ok(route::account(self.config, local)?.is_some());
        let log = |what: &str| self.log.error(&format!("looking up {address:?}: {what}"));
        route::verify(self.config, tables, has_account, &parsed, log)
    }

    /// Answers until the child is gone. Nothing here looks into a text but to log it, or to look an
    /// address up.
    fn monitor(&self, session: &Channel, mut asked: Option<Question>) {
        let tables = Tables::of(self.config);
        let mut name = None;
        let mut buffer = [0; MAX + 1];
        loop {
            let record = match session.receive(&mut buffer) {
                Ok(0) => return,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    self.log.error(&format!("monitor: {error}"));
                    return;
                }
            };
            let Some((kind, text)) = record.split_first() else {
                return;
            };
            let text = String::from_utf8_lossy(text);
            match *kind {
                kind if kind == Ask::Recipient as u8 => {
                    let verdict = self.verify(&tables, &text);
                    let answer = VERDICTS.iter().zip(0..).find(|(known, _)| **known == verdict);
                    if session.send(&[answer.map_or(u8::MAX, |(_, byte)| byte)]).is_err() {
                        return;
                    }
                }
                kind if kind == Ask::Name as u8 => {
                    let asked = asked.take();
                    let name = name.get_or_insert_with(|| {
                        asked.and_then(Question::answer).unwrap_or_else(|| UNKNOWN.into())
                    });
                    if session.send(name.as_bytes()).is_err() {
                        return;
                    }
                }
                kind if kind == Ask::Info as u8 => self.log.line(Level::Info, &text),
                kind if kind == Ask::Warning as u8 => self.log.line(Level::Warning, &text),
                _ => self.log.line(Level::Error, &text),
            }
        }
    }

    /// The child gives everything up but the client, the channel, the wake FIFO and incoming/.
    fn lock_up(&self, inlet: &Inlet, connection: &Connection, channel: &Channel) -> io::Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
        keep.push(channel.as_fd());
        keep.extend(self.wake.as_ref().map(AsFd::as_fd));
        keep.extend(self.jail.descriptor());
        keep.extend(inlet.descriptors());
        process::close_others(&keep)?;
        self.jail.enter(self.owner.as_ref(), Some(inlet.grant()))
    }
}

fn ask(monitor: &Channel, kind: Ask, text: &str) -> io::Result<()> {
    let mut record = vec![kind as u8];
    record.extend(text.bytes().take(MAX));
    monitor.send(&record)
}

/// Turns a client away when there are too many.
pub fn busy(hostname: &str) -> String {
    format!("421 4.3.2 {hostname} Error: too many connections\r\n")
}
