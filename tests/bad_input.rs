//! Peers that break every rule, and disks that are full: the documented answer, nothing left
//! behind, nothing lost, and the next peer is served.

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
use std::process::Stdio;
use std::time::Duration;

use support::disk::{on_a_small_disk, with_small_files};
use support::entry;
use support::peer::{Heard, Peer};
use support::run::run;
use support::site::{Site, behind};
use support::{Dice, is_root, need, wait_until};

/// The commands of a usual session up to the text.
const ENVELOPE: [&str; 4] =
    ["EHLO client.example", "MAIL FROM:<toshi@example.org>", "RCPT TO:<toshi@smkwlab.net>", "DATA"];

/// That a server goes on with the next client.
#[track_caller]
fn assert_serves(address: SocketAddr) {
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.command("NOOP").starts_with("250 "));
    assert!(peer.command("QUIT").starts_with("221 "));
}

/// A peer that has come as far as the text.
#[track_caller]
fn in_data(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    peer.greet();
    for command in &ENVELOPE[1..] {
        let reply = peer.command(command);
        assert!(reply.starts_with(['2', '3']), "{reply}");
    }
    peer
}

/// Waits until no session is left, so that what it leaves behind is there.
#[test]
fn a_session_that_ends_at_any_point_before_the_dot_leaves_nothing() {
    let site = Site::new();
    let (server, address) = site.serve("smtpd");
    let text = "Subject: cut\r\n\r\nHalf a message\r\n.";
    for commands in 0..=ENVELOPE.len() {
        for (cut, how) in [(0, "close"), (5, "close"), (0, "reset"), (3, "reset"), (2, "half")] {
            let mut peer = Peer::connect(address);
            peer.reply();
            for command in &ENVELOPE[..commands] {
                peer.command(command);
            }
            let next = match ENVELOPE.get(commands) {
                Some(command) => &command[..cut.min(command.len())],
                None if cut == 0 => text,
                None => &text[..cut],
            };
            peer.send(next);
            match how {
                "close" => drop(peer),
                "reset" => peer.reset(),
                _ => {
                    peer.half_close();
                    let said = peer.rest();
                    assert!(!said.contains("queued"), "{said}");
                }
            }
        }
    }
    assert_serves(address);
    server.wait_until_quiet();
    assert_eq!(site.queued(), [""; 0]);
}

#[test]
fn a_command_line_of_a_megabyte_is_one_error() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    peer.send("MAIL FROM:<".repeat(100_000));
    peer.send("\r\n");
    let reply = peer.reply();
    assert!(reply.starts_with("500 5.5.2 ") || reply.starts_with("421 "), "{reply}");
    if reply.starts_with("500") {
        assert!(peer.command("NOOP").starts_with("250 "));
    }
    // A line that never ends is neither kept nor answered for ever.
    let mut peer = Peer::connect(address);
    peer.greet();
    peer.send(vec![b'x'; 8 * 1024 * 1024]);
    peer.half_close();
    peer.rest();
    assert_serves(address);
}

#[test]
fn an_endless_header_is_refused_at_the_limit_of_the_message() {
    let site = Site::plan().set("smtp", "max_message_size", "65536").build();
    let (server, address) = site.serve("smtpd");
    let mut peer = in_data(address);
    for _ in 0..2000 {
        peer.send("X-Endless: header fields without an end, each of them in a line\r\n");
    }
    peer.send(".\r\n");
    let reply = peer.reply();
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    assert!(peer.command("NOOP").starts_with("250 "));
    drop(peer);
    server.wait_until_quiet();
    assert_eq!(site.queued(), [""; 0]);
}

#[test]
fn a_header_of_a_megabyte_is_kept_as_it_came() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let mut peer = in_data(address);
    let field = format!("X-Long: {}\r\n", "x".repeat(980)).repeat(1000);
    peer.send(format!("{field}\r\nText\r\n.\r\n"));
    let reply = peer.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let names = site.queued_in("incoming");
    let entry = entry::read(&site.queue().join("incoming").join(&names[0])).unwrap();
    assert!(entry.content.ends_with(format!("{field}\r\nText\r\n").as_bytes()));
}

