//! What became of a recipient this time.

use super::report::Action;
use crate::queue::Outcome;

/// One recipient's fate, from whoever tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Whether the message was taken, and if not, whether another try may help.
    pub outcome: Outcome,
    /// Enhanced status code (RFC 3463).
    pub code: String,
    /// In words.
    pub text: String,
    /// Nobody was asked: this was no attempt, and the message is looked at again soon.
    pub untried: bool,
    /// What we tell a sender who wants to hear of success (RFC 3461 section 5.2); `None` where who
    /// has the message now was told of that wish.
    pub receipt: Option<Action>,
    /// Who said so, for the log: `local`, `none`, or a host with address and port.
    pub relay: String,
    /// TLS version of the connection; empty without.
    pub tls: String,
    /// The other host's own words, where it was another host's decision.
    pub remote: Option<Remote>,
}

/// Another host and what it said, for the report to the sender (RFC 3464 sections 2.3.5 and 2.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name, or its address in brackets.
    pub host: String,
    /// Its reply, digits first, in one line.
    pub reply: String,
}

impl Fate {
    /// Decided here, before anybody else was asked.
    pub fn ours(outcome: Outcome, code: &str, text: impl Into<String>) -> Self {
        Self::by("none", outcome, code, text)
    }

    /// Nobody was asked, for a reason of our own.
    pub fn untried(code: &str, text: impl Into<String>) -> Self {
        Self { untried: true, ..Self::ours(Outcome::Deferred, code, text) }
    }

    /// Decided by a delivery agent of this host.
    pub fn local(outcome: Outcome, code: &str, text: impl Into<String>) -> Self {
        Self { receipt: None, ..Self::by("local", outcome, code, text) }
    }

    fn by(relay: &str, outcome: Outcome, code: &str, text: impl Into<String>) -> Self {
        Self {
            outcome,
            code: code.to_owned(),
            text: text.into(),
            untried: false,
            receipt: Some(Action::Relayed),
            relay: relay.to_owned(),
            tls: String::new(),
            remote: None,
        }
    }
}
