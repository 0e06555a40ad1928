//! Messages that come into mailboxes: APPEND, COPY and MOVE.
//!
//! What is acknowledged is on stable storage. A MOVE copies first, and removes only what it has
//! copied; a copy that fails half way is taken back, and so is one of a message that could not be
//! removed.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::user::{Answer, End, User, bad, failed, no, ok};
use super::view::{View, system_flag};
use crate::imap::command::{AppendTo, Flag, SequenceSet};
use crate::imap::reply::{self, Code, Condition, Word};
use crate::mailbox::folders::Name;
use crate::mailbox::store::{self, Arrival, Flags, Store};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::{self, Error, NewMessage, Place, StageError, Stager};

/// Copies are put in together, up to so many octets.
const TOGETHER: u64 = 4 * 1024 * 1024;

/// A message that is coming by APPEND.
pub struct Incoming {
    tag: String,
    name: Name,
    place: Place,
    stager: Option<Stager>,
    failed: Option<Answer>,
    flags: Flags,
    keywords: Vec<String>,
    at: SystemTime,
}

/// System flags and keywords.
pub(super) fn marks_of(flags: &[Flag]) -> (Flags, Vec<String>) {
    let (mut system, mut keywords) = (Flags::default(), Vec::new());
    for flag in flags {
        match system_flag(flag) {
            Some(one) => system = system | one,
            None => keywords.push(flag.as_str().to_owned()),
        }
    }
    (system, keywords)
}

/// What is said where the folder that a message is to go to is not there.
fn try_create(answer: Answer) -> Answer {
    match answer {
        (condition, Some(Code::Word(Word::NonExistent)), text) => {
            (condition, Some(Code::Word(Word::TryCreate)), text)
        }
        answer => answer,
    }
}

fn stage_failed(error: &StageError) -> Answer {
    match error {
        StageError::TooLarge(_) => no(Some(Word::TooBig), error),
        StageError::Spool(_) => no(Some(Word::Unavailable), error),
    }
}

fn time(seconds: i64) -> SystemTime {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    let time =
        if seconds < 0 { UNIX_EPOCH.checked_sub(apart) } else { UNIX_EPOCH.checked_add(apart) };
    time.unwrap_or(UNIX_EPOCH)
}

impl User<'_> {
    /// A message is announced; whether it is wanted. Who does not wait for that is answered, too.
    pub(super) fn announced(&mut self, to: AppendTo) -> bool {
        let place = if to.message.size > self.largest {
            Err(no(Some(Word::TooBig), &format!("more than {} octets are not taken", self.largest)))
        } else if to.message.size == 0 {
            // Who has nothing to append wants to append nothing (RFC 3502 section 6.3.11).
            Err(no(None, "a message without an octet is none"))
        } else {
            self.place(&to.mailbox).map_err(try_create)
        };
        match place {
            Ok((name, place)) => {
                let (flags, keywords) = marks_of(&to.message.flags);
                self.incoming = Some(Incoming {
                    tag: to.tag,
                    name,
                    place,
                    stager: Some(Stager::of_mailbox(self.largest)),
                    failed: None,
                    flags,
                    keywords,
                    at: to.message.date.map_or_else(SystemTime::now, |date| time(date.at)),
                });
                true
            }
            Err(answer) => {
                self.say(&to.tag, &answer);
                false
            }
        }
    }

    /// Octets of the message.
    pub(super) fn chunk(&mut self, octets: &[u8]) {
        if let Some(incoming) = &mut self.incoming
            && let Some(stager) = &mut incoming.stager
            && let Err(error) = stager.push(octets)
        {
            incoming.failed = Some(stage_failed(&error));
            incoming.stager = None;
        }
    }

    /// The message is there, and the command is over.
    pub(super) fn appended(&mut self, whole: bool) -> Result<(), End> {
        let Some(incoming) = self.incoming.take().filter(|_| whole) else {
            return Ok(());
        };
        let tag = incoming.tag.clone();
        let selected = self.selected.as_mut().filter(|view| view.name == incoming.name);
        let answer = match append(incoming, selected.map(|view| view.store.as_mut())) {
            Ok((uid_validity, uids)) => {
                let uids = reply::set_text(uids.ranges().iter().cloned());
                let code = Code::AppendUid { uid_validity, uids };
                (Condition::Ok, Some(code), "it is there".to_owned())
            }
            Err(answer) => answer,
        };
        self.finish(&tag, &answer, true, false)
    }

    /// COPY, and MOVE.
    pub(super) fn copy(
        &mut self,
        tag: &str,
        uid: bool,
        set: &SequenceSet,
        to: &str,
        and_remove: bool,
    ) -> Result<(), End> {
        let answer = self.copy_answer(uid, set, to, and_remove);
        self.finish(tag, &answer, true, uid)
    }

    fn copy_answer(&mut self, uid: bool, set: &SequenceSet, to: &str, and_remove: bool) -> Answer {
        let place = match self.place(to).map_err(try_create) {
            Ok((_, place)) => place,
            Err(answer) => return answer,
        };
        let Some(view) = &mut self.selected else {
            return bad("select a mailbox first");
        };
        if and_remove && view.read_only {
            return no(Some(Word::NoPerm), "the mailbox is selected for reading only");
        }
        let Some(messages) = view.messages(set, uid) else {
            return bad("there is no message with such a number");
        };
        let uids: Vec<Uid> = messages.into_iter().map(|(_, uid)| uid).collect();
        if uids.is_empty() {
            return ok("no message is meant");
        }
        let mut target = match mailbox::open(place) {
            Ok(target) => target,
            Err(error) => return failed(&error),
        };
        let copies = match copy(view, &uids, target.as_mut()) {
            Ok(copies) => copies,
            Err(answer) => return answer,
        };
        let copied: Vec<(Uid, Uid)> = uids.iter().copied().zip(copies).collect();
        let code = |copied: &[(Uid, Uid)]| {
            let text = |set: UidSet| reply::set_text(set.ranges().iter().cloned());
            let from = text(copied.iter().map(|(from, _)| *from).collect());
            let to = text(copied.iter().map(|(_, to)| *to).collect());
            Code::CopyUid { uid_validity: target.version().uid_validity, from, to }
        };
        if !and_remove {
            return (Condition::Ok, Some(code(&copied)), "copied".to_owned());
        }
        let (gone, trouble) = remove(view, &uids.iter().copied().collect());
        let (moved, left): (Vec<_>, Vec<_>) =
            copied.into_iter().partition(|(from, _)| gone.contains(*from));
        // Before the messages go the client knows where they are (RFC 6851 section 4.3).
        if !moved.is_empty() {
            let code = code(&moved);
            reply::status(None, Condition::Ok, Some(&code), "moved", &mut self.out.buffer);
        }
        if left.is_empty() && trouble.is_none() {
            return ok("moved");
        }
        take_back(target.as_mut(), left.into_iter().map(|(_, to)| to));
        trouble.unwrap_or_else(|| no(Some(Word::ExpungeIssued), "some of them are gone"))
    }
}

