//! Clients of imapd that break every rule: an answer, bounded memory, nothing added, and the next
//! client is served.

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
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::imap::{Imap, Said};
use support::need;
use support::peer::{Heard, Peer};
use support::processes::{self, Fault};
use support::run::Server;
use support::site::Site;
use support::store::{FORMS, USER};
use support::wait_until;

/// What more a session may need while it does something large, in KiB.
const MORE: u64 = 4 * 1024;

fn host() -> (Site, Server, SocketAddr) {
    let site = Site::new();
    support::reference::fill(&site, 3);
    let (server, address) = site.serve("imapd");
    (site, server, address)
}

fn log_in(address: SocketAddr) -> Imap {
    Imap::log_in(address, USER, "Watts?Watt?")
}

fn peer(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    peer.line();
    assert!(peer.imap("in LOGIN hunt Watts?Watt?").contains("in OK"));
    peer
}

/// The one session that there is.
#[track_caller]
fn session(server: &Server) -> i32 {
    wait_until("one session", || match server.monitors()[..] {
        [one] => Some(one),
        _ => None,
    })
}

/// The most memory that a process ever had, in KiB.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn has_grown_little(pid: i32, before: u64) {
    let now = peak(pid);
    assert!(now < before + MORE, "{before} KiB before, and {now} KiB");
}

/// An mbox of so many messages of a megabyte.
fn megabytes(count: usize) -> Vec<u8> {
    let line = "A line of a message that is large, as there are many like it.\n";
    let text = line.repeat(1024 * 1024 / line.len());
    let message =
        |number| format!("From x Mon Jun 21 03:15:20 2004\nSubject: {number}\n\n{text}\n");
    (0..count).map(message).collect::<String>().into_bytes()
}

#[test]
fn a_client_that_takes_nothing_costs_little_memory_and_is_ended() {
    let site = Site::plan().in_memory().build();
    site.fill(USER, &megabytes(200));
    let (server, address) = site.serve("imapd");
    let mut imap = log_in(address);
    imap.must("SELECT INBOX");
    let pid = session(&server);
    let before = peak(pid);
    imap.begin("FETCH 1:* BODY.PEEK[]").unwrap();
    let sleeps = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().any(|line| line.starts_with("State:\tS"))
    };
    wait_until("the session to wait for its client", || {
        let all = (0..20).all(|_| {
            std::thread::sleep(Duration::from_millis(20));
            sleeps()
        });
        all.then_some(())
    });
    has_grown_little(pid, before);
    support::note(&format!(
        "a session whose client takes nothing of 200 MB has {} KiB of its own",
        processes::memory(&[pid])
    ));
    // One that takes it slowly gets all of what it takes.
    let said = imap.hear().unwrap();
    assert!(matches!(said, Said::Fetch(1, _)));
    has_grown_little(pid, before);
    if !need("strace") || !support::need_root() {
        return;
    }
    // Its time is over: that is what poll(2) says, as soon as it is asked again. That is when the
    // client takes a message, and then nothing.
    let fault = Fault::of(&[pid], "poll,ppoll", "retval=0");
    while !server.log().contains("end=timeout") {
        if imap.hear().is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(fault);
    server.wait_for_log("end=timeout");
    server.wait_until_quiet();
    log_in(address).must("LOGOUT");
}

#[test]
fn ten_thousand_commands_at_once_are_answered_in_little_memory() {
    let (_site, server, address) = host();
    let mut imap = log_in(address);
    imap.must("SELECT INBOX");
    let pid = session(&server);
    let before = peak(pid);
    let commands = ["NOOP", "FETCH 1:* (UID FLAGS ENVELOPE)", "SEARCH ALL", "STATUS INBOX (SIZE)"];
    let command = |number: usize| format!("p{number} {}\r\n", commands[number % commands.len()]);
    let all: Vec<String> = (0..10_000).map(command).collect();
    let all = all.concat();
    std::thread::scope(|scope| {
        let mut peer = imap.another_end();
        scope.spawn(move || std::io::Write::write_all(&mut peer, all.as_bytes()).unwrap());
        for number in 0..10_000 {
            let said = imap.hear_all(&format!("p{number}")).unwrap();
            assert!(matches!(said.last(), Some(Said::End(_, how, _)) if how == "OK"), "{said:?}");
        }
    });
    has_grown_little(pid, before);
    imap.must("LOGOUT");
}

