//! One session that does anything, and holds what it is told to the model.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::Dice;
use super::super::imap::view::{View, numbers, set};
use super::super::imap::{Imap, Said};
use super::{Class, Folder, Key, OWNED, SHARED, Stress, is_whole, sent_text};

/// What is asked of a message, at random.
const ITEMS: [&str; 16] = [
    "UID",
    "FLAGS",
    "RFC822.SIZE",
    "INTERNALDATE",
    "ENVELOPE",
    "BODYSTRUCTURE",
    "BODY",
    "BODY.PEEK[HEADER]",
    "BODY.PEEK[1]",
    "BODY.PEEK[1.MIME]",
    "BODY.PEEK[2]",
    "BODY.PEEK[TEXT]<10.50>",
    "BINARY.PEEK[2]",
    "BINARY.SIZE[1]",
    "BODY.PEEK[]",
    "BODY[]",
];

/// What tells which message it is.
const TOKEN: &str = "BODY.PEEK[HEADER.FIELDS (X-TOKEN)]";

/// A mailbox that a session has selected.
#[derive(Debug)]
pub(super) struct Selected {
    pub key: Key,
    pub view: View,
    /// Which selection this is, of all there were.
    number: u64,
}

/// A session.
pub struct Session<'a> {
    pub(super) stress: &'a Stress,
    number: usize,
    dice: Dice,
    pub(super) imap: Imap,
    pub(super) selected: Option<Selected>,
}

/// Why a command has no end.
pub(super) enum Failed {
    /// The connection is gone.
    Gone(io::Error),
    /// A rule was broken.
    Wrong(String),
}

type Outcome<T = ()> = Result<T, Failed>;

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// How a command ended.
struct Ended {
    is_ok: bool,
    text: String,
    said: Vec<Said>,
}

impl Ended {
    /// The words of a code in any of its answers: `[COPYUID 1 2 3]`.
    fn code(&self, word: &str) -> Option<Vec<String>> {
        let mut texts = self.said.iter().filter_map(|said| match said {
            Said::Status(_, text) | Said::End(_, _, text) => Some(text),
            _ => None,
        });
        let code = |text: &String| {
            let code = text.strip_prefix('[')?.split(']').next()?;
            let words = code.strip_prefix(word)?.strip_prefix(' ')?;
            Some(words.split(' ').map(str::to_owned).collect())
        };
        texts.find_map(code)
    }

    fn has_code(&self, words: &[&str]) -> bool {
        let code = self.text.strip_prefix('[').and_then(|text| text.split([']', ' ']).next());
        code.is_some_and(|code| words.contains(&code))
    }
}

impl<'a> Session<'a> {
    pub fn new(stress: &'a Stress, number: usize, seed: u64) -> Self {
        let dice = Dice::new(seed * 1000 + u64::try_from(number).unwrap());
        Self { stress, number, dice, imap: stress.log_in(), selected: None }
    }

    /// Does something.
    #[track_caller]
    pub fn step(&mut self) {
        match self.any() {
            Ok(()) => {}
            Err(Failed::Gone(error)) => {
                // Its mailbox may have been renamed or deleted.
                let may_go = self.selected.as_ref().is_some_and(|it| !it.key.0.stays());
                assert!(may_go, "{error}\n{}", self.imap);
                self.log_in_again();
            }
            Err(Failed::Wrong(why)) => self.fail(&why),
        }
    }

    #[track_caller]
    pub(super) fn fail(&self, why: &str) -> ! {
        let key = self.selected.as_ref().map(|it| it.key);
        panic!("session {}, in {key:?}: {why}\n{}", self.number, self.imap)
    }

    fn log_in_again(&mut self) {
        self.selected = None;
        self.imap = self.stress.log_in();
    }

    fn any(&mut self) -> Outcome {
        if self.selected.is_none() {
            return self.select();
        }
        match self.dice.below(100) {
            0..=5 => self.ask("NOOP", false).map(drop)?,
            6 => self.ask("CHECK", false).map(drop)?,
            7..=12 => return self.select(),
            13..=34 => self.fetch()?,
            35..=58 => self.store()?,
            59..=66 => self.append()?,
            67..=71 => self.copy()?,
            72..=77 => self.move_some()?,
            78..=82 => self.expunge()?,
            83 => return self.leave(),
            84..=88 => self.search()?,
            89..=91 => self.status()?,
            92..=94 => self.idle()?,
            95..=97 => self.folders()?,
            98 => {
                self.ask("LOGOUT", false)?;
                self.log_in_again();
            }
            _ => return self.cut(),
        }
        self.resolve()
    }

