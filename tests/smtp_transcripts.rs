//! SMTP as the RFCs have it: each rule is a conversation in `tests/transcripts/smtp/`, and a line of
//! `RULES.md` there.
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

use std::fs;
use std::net::SocketAddr;

use rustls::ClientConnection;
use support::dns::Dns;
use support::reference::Postfix;
use support::rules::check_rules;
use support::run::{Server, run};
use support::site::{HOST, Plan, Site};
use support::tls::{Pair, VERSIONS};
use support::transcript::{Host, parse, play_all};
use support::{need, need_root};

/// Our smtpd, one for each kind of site.
struct Ours {
    running: Vec<(String, Server, SocketAddr, Site)>,
    pair: Pair,
    /// A name server that knows nobody, so that nobody waits for a name.
    dns: Dns,
    /// Messages that were said to be queued.
    queued: usize,
    /// Within the lines of a reply to EHLO.
    in_hello: bool,
}

impl Ours {
    fn new() -> Self {
        Self {
            running: Vec::new(),
            pair: Pair::new(),
            dns: Dns::start(),
            queued: 0,
            in_hello: false,
        }
    }

    fn plan(&self, kind: &str) -> Plan {
        let plan = Site::plan();
        let plan = plan.set("dns", "servers", &format!("[\"{}\"]", self.dns.address()));
        // To those who may not relay, nobody of this machine belongs.
        let stranger = |plan: Plan| plan.set("smtp", "relay_networks", "[]");
        match kind {
            "usual" => plan,
            "tls" => self.pair.plan(plan),
            "closed" => stranger(plan),
            "slow" => stranger(plan).set("smtp", "greet_delay", "\"5s\""),
            "small" => {
                plan.set("smtp", "max_message_size", "65536").set("smtp", "max_recipients", "100")
            }
            "lookups" => plan.set("smtp", "vrfy", "true").set("smtp", "expn", "true"),
            "auth" | "no-users" => stranger(plan).set("smtp", "auth", "true"),
            "submission" => self.pair.plan(plan).set("smtp", "proxies", "[\"127.0.0.1\"]"),
            "proxy" => plan.set("smtp", "proxies", "[\"127.0.0.1\"]"),
            "xclient" => plan.set("smtp", "xclient", "[\"127.0.0.1\"]"),
            _ => panic!("no site {kind}"),
        }
    }
}

impl Host for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn address(&mut self, kind: &str, _mailbox: usize) -> SocketAddr {
        if let Some((_, _, address, _)) = self.running.iter().find(|(name, ..)| name == kind) {
            return *address;
        }
        let site = self.plan(kind).build();
        if kind == "auth" {
            // Whose password is kept as keys of SCRAM.
            let account = Site::account("bob");
            let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
            let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid];
            let mut mailctl = site.command("mailctl");
            mailctl.args(add).args(["--scheme", "scram-sha-256"]);
            run(&mut mailctl, b"pencil\n").expect(0);
        }
        let service = if kind == "submission" { "submission" } else { "smtp" };
        let (server, address) = site.serve_word("smtpd", service);
        if kind == "no-users" {
            fs::remove_file(site.path().join("users")).unwrap();
        }
        self.running.push((kind.to_owned(), server, address, site));
        address
    }

    fn tls(&self) -> ClientConnection {
        self.pair.client(VERSIONS)
    }

    fn heard(&mut self, line: &str) -> Result<(), String> {
        self.queued += usize::from(line.contains(" Ok: queued as "));
        // What a challenge has room for is its mechanism's matter (RFC 4954 section 4).
        if line.len() > 510 && !line.starts_with("334 ") {
            return Err(format!("longer than 512 octets (RFC 5321 section 4.5.3.1.5): {line}"));
        }
        let names_host = line.get(4..).is_some_and(|text| text.split(' ').next() == Some(HOST));
        let is_plain = names_host || self.in_hello;
        self.in_hello = is_plain && line.starts_with("250-");
        if is_plain || has_status(line) {
            Ok(())
        } else {
            Err(format!("no enhanced code (RFC 2034): {line}"))
        }
    }
}

/// Whether the line has the enhanced status code that it should (RFC 2034 section 4): all have one of
/// the code's class, but for 3yz, the greeting, and what is said to EHLO and HELO.
fn has_status(line: &str) -> bool {
    if line.starts_with('3') {
        return true;
    }
    let word = line.get(4..).unwrap_or_default().split(' ').next().unwrap_or_default();
    let mut parts = word.split('.');
    let class = parts.next().unwrap_or_default();
    let is_number = |part: &str| part.parse::<u16>().is_ok_and(|number| number < 1000);
    class.len() == 1
        && line.starts_with(class)
        && parts.clone().count() == 2
        && parts.all(is_number)
}

fn asked(who: &str) -> bool {
    std::env::var("MAIL_UNDER_TEST").map_or(true, |wanted| wanted == who)
}

#[test]
fn our_smtpd_keeps_the_rules() {
    if asked("ours") {
        let mut ours = Ours::new();
        play_all("smtp", &mut ours);
        // Whatever came before its turn, nothing was taken unsaid, and nothing twice.
        let queued = ours.running.iter().map(|(.., site)| site.queued().len()).sum::<usize>();
        assert_eq!(queued, ours.queued);
    }
}

#[test]
fn postfix_keeps_the_same_rules() {
    if asked("postfix") && need("postfix") && need("dovecot") && need_root() {
        play_all("smtp", &mut Postfix::start());
    }
}

#[test]
fn the_table_of_rules_names_every_transcript_and_nothing_that_is_not_there() {
    let differs = |name: &str, text: &str| parse(name, text).differs("postfix");
    check_rules("smtp", "Postfix", &differs);
}
