//! `local-deliver` in the place of the delivery agent of OpenSMTPD, as `.ci/neighbours` unpacks it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::handover::{QUOTA, hard, message, nearly_full, plan};
use support::mta::{Kind, Mta};
use support::outbox::Outbox;
use support::run::Server;
use support::site::{Plan, Site};

fn opensmtpd_site() -> Plan {
    plan(Kind::OpenSmtpd)
}

/// OpenSMTPD that calls us with these arguments.
fn by_mda(site: &Site, arguments: &str) -> Mta {
    let words = format!("mda \"exec {} \\\n    {arguments}\"", site.agent());
    Mta::start_for(Kind::OpenSmtpd, site, &words)
}

/// The words of the manual page. It runs them by two shells, the second of which would obey what a
/// stranger has put into `$SENDER`; `%{sender}` has `:` for whatever a shell could take amiss.
const ARGUMENTS: &str = "--no-forward -f '%{sender}' -d '%{dest.user}'";

/// OpenSMTPD that brings mail by LMTP. Its client runs as each user: all may connect.
fn by_lmtp(site: &Site) -> (Server, Mta) {
    let socket = site.path().join("lmtp");
    let server = site.serve_lmtp(&socket, None, &["--no-forward"]);
    let words = format!("lmtp \"{}\" rcpt-to", socket.display());
    (server, Mta::start_for(Kind::OpenSmtpd, site, &words))
}

/// Sends what is hard to `hunt`, and looks at what arrives.
fn arrives_byte_for_byte(site: &Site, mta: &Mta) {
    for message in hard() {
        mta.submit("toshi@example.org", &["hunt@opensmtpd.test"], &message);
    }
    site.wait_for_mail("hunt", hard().len());
    let fetched = site.fetched("hunt");
    assert_eq!(fetched.len(), hard().len());
    for message in hard() {
        let found = fetched.iter().filter(|fetched| fetched.ends_with(&message)).count();
        assert_eq!(found, 1, "{}", message[..200.min(message.len())].escape_ascii());
    }
    for message in site.messages("hunt") {
        assert!(message.from_line.starts_with("From toshi@example.org "), "{message:?}");
        assert_eq!(message.fields("Return-Path"), ["<toshi@example.org>"]);
        // OpenSMTPD writes one, too.
        assert_eq!(message.fields("Delivered-To"), ["hunt@opensmtpd.test"; 2]);
    }
}

/// Envelopes, and the name in the Delivered-To that is ours.
const ENVELOPES: [(&str, &str, &str); 4] = [
    ("", "hunt+lists@opensmtpd.test", "hunt+lists"),
    ("o'brien&co@example.org", "Hunt@opensmtpd.test", "hunt"),
    ("-f@example.org", "hunt+-f@opensmtpd.test", "hunt+-f"),
    ("a=b+c@example.org", "hunt+a+b@opensmtpd.test", "hunt+a+b"),
];

fn senders_and_extensions_arrive(site: &Site, mta: &Mta, as_it_tells: impl Fn(&str) -> String) {
    for (number, (from, to, _)) in ENVELOPES.into_iter().enumerate() {
        mta.submit(from, &[to], &message(&number.to_string(), b"x\n"));
    }
    site.wait_for_mail("hunt", ENVELOPES.len());
    for (number, (from, _, name)) in ENVELOPES.into_iter().enumerate() {
        let message = site.with_subject("hunt", &number.to_string());
        assert_eq!(message.fields("Return-Path"), [format!("<{}>", as_it_tells(from))]);
        let to = message.field("Delivered-To").unwrap().to_ascii_lowercase();
        assert_eq!(to, format!("{name}@opensmtpd.test"));
    }
    let null = site.with_subject("hunt", "0");
    assert!(null.from_line.starts_with("From MAILER-DAEMON "), "{}", null.from_line);
}

#[test]
fn by_mda_a_message_arrives_byte_for_byte() {
    if Kind::OpenSmtpd.need() {
        let site = opensmtpd_site().build();
        let mta = by_mda(&site, ARGUMENTS);
        arrives_byte_for_byte(&site, &mta);
    }
}

#[test]
fn by_mda_senders_arrive_as_opensmtpd_tells_them_and_extensions_as_they_are() {
    if Kind::OpenSmtpd.need() {
        let site = opensmtpd_site().build();
        let mta = by_mda(&site, ARGUMENTS);
        senders_and_extensions_arrive(&site, &mta, |from| from.replace(['\'', '&'], ":"));
    }
}

