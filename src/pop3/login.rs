//! The AUTHORIZATION state (RFC 1939 section 4): what is said before anybody is known.
//!
//! After a login nothing more is read, and nothing is said: the +OK to it is the first word of
//! [`super::session::Session`], which knows the maildrop.

use std::collections::VecDeque;

use base64ct::{Base64, Encoding};

use super::command::{Command, command};
use super::{Input, MAX_LEFTOVER, capabilities, reply};
use crate::sasl::{
    Answer, Binding, Exchange, Failure, MAX_FAILURES, MAX_NAME, MAX_PASSWORD, Mechanism, Question,
    Secret, Step, Terms, Tls,
};
use crate::text::line::Line;

/// The longest line, its end included: [`crate::sasl::MAX_RESPONSE`] in base64 fits.
const MAX_LINE: usize = 2048;

/// So many lines that are no command end the session.
pub const MAX_BAD_COMMANDS: u32 = 3;

/// So many commands of any kind end the session: a client has no use for more before it logs in.
pub const MAX_COMMANDS: u32 = 50;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send what was to be sent, begin TLS, and tell by [`Session::encrypted`]. A session whose
    /// handshake fails is at its end.
    StartTls,
    /// Ask whoever knows the accounts, and tell by [`Session::answer`]. Whoever answers also makes
    /// the client wait, longer after each failure. USER and PASS are PLAIN.
    Authenticate(Mechanism, Question),
    /// The session goes on as its user, with this input first.
    LoggedIn {
        /// Input that came behind the login, at most [`MAX_LEFTOVER`] bytes.
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
    /// Input came behind STLS, in the clear.
    Injection,
}

/// A session before login.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    input: Input,
    actions: VecDeque<Action>,
    state: State,
    user: Option<Vec<u8>>,
    commands: u32,
    bad_commands: u32,
    failures: u32,
}

#[derive(Debug)]
enum State {
    /// Commands are read.
    Open,
    /// The client's response is.
    Challenged(Box<Exchange>),
    /// An answer is waited for, to PASS or in an exchange.
    Asking(Option<Box<Exchange>>),
    /// TLS is to begin.
    StartingTls,
    /// There is nothing more to do.
    Ended,
}

impl Session {
    /// A session that begins with the greeting.
    pub fn new(terms: Terms) -> Self {
        let greeting = reply(&format!("+OK {} POP3 server ready", terms.hostname));
        Self {
            terms,
            input: Input::new(MAX_LINE),
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
        match self.state {
            State::Ended => {}
            // Somebody may have put it there before the client's first encrypted byte
            // (CVE-2011-0411).
            State::StartingTls if !bytes.is_empty() => self.injected(),
            _ if self.input.rest().len() + bytes.len() > MAX_LEFTOVER => {
                self.end("-ERR too much at once", Reason::TooMuch);
            }
            _ => self.input.push(bytes),
        }
    }

    /// TLS has begun, as [`Action::StartTls`] said, or before the session; this names the
    /// connection. Whatever the client said in the clear is forgotten, but not how often it was
    /// wrong.
    pub fn encrypted(&mut self, bindings: Vec<Binding>) {
        if matches!(self.state, State::StartingTls) {
            self.state = State::Open;
        }
        self.user = None;
        self.terms.encrypted(bindings, None);
    }

    /// Takes the answer to [`Action::Authenticate`].
    pub fn answer(&mut self, answer: Answer) {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Asking(Some(mut exchange)) => {
                let step = exchange.answer(answer);
                self.step(exchange, step);
            }
            State::Asking(None) => match answer {
                Answer::Accepted => self.logged_in(),
                Answer::Unavailable => self.failed(Failure::Unavailable),
                _ => self.failed(Failure::Refused),
            },
            state => self.state = state,
        }
    }

    fn logged_in(&mut self) {
        self.state = State::Ended;
        self.actions.push_back(Action::LoggedIn { leftover: self.input.rest().to_vec() });
    }

    /// What is true now: `USER`, `SASL` and `STLS`.
    fn capabilities(&self) -> Vec<u8> {
        let mut more = String::new();
        if self.terms.may_log_in() {
            more.push_str("USER\r\nSASL");
            for name in self.terms.mechanisms() {
                more.push(' ');
                more.push_str(name);
            }
            more.push_str("\r\n");
        }
        if self.terms.tls == Tls::Offered {
            more.push_str("STLS\r\n");
        }
        capabilities(&more)
    }

    fn stls(&mut self) {
        match self.terms.tls {
            Tls::Unknown => self.say("-ERR not offered here"),
            Tls::On => self.say("-ERR TLS is on already"),
            Tls::Offered if !self.input.rest().is_empty() => self.injected(),
            Tls::Offered => {
                self.say("+OK begin TLS now");
                self.actions.push_back(Action::StartTls);
                self.state = State::StartingTls;
            }
        }
    }

    fn injected(&mut self) {
        self.actions.retain(|action| *action != Action::StartTls);
        self.end("-ERR input came before TLS", Reason::Injection);
    }

