//! The mailbox as a whole: every operation, killed at every step.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::XattrFlags;

use super::from_line;
use super::identity::Identity;
use super::intent::ATTRIBUTE;
use super::{Error, Mbox, MboxStore, NewMessage, Place};
use crate::config::LockKind;
use crate::mailbox::index::stem;
use crate::mailbox::moment::{killed_at, without_attributes};
use crate::mailbox::store::{Flags, Store, unique_ids};
use crate::mailbox::uids::UidSet;
use crate::mailbox::{Staged, Stager};

/// A mailbox in a directory of its own.
pub(super) struct Home {
    _dir: tempfile::TempDir,
    pub(super) inbox: PathBuf,
    index: PathBuf,
}

impl Home {
    pub(super) fn new(content: &[u8]) -> Self {
        // In memory: there are thousands of fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let (inbox, index) = (dir.path().join("box"), dir.path().join("mail/.index"));
        fs::write(&inbox, content).unwrap();
        Self { _dir: dir, inbox, index }
    }

    pub(super) fn open(&self) -> Mbox {
        Mbox::new(self.place())
    }

    pub(super) fn session(&self) -> MboxStore {
        MboxStore::open(self.place()).unwrap()
    }

    fn place(&self) -> Place {
        Place {
            path: self.inbox.clone(),
            index: self.index.clone(),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl, LockKind::Flock, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_millis(200),
            quota: 0,
        }
    }

    pub(super) fn content(&self) -> String {
        String::from_utf8(fs::read(&self.inbox).unwrap()).unwrap()
    }

    /// The file without what sessions write into it.
    fn plain(&self) -> String {
        plain(&self.content())
    }

    /// What procmail would do: it appends, and asks no journal.
    pub(super) fn neighbour(&self, bytes: &[u8]) {
        let mut file = fs::OpenOptions::new().append(true).open(&self.inbox).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn journals(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.index) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let others = ["append", "index", "delivered"].map(|ending| self.journal(ending));
        names.retain(|name| !others.contains(name) && name != "uidvalidity");
        names
    }

    fn journal(&self, ending: &str) -> String {
        let stem = stem(&self.inbox).into_string().unwrap();
        format!("{stem}.{ending}")
    }
}

/// An mbox without the fields that hold marks and UIDs.
pub(super) fn plain(mbox: &str) -> String {
    let own = ["Status:", "X-Status:", "X-Keywords:", "X-UID:", "X-IMAPbase:"];
    let lines = mbox.split_inclusive('\n');
    lines.filter(|line| !own.iter().any(|name| line.starts_with(name))).collect()
}

/// What [`message`] stands in the file as.
fn text(name: &str, body: &str) -> String {
    with_room(name, body, 90)
}

/// The same at the beginning of an empty file.
fn first_text(name: &str, body: &str) -> String {
    with_room(name, body, 150)
}

fn with_room(name: &str, body: &str, room: usize) -> String {
    let from = from_line::write(format!("{name}@b.org").as_bytes(), UNIX_EPOCH);
    let (from, length) = (String::from_utf8(from).unwrap(), body.len());
    format!(
        "{from}Subject: {name}\nContent-Length: {length}\nStatus:{blank:10}\nX-Status:{blank:10}\n\
         X-Keywords:{blank:room$}\n\n{body}",
        blank = ""
    )
}

pub(super) fn message(name: &str, body: &str) -> NewMessage {
    let mut stager = Stager::new(u64::MAX);
    stager.push(format!("\n{body}").as_bytes()).unwrap();
    NewMessage {
        sender: format!("{name}@b.org").into_bytes(),
        at: UNIX_EPOCH,
        trace: format!("Subject: {name}\n").into_bytes(),
        text: Rc::new(stager.finish().unwrap()),
    }
}

pub(super) fn stored(names: &[&str], size: usize) -> String {
    names.iter().map(|name| text(name, &format!("{name}{}\n", "x".repeat(size))) + "\n").collect()
}

