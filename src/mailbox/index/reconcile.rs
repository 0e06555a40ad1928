//! What has happened to a mailbox, from what is found in it now: messages are known again by their
//! digests, whoever moved them.

use std::collections::{HashMap, HashSet};

use super::Trouble;
use super::names::Names;
use super::state::{Change, State};
use crate::mailbox::Error;
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::{Uid, UidSet};

/// A message as it is found in the mailbox itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What it is known again by.
    pub digest: [u8; 16],
    /// Where it stands.
    pub extent: Extent,
    /// Its octets, as a client gets them.
    pub size: u64,
    /// Those of its header.
    pub header: u32,
    /// When it arrived, in seconds since 1970.
    pub date: i64,
    /// Its flags.
    pub flags: Flags,
    /// Its keywords.
    pub keywords: Vec<String>,
    /// Another program has shown it to its user.
    pub old: bool,
    /// The UID that it has there, where that is to be believed: ascending, as they stand.
    pub uid: Option<Uid>,
}

/// What the mailbox itself says of UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// The largest UID that was given.
    pub uid_last: Uid,
}

/// Gives `emit` the changes that bring `state` in line with what was found, in the order in which it
/// stands there: all of the mailbox, or its last message, which stands at `from`, and all behind it.
/// All have one MODSEQ, the next one.
///
/// A message that is known keeps its UID wherever it stands now. One that is not gets the UID that
/// the mailbox has for it, or that it must have by those around it, if no message can have had it
/// before; or else the next one.
pub fn reconcile(
    state: &State,
    from: Option<u64>,
    found: &[Found],
    claims: Option<Claims>,
    emit: &mut dyn FnMut(Change),
) -> Result<(), Error> {
    let modseq = state.next_modseq();
    let meant = meant(state, from)?;
    let known = recognise(&meant, found);
    let mut names = Names::new(&state.keywords);
    let is_new = |at: &usize| known.get(*at).is_some_and(Option::is_none);

    let mut left: Vec<bool> = vec![true; meant.len()];
    for at in known.iter().flatten() {
        if let Some(left) = left.get_mut(*at) {
            *left = false;
        }
    }
    let gone = meant.iter().zip(&left).filter(|(_, left)| **left);
    let mut gone: Vec<Uid> = gone.map(|(message, _)| message.uid).collect();
    gone.sort_unstable();
    if !gone.is_empty() {
        emit(Change::Expunge { uids: gone.into_iter().collect(), modseq });
    }

    for (found, at) in found.iter().zip(&known) {
        if let Some(message) = at.and_then(|at| meant.get(at)) {
            known_again(message, found, &mut names, modseq, emit);
        }
    }

    let between: HashMap<usize, Uid> = between(found, from.is_none(), is_new)
        .filter(|(first, ..)| *first >= state.uid_next)
        .map(|(_, at, uid)| (at, uid))
        .collect();
    let claimed = |at: &usize| {
        let uid = found.get(*at).and_then(|found| found.uid);
        uid.filter(|uid| *uid >= state.uid_next).or_else(|| between.get(at).copied())
    };
    let (mut named, others): (Vec<usize>, Vec<usize>) =
        (0..found.len()).filter(is_new).partition(|at| claimed(at).is_some());
    named.sort_by_key(claimed);
    let mut next = state.uid_next;
    let mut add = |at: &usize, uid: Uid, emit: &mut dyn FnMut(Change)| {
        if let Some(found) = found.get(*at) {
            let keywords = names.bits(words(found), emit);
            emit(Change::New(message(found, uid, keywords, modseq)));
        }
    };
    for at in named {
        // Who has the same one as another is not to be believed after all.
        let uid = claimed(&at).unwrap_or(next).max(next);
        add(&at, uid, emit);
        next = uid.saturating_add(1);
    }
    let last = claims.map_or(0, |claims| claims.uid_last).saturating_add(1);
    if last > next {
        next = last;
        emit(Change::UidNext(next));
    }
    for at in others {
        add(&at, next, emit);
        next = next.saturating_add(1);
    }
    Ok(())
}

