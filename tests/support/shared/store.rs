//! Our own store among the others: handles of this process, as the mailbox's user.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use hikyaku::config::LockKind;
use hikyaku::mailbox::store::{Arrival, Flags, Marking};
use hikyaku::mailbox::{Error, MboxStore, NewMessage, Place, Stager, Store, UidSet};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::super::letter::{Agent, Fate, Letter, View};
use super::super::site::Site;
use super::super::{Dice, is_root};
use super::{Actor, Shared};

/// The keyword that our handles set, and nobody takes off.
const OURS: &str = "$Ours";

/// A message, as a UID must always mean it: which one, and its digest.
type Meant = (Letter, [u8; 16]);

/// What the UIDs that our handles have seen mean, for each UIDVALIDITY.
#[derive(Default)]
pub struct Uids(HashMap<(u32, u32), Meant>);

impl Uids {
    #[track_caller]
    fn see(&mut self, name: (u32, u32), meant: Meant) {
        let before = *self.0.entry(name).or_insert(meant);
        assert_eq!(before, meant, "UID {name:?} was another message before");
    }
}

/// A thread as the mailbox's user.
fn as_user() {
    if is_root() {
        let account = Site::account("hunt");
        setfsgid(Gid::from_raw(account.gid));
        setfsuid(Uid::from_raw(account.uid));
    }
}

fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Locked { .. } | Error::Changed)
}

impl Shared {
    fn place(&self) -> Place {
        Place {
            path: self.site.inbox("hunt"),
            index: self.site.home("hunt").join("mail/.index"),
            owner: Uid::from_raw(Site::account("hunt").uid),
            locks: vec![LockKind::Fcntl, LockKind::Flock, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(30),
            quota: 0,
        }
    }

    /// Appends, a few at a time, by a handle that stays open.
    pub fn appender(&self, writer: usize) -> Actor<'_> {
        Box::new(move || {
            as_user();
            let mut store = MboxStore::open(self.place()).unwrap();
            self.write(Agent::LocalDeliver, writer, &mut |letter| {
                let mut stager = Stager::new(u64::MAX);
                stager.push(&letter.message()).unwrap();
                let text = Rc::new(stager.finish().unwrap());
                let (sender, now) = (letter.sender(), SystemTime::now());
                let message = NewMessage::delivered(sender.as_bytes(), b"hunt@x", now, text);
                let arrival =
                    Arrival { message, flags: Flags::default(), keywords: vec![OURS.into()] };
                // What stands there already gets UIDs on the way.
                let _shared = self.rewriting.read().unwrap();
                match store.append(&[arrival]) {
                    Ok(uids) => {
                        let validity = store.status().uid_validity;
                        let uid = *uids.last().unwrap();
                        let meant = (*letter, store.message(uid).unwrap().unwrap().digest);
                        self.uids.lock().unwrap().see((validity, uid), meant);
                        true
                    }
                    Err(error) => {
                        assert!(may_pass(&error), "{error}");
                        false
                    }
                }
            });
        })
    }

