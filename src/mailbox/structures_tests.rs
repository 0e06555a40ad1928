//! Each message is read once, whatever becomes of the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use super::{ENDING, Structures};
use crate::config::LockKind;
use crate::mailbox::index::stem;
use crate::mailbox::store::{Arrival, Flags, Store};
use crate::mailbox::{Error, Memory, NewMessage, Place, Stager, UidSet, open};

struct Home {
    dir: tempfile::TempDir,
    place: Place,
}

impl Home {
    /// With a mailbox of this name.
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let place = Place {
            path: dir.path().join(name),
            index: dir.path().join("index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(1),
            quota: 0,
        };
        Self { dir, place }
    }

    /// With three messages.
    fn filled(name: &str) -> Self {
        let home = Self::new(name);
        fill(&mut *home.store(), &["a", "b", "c"]);
        home
    }

    fn store(&self) -> Box<dyn Store> {
        open(self.place.clone()).unwrap()
    }

    fn cache(&self) -> PathBuf {
        let mut name = stem(&self.place.path);
        name.push(ENDING);
        self.place.index.join(name)
    }

    /// Asks a new session for all; how many it knew, and for how many it read the message.
    fn ask(&self) -> (u64, u64) {
        let mut structures = Structures::open(&self.place);
        check(&mut structures, &mut *self.store());
        (structures.hits, structures.misses)
    }
}

fn fill(store: &mut dyn Store, subjects: &[&str]) {
    let arrival = |subject: &&str| {
        let mut stager = Stager::new(u64::MAX);
        stager.push(format!("Subject: {subject}\n\n{subject}\n").as_bytes()).unwrap();
        let text = Rc::new(stager.finish().unwrap());
        let (at, trace) = (UNIX_EPOCH, Vec::new());
        let message = NewMessage { sender: Vec::new(), at, trace, text };
        Arrival { message, flags: Flags::default(), keywords: Vec::new() }
    };
    store.append(&subjects.iter().map(arrival).collect::<Vec<_>>()).unwrap();
}

/// Asks for all, and that each is the one of its message.
fn check(structures: &mut Structures, store: &mut dyn Store) {
    let uids: Vec<u32> = store.messages().unwrap().iter().map(|message| message.uid).collect();
    for uid in uids {
        let mut text = Vec::new();
        let mut sink = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        store.read(uid, 0..u64::MAX, &mut sink).unwrap();
        let subject = structures.of(store, uid).unwrap().envelope.subject.unwrap();
        let shown = format!("Subject: {0}\r\n\r\n{0}\r\n", String::from_utf8(subject).unwrap());
        assert_eq!(String::from_utf8(text).unwrap(), shown);
    }
}

#[test]
fn a_message_is_read_once_by_all_sessions() {
    for name in ["box", "maildir/"] {
        let home = Home::filled(name);
        assert_eq!(home.ask(), (0, 3), "{name}");
        assert_eq!(home.ask(), (3, 0), "{name}");
        fill(&mut *home.store(), &["d"]);
        assert_eq!(home.ask(), (3, 1), "{name}");
    }
}

#[test]
fn a_session_finds_what_another_puts_and_asks_for_what_is_gone_in_vain() {
    let home = Home::filled("box");
    let mut store = home.store();
    let mut structures = Structures::open(&home.place);
    assert_eq!(home.ask(), (0, 3));
    check(&mut structures, &mut *store);
    assert_eq!((structures.hits, structures.misses), (3, 0));
    let first = store.messages().unwrap()[0].uid;
    store.expunge(&UidSet::from(first..=first)).unwrap();
    assert!(matches!(structures.of(&mut *store, first), Err(Error::Changed)));
    let (hits, misses) = home.ask();
    assert_eq!((hits, misses), (2, 0));
}

