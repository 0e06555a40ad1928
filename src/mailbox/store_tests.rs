//! Every kind of store does what a simple model does, whatever two handles do in turn.
//!
//! A new kind is one more line at the end. Its test can be given other seeds by changing `SEEDS`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use super::store::{Arrival, Flags, Marking, Store};
use super::{MaildirStore, MboxStore, Memory, NewMessage, Place, Stager, UidSet};
use crate::config::LockKind;

/// Opens one more handle on the same mailbox.
pub type Opener = Box<dyn Fn() -> Box<dyn Store>>;

const SEEDS: u64 = 8;
const STEPS: usize = 120;

/// What two handles did to a mailbox that was new.
struct Trial {
    dice: Dice,
    open: Opener,
    handles: [Box<dyn Store>; 2],
    model: Model,
    /// What was so at a MODSEQ, ascending.
    history: Vec<(u64, Shown)>,
}

/// What each message has: flags, and keywords in lower case.
type Shown = BTreeMap<u32, (Flags, BTreeSet<String>)>;

#[derive(Default)]
struct Model {
    messages: BTreeMap<u32, Kept>,
    uid_next: u32,
    highest: u64,
    claimed: u32,
}

struct Kept {
    flags: Flags,
    keywords: BTreeSet<String>,
    modseq: u64,
    text: Vec<u8>,
    date: i64,
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }

    fn at(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length.max(1) as u64)).unwrap()
    }

    fn flags(&mut self) -> Flags {
        Flags::of_bits(u8::try_from(self.below(32)).unwrap())
    }

    fn keywords(&mut self) -> Vec<String> {
        let names = ["$Forwarded", "work", "WORK", "$Junk", "a/b", "x.y"];
        (0..self.below(3)).map(|_| names[self.at(6)].into()).collect()
    }

    /// A set that meets some messages.
    fn uids(&mut self, uid_next: u32) -> UidSet {
        let mut set = UidSet::new();
        for _ in 0..=self.below(3) {
            let start = u32::try_from(self.below(u64::from(uid_next) + 2)).unwrap().max(1);
            let length = u32::try_from(self.below(4)).unwrap();
            set.insert_range(start..=start + length);
        }
        if self.below(10) == 0 {
            set.insert_range(1..=u32::MAX);
        }
        set
    }

    fn message(&mut self) -> NewMessage {
        let lines: [&[u8]; 12] = [
            b"\n",
            b"\r\n",
            b"hello\r\n",
            b"From a@b Thu Jan  1 00:00:00 1970\n",
            b">From x\n",
            b".\r\n",
            b"\xff\0\x80\n",
            b"\r\r\n",
            b"Status: RO\r\n",
            b"x\ry\n",
            b" \n",
            b"From \n",
        ];
        let mut input = Vec::new();
        for n in 0..self.below(3) {
            input.extend_from_slice(format!("Field-{n}: {}\r\n", self.below(1000)).as_bytes());
        }
        input.extend_from_slice(b"\r\n");
        for _ in 0..self.below(8) {
            input.extend_from_slice(lines[self.at(12)]);
        }
        if self.below(8) == 0 {
            input
                .extend((0..self.below(300_000)).map(|n| b"long line\nof text"[(n % 17) as usize]));
        }
        let mut stager = Stager::new(10_000_000);
        stager.push(&input).unwrap();
        let text = Rc::new(stager.finish().unwrap());
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.below(500_000_000));
        match self.below(2) {
            0 => NewMessage { sender: Vec::new(), at, trace: Vec::new(), text },
            _ => NewMessage::delivered(b"s@b.org", b"u@c.org", at, text),
        }
    }
}

/// What clients are to get of a message.
fn shown(message: &NewMessage) -> Vec<u8> {
    let mut stored = message.trace.clone();
    let mut take = |bytes: &[u8]| {
        stored.extend_from_slice(bytes);
        Ok(())
    };
    message.text.each(&mut take).unwrap();
    let mut text = Vec::new();
    for byte in stored {
        if byte == b'\n' && text.last() != Some(&b'\r') {
            text.push(b'\r');
        }
        text.push(byte);
    }
    text
}

