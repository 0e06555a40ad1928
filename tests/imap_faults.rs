//! What imapd makes of a system that fails it: sessions that are killed, disks that are full, mailboxes
//! that may not grow. What was acknowledged is there, nothing is half there, and a message that is
//! moved is somewhere.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::disk::Disk;
use support::imap::{Imap, Said};
use support::run::Server;
use support::site::{Plan, Site, activated};
use support::store::{FORMS, Form, USER};
use support::stress::sent_text;
use support::{Dice, is_root, need, need_root, wait_until};

/// How often a session is killed at each kind of work.
const TIMES: usize = 25;

/// So many messages there are.
const MESSAGES: u32 = 60;

/// And in a mailbox whose index has several pages.
const MANY: u32 = 600;

fn plan(form: Form) -> Plan {
    match form {
        Form::Mbox => form.plan(),
        Form::Maildir => form.plan().set("paths", "folders", "\"%h/Maildir/\""),
    }
}

fn host(form: Form) -> (Site, Server, SocketAddr) {
    let site = plan(form).build();
    let (server, address) = site.serve("imapd");
    (site, server, address)
}

fn log_in(address: SocketAddr) -> Imap {
    Imap::log_in(address, USER, "Watts?Watt?")
}

/// Puts messages of these numbers into a mailbox.
fn fill(imap: &mut Imap, mailbox: &str, tokens: impl Iterator<Item = u32>) {
    for token in tokens {
        let said = imap.ask_with(&format!("APPEND {mailbox}"), &sent_text(token)).unwrap();
        assert!(is_ok(&said), "{said:?}");
    }
}

fn is_ok(said: &[Said]) -> bool {
    matches!(said.last(), Some(Said::End(_, how, _)) if how == "OK")
}

/// The code of an answer that is no OK.
#[track_caller]
fn refusal(said: &[Said]) -> String {
    match said.last() {
        Some(Said::End(_, how, text)) if how == "NO" => {
            text.strip_prefix('[').unwrap_or_default().split(']').next().unwrap().to_owned()
        }
        other => panic!("no NO: {other:?}"),
    }
}

/// How often each message is in a mailbox; all of them must be whole.
#[track_caller]
fn there(address: SocketAddr, mailbox: &str) -> BTreeMap<u32, usize> {
    let mut imap = log_in(address);
    imap.must(&format!("EXAMINE {mailbox}"));
    let mut found = BTreeMap::new();
    for said in imap.must("UID FETCH 1:* (BODY.PEEK[])") {
        let Said::Fetch(_, items) = said else { continue };
        let text = items.iter().find(|(name, _)| name == "BODY[]").unwrap().1.bytes();
        let shown = String::from_utf8_lossy(text);
        let token = shown.lines().find_map(|line| line.strip_prefix("X-Token: "));
        let token = token.unwrap_or_else(|| panic!("{mailbox}: {shown}")).parse().unwrap();
        assert!(text == sent_text(token), "{mailbox}: message {token} is torn: {shown}");
        *found.entry(token).or_default() += 1;
    }
    imap.must("LOGOUT");
    found
}