/// New messages without a UID of their own whose UIDs follow from those around them: as many stand
/// between two that have theirs as there are UIDs between these. (Dovecot has given them, and has not
/// written them yet.) For each, the first UID of its row, which of the found it is, and its own UID.
fn between(
    found: &[Found],
    is_whole: bool,
    is_new: impl Fn(&usize) -> bool,
) -> impl Iterator<Item = (Uid, usize, Uid)> {
    let (mut before, mut row) = (is_whole.then_some(0), 0..0);
    found.iter().enumerate().flat_map(move |(at, one)| {
        let mut fitting = 0..0;
        let mut first = 0;
        match one.uid {
            Some(uid) => {
                first = before.map_or(0, |before: Uid| before.saturating_add(1));
                if first > 0 && uid.saturating_sub(first) as usize == row.len() {
                    fitting = row.clone();
                }
                (before, row) = (Some(uid), at + 1..at + 1);
            }
            None if is_new(&at) => row.end = at + 1,
            // What it has is between them, or is not: that is not known.
            None => (before, row) = (None, at + 1..at + 1),
        }
        fitting.zip(first..).map(move |(at, uid)| (first, at, uid))
    })
}

fn message(found: &Found, uid: Uid, keywords: u64, modseq: u64) -> Message {
    Message {
        uid,
        header: found.header,
        marks: Marks { flags: found.flags, keywords },
        modseq,
        size: found.size,
        date: found.date,
        digest: found.digest,
        extent: Extent {
            stored: Marks { flags: found.flags, keywords },
            named: found.uid == Some(uid),
            ..found.extent
        },
    }
}

fn words(found: &Found) -> impl Iterator<Item = &str> {
    found.keywords.iter().map(String::as_str)
}

/// The same where nothing is known of the mailbox, and all of it was found; what others have shown
/// already is no more recent. What was found is given up on the way, so that a large mailbox is not
/// in memory twice.
pub fn list(state: &mut State, found: Vec<Found>, claims: Option<Claims>) -> Result<(), Trouble> {
    let modseq = state.next_modseq();
    let mut names = Names::new(&[]);
    let mut recent = 0;
    let mut add = |state: &mut State, found: &Found, uid: Option<Uid>| {
        let mut made = Vec::new();
        let keywords = names.bits(words(found), &mut |change| made.push(change));
        made.into_iter().try_for_each(|change| state.apply(change))?;
        let uid = uid.unwrap_or(0).max(state.uid_next);
        if found.old {
            recent = uid;
        }
        state.apply(Change::New(message(found, uid, keywords, modseq)))
    };
    let between: Vec<(Uid, usize, Uid)> = between(&found, true, |_| true).collect();
    let mut between = between.into_iter().peekable();
    let (mut others, mut at) = (Vec::new(), 0..);
    each_given_up(found, |found| {
        let at = at.next();
        let uid = found
            .uid
            .or_else(|| between.next_if(|(_, other, _)| Some(*other) == at).map(|(.., uid)| uid));
        if claims.is_some() && uid.is_none() {
            others.push(found);
            return Ok(());
        }
        add(state, &found, uid)
    })?;
    if let Some(claims) = claims {
        state.apply(Change::UidNext(claims.uid_last.saturating_add(1)))?;
    }
    each_given_up(others, |found| add(state, &found, None))?;
    state.apply(Change::Recent(recent))
}

/// One after the other; the memory shrinks on the way.
fn each_given_up<T>(
    mut all: Vec<T>,
    mut action: impl FnMut(T) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    all.reverse();
    while let Some(one) = all.pop() {
        action(one)?;
        if all.len().is_multiple_of(4096) {
            all.shrink_to_fit();
        }
    }
    Ok(())
}

/// The messages that are looked at, as they stand.
fn meant(state: &State, from: Option<u64>) -> Result<Vec<Message>, Error> {
    let Some(from) = from else {
        return state.messages.in_file_order();
    };
    let mut last = Vec::new();
    for message in state.messages.on_pages(|page| page.start >= from) {
        let message = message?;
        if message.extent.start >= from {
            last = vec![message];
        }
    }
    Ok(last)
}

