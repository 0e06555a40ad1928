//! The whole path: SMTP or sendmail in, a run of the queue, mbox, POP3 out; and what happens to a
//! message that can't go that way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use support::entry;
use support::peer::Peer;
use support::run::Server;
use support::site::Site;
use support::{mbox, wait_until};

const NONE: [&str; 0] = [];

/// The text of the lecture's example, in the charset that it has there.
const JAPANESE: &[u8] = b"From: Toshihiko SHIMOKAWA / =?ISO-2022-JP?B?GyRCMjxATj1TSScbKEI=?= \
    <toshi@tenbin.org>\nTo: hunt@smkwlab.net\nBcc: alice@smkwlab.net\n\
    Subject: =?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?=\nMIME-Version: 1.0\n\
    Content-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: 7bit\n\
    Content-Disposition: inline\n\n\
    \x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#\x1b(B\n.\nFrom here\n";

/// Reads the only message of a user by POP3, and deletes it.
#[track_caller]
fn fetch(site: &Site, user: &str) -> String {
    let (_server, address) = site.serve("popd");
    let mut peer = Peer::connect(address);
    peer.line();
    let password = Site::account(user).password;
    for command in [&format!("USER {user}"), &format!("PASS {password}")] {
        let answer = peer.pop(command);
        assert!(answer.starts_with("+OK"), "{command}: {answer}");
    }
    let answer = peer.pop("STAT");
    assert!(answer.starts_with("+OK 1 "), "{answer}");
    let octets: usize = answer.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(peer.pop("RETR 1").starts_with("+OK"));
    let text = peer.pop_body();
    let lines = memchr::memchr_iter(b'\n', &text).count();
    assert_eq!(text.len() + lines, octets, "STAT counts what RETR sends");
    assert!(peer.pop("DELE 1").starts_with("+OK"));
    assert!(peer.pop("QUIT").starts_with("+OK"));
    String::from_utf8(text).unwrap()
}

#[test]
fn a_message_goes_from_smtp_to_pop3_and_is_the_same() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let text = "From: toshi@is.kyusan-u.ac.jp\nSubject: path\n\nHello.\n.\n..\n\
                From here on, text.\n>From a quote\n\n\nFrom x Mon Jun 21 03:15:20 2004\n\nEnd\n";
    let id = Site::send(address, "toshi@is.kyusan-u.ac.jp", &["hunt@smkwlab.net"], text);
    assert_eq!(site.queued(), [format!("incoming/{id}")]);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE);
    let got = fetch(&site, "hunt");
    assert!(got.ends_with(text), "{got}");
    let header = got.strip_suffix(text).unwrap();
    assert!(header.contains("Return-Path: <toshi@is.kyusan-u.ac.jp>"), "{header}");
    assert!(header.contains("Received: from client.example ("), "{header}");
    assert!(header.contains("by mx.smkwlab.net"), "{header}");
    assert!(header.contains(&id), "{header}");
    assert!(header.contains("for <hunt@smkwlab.net>"), "{header}");
    assert!(header.contains("+0900"), "{header}");
    for private in ["Status:", "Content-Length:", "X-UID:", "Lines:"] {
        assert!(!header.contains(private), "{header}");
    }
    assert_eq!(site.spool("hunt"), b"");
}

#[test]
fn mail_is_delivered_and_fetched_where_only_root_reads_the_passwords() {
    let site = Site::new();
    let mode = std::fs::metadata(site.path().join("users")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (_server, address) = site.serve("smtpd");
    let to = ["hunt@smkwlab.net", "bob@smkwlab.net"];
    Site::send(address, "toshi@example.org", &to, "Subject: hidden\n\nx\n");
    let ran = site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    assert!(fetch(&site, "hunt").contains("Subject: hidden"));
    let mut command = site.command("local-deliver");
    command.args(["-f", "a@example.org", "-d", "bob"]);
    support::run::run(&mut command, b"Subject: direct\n\nx\n").expect(0);
    assert_eq!(site.messages("bob").len(), 2);
}

#[test]
fn each_recipient_gets_one_copy_and_no_other_recipients() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let to = ["hunt@smkwlab.net", "alice@mx.smkwlab.net", "HUNT@smkwlab.net", "bob@smkwlab.net"];
    Site::send(address, "toshi@example.org", &to, "Subject: all\n\nx\n");
    site.mta_queue(&NONE).expect(0);
    for user in ["hunt", "alice", "bob"] {
        let messages = site.messages(user);
        assert_eq!(messages.len(), 1, "{user}");
        // Who else got it is not told: a recipient may have been a blind copy.
        let received = messages[0].fields("Received").join(" ");
        assert!(!received.contains(" for "), "{received}");
    }
    assert_eq!(site.messages("toshi").len(), 0);
}