/// Has a session that is killed at some moment of a command, from its first byte to somewhat behind
/// its end, as long as it took the last time; the answer, where there was one.
fn killed_at(server: &Server, imap: &mut Imap, part: f64, usual: Duration) -> bool {
    let pids = server.monitors();
    let [session] = pids[..] else { panic!("one session is there, not {pids:?}") };
    std::thread::sleep(usual.mul_f64(part));
    let _ = kill(Pid::from_raw(session), Signal::SIGKILL);
    wait_until("its end", || server.monitors().is_empty().then_some(()));
    loop {
        match imap.hear() {
            Ok(Said::End(_, how, _)) => return how == "OK",
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// When in a command a session is killed.
fn part(dice: &mut Dice) -> f64 {
    f64::from(u32::try_from(dice.below(1300)).unwrap()) / 1000.0
}

#[test]
fn a_move_whose_session_is_killed_loses_nothing() {
    for form in FORMS {
        let (_site, server, address) = host(form);
        let mut dice = Dice::new(3);
        let mut imap = log_in(address);
        imap.must("CREATE Other");
        fill(&mut imap, "INBOX", 1..=MESSAGES);
        let names = ["INBOX", "Other"];
        imap.must("SELECT INBOX");
        let begun = Instant::now();
        imap.must(&format!("MOVE 1:{} Other", MESSAGES / 2));
        let usual = begun.elapsed();
        imap.must("LOGOUT");
        wait_until("its end", || server.monitors().is_empty().then_some(()));
        let (mut copies, mut finished) = (0, 0);
        for number in 0..TIMES {
            let (from, to) = (names[number % 2], names[1 - number % 2]);
            let mut imap = log_in(address);
            let said = imap.must(&format!("SELECT {from}"));
            let count = said.iter().find_map(|said| match said {
                Said::Number(count, word) if word == "EXISTS" => Some(*count),
                _ => None,
            });
            let first = 1 + u32::try_from(dice.below(5)).unwrap();
            let last = count.unwrap().saturating_sub(2).max(first);
            imap.begin(&format!("MOVE {first}:{last} {to}")).unwrap();
            finished += usize::from(killed_at(&server, &mut imap, part(&mut dice), usual));
            let (mut left, moved) = (there(address, from), there(address, to));
            for (token, count) in moved {
                *left.entry(token).or_default() += count;
            }
            let lost: Vec<u32> = (1..=MESSAGES).filter(|token| !left.contains_key(token)).collect();
            assert!(lost.is_empty(), "{form:?}, {number}: {lost:?} are lost");
            let twice: Vec<u32> =
                left.iter().filter(|(_, count)| **count > 1).map(|(token, _)| *token).collect();
            copies += usize::from(!twice.is_empty());
            // What it has not removed any more goes now.
            tidy(address, from, &twice);
            wait_until("its end", || server.monitors().is_empty().then_some(()));
        }
        support::note(&format!(
            "{form:?}: of {TIMES} that were killed at a MOVE {finished} had answered, and {copies} \
             had left copies"
        ));
    }
}

/// Removes messages that are in another mailbox, too.
fn tidy(address: SocketAddr, mailbox: &str, tokens: &[u32]) {
    let mut imap = log_in(address);
    imap.must(&format!("SELECT {mailbox}"));
    for token in tokens {
        let said = imap.must(&format!("UID SEARCH SUBJECT \"message {token}\""));
        let Some(Said::Data(_, uids)) =
            said.iter().find(|said| matches!(said, Said::Data(word, _) if word == "SEARCH"))
        else {
            panic!("{said:?}");
        };
        for uid in uids {
            let uid = uid.number();
            let said = imap.must(&format!("UID FETCH {uid} BODY.PEEK[HEADER.FIELDS (X-TOKEN)]"));
            let text = format!("{said:?}");
            if text.contains(&format!("{:?}", format!("X-Token: {token}\r\n\r\n").as_bytes())) {
                imap.must(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"));
            }
        }
    }
    imap.must("EXPUNGE");
    imap.must("LOGOUT");
}

#[test]
fn an_append_whose_session_is_killed_is_whole_or_nothing() {
    for form in FORMS {
        let (_site, server, address) = host(form);
        let mut dice = Dice::new(5);
        let mut usual = Duration::from_millis(20);
        let mut finished = 0;
        for token in (1..).take(TIMES) {
            let mut imap = log_in(address);
            let text = sent_text(token);
            imap.begin(&format!("APPEND INBOX {{{}+}}", text.len())).unwrap();
            let begun = Instant::now();
            imap.send(&[&text[..], b"\r\n"].concat()).unwrap();
            let is_told = if token == 1 {
                imap.hear().unwrap();
                usual = begun.elapsed();
                imap.must("LOGOUT");
                true
            } else {
                killed_at(&server, &mut imap, part(&mut dice), usual)
            };
            finished += usize::from(is_told);
            let found = there(address, "INBOX").get(&token).copied().unwrap_or(0);
            let is_right = found == 1 || (found == 0 && !is_told);
            assert!(is_right, "{form:?}: message {token} is there {found} times, told: {is_told}");
            wait_until("its end", || server.monitors().is_empty().then_some(()));
        }
        support::note(&format!(
            "{form:?}: of {TIMES} that were killed at an APPEND {finished} had answered"
        ));
    }
}

#[test]
fn an_expunge_whose_session_is_killed_takes_nothing_else() {
    for form in FORMS {
        let (_site, server, address) = host(form);
        let mut dice = Dice::new(7);
        let mut imap = log_in(address);
        fill(&mut imap, "INBOX", 1..=4);
        drop(imap);
        let mut usual = Duration::from_millis(20);
        for number in 0..TIMES {
            wait_until("its end", || server.monitors().is_empty().then_some(()));
            let mut imap = log_in(address);
            fill(&mut imap, "INBOX", 5..=20);
            imap.must("SELECT INBOX");
            imap.must("STORE 5:* +FLAGS.SILENT (\\Deleted)");
            // Not those at the end: there is something to be moved.
            fill(&mut imap, "INBOX", 21..=21);
            let begun = Instant::now();
            imap.begin("EXPUNGE").unwrap();
            if number == 0 {
                while !matches!(imap.hear().unwrap(), Said::End(..)) {}
                usual = begun.elapsed();
            } else {
                killed_at(&server, &mut imap, part(&mut dice), usual);
            }
            drop(imap);
            let found = there(address, "INBOX");
            for token in [1, 2, 3, 4, 21] {
                assert_eq!(found.get(&token), Some(&1), "{form:?}: {token} of {found:?}");
            }
            wait_until("its end", || server.monitors().is_empty().then_some(()));
            let mut imap = log_in(address);
            imap.must("SELECT INBOX");
            imap.must("STORE 5:* +FLAGS.SILENT (\\Deleted)");
            imap.must("EXPUNGE");
            assert_eq!(there(address, "INBOX").into_keys().collect::<Vec<_>>(), [1, 2, 3, 4]);
            drop(imap);
        }
    }
}

/// All that a user has is on a small disk.
fn on_a_small_disk(form: Form) -> (Site, Disk, Server, SocketAddr) {
    let inbox = if form == Form::Mbox { "\"%h/inbox\"" } else { "\"%h/Maildir/\"" };
    let site = plan(form).set("paths", "inbox", inbox).build();
    let account = Site::account(USER);
    let home = site.home(USER);
    let options = format!("size=2m,mode=700,uid={},gid={}", account.uid, account.gid);
    let disk = Disk::at(&home, &options);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = disk.command(&activated(&site.command("imapd")));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
    let server = Server::start(&mut command);
    (site, disk, server, address)
}

#[test]
fn on_a_full_disk_nothing_is_half_done_and_the_session_lives() {
    if !need_root() || !need("unshare") || !need("nsenter") {
        return;
    }
    for form in FORMS {
        let (_site, disk, server, address) = on_a_small_disk(form);
        let mut imap = log_in(address);
        imap.must("CREATE Other");
        // Without those that are large.
        let tokens: Vec<u32> =
            (1..).filter(|token| sent_text(*token).len() < 4000).take(8).collect();
        fill(&mut imap, "INBOX", tokens.iter().copied());
        let all: BTreeMap<u32, usize> = tokens.iter().map(|token| (*token, 1)).collect();
        // A Maildir has its UIDs nowhere but in its index, which is made now.
        imap.must("STATUS Other (UIDNEXT)");
        imap.must("SELECT INBOX");
        let large = [&b"Subject: large\r\n\r\n"[..], &[b'x'; 990].repeat(60), b"\r\n"].concat();
        // Others that have been there may still have something to write.
        let leave = |pages| {
            wait_until("one session", || (server.monitors().len() == 1).then_some(()));
            disk.leave(pages);
        };
        for pages in [0, 1, 2, 3, 5, 8, 13] {
            leave(pages);
            let said = imap.ask_with("APPEND INBOX", &large).unwrap();
            assert_eq!(refusal(&said), "UNAVAILABLE", "{form:?}, {pages}");
            let said = imap.ask_with("APPEND Other", &large).unwrap();
            assert_eq!(refusal(&said), "UNAVAILABLE", "{form:?}, {pages}");
            // What is small may have room.
            let said = imap.ask("COPY 1:8 Other").unwrap();
            if is_ok(&said) {
                assert!(pages > 0, "{form:?}: {said:?}");
                assert_eq!(there(address, "Other"), all, "{form:?}, {pages}");
                let mut other = log_in(address);
                other.must("SELECT Other");
                other.must("STORE 1:* +FLAGS.SILENT (\\Deleted)");
                other.must("EXPUNGE");
                other.must("LOGOUT");
            } else {
                assert_eq!(refusal(&said), "UNAVAILABLE", "{form:?}, {pages}");
                assert_eq!(there(address, "Other"), BTreeMap::new(), "{form:?}, {pages}");
            }
            let said = imap.ask("MOVE 3:4 Other").unwrap();
            let (left, moved) = (there(address, "INBOX"), there(address, "Other"));
            let mut both = left.clone();
            for (token, count) in &moved {
                *both.entry(*token).or_default() += count;
            }
            assert_eq!(both, all, "{form:?}, {pages}: {left:?} and {moved:?}: {said:?}");
            if is_ok(&said) {
                assert_eq!(moved.len(), 2, "{form:?}, {pages}: {said:?}");
                leave(100);
                let mut other = log_in(address);
                other.must("SELECT Other");
                other.must("MOVE 1:* INBOX");
                other.must("LOGOUT");
            } else {
                assert_eq!(refusal(&said), "UNAVAILABLE", "{form:?}, {pages}");
                assert!(moved.is_empty(), "{form:?}, {pages}: {said:?}");
            }
            leave(pages);
            // It is acknowledged only where another session sees it.
            let flag = format!("p{pages}");
            let said = imap.ask(&format!("STORE 1 +FLAGS ({flag})")).unwrap();
            let mut other = log_in(address);
            other.must("EXAMINE INBOX");
            let seen = format!("{:?}", other.must("FETCH 1 FLAGS")).contains(&flag);
            assert_eq!(seen, is_ok(&said), "{form:?}, {pages}: {said:?}");
            other.must("LOGOUT");
            // Mail can be read.
            let said = imap.must("FETCH 1:* BODY[]");
            assert_eq!(said.iter().filter(|said| matches!(said, Said::Fetch(..))).count(), 8);
            imap.must("NOOP");
            assert_eq!(there(address, "INBOX").len(), 8, "{form:?}, {pages}");
        }
        leave(100);
        imap.must("NOOP");
        imap.must("STORE 1:* +FLAGS (\\Flagged)");
        imap.must("MOVE 1:* Other");
        assert_eq!(there(address, "Other"), all);
        let said = imap.ask_with("APPEND INBOX", &large).unwrap();
        assert!(is_ok(&said), "{said:?}");
        imap.must("LOGOUT");
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

#[test]
fn a_mailbox_that_may_not_grow_takes_nothing_more() {
    for form in FORMS {
        let site = plan(form).set("mailbox", "quota", "20000").build();
        let (_server, address) = site.serve("imapd");
        let mut imap = log_in(address);
        imap.must("CREATE Other");
        let text = |size: usize| {
            [&b"Subject: some\r\n\r\n"[..], &b"A line of some.\r\n".repeat(size / 17)].concat()
        };
        let said = imap.ask_with("APPEND INBOX", &text(30_000)).unwrap();
        assert_eq!(refusal(&said), "OVERQUOTA");
        for _ in 0..2 {
            assert!(is_ok(&imap.ask_with("APPEND INBOX", &text(8_000)).unwrap()));
        }
        let said = imap.ask_with("APPEND INBOX", &text(8_000)).unwrap();
        assert_eq!(refusal(&said), "OVERQUOTA");
        imap.must("SELECT INBOX");
        // Each mailbox has its quota.
        imap.must("COPY 1:2 Other");
        assert_eq!(refusal(&imap.ask("COPY 1 Other").unwrap()), "OVERQUOTA");
        assert_eq!(refusal(&imap.ask("COPY 1 INBOX").unwrap()), "OVERQUOTA");
        assert_eq!(refusal(&imap.ask("MOVE 1 Other").unwrap()), "OVERQUOTA");
        imap.must("STORE 1 +FLAGS (\\Deleted work)");
        imap.must("EXPUNGE");
        assert!(is_ok(&imap.ask_with("APPEND INBOX", &text(8_000)).unwrap()));
        let said = imap.must("STATUS Other (MESSAGES)");
        assert!(format!("{said:?}").contains("Word(\"2\")"), "{said:?}");
    }
}

#[test]
fn a_session_that_is_asked_to_end_amid_a_command_has_obeyed_it() {
    if !is_root() {
        support::skip("needs root for nothing but other users' sessions");
        return;
    }
    for form in FORMS {
        let (_site, server, address) = host(form);
        let mut imap = log_in(address);
        imap.must("CREATE Other");
        fill(&mut imap, "INBOX", 1..=MESSAGES);
        imap.must("SELECT INBOX");
        let [session] = server.monitors()[..] else { panic!("one session") };
        imap.begin(&format!("MOVE 1:{MESSAGES} Other")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        kill(Pid::from_raw(session), Signal::SIGTERM).unwrap();
        let mut ends = Vec::new();
        while let Ok(said) = imap.hear() {
            ends.push(said);
        }
        let moved = there(address, "Other").len();
        let is_told = ends.iter().any(|said| matches!(said, Said::End(_, how, _) if how == "OK"));
        assert!(ends.iter().any(|said| matches!(said, Said::Status(how, _) if how == "BYE")));
        assert_eq!(is_told, moved > 0, "{form:?}: {moved}, {ends:?}");
        assert_eq!(there(address, "INBOX").len() + moved, usize::try_from(MESSAGES).unwrap());
    }
}

/// Nothing is wrong: the client is told, and the end of its session has its line.
#[test]
fn a_folder_that_is_renamed_or_deleted_under_a_session_is_no_warning() {
    for form in FORMS {
        let (_site, server, address) = host(form);
        let mut other = log_in(address);
        for (number, command) in
            ["RENAME Box Moved1", "DELETE Box", "RENAME Box Moved2", "DELETE Box"]
                .iter()
                .enumerate()
        {
            other.must("CREATE Box");
            fill(&mut other, "Box", 1..=3);
            let mut imap = log_in(address);
            imap.must("SELECT Box");
            imap.must("STORE 1 +FLAGS (\\Seen \\Deleted)");
            let is_idle = number < 2;
            if is_idle {
                imap.begin("IDLE").unwrap();
                assert_eq!(imap.hear().unwrap(), Said::Go);
            }
            other.must(command);
            if !is_idle {
                imap.begin("CHECK").unwrap();
            }
            let mut ends = Vec::new();
            while let Ok(said) = imap.hear() {
                ends.push(said);
            }
            let is_bye = |said: &Said| matches!(said, Said::Status(how, _) if how == "BYE");
            assert!(ends.last().is_some_and(is_bye), "{form:?}, {command}: {ends:?}");
            let ended = || server.log().matches("end=replaced").count() == number + 1;
            wait_until("its end in the log", || ended().then_some(()));
        }
        other.must("LOGOUT");
        assert!(!server.log().contains("Mailbox: "), "{form:?}: {}", server.log());
    }
}

#[test]
fn an_index_that_is_gone_under_a_mailbox_that_is_there_is_told_of() {
    for form in FORMS {
        let (site, server, address) = host(form);
        let mut imap = log_in(address);
        fill(&mut imap, "INBOX", 1..=3);
        imap.must("SELECT INBOX");
        let names = std::fs::read_dir(site.home(USER).join("mail/.index")).unwrap();
        for path in names.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|ending| ending == "index") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let _ = imap.ask("CHECK");
        let told = match form {
            Form::Mbox => "index is damaged: it is gone",
            Form::Maildir => "because its index was lost",
        };
        server.wait_for_log(told);
    }
}

/// So soon a session ends that is asked to.
const SOON: Duration = Duration::from_secs(6);

#[test]
fn a_session_that_is_asked_to_end_while_its_client_takes_nothing_ends_soon() {
    for form in FORMS {
        for takes_some in [false, true] {
            let (site, server, address) = host(form);
            fill(&mut log_in(address), "INBOX", 1..=2);
            let large = [b"Subject: large\r\n\r\n", &b"A line.\r\n".repeat(600_000)[..]].concat();
            let said = log_in(address).ask_with("APPEND INBOX", &large).unwrap();
            assert!(is_ok(&said), "{said:?}");
            server.wait_until_quiet();
            let mut imap = log_in(address);
            imap.must("SELECT INBOX");
            imap.must("STORE 1 +FLAGS (\\Flagged work)");
            let [session] = server.monitors()[..] else { panic!("one session") };
            imap.begin(&format!("FETCH 3 ({})", ["BODY.PEEK[]"; 40].join(" "))).unwrap();
            let mut end = imap.another_end();
            end.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            // The window is full by then.
            std::thread::sleep(Duration::from_millis(500));
            kill(Pid::from_raw(session), Signal::SIGTERM).unwrap();
            let begun = Instant::now();
            let is_over = std::cell::Cell::new(false);
            while begun.elapsed() < SOON && !is_over.get() {
                is_over.set(server.monitors().is_empty());
                if takes_some {
                    let mut some = vec![0; 1000];
                    let _ = std::io::Read::read(&mut end, &mut some);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(is_over.get(), "{form:?}, {takes_some}: {}", server.log());
            server.wait_for_log("end=asked to end");
            if form == Form::Mbox {
                // What only the index had is in the mailbox, too.
                let text = std::fs::read(form.inbox(&site)).unwrap();
                let text = String::from_utf8_lossy(text.get(..2000).unwrap()).into_owned();
                assert!(text.contains("X-Status: F") && text.contains("work"), "{text}");
            }
            let mut imap = log_in(address);
            imap.must("SELECT INBOX");
            let marks = format!("{:?}", imap.must("FETCH 1 FLAGS"));
            assert!(marks.contains("Flagged") && marks.contains("work"), "{marks}");
            assert!(!server.log().contains("Mailbox: "), "{}", server.log());
        }
    }
}

#[test]
fn an_index_that_is_damaged_amid_a_session_is_told_of_and_made_anew() {
    if !is_root() {
        support::skip("needs root for nothing but other users' sessions");
        return;
    }
    let (site, _server, address) = host(Form::Mbox);
    fill(&mut log_in(address), "INBOX", 1..=MANY);
    let index = || {
        let names = std::fs::read_dir(site.home(USER).join("mail/.index")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().path());
        names.find(|path| path.to_string_lossy().ends_with(".index")).unwrap()
    };
    // The next one is a snapshot of all: of 256 messages each, with 96 bytes a message.
    std::fs::remove_file(index()).unwrap();
    let mut imap = log_in(address);
    imap.must("SELECT INBOX");
    let mut bytes = std::fs::read(index()).unwrap();
    let in_the_second_page = bytes.len() - (88 + 128) * 96;
    bytes[in_the_second_page] ^= 1;
    std::fs::write(index(), &bytes).unwrap();

    imap.must("FETCH 1:256 (FLAGS)");
    let said = imap.ask("FETCH 300 (FLAGS)").unwrap();
    assert_eq!(refusal(&said), "CORRUPTION");
    let said = imap.must("UID FETCH 1:* (UID)");
    let uid = |said: &Said| match said {
        Said::Fetch(_, items) => Some(items[0].1.number()),
        _ => None,
    };
    let uids: Vec<u64> = said.iter().filter_map(uid).collect();
    assert_eq!(uids.len(), MANY as usize);
    // Those of the other pages are what they were, and no UID is another message's.
    assert!((1..=256).chain(513..=600).all(|uid| uids.contains(&uid)), "{uids:?}");
    assert!(uids.iter().all(|uid| !(257..=512).contains(uid)), "{uids:?}");
    let there = there(address, "INBOX");
    assert!(there.keys().copied().eq(1..=MANY), "{there:?}");
    assert!(there.values().all(|count| *count == 1), "{there:?}");
}