pub(super) fn shown(mailbox: &mut MboxStore) -> Vec<String> {
    mailbox.sync().unwrap();
    let messages = mailbox.messages().unwrap();
    let mut shown = Vec::new();
    for message in messages {
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        mailbox.read(message.uid, 0..u64::MAX, &mut sink).unwrap();
        assert_eq!(message.size, out.len() as u64);
        assert!(out[..message.header as usize].ends_with(b"\r\n"));
        shown.push(String::from_utf8(out).unwrap());
    }
    shown
}

/// The UIDs of messages that are counted from 0.
fn uids(mailbox: &MboxStore, messages: &[usize]) -> UidSet {
    messages.iter().map(|n| mailbox.messages().unwrap()[*n].uid).collect()
}

#[test]
fn what_is_appended_is_read_back_and_ends_in_a_blank_line() {
    for before in ["", "\n", "junk", "junk\n", "junk\n\n", "junk\r\n\r\n"] {
        let home = Home::new(before.as_bytes());
        let mut mailbox = home.open();
        mailbox.append(&[message("a", "1\n")]).unwrap();
        mailbox.append(&[message("b", "2\n")]).unwrap();
        let first = if before.is_empty() { first_text } else { text };
        let written = format!("{}\n{}\n", first("a", "1\n"), text("b", "2\n"));
        let separator = match before {
            "junk" => "\n\n",
            "junk\n" => "\n",
            _ => "",
        };
        assert_eq!(home.content(), format!("{before}{separator}{written}"));
        assert_eq!(
            shown(&mut home.session()),
            ["Subject: a\r\n\r\n1\r\n".to_owned(), "Subject: b\r\n\r\n2\r\n".into()]
        );
        assert!(mailbox.take_warnings().is_empty());
    }
}

#[test]
fn messages_appended_together_stand_as_if_appended_one_by_one() {
    let large = "x".repeat(1000) + "\n";
    let bodies = ["1\n".to_owned(), large.repeat(400), "3\n".to_owned()];
    let messages: Vec<_> = bodies.iter().map(|body| message("a", body)).collect();
    let (one, all) = (Home::new(b"junk"), Home::new(b"junk"));
    for message in &messages {
        one.open().append(std::slice::from_ref(message)).unwrap();
    }
    all.open().append(&messages).unwrap();
    all.open().append(&[]).unwrap();
    assert!(one.content() == all.content());
}

#[test]
fn a_missing_mailbox_is_empty_and_an_append_makes_it() {
    let home = Home::new(b"");
    fs::remove_file(&home.inbox).unwrap();
    let mut mailbox = home.session();
    assert!(mailbox.messages().unwrap().is_empty());
    assert!(mailbox.expunge(&UidSet::from(1..=9)).unwrap().is_empty());
    home.open().append(&[message("a", "1\n")]).unwrap();
    assert_eq!(shown(&mut mailbox).len(), 1);
}

#[test]
fn an_append_killed_at_any_step_is_undone_or_complete_and_a_neighbours_mail_survives() {
    kill_appends();
    without_attributes(kill_appends);
}

fn kill_appends() {
    for before in [String::new(), stored(&["old"], 3), "torn bo".to_owned()] {
        for neighbour in [false, true] {
            for again in 0..30 {
                let mut n = 0;
                loop {
                    let home = Home::new(before.as_bytes());
                    let killed = killed_at(n, || {
                        home.open().append(&[message("new", "new\n")]).unwrap();
                    });
                    let size = home.content().len();
                    if neighbour {
                        // Neighbours see a blank line before them, unless they were too quick.
                        home.neighbour(stored(&["neighbour"], 1).as_bytes());
                    }
                    // The recovery is killed, too.
                    killed_at(again, || drop(home.session()));
                    let mut mailbox = home.session();
                    let messages = shown(&mut mailbox);
                    let content = home.content();
                    assert!(!content.contains('\0'), "step {n}, {again}: {content:?}");
                    assert!(plain(&content).starts_with(&plain(&before)));
                    let complete = content.contains("new@b.org");
                    assert!(complete || killed, "step {n}");
                    let old = usize::from(before.starts_with("From"));
                    let wanted = old + usize::from(complete) + usize::from(neighbour);
                    let glued = before == "torn bo" && size == before.len() && neighbour;
                    if !glued {
                        assert_eq!(messages.len(), wanted, "step {n}, {again}: {content:?}");
                        assert!(mailbox.take_warnings().is_empty());
                    }
                    assert!(home.journals().is_empty());
                    if !killed {
                        break;
                    }
                    n += 1;
                }
                assert!(n > 6);
            }
        }
    }
}