/// What has changed of a message that is still there.
fn known_again(
    message: &Message,
    found: &Found,
    names: &mut Names<'_>,
    modseq: u64,
    emit: &mut dyn FnMut(Change),
) {
    let ours = message.marks;
    let stored = Marks { flags: found.flags, keywords: names.bits(words(found), emit) };
    // What somebody else changed in the mailbox since it was last looked at.
    let flags = stored.flags ^ message.extent.stored.flags;
    let keywords = stored.keywords ^ message.extent.stored.keywords;
    let marks = Marks {
        flags: (ours.flags & !flags) | (stored.flags & flags),
        keywords: (ours.keywords & !keywords) | (stored.keywords & keywords),
    };
    let uids = UidSet::from(message.uid..=message.uid);
    if marks != ours {
        emit(Change::Mark { uids, marking: Marking::Replace, by: marks, modseq });
    }
    let unwritten = message.extent.unwritten || marks != stored;
    let named = found.uid == Some(message.uid);
    let extent = Extent { stored, unwritten, named, ..found.extent };
    if extent != message.extent || marks != ours {
        emit(Change::Placed { uid: message.uid, extent });
    }
}

/// For each that was found, which of the messages it is.
fn recognise(meant: &[Message], found: &[Found]) -> Vec<Option<usize>> {
    // Nearly always they stand as they stood, with new ones behind.
    // Of two that are the same next to each other the first may be gone.
    let is = |(message, found): &(&Message, &Found)| {
        message.digest == found.digest && found.uid.is_none_or(|uid| uid == message.uid)
    };
    let same = meant.iter().zip(found).take_while(is).count();
    let mut known: Vec<Option<usize>> = (0..same).map(Some).collect();
    known.resize(found.len(), None);

    // The others by their digests; of those that are the same, by what UID the mailbox has for
    // them, and then in their order.
    let mut likes: HashMap<[u8; 16], Vec<usize>> = HashMap::new();
    for (at, message) in meant.iter().enumerate().skip(same).rev() {
        likes.entry(message.digest).or_default().push(at);
    }
    let uid = |at: &usize| meant.get(*at).map(|message| message.uid);
    for by_uid in [true, false] {
        for (found, known) in found.iter().zip(&mut known).skip(same) {
            let Some(likes) = likes.get_mut(&found.digest).filter(|_| known.is_none()) else {
                continue;
            };
            if !by_uid {
                *known = likes.pop();
            } else if found.uid.is_some()
                && let Some(at) = likes.iter().position(|at| uid(at) == found.uid)
            {
                *known = Some(likes.remove(at));
            }
        }
    }
    keep_undeleted(meant, found, &mut known);
    known
}

/// Of messages that are the same, and have no UID of their own there, those that are gone are the
/// ones that were to be deleted: who removed them may have been killed before he could say so.
/// Where the marks in the mailbox say that it is the other one, that counts.
fn keep_undeleted(meant: &[Message], found: &[Found], known: &mut [Option<usize>]) {
    let kept: HashSet<usize> = known.iter().copied().flatten().collect();
    if kept.len() == meant.len() {
        return;
    }
    let is_to_go =
        |message: &Message| message.extent.doomed || message.marks.flags.has(Flags::DELETED);
    let mut gone: HashMap<[u8; 16], Vec<usize>> = HashMap::new();
    for (at, message) in meant.iter().enumerate().rev() {
        if !kept.contains(&at) && !is_to_go(message) {
            gone.entry(message.digest).or_default().push(at);
        }
    }
    for (found, known) in found.iter().zip(known) {
        // The marks that stand in the mailbox may tell which of them it is.
        let has_its_marks =
            |at: &usize| meant.get(*at).is_some_and(|m| m.extent.stored.flags == found.flags);
        if found.uid.is_none()
            && !found.flags.has(Flags::DELETED)
            && let Some(known) = known
            && meant.get(*known).is_some_and(is_to_go)
            && let Some(others) = gone.get_mut(&found.digest)
        {
            let last = others.len().checked_sub(1).filter(|_| !has_its_marks(known));
            if let Some(other) = others.iter().rposition(has_its_marks).or(last) {
                *known = others.remove(other);
            }
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