#[test]
fn a_nudge_wakes_a_runner_that_waits() {
    let site = Site::plan().set("queue", "wakeup", "\"nudge\"").build();
    let mut command = site.command("mta-queue");
    command.arg("--watch").stdin(Stdio::null()).stdout(Stdio::null());
    let runner = Server::start(&mut command);
    let (_smtpd, address) = site.serve("smtpd");
    for count in 1..=3 {
        Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: n\n\nx\n");
        site.wait_for_mail("hunt", count);
    }
    site.sendmail("alice", &["hunt@smkwlab.net"], b"Subject: s\n\nx\n").expect(0);
    site.wait_for_mail("hunt", 4);
    wait_until("an empty queue", || site.queued().is_empty().then_some(()));
    let (status, log) = runner.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_runner_that_waits_delivers_what_was_there_before_it() {
    let site = Site::plan().set("queue", "wakeup", "\"nudge\"").build();
    let (_smtpd, address) = site.serve("smtpd");
    // Nobody reads the FIFO: nothing hangs, and nothing is lost.
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: n\n\nx\n");
    let mut command = site.command("mta-queue");
    command.arg("--watch").stdin(Stdio::null()).stdout(Stdio::null());
    let _runner = Server::start(&mut command);
    site.wait_for_mail("hunt", 1);
}

#[test]
fn a_listener_that_spawns_delivers_at_once() {
    let site = Site::plan().set("queue", "wakeup", "\"spawn\"").build();
    let (_smtpd, address) = site.serve("smtpd");
    for count in 1..=5 {
        Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: n\n\nx\n");
        if count % 2 == 1 {
            site.wait_for_mail("hunt", count);
        }
    }
    site.wait_for_mail("hunt", 5);
    wait_until("an empty queue", || site.queued().is_empty().then_some(()));
}

#[test]
fn sendmail_t_takes_the_recipients_from_the_header_and_keeps_the_bytes() {
    let site = Site::new();
    site.sendmail("toshi", &["-t", "-i"], JAPANESE).expect(0);
    assert_eq!(site.queued().len(), 1);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE);
    for user in ["hunt", "alice"] {
        let messages = site.messages(user);
        assert_eq!(messages.len(), 1, "{user}");
        let message = &messages[0];
        assert!(JAPANESE.ends_with(message.text().as_bytes()));
        assert!(message.text().contains("\x1b$B$3$s$K$A$O!#"));
        assert_eq!(message.field("Bcc"), None, "{user} sees the blind copy");
        assert_eq!(message.field("Subject"), Some("=?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?="));
        assert_eq!(message.field("Content-Transfer-Encoding"), Some("7bit"));
        assert!(message.field("Date").is_some());
        assert!(message.field("Message-ID").is_some());
        assert!(message.field("Received").is_some());
    }
    let got = fetch(&site, "hunt");
    let (_, body) = got.split_once("\n\n").unwrap();
    assert!(JAPANESE.ends_with(format!("\n\n{body}").as_bytes()));
}

#[test]
fn sendmail_adds_what_a_message_lacks() {
    let site = Site::new();
    let ran = site.sendmail(
        "alice",
        &["-F", "Alice L.", "hunt"],
        b"Subject: bare\n\nText\n.\nNot sent\n",
    );
    ran.expect(0);
    site.mta_queue(&NONE).expect(0);
    let messages = site.messages("hunt");
    assert_eq!(messages.len(), 1);
    let message = &messages[0];
    assert_eq!(message.text(), "Text\n", "a lone dot ends the message");
    // The login name is that of whoever runs the tests; the users of a site are known to no one else.
    let from = message.field("From").unwrap();
    assert!(from.contains("@mx.smkwlab.net") && from.contains("Alice L."), "{from}");
    let sender = message.field("Return-Path").unwrap();
    assert!(from.contains(sender), "{sender} in {from}");
}

#[test]
fn sendmail_without_a_recipient_is_a_usage_error() {
    let site = Site::new();
    site.sendmail("alice", &NONE, b"Subject: x\n\nx\n").expect(64);
    let ran = site.sendmail("alice", &["-t"], b"Subject: nobody\n\nx\n");
    assert!(matches!(ran.code(), Some(64 | 65)), "{ran}");
    assert_eq!(site.queued(), NONE);
}

