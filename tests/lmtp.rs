//! LMTP for everybody: `local-deliver --lmtp` on a socket of this host, as another mail system's
//! delivery agent. The rules of the protocol are in `transcripts/lmtp`.
//!
//! Without root all users are the one who runs the tests.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::peer::{Peer, stuffed};
use support::run::{Server, children};
use support::site::{Plan, Site, activated, program};
use support::{is_root, mbox, report, wait_until};

/// A site with a listening agent.
struct Host {
    site: Site,
    server: Server,
}

impl Host {
    fn new() -> Self {
        Self::with(Site::plan())
    }

    fn with(plan: Plan) -> Self {
        let site = plan.build();
        let listener = UnixListener::bind(site.path().join("lmtp")).unwrap();
        let mut command = activated(site.command("local-deliver").arg("--lmtp"));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        let server = Server::start(&mut command);
        Self { site, server }
    }

    /// A client that has said LHLO.
    fn client(&self) -> Peer {
        let mut peer = Peer::new(UnixStream::connect(self.site.path().join("lmtp")).unwrap());
        let greeting = peer.line();
        assert!(greeting.starts_with("220 mx.smkwlab.net LMTP"), "{greeting}");
        assert!(peer.command("LHLO client.example").starts_with("250"));
        peer
    }
}

/// Sends a message; the reply to each recipient, whether it is refused at RCPT or behind the text.
fn send(peer: &mut Peer, to: &[&str], text: &str) -> Vec<String> {
    assert!(peer.command("MAIL FROM:<toshi@tenbin.org>").starts_with("250"));
    let mut replies: Vec<String> =
        to.iter().map(|to| peer.command(format!("RCPT TO:<{to}>"))).collect();
    let data = peer.command("DATA");
    if !data.starts_with("354") {
        return replies;
    }
    peer.send(stuffed(text.as_bytes()));
    for reply in replies.iter_mut().filter(|reply| reply.starts_with("250")) {
        *reply = peer.line();
    }
    replies
}

fn codes(replies: &[String]) -> Vec<&str> {
    replies.iter().map(|reply| &reply[..9]).collect()
}

