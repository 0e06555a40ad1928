use super::{Claims, Found, list, reconcile};
use crate::mailbox::index::{Change, State};
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};

/// Messages named by letters, where they stand one behind the other.
fn found(letters: &str) -> Vec<Found> {
    (0..)
        .zip(letters.bytes())
        .map(|(at, letter)| Found {
            digest: [letter; 16],
            extent: Extent { start: at * 100, length: 90, ..Extent::default() },
            ..Found::default()
        })
        .collect()
}

fn follow(state: &mut State, found: &[Found], claims: Option<Claims>) -> usize {
    let mut changes = Vec::new();
    reconcile(state, None, found, claims, &mut |change| changes.push(change)).unwrap();
    let count = changes.len();
    for change in changes {
        state.apply(change).unwrap();
    }
    count
}

/// The messages in the order of their UIDs.
fn shown(state: &State) -> Vec<(u32, char, u64)> {
    let each = state.messages.all().unwrap().into_iter();
    each.map(|m| (m.uid, char::from(m.digest[0]), m.extent.start / 100)).collect()
}

fn state(letters: &str) -> State {
    let mut state = State::new(1, 10);
    follow(&mut state, &found(letters), None);
    state
}

#[test]
fn what_is_listed_for_the_first_time_is_as_if_it_had_come_later() {
    for (uids, last) in [("", 0), ("1234567", 7), ("1.3.5.9", 9), ("...12", 20), (".......", 4)] {
        let mut messages = found("abcabxy");
        for (message, uid) in messages.iter_mut().zip(uids.chars()) {
            message.uid = uid.to_digit(10);
            message.old = uid == '1' || uid == '2';
            message.keywords = vec![format!("word{uid}"), "both".into()];
        }
        let claims = (last > 0).then_some(Claims { uid_validity: 5, uid_last: last });
        let (mut one, mut other) = (State::new(5, 10), State::new(5, 10));
        follow(&mut one, &messages, claims);
        list(&mut other, messages, claims).unwrap();
        let old = one.messages.all().unwrap();
        let old = old.iter().filter(|m| m.extent.named && m.uid <= 2).map(|m| m.uid);
        assert_eq!(other.recent, old.max().unwrap_or(0), "{uids}");
        one.recent = other.recent;
        one.keywords.sort();
        other.keywords.sort();
        for messages in [&mut one.messages, &mut other.messages] {
            let count = |message: &mut Message| {
                message.marks.keywords = u64::from(message.marks.keywords.count_ones());
            };
            messages.change(&(1..=u32::MAX).into(), count).unwrap();
        }
        assert_eq!(one, other, "{uids}");
    }
}

#[test]
fn nothing_changed_is_no_change() {
    assert_eq!(follow(&mut state("abcab"), &found("abcab"), None), 0);
}

#[test]
fn messages_keep_their_uids_wherever_they_stand() {
    let mut state = state("abcd");
    follow(&mut state, &found("daxc"), None);
    assert_eq!(shown(&state), [(1, 'a', 1), (3, 'c', 3), (4, 'd', 0), (5, 'x', 2)]);
    assert_eq!(state.changes_since(11).unwrap().vanished.iter().collect::<Vec<_>>(), [2]);
    assert_eq!(state.changes_since(11).unwrap().changed, [5]);
}

#[test]
fn where_a_part_was_looked_at_the_rest_is_as_it_was() {
    let mut state = state("abab");
    let mut changes = Vec::new();
    let tail = &found("abaxc")[3..];
    reconcile(&state, Some(300), tail, None, &mut |change| changes.push(change)).unwrap();
    for change in changes {
        state.apply(change).unwrap();
    }
    assert_eq!(shown(&state), [(1, 'a', 0), (2, 'b', 1), (3, 'a', 2), (5, 'x', 3), (6, 'c', 4)]);
}

#[test]
fn of_equal_messages_the_first_keeps_the_first_uid() {
    let mut state = state("aba");
    follow(&mut state, &found("ba"), None);
    assert_eq!(shown(&state), [(1, 'a', 1), (2, 'b', 0)]);
    let mut messages = found("bxa");
    messages[2].uid = Some(3);
    let mut state = self::state("aba");
    follow(&mut state, &messages, None);
    assert_eq!(shown(&state), [(2, 'b', 0), (3, 'a', 2), (4, 'x', 1)], "the mailbox knew which");
}

#[test]
fn uids_of_the_mailbox_count_where_nobody_had_them() {
    let mut messages = found("abcd");
    messages[0].uid = Some(6);
    messages[2].uid = Some(9);
    let claims = Some(Claims { uid_validity: 5, uid_last: 20 });
    let mut state = State::new(5, 10);
    follow(&mut state, &messages, claims);
    assert_eq!(shown(&state), [(6, 'a', 0), (9, 'c', 2), (21, 'b', 1), (22, 'd', 3)]);
    let mut messages = found("abcde");
    messages[4].uid = Some(3);
    follow(&mut state, &messages, claims);
    assert_eq!(state.messages.all().unwrap().last().unwrap().uid, 23, "3 may have been another's");
}