#[test]
fn sendmail_refuses_line_ends_in_addresses() {
    let site = Site::new();
    for bad in ["hunt@smkwlab.net\nrecipient <bob@smkwlab.net>", "hunt\r@smkwlab.net", "h\x01@x.y"]
    {
        let ran = site.sendmail("alice", &[bad], b"Subject: x\n\nx\n");
        assert!(matches!(ran.code(), Some(64 | 65)), "{bad:?}: {ran}");
        let ran = site.sendmail("alice", &["-f", bad, "hunt"], b"Subject: x\n\nx\n");
        assert!(matches!(ran.code(), Some(64 | 65)), "{bad:?}: {ran}");
    }
    assert_eq!(site.queued(), NONE);
}

/// The notification that a user got, and no other message.
#[track_caller]
fn notification(site: &Site, user: &str) -> mbox::Message {
    let mut messages = site.messages(user);
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages.remove(0);
    assert_eq!(message.field("Return-Path"), Some("<>"));
    let kind = message.field("Content-Type").unwrap();
    assert!(kind.contains("multipart/report"), "{kind}");
    assert!(kind.contains("delivery-status"), "{kind}");
    assert!(message.field("From").unwrap().contains("MAILER-DAEMON@"));
    let automatic = message.field("Auto-Submitted").unwrap_or_default();
    assert!(automatic.starts_with("auto-"), "{automatic}");
    message
}

#[test]
fn mail_to_an_unknown_user_comes_back_to_its_sender() {
    let site = Site::new();
    let ran = site.sendmail(
        "alice",
        &["-f", "alice@smkwlab.net", "nobody-here@smkwlab.net", "hunt@smkwlab.net"],
        b"Subject: who\nMessage-ID: <1@here>\n\nSecret text\n",
    );
    ran.expect(0);
    site.mta_queue(&NONE).expect(0);
    wait_until("the notification", || {
        site.mta_queue(&NONE).expect(0);
        site.queued().is_empty().then_some(())
    });
    assert_eq!(site.messages("hunt").len(), 1, "the other one gets it");
    let message = notification(&site, "alice");
    let text = message.text();
    for part in [
        "message/delivery-status",
        "Reporting-MTA: dns; mx.smkwlab.net",
        "Final-Recipient: rfc822; nobody-here@smkwlab.net",
        "Action: failed",
        "Status: 5.1.1",
        "Subject: who",
        "Message-ID: <1@here>",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn mail_from_the_null_sender_never_comes_back() {
    let site = Site::new();
    site.sendmail("alice", &["-f", "<>", "nobody-here@smkwlab.net"], b"Subject: x\n\nx\n")
        .expect(0);
    for _ in 0..3 {
        site.mta_queue(&["--flush"]).expect(0);
    }
    assert_eq!(site.queued(), NONE);
    for account in Site::accounts() {
        assert_eq!(site.messages(account.name).len(), 0, "{}", account.name);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A host that refuses every connection.
const DEAD: &str = "\"[127.0.0.1]:1\"";

/// How long the one deferred message waits from now on.
#[track_caller]
fn wait_of(site: &Site) -> u64 {
    let names = site.queued();
    assert_eq!(names.len(), 1, "{names:?}");
    let name = names[0].strip_prefix("deferred/").unwrap_or_else(|| panic!("{names:?}"));
    let (due, _) = name.split_once('.').unwrap();
    assert_eq!(due.len(), 10, "{name}");
    due.parse::<u64>().unwrap() - now()
}

#[test]
fn mail_for_elsewhere_waits_and_the_waits_grow_as_configured() {
    let site = Site::plan()
        .set("queue", "retry", "[\"5m\", \"15m\", \"1h\"]")
        .set("delivery", "smarthost", DEAD)
        .build();
    let (_server, address) = site.serve("smtpd");
    let to = ["somebody@elsewhere.example", "hunt@smkwlab.net"];
    let id = Site::send(address, "alice@smkwlab.net", &to, "Subject: far\n\nx\n");
    for wait in [300, 900, 3600, 3600] {
        site.mta_queue(&["--flush"]).expect(0);
        let found = wait_of(&site);
        assert!((wait - 5..=wait).contains(&found), "{found} for {wait}");
    }
    // Whoever has it does not get it again.
    assert_eq!(site.messages("hunt").len(), 1);
    assert_eq!(site.messages("alice").len(), 0);
    // It is not due, so an ordinary run leaves it alone.
    let before = site.queued();
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), before);
    let list = site.mta_queue(&["--list"]).expect(0).text();
    assert!(list.contains(&id) && list.contains("somebody@elsewhere.example"), "{list}");
    assert!(!list.contains("hunt@smkwlab.net"), "{list}");
    let shown = site.mta_queue(&["--show", &id]).expect(0).text();
    assert!(
        shown.contains("somebody@elsewhere.example") && shown.contains("Subject: far"),
        "{shown}"
    );
    let entry = entry::read(&site.queue().join(&before[0])).unwrap();
    let done = entry.history.iter().filter(|line| line.contains(" done "));
    assert_eq!(done.count(), 1, "{:?}", entry.history);
}

#[test]
fn what_has_waited_too_long_comes_back_and_the_sender_is_warned_before() {
    let site = Site::plan()
        .set("delivery", "smarthost", DEAD)
        .set("queue", "warn_after", "\"1s\"")
        .set("queue", "expire_after", "\"4s\"")
        .build();
    let (_server, address) = site.serve("smtpd");
    Site::send(address, "alice@smkwlab.net", &["x@elsewhere.example"], "Subject: far\n\nx\n");
    wait_until("two notifications", || {
        site.mta_queue(&["--flush"]).expect(0);
        std::thread::sleep(std::time::Duration::from_millis(200));
        (site.messages("alice").len() == 2 && site.queued().is_empty()).then_some(())
    });
    let messages = site.messages("alice");
    assert!(messages[0].text().contains("Action: delayed"), "{:?}", messages[0]);
    assert!(messages[1].text().contains("Action: failed"), "{:?}", messages[1]);
    assert!(messages[1].text().contains("Status: 4.") || messages[1].text().contains("Status: 5."));
}

#[test]
fn a_message_that_goes_in_circles_is_stopped() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let hops =
        "Received: from a.example by b.example; Mon, 21 Jun 2004 03:15:20 +0900\n".repeat(101);
    let mut peer = Peer::connect(address);
    peer.greet();
    let message = format!("{hops}Subject: loop\n\nx\n");
    let reply = peer.mail("alice@smkwlab.net", &["hunt@smkwlab.net"], message.as_bytes());
    if reply.starts_with("250 ") {
        site.mta_queue(&NONE).expect(0);
        wait_until("an empty queue", || {
            site.mta_queue(&NONE).expect(0);
            site.queued().is_empty().then_some(())
        });
        notification(&site, "alice");
    } else {
        assert!(reply.starts_with("554 5.4.6 "), "{reply}");
    }
    assert_eq!(site.messages("hunt").len(), 0);
}

#[test]
fn what_a_stranger_writes_sets_no_flag_in_the_mailbox() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let text = "Status: RO\nX-Status: AD\nX-UID: 99\nX-IMAPbase: 1 99\nX-Keywords: k\n\
                Content-Length: 3\nLines: 1\nX-Mbox-Quoted: yes\nSubject: flags\n\n>From x\ntext\n";
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], text);
    site.mta_queue(&NONE).expect(0);
    let got = fetch(&site, "hunt");
    assert!(got.ends_with("\n\n>From x\ntext\n"), "{got}");
    let (header, _) = got.split_once("\n\n").unwrap();
    for name in ["Status:", "X-UID:", "X-IMAPbase:", "X-Keywords:", "Content-Length:", "Lines:"] {
        assert!(!header.contains(name), "{name} in {header}");
    }
}

