//! What neighbours do to an mbox, and what they take ill.
//!
//! mutt moves a field from one message to another, so that those between them stand elsewhere while
//! the last one stands where it stood; then mail comes, and only that is read. Dovecot gives new UIDs
//! to all messages behind one that has none.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::{Error, MboxStore};
use crate::mailbox::store::{Flags, Marking, Store};
use crate::mailbox::store_tests::{place, read};
use crate::mailbox::uids::UidSet;

const FROM: &str = "From a@b.org Mon Jun 21 03:15:20 2004\n";
const FLAG: &str = "X-Status: F\n";

fn message(name: &str, fields: &str) -> String {
    let room = format!("Status:{:10}\nX-Status:{:10}\nX-Keywords:{:150}\n", "", "", "");
    format!("{FROM}Subject: {name}\n{fields}{room}\nThis is {name}.\n\n")
}

/// The mailbox as it stands there after all that, and a handle that has seen it grow.
fn shifted() -> (tempfile::TempDir, PathBuf, MboxStore) {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "box");
    let path = place.path.clone();
    let text = |first, third| {
        message("a", first) + &message("b", "") + &message("c", third) + &message("d", "")
    };
    fs::write(&path, text(FLAG, "")).unwrap();
    let mut store = MboxStore::open(place).unwrap();
    let named = fs::read_to_string(&path).unwrap();
    // All fields that we wrote stay; a's flag goes to c.
    let (a, rest) = named.split_once("This is a.").unwrap();
    let a = a.replacen(FLAG, "", 1);
    let rest = rest.replacen("Subject: c\n", &format!("Subject: c\n{FLAG}"), 1);
    let moved = format!("{a}This is a.{rest}");
    assert_eq!(moved.len(), named.len());
    fs::write(&path, moved).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(message("e", "").as_bytes()).unwrap();
    store.sync().unwrap();
    assert_eq!(store.messages().unwrap().len(), 5);
    (directory, path, store)
}

fn bodies(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("This is")).collect()
}

#[test]
fn a_message_that_was_shifted_is_read_whole() {
    for uid in 1..=5 {
        let (_directory, _, mut store) = shifted();
        let text = String::from_utf8(read(&mut store, uid, 0..u64::MAX)).unwrap();
        let name = ["a", "b", "c", "d", "e"][uid as usize - 1];
        assert_eq!(text, format!("Subject: {name}\r\n\r\nThis is {name}.\r\n"));
    }
}

#[test]
fn the_messages_around_a_shifted_one_survive_its_removal() {
    for uid in 1..=5 {
        let (_directory, path, mut store) = shifted();
        store.expunge(&UidSet::from(uid..=uid)).unwrap();
        let mut wanted = vec!["This is a.", "This is b.", "This is c.", "This is d.", "This is e."];
        wanted.remove(uid as usize - 1);
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(bodies(&text), wanted);
        assert_eq!(text.matches(FROM).count(), 4);
        for message in store.messages().unwrap() {
            read(&mut store, message.uid, 0..u64::MAX);
        }
    }
}

#[test]
fn marks_are_written_where_a_shifted_message_stands() {
    for uid in 1..=5 {
        let (_directory, path, mut store) = shifted();
        store.mark(&UidSet::from(uid..=uid), Marking::Add, Flags::SEEN, &[], None).unwrap();
        store.checkpoint().unwrap();
        let text = fs::read_to_string(path).unwrap();
        let name = ["a", "b", "c", "d", "e"][uid as usize - 1];
        for message in text.split(FROM).skip(1) {
            let is_it = message.contains(&format!("This is {name}."));
            assert_eq!(message.contains("\nStatus: RO"), is_it, "{uid}: {message}");
        }
        assert_eq!(bodies(&text).len(), 5);
    }
}

#[test]
fn no_uid_is_written_behind_a_message_that_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "box");
    let path = place.path.clone();
    let bare = format!("{FROM}Subject: bare\n\nThis is bare.\n\n");
    fs::write(&path, message("a", "") + &message("b", "") + &bare + &message("c", "")).unwrap();
    let mut store = MboxStore::open(place.clone()).unwrap();
    let named = |store: &MboxStore| -> Vec<bool> {
        store.messages().unwrap().iter().map(|message| message.extent.named).collect()
    };
    assert_eq!(named(&store), [true, true, false, false]);
    // Neither when it comes later.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(message("d", "").as_bytes()).unwrap();
    store.sync().unwrap();
    assert_eq!(named(&store), [true, true, false, false, false]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("X-UID:").count(), 2);
    // But no UID is given again.
    assert_eq!(text.matches(" 0000000005\n").count(), 1, "{text}");
    drop(store);
    fs::remove_dir_all(place.index.clone()).unwrap();
    let store = MboxStore::open(place).unwrap();
    let uids: Vec<u32> = store.messages().unwrap().iter().map(|message| message.uid).collect();
    assert_eq!(uids, [1, 2, 6, 7, 8]);
}

