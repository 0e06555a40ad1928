//! `local-deliver` in the place of the delivery agent of Postfix.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::handover::{QUOTA, hard, message, nearly_full, plan};

use support::mta::{Kind, Mta};
use support::outbox::Outbox;
use support::peer::{Peer, stuffed};
use support::report;
use support::run::Server;
use support::site::{Plan, Site};
use support::wait_until;

/// Postfix that calls us by `mailbox_command`.
fn by_command(site: &Site, arguments: &str) -> Mta {
    let words = format!("mailbox_command = exec {} {arguments}", site.agent());
    Mta::start_for(Kind::Postfix, site, &words)
}

/// The words of the manual page, and those that tell the sender as well.
const ARGUMENTS: [&str; 2] =
    ["--no-forward -a \"$EXTENSION\"", "--no-forward -f \"$SENDER\" -a \"$EXTENSION\""];

fn postfix_site() -> Plan {
    plan(Kind::Postfix)
}

#[test]
fn by_mailbox_command_a_message_arrives_byte_for_byte() {
    if !Kind::Postfix.need() {
        return;
    }
    for arguments in ARGUMENTS {
        let site = postfix_site().build();
        let mta = by_command(&site, arguments);
        for message in hard() {
            mta.submit("toshi@example.org", &["hunt@postfix.test"], &message);
        }
        site.wait_for_mail("hunt", hard().len());
        mta.wait_until_idle();
        let fetched = site.fetched("hunt");
        assert_eq!(fetched.len(), hard().len());
        for message in hard() {
            let found = fetched.iter().filter(|fetched| fetched.ends_with(&message)).count();
            assert_eq!(found, 1, "{}", message[..200.min(message.len())].escape_ascii());
        }
        for message in site.messages("hunt") {
            assert!(message.from_line.starts_with("From toshi@example.org "), "{message:?}");
            assert_eq!(message.fields("Return-Path"), ["<toshi@example.org>"]);
            // Postfix writes one, too.
            assert_eq!(message.fields("Delivered-To"), ["hunt@postfix.test"; 2]);
            assert_eq!(message.header[0].0, "Return-Path");
        }
        let found = fs::metadata(site.inbox("hunt")).unwrap();
        assert_eq!(found.uid(), Site::account("hunt").uid);
        assert_eq!(found.mode() & 0o777, 0o600);
    }
}

#[test]
fn by_mailbox_command_senders_and_extensions_arrive_as_they_are() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = postfix_site().build();
    let mta = by_command(&site, ARGUMENTS[0]);
    let envelopes = [
        ("", "hunt+lists@postfix.test"),
        ("o'brien&co@example.org", "HUNT@mx.postfix.test"),
        ("\"a b\"@example.org", "hunt+-f@postfix.test"),
        ("a=b+c@example.org", "hunt+a+b@postfix.test"),
    ];
    for (number, (from, to)) in envelopes.into_iter().enumerate() {
        mta.submit(from, &[to], &message(&number.to_string(), b"x\n"));
    }
    mta.wait_until_idle();
    let delivered_to = ["hunt+lists", "hunt", "hunt+-f", "hunt+a+b"];
    for (number, (from, _)) in envelopes.into_iter().enumerate() {
        let message = site.with_subject("hunt", &number.to_string());
        assert_eq!(message.fields("Return-Path"), [format!("<{from}>")]);
        let to = format!("{}@postfix.test", delivered_to[number]);
        assert_eq!(message.field("Delivered-To"), Some(to.as_str()));
    }
    let null = site.with_subject("hunt", "0");
    assert!(null.from_line.starts_with("From MAILER-DAEMON "), "{}", null.from_line);
}

/// Our delivery that has its message and waits for its mailbox now: it holds SIGTERM back.
fn waiting_agent(site: &Site) -> Pid {
    let config = site.configuration().display().to_string();
    let holds = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0)
    };
    wait_until("a delivery that waits", || {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        processes.filter_map(|name| name.to_str()?.parse().ok()).find_map(|pid: i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = line.split('\0');
            let is_it =
                words.next()?.ends_with("local-deliver") && words.any(|word| word == config);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            (is_it && holds(&status)?).then(|| Pid::from_raw(pid))
        })
    })
}

