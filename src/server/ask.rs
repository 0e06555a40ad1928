//! What a session child, whatever it speaks, says and asks: a byte for the kind, and a text or a
//! record of bounded size.

use std::io;

use crate::server::record;
use crate::sys::Log;
use crate::sys::channel::Channel;
use crate::sys::log::Level;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Is there such a user?
    User = 0,
    Info = 1,
    Warning = 2,
    Error = 3,
    /// A question of a login ([`super::login`]).
    Login = 4,
    /// The client is another one than has come.
    Client = 5,
    /// The session ends as it should.
    End = 6,
    /// The session goes on as its user.
    HandOver = 7,
    /// The session is encrypted, by this version of TLS.
    Tls = 8,
}

/// Longest text.
const MAX_TEXT: usize = 2048;

/// Longest question, its kind aside.
pub(super) const MAX: usize = record::HandOver::LENGTH;

impl Ask {
    const ALL: [Self; 9] = [
        Self::User,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Login,
        Self::Client,
        Self::End,
        Self::HandOver,
        Self::Tls,
    ];

    /// What a record asks, and with which text.
    pub(super) fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, text) = record.split_first()?;
        Some((Self::ALL.into_iter().find(|one| *one as u8 == *kind)?, text))
    }

    /// Says a text, cut where it is too long.
    pub(super) fn say(self, monitor: &Channel, text: impl AsRef<[u8]>) -> io::Result<()> {
        let text = text.as_ref();
        self.put(monitor, text.get(..MAX_TEXT).unwrap_or(text))
    }

    /// Puts a question.
    pub(super) fn put(self, monitor: &Channel, question: &[u8]) -> io::Result<()> {
        monitor.send(&[&[self as u8], question].concat())
    }

    /// Writes the line, where it is one.
    pub(super) fn log(self, log: &Log, line: &str) {
        match self {
            Self::Info => log.line(Level::Info, line),
            Self::Warning => log.line(Level::Warning, line),
            _ => log.line(Level::Error, line),
        }
    }
}
