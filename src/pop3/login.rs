//! The AUTHORIZATION state (RFC 1939 section 4): what is said before anybody is known.
//!
//! After the right password nothing more is read, and nothing is said: the +OK to PASS is the
//! first word of [`super::session::Session`], which knows the maildrop.

use std::collections::VecDeque;

use super::command::{Command, Password, command};
use super::{Input, MAX_LEFTOVER, MAX_LINE, capabilities, reply};
use crate::text::line::Line;

/// So many lines that are no command end the session.
pub const MAX_BAD_COMMANDS: u32 = 3;

/// So many wrong passwords end the session.
pub const MAX_FAILURES: u32 = 3;

/// So many commands of any kind end the session: a client has no use for more before it logs in.
pub const MAX_COMMANDS: u32 = 50;

/// The longest name that is asked about, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest password that is asked about, in bytes.
pub const MAX_PASSWORD: usize = 256;

/// What the session is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The name of this host, for the greeting.
    pub hostname: String,
    /// Whether passwords are taken as they come: over loopback, or where the operator allows it.
    pub plaintext_allowed: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Ask whether the password is right, and tell by [`Session::answer`]. Whoever answers also
    /// makes the client wait, longer after each failure.
    Authenticate {
        /// The name, of 1 to [`MAX_NAME`] bytes.
        user: Vec<u8>,
        /// The password, of 1 to [`MAX_PASSWORD`] bytes.
        password: Password,
    },
    /// The session goes on as its user, with this input first.
    LoggedIn {
        /// Input that came behind the password, at most [`MAX_LEFTOVER`] bytes.
        leftover: Vec<u8>,
    },
    /// End the connection.
    Close(Reason),
}

/// Why a session ends before login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client said so.
    Quit,
    /// Too many lines that are no command.
    BadCommands,
    /// Too many wrong passwords.
    Failures,
    /// More commands or more input than a login takes.
    TooMuch,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The password is right.
    Accepted,
    /// It is wrong, or there is no such user.
    Refused,
    /// It can't be told now.
    Unavailable,
}

/// A session before login.
#[derive(Debug)]
pub struct Session {
    facts: Facts,
    input: Input,
    actions: VecDeque<Action>,
    state: State,
    user: Option<Vec<u8>>,
    commands: u32,
    bad_commands: u32,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Commands are read.
    Open,
    /// An answer is waited for.
    Asking,
    /// There is nothing more to do.
    Ended,
}

impl Session {
    /// A session that begins with the greeting.
    pub fn new(facts: Facts) -> Self {
        let greeting = reply(&format!("+OK {} POP3 server ready", facts.hostname));
        Self {
            facts,
            input: Input::new(),
            actions: VecDeque::from([Action::Send(greeting)]),
            state: State::Open,
            user: None,
            commands: 0,
            bad_commands: 0,
            failures: 0,
        }
    }

    /// Takes input.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        if self.input.rest().len() + bytes.len() > MAX_LEFTOVER {
            self.end("-ERR too much at once", Reason::TooMuch);
            return;
        }
        self.input.push(bytes);
    }

    /// Takes the answer to [`Action::Authenticate`].
    pub fn answer(&mut self, answer: Answer) {
        if self.state != State::Asking {
            return;
        }
        self.state = State::Open;
        match answer {
            Answer::Accepted => {
                self.state = State::Ended;
                self.actions.push_back(Action::LoggedIn { leftover: self.input.rest().to_vec() });
            }
            Answer::Refused => {
                self.failures += 1;
                let text = "-ERR [AUTH] wrong name or password";
                if self.failures >= MAX_FAILURES {
                    self.end(text, Reason::Failures);
                } else {
                    self.say(text);
                }
            }
            Answer::Unavailable => {
                self.say("-ERR [SYS/TEMP] passwords can't be checked now, try again later");
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.commands += 1;
        if self.commands > MAX_COMMANDS {
            self.end("-ERR too many commands", Reason::TooMuch);
            return;
        }
        match command(line) {
            Ok(Command::User(_) | Command::Pass(_)) if !self.facts.plaintext_allowed => {
                self.say("-ERR [AUTH] passwords are not taken without encryption");
            }
            Ok(Command::User(name)) if name.len() > MAX_NAME => {
                self.bad(&format!("-ERR a name has at most {MAX_NAME} bytes"));
            }
            Ok(Command::User(name)) => {
                self.user = Some(name);
                // For every name: which of them exist is nobody's business.
                self.say("+OK now the password");
            }
            Ok(Command::Pass(password)) => self.pass(password),
            Ok(Command::Capa) => {
                let list = capabilities(self.facts.plaintext_allowed);
                self.actions.push_back(Action::Send(list));
            }
            Ok(Command::Quit) => self.end("+OK bye", Reason::Quit),
            // Clients try these, and go on with USER.
            Ok(Command::NotOffered) => self.say("-ERR not offered here"),
            Ok(_) => self.bad("-ERR log in first"),
            Err(error) => self.bad(&error.reply()),
        }
    }

    /// PASS comes behind USER. Quirk: other commands may stand between the two, so that a slip of
    /// the keyboard does not cost the name.
    fn pass(&mut self, password: Password) {
        let Some(user) = self.user.take() else {
            self.bad("-ERR USER comes first");
            return;
        };
        if password.0.len() > MAX_PASSWORD {
            self.bad(&format!("-ERR a password has at most {MAX_PASSWORD} bytes"));
            return;
        }
        self.state = State::Asking;
        self.actions.push_back(Action::Authenticate { user, password });
    }

    fn say(&mut self, text: &str) {
        self.actions.push_back(Action::Send(reply(text)));
    }

    fn bad(&mut self, text: &str) {
        self.bad_commands += 1;
        if self.bad_commands >= MAX_BAD_COMMANDS {
            self.end(text, Reason::BadCommands);
        } else {
            self.say(text);
        }
    }

    fn end(&mut self, text: &str, reason: Reason) {
        self.state = State::Ended;
        self.say(text);
        self.actions.push_back(Action::Close(reason));
    }
}

impl Iterator for Session {
    type Item = Action;

    /// What is to be done next; `None` when input or an answer is wanted, or all is over.
    fn next(&mut self) -> Option<Self::Item> {
        while self.actions.is_empty() && self.state == State::Open {
            match self.input.line() {
                Line::Whole(line) => self.line(&line),
                Line::TooLong => self.bad(&format!("-ERR a line has at most {MAX_LINE} bytes")),
                Line::More => break,
            }
        }
        self.actions.pop_front()
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