    /// Sends a command, and hears its answer. `keeps`: numbers may not change.
    fn ask(&mut self, command: &str, keeps: bool) -> Outcome<Ended> {
        self.stress.commands.fetch_add(1, Ordering::Relaxed);
        let tag = self.imap.begin(command)?;
        self.hear_all(&tag, keeps)
    }

    fn hear_all(&mut self, tag: &str, keeps: bool) -> Outcome<Ended> {
        let mut all = Vec::new();
        loop {
            let said = self.imap.hear()?;
            self.take(&said, keeps)?;
            if let Said::End(of, how, text) = &said {
                if of != tag || how == "BAD" {
                    return Err(format!("the end of {tag}: {said:?}").into());
                }
                let (is_ok, text) = (how == "OK", text.clone());
                all.push(said);
                return Ok(Ended { is_ok, text, said: all });
            }
            if said == Said::Go {
                return Ok(Ended { is_ok: true, text: "+".into(), said: all });
            }
            all.push(said);
        }
    }

    /// Holds what was said to what is known.
    fn take(&mut self, said: &Said, keeps: bool) -> Outcome {
        let Some(selected) = &mut self.selected else {
            return match said {
                Said::Fetch(..) | Said::Number(..) => Err("nothing is selected".to_owned().into()),
                _ => Ok(()),
            };
        };
        selected.view.hear(said, keeps)?;
        let Said::Fetch(number, items) = said else {
            return Ok(());
        };
        let line = &selected.view.lines[usize::try_from(*number).unwrap() - 1];
        let Some(uid) = line.uid else {
            return Ok(());
        };
        let mut model = self.stress.model();
        let token = items.iter().find(|(name, _)| name.starts_with("BODY[HEADER.FIELDS (X-TOKEN"));
        if let Some((_, value)) = token {
            let text = String::from_utf8_lossy(value.bytes());
            let token = text.trim().strip_prefix("X-Token: ").and_then(|word| word.parse().ok());
            let token = token.ok_or(format!("UID {uid} has no token: {text:?}"))?;
            model.see(selected.key, uid, token)?;
        }
        let Some(one) = model.one(selected.key, uid) else {
            return Ok(());
        };
        if one.is_gone {
            return Err(format!("UID {uid} was gone").into());
        }
        if line.recent && !selected.view.read_only {
            let to = *one.recent_to.get_or_insert(selected.number);
            if to != selected.number {
                return Err(format!("UID {uid} is \\Recent to {} and {to}", selected.number).into());
            }
        }
        for (name, value) in items {
            match name.as_str() {
                "UID" | "FLAGS" => continue,
                "BODY[]" => {
                    if !is_whole(one.token, value.bytes()) {
                        return Err(format!("UID {uid} is not message {}", one.token).into());
                    }
                    one.is_read = true;
                    let size = one.facts.get("RFC822.SIZE").map(|size| size.number());
                    if size.is_some_and(|size| size != value.bytes().len() as u64) {
                        return Err(format!("UID {uid} has {size:?} octets by its size").into());
                    }
                    continue;
                }
                _ => {}
            }
            let before = one.facts.entry(name.clone()).or_insert_with(|| value.clone());
            if before != value {
                return Err(format!("UID {uid}: {name} was {before:?}, and is {value:?}").into());
            }
        }
        Ok(())
    }

    /// Learns the UIDs of messages that have come.
    pub(super) fn resolve(&mut self) -> Outcome {
        for _ in 0..20 {
            let unknown = self.selected.as_ref().and_then(|it| it.view.unknown());
            let Some(set) = unknown else {
                return Ok(());
            };
            let command = format!("FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE {TOKEN})");
            if !self.ask(&command, true)?.is_ok {
                // They went before they were told of by name.
                self.ask("NOOP", false)?;
            }
        }
        Err("there are always more messages without a UID".to_owned().into())
    }

