use std::fs;
use std::path::Path;

use super::super::MboxStore;
use super::Compaction;
use super::Identity;
use crate::mailbox::index::Change;
use crate::mailbox::store::{Flags, Marking, Marks, Store};
use crate::mailbox::store_tests::{place, read};
use crate::mailbox::uids::{Uid, UidSet};

const FROM: &str = "From a@b.org Mon Jun 21 03:15:20 2004\n";

/// A message as another program has written it, of so many bytes at least.
fn message(name: &str, fields: &str, length: usize) -> String {
    let body = "x".repeat(length);
    format!("{FROM}{fields}Subject: {name}\n\nThis is {name}.\n{body}\n\n")
}

fn open(directory: &Path) -> MboxStore {
    MboxStore::open(place(directory, "box")).unwrap()
}

fn mark(store: &mut MboxStore, uid: Uid, flags: Flags, keywords: &[&str]) {
    let keywords: Vec<String> = keywords.iter().map(|word| (*word).to_owned()).collect();
    store.mark(&UidSet::from(uid..=uid), Marking::Add, flags, &keywords, None).unwrap();
}

fn remove(store: &mut MboxStore, uids: impl IntoIterator<Item = Uid>) {
    store.expunge(&uids.into_iter().collect()).unwrap();
}

fn uids(store: &MboxStore) -> Vec<Uid> {
    store.messages().unwrap().iter().map(|message| message.uid).collect()
}

fn marks(store: &MboxStore, uid: Uid) -> (Flags, Vec<&str>) {
    let Marks { flags, keywords } = store.message(uid).unwrap().unwrap().marks;
    (flags, store.state().names(keywords))
}

/// Each message as it is shown, which no write of ours may change.
fn texts(store: &mut MboxStore) -> Vec<Vec<u8>> {
    uids(store).into_iter().map(|uid| read(store, uid, 0..u64::MAX)).collect()
}

/// The same mailbox for somebody who has nothing but the file.
fn without_index(directory: &Path) -> MboxStore {
    fs::remove_dir_all(place(directory, "box").index).unwrap();
    open(directory)
}

#[test]
fn messages_without_room_get_their_uids_and_marks_when_they_move() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    let text: String = ["a", "b", "c", "d"].map(|name| message(name, "", 500)).concat();
    fs::write(&path, text).unwrap();
    let mut store = open(directory.path());
    mark(&mut store, 3, Flags::SEEN | Flags::FLAGGED, &["work", "$Forwarded"]);
    store.checkpoint().unwrap();
    remove(&mut store, [1]);
    assert_eq!(uids(&store), [2, 3, 4]);
    let shown = texts(&mut store);
    let (validity, next) = (store.status().uid_validity, store.status().uid_next);
    drop(store);

    let file = fs::read_to_string(&path).unwrap();
    assert_eq!(file.matches("\nX-UID: ").count(), 3, "{file}");
    let mut store = without_index(directory.path());
    assert_eq!((store.status().uid_validity, store.status().uid_next), (validity, next));
    assert_eq!(uids(&store), [2, 3, 4]);
    assert_eq!(texts(&mut store), shown);
    assert_eq!(marks(&store, 3), (Flags::SEEN | Flags::FLAGGED, vec!["work", "$Forwarded"]));
    assert_eq!(marks(&store, 2), (Flags::default(), vec![]));
    // From now on there is room.
    mark(&mut store, 4, Flags::ALL, &["work"]);
    store.checkpoint().unwrap();
    drop(store);
    let store = without_index(directory.path());
    assert_eq!(marks(&store, 4), (Flags::ALL, vec!["work"]));
}

#[test]
fn the_index_knows_where_all_stands_behind_what_was_inserted() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    let text: String =
        (1..=30).map(|n| message(&format!("m{n}"), "Status: RO\n", 60 * n)).collect();
    fs::write(&path, text).unwrap();
    let mut store = open(directory.path());
    let before = texts(&mut store);
    for uid in [9, 20, 28] {
        mark(&mut store, uid, Flags::DRAFT, &["k"]);
    }
    store.checkpoint().unwrap();
    let gone = [5, 6, 14, 25];
    remove(&mut store, gone);
    let kept = (1..).zip(before).filter(|(uid, _)| !gone.contains(uid));
    let kept: Vec<Vec<u8>> = kept.map(|(_, text)| text).collect();
    assert_eq!(texts(&mut store), kept);
    // What the index says is what a look at all of the file says.
    let known = store.messages().unwrap();
    store.catch_up(true).unwrap();
    assert_eq!(store.messages().unwrap(), known);
    assert!(known.iter().all(|message| !message.extent.unwritten), "{known:?}");
    // No UID behind a message without one: the first stands where it stood.
    assert!(!fs::read_to_string(&path).unwrap().contains("X-UID"));
}

