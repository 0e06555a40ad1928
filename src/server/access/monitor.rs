//! Who answers a login child, as root; after a login it becomes the user and serves it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::Server;
use crate::net::tls::VERSIONS;
use crate::server::ask::{Ask, MAX};
use crate::server::login::{Logins, misfit, shown};
use crate::server::parent::Heard;
use crate::server::record::HandOver;
use crate::server::{Connection, Peer};
use crate::sys::channel::{Channel, Descriptors};
use crate::sys::{Account, Exit, privilege, process};

/// So long, in milliseconds, may a client take nothing of a refusal.
const STUCK: u32 = 10_000;

/// What a session's parent knows of it.
pub struct Monitor<'a> {
    server: &'a Server<'a>,
    /// Where the client came from, and who it is by now.
    came: Option<IpAddr>,
    peer: Peer,
    logins: Logins<'a>,
    /// Whether the session has said that it ends.
    is_over: bool,
}

/// Who has logged in, the client, and what its session begins with.
type LoggedIn = (Account, Connection, HandOver);

impl<'a> Monitor<'a> {
    /// Of a session that is about to begin.
    pub(super) fn new(server: &'a Server<'a>, came: Option<IpAddr>) -> Self {
        let logins = Logins::new(server.config, server.log, server.protocol.scope);
        Self { server, came, peer: Peer::at(came), logins, is_over: false }
    }

    /// Takes note of what the child says.
    pub(super) fn hear(&mut self, record: &[u8]) -> Heard {
        match self.note(record) {
            Some(heard) => heard,
            None => Heard::Nonsense,
        }
    }

    fn note(&mut self, record: &[u8]) -> Option<Heard> {
        let (kind, text) = Ask::split(record)?;
        match kind {
            Ask::Login | Ask::HandOver => return Some(Heard::Question),
            // Only those who may speak for others are somebody else than who has come.
            Ask::Client => {
                self.came.filter(|came| self.server.section().is_proxy(*came))?;
                self.peer.address = Some(std::str::from_utf8(text).ok()?.parse().ok()?);
            }
            // It is believed, as nothing but lines in the log come of it.
            Ask::Tls => self.peer.tls = Some(VERSIONS.into_iter().find(|v| v.as_bytes() == text)?),
            Ask::End => self.is_over = true,
            Ask::User => return None,
            Ask::Info | Ask::Warning | Ask::Error => {
                kind.log(self.server.log, &String::from_utf8_lossy(text));
            }
        }
        Some(Heard::Nothing)
    }

    /// The child has gone.
    pub(super) fn end(&self) -> Exit {
        if self.is_over {
            return Exit::Ok;
        }
        let peer = self.peer;
        self.server.log.error(&format!("login child: ended before its time, rip={peer}"));
        Exit::Protocol
    }

    /// Answers until somebody has logged in, and serves that user; `first` was heard already, `child`
    /// is to be waited for.
    pub(super) fn stay(mut self, line: Channel, first: &[u8], child: Option<Pid>) -> Exit {
        let judged = self.judge(&line, first);
        drop(line);
        let (account, client, handed) = match judged {
            Ok(Some(logged_in)) => logged_in,
            Ok(None) => return self.end(),
            Err(error) => {
                let peer = self.peer;
                self.server.log.warning(&format!("login child: {error}, rip={peer}"));
                return Exit::Protocol;
            }
        };
        if let (Some(child), false) = (child, handed.relays) {
            let _ = process::wait(child);
        }
        self.become_user(&account, client, &handed)
    }

    fn judge(&mut self, line: &Channel, first: &[u8]) -> io::Result<Option<LoggedIn>> {
        if !first.is_empty()
            && let Some(logged_in) = self.answer(line, first, Descriptors::default())?
        {
            return Ok(Some(logged_in));
        }
        let mut buffer = vec![0; MAX + 1];
        loop {
            let (length, descriptors) = line.receive_all(&mut buffer)?;
            let record = buffer.get(..length).unwrap_or_default();
            if record.is_empty() {
                return Ok(None);
            }
            if let Some(logged_in) = self.answer(line, record, descriptors)? {
                return Ok(Some(logged_in));
            }
        }
    }

    fn answer(
        &mut self,
        line: &Channel,
        record: &[u8],
        descriptors: Descriptors,
    ) -> io::Result<Option<LoggedIn>> {
        match self.note(record).ok_or_else(misfit)? {
            Heard::Nothing => return Ok(None),
            Heard::Question | Heard::Nonsense => {}
        }
        let (kind, question) = Ask::split(record).ok_or_else(misfit)?;
        if kind == Ask::HandOver {
            let account = self.logins.accepted().ok_or_else(misfit)?;
            let handed = HandOver::decode(question).ok_or_else(misfit)?;
            let client = self.take_over(line, &handed, descriptors)?;
            return Ok(Some((account, client, handed)));
        }
        let peer = self.peer;
        let Some(answer) = self.logins.answer(question, || peer.to_string()) else {
            return Err(io::Error::other("asked for what it may not"));
        };
        line.send(&answer)?;
        Ok(None)
    }

    /// The client as its session has it.
    fn take_over(
        &self,
        line: &Channel,
        handed: &HandOver,
        descriptors: Descriptors,
    ) -> io::Result<Connection> {
        let [input, output, _] = descriptors;
        let mut client = match (handed.relays, input, output) {
            (true, None, None) => {
                let (ours, theirs) = UnixStream::pair()?;
                line.send_with(b"1", &[theirs.as_fd()])?;
                Connection::accepted(OwnedFd::from(ours), None)
            }
            (false, Some(input), Some(output)) => {
                // Who has ended sends nothing more; from now on the client is ours alone.
                if !matches!(line.receive(&mut [0]), Ok(0)) {
                    return Err(misfit());
                }
                Connection::handed(input, output)
            }
            _ => return Err(misfit()),
        };
        client.peer = self.peer;
        Ok(client)
    }

    fn become_user(&self, account: &Account, mut client: Connection, handed: &HandOver) -> Exit {
        let Server { protocol, config, log, .. } = self.server;
        if let Err(error) = privilege::become_account(account) {
            log.error(&format!("user=<{}>: {error}", shown(account.name.as_bytes())));
            let _ = client.send(&(protocol.refusal)(&handed.tag), STUCK);
            return Exit::OsErr;
        }
        umask(Mode::from_bits_truncate(0o077));
        (protocol.serve)(config, &mut client, account, handed, log)
    }
}
