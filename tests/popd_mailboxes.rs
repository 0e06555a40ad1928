//! popd on either kind of inbox: what a client gets, and that a message's unique id stays whatever
//! neighbours do to it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::dovecot::{Imap, configuration};
use support::peer::Peer;
use support::run::Server;
use support::site::Site;
use support::store::{FORMS, Form, USER, in_maildir, message};
use support::{mutt, need};

/// A session that is logged in, and its number of messages.
fn pop(site: &Site) -> (Server, Peer, usize) {
    let (server, mut peer) = site.session("popd");
    peer.line();
    peer.pop(&format!("USER {USER}"));
    let answer = peer.pop("PASS Watts?Watt?");
    assert!(answer.starts_with("+OK"), "{answer}");
    let count = peer.pop("STAT").split(' ').nth(1).unwrap().parse().unwrap();
    (server, peer, count)
}

/// What a command with a text for an answer gives, with LF line ends.
#[track_caller]
fn text(peer: &mut Peer, command: &str) -> Vec<u8> {
    let answer = peer.pop(command);
    assert!(answer.starts_with("+OK"), "{command}: {answer}");
    peer.pop_body()
}

/// The unique ids.
fn unique_ids(site: &Site) -> Vec<String> {
    let (_server, mut peer, count) = pop(site);
    let list = String::from_utf8(text(&mut peer, "UIDL")).unwrap();
    peer.pop("QUIT");
    let ids: Vec<String> =
        list.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(ids.len(), count);
    ids
}

fn deliver(site: &Site, numbers: std::ops::Range<usize>) {
    for number in numbers {
        site.local_deliver(USER, "a@example.org", &message(number, 2000)).expect(0);
    }
}

#[test]
fn a_client_gets_and_deletes_messages_while_mail_comes() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 0..3);
        let (server, mut peer, count) = pop(&site);
        assert_eq!(count, 3);
        for number in 0..3 {
            let whole = in_maildir(&message(number, 2000));
            let got = text(&mut peer, &format!("RETR {}", number + 1));
            assert!(got == whole, "{form:?}: {}", got.escape_ascii());
            let size = whole.len() + whole.split(|byte| *byte == b'\n').count() - 1;
            let listed = peer.pop(&format!("LIST {}", number + 1));
            assert_eq!(listed.trim_end(), format!("+OK {} {size}", number + 1));
            let top = text(&mut peer, &format!("TOP {} 2", number + 1));
            let end = whole.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
            let lines = whole[end..].split_inclusive(|byte| *byte == b'\n').take(2);
            let lines: usize = lines.map(<[u8]>::len).sum();
            assert!(top == whole[..end + lines], "{form:?}: {}", top.escape_ascii());
        }
        // What comes now is none of this session's.
        deliver(&site, 3..4);
        assert!(peer.pop("DELE 2").starts_with("+OK"));
        assert!(peer.pop("RETR 2").starts_with("-ERR"));
        assert!(peer.pop("RETR 4").starts_with("-ERR"));
        assert!(peer.pop("QUIT").starts_with("+OK"));
        server.join();
        let left: Vec<Vec<u8>> = [0, 2, 3].map(|n| in_maildir(&message(n, 2000))).into();
        assert!(site.fetched(USER) == left, "{form:?}");
    }
}

#[test]
fn a_session_that_breaks_off_removes_nothing() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 0..2);
        let (server, mut peer, _) = pop(&site);
        assert!(peer.pop("DELE 1").starts_with("+OK"));
        drop(peer);
        server.join();
        assert_eq!(site.fetched(USER).len(), 2, "{form:?}");
    }
}

#[test]
fn a_session_that_is_asked_to_end_while_its_client_takes_nothing_ends_soon() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 0..2);
        site.local_deliver(USER, "a@example.org", &message(2, 5_000_000)).expect(0);
        let (server, address) = site.serve("popd");
        let mut peer = Peer::connect(address);
        peer.line();
        peer.pop(&format!("USER {USER}"));
        assert!(peer.pop("PASS Watts?Watt?").starts_with("+OK"));
        assert!(peer.pop("DELE 1").starts_with("+OK"));
        let [session] = server.monitors()[..] else { panic!("one session") };
        peer.send("RETR 3\r\n".repeat(40));
        // The window is full by then.
        sleep(Duration::from_millis(500));
        kill(Pid::from_raw(session), Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        server.wait_until_quiet();
        assert!(begun.elapsed() < Duration::from_secs(6), "{form:?}: {:?}", begun.elapsed());
        let (_server, mut peer, count) = pop(&site);
        assert_eq!(count, 3, "{form:?}");
        peer.pop("QUIT");
    }
}