    fn auth(&mut self, mechanism: Option<&[u8]>, initial: Option<&Secret>) {
        let Some(mechanism) = mechanism else {
            let mut list = String::from("+OK mechanisms\r\n");
            for name in self.terms.mechanisms() {
                list.push_str(name);
                list.push_str("\r\n");
            }
            list.push_str(".\r\n");
            return self.actions.push_back(Action::Send(list.into_bytes()));
        };
        let mechanism = Mechanism::parse(mechanism);
        let Some(mechanism) = mechanism.filter(|one| self.terms.sasl.allow(*one)) else {
            return self.say("-ERR there is no such mechanism here");
        };
        let mut exchange = Box::new(Exchange::new(mechanism, self.terms.sasl.clone()));
        let step = match initial.map(decode) {
            None => exchange.begin(None),
            Some(Some(response)) => exchange.begin(Some(&response.0)),
            Some(None) => return self.bad("-ERR base64 is wanted"),
        };
        self.step(exchange, step);
    }

    /// A line of the client in an exchange.
    fn respond(&mut self, mut exchange: Box<Exchange>, line: &[u8]) {
        // `cancel-response = "*"`
        if line == b"*" {
            return self.bad("-ERR authentication cancelled");
        }
        match Base64::decode_vec(std::str::from_utf8(line).unwrap_or("*")) {
            Ok(response) => {
                let step = exchange.respond(&response);
                self.step(exchange, step);
            }
            Err(_) => self.bad("-ERR base64 is wanted"),
        }
    }

    fn step(&mut self, exchange: Box<Exchange>, step: Step) {
        match step {
            Step::Challenge(text) => {
                self.say(&format!("+ {}", Base64::encode_string(&text)));
                self.state = State::Challenged(exchange);
            }
            Step::Ask(question) => self.ask(exchange.mechanism(), question, Some(exchange)),
            Step::Accepted(_) => self.logged_in(),
            Step::Failed(failure) => self.failed(failure),
        }
    }

    fn ask(&mut self, by: Mechanism, question: Question, exchange: Option<Box<Exchange>>) {
        self.actions.push_back(Action::Authenticate(by, question));
        self.state = State::Asking(exchange);
    }

    fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Malformed => self.bad("-ERR that is no response of this mechanism"),
            Failure::Unavailable => {
                self.say("-ERR [SYS/TEMP] passwords can't be checked now, try again later");
            }
            Failure::Refused => {
                self.failures += 1;
                let text = "-ERR [AUTH] wrong name or password";
                if self.failures >= MAX_FAILURES {
                    self.end(text, Reason::Failures);
                } else {
                    self.say(text);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.commands += 1;
        if self.commands > MAX_COMMANDS {
            self.end("-ERR too many commands", Reason::TooMuch);
            return;
        }
        if let State::Challenged(_) = self.state
            && let State::Challenged(exchange) = std::mem::replace(&mut self.state, State::Open)
        {
            return self.respond(exchange, line);
        }
        match command(line) {
            Ok(Command::User(_) | Command::Pass(_) | Command::Auth { mechanism: Some(_), .. })
                if !self.terms.may_log_in() =>
            {
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
                let list = self.capabilities();
                self.actions.push_back(Action::Send(list));
            }
            Ok(Command::Quit) => self.end("+OK bye", Reason::Quit),
            Ok(Command::Stls) => self.stls(),
            Ok(Command::Auth { mechanism, initial }) => {
                self.auth(mechanism.as_deref(), initial.as_ref());
            }
            // Clients try this, and go on with USER.
            Ok(Command::NotOffered) => self.say("-ERR not offered here"),
            Ok(_) => self.bad("-ERR log in first"),
            Err(error) => self.bad(&error.reply()),
        }
    }

    /// PASS comes behind USER. Quirk: other commands may stand between the two, so that a slip of
    /// the keyboard does not cost the name.
    fn pass(&mut self, password: Secret) {
        let Some(user) = self.user.take() else {
            self.bad("-ERR USER comes first");
            return;
        };
        if password.0.len() > MAX_PASSWORD {
            self.bad(&format!("-ERR a password has at most {MAX_PASSWORD} bytes"));
            return;
        }
        // A name of other bytes is nobody's.
        let user = String::from_utf8(user).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.into());
        self.ask(Mechanism::Plain, Question::Password { user, password }, None);
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
        while self.actions.is_empty() && matches!(self.state, State::Open | State::Challenged(_)) {
            match self.input.line() {
                Line::Whole(line) => self.line(&line),
                Line::TooLong => {
                    self.state = State::Open;
                    self.bad(&format!("-ERR a line has at most {MAX_LINE} bytes"));
                }
                Line::More => break,
            }
        }
        self.actions.pop_front()
    }
}

/// An initial response; `=` is an empty one.
fn decode(Secret(text): &Secret) -> Option<Secret> {
    let text = if text.as_slice() == b"=" { b"" } else { text.as_slice() };
    Base64::decode_vec(std::str::from_utf8(text).ok()?).ok().map(Secret)
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