#[test]
fn literals_that_are_announced_and_not_sent_add_nothing() {
    for form in FORMS {
        let site = form.plan().build();
        form.fill(&form.inbox(&site));
        let (server, address) = site.serve("imapd");
        let text = "Subject: cut\r\n\r\nThis is half a message\r\n";
        for command in
            ["APPEND INBOX {100}", "APPEND INBOX (\\Seen) {100+}", "APPEND INBOX ~{100+}"]
        {
            for (cut, how) in [(0, "close"), (20, "reset"), (text.len(), "close"), (9, "half")] {
                let mut peer = peer(address);
                peer.send(format!("a {command}\r\n"));
                if !command.ends_with("+}") {
                    assert!(peer.line().starts_with("+ "));
                }
                peer.send(&text[..cut]);
                match how {
                    "close" => drop(peer),
                    "reset" => peer.reset(),
                    _ => {
                        peer.half_close();
                        let said = peer.rest();
                        assert!(!said.contains("a OK"), "{said}");
                    }
                }
            }
        }
        // All octets, and the command has no end, or has more.
        let mut one = peer(address);
        one.send("a APPEND INBOX {11+}\r\nSubject: x\n");
        drop(one);
        let mut one = peer(address);
        one.send("a APPEND INBOX {11+}\r\nSubject: x\n more\r\n");
        assert!(one.line().starts_with("a BAD "));
        // While one hangs in the middle of its message another one works.
        let mut hangs = peer(address);
        hangs.send("a APPEND INBOX {100}\r\n");
        assert!(hangs.line().starts_with("+ "));
        let mut imap = log_in(address);
        let said = imap.must("SELECT INBOX");
        assert!(said.contains(&Said::Number(1, "EXISTS".into())), "{said:?}");
        let said = imap.ask_with("APPEND INBOX", b"Subject: whole\r\n\r\nwhole\r\n").unwrap();
        assert!(said.contains(&Said::Number(2, "EXISTS".into())), "{said:?}");
        // It is asked to end while it waits for the rest.
        for session in server.monitors() {
            kill(Pid::from_raw(session), Signal::SIGTERM).unwrap();
        }
        assert!(hangs.line().starts_with("* BYE "));
        server.wait_until_quiet();
        let said = log_in(address).must("EXAMINE INBOX");
        assert!(said.contains(&Said::Number(2, "EXISTS".into())), "{said:?}");
    }
}

#[test]
fn literals_that_are_too_long_are_refused_and_passed_over() {
    let (site, server, address) = host();
    let mut peer = peer(address);
    let pid = session(&server);
    let before = peak(pid);
    let most = 52_428_800;
    for (command, wanted) in [
        (format!("a APPEND INBOX {{{}}}", most + 1), "a NO [TOOBIG] "),
        ("a APPEND INBOX {99999999999999999999999}".into(), "a BAD "),
        ("a APPEND nowhere {10}".into(), "a NO [TRYCREATE] "),
        ("a SEARCH SUBJECT {70000}".into(), "a BAD "),
        ("a SELECT {4294967296}".into(), "a BAD "),
        ("a NOOP {5}".into(), "a BAD "),
    ] {
        let said = peer.imap(&command);
        assert!(said.starts_with(wanted), "{command}: {said}");
        assert!(peer.imap("n NOOP").contains("n OK"), "{command}");
    }
    // What comes all the same is none of the next command.
    let rubbish = "x LOGOUT\r\n".repeat(8 * 1024 * 1024 / 10);
    for command in ["a SEARCH SUBJECT", "a APPEND nowhere", "a XYZZY"] {
        peer.send(format!("{command} {{{}+}}\r\n{rubbish}\r\n", rubbish.len()));
        let said = peer.line();
        assert!(said.starts_with("a BAD ") || said.starts_with("a NO "), "{said}");
        assert!(peer.imap("n NOOP").contains("n OK"), "{command}");
    }
    has_grown_little(pid, before);
    assert_eq!(site.messages(USER).len(), 3);
}