#[test]
fn by_lmtp_a_message_arrives_byte_for_byte() {
    if Kind::OpenSmtpd.need() {
        let site = opensmtpd_site().set("", "log", "\"stderr\"").build();
        let (_server, mta) = by_lmtp(&site);
        arrives_byte_for_byte(&site, &mta);
    }
}

#[test]
fn by_lmtp_senders_and_extensions_arrive_as_they_are() {
    if Kind::OpenSmtpd.need() {
        let site = opensmtpd_site().set("", "log", "\"stderr\"").build();
        let (_server, mta) = by_lmtp(&site);
        senders_and_extensions_arrive(&site, &mta, str::to_owned);
    }
}

#[test]
fn by_mda_what_is_refused_goes_back_and_what_is_put_off_waits() {
    if !Kind::OpenSmtpd.need() {
        return;
    }
    let site = opensmtpd_site().set("mailbox", "quota", QUOTA).build();
    let mta = by_mda(&site, ARGUMENTS);
    site.fill("hunt", nearly_full().as_bytes());
    mta.submit(
        "bob@opensmtpd.test",
        &["hunt@opensmtpd.test"],
        &message("full", &b"x\n".repeat(400)),
    );
    let bounces = site.wait_for_mail("bob", 1);
    let text = bounces[0].text();
    for words in ["hunt@opensmtpd.test: ", "mailbox hunt is full"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(mta.log().contains("result=PermFail"), "{}", mta.log());
    // The same where the operator wants it to wait.
    let wait =
        opensmtpd_site().set("mailbox", "quota", QUOTA).set("mailbox", "over_quota", "\"wait\"");
    let site = wait.build();
    let mta = by_mda(&site, ARGUMENTS);
    site.fill("hunt", nearly_full().as_bytes());
    mta.submit(
        "bob@opensmtpd.test",
        &["hunt@opensmtpd.test"],
        &message("full", &b"x\n".repeat(400)),
    );
    let log = mta.wait_for_log("result=TempFail");
    assert!(log.contains("mailbox hunt is full"), "our words: {log}");
    site.fill("hunt", b"");
    site.wait_for_mail("hunt", 1);
    site.with_subject("hunt", "full");
    assert_eq!(site.messages("bob"), [], "the sender is not bothered");
}

/// Its client ends with status 75 whatever the server says.
#[test]
fn by_lmtp_what_is_refused_waits() {
    if !Kind::OpenSmtpd.need() {
        return;
    }
    let site = opensmtpd_site().set("", "log", "\"stderr\"").set("mailbox", "quota", QUOTA).build();
    let (_server, mta) = by_lmtp(&site);
    site.fill("hunt", nearly_full().as_bytes());
    mta.submit(
        "bob@opensmtpd.test",
        &["hunt@opensmtpd.test"],
        &message("full", &b"x\n".repeat(400)),
    );
    let log = mta.wait_for_log("result=TempFail");
    assert!(log.contains("LMTP server error: 552 5.2.2 mailbox hunt is full"), "{log}");
    site.fill("hunt", b"");
    site.wait_for_mail("hunt", 1);
    site.with_subject("hunt", "full");
}

#[test]
fn a_forward_that_opensmtpd_has_obeyed_is_not_obeyed_again() {
    if !Kind::OpenSmtpd.need() {
        return;
    }
    for arguments in [ARGUMENTS, ARGUMENTS.trim_start_matches("--no-forward ")] {
        let outbox = Outbox::new();
        let site = outbox.plan(opensmtpd_site()).build();
        let mta = by_mda(&site, arguments);
        let command = if arguments == ARGUMENTS { ", \"|cat >> PIPED\"" } else { "" };
        site.forward("hunt", &format!("\\hunt, alice@opensmtpd.test{command}\n"));
        mta.submit("toshi@example.org", &["hunt@opensmtpd.test"], &message("all", b"x\n"));
        mta.submit("toshi@example.org", &["bob@opensmtpd.test"], &message("last", b"x\n"));
        for user in ["hunt", "alice", "bob"] {
            site.wait_for_mail(user, 1);
        }
        for user in ["hunt", "alice"] {
            site.with_subject(user, "all");
        }
        let piped = usize::from(arguments == ARGUMENTS);
        support::wait_until("the command", || (site.piped("hunt") >= piped).then_some(()));
        assert_eq!((site.piped("hunt"), outbox.sent()), (piped, Vec::new()));
    }
}