#[test]
fn what_is_put_off_stays_in_the_queue_of_postfix_and_is_delivered_later() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = postfix_site()
        .set("mailbox", "quota", QUOTA)
        .set("mailbox", "over_quota", "\"wait\"")
        .build();
    let mta = by_command(&site, ARGUMENTS[0]);
    site.fill("hunt", nearly_full().as_bytes());
    mta.submit("alice@postfix.test", &["hunt@postfix.test"], &message("quota", &[b'y'; 1000]));
    let log = mta.wait_for_log("status=deferred");
    assert!(log.contains("Command output: local-deliver: "), "our words: {log}");
    assert_eq!((site.messages("hunt").len(), mta.queued() > 0), (1, true));
    site.fill("hunt", b"");
    site.wait_for_mail("hunt", 1);
    mta.wait_until_idle();
    // Somebody else has the lock. That is waited for, until there is no more time, or is killed.
    let other = fs::File::options().write(true).open(site.inbox("hunt")).unwrap();
    other.lock().unwrap();
    mta.submit("alice@postfix.test", &["hunt@postfix.test"], &message("lock", b"x\n"));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let deferred = mta.log().matches("status=deferred").count();
        kill(waiting_agent(&site), signal).unwrap();
        wait_until("a delivery that is put off", || {
            (mta.log().matches("status=deferred").count() > deferred).then_some(())
        });
    }
    other.unlock().unwrap();
    drop(other);
    site.wait_for_mail("hunt", 2);
    mta.wait_until_idle();
    for subject in ["quota", "lock"] {
        site.with_subject("hunt", subject);
    }
    assert!(!mta.log().contains("status=bounced"), "{}", mta.log());
    assert_eq!(site.messages("alice"), [], "the sender is not bothered");
}

#[test]
fn what_is_refused_goes_back_to_its_sender_with_our_words() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = postfix_site().set("mailbox", "quota", QUOTA).build();
    // An account of the host that is no user of ours: Postfix knows it, and we do not.
    let words =
        format!("local_recipient_maps =\nmailbox_command = exec {} {}", site.agent(), ARGUMENTS[0]);
    let mta = Mta::start_for(Kind::Postfix, &site, &words);
    mta.submit("alice@postfix.test", &["hunt@postfix.test"], &message("full", &vec![b'y'; 70_000]));
    let bounce = &site.wait_for_mail("alice", 1)[0];
    assert_eq!(bounce.field("Return-Path"), Some("<>"));
    let report = report::of_message(bounce);
    assert_eq!(
        (report.recipient.as_str(), report.action.as_str()),
        ("hunt@postfix.test", "failed")
    );
    assert!(report.status.starts_with("5.2."), "{report:?}");
    assert!(report.words.contains(QUOTA), "{report:?}");
    mta.wait_until_idle();
    assert_eq!(site.messages("hunt"), []);
}

#[test]
fn a_forward_that_postfix_has_obeyed_is_not_obeyed_again() {
    if !Kind::Postfix.need() {
        return;
    }
    let outbox = Outbox::new();
    let site = outbox.plan(postfix_site()).build();
    let mta = by_command(&site, ARGUMENTS[0]);
    site.forward("hunt", "\\hunt, alice@postfix.test, \"|cat >> PIPED\"\n");
    mta.submit("toshi@example.org", &["hunt@postfix.test"], &message("all", b"x\n"));
    site.wait_for_mail("alice", 1);
    mta.wait_until_idle();
    assert_eq!((site.messages("hunt").len(), site.piped("hunt")), (1, 1));
    // Without the word, Postfix's Delivered-To tells that it was sent on.
    drop(mta);
    let mta = by_command(&site, "-a \"$EXTENSION\"");
    site.forward("hunt", "\\hunt, alice@postfix.test\n");
    let to = ["hunt@postfix.test", "hunt+x@postfix.test", "Hunt@mx.postfix.test"];
    for to in to {
        mta.submit("toshi@example.org", &[to], &message(to, b"x\n"));
    }
    mta.wait_until_idle();
    for to in to {
        for user in ["hunt", "alice"] {
            site.with_subject(user, to);
        }
    }
    assert_eq!(outbox.sent(), []);
    // Only an address: nothing comes to us.
    site.forward("hunt", "alice@postfix.test\n");
    mta.submit("toshi@example.org", &["hunt@postfix.test"], &message("on", b"x\n"));
    mta.wait_until_idle();
    site.with_subject("alice", "on");
    assert_eq!(outbox.sent(), []);
    assert_eq!(site.messages("hunt").len(), 1 + to.len());
}

