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
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::peer::{Peer, stuffed};
use support::run::{Ran, Server, run};
use support::site::Site;
use support::store::{self, FORMS, Form, Who, callers};
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

/// How many deliveries come at once.
const AT_ONCE: usize = 20;

/// Runs `local-deliver` for each of these messages at the same time.
fn at_once(site: &Site, who: Who, arguments: &[&str], messages: &[Vec<u8>]) -> Vec<Ran> {
    let begin = Barrier::new(messages.len());
    std::thread::scope(|scope| {
        let runs: Vec<_> = messages
            .iter()
            .map(|message| {
                let begin = &begin;
                scope.spawn(move || {
                    let mut command = store::local_deliver(site);
                    command.args(arguments);
                    who.run_by(site, &mut command);
                    begin.wait();
                    run(&mut command, message)
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

#[test]
fn twenty_deliveries_at_once_into_one_maildir_or_folder_lose_and_tear_nothing() {
    for (form, folder) in [
        (Form::Maildir, None),
        (Form::Mbox, None),
        (Form::Mbox, Some("lists/rust")),
        (Form::Maildir, Some("lists/rust/")),
    ] {
        for who in callers() {
            let site = form.plan().build();
            let path = match folder {
                Some(name) => {
                    site.home("hunt").join("mail").join(name.replace("lists/", "lists.sbd/"))
                }
                None => form.inbox(&site),
            };
            let arguments: Vec<&str> = folder.iter().flat_map(|name| ["-m", name]).collect();
            let mut messages = Vec::new();
            // The first of them find no mailbox, and make it.
            for round in 0..3 {
                let new: Vec<_> =
                    (0..AT_ONCE).map(|n| store::message(round * AT_ONCE + n, n * 700)).collect();
                for ran in at_once(&site, *who, &arguments, &new) {
                    ran.expect(0);
                }
                messages.extend(new);
            }
            let known: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let found = match form {
                Form::Mbox => store::in_file(&path, b"", &known),
                Form::Maildir => store::in_directories(&path, &known),
            };
            let mut found = found.unwrap_or_else(|what| panic!("{form:?}, {who:?}: {what}"));
            found.sort_unstable();
            assert_eq!(found, (0..messages.len()).collect::<Vec<_>>(), "{form:?}, {who:?}");
        }
    }
}

#[test]
fn of_copies_that_come_at_once_exactly_one_is_delivered() {
    for form in FORMS {
        let site = form.plan().set("mailbox", "drop_duplicates", "\"1h\"").build();
        let inbox = form.inbox(&site);
        form.fill(&inbox);
        let mut all = Vec::new();
        for round in 0..10 {
            let id = format!("Message-ID: <{round}@example.org>\n");
            let message = [id.as_bytes(), &store::message(round, 3000)].concat();
            for ran in at_once(&site, Who::User, &[], &[message.clone(), message.clone()]) {
                ran.expect(0);
            }
            all.push(message);
            let known: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            let mut found = form.found(&inbox, &known).unwrap();
            found.sort_unstable();
            assert_eq!(found, (0..=round).collect::<Vec<_>>(), "{form:?}");
        }
    }
}

/// The bytes of a mailbox, and how often its user was told that it gets full.
fn usage(form: Form, path: &Path) -> (u64, usize) {
    let files = match form {
        Form::Mbox => vec![path.to_owned()],
        Form::Maildir => ["new", "cur"]
            .iter()
            .flat_map(|part| fs::read_dir(path.join(part)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect(),
    };
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let warnings = texts.iter().map(|text| text.matches("mailbox is nearly full").count());
    (texts.iter().map(|text| text.len() as u64).sum(), warnings.sum())
}

#[test]
fn many_at_once_never_exceed_a_quota() {
    const QUOTA: u64 = 50_000;
    for form in FORMS {
        for who in callers() {
            for _ in 0..5 {
                let site = form.plan().set("mailbox", "quota", &QUOTA.to_string()).build();
                let inbox = form.inbox(&site);
                form.fill(&inbox);
                let messages = vec![store::message(1, 4000); AT_ONCE];
                let runs = at_once(&site, *who, &[], &messages);
                let codes: Vec<_> = runs.iter().map(Ran::code).collect();
                let delivered = codes.iter().filter(|code| **code == Some(0)).count();
                let full = codes.iter().filter(|code| **code == Some(73)).count();
                let what = format!("{form:?}, {who:?}: {codes:?}");
                assert_eq!(delivered + full, AT_ONCE, "{what}");
                let (size, warnings) = usage(form, &inbox);
                assert!(size <= QUOTA, "{what}: {size} bytes");
                assert!(size + 5000 > QUOTA, "{what}: {size} bytes are not all that fits");
                let heads = match form {
                    Form::Mbox => site.messages("hunt").len(),
                    Form::Maildir => fs::read_dir(inbox.join("new")).unwrap().count() + 1,
                };
                // And the older one, and the warning where it came in time.
                assert_eq!(heads, delivered + 1 + warnings, "{what}");
                assert!(warnings <= 1, "{what}: {warnings} warnings");
            }
        }
    }
}

#[test]
fn of_many_at_once_one_warns_the_user_that_the_mailbox_gets_full() {
    for form in FORMS {
        for who in callers() {
            for _ in 0..5 {
                let plan = form.plan().set("mailbox", "quota", "200000");
                let site = plan.set("mailbox", "quota_warning", "20").build();
                let inbox = form.inbox(&site);
                form.fill(&inbox);
                let messages = vec![store::message(1, 4000); AT_ONCE];
                for ran in at_once(&site, *who, &[], &messages) {
                    ran.expect(0);
                }
                let (_, warnings) = usage(form, &inbox);
                assert_eq!(warnings, 1, "{form:?}, {who:?}");
            }
        }
    }
}