#[test]
fn a_uid_that_a_neighbour_gave_and_has_not_written_follows_from_those_around_it() {
    let mut messages = found("abcdef");
    for (at, uid) in [(1, 2), (4, 5)] {
        messages[at].uid = Some(uid);
    }
    let claims = Some(Claims { uid_validity: 5, uid_last: 5 });
    let mut state = State::new(5, 10);
    follow(&mut state, &messages, claims);
    let all = [(1, 'a', 0), (2, 'b', 1), (3, 'c', 2), (4, 'd', 3), (5, 'e', 4), (6, 'f', 5)];
    assert_eq!(shown(&state), all);
    // Not where another one has had it.
    let mut messages = found("abxef");
    for (at, uid) in [(1, 2), (3, 4), (4, 6)] {
        messages[at].uid = Some(uid);
    }
    follow(&mut state, &messages, claims);
    assert_eq!(shown(&state)[4..], [(7, 'x', 2)]);
}

#[test]
fn what_a_neighbour_marks_and_what_we_marked_come_together() {
    let mut state = state("ab");
    let by = Marks { flags: Flags::FLAGGED, keywords: 0 };
    let mark = Change::Mark { uids: (1..=1).into(), marking: Marking::Add, by, modseq: 12 };
    state.apply(mark).unwrap();
    let mut messages = found("ab");
    messages[0].flags = Flags::SEEN;
    messages[1].flags = Flags::ANSWERED;
    follow(&mut state, &messages, None);
    assert_eq!(state.messages.all().unwrap()[0].marks.flags, Flags::SEEN | Flags::FLAGGED);
    assert!(state.messages.all().unwrap()[0].extent.unwritten);
    assert_eq!(state.messages.all().unwrap()[1].marks.flags, Flags::ANSWERED);
    assert!(!state.messages.all().unwrap()[1].extent.unwritten);
    assert_eq!(state.changes_since(12).unwrap().changed, [1, 2]);
    state.apply(Change::Written((1..=1).into())).unwrap();
    messages[0].flags = Flags::FLAGGED;
    follow(&mut state, &messages, None);
    assert_eq!(
        state.messages.all().unwrap()[0].marks.flags,
        Flags::FLAGGED,
        "unseen again, by the neighbour"
    );
}

#[test]
fn keywords_of_the_mailbox_get_their_bits_and_too_many_are_left_out() {
    let mut messages = found("ab");
    messages[0].keywords = vec!["$Junk".into(), "work".into()];
    messages[1].keywords = (0..70).map(|n| format!("k{n}")).collect();
    let mut state = State::new(1, 10);
    follow(&mut state, &messages, None);
    assert_eq!(state.messages.all().unwrap()[0].marks.keywords, 0b11);
    assert_eq!(state.messages.all().unwrap()[1].marks.keywords, !0b11);
    assert_eq!(state.keywords.len(), 64);
    assert_eq!(follow(&mut state, &messages, None), 0);
}

#[test]
fn of_equal_messages_next_to_each_other_the_one_that_is_there_keeps_its_uid_and_marks() {
    // The mailbox itself has their UIDs.
    let mut state = state("abbc");
    let mut messages = found("abc");
    messages[1].uid = Some(3);
    follow(&mut state, &messages, None);
    assert_eq!(shown(&state), [(1, 'a', 0), (3, 'b', 1), (4, 'c', 2)]);
}

#[test]
fn of_equal_messages_the_ones_that_are_gone_are_those_that_were_to_be_deleted() {
    let mut state = state("abbc");
    let modseq = state.next_modseq();
    let by = Marks { flags: Flags::DELETED, keywords: 0 };
    let change = Change::Mark { uids: (2..=2).into(), marking: Marking::Add, by, modseq };
    state.apply(change).unwrap();
    follow(&mut state, &found("abc"), None);
    assert_eq!(shown(&state), [(1, 'a', 0), (3, 'b', 1), (4, 'c', 2)]);
    assert_eq!(state.messages.all().unwrap()[1].marks, Marks::default());
}

#[test]
fn of_equal_messages_the_marks_in_the_mailbox_tell_which_one_is_there() {
    let mut state = state("abbc");
    let mut messages = found("abbc");
    messages[1].flags = Flags::SEEN;
    follow(&mut state, &messages, None);
    let modseq = state.next_modseq();
    let by = Marks { flags: Flags::DELETED, keywords: 0 };
    let change = Change::Mark { uids: (2..=2).into(), marking: Marking::Add, by, modseq };
    state.apply(change).unwrap();
    let mut messages = found("abc");
    messages[1].flags = Flags::SEEN;
    follow(&mut state, &messages, None);
    assert_eq!(shown(&state), [(1, 'a', 0), (2, 'b', 1), (4, 'c', 2)]);
}