    /// What NOOP tells when nobody does anything.
    pub(super) fn settle(&mut self) -> Outcome {
        self.ask("NOOP", false)?;
        self.resolve()
    }

    fn selected(&mut self) -> Result<&mut Selected, Failed> {
        self.selected.as_mut().ok_or_else(|| "nothing is selected".to_owned().into())
    }

    fn any_folder(&mut self) -> (Folder, &'static str) {
        let all = [Folder::Inbox, Folder::Inbox, Folder::Archive, Folder::Archive, Folder::Side];
        let folder = all[self.dice.below(all.len())];
        let names = folder.names();
        (folder, names[self.dice.below(names.len())])
    }

    fn select(&mut self) -> Outcome {
        let (folder, name) = self.any_folder();
        let word = if self.dice.below(5) == 0 { "EXAMINE" } else { "SELECT" };
        let tag = self.imap.begin(&format!("{word} {name}"))?;
        self.selected = None;
        let all = self.imap.hear_all(&tag)?;
        let Some(Said::End(_, how, text)) = all.last() else {
            return Err("no end".to_owned().into());
        };
        if how != "OK" {
            let may_fail = folder == Folder::Side && text.starts_with("[NONEXISTENT]");
            return if may_fail { Ok(()) } else { Err(format!("{word} {name}: {text}").into()) };
        }
        let view = View::selected(&all)?;
        let key = (folder, view.uid_validity);
        let before = self.stress.model().mailboxes.get(&key).map_or(0, |it| it.uid_next);
        if view.uid_next < before {
            return Err(format!("UIDNEXT {}, and was {before}", view.uid_next).into());
        }
        let number = self.stress.selects.fetch_add(1, Ordering::Relaxed);
        self.selected = Some(Selected { key, view, number });
        self.resolve()
    }

    /// Some of the messages, by their UIDs.
    fn some(&mut self, most: usize, is_meant: impl Fn(u32) -> bool) -> Vec<u32> {
        let Some(selected) = &self.selected else {
            return Vec::new();
        };
        let model = self.stress.model();
        let token = |uid: &u32| model.token(selected.key, *uid);
        let mut uids = selected.view.uids();
        uids.retain(|uid| token(uid).is_some_and(&is_meant));
        drop(model);
        let count = 1 + self.dice.below(most);
        if self.dice.below(2) == 0 {
            let from = self.dice.below(uids.len());
            return uids.into_iter().skip(from).take(count).collect();
        }
        while uids.len() > count {
            uids.swap_remove(self.dice.below(uids.len()));
        }
        uids
    }

    /// A command about these, by UIDs or by numbers; and whether it is by numbers.
    fn about(&mut self, command: &str, uids: &[u32], rest: &str) -> (String, bool) {
        let view = &self.selected.as_ref().unwrap().view;
        if self.dice.below(2) == 0 {
            return (format!("UID {command} {} {rest}", set(uids.iter().copied())), false);
        }
        let numbers = uids.iter().filter_map(|uid| view.number(*uid));
        let numbers = numbers.map(|number| u32::try_from(number).unwrap());
        (format!("{command} {} {rest}", set(numbers)), true)
    }

    fn fetch(&mut self) -> Outcome {
        let uids = self.some(20, |_| true);
        if uids.is_empty() {
            return Ok(());
        }
        let count = 1 + self.dice.below(4);
        let items: BTreeSet<&str> =
            (0..count).map(|_| ITEMS[self.dice.below(ITEMS.len())]).collect();
        let items: Vec<&str> = items.into_iter().collect();
        let (command, keeps) = self.about("FETCH", &uids, &format!("({})", items.join(" ")));
        let ended = self.ask(&command, keeps)?;
        // What is asked of a part that is not encoded as it says has an answer as well.
        let may_fail = ["EXPUNGEISSUED", "UNKNOWN-CTE"];
        self.may_end(&ended, &may_fail)
    }

    fn may_end(&self, ended: &Ended, codes: &[&str]) -> Outcome {
        let is_side = self.selected.as_ref().is_some_and(|it| !it.key.0.stays());
        if ended.is_ok || is_side || ended.has_code(codes) {
            return Ok(());
        }
        Err(format!("it ended with NO {}", ended.text).into())
    }

