//! Debian's Postfix, Exim and OpenSMTPD relay to us encrypted: every kind of message, byte for byte,
//! to the host that they trust and to no other.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::thread;

use base64ct::{Base64, Encoding};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use support::entry::{self, Entry};
use support::mta::{Kind, Mta, Tls};
use support::peer::{Peer, stuffed};
use support::run::Server;
use support::site::{HOST, Site};
use support::tls::Pair;
use support::{Dice, wait_until};

const FROM: &str = "toshi@example.org";
const TO: &str = "hunt@smkwlab.net";

type Rule = (&'static str, fn(Kind));

/// What has to hold for each neighbour.
const RULES: [Rule; 4] = [
    ("every_kind_of_message_comes_byte_for_byte", every_kind_of_message_comes_byte_for_byte),
    ("what_the_envelope_says_comes_along", what_the_envelope_says_comes_along),
    ("who_has_to_encrypt_waits_until_we_can", who_has_to_encrypt_waits_until_we_can),
    (
        "a_host_with_another_certificate_gets_nothing_and_the_right_one_all",
        a_host_with_another_certificate_gets_nothing_and_the_right_one_all,
    ),
];

/// All rules at once, for a neighbour that mostly waits.
fn with(kind: Kind) {
    if !kind.need() {
        return;
    }
    thread::scope(|scope| {
        for (name, rule) in RULES {
            thread::Builder::new()
                .name(name.into())
                .spawn_scoped(scope, move || rule(kind))
                .unwrap();
        }
    });
}

#[test]
fn postfix_relays_to_us_by_tls() {
    with(Kind::Postfix);
}

#[test]
fn exim_relays_to_us_by_tls() {
    with(Kind::Exim);
}

#[test]
fn opensmtpd_relays_to_us_by_tls() {
    with(Kind::OpenSmtpd);
}

/// We, and a neighbour that relays to us. What arrives stays in `incoming/`.
struct Hosts {
    pair: Pair,
    site: Site,
    smtpd: Server,
    mta: Mta,
}

impl Hosts {
    fn new(kind: Kind) -> Self {
        let pair = Pair::new();
        let trusted = pair.certificate();
        Self::with(kind, pair, Tls::Verify(HOST, trusted))
    }

    fn with(kind: Kind, pair: Pair, tls: Tls) -> Self {
        let site = pair.plan(Site::plan()).build();
        let (smtpd, address) = site.serve("smtpd");
        let mta = Mta::start_trusting(kind, address, tls);
        Self { pair, site, smtpd, mta }
    }

    /// What has arrived, when so many messages have.
    #[track_caller]
    fn arrived(&self, count: usize) -> Vec<Entry> {
        let names = wait_until(&format!("{count} messages in incoming/"), || {
            let names = self.site.queued_in("incoming");
            (names.len() >= count).then_some(names)
        });
        assert_eq!(names.len(), count);
        let directory = self.site.queue().join("incoming");
        names.iter().map(|name| entry::read(&directory.join(name)).unwrap()).collect()
    }
}

/// That this is a message of the queue that came encrypted, unchanged but for Received fields.
#[track_caller]
fn has_come(entries: &[Entry], message: &[u8]) -> Entry {
    let mut found = entries.iter().filter(|entry| below_received(&entry.content) == message);
    let entry = found.next().unwrap_or_else(|| {
        let ends: Vec<String> =
            entries.iter().map(|entry| shown(below_received(&entry.content))).collect();
        panic!("not there: {}\n{ends:#?}", shown(message))
    });
    let ours = String::from_utf8_lossy(&entry.content);
    let ours = ours.split("\r\nReceived: ").next().unwrap();
    assert!(ours.contains("\r\n\tby mx.smkwlab.net (Hikyaku) with "), "{ours}");
    assert!(ours.contains(" with ESMTPS id ") || ours.contains(" with UTF8SMTPS id "), "{ours}");
    entry.clone()
}

/// The beginning and the end of a message.
fn shown(message: &[u8]) -> String {
    let (begin, end) = (message.len().min(700), message.len().saturating_sub(60));
    format!("{} … {}", message[..begin].escape_ascii(), message[end..].escape_ascii())
}

/// What a message is below all Received fields on top.
fn below_received(content: &[u8]) -> &[u8] {
    let mut rest = content;
    while rest.starts_with(b"Received: ") {
        let end = rest.windows(3).position(|end| end[..2] == *b"\r\n" && !b" \t".contains(&end[2]));
        rest = &rest[end.unwrap() + 2..];
    }
    rest
}

/// Header fields that a message needs, so that no neighbour adds one. With CR LF, as all here.
fn header(subject: &str) -> String {
    format!(
        "From: toshi@example.org\r\nTo: hunt@smkwlab.net\r\nSubject: {subject}\r\n\
         Date: Mon, 21 Jun 2004 03:15:20 +0900\r\nMessage-ID: <{subject}@example.org>\r\n"
    )
}

fn message(subject: &str, more: &str, text: &[u8]) -> Vec<u8> {
    [header(subject).as_bytes(), more.as_bytes(), b"\r\n", text].concat()
}

/// Each kind of message, by name.
fn kinds() -> Vec<Vec<u8>> {
    let mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Transfer-Encoding: 8bit\r\n";
    vec![
        message("eight-bits", mime, "Grüße, こんにちは。\r\n".as_bytes()),
        message("no-charset", "", b"Gr\xfc\xdfe \xff\xfe\x80\r\n"),
        message("dots", "", b".\r\n..\r\n.a dot\r\n...\r\n\r\n.\r\n\r\n.\r\n"),
        message("998", "", &[&[b'x'; 998][..], b"\r\n.", &[b'y'; 997], b"\r\n"].concat()),
        message("empty", "", b""),
        message("blank", "", b"\r\n\r\n\r\n"),
        message("from", "", b"From here on\r\n>From there\r\n \r\n\t\r\n"),
        message("folded", "X-Folded: one,\r\n\ttwo,\r\n   three\r\n", b"x\r\n"),
    ]
}

/// An attachment, of 5 MB before it is base64.
fn attachment() -> Vec<u8> {
    let mut dice = Dice::new(5);
    let bytes: Vec<u8> = (0..625_000).flat_map(|_| dice.next().to_le_bytes()).collect();
    let encoded = Base64::encode_string(&bytes);
    let mut text = b"--b\r\nContent-Type: text/plain\r\n\r\nHello.\r\n--b\r\nContent-Type: \
                     application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for line in encoded.as_bytes().chunks(76) {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"--b--\r\n");
    let mime = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    message("attachment", mime, &text)
}

/// What a neighbour says of TLS in the log of what it has sent.
fn encrypted(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Postfix => {
            &["Verified TLS connection established to ", "TLSv1.3 with cipher TLS_AES_"]
        }
        Kind::Exim => &[" X=TLS1.3:ECDHE", "_AES_256_GCM:256 CV=yes "],
        Kind::OpenSmtpd => &[
            "mta tls ciphers=TLSv1.3:TLS_AES_256_GCM_SHA384:256",
            "mta server-cert-check result=\"success\"",
        ],
    }
}

