//! A client's connection: what is sent is read along, so that it is known which command an answer is
//! for, and answers are taken apart with their literals.

use std::time::Duration;

use super::super::peer::{Heard, Peer};
use super::node::{CONDITIONS, Response, show, size_of_literal};
use super::told::Told;

/// A client of an IMAP server.
pub struct Client {
    pub peer: Peer,
    told: Told,
    /// What was sent of a command so far.
    sending: Vec<u8>,
    /// What is still to be sent of a literal.
    literal: usize,
    /// Whether a line goes on behind it.
    goes_on: bool,
}

/// What was heard.
#[derive(Debug)]
pub enum Said {
    /// A response, and as it is shown.
    Response(Response, String),
    Closed,
    Silence,
}

impl Client {
    pub fn new(peer: Peer) -> Self {
        let told = Told::default();
        Self { peer, told, sending: Vec::new(), literal: 0, goes_on: false }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.literal > 0 {
                self.literal -= 1;
                continue;
            }
            self.sending.push(*byte);
            if *byte != b'\n' {
                continue;
            }
            let line = String::from_utf8_lossy(&self.sending).trim_end().to_owned();
            self.sending.clear();
            if !self.goes_on {
                self.told.asks(&line);
            }
            self.literal = size_of_literal(&line).unwrap_or(0);
            self.goes_on = line.ends_with('}') && size_of_literal(&line).is_some();
        }
        self.peer.send(bytes);
    }

    /// Hears a response, whole.
    pub fn hear(&mut self, within: Option<Duration>) -> Result<Said, String> {
        let heard = match within {
            Some(limit) => self.peer.hear_within(limit),
            None => self.peer.hear(),
        };
        let mut text = match heard {
            Heard::Line(line) => show(&line),
            Heard::Closed(rest) if rest.is_empty() => return Ok(Said::Closed),
            Heard::Closed(rest) => return Err(format!("the end within {:?}", show(&rest))),
            Heard::Silence => return Ok(Said::Silence),
        };
        let is_data = text.starts_with("* ")
            && !text.split(' ').nth(1).is_some_and(|word| CONDITIONS.contains(&word));
        while let Some(size) = size_of_literal(&text).filter(|_| is_data) {
            let octets = self.peer.take(size).ok_or(format!("the end in a literal: {text}"))?;
            if !text.ends_with(&format!("~{{{size}}}")) && octets.contains(&0) {
                return Err(format!("NUL in a literal: {text}"));
            }
            text.push('\n');
            text.push_str(&show(&octets));
            match self.peer.hear() {
                Heard::Line(line) => text.push_str(&show(&line)),
                other => return Err(format!("the end behind a literal: {text}: {other:?}")),
            }
        }
        if self.peer.bare_lf {
            return Err(format!("a line ends in a bare LF: {text:?}"));
        }
        let response = Response::read(&text, true).map_err(|what| format!("{what}: {text}"))?;
        let tag = response.word(0);
        if self.told.awaits(tag) {
            // It does not want the rest of a command that was cut short.
            (self.literal, self.goes_on) = (0, false);
            self.sending.clear();
        }
        self.told.hears(&response).map_err(|what| format!("{what}: {text}"))?;
        Ok(Said::Response(response, text))
    }
}