    fn store(&mut self) -> Outcome {
        let selected = self.selected()?;
        if selected.view.read_only {
            return Ok(());
        }
        let (me, of) = (u32::try_from(self.number).unwrap(), self.stress.sessions);
        let of = u32::try_from(of).unwrap();
        let sign = ["+", "-", ""][self.dice.below(3)];
        let silent = self.dice.below(3) == 0;
        let what = self.dice.below(4);
        let (uids, mut flags): (Vec<u32>, Vec<&str>) = match what {
            0 | 1 => {
                let flags = OWNED.iter().filter(|_| self.dice.below(3) == 0).copied().collect();
                (self.some(12, |token| token % of == me), flags)
            }
            2 => (self.some(30, |_| true), vec![SHARED[self.dice.below(SHARED.len())]]),
            _ => (self.some(6, |token| Class::of(token) == Class::Doomed), vec!["\\deleted"]),
        };
        let is_owner = what < 2;
        let sign = if sign.is_empty() && !is_owner { "+" } else { sign };
        if uids.is_empty() || (flags.is_empty() && !sign.is_empty()) {
            return Ok(());
        }
        if self.dice.below(10) == 0 && is_owner {
            flags.push(SHARED[2]);
        }
        let silently = if silent { ".SILENT" } else { "" };
        let written: Vec<String> = flags.iter().map(|flag| self.written(flag)).collect();
        let rest = format!("{sign}FLAGS{silently} ({})", written.join(" "));
        let (command, keeps) = self.about("STORE", &uids, &rest);
        let key = self.selected()?.key;
        let marking = |before: &BTreeSet<String>| -> BTreeSet<String> {
            let by: BTreeSet<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            match sign {
                "+" => before | &by,
                "-" => before - &by,
                _ => by,
            }
        };
        let mut model = self.stress.model();
        let mut owned = Vec::new();
        for uid in &uids {
            let one = model.one(key, *uid).unwrap();
            one.may_go |= what == 3;
            if is_owner {
                owned.push((*uid, one.owned.take()));
            }
        }
        drop(model);
        if silent {
            let view = &mut self.selected()?.view;
            for line in &mut view.lines {
                if line.uid.is_some_and(|uid| uids.contains(&uid)) {
                    line.flags = line.flags.as_ref().map(marking);
                }
            }
        }
        let ended = self.ask(&command, keeps)?;
        self.may_end(&ended, &["EXPUNGEISSUED"])?;
        if !ended.is_ok {
            return Ok(());
        }
        let stress = self.stress;
        for (uid, before) in owned {
            let Some(before) = before else { continue };
            let mut now = marking(&before);
            now.retain(|flag| OWNED.contains(&&**flag));
            self.has_owned(uid, &now)?;
            stress.model().one(key, uid).unwrap().owned = Some(now);
        }
        Ok(())
    }

    /// A flag as it is written, keywords in either case.
    fn written(&mut self, flag: &str) -> String {
        if self.dice.below(2) == 0 { flag.to_owned() } else { flag.to_ascii_uppercase() }
    }

    /// That the client was told what it has set itself, and nobody else sets.
    fn has_owned(&mut self, uid: u32, wanted: &BTreeSet<String>) -> Outcome {
        let view = &self.selected()?.view;
        let Some(flags) = view.number(uid).and_then(|number| view.lines[number - 1].flags.as_ref())
        else {
            return Ok(());
        };
        let found: BTreeSet<String> =
            flags.iter().filter(|flag| OWNED.contains(&&***flag)).cloned().collect();
        if found == *wanted {
            return Ok(());
        }
        Err(format!("UID {uid} was told to have {found:?}, not {wanted:?}").into())
    }

