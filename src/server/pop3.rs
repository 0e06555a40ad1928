//! The POP3 server's two processes of a session, which become one.
//!
//! The login child speaks to a stranger, from its cell. The monitor is root: it checks passwords and
//! reads nothing but the records of [`super::record`]. After the right password the child hands its
//! input over and ends; the monitor becomes the user for good and runs the session ([`maildrop`]).

pub mod maildrop;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::record::{Answer, Credentials, HandOver};
use super::{Connection, Peer};
use crate::auth::{self, Scope, Verdict};
use crate::config::Config;
use crate::pop3::login::{self, Facts};
use crate::pop3::session::Session;
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::{Account, Exit, Log, privilege, process};

/// So long may a client say nothing: the least that RFC 1939 section 3 allows.
const IDLE: Duration = Duration::from_mins(10);

/// So long, in milliseconds, may a client take nothing of what it asked for.
const STUCK: u32 = 300_000;

/// So much is collected before it is sent.
const CHUNK: usize = 64 * 1024;

/// So much is read at once.
const READ: usize = 4 * 1024;

/// What every session of a server shares.
pub struct Server<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// The cell of the login children.
    pub jail: Jail,
    /// Whom login children become, with root.
    pub login: Option<Account>,
}

impl Server<'_> {
    /// One session: forks the login child, is its monitor, and then its user.
    pub fn session(&self, mut connection: Connection) -> Exit {
        let (monitor_end, child_end) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return self.fail(&format!("can't make a channel: {error}")),
        };
        let facts = Facts {
            hostname: self.config.hostname.clone(),
            plaintext_allowed: self.config.auth.plaintext_without_tls
                || connection.peer.is_loopback(),
        };
        let forked = process::fork(|| match self.lock_up(&connection, &child_end) {
            Ok(()) => login_child(&mut connection, &child_end, &facts),
            Err(error) => self.fail(&format!("can't lock a session up: {error}")),
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return self.fail(&format!("can't fork: {error}")),
        };
        drop(child_end);
        monitor(self.config, &mut connection, monitor_end, Some(child), self.log)
    }

    fn fail(&self, what: &str) -> Exit {
        self.log.error(what);
        Exit::OsErr
    }

    /// The child gives everything up but the client and the channel.
    fn lock_up(&self, connection: &Connection, channel: &Channel) -> io::Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
        keep.push(channel.as_fd());
        keep.extend(self.jail.descriptor());
        process::close_others(&keep)?;
        self.jail.enter(self.login.as_ref(), None)
    }
}

/// What the client hears, collected so that many short replies are one packet.
struct Wire<'a> {
    client: &'a mut Connection,
    out: Vec<u8>,
    /// Bytes sent so far.
    sent: u64,
    /// When the client will have been silent for too long. Commands count, not bytes: they may not
    /// trickle in for ever.
    deadline: Instant,
}

impl<'a> Wire<'a> {
    fn new(client: &'a mut Connection) -> Self {
        Self { client, out: Vec::new(), sent: 0, deadline: Instant::now() + IDLE }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client.send(&self.out, STUCK)?;
        self.sent += u64::try_from(self.out.len()).unwrap_or_default();
        self.out.clear();
        Ok(())
    }

    /// Something was done for the client: its time begins anew.
    fn active(&mut self) {
        self.deadline = Instant::now() + IDLE;
    }

    /// Input; empty when the client has ended.
    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        self.flush()?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let milliseconds = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let length = self.client.receive(buffer, milliseconds)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

/// Speaks to a client that has not logged in, and asks the monitor about its passwords. Ends when
/// the client has logged in, and its input is handed over, or has gone.
pub fn login_child(client: &mut Connection, monitor: &Channel, facts: &Facts) -> Exit {
    match login(&mut Wire::new(client), monitor, facts) {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::IoErr,
    }
}

fn login(wire: &mut Wire<'_>, monitor: &Channel, facts: &Facts) -> io::Result<()> {
    let mut session = login::Session::new(facts.clone());
    let mut buffer = [0; READ];
    loop {
        while let Some(action) = session.next() {
            wire.active();
            match action {
                login::Action::Send(bytes) => wire.out.extend_from_slice(&bytes),
                login::Action::Authenticate { user, password } => {
                    wire.flush()?;
                    let password = password.0;
                    let answer = ask(monitor, &Credentials { user, password })?;
                    wire.active();
                    session.answer(match answer {
                        Answer::Accepted => login::Answer::Accepted,
                        Answer::Refused => login::Answer::Refused,
                        Answer::Unavailable => login::Answer::Unavailable,
                    });
                }
                login::Action::LoggedIn { leftover } => {
                    let record = HandOver { leftover }.encode().ok_or_else(misfit)?;
                    wire.flush()?;
                    return monitor.send(&record);
                }
                login::Action::Close(_) => return wire.flush(),
            }
        }
        match wire.receive(&mut buffer)? {
            [] => return Ok(()),
            bytes => session.push(bytes),
        }
    }
}

fn ask(monitor: &Channel, asked: &Credentials) -> io::Result<Answer> {
    monitor.send(&asked.encode().ok_or_else(misfit)?)?;
    let mut record = [0; Answer::LENGTH];
    let length = monitor.receive(&mut record)?;
    record.get(..length).and_then(Answer::decode).ok_or_else(misfit)
}

fn misfit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record has another shape")
}