/// Postfix that brings mail by LMTP, as the value of this setting: `mailbox_transport`, where it
/// obeys `.forward` itself, or `local_transport`.
fn by_lmtp(site: &Site, setting: &str, arguments: &[&str]) -> (Server, Mta) {
    let socket = site.path().join("lmtp");
    let postfix = nix::unistd::User::from_name("postfix").unwrap().unwrap();
    let server = site.serve_lmtp(&socket, Some(postfix.uid.as_raw()), arguments);
    let words = format!("{setting} = lmtp:unix:{}\nlocal_recipient_maps =", socket.display());
    (server, Mta::start_for(Kind::Postfix, site, &words))
}

fn lmtp_site() -> Plan {
    postfix_site().set("", "log", "\"stderr\"")
}

#[test]
fn by_lmtp_fifty_messages_and_hard_ones_arrive_byte_for_byte() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = lmtp_site().build();
    let (_server, mta) = by_lmtp(&site, "local_transport", &[]);
    let mut peer = Peer::connect(mta.address());
    peer.greet();
    let all = ["hunt@postfix.test", "toshi+x@postfix.test", "Alice@mx.postfix.test"];
    let mut messages = hard();
    messages.extend((0..50).map(|number| message(&format!("m{number}"), b"x\n")));
    for message in &messages {
        let reply = peer.mail("", &all, message);
        assert!(reply.starts_with("250 "), "{reply}");
    }
    peer.command("QUIT");
    mta.wait_until_idle();
    let names = [
        ("hunt", "hunt@postfix.test"),
        ("toshi", "toshi+x@postfix.test"),
        ("alice", "Alice@mx.postfix.test"),
    ];
    for (user, address) in names {
        let fetched = site.fetched(user);
        assert_eq!(fetched.len(), messages.len(), "{user}");
        for message in &messages {
            let found = fetched.iter().filter(|fetched| fetched.ends_with(message)).count();
            assert_eq!(found, 1, "{}", message[..200.min(message.len())].escape_ascii());
        }
        for message in site.messages(user) {
            assert!(message.from_line.starts_with("From MAILER-DAEMON "), "{message:?}");
            assert_eq!(message.fields("Return-Path"), ["<>"]);
            assert_eq!(message.fields("Delivered-To"), [address]);
        }
        let found = fs::metadata(site.inbox(user)).unwrap();
        assert_eq!(found.uid(), Site::account(user).uid);
    }
}

#[test]
fn by_lmtp_each_recipient_has_a_fate_of_its_own() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = lmtp_site().set("mailbox", "quota", QUOTA).build();
    let (_server, mta) = by_lmtp(&site, "local_transport", &[]);
    site.fill("hunt", nearly_full().as_bytes());
    let to = ["toshi", "hunt", "stranger", "alice+x"].map(|name| format!("{name}@postfix.test"));
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    mta.submit("bob@postfix.test", &to, &message("fates", &[b'y'; 1000]));
    let bounces = site.wait_for_mail("bob", 1);
    mta.wait_until_idle();
    assert_eq!((bounces.len(), site.messages("hunt").len()), (1, 1));
    for user in ["toshi", "alice"] {
        site.with_subject(user, "fates");
    }
    let text = bounces[0].text();
    for words in [
        "Final-Recipient: rfc822; hunt@postfix.test\n",
        "Status: 5.2.2\n",
        "552 5.2.2 mailbox hunt is full",
        "Final-Recipient: rfc822; stranger@postfix.test\n",
        "Status: 5.1.1\n",
        "there is no such user here",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(text.matches("Final-Recipient:").count(), 2, "{text}");
}