fn subjects(site: &Site, user: &str) -> Vec<String> {
    let messages = site.messages(user);
    messages.iter().map(|m| m.field("Subject").unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_recipient_gets_the_message_and_a_reply_of_its_own() {
    let host = Host::new();
    let mut peer = host.client();
    let to = [
        "hunt@smkwlab.net",
        "nobody-here@smkwlab.net",
        "Alice+lists@mx.smkwlab.net",
        "toshi@elsewhere.org",
        "bob@smkwlab.net",
    ];
    let text = "Subject: one\n\n.\nFrom here\nGr\u{fc}\u{df}e\n";
    let replies = send(&mut peer, &to, text);
    assert_eq!(
        codes(&replies),
        ["250 2.0.0", "550 5.1.1", "250 2.0.0", "550 5.1.1", "250 2.0.0"],
        "{replies:?}"
    );
    for (user, address) in [
        ("hunt", "hunt@smkwlab.net"),
        ("alice", "Alice+lists@mx.smkwlab.net"),
        ("bob", "bob@smkwlab.net"),
    ] {
        let [message] = &host.site.messages(user)[..] else { panic!("{user}") };
        assert_eq!(message.field("Delivered-To"), Some(address));
        assert_eq!(message.field("Return-Path"), Some("<toshi@tenbin.org>"));
        assert_eq!(message.text(), ".\nFrom here\nGr\u{fc}\u{df}e\n");
    }
    // The same agents, and a shorter text in the same file.
    let replies = send(&mut peer, &["hunt@smkwlab.net", "hunt+x@smkwlab.net"], "Subject: two\n\n");
    assert_eq!(codes(&replies), ["250 2.0.0", "250 2.0.0"]);
    assert_eq!(subjects(&host.site, "hunt"), ["one", "two", "two"]);
    assert!(peer.command("QUIT").starts_with("221"));
    let log = host.server.wait_for_log("to=<bob@smkwlab.net> status=delivered");
    assert!(log.contains("to=<Alice+lists@mx.smkwlab.net> status=delivered size="), "{log}");
}

#[test]
fn more_recipients_than_are_served_at_once_all_get_it() {
    let host = Host::new();
    let mut peer = host.client();
    let to: Vec<String> = (0..100).map(|n| format!("hunt+{n}@smkwlab.net")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let replies = send(&mut peer, &to, "Subject: many\n\nx\n");
    assert!(replies.iter().all(|reply| reply.starts_with("250 2.0.0")), "{replies:?}");
    let mut delivered: Vec<String> = host
        .site
        .messages("hunt")
        .iter()
        .map(|message| message.field("Delivered-To").unwrap().to_owned())
        .collect();
    assert_eq!(delivered, to, "in their order, too");
    delivered.dedup();
    assert_eq!(delivered.len(), 100);
}

#[test]
fn one_who_can_not_have_it_keeps_no_other_from_having_it() {
    let host = Host::with(Site::plan().set("mailbox", "quota", "100000"));
    fs::create_dir(host.site.inbox("alice")).unwrap();
    let mut peer = host.client();
    let to = ["hunt@smkwlab.net", "alice@smkwlab.net", "bob@smkwlab.net"];
    let full = [&b"From x Thu Jan  1 00:00:00 1970\n\n"[..], &b"x".repeat(99_000)].concat();
    host.site.fill("bob", &full);
    let replies = send(&mut peer, &to, &format!("Subject: x\n\n{}\n", "y".repeat(2000)));
    assert_eq!(codes(&replies), ["250 2.0.0", "451 4.3.0", "552 5.2.2"], "{replies:?}");
    assert!(replies[1].contains("is a directory"), "{replies:?}");
    assert_eq!(subjects(&host.site, "hunt"), ["x"]);
    assert_eq!(host.site.spool("bob"), full);
}

#[test]
fn a_large_message_arrives_whole_and_one_that_is_too_large_does_not() {
    let host = Host::with(Site::plan().set("smtp", "max_message_size", "5000000"));
    let mut peer = host.client();
    let line = "0123456789".repeat(7) + "\n";
    let text = format!("Subject: large\n\n{}", line.repeat(60_000));
    assert_eq!(codes(&send(&mut peer, &["hunt@smkwlab.net"], &text)), ["250 2.0.0"]);
    assert_eq!(host.site.messages("hunt")[0].text(), line.repeat(60_000));
    let text = format!("Subject: larger\n\n{}", line.repeat(80_000));
    let to = ["hunt@smkwlab.net", "bob@smkwlab.net"];
    assert_eq!(codes(&send(&mut peer, &to, &text)), ["552 5.3.4", "552 5.3.4"]);
    assert_eq!(codes(&send(&mut peer, &to, "Subject: s\n\n")), ["250 2.0.0", "250 2.0.0"]);
    assert_eq!(subjects(&host.site, "hunt"), ["large", "s"]);
    assert_eq!(subjects(&host.site, "bob"), ["s"]);
}

#[test]
fn an_agent_that_dies_is_replaced_and_its_message_waits() {
    let host = Host::with(Site::plan().set("delivery", "command_time_limit", "\"30s\""));
    let mut peer = host.client();
    let to = ["hunt@smkwlab.net", "bob@smkwlab.net"];
    assert_eq!(codes(&send(&mut peer, &to, "Subject: 1\n\n")), ["250 2.0.0", "250 2.0.0"]);
    let monitor = wait_until("the monitor", || children(host.server.pid()).first().copied());
    // The session child came first; hunt's agent is the next one.
    let [_, agent, _] = children(monitor)[..] else { panic!("{:?}", children(monitor)) };
    // Stopped, it has the message and does not answer.
    kill(Pid::from_raw(agent), Signal::SIGSTOP).unwrap();
    assert!(peer.command("MAIL FROM:<>").starts_with("250"));
    for to in to {
        assert!(peer.command(format!("RCPT TO:<{to}>")).starts_with("250"));
    }
    assert!(peer.command("DATA").starts_with("354"));
    peer.send("Subject: 2\r\n\r\n.\r\n");
    wait_until("bob's copy", || (subjects(&host.site, "bob").len() == 2).then_some(()));
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    assert!(peer.line().starts_with("451 4.3.0"), "hunt's");
    assert!(peer.line().starts_with("250 2.0.0"), "bob's");
    assert_eq!(codes(&send(&mut peer, &to, "Subject: 3\n\n")), ["250 2.0.0", "250 2.0.0"]);
    assert_eq!(subjects(&host.site, "hunt"), ["1", "3"]);
    assert_eq!(subjects(&host.site, "bob"), ["1", "2", "3"]);
    host.server.wait_for_log("agent of \"hunt\": the delivery ended unexpectedly");
}

#[test]
fn a_session_ends_with_its_client_and_a_server_without_its_sessions() {
    let host = Host::new();
    let mut peer = host.client();
    let other = host.client();
    let listener = host.server.pid();
    let monitors = wait_until("two monitors", || {
        let monitors = children(listener);
        (monitors.len() == 2).then_some(monitors)
    });
    drop(other);
    wait_until("the end of one", || (children(listener).len() == 1).then_some(()));
    // In the middle of a message.
    peer.command("MAIL FROM:<>");
    peer.command("RCPT TO:<hunt@smkwlab.net>");
    peer.command("DATA");
    peer.send("Subject: not whole\r\n\r\n");
    let Host { site, mut server } = host;
    server.signal(Signal::SIGTERM);
    let status = wait_until("the end of the listener", || server.ended());
    assert!(status.success(), "{}", server.log());
    // It has learnt nothing of the listener's end.
    peer.send(".\r\n");
    assert!(peer.line().starts_with("250 2.0.0"));
    assert_eq!(subjects(&site, "hunt"), ["not whole"]);
    drop(peer);
    for monitor in monitors {
        wait_until("the end of the sessions", || {
            let stat = fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
}

#[test]
fn too_many_sessions_are_told_so() {
    let host = Host::with(Site::plan().set("lmtp", "max_connections", "2"));
    let (_one, two) = (host.client(), host.client());
    let mut three = Peer::new(UnixStream::connect(host.site.path().join("lmtp")).unwrap());
    assert!(three.line().starts_with("421 4.3.2 "));
    drop(two);
    wait_until("a place", || {
        let mut peer = Peer::new(UnixStream::connect(host.site.path().join("lmtp")).unwrap());
        peer.line().starts_with("220").then_some(())
    });
}

#[test]
fn rubbish_ends_no_server() {
    let host = Host::new();
    let mut dice = support::Dice::new(7);
    for _ in 0..30 {
        let mut peer = host.client();
        let rubbish: Vec<u8> = (0..3000).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        peer.send(rubbish);
        peer.send("\r\nRCPT TO:<hunt@smkwlab.net>\r\nBDAT 99999999999999999999 LAST\r\nx");
    }
    let mut peer = host.client();
    assert_eq!(codes(&send(&mut peer, &["hunt@smkwlab.net"], "Subject: x\n\n")), ["250 2.0.0"]);
    assert_eq!(subjects(&host.site, "hunt"), ["x"]);
}

#[test]
fn a_sender_who_asks_for_it_is_told_of_the_delivery() {
    let site_of = |wrapper: &std::path::Path| {
        Site::plan().set("delivery", "sendmail", &format!("[{:?}]", wrapper.to_str().unwrap()))
    };
    let directory = tempfile::tempdir().unwrap();
    let (wrapper, sent) = (directory.path().join("sendmail"), directory.path().join("sent"));
    let script =
        format!("#!/bin/sh\nf={}/$$\n(echo \"$@\"; cat) >$f.new && mv $f.new $f\n", sent.display());
    fs::write(&wrapper, script).unwrap();
    fs::create_dir(&sent).unwrap();
    for (path, mode) in [(directory.path(), 0o755), (&wrapper, 0o755), (&sent, 0o777)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).unwrap();
    }
    let host = Host::with(site_of(&wrapper));
    let forward = host.site.home("alice").join(".forward");
    fs::write(&forward, "bob@b.org\n").unwrap();
    if is_root() {
        std::os::unix::fs::chown(&forward, Some(Site::account("alice").uid), None).unwrap();
    }
    let mut peer = host.client();
    peer.command("MAIL FROM:<toshi@tenbin.org> RET=HDRS ENVID=QQ+2B1");
    for to in [
        "<hunt@smkwlab.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Hunt@smkwlab.net",
        "<bob@smkwlab.net> NOTIFY=FAILURE",
        "<alice@smkwlab.net> NOTIFY=SUCCESS",
    ] {
        assert!(peer.command(format!("RCPT TO:{to}")).starts_with("250"));
    }
    peer.command("DATA");
    peer.send("Subject: notify\r\nX: y\r\n\r\nsecret\r\n.\r\n");
    for _ in 0..3 {
        assert!(peer.line().starts_with("250 2.0.0"));
    }
    let mut all: Vec<String> = fs::read_dir(&sent)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    all.sort_by_key(|text| (text.contains("Action: relayed"), text.contains("Action: delivered")));
    let [forwarded, delivered, relayed] = &all[..] else {
        panic!("{all:#?} {}", host.server.log())
    };
    assert!(forwarded.starts_with("-i -ftoshi@tenbin.org -- bob@b.org\nDelivered-To: alice@"));
    for (text, recipient, action) in
        [(delivered, "hunt@smkwlab.net", "delivered"), (relayed, "alice@smkwlab.net", "relayed")]
    {
        let (arguments, message) = text.split_once('\n').unwrap();
        assert_eq!(arguments, "-i -f<> -- toshi@tenbin.org");
        let message = &mbox::parse(format!("From x\n{message}").as_bytes())[0];
        let report = report::of_message(message);
        assert_eq!((report.recipient.as_str(), report.action.as_str()), (recipient, action));
        assert_eq!(report.status, "2.0.0");
        let text = message.text();
        assert!(text.contains("\nOriginal-Envelope-Id: QQ+1\n"), "{text}");
        assert!(text.contains("\nSubject: notify\n") && !text.contains("secret"), "{text}");
        let original = text.contains("\nOriginal-Recipient: rfc822; Hunt@smkwlab.net\n");
        assert_eq!(original, action == "delivered");
    }
}

#[test]
fn on_stdin_it_serves_everybody_to_root_and_the_caller_to_others() {
    let site = Site::new();
    let mut command = site.command("local-deliver");
    command.arg("--lmtp");
    let (_server, mut peer) = Site::local_session_of(command);
    let greeting = peer.line();
    if !is_root() {
        // Whoever runs the tests may have no account, and is none of the site's users.
        assert!(!greeting.starts_with("220"), "{greeting}");
        return;
    }
    assert!(greeting.starts_with("220"), "{greeting}");
    peer.command("LHLO x");
    assert_eq!(
        codes(&send(&mut peer, &["hunt@smkwlab.net", "bob@smkwlab.net"], "Subject: x\n\n")),
        ["250 2.0.0", "250 2.0.0"]
    );
    let mut two = Command::new(program("local-deliver"));
    two.arg("-C").arg(site.configuration()).args(["--lmtp", "-d", "hunt", "-d", "bob"]);
    let ran = support::run::run(&mut two, b"").expect(64);
    assert!(ran.stderr.contains("one USER"), "{ran}");
}