    fn append(&mut self) -> Outcome {
        let (folder, name) = self.any_folder();
        let token = self.stress.new_token();
        self.stress.model().may_come(token, folder);
        let flags: Vec<&str> = OWNED.iter().filter(|_| self.dice.below(4) == 0).copied().collect();
        let text = sent_text(token);
        let plus = if self.dice.below(2) == 0 { "+" } else { "" };
        let date = format!("\"{:2}-Feb-2024 03:04:05 +0900\"", 1 + token % 28);
        let words = flags.join(" ");
        let command = format!("APPEND {name} ({words}) {date} {{{}{plus}}}", text.len());
        let tag = self.imap.begin(&command)?;
        if plus.is_empty() {
            let ended = self.hear_all(&tag, false)?;
            if ended.text != "+" {
                return self.refused(folder, &ended);
            }
        }
        self.stress.commands.fetch_add(1, Ordering::Relaxed);
        self.imap.send(&[&text[..], b"\r\n"].concat())?;
        let ended = self.hear_all(&tag, false)?;
        if !ended.is_ok {
            return self.refused(folder, &ended);
        }
        let code = ended.code("APPENDUID").ok_or("no APPENDUID".to_owned())?;
        let key = (folder, code[0].parse().unwrap());
        let uid = code[1].parse().unwrap();
        let mut model = self.stress.model();
        model.sent.get_mut(&token).unwrap().certain |= folder.stays();
        let is_new = model.one(key, uid).is_none();
        let one = model.see(key, uid, token)?;
        one.is_certain = true;
        if is_new {
            one.owned = Some(flags.iter().map(|flag| (*flag).to_owned()).collect());
        }
        Ok(())
    }

    /// A folder that comes and goes may be missing.
    fn refused(&self, folder: Folder, ended: &Ended) -> Outcome {
        if folder.stays() {
            return self.may_end(ended, &["EXPUNGEISSUED"]);
        }
        let codes = ["TRYCREATE", "NONEXISTENT", "EXPUNGEISSUED", "UNAVAILABLE"];
        self.may_end(ended, &codes)
    }

    /// Notes where copies are, by what was told.
    fn copied(&mut self, folder: Folder, uids: &[u32], ended: &Ended) -> Outcome<Vec<u32>> {
        let Some(code) = ended.code("COPYUID") else {
            return Ok(Vec::new());
        };
        let (from, to) = (numbers(&code[1]), numbers(&code[2]));
        if from.len() != to.len() || !from.iter().all(|uid| uids.contains(uid)) {
            return Err(format!("COPYUID {code:?} for {uids:?}").into());
        }
        let source = self.selected()?.key;
        let key = (folder, code[0].parse().unwrap());
        let me = u32::try_from(self.number).unwrap();
        let of = u32::try_from(self.stress.sessions).unwrap();
        let mut model = self.stress.model();
        for (uid, copy) in from.iter().zip(&to) {
            let one = model.one(source, *uid).unwrap().clone();
            let is_new = model.one(key, *copy).is_none();
            let target = model.see(key, *copy, one.token)?;
            target.is_certain = true;
            // It may have come with `\Deleted`, as a copy of a copy that nobody was told of.
            target.may_go |= Class::of(one.token) == Class::Doomed;
            if is_new && one.token % of == me {
                target.owned = one.owned;
            }
        }
        Ok(from)
    }

    fn copy(&mut self) -> Outcome {
        let (folder, name) = self.any_folder();
        let count = self.selected()?.view.lines.len();
        let uids = self.some(if count > 150 { 2 } else { 8 }, |token| {
            !folder.stays() || Class::of(token) != Class::Single
        });
        if uids.is_empty() || (count > 300 && folder.stays()) {
            return Ok(());
        }
        self.may_come(&uids, folder);
        let (command, _) = self.about("COPY", &uids, name);
        let ended = self.ask(&command, false)?;
        let from = self.copied(folder, &uids, &ended)?;
        if ended.is_ok {
            let all = from.len() == uids.len();
            return if all { Ok(()) } else { Err(format!("{from:?} of {uids:?}").into()) };
        }
        self.refused(folder, &ended)
    }

    fn may_come(&mut self, uids: &[u32], folder: Folder) {
        let Some(selected) = &self.selected else { return };
        let mut model = self.stress.model();
        for uid in uids {
            let token = model.token(selected.key, *uid).unwrap();
            model.may_come(token, folder);
        }
    }

