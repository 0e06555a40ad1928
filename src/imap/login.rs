//! The state before login (RFC 9051 section 3.1): what is said before anybody is known.
//!
//! After login nothing more is read, and nothing is said: the tagged OK is the first word of the
//! session that knows the mailboxes. Until then a client has few commands, and little patience is
//! had with it.

use std::collections::VecDeque;

use base64ct::{Base64, Encoding};

use super::command::{
    Command, Error, Failure, Tagged, parse_before_login, response, tag as tag_of,
};
use super::input::{Event, Limits, Literal, Reader};
use super::reply::{self, Code, Condition, Word};
use super::{CAPABILITIES_BEFORE_LOGIN, MAX_LEFTOVER};
use crate::sasl::{
    self, Binding, Exchange, Failure as Denial, Mechanism, Question, Secret, Step, Terms, Tls,
};
use crate::text::line::{Line, LineReader};

/// So many commands that are none end the session.
pub const MAX_BAD_COMMANDS: u32 = 3;

/// So many commands of any kind end the session: a client has no use for more before it logs in.
pub const MAX_COMMANDS: u32 = 50;

/// The longest line of an exchange, its end included: [`sasl::MAX_RESPONSE`] in base64 fits.
const MAX_LINE: usize = 2048;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send what was to be sent, begin TLS, and tell by [`Session::encrypted`]. A session whose
    /// handshake fails is at its end.
    StartTls,
    /// Ask whoever knows the accounts, and tell by [`Session::answer`]. Whoever answers also makes
    /// the client wait, longer after each failure.
    Authenticate(Mechanism, Question),
    /// The session goes on as its user, with this input first.
    LoggedIn {
        /// The account.
        user: String,
        /// By which mechanism; LOGIN is one.
        mechanism: Mechanism,
        /// The tag of the command that is still to be answered.
        tag: String,
        /// Input that came behind it, at most [`MAX_LEFTOVER`] bytes.
        leftover: Vec<u8>,
    },
    /// End the connection.
    Close(Reason),
}

/// Why a session ends before login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client said so.
    Logout,
    /// Too many commands that are none.
    BadCommands,
    /// Too many wrong passwords.
    Failures,
    /// More commands or more input than a login takes.
    TooMuch,
    /// Input came behind STARTTLS, in the clear.
    Injection,
}

/// A session before login.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    waiting: Vec<u8>,
    reader: Reader,
    /// For the responses of an exchange.
    lines: LineReader,
    actions: VecDeque<Action>,
    state: State,
    commands: u32,
    bad_commands: u32,
    failures: u32,
}

#[derive(Debug)]
enum State {
    /// Commands are read.
    Open,
    /// The client's response is.
    Challenged(Attempt),
    /// An answer is waited for.
    Asking(Attempt),
    /// TLS is to begin.
    StartingTls,
    /// There is nothing more to do.
    Ended,
}

/// One that is under way to log in.
#[derive(Debug)]
struct Attempt {
    tag: String,
    exchange: Box<Exchange>,
}

impl Session {
    /// A session that begins with the greeting.
    pub fn new(terms: Terms) -> Self {
        let mut session = Self {
            terms,
            waiting: Vec::new(),
            reader: Reader::new(Limits::BEFORE_LOGIN),
            lines: LineReader::new(MAX_LINE),
            actions: VecDeque::new(),
            state: State::Open,
            commands: 0,
            bad_commands: 0,
            failures: 0,
        };
        let code = Code::Capability(session.capabilities());
        let text = format!("{} Hikyaku ready", session.terms.hostname);
        session.say(None, Condition::Ok, Some(&code), &text);
        session
    }