#[test]
fn a_message_that_a_neighbour_changed_is_read_again() {
    let home = Home::filled("box");
    assert_eq!(home.ask(), (0, 3));
    let mut store = home.store();
    let mut structures = Structures::open(&home.place);
    check(&mut structures, &mut *store);
    // It keeps its size and, without an index, its UID.
    let content = fs::read_to_string(&home.place.path).unwrap();
    let content = content.replace("Subject: b\n", "Subject: x\n").replace("\n\nb\n", "\n\nx\n");
    fs::write(&home.place.path, content).unwrap();
    let mut name = stem(&home.place.path);
    name.push(".index");
    fs::remove_file(home.place.index.join(name)).unwrap();
    store.sync().unwrap();
    let uids =
        |store: &dyn Store| store.messages().unwrap().iter().map(|m| m.uid).collect::<Vec<_>>();
    let before = structures.misses;
    check(&mut structures, &mut *store);
    assert_eq!(structures.misses, before + 1);
    assert_eq!(uids(&*store), uids(&*home.store()));
    assert_eq!(home.ask(), (3, 0));
}

#[test]
fn a_cache_that_is_deleted_or_damaged_is_made_anew() {
    let home = Home::filled("box");
    assert_eq!(home.ask(), (0, 3));
    let whole = fs::read(home.cache()).unwrap();
    fs::remove_file(home.cache()).unwrap();
    assert_eq!(home.ask(), (0, 3));
    assert_eq!(fs::read(home.cache()).unwrap().len(), whole.len());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        fs::write(home.cache(), &damaged).unwrap();
        let (hits, misses) = home.ask();
        // Another generation is as good.
        assert!(hits + misses == 3 && (misses > 0 || (8..16).contains(&at)), "byte {at}");
        assert_eq!(home.ask(), (3, 0), "byte {at}");
        fs::write(home.cache(), &whole[..at]).unwrap();
        let (hits, misses) = home.ask();
        assert!(hits + misses == 3 && misses > 0, "{at} bytes");
        assert_eq!(home.ask(), (3, 0), "{at} bytes");
    }
}

#[test]
fn where_there_can_be_no_cache_each_session_reads_for_itself() {
    // A directory in its place, a link, a file where its directory would be.
    let home = Home::filled("box");
    fs::create_dir(home.cache()).unwrap();
    assert_eq!([home.ask(), home.ask()], [(0, 3); 2]);
    fs::remove_dir(home.cache()).unwrap();
    let other = home.dir.path().join("other");
    fs::write(&other, "other").unwrap();
    std::os::unix::fs::symlink(&other, home.cache()).unwrap();
    assert_eq!([home.ask(), home.ask()], [(0, 3); 2]);
    assert_eq!(fs::read(&other).unwrap(), b"other");

    let home = Home::filled("box");
    fs::remove_dir_all(&home.place.index).unwrap();
    fs::write(&home.place.index, "").unwrap();
    assert_eq!([home.ask(), home.ask()], [(0, 3); 2]);

    // One that nobody may write in stops everybody but root.
    let home = Home::filled("box");
    fs::set_permissions(&home.place.index, fs::Permissions::from_mode(0o500)).unwrap();
    let (hits, misses) = home.ask();
    assert_eq!((hits, misses), (0, 3));
    let second = if nix::unistd::geteuid().is_root() { (3, 0) } else { (0, 3) };
    assert_eq!(home.ask(), second);
    fs::set_permissions(&home.place.index, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_mailbox_without_files_has_structures_too() {
    let home = Home::new("none");
    let mut store = Memory::new(1);
    fill(&mut store, &["a", "b"]);
    let mut structures = Structures::open(&home.place);
    for _ in 0..2 {
        check(&mut structures, &mut store);
    }
    assert_eq!((structures.hits, structures.misses), (2, 2));
}

#[test]
fn what_is_gone_is_dropped() {
    let home = Home::new("box");
    let mut store = home.store();
    let long = "x".repeat(900);
    fill(&mut *store, &vec![&long[..]; 200]);
    assert_eq!(home.ask(), (0, 200));
    let size = || fs::metadata(home.cache()).unwrap().len();
    let before = size();
    store.sync().unwrap();
    let mut structures = Structures::open(&home.place);
    structures.drop_gone(&*store);
    assert_eq!(size(), before);
    store.expunge(&UidSet::from(11..=u32::MAX)).unwrap();
    structures.drop_gone(&*store);
    assert!(size() * 10 < before, "{}", size());
    assert_eq!(home.ask(), (10, 0));
}
