//! Pages beside a plain list of the same messages, and what becomes of one that is damaged.

use std::fs;

use super::{Held, Messages, PAGE, Summary};
use crate::mailbox::Error;
use crate::mailbox::index::file::tests::Home;
use crate::mailbox::index::{Change, Opened, State};
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::UidSet;

fn message(uid: u32) -> Message {
    let [bits, ..] = (uid / 3).to_le_bytes();
    Message {
        uid,
        header: 10,
        marks: Marks { flags: Flags::of_bits(bits), keywords: 0 },
        modseq: u64::from(uid),
        size: u64::from(uid) * 3,
        date: 0,
        digest: u128::from(uid).to_be_bytes(),
        extent: Extent {
            // Not in the order of the UIDs.
            start: u64::from(uid ^ 1) * 100,
            unwritten: uid.is_multiple_of(5),
            no_room: uid.is_multiple_of(10),
            named: !uid.is_multiple_of(7),
            ..Extent::default()
        },
    }
}

/// Numbers that look as if they came of dice.
struct Dice(u32);

impl Dice {
    fn below(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (self.0 >> 8) % most
    }

    fn uids(&mut self, last: u32) -> UidSet {
        let mut uids = UidSet::new();
        for _ in 0..=self.below(3) {
            let start = self.below(last) + 1;
            let most = [1, 4, 300][self.below(3) as usize];
            uids.insert_range(start..=start + self.below(most));
        }
        uids
    }
}

/// An index of so many messages, and nothing behind the snapshot.
fn home_of(messages: u32) -> Home {
    let mut state = State::new(5, 0);
    for uid in 1..=messages {
        state.apply(Change::New(message(uid))).unwrap();
    }
    Home::with(&state)
}

/// All that is asked of them has the answer of the list.
fn same(messages: &Messages, list: &[Message], dice: &mut Dice) {
    assert_eq!(messages.all().unwrap(), list);
    assert_eq!(messages.len(), list.len());
    assert_eq!(messages.is_empty(), list.is_empty());
    assert_eq!(*messages.uids(), list.iter().map(|one| one.uid).collect());
    assert_eq!(messages.summary(), Summary::of(list));
    assert_eq!(messages.last().unwrap().as_ref(), list.last());
    let mut order = list.to_vec();
    order.sort_by_key(|one| one.extent.start);
    assert_eq!(messages.in_file_order().unwrap(), order);
    for _ in 0..5 {
        let uid = dice.below(3000);
        let one = list.iter().find(|one| one.uid == uid);
        assert_eq!(messages.get(uid).unwrap().as_ref(), one);
        let uids = dice.uids(3000);
        let within = messages.within(&uids).map(Result::unwrap);
        assert!(within.eq(list.iter().filter(|one| uids.contains(one.uid)).copied()));
        let modseq = u64::from(uid);
        let meant = messages.on_pages(|page| page.modseq > modseq).map(Result::unwrap);
        let meant = meant.filter(|one| one.modseq > modseq);
        assert!(meant.eq(list.iter().filter(|one| one.modseq > modseq).copied()));
    }
}

#[test]
fn whatever_happens_pages_say_what_a_list_of_all_messages_says() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let home = home_of(dice.below(4) * 300);
        let mut index = home.open().0;
        let mut list = index.state().messages.all().unwrap();
        for round in 0..30 {
            let mut messages = index.state().messages.clone();
            match dice.below(4) {
                0 => {
                    let next = list.last().map_or(1, |last| last.uid + 1 + dice.below(3));
                    for uid in next..next + dice.below(300) {
                        messages.push(message(uid));
                        list.push(message(uid));
                    }
                }
                1 => {
                    let uids = dice.uids(3000);
                    let gone = messages.remove(&uids).unwrap();
                    let here = list.iter().map(|one| one.uid).filter(|uid| uids.contains(*uid));
                    assert_eq!(gone, here.collect());
                    list.retain(|one| !uids.contains(one.uid));
                }
                2 => {
                    let uids = dice.uids(3000);
                    let mark = |one: &mut Message| one.marks.flags = one.marks.flags ^ Flags::SEEN;
                    messages.change(&uids, mark).unwrap();
                    list.iter_mut().filter(|one| uids.contains(one.uid)).for_each(mark);
                }
                _ => {
                    let from = u64::from(dice.below(300_000));
                    let mark = |one: &mut Message| {
                        one.extent.start += if one.extent.start >= from { 50 } else { 0 };
                    };
                    messages.change_pages(|page| page.start >= from, mark).unwrap();
                    list.iter_mut().for_each(mark);
                }
            }
            same(&messages, &list, &mut dice);
            let mut state = index.state().clone();
            state.messages = messages;
            (state.uid_next, state.modseq) = (10_000, 10_000);
            if dice.below(3) == 0 {
                index.lock().unwrap().replace(state).unwrap();
                assert!(index.state().messages.pages().iter().all(|page| {
                    matches!(page.held, Held::Stored { .. }) && page.summary.count > 0
                }));
                let read = home.open().0;
                assert_eq!(read.opened(), Opened::Loaded, "seed {seed}, round {round}");
                same(&read.state().messages, &list, &mut dice);
            } else {
                index.state = state;
            }
        }
    }
}