#[test]
fn long_lines_and_deep_nesting_are_answered() {
    let (_site, server, address) = host();
    let mut imap = log_in(address);
    imap.must("SELECT INBOX");
    let pid = session(&server);
    let before = peak(pid);
    let begun = Instant::now();
    let deep = 25_000;
    let long = "1,".repeat(30_000);
    for command in [
        format!("SEARCH {}ALL{}", "(".repeat(deep), ")".repeat(deep)),
        format!("SEARCH {}ALL", "NOT ".repeat(15_000)),
        format!("SEARCH {}ALL{}", "OR ".repeat(8_000), " ALL".repeat(8_000)),
        format!("SEARCH {}ALL", "(".repeat(deep)),
        format!("FETCH 1:* BODY.PEEK[{}1]", "1.".repeat(deep)),
        format!("FETCH 1:* {}FLAGS{}", "(".repeat(deep), ")".repeat(deep)),
        format!("FETCH {long}1 FLAGS"),
        format!("UID STORE {long}1 +FLAGS ({})", "x ".repeat(1000).trim_end()),
        format!("LIST \"\" \"{}x\"", "%*".repeat(200)),
        format!(
            "LIST \"\" ({})",
            "\"%*%*%*%*%*%*%*%*%*%*%*%*%*%*%*%*%*%*%*a\" ".repeat(500).trim()
        ),
        format!("LIST (SUBSCRIBED RECURSIVEMATCH) \"\" {}", "%".repeat(60_000)),
        format!("STATUS INBOX ({})", "MESSAGES ".repeat(7000).trim_end()),
        format!("CREATE {}", "a/".repeat(30_000)),
        format!("SELECT \"{}\"", "\\\"".repeat(30_000)),
        format!("ID ({})", "\"x\" NIL ".repeat(7000).trim_end()),
        format!("FETCH 1:3 BODY.PEEK[HEADER.FIELDS ({})]", "X-Y ".repeat(15_000).trim_end()),
        format!("FETCH 1:3 ({})", "BODY.PEEK[TEXT]<0.1> ".repeat(3000).trim_end()),
    ] {
        let tag = imap.begin(&command).unwrap();
        let said = imap.hear_all(&tag);
        let said = said.unwrap_or_else(|error| panic!("{error}: {}", &command[..60]));
        assert!(matches!(said.last(), Some(Said::End(..))), "{}", &command[..60]);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    has_grown_little(pid, before);
    imap.must("NOOP");
    // A line is as long as it may be, and longer.
    let mut peer = peer(address);
    let line = |length: usize| format!("a NOOP{}", " ".repeat(length - "a NOOP".len()));
    for (length, wanted) in [(1000, "a OK "), (60_000, "a OK "), (70_000, "a BAD ")] {
        let said = peer.imap(&line(length));
        assert!(said.starts_with(wanted), "{length}: {said}");
    }
    let pid = server.monitors().pop().unwrap();
    let before = peak(pid);
    // One that never ends is not kept.
    for _ in 0..64 {
        peer.send(vec![b'x'; 1024 * 1024]);
    }
    has_grown_little(pid, before);
    peer.send("\r\n");
    assert!(peer.imap("n NOOP").contains("n OK"));
}

#[test]
fn a_message_of_many_levels_is_told_of() {
    let (site, server, address) = host();
    let parts =
        |number| format!("Content-Type: multipart/mixed; boundary=b{number}\n\n--b{number}\n");
    let multiparts: String = (0..5000).map(parts).collect();
    let messages = "Content-Type: message/rfc822\n\n".repeat(5000);
    let many = "--c\n\nx\n".repeat(50_000);
    let many = format!("Content-Type: multipart/mixed; boundary=c\n\n{many}");
    let addresses = format!("To: {}x\n\nx\n", "a@b.example, ".repeat(100_000));
    let spool = [multiparts, messages, many, addresses]
        .map(|text| format!("From x Mon Jun 21 03:15:20 2004\nMIME-Version: 1.0\n{text}\n\n"));
    site.fill(USER, spool.concat().as_bytes());
    let mut imap = log_in(address);
    imap.must("SELECT INBOX");
    let pid = session(&server);
    let before = peak(pid);
    for items in ["BODYSTRUCTURE", "ENVELOPE", "BODY.PEEK[1.1.1.1]", "BINARY.SIZE[1]", "BODY"] {
        let said = imap.must(&format!("FETCH 1:4 {items}"));
        assert_eq!(said.len(), 5, "{items}");
    }
    imap.must("SEARCH BODY nothing");
    let now = peak(pid);
    support::note(&format!("strange messages cost {} KiB", now - before));
    assert!(now < before + 16 * MORE, "{before} KiB before, and {now} KiB");
}

#[test]
fn many_commands_that_are_none_end_the_session() {
    let (_site, _server, address) = host();
    let mut peer = peer(address);
    peer.send("rubbish \x01\r\n".repeat(100));
    let said = peer.rest();
    assert!(said.contains("* BYE "), "{said}");
    assert!(said.matches("BAD").count() <= 20, "{said}");
}

#[test]
fn rubbish_behind_the_login_harms_nobody() {
    let (site, mut server, address) = host();
    let mut dice = support::Dice::new(11);
    let words: [&[u8]; 18] = [
        b"a SELECT INBOX\r\n",
        b"a FETCH 1:* (",
        b"BODY[",
        b"]<0.",
        b"a APPEND INBOX {30+}\r\n",
        b"a SEARCH (OR ",
        b"NOT ",
        b"{5+}\r\n",
        b"~{3}\r\n",
        b"a STORE 1 +FLAGS (\\Seen ",
        b"a IDLE\r\n",
        b"DONE\r\n",
        b"a UID ",
        b"\r\n",
        b"\0",
        b"\"\\",
        b"a LIST (",
        b"\xff\xfe",
    ];
    for _ in 0..60 {
        let mut peer = peer(address);
        for _ in 0..dice.below(30) {
            let mut chunk = words[dice.below(words.len())].to_vec();
            for _ in 0..dice.below(20) {
                chunk.push(u8::try_from(dice.below(256)).unwrap());
            }
            peer.send(chunk);
        }
        if dice.below(2) == 0 {
            peer.reset();
        }
    }
    server.wait_until_quiet();
    assert!(server.ended().is_none());
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.matches("status=accepted").count() == 60, "{log}");
    // What was appended by accident stands whole behind what was there.
    assert!(site.messages(USER).len() >= 3);
    let mut one = peer(address);
    assert!(one.imap("s SELECT INBOX").contains("s OK"));
    one.send("l LOGOUT\r\n");
    one.rest();
    assert_eq!(one.hear(), Heard::Closed(Vec::new()));
}