/// A mailbox with these messages, each with the UID that Dovecot has given it, and the last one.
fn numbered(uids: &[(&str, u32)], last: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    let mut text = String::new();
    for (number, (name, uid)) in uids.iter().enumerate() {
        let base = if number == 0 { format!("X-IMAPbase: 77 {last:010}\n") } else { String::new() };
        let uid = if *uid > 0 { format!("X-UID: {uid}\n") } else { String::new() };
        text.push_str(&message(name, &(base + &uid)));
    }
    fs::write(&path, text).unwrap();
    (directory, path)
}

/// The UIDs of the messages as they stand, in the file, and to us.
fn both(path: &PathBuf, store: &MboxStore) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap();
    let there = text.split(FROM).skip(1).map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("X-UID:"));
        line.map_or(0, |uid| uid.trim().parse().unwrap())
    });
    let ours =
        store.state().messages.in_file_order().unwrap().into_iter().map(|message| message.uid);
    there.zip(ours).collect()
}

#[test]
fn no_uid_is_written_where_those_in_the_file_would_not_ascend_any_more() {
    let (directory, path) = numbered(&[("a", 3), ("b", 0), ("c", 6), ("d", 0)], 6);
    let mut store = MboxStore::open(place(directory.path(), "box")).unwrap();
    assert_eq!(both(&path, &store), [(3, 3), (0, 7), (6, 6), (0, 8)]);
    // Neither when there is more room.
    store.expunge(&UidSet::from(3..=3)).unwrap();
    assert_eq!(both(&path, &store), [(0, 7), (6, 6), (0, 8)]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.find("X-IMAPbase: 77 0000000008\n").unwrap() < text.find("X-UID").unwrap());
}

#[test]
fn a_uid_that_can_be_no_other_one_is_written() {
    let (directory, path) = numbered(&[("a", 3), ("b", 0), ("c", 0), ("d", 6), ("e", 0)], 4);
    let store = MboxStore::open(place(directory.path(), "box")).unwrap();
    assert_eq!(both(&path, &store), [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]);
}

#[test]
fn while_another_program_has_the_mailbox_open_uids_are_in_the_index_alone() {
    for (uid, is_ours) in [(2, true), (3, false)] {
        let (directory, path) = numbered(&[("a", 1), ("b", 0)], 1);
        let other = fs::File::open(&path).unwrap();
        let mut store = MboxStore::open(place(directory.path(), "box")).unwrap();
        assert_eq!(both(&path, &store), [(1, 1), (0, 2)]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("X-IMAPbase: 77 0000000002\n"), "no UID is given again");
        // It writes down what it has given, and goes.
        let b = format!("Subject: b\nX-UID: {uid}\n");
        let text = text.replace("0000000002", "0000000003").replace("Subject: b\n", &b);
        fs::write(&path, &text).unwrap();
        drop(other);
        store.sync().unwrap();
        assert_eq!(both(&path, &store), [(1, 1), (uid, 2)]);
        assert_eq!(store.messages().unwrap()[1].extent.named, is_ours);
        // Or it goes as it came.
        fs::write(&path, text.replace(&format!("X-UID: {uid}\n"), "")).unwrap();
        store.sync().unwrap();
        assert_eq!(both(&path, &store), [(1, 1), (2, 2)]);
        assert!(store.messages().unwrap()[1].extent.named);
    }
}

