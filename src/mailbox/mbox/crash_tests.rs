//! A session's operations, each killed at every step, and what the next session finds: every message
//! that nobody removed, every mark that was acknowledged, and no UID that ever was another message's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::MboxStore;
use super::identity::Identity;
use crate::config::LockKind;
use crate::mailbox::index::{Change, Index, stem};
use crate::mailbox::moment::{killed_at, restart};
use crate::mailbox::store::{Arrival, Flags, Marking, Marks, Store};
use crate::mailbox::uids::UidSet;
use crate::mailbox::{NewMessage, Place, Stager};

/// A mailbox in a directory of its own.
struct Home {
    dir: tempfile::TempDir,
}

/// A message as a session shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    text: String,
    flags: Flags,
    keywords: BTreeSet<String>,
}

/// What a session was told of a mailbox.
#[derive(Clone, Debug)]
struct Told {
    uid_validity: u32,
    uid_next: u32,
    messages: BTreeMap<u32, Shown>,
}

/// What happens to the file when a process has been killed, before the next one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    Away,
    Delivers,
    /// It writes `R` into the blank Status of a message.
    Reads,
}

const NEIGHBOUR: &str = "From n@b.org Thu Jan  1 00:00:00 1970\nSubject: neighbour\n\nn\n\n";

impl Home {
    fn new(content: &str) -> Self {
        // In memory: there are thousands of fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let home = Self { dir: dir.unwrap() };
        fs::write(home.inbox(), content).unwrap();
        home
    }

    fn inbox(&self) -> PathBuf {
        self.dir.path().join("box")
    }

    fn file(&self, ending: &str) -> PathBuf {
        let mut name = stem(&self.inbox());
        name.push(ending);
        self.dir.path().join("index").join(name)
    }

    fn open(&self) -> MboxStore {
        let place = Place {
            path: self.inbox(),
            index: self.dir.path().join("index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl, LockKind::Flock, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_millis(500),
            quota: 0,
        };
        MboxStore::open(place).unwrap()
    }

    fn content(&self) -> String {
        String::from_utf8(fs::read(self.inbox()).unwrap()).unwrap()
    }

    fn deliver(&self) {
        let mut file = fs::OpenOptions::new().append(true).open(self.inbox()).unwrap();
        file.write_all(NEIGHBOUR.as_bytes()).unwrap();
    }

    /// Whether it could: nothing moves in the file.
    fn read_as_neighbour(&self) -> bool {
        let blank = "Subject: d\nStatus:          \n";
        let content = self.content();
        if self.file(".redo").exists() || !content.contains(blank) {
            return false;
        }
        let read = content.replace(blank, "Subject: d\nStatus: RO       \n");
        let mut file = fs::File::options().write(true).open(self.inbox()).unwrap();
        file.write_all(read.as_bytes()).unwrap();
        true
    }
}

fn told(store: &mut MboxStore) -> Told {
    let status = store.status();
    let names = store.keywords().to_vec();
    let mut messages = BTreeMap::new();
    for message in store.messages().unwrap() {
        let mut text = Vec::new();
        let mut sink = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        store.read(message.uid, 0..u64::MAX, &mut sink).unwrap();
        assert_eq!(message.size, text.len() as u64);
        let Marks { flags, keywords } = message.marks;
        let names = names.iter().enumerate().filter(|(at, _)| keywords >> at & 1 == 1);
        let keywords = names.map(|(_, name)| name.clone()).collect();
        let mut text = String::from_utf8(text).unwrap();
        if text.len() > 200 {
            let digest = xxh3_64(text.as_bytes());
            text = format!("{}... {digest}", text.split_at(20).0);
        }
        assert!(messages.insert(message.uid, Shown { text, flags, keywords }).is_none());
    }
    Told { uid_validity: status.uid_validity, uid_next: status.uid_next, messages }
}

fn ours(name: &str, room: usize, body: &str) -> String {
    format!(
        "From {name}@b.org Thu Jan  1 00:00:00 1970\nSubject: {name}\nStatus:{:10}\n\
         X-Status:{:10}\nX-Keywords:{:room$}\n\n{body}\n\n",
        "", "", ""
    )
}

/// With room and without, two that are the same, and a large one.
fn mailbox() -> String {
    let foreign = |name: &str, more: &str| {
        format!("From x Thu Jan  1 00:00:00 1970\nSubject: {name}\n{more}\n{name}\n\n")
    };
    [
        ours("a", 150, "a"),
        foreign("b", "Status: RO\n"),
        ours("c", 90, "c"),
        ours("c", 90, "c"),
        ours("d", 90, &"d".repeat(5000)),
        foreign("e", ""),
        foreign("e", ""),
    ]
    .concat()
}

fn arrival(name: &str) -> Arrival {
    let mut stager = Stager::new(u64::MAX);
    stager.push(format!("\n{name}\n").as_bytes()).unwrap();
    let message = NewMessage {
        sender: b"x@b.org".into(),
        at: UNIX_EPOCH,
        trace: format!("Subject: {name}\n").into_bytes(),
        text: Rc::new(stager.finish().unwrap()),
    };
    let keywords = vec!["work".to_owned(), "new".into()];
    Arrival { message, flags: Flags::SEEN | Flags::DRAFT, keywords }
}

/// Marks that stand in the file, and marks that the index alone has.
fn with_marks(home: &Home) -> Told {
    let mut store = home.open();
    let mut mark = |uids: std::ops::RangeInclusive<u32>, flags, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        store.mark(&uids.into(), Marking::Add, flags, &names, None).unwrap();
    };
    mark(1..=3, Flags::SEEN, &["work"]);
    mark(5..=5, Flags::FLAGGED, &[]);
    store.checkpoint().unwrap();
    let mut mark = |uids: std::ops::RangeInclusive<u32>, flags, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        store.mark(&uids.into(), Marking::Add, flags, &names, None).unwrap();
    };
    mark(3..=3, Flags::DELETED, &["only-in-the-index"]);
    mark(2..=2, Flags::ANSWERED, &[]);
    mark(6..=6, Flags::DELETED, &["work"]);
    mark(7..=7, Flags::FLAGGED, &[]);
    store.mark(&(1..=1).into(), Marking::Remove, Flags::SEEN, &[], None).unwrap();
    told(&mut store)
}