#[test]
fn no_bare_cr_or_lf_of_a_text_reaches_the_queue() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    for text in [
        "Subject: x\n\nbare LF\n\r\n",
        "Subject: x\r\n\r\nbare\rCR\r\n",
        "Subject: x\r\n\r\ntext\n.\nMAIL FROM:<a@b>\r\n",
        "Subject: x\r\n\r\ntext\r.\rMAIL FROM:<a@b>\r\n",
        "Subject: x\r\n\r\ntext\r\n.\rMAIL FROM:<a@b>\r\n",
        "Subject: x\r\n\r\ntext\r\r\n.\n\r\n",
        "Subject: x\r\n\r\n\n\r\n\r\r\n",
    ] {
        let mut peer = in_data(address);
        peer.send(text);
        peer.send(".\r\n");
        let reply = peer.reply();
        assert!(reply.starts_with("250 2.0.0 ") || reply.starts_with('5'), "{text:?}: {reply}");
        assert!(peer.command("QUIT").starts_with("221 "), "{text:?}");
    }
    for name in site.queued_in("incoming") {
        let entry = entry::read(&site.queue().join("incoming").join(name)).unwrap();
        let lone = String::from_utf8_lossy(&entry.content).replace("\r\n", "");
        assert!(!lone.contains(['\r', '\n']), "{lone:?}");
    }
}

#[test]
fn nul_and_every_other_byte_of_a_text_is_kept_or_refused() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let body: Vec<u8> = (0..=255).filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let mut peer = in_data(address);
    peer.send("Subject: bytes\r\n\r\n");
    peer.send(&body);
    peer.send("\r\n.\r\n");
    let reply = peer.reply();
    if reply.starts_with("250 2.0.0 ") {
        let names = site.queued_in("incoming");
        let entry = entry::read(&site.queue().join("incoming").join(&names[0])).unwrap();
        let wanted = [b"\r\n\r\n".as_slice(), &body, b"\r\n"].concat();
        assert!(entry.content.ends_with(&wanted));
    } else {
        assert!(reply.starts_with("554 5.6."), "{reply}");
        assert_eq!(site.queued(), [""; 0]);
    }
}

#[test]
fn bytes_that_no_address_has_are_refused_in_every_place() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    for bad in [
        &b"t\xc3\xb6shi@example.org"[..],
        b"toshi@ex\xffample.org",
        b"to\x01shi@example.org",
        b"to\x7fshi@example.org",
        b"to\tshi@example.org",
        b"to\rshi@example.org",
        b"\"to\rshi\"@example.org",
        b"\"to\x00shi\"@example.org",
    ] {
        for verb in ["MAIL FROM:<", "RCPT TO:<"] {
            if verb.starts_with("RCPT") {
                assert!(peer.command("MAIL FROM:<>").starts_with("250 "));
            }
            let reply = peer.command([verb.as_bytes(), bad, b">"].concat());
            assert!(reply.starts_with('5'), "{verb}{}: {reply}", bad.escape_ascii());
            assert!(peer.command("RSET").starts_with("250 "));
        }
    }
}

#[test]
fn input_before_its_turn_ends_the_session() {
    let site = Site::new();
    let (server, address) = site.serve("smtpd");
    // The text in one write with DATA: the client has not seen 354.
    let mut peer = Peer::connect(address);
    peer.greet();
    peer.command(ENVELOPE[1]);
    peer.command(ENVELOPE[2]);
    peer.send("DATA\r\nSubject: early\r\n\r\ntext\r\n.\r\nMAIL FROM:<x@y.example>\r\n");
    let said = peer.rest();
    assert!(said.starts_with("503 ") || said.starts_with("554 "), "{said}");
    server.wait_until_quiet();
    assert_eq!(site.queued(), [""; 0]);
    // The next command in one write with EHLO: it is announced only by the answer.
    let mut peer = Peer::connect(address);
    peer.reply();
    peer.send("EHLO client.example\r\nMAIL FROM:<x@y.example>\r\n");
    let said = peer.rest();
    assert!(said.contains("503 ") || said.contains("554 "), "{said}");
    assert_serves(address);
}

