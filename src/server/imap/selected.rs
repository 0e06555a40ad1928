//! Commands about the messages of the selected mailbox (RFC 9051 section 6.4).

use super::fetch::{self, Failure, Fetch as Telling};
use super::message::marks_of;
use super::search::{self, CHARSETS, Context};
use super::user::{Answer, End, User, bad, failed, no, ok};
use super::view::View;
use crate::imap::command::{
    Command, Fetch, FetchItem, Return, Search, SequenceSet, Store, StoreAction,
};
use crate::imap::reply::{self, Code, Condition, Esearch, FetchLine, Word};
use crate::imap::structure::Revision;
use crate::mailbox::Error;
use crate::mailbox::store::{Flags, Marking, Marks, keyword};
use crate::mailbox::uids::{Uid, UidSet};

const NOTHING_SELECTED: &str = "select a mailbox first";
const NO_SUCH_NUMBER: &str = "there is no message with such a number";
const READ_ONLY: &str = "the mailbox is selected for reading only";

impl View {
    /// Looks at what others did. What is changed for good is changed only where the UIDs that the
    /// client means are still those of the same messages.
    pub(super) fn same(&mut self) -> Result<(), Answer> {
        match self.look() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(&Error::Changed)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The messages that were told of and are to go.
    pub(super) fn deleted(&self) -> Result<UidSet, Error> {
        let mut deleted = UidSet::new();
        if self.store.status().deleted == 0 {
            return Ok(deleted);
        }
        for uid in self.told().uids().and(self.store.uids()).iter() {
            let message = self.store.message(uid)?;
            if message.is_some_and(|message| message.marks.flags.has(Flags::DELETED)) {
                deleted.insert(uid);
            }
        }
        Ok(deleted)
    }
}

impl User<'_> {
    /// A command that needs a selected mailbox.
    pub(super) fn run_selected(&mut self, tag: &str, command: Command) -> Result<(), End> {
        if self.selected.is_none() {
            return self.finish(tag, &bad(NOTHING_SELECTED), true, false);
        }
        match command {
            Command::Check => self.finish(tag, &ok("done"), true, false),
            Command::Close => {
                self.close(true);
                self.finish(tag, &ok("closed"), true, false)
            }
            Command::Unselect => {
                self.close(false);
                self.finish(tag, &ok("left"), true, false)
            }
            Command::Expunge(set) => {
                let answer = self.expunge(set.as_ref());
                self.finish(tag, &answer, true, set.is_some())
            }
            Command::Search { uid, search } => {
                let answer = self.search(tag, uid, &search);
                self.finish(tag, &answer, uid, uid)
            }
            Command::Fetch { uid, fetch } => {
                let answer = self.fetch(uid, &fetch)?;
                self.finish(tag, &answer, uid, uid)
            }
            Command::Store { uid, store } => {
                let answer = self.store(uid, &store);
                self.finish(tag, &answer, uid, uid)
            }
            Command::Copy { uid, set, mailbox } => self.copy(tag, uid, &set, &mailbox, false),
            Command::Move { uid, set, mailbox } => self.copy(tag, uid, &set, &mailbox, true),
            _ => self.finish(tag, &bad("that is no command here"), true, false),
        }
    }

    fn expunge(&mut self, set: Option<&SequenceSet>) -> Answer {
        let Some(view) = &mut self.selected else {
            return bad(NOTHING_SELECTED);
        };
        if view.read_only {
            return no(Some(Word::NoPerm), READ_ONLY);
        }
        // What others have marked meanwhile goes, too.
        if let Err(answer) = view.same() {
            return answer;
        }
        let mut deleted = match view.deleted() {
            Ok(deleted) => deleted,
            Err(error) => return failed(&error),
        };
        if let Some(set) = set {
            let meant = view.messages(set, true).unwrap_or_default();
            let meant = meant.into_iter().map(|(_, uid)| uid);
            deleted = meant.filter(|uid| deleted.contains(*uid)).collect();
        }
        match view.store.expunge(&deleted) {
            Ok(_) => ok("expunged"),
            Err(error) => failed(&error),
        }
    }