/// What an operation may lead to.
#[derive(Clone, Copy)]
struct Operation {
    name: &'static str,
    run: fn(&mut MboxStore),
    /// These go.
    expunged: &'static [u32],
    /// These come, each with its marks.
    appended: &'static [&'static str],
    /// These get `\Flagged` and the keyword `later`.
    marked: &'static [u32],
    /// A neighbour has delivered before it.
    behind_delivery: bool,
}

const NOTHING: Operation = Operation {
    name: "",
    run: |_| {},
    expunged: &[],
    appended: &[],
    marked: &[],
    behind_delivery: false,
};

fn expunge(store: &mut MboxStore, uids: &[u32]) {
    let uids: UidSet = uids.iter().copied().collect();
    assert_eq!(store.expunge(&uids).unwrap(), uids);
}

const OPERATIONS: [Operation; 11] = [
    Operation {
        name: "sync",
        run: |store| store.sync().unwrap(),
        behind_delivery: true,
        ..NOTHING
    },
    Operation {
        name: "append",
        run: |store| {
            store.append(&[arrival("y"), arrival("z")]).unwrap();
        },
        appended: &["y", "z"],
        ..NOTHING
    },
    Operation {
        name: "append behind a delivery",
        run: |store| {
            store.append(&[arrival("y")]).unwrap();
        },
        appended: &["y"],
        behind_delivery: true,
        ..NOTHING
    },
    Operation {
        name: "mark",
        run: |store| {
            let uids = UidSet::from(3..=5);
            store.mark(&uids, Marking::Add, Flags::FLAGGED, &["later".into()], None).unwrap();
        },
        marked: &[3, 4, 5],
        ..NOTHING
    },
    Operation { name: "checkpoint", run: |store| store.checkpoint().unwrap(), ..NOTHING },
    Operation {
        name: "expunge the first",
        run: |store| expunge(store, &[1]),
        expunged: &[1],
        ..NOTHING
    },
    Operation {
        name: "expunge one of two that are the same",
        run: |store| expunge(store, &[3]),
        expunged: &[3],
        ..NOTHING
    },
    Operation {
        name: "expunge one of two that are the same and have no room",
        run: |store| expunge(store, &[6]),
        expunged: &[6],
        ..NOTHING
    },
    Operation {
        name: "expunge some",
        run: |store| expunge(store, &[2, 4, 6]),
        expunged: &[2, 4, 6],
        behind_delivery: true,
        ..NOTHING
    },
    Operation {
        name: "expunge all",
        run: |store| expunge(store, &[1, 2, 3, 4, 5, 6, 7]),
        expunged: &[1, 2, 3, 4, 5, 6, 7],
        ..NOTHING
    },
    Operation {
        name: "claim",
        run: |store| {
            store.claim_recent().unwrap();
        },
        ..NOTHING
    },
];

