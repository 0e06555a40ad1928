//! SASL, the server's side (RFC 4422), pure: challenges out, responses in, and questions to whoever
//! knows the accounts.
//!
//! An [`Exchange`] is one attempt of a client to say who it is. The protocol around it carries
//! challenges and responses (in SMTP as base64, RFC 4954), and its driver answers the questions.
//!
//! Names and passwords are taken as they come: SASLprep (RFC 4013) would map what looks alike, which
//! for ASCII is nothing. What it forbids of ASCII, control characters, is refused here; other text
//! has to be sent in the form in which it was stored.

mod plain;
pub mod scram;
mod terms;

use std::fmt;

pub use scram::{Binding, Keys, Proof, Salt};
pub use terms::{Terms, Tls};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 256;

/// The longest response of a client, in bytes; in base64 it fits a command line.
pub const MAX_RESPONSE: usize = 1500;

/// Attempts that may fail before the session ends.
pub const MAX_FAILURES: u32 = 3;

/// A registered way to say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: what old clients know.
    Login,
    /// RFC 5802.
    ScramSha1,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677, bound to the TLS connection.
    ScramSha256Plus,
    /// RFC 4422 appendix A: what the protocol below knows already.
    External,
}

impl Mechanism {
    /// All of them, the better ones first.
    pub const ALL: [Self; 6] = [
        Self::External,
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
        Self::Login,
    ];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::External => "EXTERNAL",
        }
    }

    /// The mechanism of this name, in any letter case.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|known| name.eq_ignore_ascii_case(known.name().as_bytes()))
    }

    /// The hash function, where it is one of SCRAM's.
    pub fn scram(self) -> Option<scram::Hash> {
        match self {
            Self::ScramSha1 => Some(scram::Hash::Sha1),
            Self::ScramSha256 | Self::ScramSha256Plus => Some(scram::Hash::Sha256),
            Self::Plain | Self::Login | Self::External => None,
        }
    }
}

/// What the protocol below knows of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What names this TLS connection, for SCRAM's `-PLUS`; empty where nothing does.
    pub bindings: Vec<Binding>,
    /// Who it has proven to be, for EXTERNAL.
    pub identity: Option<String>,
    /// The hash functions for which somebody's SCRAM keys are stored.
    pub scram: Vec<scram::Hash>,
}

impl Facts {
    /// Whether a client with these facts may use the mechanism.
    pub fn allow(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Plain | Mechanism::Login => true,
            Mechanism::External => self.identity.is_some(),
            Mechanism::ScramSha256Plus if self.bindings.is_empty() => false,
            Mechanism::ScramSha1 | Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                mechanism.scram().is_some_and(|hash| self.scram.contains(&hash))
            }
        }
    }
}

/// Bytes that no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is to be asked of whoever knows the accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is this the password of that name?
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// How is this name challenged by SCRAM? An unknown one is, too, and always in the same way.
    Salt {
        /// The name.
        user: String,
        /// For this hash function.
        hash: scram::Hash,
    },
    /// Does the one who was challenged last know the password?
    Proof(Proof),
    /// The one who was challenged last has said something that proves nothing; or the one whose
    /// certificate was shown wants to be nobody else, or does. May it log in?
    Proven(bool),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accepted,
    /// No.
    Refused,
    /// It can't be told now.
    Unavailable,
    /// To [`Question::Salt`].
    Salt(Salt),
    /// Yes; and this is what proves to the client that we know its keys.
    Signature(Vec<u8>),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to the client; [`Exchange::respond`] with what it says.
    Challenge(Vec<u8>),
    /// Ask; [`Exchange::answer`].
    Ask(Question),
    /// The client is this account.
    Accepted(String),
    /// It is not.
    Failed(Failure),
}

/// Why an exchange ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client has not shown who it is.
    Refused,
    /// It can't be told now.
    Unavailable,
    /// A response has another form than the mechanism wants.
    Malformed,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    mechanism: Mechanism,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come yet.
    Begin(Facts),
    /// LOGIN waits for the password of this name.
    Password(String),
    /// A password was asked about, or a certificate.
    Asked(String),
    Scram(scram::State),
    Over,
}

impl Exchange {
    /// An attempt with this mechanism. It is for the caller to look first whether
    /// [`Facts::allow`] it.
    pub fn new(mechanism: Mechanism, facts: Facts) -> Self {
        Self { mechanism, state: State::Begin(facts) }
    }

    /// By which mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Begins, with the initial response if the client has sent one.
    pub fn begin(&mut self, initial: Option<&[u8]>) -> Step {
        match initial {
            Some(response) => self.respond(response),
            None if self.mechanism == Mechanism::Login => Step::Challenge(plain::USERNAME.into()),
            None => Step::Challenge(Vec::new()),
        }
    }

    /// The client's response to the challenge.
    pub fn respond(&mut self, response: &[u8]) -> Step {
        if response.len() > MAX_RESPONSE {
            return self.malformed();
        }
        match (std::mem::replace(&mut self.state, State::Over), self.mechanism) {
            (State::Begin(_), Mechanism::Plain) => match plain::message(response) {
                Ok((user, password)) => self.ask(user, password),
                Err(failure) => Step::Failed(failure),
            },
            (State::Begin(_), Mechanism::Login) => match plain::name(response) {
                Ok(user) => {
                    self.state = State::Password(user);
                    Step::Challenge(plain::PASSWORD.into())
                }
                Err(failure) => Step::Failed(failure),
            },
            (State::Password(user), _) => match plain::password(response) {
                Ok(password) => self.ask(user, password),
                Err(failure) => Step::Failed(failure),
            },
            (State::Begin(facts), Mechanism::External) => match facts.identity {
                Some(user) => {
                    // The name to act as, if any, is one's own.
                    let is_own = response.is_empty() || response == user.as_bytes();
                    self.state = State::Asked(user);
                    Step::Ask(Question::Proven(is_own))
                }
                None => Step::Failed(Failure::Refused),
            },
            (State::Begin(facts), mechanism) => {
                match (scram::First::parse(response, mechanism, &facts), mechanism.scram()) {
                    (Ok(first), Some(hash)) => {
                        let user = first.user().to_owned();
                        self.state = State::Scram(scram::State::First(first, hash));
                        Step::Ask(Question::Salt { user, hash })
                    }
                    (Err(failure), _) => Step::Failed(failure),
                    (Ok(_), None) => self.malformed(),
                }
            }
            (State::Scram(state), _) => {
                let (state, step) = state.respond(response);
                self.state = state.map_or(State::Over, State::Scram);
                step
            }
            (State::Asked(_) | State::Over, _) => self.malformed(),
        }
    }

    /// The answer to the question that was asked.
    pub fn answer(&mut self, answer: Answer) -> Step {
        match (std::mem::replace(&mut self.state, State::Over), answer) {
            (_, Answer::Unavailable) => Step::Failed(Failure::Unavailable),
            (State::Asked(user), Answer::Accepted) => Step::Accepted(user),
            (State::Scram(state), answer) => {
                let (state, step) = state.answer(answer);
                self.state = state.map_or(State::Over, State::Scram);
                step
            }
            _ => Step::Failed(Failure::Refused),
        }
    }

    fn ask(&mut self, user: String, password: Secret) -> Step {
        self.state = State::Asked(user.clone());
        Step::Ask(Question::Password { user, password })
    }

    fn malformed(&mut self) -> Step {
        self.state = State::Over;
        Step::Failed(Failure::Malformed)
    }
}

#[cfg(test)]
mod tests;