    fn store(&mut self, uid: bool, store: &Store) -> Answer {
        let Some(view) = &mut self.selected else {
            return bad(NOTHING_SELECTED);
        };
        let Some(messages) = view.messages(&store.set, uid) else {
            return bad(NO_SUCH_NUMBER);
        };
        if view.read_only {
            return no(Some(Word::NoPerm), READ_ONLY);
        }
        if let Err(answer) = view.same() {
            return answer;
        }
        let (flags, keywords) = marks_of(&store.flags);
        let marking = match store.action {
            StoreAction::Add => Marking::Add,
            StoreAction::Remove => Marking::Remove,
            StoreAction::Replace => Marking::Replace,
        };
        let uids: UidSet = messages.iter().map(|(_, uid)| *uid).collect();
        // What the client makes of it by itself: what others did is told of all the same.
        let known = if store.silent { view.known(&uids) } else { Ok(Vec::new()) };
        let known = match known {
            Ok(known) => known,
            Err(error) => return failed(&error),
        };
        let refused = match view.store.mark(&uids, marking, flags, &keywords, store.unchanged_since)
        {
            Ok(refused) => refused,
            Err(error) => return failed(&error),
        };
        view.tell_new_keywords(&mut self.out.buffer);
        let bits = keywords.iter().filter_map(|name| keyword(view.store.keywords(), name));
        let bits = bits.fold(0, |bits, bit| bits | bit);
        let by = Marks { flags, keywords: bits };
        let mut gone = false;
        for (uid, marks) in known {
            if !refused.contains(uid) {
                view.has_told(uid, marking.of(marks, by));
            }
        }
        for (number, uid_of) in &messages {
            if !view.store.uids().contains(*uid_of) {
                gone = true;
            }
            if store.silent || refused.contains(*uid_of) {
                continue;
            }
            let now = match view.store.message(*uid_of) {
                Ok(Some(message)) => message.marks,
                Ok(None) => continue,
                Err(error) => return failed(&error),
            };
            let mut line = FetchLine::begin(*number, &mut self.out.buffer);
            if uid {
                let item = FetchItem::Uid;
                line.number(&item, (*uid_of).into(), &mut self.out.buffer);
            }
            let flags = view.flags(*uid_of, now, self.rev2);
            line.flags(flags, &mut self.out.buffer);
            line.end(&mut self.out.buffer);
            view.has_told(*uid_of, now);
        }
        if !refused.is_empty() {
            let numbers = messages.iter().filter(|(_, uid)| refused.contains(*uid));
            let numbers: UidSet = numbers.map(|(n, u)| if uid { *u } else { *n }).collect();
            let set = reply::set_text(numbers.ranges().iter().cloned());
            return (Condition::Ok, Some(Code::Modified(set)), "but for those".to_owned());
        }
        if gone && !uid && !store.silent {
            return no(Some(Word::ExpungeIssued), "some of them are gone");
        }
        ok("stored")
    }