#[test]
fn unique_ids_stay_when_the_index_is_lost() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 0..3);
        // The same message twice: they are told apart.
        deliver(&site, 1..2);
        let ids = unique_ids(&site);
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        fs::remove_dir_all(site.home(USER).join("mail/.index")).unwrap();
        assert_eq!(unique_ids(&site), ids, "{form:?}");
        deliver(&site, 5..6);
        assert_eq!(unique_ids(&site)[..4], ids, "{form:?}");
    }
}

/// Neighbours set flags, move files and rewrite headers.
#[test]
fn unique_ids_stay_when_dovecot_flags_and_expunges() {
    if !need("doveadm") {
        return;
    }
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 0..4);
        let ids = unique_ids(&site);
        let file = configuration(&site, USER);
        if form == Form::Maildir {
            let text = fs::read_to_string(&file).unwrap();
            let line = text.lines().find(|line| line.starts_with("mail_location")).unwrap();
            let maildir = format!("mail_location = maildir:{}", form.inbox(&site).display());
            fs::write(&file, text.replace(line, &maildir)).unwrap();
        }
        let mut imap = Imap::open(&site, USER, &file).unwrap();
        imap.command("STORE 1,3 +FLAGS (\\Seen \\Flagged $Label1 with-a-long-name)").unwrap();
        imap.command("STORE 2 +FLAGS (\\Deleted)").unwrap();
        imap.command("EXPUNGE").unwrap();
        imap.log_out();
        let left = [&ids[0], &ids[2], &ids[3]].map(String::clone);
        assert_eq!(unique_ids(&site), left, "{form:?}");
        fs::remove_dir_all(site.home(USER).join("mail/.index")).unwrap();
        assert_eq!(unique_ids(&site), left, "{form:?}, without the index");
    }
}

#[test]
fn unique_ids_stay_when_mutt_rewrites_the_mailbox() {
    if !mutt::possible_as_user() {
        return;
    }
    let site = Site::plan().in_memory().build();
    deliver(&site, 0..4);
    let ids = unique_ids(&site);
    let keys = "<tag-pattern>~s [13]<enter><tag-prefix><flag-message><first-entry><delete-message>\
                <sync-mailbox><exit>";
    mutt::press_as(&site, USER, &site.inbox(USER), "", keys);
    assert!(site.messages(USER).iter().any(|message| message.field("X-Status") == Some("F")));
    assert_eq!(unique_ids(&site), ids[1..]);
    fs::remove_dir_all(site.home(USER).join("mail/.index")).unwrap();
    assert_eq!(unique_ids(&site), ids[1..]);
}

/// Its client's numbers mean the messages that it was told of, and none that has the UID of one of them
/// now: another program may have numbered the mailbox anew meanwhile.
#[test]
fn nothing_is_deleted_in_a_mailbox_that_was_numbered_anew_amid_a_session() {
    let numbered = |validity: u32, order: [usize; 3]| -> Vec<u8> {
        let each = (1_u32..).zip(order).map(|(uid, number)| {
            let base = format!("X-IMAPbase: {validity} 3\n");
            let own = format!("{}X-UID: {uid}\n", if uid == 1 { &base } else { "" });
            let from = "From a@example.org Mon Jun 21 03:15:20 2004\n";
            [from.as_bytes(), own.as_bytes(), &message(number, 2000), b"\n"].concat()
        });
        each.collect::<Vec<_>>().concat()
    };
    let site = Site::plan().in_memory().build();
    site.fill(USER, &numbered(7, [0, 1, 2]));
    let (_server, mut peer, count) = pop(&site);
    assert_eq!(count, 3);
    assert!(peer.pop("DELE 1").starts_with("+OK"));
    site.fill(USER, &numbered(8, [2, 0, 1]));
    let answer = peer.pop("RETR 2");
    assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{answer}");
    let answer = peer.pop("QUIT");
    assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{answer}");
    let (_server, mut peer, count) = pop(&site);
    assert_eq!(count, 3);
    for (at, number) in [2, 0, 1].into_iter().enumerate() {
        assert_eq!(text(&mut peer, &format!("RETR {}", at + 1)), message(number, 2000));
    }
}
