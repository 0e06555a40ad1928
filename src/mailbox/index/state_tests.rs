use super::{Change, State};
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::UidSet;

fn message(uid: u32, modseq: u64) -> Message {
    let extent = Extent { start: u64::from(uid) * 100, length: 90, ..Extent::default() };
    Message {
        uid,
        header: 10,
        marks: Marks::default(),
        modseq,
        size: 95,
        date: 0,
        digest: u128::from(uid).to_le_bytes(),
        extent,
    }
}

fn state() -> State {
    let mut state = State::new(1, 10);
    for uid in 1..=5 {
        state.apply(Change::New(message(uid, 11))).unwrap();
    }
    state
}

fn seen() -> Marks {
    Marks { flags: Flags::SEEN, keywords: 0 }
}

#[test]
fn a_mark_that_changes_nothing_gives_no_new_modseq() {
    let mut state = state();
    let mark =
        |modseq| Change::Mark { uids: (2..=3).into(), marking: Marking::Add, by: seen(), modseq };
    state.apply(mark(12)).unwrap();
    state.apply(mark(13)).unwrap();
    assert_eq!(state.messages[1].modseq, 12);
    assert_eq!(state.modseq, 13);
    assert_eq!(state.changes_since(11).changed, [2, 3]);
    assert!(state.changes_since(12).changed.is_empty());
    assert_eq!(state.status().unseen, 3);
}

#[test]
fn what_is_gone_is_told_to_whoever_comes_again() {
    let mut state = state();
    state.apply(Change::Expunge { uids: (2..=3).into(), modseq: 12 }).unwrap();
    state.apply(Change::Expunge { uids: (5..=5).into(), modseq: 13 }).unwrap();
    assert_eq!(state.changes_since(12).vanished, UidSet::from(5..=5));
    let since = state.changes_since(11);
    assert_eq!(since.vanished.iter().collect::<Vec<_>>(), [2, 3, 5]);
    assert!(!since.forgotten && state.changes_since(9).forgotten);
    assert!(state.apply(Change::New(message(5, 14))).is_err(), "a UID is never given twice");
}

#[test]
fn messages_behind_removed_bytes_stand_before_now() {
    let mut state = state();
    state.apply(Change::Expunge { uids: [1, 3].into_iter().collect(), modseq: 12 }).unwrap();
    state.apply(Change::Removed(vec![(100, 200), (300, 400)])).unwrap();
    let starts: Vec<u64> = state.messages.iter().map(|m| m.extent.start).collect();
    assert_eq!(starts, [100, 200, 300]);
}
