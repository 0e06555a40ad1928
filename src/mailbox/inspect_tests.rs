//! Mailboxes in which something is wrong, and what is made of them.

use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::{Findings, Inspected, check};
use crate::mailbox::index::{Change, Directory, Index};
use crate::mailbox::mbox::from_line;
use crate::mailbox::moment::killed_at;
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Store};
use crate::mailbox::store_tests::place;
use crate::mailbox::uids::UidSet;
use crate::mailbox::{MaildirStore, MboxStore, Place};

struct Home {
    directory: tempfile::TempDir,
    name: &'static str,
}

impl Home {
    /// An mbox.
    fn mbox(text: &str) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap(), name: "box" };
        fs::write(home.path(), text).unwrap();
        home
    }

    /// A Maildir with such messages.
    fn maildir(messages: &[(&str, &str)]) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap(), name: "Maildir/" };
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(home.path().join(part)).unwrap();
        }
        for (name, text) in messages {
            fs::write(home.path().join(name), text).unwrap();
        }
        home
    }

    fn place(&self) -> Place {
        place(self.directory.path(), self.name)
    }

    fn path(&self) -> PathBuf {
        self.place().path
    }

    fn index(&self) -> Index {
        let place = self.place();
        Index::open(Directory::new(&place.index, &place.path, place.owner)).unwrap().0
    }

    /// Says something in the index that is not so.
    fn lie(&self, change: Change) {
        self.index().lock().unwrap().commit(vec![change], true).unwrap();
    }

    fn check(&self) -> Findings {
        check(self.place(), &mut |done, all| assert!(done <= all)).unwrap()
    }

    fn rebuild(&self) -> Inspected {
        let mut inspected = Inspected::open(self.place()).unwrap();
        inspected.rebuild(&mut |done, all| assert!(done <= all)).unwrap();
        inspected
    }
}

/// A message with room for marks, or as procmail writes it.
fn message(name: &str, room: bool) -> String {
    let from = String::from_utf8(from_line::write(b"a@b.org", UNIX_EPOCH)).unwrap();
    let fields = format!("Status:{:10}\nX-Status:{:10}\nX-Keywords:{:150}\n", "", "", "");
    let fields = if room { fields } else { String::new() };
    format!("{from}Subject: {name}\n{fields}\n{name}\n\n")
}

fn marks(store: &dyn Store) -> Vec<(u32, Flags, Vec<String>)> {
    let of = |marks: Marks| {
        let names = store.keywords().iter().zip(0..);
        let names = names.filter(|(_, at)| marks.keywords & (1_u64 << at) != 0);
        names.map(|(name, _)| name.clone()).collect()
    };
    let messages = store.messages().unwrap().into_iter();
    messages.map(|one| (one.uid, one.marks.flags, of(one.marks))).collect()
}

#[test]
fn a_sound_mailbox_is_sound_and_is_not_changed_by_a_second_look() {
    for home in [
        Home::mbox(&(message("a", true) + &message("b", false))),
        Home::maildir(&[("cur/1.a:2,S", "Subject: a\n\na\n"), ("new/2.b", "Subject: b\n\nb\n")]),
    ] {
        let first = home.check();
        assert_eq!(
            (first.messages, first.faults.len(), first.mended.len()),
            (2, 0, 1),
            "{first:?}"
        );
        let index = fs::read(home.index().path()).unwrap();
        let second = home.check();
        assert_eq!((second.messages, second.faults.len(), second.mended.len()), (2, 0, 0));
        assert_eq!(fs::read(home.index().path()).unwrap(), index);
    }
    let empty = Home::mbox("");
    assert_eq!(empty.check().messages, 0);
    fs::remove_file(empty.path()).unwrap();
    assert!(empty.check().faults.is_empty());
}

#[test]
fn an_index_that_is_wrong_about_a_message_is_found_and_made_anew() {
    let home = Home::mbox(&(message("a", true) + &message("b", true) + &message("c", true)));
    let store = MboxStore::open(home.place()).unwrap();
    let second = store.messages().unwrap()[1];
    drop(store);
    let good = second.extent;
    for extent in [
        Extent { start: good.start + 1, ..good },
        Extent { length: good.length - 1, ..good },
        Extent { header: good.header + 1, ..good },
        Extent { stored: Marks { flags: Flags::SEEN, ..good.stored }, ..good },
        Extent { quoted: true, ..good },
    ] {
        home.lie(Change::Placed { uid: second.uid, extent });
        let found = home.check();
        assert!(found.faults[0].contains("wrong about 1 of 3 messages; the first has the UID 2"));
        let mut inspected = home.rebuild();
        assert_eq!(inspected.store_mut().messages().unwrap()[1].extent, good);
        assert!(home.check().faults.is_empty());
    }
    home.lie(Change::Expunge { uids: UidSet::from(3..=3), modseq: u64::MAX / 2 });
    let found = home.check();
    assert!(found.faults[0].contains("has 3 messages, and its index has 2"), "{found:?}");
    assert_eq!(home.rebuild().store().messages().unwrap().len(), 3);
}