/// Reads octets of a message.
pub fn read(store: &mut dyn Store, uid: u32, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut text = Vec::new();
    let mut take = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    };
    store.read(uid, range, &mut take).unwrap();
    text
}

impl Trial {
    fn new(seed: u64, open: Opener) -> Self {
        let handles = [open(), open()];
        let model = Model {
            uid_next: handles[0].status().uid_next,
            highest: handles[0].status().highest_modseq,
            ..Model::default()
        };
        Self { dice: Dice(seed), open, handles, model, history: Vec::new() }
    }

    fn step(&mut self) {
        let at = self.dice.at(2);
        match self.dice.below(20) {
            0..4 => self.append(at),
            4..9 => self.mark(at),
            9..11 => self.expunge(at),
            11..14 => self.sync(at),
            14..17 => self.read(at),
            17 => self.claim(at),
            18 => self.handles[at].checkpoint().unwrap(),
            _ => {
                self.handles[at].checkpoint().unwrap();
                self.handles[at] = (self.open)();
            }
        }
        let warnings = self.handles[at].take_warnings();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    fn append(&mut self, at: usize) {
        let arrivals: Vec<Arrival> = (0..self.dice.below(3))
            .map(|_| Arrival {
                message: self.dice.message(),
                flags: self.dice.flags(),
                keywords: self.dice.keywords(),
            })
            .collect();
        let uids = self.handles[at].append(&arrivals).unwrap();
        assert_eq!(uids.len(), arrivals.len());
        for (uid, arrival) in uids.into_iter().zip(arrivals) {
            assert!(uid >= self.model.uid_next, "UID {uid} is not new");
            self.model.uid_next = uid + 1;
            let date = arrival.message.at.duration_since(UNIX_EPOCH).unwrap().as_secs();
            let kept = Kept {
                flags: arrival.flags,
                keywords: lower(&arrival.keywords),
                modseq: 0,
                text: shown(&arrival.message),
                date: i64::try_from(date).unwrap(),
            };
            self.model.messages.insert(uid, kept);
            self.changed(at, uid);
        }
        self.advance(at);
    }

    fn mark(&mut self, at: usize) {
        let uids = self.dice.uids(self.model.uid_next);
        let (flags, keywords) = (self.dice.flags(), self.dice.keywords());
        let marking = [Marking::Add, Marking::Remove, Marking::Replace][self.dice.at(3)];
        let since = (self.dice.below(3) == 0).then(|| match self.dice.below(3) {
            0 => 0,
            1 => self.model.highest,
            _ => {
                let all: Vec<u64> = self.model.messages.values().map(|kept| kept.modseq).collect();
                all.get(self.dice.at(20)).copied().unwrap_or(1)
            }
        });
        let refused = self.handles[at].mark(&uids, marking, flags, &keywords, since).unwrap();
        let (mut changed, mut expected) = (Vec::new(), UidSet::new());
        let by = lower(&keywords);
        for (uid, kept) in self.model.messages.iter_mut().filter(|(uid, _)| uids.contains(**uid)) {
            if since.is_some_and(|since| kept.modseq > since) {
                expected.insert(*uid);
                continue;
            }
            let before = (kept.flags, kept.keywords.clone());
            match marking {
                Marking::Add => {
                    kept.flags = kept.flags | flags;
                    kept.keywords.extend(by.iter().cloned());
                }
                Marking::Remove => {
                    kept.flags = kept.flags & !flags;
                    kept.keywords.retain(|keyword| !by.contains(keyword));
                }
                Marking::Replace => (kept.flags, kept.keywords) = (flags, by.clone()),
            }
            if before != (kept.flags, kept.keywords.clone()) {
                changed.push(*uid);
            }
        }
        assert_eq!(refused, expected);
        for uid in changed {
            self.changed(at, uid);
        }
        self.advance(at);
    }

    fn expunge(&mut self, at: usize) {
        let mut uids = UidSet::new();
        for _ in 0..self.dice.below(3) {
            uids.insert(u32::try_from(self.dice.below(u64::from(self.model.uid_next))).unwrap());
        }
        let gone = self.handles[at].expunge(&uids).unwrap();
        let expected: UidSet =
            self.model.messages.keys().copied().filter(|uid| uids.contains(*uid)).collect();
        assert_eq!(gone, expected);
        let now = self.handles[at].status().highest_modseq;
        assert!(gone.is_empty() || now > self.model.highest, "MODSEQ did not grow");
        self.model.messages.retain(|uid, _| !gone.contains(*uid));
        self.advance(at);
    }

    fn sync(&mut self, at: usize) {
        self.handles[at].sync().unwrap();
        self.agrees(at);
        self.tells_changes(at);
    }

    fn read(&mut self, at: usize) {
        self.handles[at].sync().unwrap();
        let uids: Vec<u32> = self.model.messages.keys().copied().collect();
        let Some(uid) = uids.get(self.dice.at(uids.len())) else {
            assert!(self.handles[at].read(1, 0..1, &mut |_| Ok(())).is_err());
            return;
        };
        let text = &self.model.messages[uid].text;
        let length = text.len() as u64;
        let store = &mut *self.handles[at];
        match self.dice.below(3) {
            0 => assert!(read(store, *uid, 0..u64::MAX) == *text, "message {uid} differs"),
            1 => {
                let start = self.dice.below(length + 3);
                let end = start + self.dice.below(length + 3);
                let cut = |offset: u64| usize::try_from(offset.min(length)).unwrap();
                let expected = &text[cut(start)..cut(end)];
                assert!(read(store, *uid, start..end) == expected, "{uid} differs: {start}..{end}");
            }
            // As a client fetches a large one.
            _ => {
                let step = 1 + self.dice.below(length / 3 + 5);
                let mut whole = Vec::new();
                for start in (0..length).step_by(usize::try_from(step).unwrap()) {
                    whole.extend(read(store, *uid, start..start + step));
                }
                assert!(whole == *text, "message {uid} differs in pieces of {step}");
            }
        }
    }

    fn claim(&mut self, at: usize) {
        let before = self.handles[at].claim_recent().unwrap();
        let recent = self.model.messages.keys().filter(|uid| **uid > before);
        let expected = self.model.messages.keys().filter(|uid| **uid > self.model.claimed);
        assert!(recent.eq(expected), "others are \\Recent");
        self.model.claimed = self.model.uid_next - 1;
        self.handles[at].sync().unwrap();
        assert_eq!(self.handles[at].status().recent, 0);
    }

    /// Handle `at` has changed a message, or made it.
    fn changed(&mut self, at: usize, uid: u32) {
        let modseq = self.handles[at].message(uid).unwrap().unwrap().modseq;
        assert!(modseq > self.model.highest, "{uid} changed, but its MODSEQ is {modseq}");
        self.model.messages.get_mut(&uid).unwrap().modseq = modseq;
    }

    /// Handle `at` has ended an operation; one that did nothing need not have looked.
    fn advance(&mut self, at: usize) {
        let now = self.handles[at].status().highest_modseq;
        self.model.highest = self.model.highest.max(now);
    }

    /// What a handle shows after a look is what the model has.
    fn agrees(&mut self, at: usize) {
        let store = &mut *self.handles[at];
        let status = store.status();
        let shown = shown_by(store);
        let model = &self.model;
        let expected: Shown = (model.messages.iter())
            .map(|(uid, kept)| (*uid, (kept.flags, kept.keywords.clone())))
            .collect();
        assert_eq!(shown, expected);
        assert!(store.messages().unwrap().windows(2).all(|pair| pair[0].uid < pair[1].uid));
        for message in store.messages().unwrap() {
            let kept = &model.messages[&message.uid];
            assert_eq!(message.modseq, kept.modseq, "MODSEQ of {}", message.uid);
            assert_eq!(message.date, kept.date, "date of {}", message.uid);
            assert_eq!(message.size, kept.text.len() as u64, "size of {}", message.uid);
            let header = memchr::memmem::find(&kept.text, b"\r\n\r\n").map_or(0, |at| at + 4);
            let header = if kept.text.starts_with(b"\r\n") { 2 } else { header };
            assert_eq!(message.header as usize, header, "header of {}", message.uid);
        }
        assert!(status.uid_next >= model.uid_next);
        assert_eq!(status.highest_modseq, model.highest);
        assert_eq!(status.messages, model.messages.len());
        let count = |is: &dyn Fn(Flags) -> bool| shown.values().filter(|(f, _)| is(*f)).count();
        assert_eq!(status.unseen, count(&|flags| !flags.has(Flags::SEEN)));
        assert_eq!(status.deleted, count(&|flags| flags.has(Flags::DELETED)));
        assert_eq!(status.size, model.messages.values().map(|k| k.text.len() as u64).sum::<u64>());
        match self.history.last() {
            Some((modseq, before)) if *modseq == model.highest => {
                assert_eq!(*before, shown, "something changed without a MODSEQ");
            }
            _ => self.history.push((model.highest, shown)),
        }
    }

    /// Whoever knows what was so at a MODSEQ learns what is so now.
    fn tells_changes(&mut self, at: usize) {
        let store = &*self.handles[at];
        let now = shown_by(store);
        for (modseq, then) in &self.history {
            let changes = store.changes_since(*modseq).unwrap();
            assert!(!changes.forgotten, "what was so at {modseq} is forgotten");
            for uid in &changes.changed {
                assert!(now.contains_key(uid) && self.model.messages[uid].modseq > *modseq);
            }
            assert!(changes.changed.is_sorted());
            for (uid, marks) in &now {
                let same = then.get(uid) == Some(marks);
                assert!(same || changes.changed.contains(uid), "{uid} changed since {modseq}");
            }
            assert!(changes.vanished.iter().all(|uid| !now.contains_key(&uid)));
            for uid in then.keys().filter(|uid| !now.contains_key(uid)) {
                assert!(changes.vanished.contains(*uid), "{uid} vanished since {modseq}");
            }
        }
    }
}

fn lower(keywords: &[String]) -> BTreeSet<String> {
    keywords.iter().map(|keyword| keyword.to_ascii_lowercase()).collect()
}

fn shown_by(store: &dyn Store) -> Shown {
    let names = lower(store.keywords());
    assert_eq!(names.len(), store.keywords().len(), "a keyword is there twice");
    let message = |message: &super::store::Message| {
        let bit = |n: usize| message.marks.keywords & (1 << n) != 0;
        let has = store.keywords().iter().enumerate().filter(|(n, _)| bit(*n));
        let keywords = has.map(|(_, name)| name.to_ascii_lowercase()).collect();
        (message.uid, (message.marks.flags, keywords))
    };
    store.messages().unwrap().iter().map(message).collect()
}

/// Tries a kind of store; `make` makes an opener of a mailbox that is new.
pub fn does_what_the_model_does(make: &dyn Fn() -> Opener) {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let open = make();
        let validity = open().status().uid_validity;
        let mut trial = Trial::new(seed, open);
        for _ in 0..STEPS {
            trial.step();
        }
        trial.sync(0);
        trial.sync(1);
        trial.handles = [(trial.open)(), (trial.open)()];
        assert_eq!(trial.handles[1].status().uid_validity, validity);
        trial.agrees(0);
        for (uid, kept) in &trial.model.messages {
            assert!(read(&mut *trial.handles[1], *uid, 0..u64::MAX) == kept.text);
        }
    }
}

/// A mailbox of this name in a directory.
pub fn place(directory: &Path, name: &str) -> Place {
    Place {
        path: directory.join(name),
        index: directory.join("index"),
        owner: nix::unistd::geteuid(),
        locks: vec![LockKind::Fcntl],
        libexec: PathBuf::new(),
        lock_timeout: Duration::from_secs(5),
        quota: 0,
    }
}

#[test]
fn in_memory() {
    does_what_the_model_does(&|| {
        let first = Memory::new(1);
        Box::new(move || Box::new(first.another()))
    });
}

#[test]
fn in_a_maildir() {
    does_what_the_model_does(&|| {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "Maildir/");
        Box::new(move || {
            let _ = &directory;
            Box::new(MaildirStore::open(place.clone()).unwrap())
        })
    });
}

#[test]
fn in_an_mbox() {
    does_what_the_model_does(&|| {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "mbox");
        Box::new(move || {
            let _ = &directory;
            Box::new(MboxStore::open(place.clone()).unwrap())
        })
    });
}