    fn move_some(&mut self) -> Outcome {
        let (folder, name) = self.any_folder();
        let selected = self.selected()?;
        if selected.view.read_only {
            return Ok(());
        }
        let key = selected.key;
        let uids = self.some(8, |token| match (key.0.stays(), folder.stays()) {
            (true, true) => true,
            (_, false) => Class::of(token) == Class::Doomed,
            (false, true) => Class::of(token) != Class::Single,
        });
        if uids.is_empty() {
            return Ok(());
        }
        self.may_come(&uids, folder);
        for uid in &uids {
            self.stress.model().one(key, *uid).unwrap().may_go = true;
        }
        let (command, _) = self.about("MOVE", &uids, name);
        let ended = self.ask(&command, false)?;
        self.copied(folder, &uids, &ended)?;
        if !ended.is_ok {
            return self.refused(folder, &ended);
        }
        let view = &self.selected()?.view;
        match uids.iter().find(|uid| view.number(**uid).is_some()) {
            Some(uid) => Err(format!("UID {uid} was moved, and is there").into()),
            None => Ok(()),
        }
    }

    fn expunge(&mut self) -> Outcome {
        if self.selected()?.view.read_only {
            return Ok(());
        }
        let command = if self.dice.below(2) == 0 {
            "EXPUNGE".to_owned()
        } else {
            let uids = self.some(20, |_| true);
            if uids.is_empty() {
                return Ok(());
            }
            format!("UID EXPUNGE {}", set(uids))
        };
        let ended = self.ask(&command, false)?;
        self.may_end(&ended, &[])
    }

    fn leave(&mut self) -> Outcome {
        let command = ["CLOSE", "UNSELECT"][self.dice.below(2)];
        let ended = self.ask(command, false)?;
        self.may_end(&ended, &[])?;
        if ended.said.iter().any(|said| matches!(said, Said::Number(_, word) if word == "EXPUNGE"))
        {
            return Err(format!("{command} tells of EXPUNGE").into());
        }
        self.selected = None;
        Ok(())
    }

    fn search(&mut self) -> Outcome {
        let uids = self.some(3, |_| true);
        let (by_uid, kind) = (self.dice.below(2) == 0, self.dice.below(5));
        let Some(uid) = uids.first() else {
            return Ok(());
        };
        let key = self.selected()?.key;
        let token = self.stress.model().token(key, *uid).unwrap();
        let program = match kind {
            0 => "ALL".to_owned(),
            1 => format!("UID {}", set(uids.iter().copied())),
            2 => format!("HEADER X-Token {token}"),
            3 => "KEYWORD k1 NOT DELETED".to_owned(),
            _ => format!("OR SUBJECT \"message {token}\" LARGER 100000"),
        };
        let prefix = if by_uid { "UID " } else { "" };
        let before = self.selected()?.view.clone();
        let ended = self.ask(&format!("{prefix}SEARCH {program}"), !by_uid)?;
        self.may_end(&ended, &["EXPUNGEISSUED"])?;
        let found = ended.said.iter().find_map(|said| match said {
            Said::Data(word, values) if word == "SEARCH" => Some(values),
            _ => None,
        });
        let Some(found) = found.filter(|_| ended.is_ok) else {
            return if ended.is_ok { Err("no SEARCH".to_owned().into()) } else { Ok(()) };
        };
        let found = found.iter().map(|value| u32::try_from(value.number()).unwrap());
        let mut found_uids = BTreeSet::new();
        for number in found {
            let uid = if by_uid {
                before.number(number).map(|_| number)
            } else {
                let at = usize::try_from(number).unwrap().checked_sub(1);
                at.and_then(|at| before.lines.get(at)?.uid)
            };
            found_uids.insert(uid.ok_or(format!("{number} was found, and is no message"))?);
        }
        let wanted: BTreeSet<u32> = match kind {
            0 => before.uids().into_iter().collect(),
            1 => uids.into_iter().collect(),
            2 => {
                let model = self.stress.model();
                let has = |uid: &u32| {
                    let of = model.token(key, *uid).unwrap().to_string();
                    of.contains(&token.to_string())
                };
                before.uids().into_iter().filter(has).collect()
            }
            _ => return Ok(()),
        };
        // What is gone meanwhile need not be found, whether that was told or not.
        if found_uids.is_subset(&wanted) {
            return Ok(());
        }
        Err(format!("{program}: {found_uids:?}, not of {wanted:?}").into())
    }

