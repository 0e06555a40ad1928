//! The TRANSACTION and UPDATE states (RFC 1939 sections 5 and 6): what a user says to the
//! maildrop.
//!
//! Nothing is deleted but at QUIT, and QUIT is answered only when that is done. A session that just
//! stops has deleted nothing.

use std::collections::VecDeque;

use super::command::{Command, Number, command};
use super::{Input, MAX_LINE, capabilities, reply};
use crate::text::line::Line;

/// What the session knows of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its size in octets, with CRLF line ends and without dots put in.
    pub size: u64,
    /// Its unique id: 1 to 70 characters from `!` to `~`.
    pub unique_id: String,
}

/// What is to be done. An index counts from 0, in the order of the messages given.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send a message, made dot transparent and ended with its dot. Where no byte of it can be
    /// read, [`Session::unreadable`] is to be told instead; where it breaks off in the middle, the
    /// connection has to end, or half of it would pass for the whole.
    SendMessage {
        /// The reply that goes before it, once there is something to send.
        reply: Vec<u8>,
        /// Which message.
        index: usize,
        /// The header and so many lines of the body, or all of it.
        body_lines: Option<u64>,
    },
    /// Remove these messages for good, and tell by [`Session::expunged`].
    Expunge(Vec<usize>),
    /// End the connection.
    Close,
}

/// A session after login.
#[derive(Debug)]
pub struct Session {
    messages: Vec<Message>,
    deleted: Vec<bool>,
    input: Input,
    actions: VecDeque<Action>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Transaction,
    Update,
    Ended,
}

impl Session {
    /// A session over these messages. It begins with the reply to PASS.
    pub fn new(messages: Vec<Message>) -> Self {
        let mut session = Self {
            deleted: vec![false; messages.len()],
            messages,
            input: Input::new(MAX_LINE),
            actions: VecDeque::new(),
            state: State::Transaction,
        };
        let text = format!("+OK maildrop has {}", session.summary());
        session.say(&text);
        session
    }

    /// The reply to PASS where there is no maildrop to talk about.
    pub fn refusal() -> Vec<u8> {
        reply("-ERR [SYS/TEMP] the mailbox can't be opened now, try again later")
    }

    /// Takes input.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Ended {
            self.input.push(bytes);
        }
    }

    /// The message just asked for can't be read; not one byte of it was sent, nor the reply.
    pub fn unreadable(&mut self) {
        self.say("-ERR [SYS/TEMP] the message can't be read now");
    }

    /// Takes the answer to [`Action::Expunge`]: whether all of the messages are gone.
    pub fn expunged(&mut self, all: bool) {
        if self.state != State::Update {
            return;
        }
        if all {
            self.end("+OK bye");
        } else {
            self.end("-ERR [SYS/TEMP] some deleted messages not removed");
        }
    }

    fn obey(&mut self, command: &Command) {
        match *command {
            Command::Stat => {
                let (count, octets) = self.totals();
                self.say(&format!("+OK {count} {octets}"));
            }
            Command::List(which) => {
                self.listing(which, |message| message.size.to_string());
            }
            Command::Uidl(which) => {
                self.listing(which, |message| message.unique_id.clone());
            }
            Command::Retr(number) => self.message(number, None),
            Command::Top(number, lines) => self.message(number, Some(lines)),
            Command::Dele(number) => match self.existing(number) {
                Ok((index, _)) => {
                    if let Some(mark) = self.deleted.get_mut(index) {
                        *mark = true;
                    }
                    self.say(&format!("+OK message {number} deleted"));
                }
                Err(text) => self.say(&text),
            },
            Command::Noop => self.say("+OK"),
            Command::Rset => {
                self.deleted.fill(false);
                let text = format!("+OK maildrop has {}", self.summary());
                self.say(&text);
            }
            // Whoever is here could log in by USER.
            Command::Capa => self.actions.push_back(Action::Send(capabilities("USER\r\n"))),
            Command::Quit => self.quit(),
            Command::User(_)
            | Command::Pass(_)
            | Command::Auth { .. }
            | Command::Stls
            | Command::NotOffered => self.say("-ERR already logged in"),
        }
    }

    fn quit(&mut self) {
        let marked: Vec<usize> = self
            .deleted
            .iter()
            .enumerate()
            .filter_map(|(index, deleted)| deleted.then_some(index))
            .collect();
        if marked.is_empty() {
            self.end("+OK bye");
        } else {
            self.state = State::Update;
            self.actions.push_back(Action::Expunge(marked));
        }
    }

    fn message(&mut self, number: Number, body_lines: Option<u64>) {
        let action = match self.existing(number) {
            Ok((index, message)) => Action::SendMessage {
                reply: match body_lines {
                    None => reply(&format!("+OK {} octets", message.size)),
                    Some(_) => reply("+OK"),
                },
                index,
                body_lines,
            },
            Err(text) => Action::Send(reply(&text)),
        };
        self.actions.push_back(action);
    }

    /// One message's line, or those of all that are not deleted.
    fn listing(&mut self, which: Option<Number>, show: impl Fn(&Message) -> String) {
        let Some(number) = which else {
            let mut text = format!("+OK {}\r\n", self.summary());
            for (number, message) in self.left() {
                text.extend([&number.to_string(), " ", &show(message), "\r\n"]);
            }
            text += ".\r\n";
            self.actions.push_back(Action::Send(text.into_bytes()));
            return;
        };
        let text = match self.existing(number) {
            Ok((_, message)) => format!("+OK {number} {}", show(message)),
            Err(text) => text,
        };
        self.say(&text);
    }

    /// The messages that are not deleted, with their numbers.
    fn left(&self) -> impl Iterator<Item = (Number, &Message)> {
        (1..)
            .zip(&self.messages)
            .zip(&self.deleted)
            .filter_map(|(numbered, deleted)| (!deleted).then_some(numbered))
    }

    fn existing(&self, number: Number) -> Result<(usize, &Message), String> {
        let found = number
            .checked_sub(1)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| Some((index, self.messages.get(index)?, self.deleted.get(index)?)));
        match found {
            Some((index, message, false)) => Ok((index, message)),
            Some(_) => Err(format!("-ERR message {number} is deleted")),
            None => Err(format!("-ERR no such message, the maildrop has {}", self.messages.len())),
        }
    }

    fn totals(&self) -> (usize, u64) {
        self.left().fold((0, 0), |(count, octets), (_, message)| {
            (count + 1, octets.saturating_add(message.size))
        })
    }

    fn summary(&self) -> String {
        let (count, octets) = self.totals();
        let messages = if count == 1 { "message" } else { "messages" };
        format!("{count} {messages} ({octets} octets)")
    }

    fn say(&mut self, text: &str) {
        self.actions.push_back(Action::Send(reply(text)));
    }

    fn end(&mut self, text: &str) {
        self.state = State::Ended;
        self.say(text);
        self.actions.push_back(Action::Close);
    }
}

impl Iterator for Session {
    type Item = Action;

    /// What is to be done next; `None` when input or an answer is wanted, or all is over.
    fn next(&mut self) -> Option<Self::Item> {
        while self.actions.is_empty() && self.state == State::Transaction {
            match self.input.line() {
                Line::Whole(line) => match command(&line) {
                    Ok(command) => self.obey(&command),
                    Err(error) => self.say(&error.reply()),
                },
                Line::TooLong => self.say(&format!("-ERR a line has at most {MAX_LINE} bytes")),
                Line::More => break,
            }
        }
        self.actions.pop_front()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
