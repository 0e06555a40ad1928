//! The IMAP server: what its protocol has of its own before login; [`user`] is the session after it.

#[cfg(test)]
mod doubles;
pub mod fetch;
mod folders;
mod message;
mod numbers;
pub mod out;
pub mod search;
mod selected;
pub mod user;
mod view;

use std::time::Duration;

use super::Connection;
use super::access::{Dialogue, Protocol, Step};
use super::record::HandOver;
use crate::auth::Scope;
use crate::config::Config;
use crate::imap::login::{self, Action};
use crate::imap::reply::{self, Code, Condition, Word};
use crate::sasl;
use crate::sys::{Account, Exit, Log};

/// IMAP.
pub static PROTOCOL: Protocol = Protocol {
    scope: Scope::Imap,
    words: ["imap", "imaps"],
    // After the login it is half an hour (RFC 9051 section 5.4).
    silence: Duration::from_mins(3),
    busy: "* BYE [UNAVAILABLE] too many connections\r\n",
    section: |config| &config.imap,
    begin: |terms| Box::new(login::Session::new(terms)),
    serve,
    refusal,
};

fn serve(
    config: &Config,
    client: &mut Connection,
    account: &Account,
    handed: &HandOver,
    log: &Log,
) -> Exit {
    let login = user::LoggedIn { tag: handed.tag.clone(), leftover: handed.leftover.clone() };
    user::session(config, client, account, &login, log)
}

fn refusal(tag: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let code = Code::Word(Word::Unavailable);
    let text = "the mailbox can't be opened now, try again later";
    reply::status(Some(tag), Condition::No, Some(&code), text, &mut out);
    out
}

impl Dialogue for login::Session {
    fn push(&mut self, bytes: &[u8]) {
        login::Session::push(self, bytes);
    }

    fn next(&mut self) -> Option<Step> {
        Some(match Iterator::next(self)? {
            Action::Send(bytes) => Step::Send(bytes),
            Action::StartTls => Step::StartTls,
            Action::Authenticate(mechanism, question) => Step::Ask(mechanism, question),
            Action::LoggedIn { tag, leftover, .. } => Step::LoggedIn { tag, leftover },
            Action::Close(_) => Step::Close,
        })
    }

    fn answer(&mut self, answer: sasl::Answer) {
        login::Session::answer(self, answer);
    }

    fn encrypted(&mut self, bindings: Vec<sasl::Binding>) {
        login::Session::encrypted(self, bindings, None);
    }
}