fn every_kind_of_message_comes_byte_for_byte(kind: Kind) {
    let hosts = Hosts::new(kind);
    let mut messages = kinds();
    messages.push(attachment());
    // Longer lines than RFC 5322 allows are passed on by those who do not refuse them.
    if kind != Kind::OpenSmtpd {
        messages.push(message("long", "", &[&[b'z'; 3000][..], b"\r\n"].concat()));
    }
    for message in &messages {
        hosts.mta.submit(FROM, &[TO], message);
    }
    let mut count = messages.len();
    // A text without a last line end, which only a chunk can have.
    if kind != Kind::OpenSmtpd {
        let cut = message("cut", "", b"no line end");
        let mut peer = Peer::connect(hosts.mta.address());
        peer.greet();
        assert!(peer.command(format!("MAIL FROM:<{FROM}>")).starts_with("250 "));
        assert!(peer.command(format!("RCPT TO:<{TO}>")).starts_with("250 "));
        peer.send([format!("BDAT {} LAST\r\n", cut.len()).as_bytes(), &cut].concat());
        assert!(peer.reply().starts_with("250"), "{}", peer.dialogue());
        messages.push([&cut[..], b"\r\n"].concat());
        count += 1;
    }
    let entries = hosts.arrived(count);
    for message in &messages {
        let entry = has_come(&entries, message);
        assert_eq!((entry.sender.as_str(), &entry.recipients[..]), (FROM, &[TO.to_owned()][..]));
    }
    for said in encrypted(kind) {
        hosts.mta.wait_for_log(said);
    }
    let ours = " proto=ESMTPS tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 status=accepted";
    wait_until("all in our log", || {
        (hosts.smtpd.log().matches(ours).count() == count).then_some(())
    });
    comes_in_few_steps(kind, &hosts.mta.log());
}