    fn status(&mut self) -> Outcome {
        let (folder, name) = self.any_folder();
        let items = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT SIZE DELETED)";
        let ended = self.ask(&format!("STATUS {name} {items}"), false)?;
        if !ended.is_ok {
            return self.refused(folder, &ended);
        }
        let status = ended.said.iter().find_map(|said| match said {
            Said::Data(word, values) if word == "STATUS" => Some(values[1].words()),
            _ => None,
        });
        let status = status.ok_or("no STATUS".to_owned())?;
        let value = |name: &str| -> u32 {
            let at = status.iter().position(|word| word == name).unwrap();
            status[at + 1].parse().unwrap()
        };
        let model = self.stress.model();
        if let (true, Some(known)) = (folder.stays(), model.validity.get(&folder))
            && *known != value("UIDVALIDITY")
        {
            return Err(format!("UIDVALIDITY {}, not {known}", value("UIDVALIDITY")).into());
        }
        let mailbox = model.mailboxes.get(&(folder, value("UIDVALIDITY")));
        let before = mailbox.map_or(0, |mailbox| mailbox.uid_next);
        if value("UIDNEXT") < before {
            return Err(format!("UIDNEXT {}, not {before}", value("UIDNEXT")).into());
        }
        Ok(())
    }

    fn idle(&mut self) -> Outcome {
        let tag = self.imap.begin("IDLE")?;
        if self.hear_all(&tag, false)?.text != "+" {
            return Err("no IDLE".to_owned().into());
        }
        let until = Instant::now() + Duration::from_millis(self.dice.below(60).try_into().unwrap());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.imap.hear_within(left) {
                Ok(said) => self.take(&said, false)?,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.imap.send(b"DONE\r\n")?;
        self.hear_all(&tag, false).map(drop)
    }

    /// Makes, renames and deletes the folder that comes and goes.
    fn folders(&mut self) -> Outcome {
        let names = Folder::Side.names();
        let at = self.dice.below(names.len());
        let (name, other) = (names[at], names[1 - at]);
        let command = match self.dice.below(6) {
            0..=2 => format!("CREATE {name}"),
            3 => format!("DELETE {name}"),
            4 => format!("RENAME {name} {other}"),
            _ => "LIST \"\" *".to_owned(),
        };
        let ended = self.ask(&command, false)?;
        let codes = ["NONEXISTENT", "ALREADYEXISTS", "INUSE"];
        self.may_end(&ended, &codes)
    }

    /// The connection is cut in the middle of a command, or behind it.
    fn cut(&mut self) -> Outcome {
        match self.dice.below(5) {
            0 => {
                let (folder, name) = self.any_folder();
                let token = self.stress.new_token();
                let text = sent_text(token);
                let some = self.dice.below(text.len());
                let is_whole = self.dice.below(2) == 0;
                let text = if is_whole { [&text[..], b"\r\n"].concat() } else { text };
                let sent = if is_whole { &text[..] } else { &text[..some] };
                if is_whole {
                    self.stress.model().may_come(token, folder);
                }
                let length = sent_text(token).len();
                self.imap.begin(&format!("APPEND {name} {{{length}+}}"))?;
                self.imap.send(sent)?;
            }
            1 => {
                let uids = self.some(5, |token| Class::of(token) != Class::Single);
                self.cut_amid("COPY", &uids)?;
            }
            2 if !self.selected()?.view.read_only => {
                let uids = self.some(5, |_| true);
                self.cut_amid("MOVE", &uids)?;
            }
            3 => self.imap.begin("EXPUNGE").map(drop)?,
            _ => self.imap.send(b"x FETCH 1:* (UID FL")?,
        }
        self.log_in_again();
        Ok(())
    }

    fn cut_amid(&mut self, command: &str, uids: &[u32]) -> Outcome {
        if uids.is_empty() || !self.selected()?.key.0.stays() {
            return Ok(());
        }
        let key = self.selected()?.key;
        let folder = [Folder::Inbox, Folder::Archive][self.dice.below(2)];
        self.may_come(uids, folder);
        if command == "MOVE" {
            for uid in uids {
                self.stress.model().one(key, *uid).unwrap().may_go = true;
            }
        }
        let (command, _) = self.about(command, uids, folder.names()[0]);
        self.imap.begin(&command)?;
        if self.dice.below(2) == 0 {
            std::thread::sleep(Duration::from_millis(self.dice.below(5).try_into().unwrap()));
        }
        Ok(())
    }
}