#[test]
fn an_expunge_killed_at_any_step_is_finished_and_a_neighbours_mail_survives() {
    let names = ["a", "b", "c", "d", "e"];
    for expunged in [&[0][..], &[1, 3], &[4], &[3, 4], &[0, 1, 2, 3, 4], &[2]] {
        for size in [10, 5000] {
            for neighbour in [0, 1, 9000] {
                for again in (0..40).step_by(if size == 10 { 1 } else { 3 }) {
                    check_expunge(&names, expunged, size, neighbour, again);
                }
            }
        }
    }
}

fn check_expunge(names: &[&str], expunged: &[usize], size: usize, neighbour: usize, again: u32) {
    let before = stored(names, size);
    let kept: Vec<&str> =
        (0..names.len()).filter(|n| !expunged.contains(n)).map(|n| names[n]).collect();
    let after = stored(&kept, size);
    let mut n = 0;
    loop {
        let home = Home::new(before.as_bytes());
        let mut mailbox = home.session();
        assert_eq!(mailbox.messages().unwrap().len(), names.len());
        let uids = uids(&mailbox, expunged);
        let killed = killed_at(n, || {
            assert_eq!(mailbox.expunge(&uids).unwrap(), uids);
        });
        drop(mailbox);
        let more = if neighbour > 0 { stored(&["neighbour"], neighbour) } else { String::new() };
        home.neighbour(more.as_bytes());
        killed_at(again, || drop(home.session()));
        let mut mailbox = home.session();
        let content = home.plain();
        let whole = killed && content == plain(&format!("{before}{more}"));
        assert!(
            whole || content == plain(&format!("{after}{more}")),
            "{expunged:?} {size} {neighbour} step {n}, {again}: {content}"
        );
        assert!(mailbox.take_warnings().is_empty());
        assert!(home.journals().iter().all(|name| name.contains(".new")));
        if !killed {
            break;
        }
        n += 3;
    }
}

#[test]
fn a_message_that_others_moved_or_flagged_is_found_again_and_one_that_is_gone_is_left_out() {
    let home = Home::new(stored(&["a", "b", "b", "c"], 3).as_bytes());
    let mut mailbox = home.session();
    let ids = unique_ids(&mailbox.messages().unwrap());
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
    // As mutt would: a is gone, all others are flagged.
    let flagged = stored(&["b", "b", "c"], 3).replace("Subject", "Status: RO\nSubject");
    fs::write(&home.inbox, &flagged).unwrap();
    assert_eq!(unique_ids(&home.session().messages().unwrap()), ids[1..]);
    let mut sink = |_: &[u8]| Ok(());
    assert!(mailbox.read(4, 0..9, &mut sink).is_ok());
    assert!(matches!(mailbox.read(1, 0..9, &mut sink), Err(Error::Changed)));
    assert_eq!(mailbox.expunge(&[1, 3, 4].into_iter().collect()).unwrap(), UidSet::from(3..=4));
    assert_eq!(home.plain(), plain(&stored(&["b"], 3)));
    assert!(mailbox.messages().unwrap().iter().all(|m| m.marks.flags == Flags::SEEN));
}