#[test]
fn rubbish_harms_nobody() {
    let site = Site::new();
    for (program, hello) in [("smtpd", "220 "), ("popd", "+OK"), ("imapd", "* OK")] {
        let (mut server, address) = site.serve(program);
        let mut dice = Dice::new(7);
        let words: [&[u8]; 16] = [
            b"EHLO",
            b"MAIL FROM:<",
            b"RCPT TO:",
            b"DATA\r\n",
            b"USER ",
            b"PASS ",
            b"\r\n",
            b"\0",
            b"<@",
            b"\"\\",
            b"RETR 9",
            b"a LOGIN {",
            b"{9+}\r\n",
            b"a AUTHENTICATE PLAIN ",
            b"AUTH PLAIN\r\n",
            b"\xff\xfe",
        ];
        for _ in 0..60 {
            let mut peer = Peer::connect(address);
            for _ in 0..dice.below(20) {
                let mut chunk = words[dice.below(words.len())].to_vec();
                for _ in 0..dice.below(40) {
                    chunk.push(u8::try_from(dice.below(256)).unwrap());
                }
                peer.send(chunk);
            }
            if dice.below(2) == 0 {
                peer.reset();
            }
        }
        // Connections may still wait to be accepted: until they were, one more is turned away.
        wait_until("a greeting", || {
            let mut peer = Peer::connect(address);
            peer.line().starts_with(hello).then_some(())
        });
        server.wait_until_quiet();
        assert!(server.ended().is_none());
        let log = server.log();
        assert!(!log.contains("panicked"), "{log}");
    }
    assert_eq!(site.queued(), [""; 0]);
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.reply();
    for command in ENVELOPE {
        peer.dribble(format!("{command}\r\n").as_bytes(), 1, Duration::from_micros(200));
        let reply = peer.reply();
        assert!(reply.starts_with(['2', '3']), "{reply}");
    }
    peer.dribble(b"Subject: slow\r\n\r\n..\r\ntext\r\n.\r\n", 1, Duration::from_micros(200));
    let reply = peer.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
}

#[test]
fn more_connections_than_are_allowed_are_told_so() {
    for (program, section, busy) in
        [("smtpd", "smtp", "421 "), ("popd", "pop3", "-ERR"), ("imapd", "imap", "* BYE ")]
    {
        let site = Site::plan().set(section, "max_connections_per_ip", "3").build();
        let (server, address) = site.serve(program);
        let mut held: Vec<Peer> = (0..3)
            .map(|_| {
                let mut peer = Peer::connect(address);
                assert!(peer.line().starts_with(['2', '+', '*']));
                peer
            })
            .collect();
        let mut peer = Peer::connect(address);
        let reply = peer.line();
        assert!(reply.starts_with(busy), "{reply}");
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
        // A place that is given back can be taken.
        held.pop();
        wait_until("a free place", || {
            let mut peer = Peer::connect(address);
            let line = peer.line();
            (line.starts_with(['2', '+']) || line.starts_with("* OK")).then_some(())
        });
        drop(held);
        server.wait_until_quiet();
    }
}

#[test]
fn many_wrong_passwords_end_the_session() {
    let site = Site::new();
    let (_server, address) = site.serve("popd");
    let mut peer = Peer::connect(address);
    assert!(peer.line().starts_with("+OK"));
    let mut tries = 0;
    loop {
        if peer.pop("USER hunt").is_empty() {
            break;
        }
        let answer = peer.pop("PASS guess");
        assert!(answer.is_empty() || answer.starts_with("-ERR"), "{answer}");
        if answer.is_empty() {
            break;
        }
        tries += 1;
        assert!(tries < 20, "guessing goes on for ever");
    }
}

#[test]
fn a_pop_session_that_ends_anywhere_but_in_quit_loses_no_mail() {
    let site = Site::new();
    support::reference::fill(&site, 3);
    let before = site.messages("hunt").len();
    let (server, address) = site.serve("popd");
    let commands = ["USER hunt", "PASS Watts?Watt?", "UIDL", "RETR 1", "DELE 1", "DELE 3"];
    for count in 0..=commands.len() {
        for how in ["close", "reset", "cut"] {
            let mut peer = Peer::connect(address);
            peer.line();
            for command in &commands[..count] {
                let answer = peer.pop(command);
                assert!(answer.starts_with("+OK"), "{answer}");
                if command.starts_with("UIDL") || command.starts_with("RETR") {
                    peer.pop_body();
                }
            }
            match how {
                "close" => drop(peer),
                "reset" => peer.reset(),
                _ => {
                    peer.send("QUIT");
                    drop(peer);
                }
            }
            server.wait_until_quiet();
        }
    }
    assert_eq!(site.messages("hunt").len(), before);
}

