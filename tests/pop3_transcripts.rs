//! POP3 as the RFCs have it: each rule is a conversation in `tests/transcripts/pop3/`.
//!
//! `TRANSCRIPT=dele cargo test --test pop3_transcripts` plays those whose name has `dele` in it,
//! and `MAIL_UNDER_TEST=dovecot` asks Dovecot only.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::SocketAddr;

use support::reference::{Dovecot, fill};
use support::run::Server;
use support::site::Site;
use support::transcript::{Host, play_all};
use support::{need, need_root};

/// Our popd.
struct Ours {
    site: Site,
    address: SocketAddr,
    _server: Server,
}

impl Host for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn address(&mut self, _site: &str, mailbox: usize) -> SocketAddr {
        fill(&self.site, mailbox);
        self.address
    }
}

fn asked(who: &str) -> bool {
    std::env::var("MAIL_UNDER_TEST").map_or(true, |wanted| wanted == who)
}

#[test]
fn our_popd_keeps_the_rules() {
    if asked("ours") {
        let site = Site::new();
        let (server, address) = site.serve("popd");
        let mut ours = Ours { site, address, _server: server };
        play_all("pop3", &mut ours);
    }
}

#[test]
fn dovecot_keeps_the_same_rules() {
    if asked("dovecot") && need("dovecot") && need_root() {
        play_all("pop3", &mut Dovecot::start());
    }
}
