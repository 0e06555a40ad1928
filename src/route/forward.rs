//! What a `.forward` file says (hikyaku-forward(5)), and what stands behind an alias; pure.
//!
//! ```text
//! # a comment                       the whole line
//! \hunt, toshi@example.org          entries are parted by commas and line ends
//! "|/usr/bin/procmail -f-"          a command, for sh(1); with its quotes outside or without
//! /home/hunt/mail/archive           a mailbox; a Maildir where it ends in a slash
//! :include:/home/hunt/friends       a file of entries
//! ```
//!
//! Inside a quoted entry `\"` is a quote and `\\` a backslash. An entry without quotes goes to the
//! next comma that stands in no quotes. Addresses may have names and comments around them, as in a
//! header.

use std::fmt;
use std::path::PathBuf;

use crate::message::{Address, list};

/// The longest file that is read.
pub const MAX_FILE: u64 = 64 * 1024;

/// The most entries of one file.
const MAX_ENTRIES: usize = 1000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Somebody's address.
    Address(Address),
    /// `\user`: the mailbox of the user, whatever its own `.forward` says.
    Mailbox(Address),
    /// A file or, with a slash at its end, a Maildir.
    File(PathBuf),
    /// A command for the shell.
    Command(String),
    /// A file with more entries.
    Include(PathBuf),
}

/// What can't be understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl std::error::Error for Error {}

/// The entries of a file, in their order. Addresses without a domain are in `origin`.
pub fn parse(text: &[u8], origin: &str) -> Result<Vec<Entry>, Error> {
    parse_at_most(text, origin, MAX_ENTRIES)
}

/// The same of a text with another limit.
pub fn parse_at_most(text: &[u8], origin: &str, most: usize) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
        let failed = |what: String| Error { line: number, what };
        let line = std::str::from_utf8(line).map_err(|_| failed("is not UTF-8 text".into()))?;
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(failed("has a control character".into()));
        }
        let mut rest = line;
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            // Behind an entry, a comment may follow.
            if rest.is_empty() || rest.starts_with('#') {
                break;
            }
            let (entry, behind) = entry(rest, origin).map_err(failed)?;
            entries.extend(entry);
            rest = behind;
            if entries.len() > most {
                return Err(failed(format!("more than {most} entries")));
            }
        }
    }
    Ok(entries)
}

/// The entry that `text` begins with, and what is left behind it.
fn entry<'a>(text: &'a str, origin: &str) -> Result<(Vec<Entry>, &'a str), String> {
    if let Some(inside) = text.strip_prefix('"') {
        let (word, behind) = quoted(inside)?;
        let next = behind.trim_start();
        // `"a b"@example.org` and `"Toshi S." <toshi@example.org>` are addresses.
        let ends = next.is_empty() || next.starts_with([',', '#']);
        if ends && !matches!(kind(&word), Kind::Address) {
            return Ok((special(&word, origin)?, next));
        }
    }
    let (word, behind) = text.split_at(end_of_entry(text)?);
    let word = word.trim_end();
    match kind(word) {
        Kind::Address => {
            // It could be an address by its characters.
            if word.starts_with("~/") {
                return Err(format!("{word}: a path from the root is wanted"));
            }
            let found = list::addresses(word.as_bytes(), origin)?;
            Ok((found.into_iter().map(Entry::Address).collect(), behind))
        }
        Kind::Special => {
            // `|"command with, comma"`: the quotes around all of a command are not the shell's.
            let bare = word.strip_prefix('|').map(str::trim_start);
            if let Some(inside) = bare.and_then(|bare| bare.strip_prefix('"'))
                && let (command, "") = quoted(inside)?
            {
                return Ok((special(&format!("|{command}"), origin)?, behind));
            }
            Ok((special(word, origin)?, behind))
        }
    }
}

enum Kind {
    Address,
    Special,
}

fn kind(word: &str) -> Kind {
    let special = word.starts_with(['|', '/', '\\']) || include(word).is_some();
    if special { Kind::Special } else { Kind::Address }
}

fn include(word: &str) -> Option<&str> {
    let (start, file) = word.split_at_checked(":include:".len())?;
    start.eq_ignore_ascii_case(":include:").then_some(file)
}

fn special(word: &str, origin: &str) -> Result<Vec<Entry>, String> {
    if let Some(file) = include(word) {
        let file = file.trim();
        if !file.starts_with('/') {
            return Err(format!(":include:{file}: a path from the root is wanted"));
        }
        return Ok(vec![Entry::Include(file.into())]);
    }
    if let Some(command) = word.strip_prefix('|') {
        let command = command.trim();
        if command.is_empty() {
            return Err("there is no command behind the |".into());
        }
        return Ok(vec![Entry::Command(command.to_owned())]);
    }
    if let Some(user) = word.strip_prefix('\\') {
        let found = list::addresses(user.as_bytes(), origin)?;
        if found.is_empty() {
            return Err("there is no user behind the \\".into());
        }
        return Ok(found.into_iter().map(Entry::Mailbox).collect());
    }
    Ok(vec![Entry::File(word.into())])
}

/// The inside of a quoted entry, its escapes undone, and what stands behind the closing quote.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((word, text.get(at + 1..).unwrap_or_default())),
            // As Postfix and sendmail have it; `"\hunt"` keeps its backslash.
            '\\' => match characters.clone().next() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    characters.next();
                    word.push(escaped);
                }
                _ => word.push(c),
            },
            c => word.push(c),
        }
    }
    Err("a quote is not closed".into())
}