#[test]
fn an_operation_killed_at_any_step_loses_no_message_no_mark_and_no_uid() {
    for operation in OPERATIONS {
        for neighbour in [Neighbour::Away, Neighbour::Delivers, Neighbour::Reads] {
            let mut n = 0;
            while kill(operation, neighbour, n) {
                n += 1;
            }
            assert!(n > 0, "{}: it has no steps", operation.name);
        }
    }
}

/// Kills it at its `n`th step; whether it has so many.
fn kill(operation: Operation, neighbour: Neighbour, n: u32) -> bool {
    let mut killed = false;
    // The recovery is killed, too.
    for again in [u32::MAX, n % 3, n % 7, n % 19 + 3] {
        let home = Home::new(&mailbox());
        let mut known = with_marks(&home);
        let mut store = home.open();
        if operation.behind_delivery {
            home.deliver();
        }
        killed = killed_at(n, || (operation.run)(&mut store));
        drop(store);
        let place = format!("{}, {neighbour:?}, step {n}, {again}", operation.name);
        let mut deliveries = usize::from(operation.behind_delivery);
        match neighbour {
            Neighbour::Away => {}
            Neighbour::Delivers => {
                home.deliver();
                deliveries += 1;
            }
            Neighbour::Reads => {
                let there = !operation.expunged.contains(&5) && home.read_as_neighbour();
                if let Some(d) = known.messages.get_mut(&5).filter(|_| there) {
                    d.flags = d.flags | Flags::SEEN;
                }
            }
        }
        killed_at(again, || drop(home.open()));
        check(&home, &known, operation, killed, deliveries, &place);
    }
    killed
}

fn check(
    home: &Home,
    known: &Told,
    operation: Operation,
    killed: bool,
    deliveries: usize,
    place: &str,
) {
    // What has grown is looked at whole by the second one.
    drop(home.open());
    let mut store = home.open();
    let now = told(&mut store);
    assert!(store.take_warnings().is_empty(), "{place}");
    drop(store);
    assert!(!home.content().contains('\0'), "{place}");
    assert_eq!(now.uid_validity, known.uid_validity, "{place}");
    assert!(now.uid_next >= known.uid_next, "{place}");

    let gone: Vec<u32> =
        known.messages.keys().copied().filter(|uid| !now.messages.contains_key(uid)).collect();
    assert!(gone.is_empty() && killed || gone == operation.expunged, "{place}: {gone:?} are gone");
    let mut marked = 0;
    for (uid, shown) in &known.messages {
        let Some(found) = now.messages.get(uid) else {
            continue;
        };
        if operation.marked.contains(uid) && found != shown {
            let mut wanted = shown.clone();
            wanted.flags = wanted.flags | Flags::FLAGGED;
            wanted.keywords.insert("later".into());
            assert!(*found == wanted, "{place}: {uid} is {found:?}, not {wanted:?}");
            marked += 1;
        } else {
            assert!(found == shown, "{place}: {uid} is {found:?}, not {shown:?}");
        }
    }
    assert!(marked == 0 && killed || marked == operation.marked.len(), "{place}");

    let new: Vec<&Shown> = now.messages.range(known.uid_next..).map(|(_, shown)| shown).collect();
    let mut delivered = 0;
    let mut appended = Vec::new();
    for shown in &new {
        let subject = shown.text.lines().next().unwrap().strip_prefix("Subject: ").unwrap();
        if subject == "neighbour" {
            assert_eq!(shown.text, "Subject: neighbour\r\n\r\nn\r\n", "{place}");
            delivered += 1;
        } else {
            assert_eq!(shown.text, format!("Subject: {subject}\r\n\r\n{subject}\r\n"), "{place}");
            assert_eq!(shown.flags, Flags::SEEN | Flags::DRAFT, "{place}");
            assert!(shown.keywords.iter().eq(["new", "work"]), "{place}: {shown:?}");
            appended.push(subject);
        }
    }
    assert_eq!(delivered, deliveries, "{place}");
    assert!(appended.is_empty() && killed || appended == operation.appended, "{place}");
    assert!(now.messages.range(..known.uid_next).all(|(uid, _)| known.messages.contains_key(uid)));
    without_index(home, known, &now, place);
}

