//! What is settled before the first message: who the server is, whether the link is safe, and who
//! we are.

use std::fmt;

use base64ct::{Base64, Encoding};

use super::{Client, Event, Step};
use crate::smtp::reply::Answer;

/// What to do about STARTTLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Nothing, and credentials are not sent: anybody may listen.
    Never,
    /// It is begun where it is offered. Where it is refused, mail goes in clear.
    Opportunistic,
    /// No mail goes in clear.
    Required,
    /// The link is safe without: TLS from its first byte (RFC 8314 section 3.3), or on this host.
    Unneeded,
}

/// What we say to a smarthost that serves only those it knows (RFC 4954). They are never sent in
/// clear, and no mail is sent without them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password, which no debugging output shows.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Client {
    /// The reply to EHLO or HELO: who the server is, and what it offers.
    pub(super) fn hello(&mut self, answer: &Answer) {
        let name = answer.lines.first().and_then(|line| line.split(' ').next());
        let ours = name.is_some_and(|name| name.eq_ignore_ascii_case(&self.hostname));
        if ours && !self.may_be_ours {
            return self.leave(Event::Ourselves);
        }
        let wanted = matches!(self.tls, Tls::Opportunistic | Tls::Required);
        if wanted && !self.secure && self.offers("STARTTLS") {
            self.say(Step::StartTls, "STARTTLS".into());
        } else {
            self.authenticate();
        }
    }

    /// The link is as safe as it gets: whether it will do, and who we are (RFC 4954 section 4).
    pub(super) fn authenticate(&mut self) {
        if self.tls == Tls::Required && !self.secure {
            return self.unfit("4.7.4 the server does not start TLS, which is required here");
        }
        let Some(Credentials { user, password }) = &self.credentials else {
            return;
        };
        if !self.secure {
            return self.unfit("4.7.4 the link is not under TLS, and only there we log in");
        }
        let encode = |text: &str| Base64::encode_string(text.as_bytes());
        let knows = |mechanism: &str| {
            self.arguments("AUTH").any(|word| word.eq_ignore_ascii_case(mechanism))
        };
        if knows("PLAIN") {
            let response = encode(&format!("\0{user}\0{password}"));
            self.say(Step::Auth(Vec::new()), format!("AUTH PLAIN {response}"));
        } else if knows("LOGIN") {
            let responses = vec![encode(password), encode(user)];
            self.say(Step::Auth(responses), "AUTH LOGIN".into());
        } else {
            self.unfit("4.7.4 the server offers neither AUTH PLAIN nor AUTH LOGIN");
        }
    }

    /// Ends the connection because the server lacks what we must have.
    fn unfit(&mut self, why: &str) {
        self.leave(Event::Refused(Answer::new(454, why)));
    }
}