    /// Takes input.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.state {
            State::Ended => {}
            // Somebody may have put it there before the client's first encrypted byte
            // (CVE-2011-0411).
            State::StartingTls if !bytes.is_empty() => self.injected(),
            _ if self.waiting.len() + bytes.len() > MAX_LEFTOVER => {
                self.end("too much at once", Reason::TooMuch);
            }
            _ => self.waiting.extend_from_slice(bytes),
        }
    }

    /// TLS has begun, as [`Action::StartTls`] said, or before the session; this names the
    /// connection, and whose certificate the client has shown. Whatever the client said in the clear is
    /// forgotten, but not how often it was wrong.
    pub fn encrypted(&mut self, bindings: Vec<Binding>, identity: Option<String>) {
        if matches!(self.state, State::StartingTls) {
            self.state = State::Open;
        }
        self.terms.encrypted(bindings, identity);
    }

    /// Takes the answer to [`Action::Authenticate`].
    pub fn answer(&mut self, answer: sasl::Answer) {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Asking(mut attempt) => {
                let step = attempt.exchange.answer(answer);
                self.step(attempt, step);
            }
            state => self.state = state,
        }
    }

    /// What is true now (RFC 9051 section 7.2.2).
    fn capabilities(&self) -> String {
        let mut list = CAPABILITIES_BEFORE_LOGIN.to_owned();
        if self.terms.tls == Tls::Offered {
            list.push_str(" STARTTLS");
        }
        if !self.terms.may_log_in() {
            list.push_str(" LOGINDISABLED");
            return list;
        }
        for name in self.terms.mechanisms() {
            list.push_str(" AUTH=");
            list.push_str(name);
        }
        list
    }

    fn command(&mut self, text: &[u8]) {
        if !self.count() {
            return;
        }
        let Tagged { tag, command } = match parse_before_login(text) {
            Ok(tagged) => tagged,
            Err(failure) => return self.bad(&failure),
        };
        let tag = Some(tag.as_str());
        match command {
            Command::Capability => {
                let list = format!("CAPABILITY {}", self.capabilities());
                self.send(|out| reply::words(&list, out));
                self.say(tag, Condition::Ok, None, "that is what there is");
            }
            Command::Noop => self.say(tag, Condition::Ok, None, "nothing done"),
            Command::Id(_) => {
                self.send(|out| reply::id(&[("name", "Hikyaku")], out));
                self.say(tag, Condition::Ok, None, "pleased to meet you");
            }
            Command::Logout => {
                self.say(None, Condition::Bye, None, "bye");
                self.say(tag, Condition::Ok, None, "logged out");
                self.close(Reason::Logout);
            }
            Command::StartTls => self.start_tls(tag),
            Command::Login { .. } | Command::Authenticate { .. } if !self.terms.may_log_in() => {
                let code = Code::Word(Word::PrivacyRequired);
                let text = "passwords are not taken without encryption";
                self.say(tag, Condition::No, Some(&code), text);
            }
            Command::Login { user, password } => self.login(tag, &user, &password),
            Command::Authenticate { mechanism, initial } => {
                self.authenticate(tag, &mechanism, initial.as_ref());
            }
            _ => self.bad(&Failure { tag: tag.map(str::to_owned), error: Error::NotYet }),
        }
    }

    /// Whether one more command is taken.
    fn count(&mut self) -> bool {
        self.commands += 1;
        let is_one = self.commands <= MAX_COMMANDS;
        if !is_one {
            self.end("too many commands before login", Reason::TooMuch);
        }
        is_one
    }

    fn start_tls(&mut self, tag: Option<&str>) {
        match self.terms.tls {
            Tls::Unknown => self.say(tag, Condition::Bad, None, "TLS is not offered here"),
            Tls::On => self.say(tag, Condition::Bad, None, "TLS is on already"),
            Tls::Offered if !self.waiting.is_empty() => self.injected(),
            Tls::Offered => {
                self.say(tag, Condition::Ok, None, "begin TLS now");
                self.actions.push_back(Action::StartTls);
                self.state = State::StartingTls;
            }
        }
    }

    fn injected(&mut self) {
        self.actions.retain(|action| *action != Action::StartTls);
        self.end("input came before TLS", Reason::Injection);
    }

    /// As the mechanism of the same name, whose challenges need not be said.
    fn login(&mut self, tag: Option<&str>, user: &[u8], password: &Secret) {
        let exchange = Exchange::new(Mechanism::Login, self.terms.sasl.clone());
        let mut attempt = attempt(tag, exchange);
        let step = match attempt.exchange.begin(Some(user)) {
            Step::Challenge(_) => attempt.exchange.respond(&password.0),
            step => step,
        };
        // What can be no name or password is none.
        let step = match step {
            Step::Failed(Denial::Malformed) => Step::Failed(Denial::Refused),
            step => step,
        };
        self.step(attempt, step);
    }

    fn authenticate(&mut self, tag: Option<&str>, mechanism: &str, initial: Option<&Secret>) {
        let mechanism = Mechanism::parse(mechanism.as_bytes());
        let Some(mechanism) = mechanism.filter(|one| self.terms.sasl.allow(*one)) else {
            let code = Code::Word(Word::Cannot);
            return self.say(tag, Condition::No, Some(&code), "there is no such mechanism here");
        };
        let mut attempt = attempt(tag, Exchange::new(mechanism, self.terms.sasl.clone()));
        let step = attempt.exchange.begin(initial.map(|Secret(bytes)| bytes.as_slice()));
        self.step(attempt, step);
    }

    fn step(&mut self, attempt: Attempt, step: Step) {
        let tag = Some(attempt.tag.as_str());
        match step {
            Step::Challenge(text) => {
                let text = Base64::encode_string(&text);
                self.send(|out| reply::continuation(&text, out));
                self.state = State::Challenged(attempt);
            }
            Step::Ask(question) => {
                let mechanism = attempt.exchange.mechanism();
                self.actions.push_back(Action::Authenticate(mechanism, question));
                self.state = State::Asking(attempt);
            }
            Step::Accepted(user) => {
                self.state = State::Ended;
                self.actions.push_back(Action::LoggedIn {
                    user,
                    mechanism: attempt.exchange.mechanism(),
                    tag: attempt.tag,
                    leftover: std::mem::take(&mut self.waiting),
                });
            }
            Step::Failed(Denial::Malformed) => {
                let error = Error::Wanted("a response of this mechanism");
                self.bad(&Failure { tag: Some(attempt.tag), error });
            }
            Step::Failed(Denial::Unavailable) => {
                let code = Code::Word(Word::Unavailable);
                let text = "passwords can't be checked now, try again later";
                self.say(tag, Condition::No, Some(&code), text);
            }
            Step::Failed(Denial::Refused) => {
                self.failures += 1;
                let code = Code::Word(Word::AuthenticationFailed);
                self.say(tag, Condition::No, Some(&code), "wrong name or password");
                if self.failures >= sasl::MAX_FAILURES {
                    self.end("too many failures", Reason::Failures);
                }
            }
        }
    }

    /// A line of the client in an exchange.
    fn respond(&mut self, mut attempt: Attempt, line: Option<&[u8]>) {
        if !self.count() {
            return;
        }
        let wrong = match line {
            None => Error::Wanted("a shorter response"),
            // `cancel-response = "*"`
            Some(b"*") => {
                let tag = Some(attempt.tag.as_str());
                return self.say(tag, Condition::Bad, None, "authentication cancelled");
            }
            Some(line) => match response(line) {
                Ok(Secret(response)) => {
                    let step = attempt.exchange.respond(&response);
                    return self.step(attempt, step);
                }
                Err(error) => error,
            },
        };
        self.bad(&Failure { tag: Some(attempt.tag), error: wrong });
    }

    /// A literal was announced: a name or a password may be one.
    fn literal(&mut self, literal: Literal) {
        let judged = parse_before_login(self.reader.text());
        match judged {
            // It is wrong already, and will not become better. (Behind an empty literal something may
            // come.)
            Err(failure) if failure.error != Error::More && literal.size > 0 => {
                if !literal.synchronizing && literal.size > MAX_LEFTOVER as u64 {
                    return self.end("too much at once", Reason::TooMuch);
                }
                self.reader.refuse();
                if self.count() {
                    self.bad(&failure);
                }
            }
            _ if self.reader.fits() => {
                self.reader.keep();
                if literal.synchronizing {
                    self.send(|out| reply::continuation("go on", out));
                }
            }
            _ if !literal.synchronizing => self.end("too much at once", Reason::TooMuch),
            _ => {
                let tag = tag_of(self.reader.text());
                self.reader.refuse();
                if self.count() {
                    self.bad(&Failure { tag, error: Error::Wanted("a shorter literal") });
                }
            }
        }
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.actions.push_back(Action::Send(out));
    }

    fn say(&mut self, tag: Option<&str>, condition: Condition, code: Option<&Code>, text: &str) {
        self.send(|out| reply::status(tag, condition, code, text, out));
    }

    fn bad(&mut self, failure: &Failure) {
        self.bad_commands += 1;
        self.send(|out| reply::failure(failure, out));
        if self.bad_commands >= MAX_BAD_COMMANDS {
            self.end("too many bad commands", Reason::BadCommands);
        }
    }

    fn end(&mut self, text: &str, reason: Reason) {
        self.say(None, Condition::Bye, None, text);
        self.close(reason);
    }

    fn close(&mut self, reason: Reason) {
        self.state = State::Ended;
        self.actions.push_back(Action::Close(reason));
    }

    /// Reads a response; whether there was one.
    fn read_response(&mut self) -> bool {
        let mut rest = self.waiting.as_slice();
        let line = self.lines.take(&mut rest);
        self.waiting.drain(..self.waiting.len() - rest.len());
        let line = match line {
            Line::More => return false,
            Line::TooLong => None,
            Line::Whole(line) => Some(line),
        };
        if let State::Challenged(attempt) = std::mem::replace(&mut self.state, State::Open) {
            self.respond(attempt, line.as_deref());
        }
        true
    }

    /// Reads a command, or a part of one; whether there was one.
    fn read_command(&mut self) -> bool {
        let mut rest = self.waiting.as_slice();
        let event = self.reader.take(&mut rest);
        let left = rest.len();
        match event {
            Event::More => {
                self.waiting.clear();
                return false;
            }
            Event::Command(text) => {
                self.taken(left);
                self.command(&text);
            }
            Event::Literal(literal) => {
                self.taken(left);
                self.literal(literal);
            }
            Event::TooLong(tag) => {
                self.taken(left);
                if self.count() {
                    let error = Error::Wanted("a shorter command");
                    self.bad(&Failure { tag, error });
                }
            }
            // Nothing is streamed before login.
            Event::Chunk(_) | Event::End => self.taken(left),
        }
        true
    }

    /// So much of the input is left.
    fn taken(&mut self, left: usize) {
        self.waiting.drain(..self.waiting.len().saturating_sub(left));
    }
}

fn attempt(tag: Option<&str>, exchange: Exchange) -> Attempt {
    Attempt { tag: tag.unwrap_or_default().to_owned(), exchange: Box::new(exchange) }
}

impl Iterator for Session {
    type Item = Action;

    /// What is to be done next; `None` when input or an answer is wanted, or all is over.
    fn next(&mut self) -> Option<Self::Item> {
        while self.actions.is_empty() {
            let read = match self.state {
                State::Open => self.read_command(),
                State::Challenged(_) => self.read_response(),
                State::Asking(_) | State::StartingTls | State::Ended => false,
            };
            if !read {
                break;
            }
        }
        self.actions.pop_front()
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