/// What is found when the index is lost on top.
fn without_index(home: &Home, known: &Told, now: &Told, place: &str) {
    let named: Vec<u32> = {
        let store = home.open();
        store.messages().unwrap().iter().filter(|m| m.extent.named).map(|m| m.uid).collect()
    };
    fs::remove_file(home.file(".index")).unwrap();
    let mut store = home.open();
    let anew = told(&mut store);
    assert!(store.take_warnings().is_empty(), "{place}");
    let texts = |told: &Told| {
        let mut texts: Vec<String> = told.messages.values().map(|m| m.text.clone()).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&anew), texts(now), "{place}");
    if anew.uid_validity != now.uid_validity {
        // There is no room for it at the beginning of the file.
        let first = home.content();
        assert!(!first.lines().take(9).any(|line| line.starts_with("X-IMAPbase")), "{place}");
        assert!(anew.uid_validity > now.uid_validity, "{place}");
        return;
    }
    for uid in named {
        let text = anew.messages.get(&uid).map(|shown| &shown.text);
        assert_eq!(text, now.messages.get(&uid).map(|shown| &shown.text), "{place}: UID {uid}");
    }
    for (uid, shown) in &anew.messages {
        let was = known.messages.get(uid).or_else(|| now.messages.get(uid));
        assert!(was.is_none_or(|was| was.text == shown.text), "{place}: UID {uid}: {shown:?}");
        let old = *uid < known.uid_next && !known.messages.contains_key(uid);
        assert!(!old, "{place}: UID {uid} was expunged before");
    }
    home.deliver();
    store.sync().unwrap();
    let last = told(&mut store).messages.into_keys().next_back().unwrap();
    assert!(last >= now.uid_next && last >= known.uid_next, "{place}: UID {last} again");
}

#[test]
fn a_first_open_killed_at_any_step_gives_each_message_one_uid() {
    for neighbour in [Neighbour::Away, Neighbour::Delivers, Neighbour::Reads] {
        let mut n = 0;
        loop {
            let mut killed = false;
            for again in [u32::MAX, n % 3, n % 7, n % 19] {
                let home = Home::new(&mailbox());
                killed = killed_at(n, || drop(home.open()));
                let deliveries = usize::from(neighbour == Neighbour::Delivers);
                match neighbour {
                    Neighbour::Away => {}
                    Neighbour::Delivers => home.deliver(),
                    Neighbour::Reads => {
                        home.read_as_neighbour();
                    }
                }
                killed_at(again, || drop(home.open()));
                let place = format!("first open, {neighbour:?}, step {n}, {again}");
                drop(home.open());
                let now = told(&mut home.open());
                let mut shown: Vec<&Shown> = now.messages.values().collect();
                shown.sort_by_key(|shown| &shown.text);
                let texts: String = shown.iter().map(|shown| &shown.text[9..10]).collect();
                assert_eq!(texts, ["abccdee", "abccdeen"][deliveries], "{place}");
                let seen = |at: usize| shown[at].flags.has(Flags::SEEN);
                assert!(seen(1), "{place}");
                assert_eq!(seen(4), neighbour == Neighbour::Reads, "{place}");
                without_index(&home, &now.clone(), &now, &place);
            }
            if !killed {
                break;
            }
            n += 1;
        }
        assert!(n > 10);
    }
}

/// What the marks were when the index was synced last, and those of later.
fn marked_later(home: &Home, names: &[&str]) -> (Told, Told) {
    let known = with_marks(home);
    let mut store = home.open();
    // Behind it the index is durable.
    store.append(&[arrival("y")]).unwrap();
    let synced = told(&mut store);
    for (uid, name) in (1..).zip(names) {
        let uids = UidSet::from(uid..=uid);
        store.mark(&uids, Marking::Add, Flags::ANSWERED, &[(*name).into()], None).unwrap();
    }
    let later = told(&mut store);
    assert_eq!(synced.uid_validity, known.uid_validity);
    (synced, later)
}

#[test]
fn frames_that_a_power_cut_tears_cost_no_mark_and_no_uid_of_before_the_last_sync() {
    tear_frames(&mailbox());
    // The mailbox has no room for X-IMAPbase.
    tear_frames(&mailbox()[mailbox().find("From x").unwrap()..]);
}

