//! Mail between us and other hosts that run Debian's Postfix, Exim or OpenSMTPD, both ways.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::entry::{self, Entry};
use support::mta::{Kind, Mta};
use support::run::Server;
use support::site::Site;
use support::wait_until;

/// Makes one test of a rule for each neighbour, so that they run side by side and each says by
/// itself that it was skipped.
macro_rules! for_each_neighbour {
    ($($rule:ident)*) => {
        mod postfix {
            $(#[test] fn $rule() { super::with(super::Kind::Postfix, super::$rule); })*
        }
        mod exim {
            $(#[test] fn $rule() { super::with(super::Kind::Exim, super::$rule); })*
        }
        mod opensmtpd {
            $(#[test] fn $rule() { super::with(super::Kind::OpenSmtpd, super::$rule); })*
        }
    };
}

fn with(kind: Kind, rule: fn(Kind)) {
    if kind.need() {
        rule(kind);
    }
}

for_each_neighbour! {
    what_it_relays_to_us_arrives_byte_for_byte
    a_message_for_several_comes_from_it_as_one
    its_bounce_reaches_us
}

/// Header fields that a message needs, so that no neighbour adds one.
fn header(subject: &str) -> String {
    format!(
        "From: toshi@example.org\nTo: hunt@smkwlab.net\nSubject: {subject}\n\
         Date: Mon, 21 Jun 2004 03:15:20 +0900\nMessage-ID: <{subject}@example.org>\n"
    )
}

/// Twenty messages with what is hard on the way: dots, 8 bits, long lines, no text, empty lines.
fn twenty() -> Vec<Vec<u8>> {
    (0..20)
        .map(|number| {
            let text: Vec<u8> = match number % 5 {
                0 => b".\n..\n.a dot\n...\n\n.\n".to_vec(),
                1 => b"Gr\xfc\xdfe \xe3\x81\x93\xe3\x82\x93 \xff\n".to_vec(),
                2 => [&[b'x'; 998][..], b"\n.", &[b'y'; 997], b"\n"].concat(),
                3 => Vec::new(),
                _ => b"\n\nFrom here on\n>From there\n \n\t\n\n\n".repeat(2000),
            };
            [header(&format!("m{number}")).as_bytes(), b"\n", &text].concat()
        })
        .collect()
}

/// A message as the queue has it.
fn crlf(message: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for line in message.split_inclusive(|b| *b == b'\n') {
        all.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        all.extend_from_slice(b"\r\n");
    }
    all
}

/// We and a neighbour that relays to us. What arrives stays in `incoming/`.
fn before_us(kind: Kind) -> (Site, Server, Mta) {
    let site = Site::new();
    let (smtpd, address) = site.serve("smtpd");
    let mta = Mta::start(kind, Some(address));
    (site, smtpd, mta)
}

/// What has arrived, when so many messages have.
fn arrived(site: &Site, count: usize) -> Vec<Entry> {
    let names = wait_until(&format!("{count} messages in incoming/"), || {
        let names = site.queued_in("incoming");
        (names.len() >= count).then_some(names)
    });
    assert_eq!(names.len(), count);
    let entries = names.iter().map(|name| entry::read(&site.queue().join("incoming").join(name)));
    entries.map(Result::unwrap).collect()
}

/// The header and the text of a message in the queue.
fn parts(content: &[u8]) -> (String, &[u8]) {
    let end = content.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&content[..end]).into_owned(), &content[end + 4..])
}

fn what_it_relays_to_us_arrives_byte_for_byte(kind: Kind) {
    let (site, _smtpd, mta) = before_us(kind);
    for message in twenty() {
        mta.submit("toshi@example.org", &["hunt@smkwlab.net"], &message);
    }
    let entries = arrived(&site, 20);
    for message in twenty() {
        let message = crlf(&message);
        let found: Vec<&Entry> =
            entries.iter().filter(|entry| entry.content.ends_with(&message)).collect();
        assert_eq!(found.len(), 1, "{}", message.escape_ascii());
        assert_eq!(found[0].sender, "toshi@example.org");
        assert_eq!(found[0].recipients, ["hunt@smkwlab.net"]);
        let (header, _) = parts(&found[0].content);
        let ours = header.split("\r\nReceived: ").next().unwrap();
        let from = format!("Received: from {} (", kind.domain());
        assert!(ours.starts_with(&from), "{header}");
        assert!(ours.contains("\r\n\tby mx.smkwlab.net (Hikyaku) with ESMTP id "), "{header}");
    }
}

fn a_message_for_several_comes_from_it_as_one(kind: Kind) {
    let (site, _smtpd, mta) = before_us(kind);
    let all = ["toshi@smkwlab.net", "hunt@smkwlab.net", "alice@smkwlab.net"];
    mta.submit("", &all, &twenty()[0]);
    let entry = arrived(&site, 1).remove(0);
    assert_eq!(entry.sender, "");
    let mut recipients = entry.recipients;
    recipients.sort();
    let mut all = all.to_vec();
    all.sort_unstable();
    assert_eq!(recipients, all);
}

/// We refuse a recipient, and the neighbour tells the sender, who is at home here.
fn its_bounce_reaches_us(kind: Kind) {
    let (site, _smtpd, mta) = before_us(kind);
    mta.submit("alice@smkwlab.net", &["stranger@smkwlab.net"], &twenty()[1]);
    let entry = arrived(&site, 1).remove(0);
    assert_eq!(entry.sender, "");
    assert_eq!(entry.recipients, ["alice@smkwlab.net"]);
    let text = String::from_utf8_lossy(&entry.content);
    assert!(text.contains("stranger@smkwlab.net"), "{text}");
    assert!(text.contains("550 5.1.1 "), "our words: {text}");
    site.mta_queue::<&str>(&[]).expect(0);
    let messages = site.messages("alice");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].field("Return-Path"), Some("<>"));
}