/// Removes messages that were copied; which ones were, and what went wrong. What somebody else has
/// removed, or moved, just before was not.
fn remove(view: &mut View, uids: &UidSet) -> (UidSet, Option<Answer>) {
    if let Err(answer) = view.same() {
        return (UidSet::new(), Some(answer));
    }
    let error = match view.store.expunge(uids) {
        Ok(gone) => return (gone, None),
        Err(error) => error,
    };
    // Also what has only begun to go will be gone: that is finished first, before it is said of
    // any that it is there still.
    let looked = view.store.expunge(&UidSet::new()).and_then(|_| view.look());
    let is_left = |uid| matches!(looked, Ok(true)) && view.store.uids().contains(uid);
    (uids.iter().filter(|uid| !is_left(*uid)).collect(), Some(failed(&error)))
}

/// Others may have seen these copies, but nobody was told that they are there.
fn take_back(store: &mut dyn Store, copies: impl Iterator<Item = Uid>) {
    let _ = store.expunge(&copies.collect());
}

/// Puts a message into its mailbox, which may be open already.
fn append(
    mut incoming: Incoming,
    open: Option<&mut (dyn Store + 'static)>,
) -> Result<(u32, UidSet), Answer> {
    if let Some(answer) = incoming.failed {
        return Err(answer);
    }
    let stager = incoming.stager.take().unwrap_or_else(|| Stager::of_mailbox(0));
    let text = stager.finish().map_err(|error| stage_failed(&error))?;
    let mut opened;
    let store = if let Some(store) = open {
        store
    } else {
        opened = mailbox::open(incoming.place).map_err(|error| failed(&error))?;
        opened.as_mut()
    };
    let message =
        NewMessage { sender: Vec::new(), at: incoming.at, trace: Vec::new(), text: Rc::new(text) };
    let arrival = Arrival { message, flags: incoming.flags, keywords: incoming.keywords };
    let uids = store.append(&[arrival]).map_err(|error| failed(&error))?;
    Ok((store.version().uid_validity, uids.into_iter().collect()))
}

/// Copies messages, all or none; the UIDs of the copies.
fn copy(from: &mut View, uids: &[Uid], to: &mut dyn Store) -> Result<Vec<Uid>, Answer> {
    let mut copies: Vec<Uid> = Vec::new();
    let mut batch: Vec<Arrival> = Vec::new();
    let mut size = 0_u64;
    let mut done = Ok(());
    for (at, uid) in uids.iter().enumerate() {
        done = arrival(from.store.as_mut(), *uid).and_then(|arrival| {
            if from.is_other() {
                return Err(failed(&Error::Changed));
            }
            size = size.saturating_add(arrival.message.length());
            batch.push(arrival);
            if size >= TOGETHER || at.saturating_add(1) == uids.len() {
                size = 0;
                let new = to.append(&std::mem::take(&mut batch)).map_err(|error| failed(&error))?;
                copies.extend(new);
            }
            Ok(())
        });
        if done.is_err() {
            break;
        }
    }
    if done.is_err() && !copies.is_empty() {
        take_back(to, copies.iter().copied());
    }
    done.map(|()| copies)
}

fn arrival(from: &mut dyn Store, uid: Uid) -> Result<Arrival, Answer> {
    let message = from.message(uid).and_then(|message| message.ok_or(Error::Changed));
    let message = message.map_err(|error| failed(&error))?;
    let keywords = store::keywords(from.keywords(), message.marks.keywords);
    let keywords = keywords.map(str::to_owned).collect();
    let mut stager = Stager::of_mailbox(u64::MAX);
    let mut trouble = None;
    let read = from.read(uid, 0..u64::MAX, &mut |octets| {
        stager.push(octets).map_err(|error| {
            trouble = Some(stage_failed(&error));
            std::io::Error::other("it can't be kept")
        })
    });
    match (read, trouble) {
        (_, Some(answer)) => return Err(answer),
        (Err(error), None) => return Err(failed(&error)),
        (Ok(()), None) => {}
    }
    let text = stager.finish().map_err(|error| stage_failed(&error))?;
    let message_at = time(message.date);
    let (sender, trace) = (Vec::new(), Vec::new());
    let new = NewMessage { sender, at: message_at, trace, text: Rc::new(text) };
    Ok(Arrival { message: new, flags: message.marks.flags, keywords })
}
