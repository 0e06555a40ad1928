//! AUTH (RFC 4954).

use super::{Session, State, Tls};
use crate::sasl::{
    Answer, Binding, Exchange, Facts, Failure, MAX_FAILURES, Mechanism, Secret, Step,
};
use crate::smtp::command::{self, Command};
use crate::smtp::reply::Reply;
use base64ct::{Base64, Encoding};

/// How clients may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Without TLS, too.
    pub without_tls: bool,
    /// Without having done so they may send no mail (RFC 4954 section 6).
    pub required: bool,
    /// What decides which mechanisms there are.
    pub facts: Facts,
}

impl Session {
    /// Lets clients log in.
    pub fn offer_login(&mut self, login: Login) {
        self.login = Some(login);
        self.extensions.auth = true;
    }

    /// TLS has begun before the session.
    pub fn begin_encrypted(&mut self, bindings: Vec<Binding>, identity: Option<String>) {
        self.tls = Tls::On;
        self.bind(bindings, identity);
    }

    /// What names the TLS connection that has begun, and whose certificate the client has shown.
    pub fn bind(&mut self, bindings: Vec<Binding>, identity: Option<String>) {
        if let Some(login) = &mut self.login {
            login.facts.bindings = bindings;
            login.facts.identity = identity;
        }
    }

    /// The names of the mechanisms that may be used now, as EHLO announces them.
    pub(super) fn mechanisms(&self) -> Option<String> {
        let login = self.login.as_ref().filter(|login| self.may_log_in(login))?;
        let allowed = Mechanism::ALL.into_iter().filter(|one| login.facts.allow(*one));
        Some(allowed.map(Mechanism::name).collect::<Vec<_>>().join(" "))
    }

    fn may_log_in(&self, login: &Login) -> bool {
        self.tls == Tls::On || login.without_tls
    }

    /// Whether this command is for those only who have logged in.
    pub(super) fn needs_login(&self, command: &Command) -> bool {
        let is_required = self.login.as_ref().is_some_and(|login| login.required);
        let is_open = matches!(
            command,
            Command::Helo(_)
                | Command::Ehlo(_)
                | Command::Lhlo(_)
                | Command::Auth { .. }
                | Command::StartTls
                | Command::Rset
                | Command::Noop
                | Command::Help
                | Command::Quit
                | Command::Xclient(_)
        );
        is_required && self.user.is_none() && !is_open
    }

    pub(super) fn auth(&mut self, mechanism: &[u8], initial: Option<Secret>) {
        let refusal = match &self.login {
            None => Reply::new(503, "5.5.1", "Error: authentication is not offered here"),
            Some(_) if !self.extended => Reply::new(503, "5.5.1", "Error: send EHLO first"),
            Some(_) if self.user.is_some() => {
                Reply::new(503, "5.5.1", "Error: already authenticated")
            }
            Some(_) if self.transaction.is_some() => {
                Reply::new(503, "5.5.1", "Error: MAIL transaction in progress")
            }
            Some(login) if !self.may_log_in(login) => {
                Reply::new(538, "5.7.11", "Error: encryption required, send STARTTLS first")
            }
            Some(login) => {
                match Mechanism::parse(mechanism).filter(|one| login.facts.allow(*one)) {
                    Some(mechanism) => {
                        let mut exchange = Box::new(Exchange::new(mechanism, login.facts.clone()));
                        let initial = initial.map(|Secret(bytes)| bytes);
                        let step = exchange.begin(initial.as_deref());
                        return self.exchange(exchange, step);
                    }
                    None => Reply::new(504, "5.5.4", "Error: no such mechanism here"),
                }
            }
        };
        self.refuse(&refusal);
    }

    /// A line of the client in the exchange. `more`: there is something behind it already, which
    /// was sent before its turn.
    pub(super) fn response(&mut self, line: &[u8], more: bool) {
        let State::Challenged(mut exchange) = std::mem::replace(&mut self.state, State::Commands)
        else {
            return;
        };
        if self.strict && more {
            let text = "Error: improper command pipelining: wait for the reply";
            return self.hang_up(&Reply::new(503, "5.5.0", text));
        }
        // `cancel-response = "*"`
        if line == b"*" {
            return self.refuse(&Reply::new(501, "5.7.0", "Error: authentication cancelled"));
        }
        match command::response(line) {
            Ok(Secret(response)) => {
                let step = exchange.respond(&response);
                self.exchange(exchange, step);
            }
            Err(reply) => self.refuse(&reply),
        }
    }

    pub(super) fn response_too_long(&mut self) {
        self.state = State::Commands;
        self.refuse(&Reply::new(500, "5.5.6", "Error: authentication exchange line is too long"));
    }

    /// The answer to [`super::Action::Authenticate`].
    pub fn authenticate(&mut self, answer: Answer) {
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Asking(mut exchange, _) => {
                let step = exchange.answer(answer);
                self.exchange(exchange, step);
            }
            state => self.state = state,
        }
    }

    fn exchange(&mut self, exchange: Box<Exchange>, step: Step) {
        match step {
            Step::Challenge(text) => {
                // Not a reply: what is quoted there is made printable, and shorter.
                let line = format!("334 {}\r\n", Base64::encode_string(&text));
                self.output.extend_from_slice(line.as_bytes());
                self.state = State::Challenged(exchange);
            }
            Step::Ask(question) => self.state = State::Asking(exchange, question),
            Step::Accepted(user) => {
                self.user = Some(user);
                self.reply(&Reply::new(235, "2.7.0", "Authentication successful"));
            }
            Step::Failed(Failure::Malformed) => {
                self.refuse(&Reply::new(501, "5.5.2", "Error: response not understood"));
            }
            Step::Failed(Failure::Unavailable) => {
                let text = "Error: authentication is not available now, try again later";
                self.refuse(&Reply::new(454, "4.7.0", text));
            }
            Step::Failed(Failure::Refused) => {
                self.failures += 1;
                self.refuse(&Reply::new(535, "5.7.8", "Error: authentication failed"));
                if self.failures >= MAX_FAILURES && self.state == State::Commands {
                    self.hang_up(&Reply::new(421, "4.7.0", "Error: too many failed logins"));
                }
            }
        }
    }
}
