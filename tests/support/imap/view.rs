//! A selected mailbox as a client has it, by what it was told alone; and the rules that hold for what
//! it is told (RFC 9051 sections 2.3.1 and 7.5.1).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Said, Value};

/// A message by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Once the client has asked for it.
    pub uid: Option<u32>,
    /// What the client knows of its flags, without `\Recent`, in lower case.
    pub flags: Option<BTreeSet<String>>,
    /// It was told to be `\Recent`.
    pub recent: bool,
}

/// A selected mailbox.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub lines: Vec<Line>,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub read_only: bool,
    /// The flags that it was told there are.
    pub flags: BTreeSet<String>,
    /// How many messages were told to be gone.
    pub expunged: usize,
}

/// Flags as they are compared.
pub fn flags(value: &Value) -> BTreeSet<String> {
    value.words().iter().map(|word| word.to_ascii_lowercase()).collect()
}

/// The number behind a code: `[UIDNEXT 7] …`.
pub fn code(text: &str, word: &str) -> Option<u32> {
    let rest = text.strip_prefix('[')?.strip_prefix(word)?.strip_prefix(' ')?;
    rest.split([']', ' ']).next()?.parse().ok()
}

impl View {
    /// Of what was said to SELECT or EXAMINE.
    pub fn selected(all: &[Said]) -> Result<Self, String> {
        let mut view = Self::default();
        for said in all {
            match said {
                Said::Number(count, word) if word == "EXISTS" => {
                    view.lines = vec![Line::default(); usize::try_from(*count).unwrap()];
                }
                Said::Status(_, text) => {
                    view.uid_validity = code(text, "UIDVALIDITY").unwrap_or(view.uid_validity);
                    view.uid_next = code(text, "UIDNEXT").unwrap_or(view.uid_next);
                }
                Said::Data(word, values) if word == "FLAGS" => view.flags = flags(&values[0]),
                Said::End(_, _, text) => view.read_only = text.starts_with("[READ-ONLY]"),
                _ => {}
            }
        }
        if view.uid_validity == 0 || view.uid_next == 0 {
            return Err("no UIDVALIDITY, or no UIDNEXT".into());
        }
        Ok(view)
    }

    pub fn uids(&self) -> Vec<u32> {
        self.lines.iter().filter_map(|line| line.uid).collect()
    }

    /// The messages whose UIDs are not known yet, by their numbers.
    pub fn unknown(&self) -> Option<String> {
        let is_unknown = |line: &Line| line.uid.is_none() || line.flags.is_none();
        let first = self.lines.iter().position(is_unknown)?;
        Some(format!("{}:*", first + 1))
    }

    /// The number of a message.
    pub fn number(&self, uid: u32) -> Option<usize> {
        Some(self.lines.iter().position(|line| line.uid == Some(uid))? + 1)
    }

    /// Takes what was said; why it may not be said. `keeps`: numbers may not change now.
    pub fn hear(&mut self, said: &Said, keeps: bool) -> Result<(), String> {
        let count = self.lines.len();
        let at = |number: u32| {
            let number = usize::try_from(number).unwrap();
            number.checked_sub(1).filter(|at| *at < count).ok_or("there is no such number")
        };
        match said {
            Said::Number(number, word) if word == "EXPUNGE" => {
                if keeps {
                    return Err("EXPUNGE where numbers may not change".into());
                }
                self.lines.remove(at(*number)?);
                self.expunged += 1;
            }
            Said::Number(number, word) if word == "EXISTS" => {
                let now = usize::try_from(*number).unwrap();
                if now < count {
                    return Err(format!("EXISTS without EXPUNGE: {count} before"));
                }
                self.lines.resize(now, Line::default());
            }
            Said::Number(number, word)
                if word == "RECENT" && usize::try_from(*number).unwrap() > count =>
            {
                return Err(format!("RECENT of {count}"));
            }
            Said::Fetch(number, items) => self.fetched(at(*number)?, items)?,
            Said::Data(word, values) if word == "FLAGS" => self.flags = flags(&values[0]),
            _ => {}
        }
        Ok(())
    }

    fn fetched(&mut self, at: usize, items: &[(String, Value)]) -> Result<(), String> {
        for (name, value) in items {
            match name.as_str() {
                "UID" => {
                    let uid = u32::try_from(value.number()).unwrap();
                    let before = self.lines[..at].iter().rev().find_map(|line| line.uid);
                    let behind = self.lines[at + 1..].iter().find_map(|line| line.uid);
                    if before.is_some_and(|one| one >= uid) || behind.is_some_and(|one| one <= uid)
                    {
                        return Err(format!("UID {uid} between {before:?} and {behind:?}"));
                    }
                    let known = *self.lines[at].uid.get_or_insert(uid);
                    if known != uid {
                        return Err(format!("number {} is UID {known}, not {uid}", at + 1));
                    }
                }
                "FLAGS" => {
                    let mut now = flags(value);
                    self.lines[at].recent = now.remove("\\recent");
                    let unknown: Vec<_> = now.difference(&self.flags).collect();
                    if !unknown.is_empty() {
                        return Err(format!("{unknown:?} are not among FLAGS"));
                    }
                    self.lines[at].flags = Some(now);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A set as a client writes it: `1:3,7`.
pub fn set(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut numbers: Vec<u32> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut text = String::new();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let comma = if text.is_empty() { "" } else { "," };
        if first == last {
            write!(text, "{comma}{first}").unwrap();
        } else {
            write!(text, "{comma}{first}:{last}").unwrap();
        }
    }
    text
}

/// The numbers of a set without `*`, in its order.
pub fn numbers(set: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        first.parse().unwrap()..=last.parse::<u32>().unwrap()
    };
    set.split(',').flat_map(range).collect()
}
