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
    assert_eq!(state.messages.all().unwrap()[1].modseq, 12);
    assert_eq!(state.modseq, 13);
    assert_eq!(state.changes_since(11).unwrap().changed, [2, 3]);
    assert!(state.changes_since(12).unwrap().changed.is_empty());
    assert_eq!(state.status().unseen, 3);
}

#[test]
fn what_is_gone_is_told_to_whoever_comes_again() {
    let mut state = state();
    state.apply(Change::Expunge { uids: (2..=3).into(), modseq: 12 }).unwrap();
    state.apply(Change::Expunge { uids: (5..=5).into(), modseq: 13 }).unwrap();
    assert_eq!(state.changes_since(12).unwrap().vanished, UidSet::from(5..=5));
    let since = state.changes_since(11).unwrap();
    assert_eq!(since.vanished.iter().collect::<Vec<_>>(), [2, 3, 5]);
    assert!(!since.forgotten && state.changes_since(9).unwrap().forgotten);
    assert!(state.apply(Change::New(message(5, 14))).is_err(), "a UID is never given twice");
}

#[test]
fn messages_behind_removed_bytes_stand_before_now() {
    let mut state = state();
    state.apply(Change::Expunge { uids: [1, 3].into_iter().collect(), modseq: 12 }).unwrap();
    state.apply(Change::Edited(vec![(100, 200, 0), (300, 400, 0)])).unwrap();
    let starts: Vec<u64> = state.messages.all().unwrap().iter().map(|m| m.extent.start).collect();
    assert_eq!(starts, [100, 200, 300]);
}

#[test]
fn only_what_was_there_is_remembered_as_gone_and_not_without_end() {
    let mut state = state();
    state.apply(Change::Expunge { uids: (1..=u32::MAX).into(), modseq: 12 }).unwrap();
    assert_eq!(state.changes_since(11).unwrap().vanished, UidSet::from(1..=5));
    for uid in 6..=30_005 {
        state.apply(Change::New(message(uid, 13))).unwrap();
    }
    for first in 0..10_u32 {
        let uids = (6..=30_005).filter(|uid| uid % 20 == first * 2).collect();
        state.apply(Change::Expunge { uids, modseq: 14 + u64::from(first) }).unwrap();
        state.check().unwrap();
    }
    let ranges: usize = state.gone.iter().map(|(_, uids)| uids.ranges().len()).sum();
    assert!((5_000..=10_000).contains(&ranges), "{ranges}");
    assert_eq!(state.gone.last().unwrap().0, 23);
    assert!(
        state.changes_since(14).unwrap().forgotten
            && !state.changes_since(state.forgotten).unwrap().forgotten
    );
}

#[test]
fn what_can_not_follow_is_refused() {
    let mut state = state();
    let with = |uid, keywords| {
        let marks = Marks { keywords, ..Marks::default() };
        Change::New(Message { marks, ..message(uid, 12) })
    };
    assert!(state.apply(with(9, 1)).is_err(), "a keyword without a name");
    state.apply(Change::Keyword("a".into())).unwrap();
    assert!(state.apply(Change::Keyword("a".into())).is_err());
    assert!(state.apply(Change::Keyword(String::new())).is_err());
    assert!(state.apply(Change::Keyword("x".repeat(256))).is_err());
    state.apply(with(9, 1)).unwrap();
    assert!(state.apply(with(9, 1)).is_err());
    assert!(state.apply(Change::Edited(vec![(5, 6, 0), (4, 7, 0)])).is_err());
    assert!(state.apply(with(u32::MAX, 0)).is_err(), "UIDNEXT would not be one more");
    state.apply(with(u32::MAX - 1, 0)).unwrap();
    assert!(state.apply(with(u32::MAX, 0)).is_err());
    assert_eq!(state.check(), Ok(()));
}

#[test]
fn what_is_expunged_and_there_is_damaged() {
    for (gone, good) in [(1..=1, true), (2..=2, false), (1..=3, false), (5..=6, false)] {
        let mut state = state();
        state.apply(Change::Expunge { uids: (1..=1).into(), modseq: 12 }).unwrap();
        state.apply(Change::Expunge { uids: (5..=5).into(), modseq: 12 }).unwrap();
        state.gone = vec![(12, gone.clone().into())];
        assert_eq!(state.check().is_ok(), good, "{gone:?}");
    }
}