    /// A session that reads, marks and expunges, and is opened anew now and then.
    pub fn session(&self, number: usize) -> Actor<'_> {
        self.has_remover.store(true, Ordering::Relaxed);
        self.has_store.store(true, Ordering::Relaxed);
        Box::new(move || {
            as_user();
            let mut dice = Dice::new(500 + u64::try_from(number).unwrap());
            while !self.is_over() {
                let mut store = MboxStore::open(self.place()).unwrap();
                for _ in 0..10 {
                    if let Err(error) = self.work_by_store(&mut store, &mut dice) {
                        assert!(may_pass(&error), "{error}");
                    }
                    self.rest(&mut dice, 200);
                }
                let shared = self.rewriting.read().unwrap();
                store.checkpoint().unwrap();
                drop(shared);
                assert_eq!(store.take_warnings(), Vec::<String>::new());
            }
        })
    }

    fn work_by_store(&self, store: &mut MboxStore, dice: &mut Dice) -> Result<(), Error> {
        let shared = self.rewriting.read().unwrap();
        store.sync()?;
        drop(shared);
        let validity = store.status().uid_validity;
        let messages = store.messages().unwrap();
        let mut chosen = Vec::new();
        for _ in 0..12.min(messages.len()) {
            chosen.push(messages[dice.below(messages.len())]);
        }
        let (mut doomed, mut kept) = (Vec::new(), UidSet::new());
        for message in chosen {
            let Some(text) = read(store, message.uid)? else { continue };
            if store.status().uid_validity != validity {
                return Ok(());
            }
            let letter = self.proven(store, message.uid, &text);
            self.read.fetch_add(1, Ordering::Relaxed);
            self.uids.lock().unwrap().see((validity, message.uid), (letter, message.digest));
            if letter.fate() == Fate::Expunge {
                doomed.push((message.uid, letter));
            } else {
                kept.insert(message.uid);
                self.ours.lock().unwrap().insert(letter);
            }
        }
        // One that the IMAP client does not set.
        let marking = [Marking::Add, Marking::Remove][dice.below(2)];
        store.mark(&kept, marking, Flags::DRAFT, &[], None)?;
        store.mark(&kept, Marking::Add, Flags::default(), &[OURS.to_owned()], None)?;
        if doomed.is_empty() || store.status().uid_validity != validity {
            return Ok(());
        }
        let _shared = self.rewriting.read().unwrap();
        self.marked.lock().unwrap().extend(doomed.iter().map(|(_, letter)| *letter));
        let uids: UidSet = doomed.iter().map(|(uid, _)| *uid).collect();
        let gone = store.expunge(&uids)?;
        let gone = doomed.iter().filter(|(uid, _)| gone.contains(*uid));
        self.are_gone(gone.map(|(_, letter)| *letter), "our store");
        Ok(())
    }

    /// Looks at the mailbox by our store: with the index as it has become, and with a new one.
    pub fn look_by_store(&self) {
        std::thread::scope(|scope| {
            let looked = scope.spawn(|| {
                as_user();
                let mut store = MboxStore::open(self.place()).unwrap();
                let found = self.all_of(&mut store);
                if !self.has_rewriter() {
                    self.look_at_keywords(&store, &found);
                }
                let left = super::whole(&self.site.inbox("hunt"));
                let left: BTreeSet<Letter> = left.into_iter().collect();
                assert_eq!(found.values().copied().collect::<BTreeSet<_>>(), left);
                store.checkpoint().unwrap();
                let messages = store.messages().unwrap();
                let named = messages.iter().filter(|one| one.extent.named);
                let named: BTreeSet<u32> = named.map(|message| message.uid).collect();
                let validity = store.status().uid_validity;
                drop(store);
                fs::remove_dir_all(self.site.home("hunt").join("mail/.index")).unwrap();
                let mut store = MboxStore::open(self.place()).unwrap();
                // What only the index knew may have another UID now.
                let again = self.letters(&mut store);
                assert_eq!(again.values().collect::<BTreeSet<_>>(), found.values().collect());
                if store.status().uid_validity == validity {
                    for uid in &named {
                        assert_eq!(again.get(uid), found.get(uid), "UID {uid}");
                    }
                }
                super::super::note(&format!(
                    "{} messages by our store, {} of which have their UIDs in the file; {} UIDs \
                     were seen",
                    found.len(),
                    named.len(),
                    self.uids.lock().unwrap().0.len()
                ));
            });
            looked.join().unwrap();
        });
    }

    fn letters(&self, store: &mut MboxStore) -> BTreeMap<u32, Letter> {
        let uids: Vec<u32> = store.messages().unwrap().iter().map(|message| message.uid).collect();
        let mut letter = |uid| {
            let text = read(store, uid).unwrap().unwrap();
            (uid, self.proven(store, uid, &text))
        };
        uids.into_iter().map(&mut letter).collect()
    }

    /// Which message a store has given; all that is known of it, where it is torn.
    #[track_caller]
    fn proven(&self, store: &MboxStore, uid: u32, text: &[u8]) -> Letter {
        Letter::prove(text, View::Ours).unwrap_or_else(|why| {
            let message = store.message(uid).unwrap();
            let file = fs::read(self.site.inbox("hunt")).unwrap_or_default();
            let there = message.map_or(&[][..], |message| {
                let place = |at: u64| usize::try_from(at).unwrap().min(file.len());
                let from = place(message.extent.start.saturating_sub(500));
                &file[from..place(message.extent.end() + 500)]
            });
            panic!(
                "a torn message: {why}\nthe index has {message:?}\nthere and around it stands now: \
                 {}\nthe text: {}",
                there.escape_ascii(),
                text.escape_ascii()
            )
        })
    }

    /// Reads all, and holds the UIDs to what they meant before.
    fn all_of(&self, store: &mut MboxStore) -> BTreeMap<u32, Letter> {
        let mut found = BTreeMap::new();
        let validity = store.status().uid_validity;
        for message in store.messages().unwrap() {
            let text = read(store, message.uid).unwrap().unwrap();
            let letter = self.proven(store, message.uid, &text);
            found.insert(message.uid, letter);
            self.uids.lock().unwrap().see((validity, message.uid), (letter, message.digest));
        }
        found
    }

    fn look_at_keywords(&self, store: &MboxStore, found: &BTreeMap<u32, Letter>) {
        let at = store.keywords().iter().position(|name| name == OURS).unwrap();
        let ours = self.ours.lock().unwrap();
        for message in store.messages().unwrap() {
            let letter = found[&message.uid];
            let has = message.marks.keywords & (1 << at) != 0;
            assert!(has || !ours.contains(&letter), "{letter} has lost {OURS}");
        }
    }
}

/// A message with LF line ends; none where it is gone.
fn read(store: &mut MboxStore, uid: u32) -> Result<Option<Vec<u8>>, Error> {
    let mut text = Vec::new();
    let done = store.read(uid, 0..u64::MAX, &mut |piece| {
        text.extend_from_slice(piece);
        Ok(())
    });
    match done {
        Err(Error::Changed) => return Ok(None),
        other => other?,
    }
    Ok(Some(text.split(|byte| *byte == b'\r').collect::<Vec<_>>().concat()))
}
