//! smtpd's two processes of a session.
//!
//! The monitor (root, or the account that runs everything) answers questions of bounded size: is
//! there such a user, write this line into the log, and those of a login (`login`). The session
//! child, jailed, speaks to the client (`talk`), and asks [`super::policy`] what depends on others.

mod admission;
mod incoming;
mod lines;
mod login;
mod talk;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::listener::Visit;
use super::policy::{Keeper, Line};
use super::{Connection, Peer};
use crate::auth;
use crate::config::Config;
use crate::queue::{Inlet, Wake};
use crate::route;
use crate::sasl::Facts;
use crate::smtp::Login;
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::log::Level;
use crate::sys::{Account, Exit, Log, clock, process};
use login::Logins;
use talk::Talk;

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
    /// One session: forks the child that speaks, and is its monitor.
    pub fn session(&self, visit: Visit<'_>) -> Exit {
        let Visit { mut connection, service, identity, policy } = visit;
        let service = Service::by_word(service);
        let peer = connection.peer;
        let (monitor, session) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                self.turn_away(&mut connection, service);
                return self.fail(&format!("can't make a channel: {error}"));
            }
        };
        let offer = self.login(service);
        let line = policy.as_ref().and_then(|keeper| keeper.open(peer.address_or_local()));
        let line = line.unwrap_or_default();
        // Read, at the latest, before the child loses sight of /etc/localtime.
        clock::zone();
        let mut connection = Some(connection);
        let forked = process::fork(|| {
            let Some(mut connection) = connection.take() else {
                return Exit::OsErr;
            };
            let inlet = self.inlet.for_this_process().and_then(|inlet| {
                self.lock_up(&inlet, &connection, &session, &line)?;
                Ok(inlet)
            });
            match inlet {
                Ok(inlet) => Talk::new(self, connection, identity, line, &inlet, &session)
                    .run(service, offer),
                Err(error) => {
                    let _ = ask(&session, Ask::Error, format!("can't lock a session up: {error}"));
                    self.turn_away(&mut connection, service);
                    Exit::OsErr
                }
            }
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => {
                if let Some(client) = &mut connection {
                    self.turn_away(client, service);
                }
                return self.fail(&format!("can't fork: {error}"));
            }
        };
        // Both are the child's: when that ends, the client must see it.
        drop((session, connection));
        self.monitor(&monitor, peer, policy.as_ref());
        match process::wait(child) {
            Ok(process::Ended::Exited(0)) => Exit::Ok,
            Ok(how) => {
                self.fail(&format!("session of [{}] ended by {how:?}", peer.address_or_local()))
            }
            Err(error) => self.fail(&format!("wait: {error}")),
        }
    }

    /// How this client may log in, if at all.
    fn login(&self, service: Service) -> Option<Login> {
        let required = service != Service::Smtp;
        if !required && !self.config.smtp.auth {
            return None;
        }
        let scram = auth::scram::stored(self.config).unwrap_or_else(|error| {
            self.log.error(&format!("SCRAM is not offered: {error}"));
            Vec::new()
        });
        Some(Login {
            without_tls: self.config.auth.plaintext_without_tls,
            required,
            facts: Facts { scram, ..Facts::default() },
        })
    }

    /// Tells a client that there can be no session now. Under TLS from the first byte on there is no
    /// way to say so.
    fn turn_away(&self, client: &mut Connection, service: Service) {
        if service != Service::Submissions {
            let _ = client.send(busy(&self.config.hostname).as_bytes(), 0);
        }
    }

    fn fail(&self, what: &str) -> Exit {
        self.log.error(what);
        Exit::OsErr
    }

    /// Answers until the child is gone. Nothing here looks into a text but to log it.
    fn monitor(&self, session: &Channel, mut peer: Peer, policy: Option<&Keeper>) {
        let mut logins = Logins::new(self.config, self.log);
        let came = peer.address;
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
            if *kind == Ask::Login as u8 {
                let client = || format!("{}[{}]", called(policy, &peer), peer.address_or_local());
                match logins.answer(text, client) {
                    Some(answer) if session.send(&answer).is_ok() => continue,
                    _ => return,
                }
            }
            let text = String::from_utf8_lossy(text);
            match *kind {
                // Only those who may speak for others are somebody else than who has come.
                kind if kind == Ask::Client as u8 => match text.parse() {
                    Ok(client)
                        if came.is_some_and(|from| {
                            self.config.smtp.is_proxy(from) || self.config.smtp.may_claim(from)
                        }) =>
                    {
                        peer.address = Some(client);
                    }
                    _ => return,
                },
                kind if kind == Ask::User as u8 => {
                    let answer = match route::account(self.config, &text) {
                        Ok(Some(_)) => Answer::Yes,
                        Ok(None) => Answer::No,
                        Err(error) => {
                            self.log.error(&format!("looking up user {text:?}: {error}"));
                            Answer::Unknown
                        }
                    };
                    if session.send(&[answer as u8]).is_err() {
                        return;
                    }
                }
                kind if kind == Ask::Info as u8 => self.log.line(Level::Info, &text),
                kind if kind == Ask::Warning as u8 => self.log.line(Level::Warning, &text),
                _ => self.log.line(Level::Error, &text),
            }
        }
    }

    /// The child gives everything up but the client, its two channels, the wake FIFO and incoming/.
    fn lock_up(
        &self,
        inlet: &Inlet,
        connection: &Connection,
        channel: &Channel,
        policy: &Line,
    ) -> io::Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
        keep.push(channel.as_fd());
        keep.extend(policy.descriptor());
        keep.extend(self.wake.as_ref().map(AsFd::as_fd));
        keep.extend(self.jail.descriptor());
        keep.extend(inlet.descriptors());
        process::close_others(&keep)?;
        self.jail.enter(self.owner.as_ref(), Some(inlet.grant()))
    }
}

/// What a client is called in the log: asked for here, as the session child might no longer be ours.
fn called(policy: Option<&Keeper>, peer: &Peer) -> String {
    if let Some(name) = peer.local_name() {
        return name.into();
    }
    let line = policy.and_then(|keeper| keeper.open(peer.address_or_local()));
    line.and_then(|mut line| line.name()).unwrap_or_else(|| UNKNOWN.into())
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