fn tear_frames(content: &str) {
    let length = |home: &Home| fs::metadata(home.file(".index")).unwrap().len();
    let whole = Home::new(content);
    let _ = marked_later(&whole, &[]);
    let synced = usize::try_from(length(&whole)).unwrap();
    let whole = Home::new(content);
    let _ = marked_later(&whole, &["p", "q", "r"]);
    let end = usize::try_from(length(&whole)).unwrap();
    assert!(synced < end);
    for from in (synced..end).step_by(16) {
        for to in [from + 16, from + 48, end] {
            for cut in [false, true] {
                let home = Home::new(content);
                let (synced, later) = marked_later(&home, &["p", "q", "r"]);
                let mut index = fs::read(home.file(".index")).unwrap();
                index[from..to.min(end)].fill(0);
                index.truncate(if cut { to } else { end });
                fs::write(home.file(".index"), &index).unwrap();
                restart();
                let mut store = home.open();
                let now = told(&mut store);
                let place = format!("{from}..{to}, {cut}");
                assert_eq!(now.uid_validity, synced.uid_validity, "{place}");
                assert!(now.messages.keys().eq(synced.messages.keys()), "{place}");
                for (uid, shown) in &now.messages {
                    let may_be = [&synced.messages[uid], &later.messages[uid]];
                    assert!(may_be.contains(&shown), "{place}: {uid} is {shown:?}");
                }
                assert!(store.status().highest_modseq > 1_000_000_000_000_000);
            }
        }
    }
}

/// All have room: the file says all that an append is acknowledged for.
fn roomy() -> String {
    [ours("a", 150, "a"), ours("c", 90, "c"), ours("c", 90, "c"), ours("d", 90, "d")].concat()
}

#[test]
fn an_append_that_the_index_forgot_has_its_uids_and_marks() {
    let (mut cut, mut length) = (0, usize::MAX);
    while cut < length {
        let home = Home::new(&roomy());
        let mut store = home.open();
        let before = fs::read(home.file(".index")).unwrap().len();
        assert_eq!(store.append(&[arrival("y"), arrival("z")]).unwrap(), [5, 6]);
        assert_eq!(store.append(&[arrival("y")]).unwrap(), [7]);
        let known = told(&mut store);
        drop(store);
        let named = home.content();
        assert!(named.contains("X-UID: 7\nX-Keywords: work new"), "{named}");
        // Nothing of the index was synced since.
        let mut index = fs::read(home.file(".index")).unwrap();
        length = index.len() - before;
        index.truncate(before + cut);
        fs::write(home.file(".index"), &index).unwrap();
        restart();
        let mut store = home.open();
        let now = told(&mut store);
        assert_eq!(now.messages, known.messages, "{cut} of {length}");
        assert_eq!((now.uid_validity, now.uid_next), (known.uid_validity, 8));
        assert_eq!(store.append(&[arrival("x")]).unwrap(), [8]);
        cut += 16;
    }
}

#[test]
fn an_append_with_uids_killed_at_any_step_gives_none_twice() {
    for neighbour in [Neighbour::Away, Neighbour::Delivers] {
        let mut killed = true;
        let mut n = 0;
        while killed {
            let home = Home::new(&roomy());
            let mut store = home.open();
            let known = told(&mut store);
            let arrivals = [arrival("y"), arrival("z")];
            killed = killed_at(n, || drop(store.append(&arrivals).unwrap()));
            drop(store);
            if neighbour == Neighbour::Delivers {
                home.deliver();
            }
            let place = format!("{neighbour:?}, step {n}");
            // What the next session is told holds, also where the index forgets it again.
            let then = told(&mut home.open());
            fs::remove_file(home.file(".index")).unwrap();
            restart();
            let now = told(&mut home.open());
            assert!(!home.content().contains('\0'), "{place}");
            for found in [&then, &now] {
                assert_eq!(found.uid_validity, known.uid_validity, "{place}");
                assert!(known.messages.iter().all(|(uid, m)| found.messages[uid] == *m), "{place}");
                let new = found.messages.len() - known.messages.len();
                let came = new - usize::from(neighbour == Neighbour::Delivers);
                assert!(came == 2 || killed && came == 0, "{place}: {found:?}");
            }
            // The neighbour's has no room for its own, and gets another.
            for (uid, shown) in &now.messages {
                let was = then.messages.get(uid);
                assert!(was.is_none_or(|was| was == shown), "{place}: UID {uid}");
                assert!(was.is_some() || *uid >= then.uid_next, "{place}: UID {uid}");
            }
            for uid in [5, 6].into_iter().filter(|_| !killed) {
                assert!(now.messages[&uid].text.contains(["", "y", "z"][uid as usize - 4]));
            }
            n += 1;
        }
        assert!(n > 5);
    }
}