#[test]
fn a_large_message_is_read_on_while_others_flag_it_but_not_when_it_is_replaced() {
    let big = stored(&["a", "b"], 1_000_000);
    for (then, good) in [
        (big.replace("Subject", "Status: RO\nSubject"), true),
        (stored(&["c", "b"], 1_000_000), false),
        (String::new(), false),
    ] {
        let home = Home::new(big.as_bytes());
        let mut mailbox = home.session();
        let whole = mailbox.messages().unwrap()[0].size;
        let (mut size, mut first) = (0, true);
        let read = mailbox.read(1, 0..u64::MAX, &mut |bytes| {
            size += bytes.len() as u64;
            if std::mem::take(&mut first) {
                fs::write(&home.inbox, &then).unwrap();
            }
            Ok(())
        });
        assert_eq!(read.is_ok(), good, "{read:?}");
        assert_eq!(size == whole, good);
    }
}

#[test]
fn a_lock_of_another_is_waited_for_and_never_written_past() {
    let home = Home::new(b"");
    let lock = home.inbox.with_file_name("box.lock");
    fs::write(&lock, "1").unwrap();
    let failed = home.open().append(&[message("a", "1\n")]);
    assert!(matches!(failed, Err(Error::Locked { .. })), "{failed:?}");
    assert_eq!(home.content(), "");
    fs::remove_file(&lock).unwrap();
    let other = fs::File::options().write(true).open(&home.inbox).unwrap();
    other.try_lock().unwrap();
    let failed = home.open().append(&[message("a", "1\n")]);
    assert!(matches!(failed, Err(Error::Locked { .. })), "{failed:?}");
    assert!(!lock.exists());
}

#[test]
fn what_is_no_mailbox_of_its_owner_is_refused() {
    let home = Home::new(b"");
    let other = home.inbox.with_file_name("other");
    let refused = |home: &Home| {
        let failed = home.open().append(&[message("a", "1\n")]);
        assert!(matches!(failed, Err(Error::Refused { .. })), "{failed:?}");
        let failed = MboxStore::open(home.place()).err();
        assert!(matches!(failed, Some(Error::Refused { .. })), "{failed:?}");
    };
    fs::hard_link(&home.inbox, &other).unwrap();
    refused(&home);
    fs::remove_file(&home.inbox).unwrap();
    std::os::unix::fs::symlink(&other, &home.inbox).unwrap();
    refused(&home);
    fs::remove_file(&home.inbox).unwrap();
    nix::unistd::mkfifo(&home.inbox, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&home);
    fs::remove_file(&home.inbox).unwrap();
    fs::create_dir(&home.inbox).unwrap();
    refused(&home);
}

#[test]
fn journals_that_prove_nothing_are_not_applied() {
    let before = stored(&["a", "b"], 10);
    for garbage in [&b""[..], b"garbage", &[0xff; 8192], b"hkredop1\0\0\0\0\0\0\0\0"] {
        let home = Home::new(before.as_bytes());
        home.open().append(&[message("c", "1\n")]).unwrap();
        let content = home.content();
        let file = fs::File::open(&home.inbox).unwrap();
        rustix::fs::fsetxattr(&file, ATTRIBUTE, garbage, XattrFlags::empty()).unwrap();
        fs::create_dir_all(&home.index).unwrap();
        for ending in ["append", "redo"] {
            fs::write(home.index.join(home.journal(ending)), garbage).unwrap();
        }
        let mut mailbox = home.session();
        assert_eq!(shown(&mut mailbox).len(), 3);
        assert_eq!(home.plain(), plain(&content));
        assert_eq!(mailbox.take_warnings().len(), 1);
        assert_eq!(home.journals(), [home.journal("redo.bad")]);
    }
}

#[test]
fn a_file_that_somebody_rewrote_behind_a_killed_append_is_left_alone() {
    let rewritten = |kept| {
        for n in kept..7 {
            let home = Home::new(stored(&["a"], 300).as_bytes());
            assert!(killed_at(n, || {
                home.open().append(&[message("b", "2\n")]).unwrap();
            }));
            let other = stored(&["x", "y"], 290);
            fs::write(&home.inbox, &other).unwrap();
            let mut mailbox = home.session();
            assert_eq!(shown(&mut mailbox).len(), 2);
            assert_eq!(home.plain(), plain(&other));
            assert_eq!(mailbox.take_warnings().len(), 1, "step {n}");
            shown(&mut mailbox);
            assert!(mailbox.take_warnings().is_empty(), "the intent has been cleared");
        }
    };
    rewritten(1);
    without_attributes(|| rewritten(2));
}

