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
use support::network::Network;
use support::peer::Peer;
use support::run::Server;
use support::site::{Plan, Site};
use support::tls::Pair;
use support::wait_until;

const NONE: [&str; 0] = [];

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
    what_it_relays_to_us_comes_encrypted_where_we_offer_that
    a_message_for_several_comes_from_it_as_one
    its_bounce_reaches_us
    what_we_relay_to_it_arrives_byte_for_byte
    fifty_messages_go_to_it_by_few_connections
    several_get_one_copy_each_and_the_sender_hears_who_is_unknown_there
    what_it_puts_off_goes_later
    it_is_found_by_its_mx_and_by_its_address
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
fn before_us(kind: Kind, plan: Plan) -> (Site, Server, Mta) {
    let site = plan.build();
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
    let (site, _smtpd, mta) = before_us(kind, Site::plan());
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

fn what_it_relays_to_us_comes_encrypted_where_we_offer_that(kind: Kind) {
    let pair = Pair::new();
    let (site, _smtpd, mta) = before_us(kind, pair.plan(Site::plan()));
    let messages = &twenty()[..5];
    for message in messages {
        mta.submit("toshi@example.org", &["hunt@smkwlab.net"], message);
    }
    let entries = arrived(&site, messages.len());
    for message in messages {
        let message = crlf(message);
        let mut found = entries.iter().filter(|entry| entry.content.ends_with(&message));
        let (header, _) = parts(&found.next().unwrap().content);
        let ours = header.split("\r\nReceived: ").next().unwrap();
        assert!(ours.contains(" with ESMTPS id "), "{header}");
    }
}

fn a_message_for_several_comes_from_it_as_one(kind: Kind) {
    let (site, _smtpd, mta) = before_us(kind, Site::plan());
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
    let (site, _smtpd, mta) = before_us(kind, Site::plan());
    mta.submit("alice@smkwlab.net", &["stranger@smkwlab.net"], &twenty()[1]);
    let entry = arrived(&site, 1).remove(0);
    assert_eq!(entry.sender, "");
    assert_eq!(entry.recipients, ["alice@smkwlab.net"]);
    let text = String::from_utf8_lossy(&entry.content);
    assert!(text.contains("stranger@smkwlab.net"), "{text}");
    assert!(text.contains("550 5.1.1 "), "our words: {text}");
    site.mta_queue(&NONE).expect(0);
    let messages = site.messages("alice");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].field("Return-Path"), Some("<>"));
}

/// A neighbour and we, whose smarthost it is.
fn behind_us(kind: Kind, plan: Plan) -> (Site, Mta) {
    let mta = Mta::start(kind, None);
    let (ip, port) = (mta.address().ip(), mta.address().port());
    let site = plan.set("delivery", "smarthost", &format!("\"[{ip}]:{port}\"")).build();
    (site, mta)
}

/// Hands our smtpd messages from one sender, on one connection.
fn submit(site: &Site, from: &str, to: &[&str], messages: &[Vec<u8>]) {
    let (_server, mut peer): (Server, Peer) = site.session("smtpd");
    peer.greet();
    for message in messages {
        let reply = peer.mail(from, to, message);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    }
    peer.command("QUIT");
}

/// The Received field that the neighbour put on top, unfolded.
fn top_received(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("Received: ").unwrap();
    let end = rest.match_indices('\n').find(|(at, _)| !rest[at + 1..].starts_with([' ', '\t']));
    let words: Vec<&str> = rest[..end.unwrap().0].split_whitespace().collect();
    words.join(" ")
}

/// The id under which the neighbour had a message.
fn id(message: &[u8]) -> String {
    let received = top_received(message);
    let (_, id) = received.split_once(" id ").unwrap();
    id.split([' ', ';']).next().unwrap().to_owned()
}

fn what_we_relay_to_it_arrives_byte_for_byte(kind: Kind) {
    let (site, mta) = behind_us(kind, Site::plan());
    let mut messages = twenty();
    // Longer than RFC 5322 allows, and passed on all the same.
    let long = [header("long").as_bytes(), b"\n", &[b'z'; 3000], b"\n"].concat();
    messages.push(long);
    submit(&site, "", &[&mta.user("hunt")], &messages);
    let ran = site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    let mail = mta.wait_for_mail("hunt", messages.len());
    assert_eq!(mail.len(), messages.len());
    for message in messages {
        let found: Vec<_> = mail.iter().filter(|found| found.ends_with(&message)).collect();
        assert_eq!(found.len(), 1, "{}", message.escape_ascii());
        let received = top_received(found[0]);
        assert!(received.contains("mx.smkwlab.net"), "{received}");
        let encrypted = received.to_uppercase().contains("WITH ESMTPS ");
        assert!(encrypted || !kind.has_working_tls(), "{received}");
    }
    let null_sender = if kind == Kind::Exim { "<= <> " } else { "from=<>" };
    assert!(mta.log().contains(null_sender), "{}", mta.log());
}