#[test]
fn what_does_not_fit_stays_in_the_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    let text = message("a", "", 300)
        + &(1..=20).map(|n| message(&format!("m{n}"), "", 10)).collect::<String>();
    fs::write(&path, text).unwrap();
    let mut store = open(directory.path());
    mark(&mut store, 20, Flags::SEEN, &[]);
    store.checkpoint().unwrap();
    remove(&mut store, [1]);
    // The mark has its place, whatever UIDs would take.
    let named = store.messages().unwrap().iter().filter(|message| message.extent.named).count();
    assert!((0..10).contains(&named), "{named}");
    assert!(!store.message(20).unwrap().unwrap().extent.unwritten);
    assert_eq!(marks(&store, 20).0, Flags::SEEN);
    let known = store.messages().unwrap();
    store.catch_up(true).unwrap();
    assert_eq!(store.messages().unwrap(), known);
    // As more goes, more of them get theirs.
    let size = fs::metadata(&path).unwrap().len();
    remove(&mut store, 2..=12);
    assert!(fs::metadata(&path).unwrap().len() < size);
    assert!(
        store.messages().unwrap().iter().filter(|message| message.extent.named).count() > named
    );
}

#[test]
fn what_the_first_one_says_goes_to_the_next_one_also_where_not_all_was_looked_at() {
    for (is_grown, room) in [(false, 90), (true, 90), (false, 0), (true, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path(), "box").path;
        let roomy = |room| format!("X-Keywords:{:room$}\n", "");
        let text = message("a", &roomy(150), 200) + &message("b", &roomy(room), 10);
        fs::write(&path, text).unwrap();
        let mut store = open(directory.path());
        if is_grown {
            let grown = fs::read_to_string(&path).unwrap() + &message("c", "", 10);
            fs::write(&path, grown).unwrap();
            store.sync().unwrap();
        }
        assert_eq!(Identity::is_verified(&store.state().base), !is_grown);
        remove(&mut store, [1]);
        let (status, shown) = (store.status(), texts(&mut store));
        let last = store.state().uid_next - 1;
        drop(store);
        let file = fs::read_to_string(&path).unwrap();
        let base = format!("X-IMAPbase: {} {last:010}", status.uid_validity);
        assert_eq!(
            file.find(&base).map(|at| at < file.find("\n\n").unwrap()),
            Some(true),
            "{file}"
        );
        let mut store = without_index(directory.path());
        assert_eq!(store.status().uid_validity, status.uid_validity);
        assert_eq!(texts(&mut store), shown);
        assert_eq!(uids(&store)[0], 2);
    }
}

#[test]
fn lines_keep_their_ends_and_folded_fields_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    let folded = message("b", "X-Keywords: a\n b\n", 10);
    let crlf = message("c", "Status: R\n", 10).replace('\n', "\r\n");
    fs::write(&path, message("a", "", 2000) + &folded + &crlf).unwrap();
    let mut store = open(directory.path());
    mark(&mut store, 2, Flags::FLAGGED, &[]);
    mark(&mut store, 3, Flags::FLAGGED, &[]);
    store.checkpoint().unwrap();
    remove(&mut store, [1]);
    assert!(store.message(2).unwrap().unwrap().extent.unwritten);
    assert!(!store.message(3).unwrap().unwrap().extent.unwritten);
    let file = fs::read_to_string(&path).unwrap();
    assert!(file.starts_with(&folded), "{file}");
    let c = file.strip_prefix(&folded).unwrap();
    assert!(c.contains("X-Status: F") && c.lines().count() == c.matches("\r\n").count(), "{c:?}");
}

#[test]
fn a_message_that_is_one_for_the_field_behind_its_from_line_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    // Without a blank line before it.
    let b = message("b", "", 10).trim_end().to_owned() + "\n";
    let c = format!("{FROM}Status: RO\nThis is no field.\nSubject: c\n\nThis is c.\n\n");
    fs::write(&path, message("a", "", 2000) + &b + &c).unwrap();
    let mut store = open(directory.path());
    assert_eq!(uids(&store), [1, 2, 3]);
    mark(&mut store, 3, Flags::FLAGGED, &[]);
    store.checkpoint().unwrap();
    let before = texts(&mut store);
    remove(&mut store, [1]);
    assert_eq!(texts(&mut store), before[1..]);
    store.catch_up(true).unwrap();
    assert_eq!(texts(&mut store), before[1..]);
    assert_eq!(texts(&mut without_index(directory.path())), before[1..]);
}

#[test]
fn a_mark_made_while_the_file_is_compacted_is_not_taken_for_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = place(directory.path(), "box").path;
    fs::write(&path, ["a", "b"].map(|name| message(name, "", 500)).concat()).unwrap();
    let mut store = open(directory.path());
    mark(&mut store, 2, Flags::SEEN, &[]);
    store.checkpoint().unwrap();
    let mut other = open(directory.path());
    let opened = store.lock_current(false).unwrap().unwrap();
    let ranges = [(0, store.message(1).unwrap().unwrap().extent.end())];
    let removed = UidSet::from(1..=1);
    let order = store.state().messages.in_file_order().unwrap();
    let compaction = Compaction::new(&opened, store.state(), &order, &removed, &ranges).unwrap();
    // Sessions mark without the locks of the file.
    drop(opened);
    mark(&mut other, 2, Flags::FLAGGED, &[]);
    store.refresh().unwrap();
    let changes = compaction.changes(store.state(), &UidSet::new()).unwrap();
    let Some(Change::Placed { uid: 2, extent }) = changes.first() else { panic!("{changes:?}") };
    assert_eq!((extent.stored.flags, extent.unwritten), (Flags::SEEN, true));
}
