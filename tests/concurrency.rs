//! Many writers of one mailbox, ours and a neighbour: nothing is lost, nothing is torn.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::peer::{Peer, stuffed};
use support::run::{Server, run};
use support::site::Site;
use support::{Dice, find, mbox, need};

/// A message that can be checked by itself: its last line is the checksum of the lines before.
fn message(writer: usize, number: usize) -> String {
    let mut dice = Dice::new(u64::try_from(writer * 1000 + number).unwrap());
    let mut body = String::new();
    for _ in 0..dice.below(60) {
        match dice.below(6) {
            0 => body.push_str("From the beginning of a line\n"),
            1 => body.push('\n'),
            2 => body.push_str("\nFrom x@example.org Mon Jun 21 03:15:20 2004\n"),
            _ => writeln!(body, "{:x}", dice.next()).unwrap(),
        }
    }
    let sum = crc32fast::hash(body.as_bytes());
    format!("From: w{writer}@example.org\nSubject: {writer}-{number}\n\n{body}{sum:08x}\n")
}

/// The subject of a message, once it has proven to be whole.
fn proven(message: &mbox::Message) -> String {
    let text = message.text();
    let text = text.trim_end_matches('\n');
    let (body, sum) = text.split_at(text.rfind('\n').map_or(0, |at| at + 1));
    assert_eq!(
        format!("{:08x}", crc32fast::hash(body.as_bytes())),
        sum,
        "a torn message: {message:?}"
    );
    message.field("Subject").unwrap().to_owned()
}

/// The same proof by Python's mailbox module, which shares nothing with anything here.
const CHECK: &str = r"
import mailbox, re, sys, zlib
box = mailbox.mbox(sys.argv[1], create=False)
for key in box.keys():
    raw = box.get_bytes(key).replace(b'\r\n', b'\n')
    header, body = raw.split(b'\n\n', 1)
    body = re.sub(rb'(?m)^>(>*From )', rb'\1', body).rstrip(b'\n')
    at = body.rfind(b'\n') + 1
    text, total = body[:at], body[at:].decode()
    subject = re.search(rb'(?m)^Subject: (.*)$', header).group(1).decode()
    print(subject, 'whole' if '%08x' % zlib.crc32(text) == total else 'torn')
";

/// Delivers messages through one `local-deliver --lmtp`.
fn deliver(site: &Site, writer: usize, count: usize) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = site.command("local-deliver");
    command.args(["--lmtp", "-d", "hunt"]);
    site.become_user(&mut command, "hunt");
    command
        .stdin(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()))
        .stdout(std::os::fd::OwnedFd::from(theirs));
    let server = Server::start(&mut command);
    drop(command);
    let mut peer = Peer::new(ours);
    assert!(peer.reply().starts_with("220 "));
    assert!(peer.command("LHLO client.example").starts_with("250"));
    let mut dice = Dice::new(u64::try_from(writer).unwrap());
    for number in 0..count {
        // Not all of the time: procmail sleeps a second when it finds a lock, and should be heard.
        std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(100)).unwrap()));
        let text = message(writer, number);
        loop {
            for command in ["MAIL FROM:<a@example.org>", "RCPT TO:<hunt@smkwlab.net>", "DATA"] {
                let reply = peer.command(command);
                assert!(reply.starts_with(['2', '3']), "{command}: {reply}");
            }
            peer.send(stuffed(text.as_bytes()));
            let reply = peer.reply();
            if reply.starts_with("250 ") {
                break;
            }
            // A lock that could not be had in time is tried again, as the queue would.
            assert!(reply.starts_with('4'), "{reply}");
        }
    }
    peer.command("QUIT");
    server.join();
}