/// That a neighbour makes use of PIPELINING and of CHUNKING as far as it has them.
fn comes_in_few_steps(kind: Kind, log: &str) {
    match kind {
        // L: the commands came at once. K: the text came as a chunk.
        Kind::Exim => {
            let sent: Vec<&str> = log.lines().filter(|line| line.contains(" => hunt@")).collect();
            let quick = |line: &&str| line.contains(" L ") && line.contains(" K ");
            assert!(!sent.is_empty() && sent.iter().all(quick), "{log}");
        }
        // It has no BDAT where it is the client.
        Kind::Postfix => {
            let (_, process) = log.split_once(" postfix/smtp[").unwrap();
            let process = format!("/smtp[{}]: ", process.split(']').next().unwrap());
            let said: Vec<&str> = log
                .lines()
                .filter_map(|line| line.split_once(&process)?.1.split_once("127.0.0.1[127.0.0.1]:"))
                .filter(|(who, _)| ["> ", "< "].contains(who))
                .map(
                    |(who, words)| if who == "< " { who } else { words.split(' ').nth(1).unwrap() },
                )
                .collect();
            let found = said.windows(3).any(|three| three == ["MAIL", "RCPT", "DATA"]);
            assert!(found, "{said:?}");
        }
        Kind::OpenSmtpd => {}
    }
}

/// The lines of an envelope that are not of our making.
fn wishes(entry: &Entry) -> String {
    format!("{:?}", entry.envelope)
}

fn what_the_envelope_says_comes_along(kind: Kind) {
    let hosts = Hosts::new(kind);
    let text = message("m", "", b"x\r\n");
    let submit = |mail: &str, rcpt: &[&str], text: &[u8]| {
        let mut peer = Peer::connect(hosts.mta.address());
        peer.greet();
        assert!(
            peer.command(format!("MAIL FROM:{mail}")).starts_with("250 "),
            "{}",
            peer.dialogue()
        );
        for to in rcpt {
            assert!(
                peer.command(format!("RCPT TO:{to}")).starts_with("250 "),
                "{}",
                peer.dialogue()
            );
        }
        assert!(peer.command("DATA").starts_with("354 "));
        peer.send(stuffed(text));
        assert!(peer.reply().starts_with("250 "), "{}", peer.dialogue());
    };
    let take = |wanted: &[u8]| {
        let entry = has_come(&hosts.arrived(1), wanted);
        for name in hosts.site.queued_in("incoming") {
            fs::remove_file(hosts.site.queue().join("incoming").join(name)).unwrap();
        }
        entry
    };
    // Several recipients are one message still.
    let all = ["<toshi@smkwlab.net>", "<hunt@smkwlab.net>", "<alice@smkwlab.net>"];
    submit("<toshi@example.org>", &all, &text);
    let mut recipients = take(&text).recipients;
    recipients.sort();
    assert_eq!(recipients, ["alice@smkwlab.net", "hunt@smkwlab.net", "toshi@smkwlab.net"]);
    // A report.
    submit("<>", &["<hunt@smkwlab.net>"], &text);
    assert_eq!(take(&text).sender, "");
    // What is asked of reports.
    submit(
        "<toshi@example.org> RET=HDRS ENVID=QQ314159",
        &["<hunt@smkwlab.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;hunt@list.example"],
        &text,
    );
    let wishes = wishes(&take(&text)).to_lowercase();
    for said in ["hdrs", "qq314159", "success,failure", "rfc822;hunt@list.example"] {
        assert!(wishes.contains(said), "{said}: {wishes}");
    }
    // Addresses that are not ASCII.
    if kind != Kind::OpenSmtpd {
        let text =
            [&b"Subject: \xe9\xa3\x9b\xe8\x84\x9a\r\n"[..], &message("u", "", b"x\r\n")].concat();
        submit("<送信@例え.example> SMTPUTF8", &["<hunt@smkwlab.net>"], &text);
        let entry = take(&text);
        assert_eq!(entry.sender, "送信@例え.example");
        assert!(format!("{:?}", entry.envelope).contains("smtputf8"), "{:?}", entry.envelope);
    }
    // We refuse a recipient, and the neighbour reports that, encrypted as all.
    submit("<alice@smkwlab.net>", &["<stranger@smkwlab.net>"], &text);
    let entry = hosts.arrived(1).remove(0);
    assert_eq!(
        (entry.sender.as_str(), &entry.recipients[..]),
        ("", &["alice@smkwlab.net".to_owned()][..])
    );
    let report = String::from_utf8_lossy(&entry.content);
    assert!(report.contains("550 5.1.1 ") && report.contains(" with ESMTPS id "), "{report}");
}