/// A message that is larger than the small disks.
fn large() -> String {
    format!(
        "Subject: large\r\n\r\n{}",
        "A line of a message that is too large for this disk.\r\n".repeat(6000)
    )
}

/// Sends a large message to an smtpd that can't store it: a temporary refusal, and the session
/// goes on.
fn is_refused_for_now(peer: &mut Peer) {
    peer.greet();
    let mut reply = String::new();
    for command in &ENVELOPE[1..] {
        reply = peer.command(command);
        if reply.starts_with('4') {
            break;
        }
    }
    if reply.starts_with("354 ") {
        peer.send(large());
        peer.send(".\r\n");
        reply = peer.reply();
    }
    assert!(reply.starts_with("452 4.3.1 ") || reply.starts_with("451 4.3.0 "), "{reply}");
    assert!(peer.command("NOOP").starts_with("250 "));
}

#[test]
fn a_full_disk_in_smtpd_is_a_temporary_refusal_that_leaves_nothing() {
    if !is_root() {
        support::skip("needs root for a small disk; the test with small files stands in");
        return;
    }
    if !need("unshare") {
        return;
    }
    for options in ["size=4k", "size=64k", "size=256k", "nr_inodes=1"] {
        let site = Site::new();
        let incoming = site.queue().join("incoming");
        let uid = Site::queue_uid();
        let command = on_a_small_disk(
            &incoming,
            &format!("{options},mode=700,uid={uid},gid={uid}"),
            &site.command("smtpd"),
        );
        let (server, mut peer) = Site::session_of(command);
        is_refused_for_now(&mut peer);
        let seen = format!("/proc/{}/root{}", server.pid(), incoming.display());
        let left: Vec<_> = fs::read_dir(&seen).unwrap().map(Result::unwrap).collect();
        assert!(left.is_empty(), "{options}: {left:?}");
        // What fits is still taken.
        if !options.starts_with("nr_inodes") && options != "size=4k" {
            peer.command("RSET");
            let reply = peer.mail("a@example.org", &["toshi@smkwlab.net"], b"Subject: s\n\nx\n");
            assert!(reply.starts_with("250 2.0.0 "), "{options}: {reply}");
        }
        peer.command("QUIT");
        server.join();
    }
}

#[test]
fn a_limit_on_files_in_smtpd_is_a_temporary_refusal_that_leaves_nothing() {
    for blocks in [0, 1, 8, 100] {
        let site = Site::new();
        let mut command = with_small_files(blocks, &site.command("smtpd"));
        command.stderr(Stdio::piped());
        let (server, mut peer) = Site::session_of(command);
        is_refused_for_now(&mut peer);
        peer.command("QUIT");
        drop(peer);
        server.join();
        assert_eq!(site.queued(), [""; 0], "ulimit -f {blocks}");
    }
}

#[test]
fn a_limit_on_files_in_sendmail_is_exit_75_that_leaves_nothing() {
    for blocks in [0, 1, 8, 100] {
        let site = Site::new();
        let mut command = site.command("sendmail");
        command.args(["-i", "toshi@smkwlab.net"]);
        let mut command = with_small_files(blocks, &command);
        site.become_user(&mut command, "alice");
        let ran = run(&mut command, large().as_bytes());
        assert_eq!(ran.code(), Some(75), "ulimit -f {blocks}: {ran}");
        assert_eq!(site.queued(), [""; 0], "ulimit -f {blocks}");
    }
}

#[test]
fn a_limit_on_files_in_local_deliver_is_exit_75_and_the_mailbox_is_as_before() {
    for blocks in [0, 1, 2, 8, 100, 600] {
        let site = Site::new();
        support::reference::fill(&site, 1);
        let before = site.spool("hunt");
        let mut command = site.command("local-deliver");
        command.args(["-f", "a@example.org", "-d", "hunt"]);
        let mut command = with_small_files(blocks, &command);
        site.become_user(&mut command, "hunt");
        let message = large().replace('\r', "");
        let ran = run(&mut command, message.as_bytes());
        assert_eq!(ran.code(), Some(75), "ulimit -f {blocks}: {ran}");
        assert_eq!(site.spool("hunt"), before, "ulimit -f {blocks}");
        assert!(!site.path().join("mail/hunt.lock").exists());
        // And the next message goes in behind it.
        site.local_deliver("hunt", "a@example.org", b"Subject: next\n\nx\n").expect(0);
        assert_eq!(site.messages("hunt").len(), 2);
        assert!(site.spool("hunt").starts_with(&before));
    }
}