/// The first comma that stands in no quotes (of either kind, in a command) and, in an address, in
/// no comment; or the end. Behind an address, a `#` behind a blank is an end, too.
fn end_of_entry(text: &str) -> Result<usize, String> {
    let (command, address) = (text.starts_with('|'), matches!(kind(text), Kind::Address));
    let (mut open, mut escaped, mut depth, mut blank) = (None, false, 0_usize, false);
    for (at, c) in text.char_indices() {
        let behind_blank = std::mem::replace(&mut blank, c.is_whitespace());
        match (open, c) {
            _ if std::mem::take(&mut escaped) => {}
            (Some('\''), '\\') => {}
            (_, '\\') if at > 0 => escaped = true,
            (None, ',') if depth == 0 => return Ok(at),
            (None, '#') if address && behind_blank && depth == 0 => return Ok(at),
            (None, '"') => open = Some('"'),
            (None, '\'') if command => open = Some('\''),
            (None, '(') if address => depth += 1,
            (None, ')') if address => depth = depth.saturating_sub(1),
            (Some(quote), c) if quote == c => open = None,
            _ => {}
        }
    }
    if open.is_some() { Err("a quote is not closed".into()) } else { Ok(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::{Entry, parse};
    use crate::message::Address;

    fn address(text: &str) -> Address {
        Address::parse(text.as_bytes()).unwrap()
    }

    fn one(line: &str) -> Entry {
        let mut entries = parse(line.as_bytes(), "here").unwrap();
        assert_eq!(entries.len(), 1, "{line}: {entries:?}");
        entries.remove(0)
    }

    #[test]
    fn each_kind_of_entry_is_known_with_quotes_and_without() {
        for line in ["toshi", "toshi@here", " toshi # a person", "Toshi S <toshi>", "<toshi@here>"]
        {
            assert_eq!(one(line), Entry::Address(address("toshi@here")), "{line}");
        }
        for line in ["\\toshi", "\"\\toshi\"", "\\toshi@here"] {
            assert_eq!(one(line), Entry::Mailbox(address("toshi@here")), "{line}");
        }
        for line in ["/var/x y", "\"/var/x y\"", "\"/var/x y\" # kept"] {
            assert_eq!(one(line), Entry::File("/var/x y".into()), "{line}");
        }
        for line in [":include:/a/b", "\":include:/a/b\"", ":Include: /a/b"] {
            assert_eq!(one(line), Entry::Include("/a/b".into()), "{line}");
        }
        for line in ["\"|cmd a, b\"", "|\"cmd a, b\"", "| \"cmd a, b\"", "\"| cmd a, b\""] {
            assert_eq!(one(line), Entry::Command("cmd a, b".into()), "{line}");
        }
        assert_eq!(one("\"a b\"@c.org"), Entry::Address(address("\"a b\"@c.org")));
        for line in ["\"a #b\"@c.org", "\"a #b\"@c.org #d", "(a #b) \"a #b\"@c.org\t# d"] {
            assert_eq!(one(line), Entry::Address(address("\"a #b\"@c.org")), "{line}");
        }
        assert_eq!(one("\"A. B\" <b@c.org>"), Entry::Address(address("b@c.org")));
    }

    #[test]
    fn commands_reach_the_shell_as_they_were_meant() {
        for (line, command) in [
            (
                "\"|IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #hunt\"",
                "IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #hunt",
            ),
            ("\"|sh -c \\\"echo \\\\\\\\n\\\"\"", "sh -c \"echo \\\\n\""),
            ("|sh -c \"a, b\" 'c, d'", "sh -c \"a, b\" 'c, d'"),
            ("|\"/a b/c\" d", "\"/a b/c\" d"),
            ("|cat >>x", "cat >>x"),
        ] {
            assert_eq!(one(line), Entry::Command(command.into()), "{line}");
        }
    }

    #[test]
    fn entries_are_parted_by_commas_and_lines() {
        let text = b"# keep one\n\\hunt,toshi@b.org, \"|v, w\",/x\r\n\n  , a@c (x, y), q@d;\n";
        let entries = parse(text, "here").unwrap();
        assert_eq!(
            entries,
            [
                Entry::Mailbox(address("hunt@here")),
                Entry::Address(address("toshi@b.org")),
                Entry::Command("v, w".into()),
                Entry::File("/x".into()),
                Entry::Address(address("a@c")),
                Entry::Address(address("q@d")),
            ]
        );
        assert_eq!(parse(b"", "here").unwrap(), []);
        assert_eq!(parse(b" \n# x\n\n", "here").unwrap(), []);
    }

    #[test]
    fn what_can_not_be_understood_names_its_line() {
        for text in [
            "ok\n\"|x",
            "ok\n|",
            "ok\n\"| \"",
            "ok\na b@c d",
            "ok\n:include:x",
            "ok\n|x 'y",
            "ok\na\0b",
            "ok\n~/x",
            "ok\n<a@b",
            "ok\n\\",
        ] {
            let error = parse(text.as_bytes(), "here").unwrap_err();
            assert_eq!(error.line, 2, "{text:?}");
        }
        assert!(parse(b"ok\n\xff", "here").is_err());
        assert!(parse(&b"a,".repeat(1001), "here").is_err());
    }
}
