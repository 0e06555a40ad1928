//! LMTP as the RFCs have it: each rule is a conversation in `tests/transcripts/lmtp/`, with the
//! delivery agent of the user `hunt`.
//!
//! `TRANSCRIPT=bdat cargo test --test lmtp_transcripts` plays those whose name has `bdat` in it,
//! and `MAIL_UNDER_TEST=dovecot` asks Dovecot only.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use support::reference::{Dovecot, DovecotLmtp, LMTPD};
use support::run::Server;
use support::site::Site;
use support::transcript::{Host, play_all};
use support::{need, need_root};

/// Our local-deliver, one for each kind of site.
#[derive(Default)]
struct Ours {
    sites: Vec<(String, SocketAddr, Site)>,
}

impl Host for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn address(&mut self, kind: &str, _mailbox: usize) -> SocketAddr {
        if let Some((_, address, _)) = self.sites.iter().find(|(name, ..)| name == kind) {
            return *address;
        }
        let site = match kind {
            "usual" => Site::new(),
            "small" => Site::plan().set("smtp", "max_message_size", "65536").build(),
            _ => panic!("no site {kind}"),
        };
        let address = agents(&site);
        self.sites.push((kind.to_owned(), address, site));
        address
    }
}

/// A port with an agent behind each connection. It speaks on stdin and stdout, and knows no port.
fn agents(site: &Site) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = site.command("local-deliver");
    command.args(["--lmtp", "-d", "hunt"]);
    site.become_user(&mut command, "hunt");
    std::thread::spawn(move || {
        while let Ok((accepted, _)) = listener.accept() {
            command.stdin(OwnedFd::from(accepted.try_clone().unwrap()));
            command.stdout(OwnedFd::from(accepted));
            let server = Server::start(&mut command);
            // The connection is the agent's alone: else its end would not be seen.
            command.stdin(Stdio::null()).stdout(Stdio::null());
            std::thread::spawn(|| server.join());
        }
    });
    address
}

fn asked(who: &str) -> bool {
    std::env::var("MAIL_UNDER_TEST").map_or(true, |wanted| wanted == who)
}

#[test]
fn our_local_deliver_keeps_the_rules() {
    if asked("ours") {
        play_all("lmtp", &mut Ours::default());
    }
}

#[test]
fn dovecot_keeps_the_same_rules() {
    if asked("dovecot") && need("dovecot") && need(LMTPD) && need_root() {
        play_all("lmtp", &mut DovecotLmtp(Dovecot::start()));
    }
}