/// Flips a bit of a message with this UID, in the file.
fn damage(home: &Home, uid: u32) {
    let mut bytes = fs::read(home.path()).unwrap();
    let digest = u128::from(uid).to_be_bytes();
    let at = bytes.windows(16).position(|window| window == digest).unwrap();
    bytes[at] ^= 1;
    fs::write(home.path(), bytes).unwrap();
}

#[test]
fn a_page_that_is_damaged_is_found_when_it_is_asked_for_and_the_others_go_on() {
    let page = u32::try_from(PAGE).unwrap();
    let home = home_of(page * 3);
    damage(&home, page + 5);
    let mut index = home.open().0;
    assert_eq!(index.opened(), Opened::Loaded);
    assert_eq!(index.state().status().messages, PAGE * 3);
    assert_eq!(index.state().messages.get(page).unwrap(), Some(message(page)));
    assert!(!index.refresh().unwrap());
    // Whoever asks is told, and it is not forgotten.
    for _ in 0..2 {
        let said = index.state().messages.get(page + 1).unwrap_err();
        assert!(matches!(said, Error::Damaged { .. }), "{said}");
        assert!(matches!(index.refresh(), Err(Error::Damaged { .. })));
    }
    assert_eq!(index.state().messages.get(1).unwrap(), Some(message(1)));
    let mut locked = index.lock().unwrap();
    assert!(matches!(locked.opened(), Opened::Damaged(_)));
    let state = locked.state().clone();
    let left: UidSet = (1..=page).chain(page * 2 + 1..=page * 3).collect();
    assert_eq!(*state.messages.uids(), left);
    assert_eq!(state.uid_next, page * 3 + 1, "no UID is given twice");
    locked.replace(state).unwrap();
    drop(locked);
    assert!(!index.refresh().unwrap());
    assert_eq!(home.open().0.state(), index.state());
}

#[test]
fn a_journal_that_stumbles_over_a_damaged_page_is_damage_and_so_is_a_file_that_was_cut() {
    let home = home_of(1000);
    let mut index = home.open().0;
    let uids = UidSet::from(300..=300);
    let modseq = index.state().next_modseq();
    let (marking, by) = (Marking::Replace, message(8).marks);
    let mark = Change::Mark { uids, marking, by, modseq };
    index.lock().unwrap().commit(vec![mark], false).unwrap();
    damage(&home, 301);
    let mut index = home.open().0;
    assert!(matches!(index.opened(), Opened::Damaged(_)));
    let state = index.lock().unwrap().state().clone();
    assert_eq!(*state.messages.uids(), (1..=256).chain(513..=1000).collect());

    let home = home_of(1000);
    let mut index = home.open().0;
    let file = fs::OpenOptions::new().write(true).open(home.path()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 96).unwrap();
    assert!(index.state().messages.get(1).unwrap().is_some());
    assert!(matches!(index.state().messages.get(1000), Err(Error::Damaged { .. })));
    assert!(matches!(index.refresh(), Err(Error::Damaged { .. })));
    assert!(matches!(home.open().0.opened(), Opened::Damaged(_)));
}

#[test]
fn what_a_journal_changes_in_many_pages_is_made_a_snapshot_of_when_nobody_waits() {
    let home = home_of(20_000);
    let mut index = home.open().0;
    let uids = UidSet::from(1..=u32::MAX);
    let modseq = index.state().next_modseq();
    let (marking, by) = (Marking::Replace, message(8).marks);
    let mark = Change::Mark { uids, marking, by, modseq };
    index.lock().unwrap().commit(vec![mark], false).unwrap();
    let state = index.state().clone();
    let mut other = home.open().0;
    assert!(other.state().messages.pages_here() > 70);
    index.tidy().unwrap();
    assert_eq!((index.state().messages.pages_here(), index.state()), (0, &state));
    let size = fs::metadata(home.path()).unwrap().len();
    other.tidy().unwrap();
    assert_eq!((other.state().messages.pages_here(), other.state()), (0, &state));
    assert_eq!(fs::metadata(home.path()).unwrap().len(), size);
}

#[test]
fn who_still_has_the_pages_of_a_file_that_was_replaced_keeps_nobody_from_the_new_one() {
    let home = home_of(1000);
    let [mut one, mut two, mut three] = [home.open().0, home.open().0, home.open().0];
    let state = one.state().clone();
    one.lock().unwrap().replace(state).unwrap();
    let mut bytes = fs::read(home.path()).unwrap();
    bytes[20] ^= 1;
    fs::write(home.path(), bytes).unwrap();
    assert!(matches!(two.lock().unwrap().opened(), Opened::Damaged(_)));
    assert_eq!(two.state().messages.len(), 1000, "what is known stays");
    let began = std::time::Instant::now();
    assert!(matches!(three.lock().unwrap().opened(), Opened::Damaged(_)));
    assert!(began.elapsed().as_secs() < 10);
}