#[test]
fn an_intent_that_came_along_with_a_copy_of_the_file_proves_nothing() {
    let home = Home::new(stored(&["a"], 300).as_bytes());
    assert!(killed_at(4, || {
        home.open().append(&[message("b", "2\n")]).unwrap();
    }));
    let content = fs::read(&home.inbox).unwrap();
    let mut intent = [0; 100];
    let file = fs::File::open(&home.inbox).unwrap();
    let length = rustix::fs::fgetxattr(&file, ATTRIBUTE, &mut intent).unwrap();
    let copy = Home::new(&content);
    let file = fs::File::open(&copy.inbox).unwrap();
    rustix::fs::fsetxattr(&file, ATTRIBUTE, &intent[..length], XattrFlags::empty()).unwrap();
    let mut mailbox = copy.session();
    assert_eq!(copy.plain(), plain(&String::from_utf8(content).unwrap()));
    assert_eq!(mailbox.take_warnings().len(), 1);
}

#[test]
fn where_the_intent_can_be_kept_nowhere_nothing_is_written_and_mail_can_be_read() {
    let home = Home::new(stored(&["a"], 3).as_bytes());
    fs::write(home.index.parent().unwrap(), "a file").unwrap();
    without_attributes(|| {
        let failed = home.open().append(&[message("b", "1\n")]);
        assert!(matches!(failed, Err(Error::Index { .. })), "{failed:?}");
        assert_eq!(home.content(), stored(&["a"], 3));
        assert_eq!(shown(&mut home.session()).len(), 1);
        // Nobody has written behind this error, and it says what to do.
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("[paths] index"), "{said}");
    });
    // In the attribute it needs no directory.
    home.open().append(&[message("b", "1\n")]).unwrap();
    assert_eq!(shown(&mut home.session()).len(), 2);
}

#[test]
fn mailboxes_of_the_same_name_may_share_an_index_directory() {
    let (a, mut b) = (Home::new(b""), Home::new(b""));
    b.index.clone_from(&a.index);
    for n in 1..5 {
        let killed = |home: &Home, action: &dyn Fn(&mut Mbox)| {
            assert!(killed_at(n, || action(&mut home.open())));
        };
        let before = stored(&["a", "b", "c"], 3000);
        for home in [&a, &b] {
            fs::write(&home.inbox, &before).unwrap();
            killed(home, &|mailbox| {
                mailbox.append(&[message("new", "new\n")]).unwrap();
            });
        }
        for home in [&a, &b] {
            let mut mailbox = home.session();
            assert_eq!(shown(&mut mailbox).len(), 3);
            assert_eq!(home.plain(), plain(&before));
            // What was expunged before has another UID now, and is the last one.
            let first = mailbox.messages().unwrap().into_iter().find(|m| m.extent.start == 0);
            let first = UidSet::from_iter(first.map(|m| m.uid));
            assert!(killed_at(n, || {
                mailbox.expunge(&first).unwrap();
            }));
        }
        for home in [&a, &b] {
            let mut mailbox = home.session();
            let after = stored(&["b", "c"], 3000);
            let now = home.plain();
            assert!(now == plain(&before) || now == plain(&after), "step {n}: {now}");
            assert!(mailbox.take_warnings().is_empty());
        }
    }
}

#[test]
fn a_failed_write_leaves_the_file_as_it_was() {
    let home = Home::new(stored(&["a"], 3).as_bytes());
    let mut mailbox = home.open();
    // A spool that is shorter than it says stands for a disk that fails in the middle.
    let mut spool = tempfile::tempfile().unwrap();
    spool.write_all(b"x\n").unwrap();
    let torn = Staged { spool: Some((spool, 9)), memory: b"\n".to_vec(), ..Staged::default() };
    let torn = NewMessage { text: Rc::new(torn), ..message("b", "") };
    assert!(mailbox.append(&[torn]).is_err());
    assert_eq!(home.content(), stored(&["a"], 3));
    assert!(home.open().append(&[message("c", "1\n")]).is_ok());
    assert_eq!(shown(&mut home.session()).len(), 2);
}