/// Answers the login child, as root; after the right password becomes the user and serves it.
fn monitor(
    config: &Config,
    client: &mut Connection,
    channel: Channel,
    child: Option<Pid>,
    log: &Log,
) -> Exit {
    let peer = client.peer;
    let judged = judge(config, &channel, log, &peer);
    // Its end of the channel closes when the child has ended; from then on the client is ours.
    let silent = !matches!(judged, Ok(Some(_))) || matches!(channel.receive(&mut [0; 1]), Ok(0));
    drop(channel);
    let ended = child.map_or(Ok(process::Ended::Exited(0)), process::wait);
    let (account, leftover) = match (judged, silent, ended) {
        (Ok(Some(accepted)), true, Ok(process::Ended::Exited(0))) => accepted,
        (Ok(None), ..) => return Exit::Ok,
        (Err(error), ..) => {
            log.warning(&format!("login child: {error}, rip={peer}"));
            return Exit::Protocol;
        }
        (_, _, ended) => {
            log.warning(&format!("login child: ended by {ended:?}, rip={peer}"));
            return Exit::Protocol;
        }
    };
    if let Err(error) = privilege::become_account(&account) {
        log.error(&format!("user=<{}>: {error}", shown(account.name.as_bytes())));
        let _ = client.send(&Session::refusal(), STUCK);
        return Exit::OsErr;
    }
    umask(Mode::from_bits_truncate(0o077));
    maildrop::session(config, client, &account, &leftover, log)
}

/// Answers passwords until one is right (then with the input that is handed over), or the child
/// has ended, or three were wrong.
fn judge(
    config: &Config,
    child: &Channel,
    log: &Log,
    peer: &Peer,
) -> io::Result<Option<(Account, Vec<u8>)>> {
    let mut failures = 0;
    // The session asks less often; this is for a child that is no longer ours.
    for _ in 0..login::MAX_COMMANDS {
        let mut record = [0; Credentials::LENGTH];
        let length = child.receive(&mut record)?;
        if length == 0 {
            return Ok(None);
        }
        let asked = record.get(..length).and_then(Credentials::decode).ok_or_else(misfit)?;
        // No account has a name that is not UTF-8, nor an empty one.
        let name = std::str::from_utf8(&asked.user).unwrap_or_default();
        let verdict = auth::authenticate(config, Scope::Pop, name, &asked.password);
        let who = format!("user=<{}>, method=PLAIN, rip={peer}", shown(&asked.user));
        match verdict {
            Verdict::Accepted(account) => {
                log.info(&format!("Login: {who}, status=accepted"));
                child.send(&Answer::Accepted.encode())?;
                return Ok(hand_over(child)?.map(|leftover| (account, leftover)));
            }
            Verdict::Refused => {
                failures += 1;
                // In the words that fail2ban's filter for Dovecot knows.
                log.warning(&format!(
                    "Aborted login (auth failed, {failures} attempts): {who}, status=refused"
                ));
                // Here and not in the child, which might no longer be ours.
                std::thread::sleep(delay(failures));
                child.send(&Answer::Refused.encode())?;
                if failures >= login::MAX_FAILURES {
                    return Ok(None);
                }
            }
            Verdict::Unavailable(why) => {
                log.error(&format!("Login: {who}, status=unavailable: {why}"));
                child.send(&Answer::Unavailable.encode())?;
            }
        }
    }
    Ok(None)
}

fn hand_over(child: &Channel) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; HandOver::LENGTH];
    let length = child.receive(&mut record)?;
    if length == 0 {
        return Ok(None);
    }
    let handed = record.get(..length).and_then(HandOver::decode);
    Ok(Some(handed.ok_or_else(misfit)?.leftover))
}

/// The wait after so many failures of a session.
pub(super) fn delay(failures: u32) -> Duration {
    Duration::from_secs(2).saturating_mul(failures)
}

/// A name for the log: what a stranger typed must not look like the rest of the line.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        match byte {
            b' ' | b'<' | b'>' | b',' | b'=' | b'\\' => text.push('?'),
            b if b.is_ascii_graphic() => text.push(char::from(b)),
            b => text.extend(b.escape_ascii().map(char::from)),
        }
    }
    text
}

#[cfg(test)]
#[path = "pop3_tests.rs"]
mod tests;
