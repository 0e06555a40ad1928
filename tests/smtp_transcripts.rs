//! SMTP as the RFCs have it: each rule is a conversation in `tests/transcripts/smtp/`.
//!
//! `TRANSCRIPT=rset cargo test --test smtp_transcripts` plays those whose name has `rset` in it,
//! and `MAIL_UNDER_TEST=postfix` asks Postfix only.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::SocketAddr;

use support::reference::Postfix;
use support::run::Server;
use support::site::Site;
use support::tls::Pair;
use support::transcript::{Host, play_all};
use support::{need, need_root};

/// Our smtpd, one for each kind of site.
struct Ours {
    running: Vec<(String, Server, SocketAddr, Site)>,
    pair: Pair,
}

impl Host for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn address(&mut self, kind: &str, _mailbox: usize) -> SocketAddr {
        if let Some((_, _, address, _)) = self.running.iter().find(|(name, ..)| name == kind) {
            return *address;
        }
        let plan = match kind {
            "usual" => Site::plan(),
            "tls" => self.pair.plan(Site::plan()),
            "closed" => Site::plan().set("smtp", "relay_networks", "[]"),
            "small" => Site::plan().set("smtp", "max_message_size", "65536").set(
                "smtp",
                "max_recipients",
                "100",
            ),
            _ => panic!("no site {kind}"),
        };
        let site = plan.build();
        let (server, address) = site.serve("smtpd");
        self.running.push((kind.to_owned(), server, address, site));
        address
    }
}

fn asked(who: &str) -> bool {
    std::env::var("MAIL_UNDER_TEST").map_or(true, |wanted| wanted == who)
}

#[test]
fn our_smtpd_keeps_the_rules() {
    if asked("ours") {
        play_all("smtp", &mut Ours { running: Vec::new(), pair: Pair::new() });
    }
}

#[test]
fn postfix_keeps_the_same_rules() {
    if asked("postfix") && need("postfix") && need_root() {
        play_all("smtp", &mut Postfix::start());
    }
}