    fn fetch(&mut self, by_uid: bool, fetch: &Fetch) -> Result<Answer, End> {
        let Some(view) = &mut self.selected else {
            return Ok(bad(NOTHING_SELECTED));
        };
        let Some(messages) = view.messages(&fetch.set, by_uid) else {
            return Ok(bad(NO_SUCH_NUMBER));
        };
        let mut items = fetch.items.clone();
        if by_uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        let with_flags = items.contains(&FetchItem::Flags);
        // Nothing is marked in a mailbox that may be another one.
        let mut sets_seen =
            fetch::sets_seen(&items) && !view.read_only && matches!(view.look(), Ok(true));
        let revision = if self.rev2 { Revision::Two } else { Revision::One };
        let (mut gone, mut trouble) = (false, None);
        for (number, uid) in messages {
            if view.is_other() {
                // The answer is that the session ends.
                break;
            }
            let message = match view.store.message(uid) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    gone = true;
                    continue;
                }
                Err(error) => {
                    trouble = Some(failed(&error));
                    continue;
                }
            };
            if fetch.changed_since.is_some_and(|modseq| message.modseq <= modseq) {
                continue;
            }
            let mut becomes_seen = sets_seen && !message.marks.flags.has(Flags::SEEN);
            if becomes_seen {
                let one = UidSet::from(uid..=uid);
                let marked = view.store.mark(&one, Marking::Add, Flags::SEEN, &[], None);
                if let Err(error) = marked {
                    // What can't be marked, as on a disk that is full, can still be read.
                    view.warn(&error);
                    (sets_seen, becomes_seen) = (false, false);
                }
            }
            let now = if becomes_seen { view.store.message(uid).ok().flatten() } else { None };
            let marks = now.map_or(message.marks, |message| message.marks);
            // A look at the mailbox, for a text, may have brought new ones of others.
            view.tell_new_keywords(&mut self.out.buffer);
            let flags: Vec<String> = if with_flags || becomes_seen {
                view.flags(uid, marks, self.rev2).into_iter().map(str::to_owned).collect()
            } else {
                Vec::new()
            };
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let mut wanted = &items;
            let with_seen;
            if becomes_seen && !with_flags {
                with_seen = [&items[..], &[FetchItem::Flags]].concat();
                wanted = &with_seen;
            }
            let mut telling =
                Telling { store: view.store.as_mut(), structures: &mut view.structures, revision };
            match telling.message(number, uid, &flags, wanted, &mut self.out) {
                Ok(()) if with_flags || becomes_seen => view.has_told(uid, marks),
                Ok(()) => {}
                Err(Failure::Gone) => gone = true,
                Err(Failure::UnknownEncoding) => {
                    let text = "the encoding of a part is unknown";
                    trouble = Some(no(Some(Word::UnknownCte), text));
                }
                Err(Failure::Unreadable(error)) => trouble = Some(failed(&error)),
                Err(Failure::Broken(error)) => return Err(End::Gone(error)),
            }
        }
        Ok(match trouble {
            Some(answer) => answer,
            None if gone && !by_uid => no(Some(Word::ExpungeIssued), "some of them are gone"),
            None => ok("fetched"),
        })
    }

    fn search(&mut self, tag: &str, uid: bool, search: &Search) -> Answer {
        let Some(view) = &mut self.selected else {
            return bad(NOTHING_SELECTED);
        };
        let returns = search.returns.as_deref();
        let has = |one| returns.is_some_and(|returns| returns.contains(&one));
        let told: Vec<(u32, Uid)> = view.told().numbered(1..=u32::MAX).collect();
        let context = Context {
            largest_number: view.told().count(),
            largest_uid: view.told().uids().last().unwrap_or(0),
            saved: &view.saved,
        };
        let prepared = search::prepare(search, &context);
        if has(Return::Save) {
            // It may fail, and then nothing is saved (RFC 5182 section 2.1).
            view.saved = UidSet::new();
        }
        let Ok(program) = prepared else {
            let code = Code::BadCharset(CHARSETS.to_vec());
            return (Condition::No, Some(code), "that charset is unknown".to_owned());
        };
        let mut matching = |(number, uid)| {
            let recent = view.is_recent(uid);
            let store = view.store.as_mut();
            let matches = program.matches(store, &mut view.structures, number, uid, recent);
            matches.map(|matches| matches.then_some((number, uid))).transpose()
        };
        // Of MIN and MAX alone those between need not be looked at.
        let ends_only =
            (has(Return::Min) || has(Return::Max)) && !has(Return::All) && !has(Return::Count);
        let mut told = told.into_iter();
        let found: Result<Vec<(u32, Uid)>, Error> = if ends_only {
            let min = if has(Return::Min) { told.find_map(&mut matching) } else { None };
            let max = if has(Return::Max) { told.rev().find_map(&mut matching) } else { None };
            min.into_iter().chain(max).collect()
        } else {
            told.filter_map(matching).collect()
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return failed(&error),
        };
        let (min, max) = (found.first().copied(), found.last().copied());
        if has(Return::Save) {
            // Of MIN and MAX alone only those are saved (RFC 9051 section 6.4.4.4).
            view.saved = found.iter().map(|(_, uid)| *uid).collect();
        }
        let shown = |(number, uid_of): (u32, Uid)| if uid { uid_of } else { number };
        let out = &mut self.out.buffer;
        if returns.is_none() && !self.rev2 {
            reply::search(found.into_iter().map(shown), None, out);
            return ok("searched");
        }
        let returns = returns.unwrap_or_default();
        if has(Return::Save) && returns.iter().all(|one| *one == Return::Save) {
            return ok("saved");
        }
        let all = returns.is_empty() || has(Return::All);
        let all = all.then(|| found.iter().copied().map(shown).collect::<UidSet>());
        let answer = Esearch {
            tag,
            uid,
            min: min.filter(|_| has(Return::Min)).map(shown),
            max: max.filter(|_| has(Return::Max)).map(shown),
            all: all.map(|all| all.ranges().to_vec()),
            count: has(Return::Count).then_some(found.len() as u64),
            modseq: None,
        };
        reply::esearch(&answer, out);
        ok("searched")
    }
}