/// A mailbox of more than one read, whose second message has a keyword that only the index has, and
/// what `meanwhile` did to it when all of it was half read.
fn read_while(meanwhile: impl Fn(&mut MboxStore, &PathBuf)) -> (tempfile::TempDir, MboxStore) {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "box");
    let path = place.path.clone();
    let large = message("a", "").replace("This is a.", &"This is a.\n".repeat(150_000));
    fs::write(&path, message("b", "") + &message("c", "") + &large + &large).unwrap();
    let mut store = MboxStore::open(place.clone()).unwrap();
    let mut other = MboxStore::open(place).unwrap();
    let second = UidSet::from(2..=2);
    other.mark(&second, Marking::Add, Flags::default(), &["work".into()], None).unwrap();
    let mut read = 0;
    store
        .catch_up_telling(true, &mut |_| {
            read += 1;
            if read == 3 {
                meanwhile(&mut other, &path);
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(message("new", "").as_bytes()).unwrap();
            }
        })
        .unwrap();
    assert!(read >= 3);
    store.sync().unwrap();
    assert_eq!(store.messages().unwrap().len(), 5);
    (directory, store)
}

#[test]
fn a_keyword_that_is_written_while_others_read_the_mailbox_stays() {
    let (_directory, store) = read_while(|other, _| other.checkpoint().unwrap());
    assert_eq!(store.messages().unwrap()[1].marks.keywords, 1);
}

#[test]
fn a_flag_that_a_neighbour_sets_while_the_mailbox_is_read_is_seen_by_the_next_session() {
    let (directory, store) = read_while(|_, path| {
        let text = fs::read_to_string(path).unwrap();
        let (first, rest) = text.split_once("Subject: c\n").unwrap();
        let rest = rest.replacen("X-Status:  ", "X-Status: F", 1);
        fs::write(path, format!("{first}Subject: c\n{rest}")).unwrap();
    });
    drop(store);
    let store = MboxStore::open(place(directory.path(), "box")).unwrap();
    assert!(store.messages().unwrap()[1].marks.flags.has(Flags::FLAGGED));
}

#[test]
fn keywords_of_both_count_where_ours_are_not_written_yet() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    fs::write(&path, message("a", "").replace("X-Keywords:     ", "X-Keywords: old ")).unwrap();
    let mut store = MboxStore::open(place(directory.path(), "box")).unwrap();
    let one = UidSet::from(1..=1);
    store.mark(&one, Marking::Replace, Flags::SEEN, &["ours".into()], None).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("X-Keywords: old       ", "X-Keywords: old theirs")).unwrap();
    store.sync().unwrap();
    let names = |store: &MboxStore| {
        let mut names = store.state().names(store.messages().unwrap()[0].marks.keywords);
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(names(&store), "ours theirs");
    store.checkpoint().unwrap();
    fs::remove_dir_all(place(directory.path(), "box").index).unwrap();
    let store = MboxStore::open(place(directory.path(), "box")).unwrap();
    assert_eq!(names(&store), "ours theirs");
    assert_eq!(store.messages().unwrap()[0].marks.flags, Flags::SEEN);
}

/// What a handle's UIDs mean is what they meant when it was opened, and not what they mean to whoever
/// has numbered the mailbox anew since.
#[test]
fn old_uids_of_a_mailbox_with_a_new_uidvalidity_mean_no_message() {
    let numbered = |validity: u32, names: [&str; 3]| -> String {
        let base = format!("X-IMAPbase: {validity} 3\n");
        let each = (1..).zip(names);
        let fields = |uid| format!("{}X-UID: {uid}\n", if uid == 1 { &base } else { "" });
        each.map(|(uid, name)| message(name, &fields(uid))).collect()
    };
    for looks_first in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "box");
        let path = place.path.clone();
        fs::write(&path, numbered(7, ["a", "b", "c"])).unwrap();
        let mut store = MboxStore::open(place).unwrap();
        assert_eq!((store.status().uid_validity, store.uids().len()), (7, 3));
        fs::write(&path, numbered(8, ["c", "a", "b"])).unwrap();
        if looks_first {
            store.sync().unwrap();
            assert_eq!(store.status().uid_validity, 8);
        }
        let one = UidSet::from(1..=1);
        let read = store.read(1, 0..u64::MAX, &mut |_| Ok(()));
        assert!(matches!(read, Err(Error::Changed)), "{read:?}");
        let removed = store.expunge(&one);
        assert!(matches!(removed, Err(Error::Changed)), "{removed:?}");
        let marked = store.mark(&one, Marking::Add, Flags::DELETED, &[], None);
        assert!(matches!(marked, Err(Error::Changed)), "{marked:?}");
        store.checkpoint().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(bodies(&text), ["This is c.", "This is a.", "This is b."]);
        assert!(!text.contains("X-Status: D"), "{text}");
    }
}
