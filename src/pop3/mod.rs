//! The Post Office Protocol, version 3: RFC 1939, with the extensions of RFC 2449 (CAPA,
//! RESP-CODES, PIPELINING), RFC 3206 (AUTH-RESP-CODE), RFC 2595 (STLS) and RFC 5034 (AUTH).
//!
//! ```text
//!                 login::Session          session::Session
//! connection ──► AUTHORIZATION ──PASS, AUTH──► TRANSACTION ──QUIT──► UPDATE ──► end
//!                  │ ▲   └─QUIT, limits─► end        └─connection lost─► end, nothing deleted
//!                  └─┘ STLS
//! ```
//!
//! Pure: bytes and answers go in by `push` and kin, and `next` gives what is to be done, in order,
//! until it gives `None`: then what was sent is to be flushed and more input is wanted. Before and
//! after login are two types, since two processes run them; between them go at most
//! [`MAX_LEFTOVER`] bytes of input that nobody has looked at.

pub mod command;
pub mod login;
pub mod session;

use crate::text::line::{Line, LineReader};

/// The longest line that is read, its end included. RFC 2449 section 4 asks for 255.
pub const MAX_LINE: usize = 512;

/// The most input that may wait before login, and so be handed over after it.
pub const MAX_LEFTOVER: usize = 8 * 1024;

/// Input that waits for its turn, a line at a time.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
    reader: LineReader,
}

impl Input {
    /// Lines have at most so many bytes.
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, reader: LineReader::new(most) }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken.min(self.bytes.len()));
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// What waits, less a line that has only begun.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn line(&mut self) -> Line {
        let mut rest = self.bytes.get(self.taken..).unwrap_or_default();
        let line = self.reader.take(&mut rest);
        self.taken = self.bytes.len() - rest.len();
        line
    }
}

/// A reply of one line.
fn reply(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\r\n"].concat()
}

/// The reply to CAPA (RFC 2449 section 5), with what depends on the session in it.
fn capabilities(more: &str) -> Vec<u8> {
    format!(
        "+OK capabilities\r\nTOP\r\nUIDL\r\n{more}RESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n\
         EXPIRE NEVER\r\nIMPLEMENTATION Hikyaku\r\n.\r\n"
    )
    .into_bytes()
}