fn fifty_messages_go_to_it_by_few_connections(kind: Kind) {
    let plan = Site::plan().set("delivery", "concurrency_per_domain", "2");
    let (site, mta) = behind_us(kind, plan);
    let message = [header("m").as_bytes(), b"\nx\n"].concat();
    submit(&site, "alice@smkwlab.net", &[&mta.user("bob")], &vec![message.clone(); 50]);
    let before = mta.connections();
    let ran = site.mta_queue(&NONE).expect(0);
    let used = mta.connections() - before;
    assert_eq!(site.queued(), NONE, "{ran}");
    let mail = mta.wait_for_mail("bob", 50);
    assert_eq!(mail.len(), 50);
    assert!(mail.iter().all(|found| found.ends_with(&message)));
    assert!((1..=10).contains(&used), "{used} connections");
}

fn several_get_one_copy_each_and_the_sender_hears_who_is_unknown_there(kind: Kind) {
    let (site, mta) = behind_us(kind, Site::plan());
    let to = ["toshi", "stranger", "hunt", "alice"].map(|user| mta.user(user));
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    submit(&site, "bob@smkwlab.net", &to, &twenty()[..1]);
    let ran = site.mta_queue(&NONE).expect(0);
    let mut topmost = Vec::new();
    for user in ["toshi", "hunt", "alice"] {
        let mail = mta.wait_for_mail(user, 1);
        assert_eq!(mail.len(), 1, "{user}");
        assert!(mail[0].ends_with(&twenty()[0]), "{}", mail[0].escape_ascii());
        topmost.push(id(&mail[0]));
    }
    // They had it in one transaction.
    assert!(topmost.iter().all(|id| *id == topmost[0]), "{topmost:?}");
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    let reports = site.messages("bob");
    assert_eq!(reports.len(), 1, "{ran}");
    assert_eq!(reports[0].field("Return-Path"), Some("<>"));
    let text = reports[0].text();
    let words = match kind {
        Kind::Postfix => "User unknown in virtual mailbox table",
        Kind::Exim => "No mailbox here by that name",
        Kind::OpenSmtpd => "Mailing list expansion problem",
    };
    for known in [words, to[1]] {
        assert!(text.contains(known), "{known}: {text}");
    }
}

fn what_it_puts_off_goes_later(kind: Kind) {
    let (site, mut mta) = behind_us(kind, Site::plan());
    let (toshi, hunt) = (mta.user("toshi"), mta.user("hunt"));
    mta.put_off(&[&hunt]);
    submit(&site, "bob@smkwlab.net", &[&toshi, &hunt], &twenty()[1..2]);
    let ran = site.mta_queue(&NONE).expect(0);
    assert_eq!(mta.wait_for_mail("toshi", 1).len(), 1);
    assert_eq!(site.queued_in("deferred").len(), 1, "{ran}");
    assert!(ran.stderr.contains("Greylisted, come back later"), "{ran}");
    // A host that is down is no reason to give up either.
    mta.down();
    let ran = site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.queued_in("deferred").len(), 1, "{ran}");
    mta.put_off(&[]);
    let ran = site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    let mail = mta.wait_for_mail("hunt", 1);
    assert!(mail[0].ends_with(&twenty()[1]), "{}", mail[0].escape_ascii());
    assert_eq!(mail.len(), 1);
    // As it was killed, it may itself have delivered a message twice; it had one from us.
    let mut ids: Vec<String> = mta.mail("toshi").iter().map(|message| id(message)).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(site.messages("bob"), [], "the sender is not bothered");
}

fn it_is_found_by_its_mx_and_by_its_address(kind: Kind) {
    let network = Network::new();
    let host = kind.ip().octets()[3];
    network.release(host);
    let mta = Mta::start_at(kind, network.port(), None);
    let name = format!("mx.{}", kind.domain());
    network.dns.host(&name, &kind.ip().to_string());
    network.dns.set(&format!("{} MX 10 {name}", kind.domain()));
    let site = network.plan().build();
    submit(&site, "bob@smkwlab.net", &[&mta.user("hunt")], &twenty()[..1]);
    let ran = site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    assert!(mta.wait_for_mail("hunt", 1)[0].ends_with(&twenty()[0]));
    // Only Exim is told that its address is a domain, too.
    if kind == Kind::Exim {
        submit(&site, "bob@smkwlab.net", &[&format!("hunt@[{}]", kind.ip())], &twenty()[..1]);
        let ran = site.mta_queue(&NONE).expect(0);
        assert_eq!(site.queued(), NONE, "{ran}");
        mta.wait_for_mail("hunt", 2);
    }
}