#[test]
fn garbage_before_the_first_message_is_told_of() {
    let home = Home::mbox(&("garbage\n\n".to_owned() + &message("a", false)));
    assert!(home.check().faults[0].starts_with("9 bytes before the first From_ line"));
    let home = Home::mbox("no mail at all\n");
    assert!(home.check().faults[0].starts_with("15 bytes before the first From_ line"));
}

#[test]
fn what_was_interrupted_is_finished_and_told_of() {
    let text: String = ["a", "b", "c"].map(|name| message(name, true)).concat();
    let mut told = 0;
    for step in 0..60 {
        let home = Home::mbox(&text);
        let mut store = MboxStore::open(home.place()).unwrap();
        let killed = killed_at(step, || drop(store.expunge(&UidSet::from(1..=1)).unwrap()));
        drop(store);
        let found = home.check();
        assert!(found.faults.is_empty(), "step {step}: {found:?}");
        told += usize::from(found.mended.iter().any(|what| what.contains("a removal")));
        assert!(home.check().mended.is_empty());
        if !killed {
            break;
        }
    }
    assert!(told > 3, "{told}");
}

#[test]
fn a_damaged_index_is_told_of_once() {
    let home = Home::mbox(&message("a", true));
    let path = { home.check() };
    assert!(path.faults.is_empty());
    let path = home.index().path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[150] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = home.check();
    assert_eq!(found.faults.len(), 1, "{found:?}");
    assert!(found.faults[0].contains("was damaged"));
    assert!(home.check().faults.is_empty());
}

#[test]
fn a_rebuild_keeps_uids_that_the_file_has_and_marks_that_it_has_not() {
    let home = Home::mbox(&(message("a", true) + &message("b", false) + &message("b", false)));
    let mut store = MboxStore::open(home.place()).unwrap();
    let keyword = ["work".to_owned()];
    store.mark(&UidSet::from(1..=1), Marking::Add, Flags::SEEN, &[], None).unwrap();
    store.mark(&UidSet::from(3..=3), Marking::Add, Flags::FLAGGED, &keyword, None).unwrap();
    store.checkpoint().unwrap();
    let before = store.status();
    drop(store);
    let inspected = home.rebuild();
    let store = inspected.store();
    let after = store.status();
    assert_eq!(after.uid_validity, before.uid_validity);
    assert!(after.highest_modseq > before.highest_modseq);
    // The others have no room for theirs: they get UIDs that nobody had.
    let flagged = (5, Flags::FLAGGED, vec!["work".to_owned()]);
    let wanted = [(1, Flags::SEEN, vec![]), (4, Flags::default(), vec![]), flagged];
    assert_eq!(marks(store), wanted);
    assert_eq!(inspected.stats().unwrap().marks_in_index, 1);
    assert_eq!(inspected.stats().unwrap().uids_in_index, 2);
}

#[test]
fn a_rebuild_of_an_mbox_without_uids_gives_another_uidvalidity() {
    let home = Home::mbox(&message("a", false));
    let before = MboxStore::open(home.place()).unwrap().status().uid_validity;
    assert!(home.rebuild().store().status().uid_validity > before);
}

#[test]
fn a_maildir_whose_files_were_changed_is_found_and_gets_new_uids() {
    let names: Vec<String> = (0..27).map(|number| format!("k{number}")).collect();
    let home = Home::maildir(&[("cur/1.a:2,S", "Subject: a\n\na\n"), ("new/2.b", "X: b\n\nb\n")]);
    let mut store = MaildirStore::open(home.place()).unwrap();
    store.mark(&UidSet::from(2..=2), Marking::Add, Flags::FLAGGED, &names, None).unwrap();
    let (before, marked) = (store.status().uid_validity, marks(&store));
    drop(store);
    assert!(home.check().faults.is_empty());
    fs::write(home.path().join("cur/1.a:2,S"), "Subject: a\n\nlonger\n").unwrap();
    let found = home.check();
    assert!(found.faults[0].starts_with("1 of 2 messages have not the size"), "{found:?}");
    let inspected = home.rebuild();
    let store = inspected.store();
    assert!(store.status().uid_validity > before);
    assert_eq!(store.messages().unwrap()[0].size, 22);
    // The 27th keyword has no letter.
    assert_eq!(marks(store), marked);
    assert!(home.check().faults.is_empty());
}