#[test]
fn a_full_disk_in_local_deliver_is_exit_75_and_the_mailbox_is_as_before() {
    if !is_root() {
        support::skip("needs root for a small disk; the test with small files stands in");
        return;
    }
    if !need("unshare") {
        return;
    }
    let site = Site::new();
    let account = Site::account("hunt");
    for size in ["8k", "64k", "256k"] {
        let mail = site.path().join("mail");
        let result = site.path().join("result");
        // The mailbox is looked at from inside, before the disk goes with its last user.
        let script = format!(
            "printf 'From x Mon Jun 21 03:15:20 2004\\n\\nold\\n\\n' > {mail}/hunt
             chown {uid}:{uid} {mail}/hunt; chmod 600 {mail}/hunt
             \"$@\"; echo $? > {result}; ls {mail} >> {result}; cat {mail}/hunt >> {result}",
            mail = mail.display(),
            result = result.display(),
            uid = account.uid,
        );
        let mut command = site.command("local-deliver");
        command.args(["-f", "a@example.org", "-d", "hunt"]);
        let inner = behind(&["sh", "-c", &script, "sh"], &command);
        let mut command = on_a_small_disk(&mail, &format!("size={size},mode=1777"), &inner);
        run(&mut command, large().replace('\r', "").as_bytes());
        assert_eq!(
            fs::read_to_string(&result).unwrap(),
            "75\nhunt\nFrom x Mon Jun 21 03:15:20 2004\n\nold\n\n",
            "a disk of {size}"
        );
    }
}

#[test]
fn mta_queue_loses_nothing_where_no_file_can_grow() {
    let site = Site::new();
    let (server, mut peer) = site.session("smtpd");
    peer.greet();
    let reply = peer.mail("a@example.org", &["toshi@smkwlab.net"], large().as_bytes());
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    drop(peer);
    server.join();
    for blocks in [0, 8, 400] {
        run(&mut with_small_files(blocks, &site.command("mta-queue")), b"");
        assert_eq!(site.queued().len(), 1, "ulimit -f {blocks}");
        assert_eq!(site.messages("toshi").len(), 0, "ulimit -f {blocks}");
    }
    site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.queued(), [""; 0]);
    let messages = site.messages("toshi");
    assert_eq!(messages.len(), 1);
    let text = large().replace('\r', "");
    assert!(text.ends_with(&messages[0].text()));
}

#[test]
fn rubbish_in_the_queue_is_kept_for_the_operator() {
    let site = Site::new();
    let (server, mut peer) = site.session("smtpd");
    peer.greet();
    let reply = peer.mail("a@example.org", &["toshi@smkwlab.net"], b"Subject: s\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    drop(peer);
    server.join();
    let incoming = site.queue().join("incoming");
    let good = site.queued_in("incoming")[0].clone();
    let whole = fs::read(incoming.join(&good)).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut long = whole.clone();
    long[16..24].copy_from_slice(b"ffffffff");
    for (name, bytes) in [
        ("1K0Y3110PK6EQ01", &b""[..]),
        ("1K0Y3110PK6EQ02", b"hikyaku-queue 1 "),
        ("1K0Y3110PK6EQ03", &whole[..whole.len() - 1]),
        ("1K0Y3110PK6EQ04", &changed),
        ("1K0Y3110PK6EQ05", &long),
        ("not an id", b"rubbish"),
    ] {
        let path = incoming.join(name);
        fs::write(&path, bytes).unwrap();
        if is_root() {
            let uid = Some(Site::queue_uid());
            std::os::unix::fs::chown(&path, uid, uid).unwrap();
        }
    }
    site.mta_queue(&[] as &[&str]).expect(0);
    assert_eq!(site.messages("toshi").len(), 1, "the good one is delivered");
    assert_eq!(site.queued_in("incoming"), [""; 0], "a run empties it");
    assert_eq!(site.queued_in("corrupt").len(), 6, "{:?}", site.queued());
}