#[test]
fn twenty_writers_beside_procmail_lose_and_tear_nothing() {
    const WRITERS: usize = 20;
    const EACH: usize = 100;
    let site = Site::new();
    site.fill("hunt", b"");
    let neighbour = need("procmail");
    let rc = site.path().join("procmailrc");
    fs::write(
        &rc,
        format!("DEFAULT={}\nLOCKSLEEP=1\nLOGFILE=/dev/null\n", site.inbox("hunt").display()),
    )
    .unwrap();
    let over = AtomicBool::new(false);
    let by_procmail = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let site = &site;
                scope.spawn(move || deliver(site, writer, EACH))
            })
            .collect();
        for _ in 0..if neighbour { 4 } else { 0 } {
            let (site, rc, over, by_procmail) = (&site, &rc, &over, &by_procmail);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = by_procmail.fetch_add(1, Ordering::Relaxed);
                    let mut command = Command::new(find("procmail").unwrap());
                    command.arg("-f").arg("p@example.org").arg("-m").arg(rc);
                    site.become_user(&mut command, "hunt");
                    let ran = run(&mut command, message(99, number).as_bytes());
                    assert_eq!(ran.code(), Some(0), "procmail: {ran}");
                }
            });
        }
        let results: Vec<_> =
            writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    let by_procmail = by_procmail.into_inner();
    support::note(&format!("{by_procmail} messages were delivered by procmail in between"));
    let mut expected: Vec<String> = (0..WRITERS)
        .flat_map(|writer| (0..EACH).map(move |number| format!("{writer}-{number}")))
        .chain((0..by_procmail).map(|number| format!("99-{number}")))
        .collect();
    expected.sort();
    let mut found: Vec<String> = site.messages("hunt").iter().map(proven).collect();
    found.sort();
    assert_eq!(found, expected);
    assert!(!site.path().join("mail/hunt.lock").exists());

    if !need("python3") {
        return;
    }
    let mut python = Command::new("python3");
    python.args(["-c", CHECK]).arg(site.inbox("hunt")).stdin(Stdio::null());
    let ran = run(&mut python, b"").expect(0);
    let text = ran.text();
    let mut found: Vec<String> = text
        .lines()
        .map(|line| {
            let (subject, word) = line.split_once(' ').unwrap();
            assert_eq!(word, "whole", "{subject}");
            subject.to_owned()
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_pop_session_that_deletes_loses_nothing_that_arrives_meanwhile() {
    let site = Site::new();
    let (_server, address) = site.serve("popd");
    for number in 0..20 {
        site.local_deliver("hunt", "a@example.org", message(1, number).as_bytes()).expect(0);
    }
    let over = AtomicBool::new(false);
    let mut arrived = 0;
    let mut deleted = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let ran =
                    site.local_deliver("hunt", "a@example.org", message(2, number).as_bytes());
                // While the maildrop is locked for long, a delivery may have to come again.
                match ran.code() {
                    Some(0) => number += 1,
                    Some(75) => {}
                    _ => panic!("{ran}"),
                }
            }
            number
        });
        for _ in 0..5 {
            let mut peer = Peer::connect(address);
            peer.line();
            peer.pop("USER hunt");
            let answer = peer.pop("PASS Watts?Watt?");
            assert!(answer.starts_with("+OK"), "{answer}");
            for number in 1..=3 {
                assert!(peer.pop(&format!("RETR {number}")).starts_with("+OK"));
                let body = peer.pop_body();
                let parsed = mbox::parse(&[b"From x\n", body.as_slice(), b"\n"].concat());
                deleted.push(parsed[0].field("Subject").unwrap().to_owned());
                assert!(peer.pop(&format!("DELE {number}")).starts_with("+OK"));
            }
            let answer = peer.pop("QUIT");
            assert!(answer.starts_with("+OK"), "{answer}");
        }
        over.store(true, Ordering::Relaxed);
        arrived = writer.join().unwrap();
    });
    support::note(&format!("{arrived} messages arrived meanwhile"));
    let mut found: Vec<String> = site.messages("hunt").iter().map(proven).collect();
    found.extend(deleted);
    found.sort();
    let mut expected: Vec<String> = (0..20)
        .map(|number| format!("1-{number}"))
        .chain((0..arrived).map(|number| format!("2-{number}")))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
}
