//! Who answers a session child: says what is in the log, and who there is.
//!
//! Nothing here looks into a text but to log it.

use std::net::IpAddr;

use super::{Answer, Server, UNKNOWN};
use crate::auth::Scope;
use crate::route;
use crate::server::Peer;
use crate::server::ask::{Ask, MAX};
use crate::server::login::Logins;
use crate::server::policy::Keeper;
use crate::sys::Exit;
use crate::sys::channel::Channel;

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

/// What a record of a session asks for.
pub(super) enum Heard<'r> {
    /// Nothing more.
    Nothing,
    /// An answer to whether there is such a user.
    User(&'r str),
    /// An answer to a question of a login.
    Login(&'r [u8]),
}

impl<'a> Monitor<'a> {
    /// Of a session that is about to begin.
    pub(super) fn new(server: &'a Server<'a>, came: Option<IpAddr>) -> Self {
        let peer = Peer::at(came);
        let logins = Logins::new(server.config, server.log, Scope::Smtp);
        Self { server, came, peer, logins, is_over: false }
    }

    /// Takes note of a record; `None` where that is none of ours.
    pub(super) fn hear<'r>(&mut self, record: &'r [u8]) -> Option<Heard<'r>> {
        let (kind, text) = Ask::split(record)?;
        let lossy = String::from_utf8_lossy(text);
        match kind {
            Ask::Login => return Some(Heard::Login(text)),
            Ask::User => return std::str::from_utf8(text).ok().map(Heard::User),
            // Only those who may speak for others are somebody else than who has come.
            Ask::Client => {
                let smtp = &self.server.config.smtp;
                self.came.filter(|came| smtp.is_proxy(*came) || smtp.may_claim(*came))?;
                self.peer.address = Some(lossy.parse().ok()?);
            }
            Ask::End => self.is_over = true,
            Ask::HandOver | Ask::Tls => return None,
            Ask::Info | Ask::Warning | Ask::Error => kind.log(self.server.log, &lossy),
        }
        Some(Heard::Nothing)
    }

    /// Answers until the session is over; `first` was heard already.
    pub(super) fn stay(mut self, session: &Channel, first: &[u8], policy: Option<&Keeper>) -> Exit {
        let mut buffer = [0; MAX + 1];
        let mut record = first;
        loop {
            if !record.is_empty() && self.answer(session, record, policy).is_none() {
                return Exit::Protocol;
            }
            record = match session.receive(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    self.server.log.error(&format!("monitor: {error}"));
                    return Exit::OsErr;
                }
            };
        }
    }

    fn answer(&mut self, session: &Channel, record: &[u8], policy: Option<&Keeper>) -> Option<()> {
        let answer = match self.hear(record)? {
            Heard::Nothing => return Some(()),
            Heard::User(name) => {
                let answer = self.look_up(name);
                if let (Answer::Yes, Some(keeper)) = (answer, policy) {
                    keeper.learned(name);
                }
                vec![answer as u8]
            }
            Heard::Login(question) => {
                let peer = self.peer;
                let client = || format!("{}[{}]", called(policy, &peer), peer.address_or_local());
                self.logins.answer(question, client)?
            }
        };
        session.send(&answer).ok()
    }

    fn look_up(&self, name: &str) -> Answer {
        match route::account(self.server.config, name) {
            Ok(Some(_)) => Answer::Yes,
            Ok(None) => Answer::No,
            Err(error) => {
                self.server.log.error(&format!("looking up user {name:?}: {error}"));
                Answer::Unknown
            }
        }
    }

    /// The session has gone.
    pub(super) fn end(&self) -> Exit {
        if self.is_over {
            return Exit::Ok;
        }
        let client = self.peer.address_or_local();
        self.server.log.error(&format!("session of [{client}] ended before its time"));
        Exit::OsErr
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