/// It may say something that we have no certificate for; then we get one.
fn who_has_to_encrypt_waits_until_we_can(kind: Kind) {
    let (pair, broken) = (Pair::new(), Pair::new());
    let key = fs::read(pair.key()).unwrap();
    let mut hosts = Hosts::with(kind, pair, Tls::Encrypt);
    fs::copy(broken.key(), hosts.pair.key()).unwrap();
    let text = message("m", "", b"x\r\n");
    hosts.mta.submit(FROM, &[TO], &text);
    hosts.mta.wait_for_log(match kind {
        Kind::Postfix => {
            "TLS is required, but host 127.0.0.1[127.0.0.1] refused to start TLS: 454 4.7.0 "
        }
        Kind::Exim => "a TLS session is required, but an attempt to start TLS failed",
        Kind::OpenSmtpd => "STARTTLS rejected: 454 4.7.0 ",
    });
    assert_eq!(hosts.site.queued(), Vec::<String>::new());
    fs::write(hosts.pair.key(), key).unwrap();
    hosts.mta.hurry();
    has_come(&hosts.arrived(1), &text);
}

fn a_host_with_another_certificate_gets_nothing_and_the_right_one_all(kind: Kind) {
    let right = Pair::new();
    let by_name = Tls::Verify(HOST, right.certificate());
    thread::scope(|scope| {
        scope.spawn(|| another_certificate(kind, &right, by_name));
        if kind == Kind::Postfix {
            let der = CertificateDer::from_pem_file(right.certificate()).unwrap();
            let print: Vec<String> =
                Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
            another_certificate(kind, &right, Tls::Fingerprint(print.join(":")));
        }
    });
}

fn another_certificate(kind: Kind, right: &Pair, tls: Tls) {
    let mut hosts = Hosts::with(kind, Pair::new(), tls);
    let messages = &kinds()[..3];
    for message in messages {
        hosts.mta.submit(FROM, &[TO], message);
    }
    hosts.mta.wait_for_log(match kind {
        Kind::Postfix => "Server certificate not ",
        Kind::Exim => "certificate verification failed",
        Kind::OpenSmtpd => "SSL certificate check failed",
    });
    assert_eq!(hosts.site.queued(), Vec::<String>::new());
    assert!(!hosts.smtpd.log().contains("status=accepted"), "{}", hosts.smtpd.log());
    fs::copy(right.certificate(), hosts.pair.certificate()).unwrap();
    fs::copy(right.key(), hosts.pair.key()).unwrap();
    hosts.mta.hurry();
    let entries = hosts.arrived(messages.len());
    for message in messages {
        has_come(&entries, message);
    }
}