#[test]
fn where_only_we_delivered_the_rest_is_not_looked_at() {
    let home = Home::new(stored(&["a", "b"], 3).as_bytes());
    let deliver = |name| home.open().append(&[message(name, "1\n")]).unwrap();
    let looks = |count| {
        let session = home.session();
        assert_eq!(session.messages().unwrap().len(), count);
        (session.verified.is_some(), Identity::is_verified(&session.state().base))
    };
    assert_eq!(looks(2), (true, true));
    for name in ["c", "d"] {
        deliver(name);
    }
    assert_eq!(looks(4), (false, true));
    assert_eq!(looks(4), (false, true));

    deliver("e");
    home.neighbour(b"From x@y.org Thu Jan  1 00:00:00 1970\nA: 1\n\n1\n\n");
    deliver("f");
    assert_eq!(looks(7), (false, false), "at what is new");
    assert_eq!(looks(7), (true, true), "at all, since the neighbour may have done more");

    // In the place of a blank: the file keeps its size.
    let at = home.content().find("Status: ").unwrap() + "Status: ".len();
    let file = fs::OpenOptions::new().write(true).open(&home.inbox).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"R", at as u64).unwrap();
    deliver("g");
    assert_eq!(looks(8), (false, false));
    let session = home.session();
    assert!(session.messages().unwrap().iter().any(|message| message.marks.flags == Flags::SEEN));
}

#[test]
fn a_last_message_without_a_line_end_stays_the_same_when_another_comes_behind_it() {
    let quoted = "From a@b.org Thu Jan  1 00:00:00 1970\nX-Mbox-Quoted: yes\n\n>From b";
    for before in ["From a@b.org Thu Jan  1 00:00:00 1970\nA: b\n\nc", quoted] {
        for end in ["", "\r", "\n\r"] {
            let home = Home::new(format!("{before}{end}").as_bytes());
            let mut mailbox = home.session();
            let first = mailbox.messages().unwrap()[0];
            home.open().append(&[message("b", "1\n")]).unwrap();
            mailbox.sync().unwrap();
            let now = mailbox.messages().unwrap();
            assert_eq!(now.len(), 2);
            assert_eq!((now[0].uid, now[0].digest), (first.uid, first.digest), "{end:?}");
        }
    }
}

#[test]
fn nothing_is_missed_where_all_is_new_though_the_file_has_only_grown() {
    let based = |validity: u32| {
        let base = format!("X-IMAPbase: {validity} 0000000009\nSubject: a\n");
        stored(&["a", "b", "c"], 10).replacen("Subject: a\n", &base, 1)
    };
    let new = text("d", "1\n") + "\n";
    // Somebody says another UIDVALIDITY.
    let home = Home::new(based(7).as_bytes());
    let mut mailbox = home.session();
    fs::write(&home.inbox, based(8) + &new).unwrap();
    mailbox.sync().unwrap();
    assert_eq!((mailbox.status().uid_validity, mailbox.uids().len()), (8, 4));
    assert_eq!(shown(&mut home.session()).len(), 4);
    // The index is damaged, or gone.
    for damage in [Some(&b"garbage"[..]), None] {
        let home = Home::new(based(7).as_bytes());
        let mut mailbox = home.session();
        let index = home.index.join(home.journal("index"));
        fs::remove_file(&index).unwrap();
        if let Some(damage) = damage {
            fs::write(&index, damage).unwrap();
        }
        home.neighbour(new.as_bytes());
        assert_eq!(shown(&mut mailbox).len(), 4, "{damage:?}");
        assert_eq!(home.session().messages().unwrap().len(), 4);
    }
}