#[test]
fn two_runners_at_once_deliver_each_message_once() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    for number in 0..30 {
        let text = format!("Subject: {number}\n\nx\n");
        Site::send(address, "a@example.org", &["hunt@smkwlab.net", "bob@smkwlab.net"], &text);
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| site.mta_queue(&NONE).expect(0));
        }
    });
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE);
    for user in ["hunt", "bob"] {
        let mut subjects: Vec<String> = site
            .messages(user)
            .iter()
            .map(|message| message.field("Subject").unwrap().to_owned())
            .collect();
        assert_eq!(subjects.len(), 30, "{user}");
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), 30, "{user}");
    }
}

#[test]
fn a_user_that_can_not_be_written_to_holds_up_nobody_else() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    // A mailbox that is a directory is none.
    std::fs::create_dir(site.inbox("hunt")).unwrap();
    Site::send(
        address,
        "alice@smkwlab.net",
        &["hunt@smkwlab.net", "bob@smkwlab.net"],
        "Subject: x\n\nx\n",
    );
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.messages("bob").len(), 1);
    assert_eq!(site.queued_in("deferred").len(), 1, "{:?}", site.queued());
    std::fs::remove_dir(site.inbox("hunt")).unwrap();
    site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
    assert_eq!(site.messages("bob").len(), 1);
    assert_eq!(site.queued(), NONE);
}
