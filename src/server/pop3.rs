//! The POP3 server: what its protocol has of its own before login; [`maildrop`] is the session after it.

pub mod maildrop;

use std::io;
use std::time::{Duration, Instant};

use super::Connection;
use super::access::{Dialogue, Protocol, Step};
use crate::auth::Scope;
use crate::pop3::login::{self, Action};
use crate::pop3::session::Session;
use crate::sasl;

/// So long may a client say nothing: the least that RFC 1939 section 3 allows.
const IDLE: Duration = Duration::from_mins(10);

/// So long, in milliseconds, may a client take nothing of what it asked for.
const STUCK: u32 = 300_000;

/// So much is collected before it is sent.
const CHUNK: usize = 64 * 1024;

/// So much is read at once.
const READ: usize = 4 * 1024;

/// POP3.
pub static PROTOCOL: Protocol = Protocol {
    scope: Scope::Pop,
    words: ["pop3", "pop3s"],
    silence: IDLE,
    busy: "-ERR [SYS/TEMP] too many connections\r\n",
    section: |config| &config.pop3,
    begin: |terms| Box::new(login::Session::new(terms)),
    serve: |config, client, account, handed, log| {
        maildrop::session(config, client, account, &handed.leftover, log)
    },
    refusal: |_| Session::refusal(),
};

impl Dialogue for login::Session {
    fn push(&mut self, bytes: &[u8]) {
        login::Session::push(self, bytes);
    }

    fn next(&mut self) -> Option<Step> {
        Some(match Iterator::next(self)? {
            Action::Send(bytes) => Step::Send(bytes),
            Action::StartTls => Step::StartTls,
            Action::Authenticate(mechanism, question) => Step::Ask(mechanism, question),
            Action::LoggedIn { leftover } => Step::LoggedIn { tag: String::new(), leftover },
            Action::Close(_) => Step::Close,
        })
    }

    fn answer(&mut self, answer: sasl::Answer) {
        login::Session::answer(self, answer);
    }

    fn encrypted(&mut self, bindings: Vec<sasl::Binding>) {
        login::Session::encrypted(self, bindings);
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

#[cfg(test)]
#[path = "pop3_tests.rs"]
mod tests;