#[test]
fn by_lmtp_what_is_put_off_is_delivered_later_and_to_nobody_twice() {
    if !Kind::Postfix.need() {
        return;
    }
    let site =
        lmtp_site().set("mailbox", "quota", QUOTA).set("mailbox", "over_quota", "\"wait\"").build();
    let (_server, mta) = by_lmtp(&site, "local_transport", &[]);
    site.fill("hunt", nearly_full().as_bytes());
    let to = ["toshi@postfix.test", "hunt@postfix.test"];
    mta.submit("bob@postfix.test", &to, &message("later", &[b'y'; 1000]));
    let log = mta.wait_for_log("status=deferred");
    assert!(log.contains("said: 451 4.2.2 mailbox hunt is full"), "{log}");
    site.fill("hunt", b"");
    site.wait_for_mail("hunt", 1);
    mta.wait_until_idle();
    for user in ["toshi", "hunt"] {
        site.with_subject(user, "later");
    }
    assert_eq!(site.messages("bob"), []);
}

#[test]
fn by_mailbox_transport_postfix_obeys_forward_and_we_do_not() {
    if !Kind::Postfix.need() {
        return;
    }
    let outbox = Outbox::new();
    let site = outbox.plan(lmtp_site()).build();
    let (_server, mta) = by_lmtp(&site, "mailbox_transport", &["--no-forward"]);
    site.forward("hunt", "\\hunt, alice@postfix.test, \"|cat >> PIPED\"\n");
    mta.submit("o'brien@example.org", &["hunt@postfix.test"], &message("all", b"x\n"));
    mta.submit("bob@postfix.test", &["toshi+x@mx.postfix.test"], &message("own", b"x\n"));
    mta.wait_until_idle();
    let all = site.with_subject("hunt", "all");
    assert_eq!(all.field("Return-Path"), Some("<o'brien@example.org>"));
    let own = site.with_subject("toshi", "own");
    assert_eq!(own.field("Delivered-To"), Some("toshi+x@mx.postfix.test"));
    site.with_subject("alice", "all");
    assert_eq!((site.piped("hunt"), outbox.sent()), (1, Vec::new()));
}

#[test]
fn a_sender_who_asks_postfix_for_it_hears_of_a_delivery_by_lmtp_once() {
    if !Kind::Postfix.need() {
        return;
    }
    let outbox = Outbox::new();
    let site = outbox.plan(lmtp_site()).build();
    let (_server, mta) = by_lmtp(&site, "local_transport", &[]);
    let mut peer = Peer::connect(mta.address());
    peer.greet();
    for command in [
        "MAIL FROM:<bob@postfix.test> RET=HDRS ENVID=QQ314159",
        "RCPT TO:<hunt+x@postfix.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Hunter@example.org",
        "RCPT TO:<toshi@postfix.test> NOTIFY=NEVER",
        "RCPT TO:<alice@postfix.test>",
    ] {
        let reply = peer.command(command);
        assert!(reply.starts_with("250 "), "{command}: {reply}");
    }
    assert!(peer.command("DATA").starts_with("354 "));
    peer.send(stuffed(&message("notify", b"secret\n")));
    assert!(peer.reply().starts_with("250 "));
    peer.command("QUIT");
    let sent = outbox.wait_for(1);
    mta.wait_until_idle();
    for user in ["hunt", "toshi", "alice"] {
        site.with_subject(user, "notify");
    }
    assert_eq!(outbox.sent(), sent, "one report");
    assert_eq!(site.messages("bob"), [], "and none of Postfix");
    assert_eq!(sent[0].arguments, ["-i", "-f<>", "--", "bob@postfix.test"]);
    let text = &sent[0].message;
    for words in [
        "Original-Envelope-Id: QQ314159\n",
        "Original-Recipient: rfc822; Hunter@example.org\n",
        "Final-Recipient: rfc822; hunt+x@postfix.test\nAction: delivered\nStatus: 2.0.0\n",
        "Subject: notify\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}
