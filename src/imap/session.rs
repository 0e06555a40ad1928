//! The session after login (RFC 9051 section 3): what it does with the bytes that it gets.
//!
//! It knows commands, and when they may be said; what they do to mailboxes is for whoever obeys it.
//! A command is answered before the next one is asked for: so there is no more to hold than one.

use std::collections::VecDeque;

use super::command::{AppendTo, Dialect, Error, Failure, Tagged, append, parse, tag as tag_of};
use super::input::{Event, Limits, Literal, Reader};
use super::reply::{self, Condition};

/// So many commands in a row that are none end the session.
pub const MAX_BAD_COMMANDS: u32 = 20;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Obey a command, and answer it.
    Run(Tagged),
    /// A message is announced: say by [`Session::take_message`] whether it is wanted.
    Append(AppendTo),
    /// Octets of the message.
    Chunk(Vec<u8>),
    /// The message is all there, and the command with it; false: it did not end as it should, and
    /// was answered.
    Appended(bool),
    /// The client has waited long enough: answer its IDLE, which had this tag.
    Done(String),
    /// End the connection.
    Close,
}

/// A session after login.
#[derive(Debug)]
pub struct Session {
    waiting: Vec<u8>,
    reader: Reader,
    dialect: Dialect,
    actions: VecDeque<Action>,
    state: State,
    bad_commands: u32,
}

#[derive(Debug)]
enum State {
    /// Commands are read.
    Open,
    /// A message is announced.
    Announced { tag: String, literal: Literal },
    /// It comes, and then the end of the command.
    Streaming { tag: String },
    /// DONE is waited for.
    Idle { tag: String },
    /// There is nothing more to do.
    Ended,
}

impl Session {
    /// A session that begins with this input.
    pub fn new(leftover: &[u8]) -> Self {
        Self {
            waiting: leftover.to_vec(),
            reader: Reader::new(Limits::AFTER_LOGIN),
            dialect: Dialect::default(),
            actions: VecDeque::new(),
            state: State::Open,
            bad_commands: 0,
        }
    }

    /// Takes input.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// From now on names of mailboxes are UTF-8.
    pub fn speak_utf8(&mut self) {
        self.dialect.utf8 = true;
    }

    /// IDLE was begun.
    pub fn idle(&mut self, tag: &str) {
        self.state = State::Idle { tag: tag.to_owned() };
    }

    /// Whether it is idle: then the client is told what happens.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Whether the message of [`Action::Append`] is wanted; who does not want it has said why.
    pub fn take_message(&mut self, wanted: bool) {
        if let State::Announced { tag, literal } = std::mem::replace(&mut self.state, State::Open) {
            if !wanted {
                return self.reader.refuse();
            }
            self.reader.stream();
            if literal.synchronizing {
                self.send(|out| reply::continuation("go on", out));
            }
            self.state = State::Streaming { tag };
        }
    }

    /// There is nothing more to do.
    pub fn end(&mut self) {
        self.state = State::Ended;
        self.actions.push_back(Action::Close);
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.actions.push_back(Action::Send(out));
    }

    fn bad(&mut self, failure: &Failure) {
        self.bad_commands += 1;
        self.send(|out| reply::failure(failure, out));
        if self.bad_commands >= MAX_BAD_COMMANDS {
            let text = "too many bad commands";
            self.send(|out| reply::status(None, Condition::Bye, None, text, out));
            self.end();
        }
    }

    fn command(&mut self, text: &[u8]) {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Streaming { tag } => {
                let is_end = text.is_empty();
                if !is_end {
                    let error = Error::Wanted("the end of the command");
                    self.bad(&Failure { tag: Some(tag), error });
                }
                self.actions.push_back(Action::Appended(is_end));
            }
            State::Idle { tag } => {
                if text.trim_ascii_end().eq_ignore_ascii_case(b"DONE") {
                    self.actions.push_back(Action::Done(tag));
                } else {
                    self.bad(&Failure { tag: Some(tag), error: Error::Wanted("DONE") });
                }
            }
            _ => match parse(text, self.dialect) {
                Ok(tagged) => {
                    self.bad_commands = 0;
                    self.actions.push_back(Action::Run(tagged));
                }
                Err(failure) => self.bad(&failure),
            },
        }
    }

    /// A literal was announced.
    fn literal(&mut self, literal: Literal) {
        if !matches!(self.state, State::Open) {
            // More messages, or no DONE.
            self.reader.refuse();
            return self.command(b"{");
        }
        let failure = match append(self.reader.text(), self.dialect) {
            Some(Ok(to)) => {
                self.bad_commands = 0;
                self.state = State::Announced { tag: to.tag.clone(), literal };
                return self.actions.push_back(Action::Append(to));
            }
            Some(Err(failure)) => failure,
            None => match parse(self.reader.text(), self.dialect) {
                // Behind an empty literal something may come.
                Ok(Tagged { tag, .. }) => Failure { tag: Some(tag), error: Error::More },
                Err(failure) => failure,
            },
        };
        if failure.error != Error::More && literal.size > 0 {
            // It is wrong already, and will not become better.
            self.reader.refuse();
            self.bad(&failure);
        } else if self.reader.fits() {
            self.reader.keep();
            if literal.synchronizing {
                self.send(|out| reply::continuation("go on", out));
            }
        } else {
            let tag = tag_of(self.reader.text());
            self.reader.refuse();
            self.bad(&Failure { tag, error: Error::Wanted("a shorter literal") });
        }
    }

    /// Reads a command, or a part of one; whether there was one.
    fn read(&mut self) -> bool {
        let mut rest = self.waiting.as_slice();
        let event = self.reader.take(&mut rest);
        let used = self.waiting.len().saturating_sub(rest.len());
        let event = match event {
            Event::More => {
                self.waiting.clear();
                return false;
            }
            Event::Chunk(octets) => {
                self.actions.push_back(Action::Chunk(octets.to_vec()));
                self.waiting.drain(..used);
                return true;
            }
            Event::Command(text) => Some(Ok(text)),
            Event::TooLong(tag) => Some(Err(tag)),
            Event::Literal(literal) => {
                self.waiting.drain(..used);
                self.literal(literal);
                return true;
            }
            Event::End => None,
        };
        self.waiting.drain(..used);
        match event {
            None => {}
            Some(Ok(text)) => self.command(&text),
            Some(Err(_)) if !matches!(self.state, State::Open) => self.command(b"{"),
            Some(Err(tag)) => {
                self.bad(&Failure { tag, error: Error::Wanted("a shorter command") });
            }
        }
        true
    }
}

impl Iterator for Session {
    type Item = Action;

    /// What is to be done next; `None` when input is wanted, or all is over.
    fn next(&mut self) -> Option<Self::Item> {
        while self.actions.is_empty() {
            if matches!(self.state, State::Ended | State::Announced { .. }) || !self.read() {
                break;
            }
        }
        self.actions.pop_front()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
