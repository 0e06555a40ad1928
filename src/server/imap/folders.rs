//! Commands about folders (RFC 9051 sections 6.3.1 to 6.3.11).

use super::user::{Answer, End, User, failed, folder_failed, no, ok};
use super::view::View;
use crate::imap::command::{List, ReturnOption, SelectOption, StatusItem};
use crate::imap::reply::{self, Code, Condition, ListLine, Word};
use crate::mailbox::folders::{Entry, Name, SpecialUse, matches};
use crate::mailbox::{self, Structures, store};

/// Between the words of names.
const DELIMITER: Option<char> = Some('/');

impl User<'_> {
    /// SELECT, and EXAMINE.
    pub(super) fn select(&mut self, tag: &str, name: &str, read_only: bool) -> Result<(), End> {
        if self.selected.is_some() {
            self.close(false);
            let code = Code::Word(Word::Closed);
            let out = &mut self.out.buffer;
            reply::status(None, Condition::Ok, Some(&code), "the one before is closed", out);
        }
        let view = self.place(name).and_then(|(name, place)| {
            let structures = Structures::open(&place);
            mailbox::open(place)
                .map(|store| View::new(name, store, structures, read_only))
                .map_err(|error| failed(&error))
        });
        let mut view = match view {
            Ok(view) => view,
            Err(answer) => return self.finish(tag, &answer, true, false),
        };
        let out = &mut self.out.buffer;
        view.tell_flags(out);
        reply::numbered(view.told().count(), "EXISTS", out);
        if !self.rev2 {
            reply::numbered(view.recent(), "RECENT", out);
            if let Some(number) = view.first_unseen() {
                let code = Code::Unseen(number);
                reply::status(None, Condition::Ok, Some(&code), "the first unseen one", out);
            }
        }
        let status = view.store.status();
        let code = Code::UidValidity(status.uid_validity);
        reply::status(None, Condition::Ok, Some(&code), "UIDs are good for that", out);
        let code = Code::UidNext(status.uid_next);
        reply::status(None, Condition::Ok, Some(&code), "the next UID", out);
        if self.rev2 {
            let name = view.name.as_str();
            let line = ListLine { delimiter: DELIMITER, name, ..ListLine::default() };
            reply::list_line(&line, true, out);
        }
        self.warnings.append(&mut view.take_warnings());
        self.selected = Some(view);
        let word = if read_only { Word::ReadOnly } else { Word::ReadWrite };
        self.say(tag, &(Condition::Ok, Some(Code::Word(word)), "selected".to_owned()));
        Ok(())
    }

    pub(super) fn create(&mut self, name: &str, uses: &[String]) -> Answer {
        let uses: Option<Vec<SpecialUse>> = uses.iter().map(|one| SpecialUse::parse(one)).collect();
        let Some(uses) = uses else {
            return no(Some(Word::UseAttr), "there is no such use of a mailbox");
        };
        // A name that ends with a slash is meant for what will be below it.
        let (name, is_place) = match name.strip_suffix('/') {
            Some(name) => (name, uses.is_empty()),
            None => (name, false),
        };
        let name = match Name::parse(name) {
            Ok(name) => name,
            Err(why) => return no(Some(Word::Cannot), &why),
        };
        let made = if is_place {
            self.folders.create_place(&name)
        } else {
            self.folders.create(&name, &uses)
        };
        made.map_or_else(|error| folder_failed(&error), |()| ok("made"))
    }

    pub(super) fn delete(&mut self, name: &str) -> Answer {
        let name = match Name::parse(name) {
            Ok(name) => name,
            Err(why) => return no(Some(Word::Cannot), &why),
        };
        if self.selected.as_ref().is_some_and(|view| view.name == name) {
            return no(Some(Word::InUse), "it is selected; leave it first");
        }
        self.folders.delete(&name).map_or_else(|error| folder_failed(&error), |()| ok("deleted"))
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Answer {
        let to = to.strip_suffix('/').unwrap_or(to);
        let (from, to) = match (Name::parse(from), Name::parse(to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(why), _) | (_, Err(why)) => return no(Some(Word::Cannot), &why),
        };
        let is_in_it = |view: &View| view.name == from || view.name.is_below(&from);
        if !from.is_inbox() && self.selected.as_ref().is_some_and(is_in_it) {
            return no(Some(Word::InUse), "it is selected; leave it first");
        }
        match self.folders.rename(&from, &to) {
            Ok(()) => ok("renamed"),
            Err(error) => folder_failed(&error),
        }
    }

    pub(super) fn subscribe(&mut self, name: &str, on: bool) -> Answer {
        let name = match Name::parse(name) {
            Ok(name) => name,
            Err(why) => return no(Some(Word::Cannot), &why),
        };
        let done = if on { self.folders.subscribe(&name) } else { self.folders.unsubscribe(&name) };
        done.map_or_else(|error| folder_failed(&error), |()| ok("done"))
    }

    /// All folders, and names that are subscribed to and lead nowhere, with those above them.
    fn all(&self) -> Result<Vec<(Entry, bool)>, Answer> {
        let failed = |error| folder_failed(&error);
        let listing = self.folders.list("", "*").map_err(failed)?;
        let mut all: Vec<(Entry, bool)> =
            listing.entries.into_iter().map(|entry| (entry, true)).collect();
        let subscriptions = self.folders.subscriptions().map_err(failed)?;
        for name in &subscriptions {
            let mut next = Some(name.clone());
            while let Some(name) = next {
                next = name.parent();
                if all.iter().all(|(entry, _)| entry.name != name) {
                    let (no_select, has_children, uses) = (true, false, Vec::new());
                    let subscribed = subscriptions.contains(&name);
                    all.push((Entry { name, no_select, has_children, subscribed, uses }, false));
                }
            }
        }
        Ok(all)
    }

    pub(super) fn list(&mut self, list: &List) -> Answer {
        if list.select.is_none() && list.patterns.iter().all(String::is_empty) {
            let attributes = vec!["\\Noselect"];
            let line = ListLine { attributes, delimiter: DELIMITER, ..ListLine::default() };
            reply::list_line(&line, self.rev2, &mut self.out.buffer);
            return ok("that is between the words of names");
        }
        let all = match self.all() {
            Ok(all) => all,
            Err(answer) => return answer,
        };
        let select = list.select.as_deref().unwrap_or_default();
        let wants = |option| select.contains(&option);
        let subscribed = wants(SelectOption::Subscribed);
        let special = wants(SelectOption::SpecialUse);
        let is_selected = |(entry, exists): &(Entry, bool)| {
            (!subscribed || entry.subscribed)
                && (!special || !entry.uses.is_empty())
                && (*exists || subscribed)
        };
        let is_meant = |name: &Name| {
            list.patterns.iter().any(|pattern| {
                matches(&[&list.reference, pattern.as_str()].concat(), name.as_str())
            })
        };
        let tells_subscribed = subscribed || list.returns.contains(&ReturnOption::Subscribed);
        let mut told = Vec::new();
        for one @ (entry, exists) in &all {
            if !is_meant(&entry.name) {
                continue;
            }
            let is_below =
                |other: &&(Entry, bool)| other.0.name.is_below(&entry.name) && is_selected(other);
            let mut below = all.iter().filter(is_below).peekable();
            let has_below = wants(SelectOption::RecursiveMatch) && below.peek().is_some();
            // Those that the patterns mean are told of themselves (RFC 5258 section 5, example 9).
            let is_told =
                is_selected(one) || has_below && below.any(|(entry, _)| !is_meant(&entry.name));
            if !is_told {
                continue;
            }
            let mut attributes = Vec::new();
            match (entry.no_select, exists) {
                (_, false) => attributes.push("\\NonExistent"),
                (true, true) => attributes.push("\\Noselect"),
                (false, true) => {}
            }
            if *exists {
                let children = if entry.has_children { "\\HasChildren" } else { "\\HasNoChildren" };
                attributes.push(children);
            }
            if tells_subscribed && entry.subscribed {
                attributes.push("\\Subscribed");
            }
            attributes.extend(entry.uses.iter().map(|one| one.as_str()));
            let mut child_info = Vec::new();
            if has_below {
                if subscribed {
                    child_info.push("SUBSCRIBED");
                }
                if special {
                    child_info.push("SPECIAL-USE");
                }
            }
            let name = entry.name.as_str();
            let line = ListLine {
                attributes,
                delimiter: DELIMITER,
                name,
                child_info,
                ..ListLine::default()
            };
            reply::list_line(&line, self.rev2, &mut self.out.buffer);
            if *exists && !entry.no_select {
                told.push(entry.name.clone());
            }
        }
        let items = list.returns.iter().find_map(|option| match option {
            ReturnOption::Status(items) => Some(items),
            _ => None,
        });
        for name in items.iter().flat_map(|_| &told) {
            let items = items.map(Vec::as_slice).unwrap_or_default();
            // One that can't be opened has no status (RFC 5819 section 2).
            let (_, _, _) = self.status(name.as_str(), items);
        }
        ok("that is all")
    }

    pub(super) fn lsub(&mut self, reference: &str, pattern: &str) -> Answer {
        let names = match self.folders.subscriptions() {
            Ok(names) => names,
            Err(error) => return folder_failed(&error),
        };
        let pattern = [reference, pattern].concat();
        let mut told: Vec<Name> = Vec::new();
        let mut tell = |name: &Name, attributes: Vec<&str>, out: &mut Vec<u8>| {
            if !told.contains(name) {
                let name = name.as_str();
                let lsub = true;
                let line = ListLine {
                    lsub,
                    attributes,
                    delimiter: DELIMITER,
                    name,
                    ..ListLine::default()
                };
                reply::list_line(&line, false, out);
            }
            told.push(name.clone());
        };
        let out = &mut self.out.buffer;
        for name in names.iter().filter(|name| matches(&pattern, name.as_str())) {
            tell(name, Vec::new(), out);
        }
        // With a % what is above one that does not match is told of (RFC 3501 section 6.3.9).
        for name in names.iter().filter(|name| !matches(&pattern, name.as_str())) {
            let mut above = name.parent();
            while let Some(name) = above {
                if matches(&pattern, name.as_str()) {
                    tell(&name, vec!["\\Noselect"], out);
                }
                above = name.parent();
            }
        }
        ok("that is all")
    }

    pub(super) fn status(&mut self, name: &str, items: &[StatusItem]) -> Answer {
        let (name, place) = match self.place(name) {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        let status = match self.selected.as_mut().filter(|view| view.name == name) {
            Some(view) => view.store.sync().map(|()| view.store.status()),
            None => mailbox::open(place).map(|store| store.status()),
        };
        let status = match status {
            Ok(status) => status,
            Err(error) => return failed(&error),
        };
        let items: Vec<(StatusItem, u64)> =
            items.iter().map(|item| (*item, value(&status, *item))).collect();
        reply::status_line(name.as_str(), &items, self.rev2, &mut self.out.buffer);
        ok("that is how it is")
    }
}

fn value(status: &store::Status, item: StatusItem) -> u64 {
    match item {
        StatusItem::Messages => status.messages as u64,
        StatusItem::Recent => status.recent as u64,
        StatusItem::UidNext => status.uid_next.into(),
        StatusItem::UidValidity => status.uid_validity.into(),
        StatusItem::Unseen => status.unseen as u64,
        StatusItem::Deleted => status.deleted as u64,
        StatusItem::Size => status.size,
        StatusItem::HighestModSeq => status.highest_modseq,
    }
}