#[test]
fn an_index_that_goes_while_a_session_is_open_costs_no_mark() {
    let spoilt: [fn(&Home); 4] = [
        |home| fs::remove_file(home.file(".index")).unwrap(),
        |home| fs::write(home.file(".index"), "garbage".repeat(1000)).unwrap(),
        |home| fs::write(home.file(".index"), "").unwrap(),
        |home| fs::remove_dir_all(home.dir.path().join("index")).unwrap(),
    ];
    for spoil in spoilt {
        for (delivered, has_room) in [(false, true), (true, true), (true, false)] {
            let content = mailbox();
            let first = content[1..].find("From ").unwrap() + 1;
            let home = Home::new(if has_room { &content } else { &content[first..] });
            let mut store = home.open();
            let all = UidSet::from(1..=9);
            store.mark(&all, Marking::Add, Flags::FLAGGED, &["work".into()], None).unwrap();
            let known = told(&mut store);
            spoil(&home);
            if delivered {
                home.deliver();
            }
            store.sync().unwrap();
            if !has_room {
                // Its UIDs are others now, which a handle learns when it is opened.
                store = home.open();
            }
            let now = told(&mut store);
            let mut shown: Vec<&Shown> = now.messages.values().collect();
            if delivered {
                assert!(shown.pop().unwrap().text.contains("neighbour"));
            }
            assert!(shown.into_iter().eq(known.messages.values()), "{now:?}");
            // Others may have given UIDs meanwhile, of which nobody knows.
            assert_eq!(now.uid_validity == known.uid_validity, has_room);
            assert!(now.messages.keys().zip(known.messages.keys()).all(|(now, then)| now == then));
            let expunged = *now.messages.keys().next().unwrap();
            expunge(&mut store, &[expunged]);
            let mut left = now.clone();
            left.messages.remove(&expunged);
            assert_eq!(told(&mut home.open()).messages, left.messages);
        }
    }
}

#[test]
fn a_file_that_looks_as_it_did_is_not_believed_to_be_so_after_a_restart() {
    let home = Home::new(&mailbox());
    let known = with_marks(&home);
    let directory = home.open().mbox.directory();
    // The disk has got the file's times, but not what was written; or more than its times say.
    let content = home.content();
    let at = content.find("From x").unwrap();
    let end = content[at + 1..].find("From ").unwrap() + at + 1;
    let moved = [&content[..at], &content[end..], &content[at..end]].concat();
    let file = fs::File::options().write(true).open(home.inbox()).unwrap();
    file.write_all_at(moved.as_bytes(), 0).unwrap();
    let base = Identity::of(&file).unwrap().stamp(&file).unwrap().base(true);
    let (mut index, _) = Index::open(directory).unwrap();
    index.lock().unwrap().commit(vec![Change::Base(base)], true).unwrap();
    restart();
    let now = told(&mut home.open());
    assert_eq!(now.messages, known.messages);
    assert_eq!(now.uid_validity, known.uid_validity);
}

#[test]
fn a_base_that_was_left_in_a_later_message_gives_no_uid_twice() {
    let home = Home::new(&mailbox());
    let uid_validity = told(&mut home.open()).uid_validity;
    let base = format!("Subject: c\nX-IMAPbase: {uid_validity} 0000000007\n");
    fs::write(home.inbox(), home.content().replacen("Subject: c\n", &base, 1)).unwrap();
    home.deliver();
    drop(home.open());
    let known = told(&mut home.open());
    // A neighbour removes what stands before.
    let content = home.content();
    let third = content.find("From c@").unwrap();
    fs::write(home.inbox(), &content[third..]).unwrap();
    drop(home.open());
    fs::remove_file(home.file(".index")).unwrap();
    home.deliver();
    let now = told(&mut home.open());
    assert_eq!(now.uid_validity, known.uid_validity);
    assert!(now.uid_next > known.uid_next);
    for (uid, shown) in &now.messages {
        let was = known.messages.get(uid);
        assert!(
            was.is_none_or(|was| was.text == shown.text)
                && (was.is_some() || *uid >= known.uid_next)
        );
    }
}
