//! Answers (RFC 9051 section 7): each function appends one, or a part of one.
//!
//! Whatever stands in an answer, its line ends where it should: texts of others are quoted, or
//! counted as literals, and texts of ours are made printable.

mod condition;

use std::fmt::Display;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::command::{
    FetchItem, Partial, Section, SectionText, StatusItem, is_astring_char, is_atom_char,
};
use crate::text::utf7;

pub use condition::{Code, Condition, Word, failure, status, status_in};

/// What NUL becomes, which no string may have: the replacement character.
const NUL: &[u8] = "\u{fffd}".as_bytes();

/// `string = quoted / literal`: quoted where it may be.
pub fn string(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| byte.is_ascii() && !matches!(byte, b'\0' | b'\r' | b'\n');
    if text.iter().all(is_plain) {
        return quoted(text, out);
    }
    let nuls = memchr::memchr_iter(0, text).count();
    literal(text.len() + nuls * (NUL.len() - 1), out);
    for (n, piece) in text.split(|byte| *byte == 0).enumerate() {
        if n > 0 {
            out.extend_from_slice(NUL);
        }
        out.extend_from_slice(piece);
    }
}

/// `quoted = DQUOTE *QUOTED-CHAR DQUOTE`, of what may stand there.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// `"{" number64 "}" CRLF`: so many octets are to follow, without NUL.
pub fn literal(size: impl Display, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{{size}}}\r\n").as_bytes());
}

/// `"~{" number64 "}" CRLF`: so many octets are to follow, of any kind.
pub fn literal8(size: impl Display, out: &mut Vec<u8>) {
    out.push(b'~');
    literal(size, out);
}

/// `nstring = string / nil`
pub fn nstring(text: Option<&[u8]>, out: &mut Vec<u8>) {
    match text {
        Some(text) => string(text, out),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// `astring = 1*ASTRING-CHAR / string`
pub fn astring(text: &[u8], out: &mut Vec<u8>) {
    let is_atom = !text.is_empty() && text.iter().all(|byte| is_astring_char(*byte));
    if is_atom && !text.eq_ignore_ascii_case(b"NIL") {
        out.extend_from_slice(text);
    } else {
        string(text, out);
    }
}

/// `mailbox = "INBOX" / astring`: in UTF-8 for who has enabled it, else in modified UTF-7.
pub fn mailbox(name: &str, utf8: bool, out: &mut Vec<u8>) {
    let is_plain = |c: char| !matches!(c, '\0' | '\r' | '\n');
    if !utf8 {
        astring(utf7::encode(name).as_bytes(), out);
    } else if !name.is_ascii() && name.chars().all(is_plain) {
        // The grammar of quoted strings has UTF-8 for those.
        quoted(name.as_bytes(), out);
    } else {
        astring(name.as_bytes(), out);
    }
}

/// `flag-list = "(" [flag *(SP flag)] ")"`, of flags that are such.
pub fn flags<'a>(flags: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
    list(flags, out, |flag, out| out.extend_from_slice(flag.as_bytes()));
}

/// `"(" [item *(SP item)] ")"`
fn list<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'(');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        write(item, out);
    }
    out.push(b')');
}

/// `sequence-set` and `uid-set`, of ranges with their smaller number first; nothing of none, which
/// no set may be.
pub fn set(ranges: impl IntoIterator<Item = RangeInclusive<u32>>, out: &mut Vec<u8>) {
    for (n, range) in ranges.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        let (first, last) = range.into_inner();
        out.extend_from_slice(first.to_string().as_bytes());
        if first != last {
            out.extend_from_slice(format!(":{last}").as_bytes());
        }
    }
}

/// The same as text.
pub fn set_text(ranges: impl IntoIterator<Item = RangeInclusive<u32>>) -> String {
    let mut out = Vec::new();
    set(ranges, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// `date-time`: seconds since 1970, in a zone so many seconds east; those before the year 1 and
/// behind 9999 are the first and last there are.
pub fn date_time(at: i64, zone: i32, out: &mut Vec<u8>) {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_207_200;
    let minutes = zone.clamp(-86_340, 86_340) / 60;
    let local = at.saturating_add(i64::from(minutes) * 60).clamp(FIRST, LAST);
    let time = Timestamp::from_second(local).unwrap_or_default();
    let time = time.to_zoned_datetime(TimeZone::UTC).strftime("%e-%b-%Y %H:%M:%S");
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
    out.extend_from_slice(format!("\"{time} {sign}{hours:02}{minutes:02}\"").as_bytes());
}

/// `continue-req = "+" SP (resp-text / base64) CRLF`
pub fn continuation(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("+ {text}\r\n").as_bytes());
}

/// `message-data = nz-number SP ("EXPUNGE" / …)`, and `number SP "EXISTS"` and `"RECENT"`.
pub fn numbered(number: impl Display, word: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("* {number} {word}\r\n").as_bytes());
}

/// An untagged answer that is words of ours: `CAPABILITY`, `ENABLED`.
pub fn words(words: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("* {words}\r\n").as_bytes());
}

/// `"FLAGS" SP flag-list`
pub fn flags_line<'a>(all: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"* FLAGS ");
    flags(all, out);
    out.extend_from_slice(b"\r\n");
}

/// `id_response = "ID" SP id_params_list` (RFC 2971).
pub fn id(pairs: &[(&str, &str)], out: &mut Vec<u8>) {
    out.extend_from_slice(b"* ID ");
    if pairs.is_empty() {
        out.extend_from_slice(b"NIL");
    } else {
        list(pairs, out, |(field, value), out| {
            string(field.as_bytes(), out);
            out.push(b' ');
            string(value.as_bytes(), out);
        });
    }
    out.extend_from_slice(b"\r\n");
}

/// `namespace-response`: the user's own mailboxes, without a prefix, and nobody else's.
pub fn namespace(delimiter: char, out: &mut Vec<u8>) {
    let line = format!("* NAMESPACE ((\"\" \"{delimiter}\")) NIL NIL\r\n");
    out.extend_from_slice(line.as_bytes());
}

/// A line of LIST or LSUB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListLine<'a> {
    /// `LSUB`
    pub lsub: bool,
    /// `\HasChildren` and the like.
    pub attributes: Vec<&'a str>,
    /// Between the words of names; `None` where there is no hierarchy.
    pub delimiter: Option<char>,
    /// The name.
    pub name: &'a str,
    /// `CHILDINFO`: by which options something below it was found, where RECURSIVEMATCH has asked.
    pub child_info: Vec<&'a str>,
    /// `OLDNAME`: what the client called it.
    pub old_name: Option<&'a str>,
}

/// ```text
/// mailbox-list = "(" [mbx-list-flags] ")" SP (DQUOTE QUOTED-CHAR DQUOTE / nil) SP mailbox
///                [SP mbox-list-extended]
/// mbox-list-extended      = "(" [mbox-list-extended-item *(SP mbox-list-extended-item)] ")"
/// mbox-list-extended-item = mbox-list-extended-item-tag SP tagged-ext-val
/// ```
pub fn list_line(line: &ListLine, utf8: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if line.lsub { b"* LSUB " } else { b"* LIST " });
    flags(line.attributes.iter().copied(), out);
    out.push(b' ');
    match line.delimiter {
        Some(delimiter) => string(delimiter.to_string().as_bytes(), out),
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    mailbox(line.name, utf8, out);
    let mut more: Vec<Vec<u8>> = Vec::new();
    if !line.child_info.is_empty() {
        let mut item = b"\"CHILDINFO\" ".to_vec();
        list(&line.child_info, &mut item, |option, out| string(option.as_bytes(), out));
        more.push(item);
    }
    if let Some(old) = line.old_name {
        let mut item = b"\"OLDNAME\" (".to_vec();
        mailbox(old, utf8, &mut item);
        item.push(b')');
        more.push(item);
    }
    if !more.is_empty() {
        out.push(b' ');
        list(more, out, |item, out| out.extend_from_slice(&item));
    }
    out.extend_from_slice(b"\r\n");
}

/// `"STATUS" SP mailbox SP "(" [status-att-list] ")"`
pub fn status_line(name: &str, items: &[(StatusItem, u64)], utf8: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"* STATUS ");
    mailbox(name, utf8, out);
    out.push(b' ');
    list(items, out, |(item, value), out| {
        out.extend_from_slice(format!("{} {value}", item.as_str()).as_bytes());
    });
    out.extend_from_slice(b"\r\n");
}

/// `"SEARCH" *(SP nz-number)` (RFC 3501), with the largest MODSEQ where it was asked for.
pub fn search(numbers: impl IntoIterator<Item = u32>, modseq: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"* SEARCH");
    for number in numbers {
        out.extend_from_slice(format!(" {number}").as_bytes());
    }
    if let Some(modseq) = modseq {
        out.extend_from_slice(format!(" (MODSEQ {modseq})").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What ESEARCH tells; what was not asked for, or is of no message, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Esearch<'a> {
    /// The tag of the command.
    pub tag: &'a str,
    /// Numbers are UIDs.
    pub uid: bool,
    /// `MIN`
    pub min: Option<u32>,
    /// `MAX`
    pub max: Option<u32>,
    /// `ALL`: ranges, of at least one message.
    pub all: Option<Vec<RangeInclusive<u32>>>,
    /// `COUNT`
    pub count: Option<u64>,
    /// `MODSEQ` (RFC 7162)
    pub modseq: Option<u64>,
}

/// ```text
/// esearch-response   = "ESEARCH" [search-correlator] [SP "UID"] *(SP search-return-data)
/// search-correlator  = SP "(" "TAG" SP tag-string ")"
/// search-return-data = "MIN" SP nz-number / "MAX" SP nz-number / "ALL" SP sequence-set /
///                      "COUNT" SP number / …
/// ```
pub fn esearch(found: &Esearch, out: &mut Vec<u8>) {
    out.extend_from_slice(b"* ESEARCH (TAG ");
    string(found.tag.as_bytes(), out);
    out.push(b')');
    if found.uid {
        out.extend_from_slice(b" UID");
    }
    let mut item = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.extend_from_slice(format!(" {name} {value}").as_bytes());
        }
    };
    item("MIN", found.min.map(|number| number.to_string()));
    item("MAX", found.max.map(|number| number.to_string()));
    item("COUNT", found.count.map(|number| number.to_string()));
    let all = found.all.as_ref().filter(|all| !all.is_empty());
    item("ALL", all.map(|all| set_text(all.iter().cloned())));
    item("MODSEQ", found.modseq.map(|modseq| modseq.to_string()));
    out.extend_from_slice(b"\r\n");
}

/// `"VANISHED" [SP "(EARLIER)"] SP known-uids` (RFC 7162).
pub fn vanished(
    earlier: bool,
    uids: impl IntoIterator<Item = RangeInclusive<u32>>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(if earlier { b"* VANISHED (EARLIER) " } else { b"* VANISHED " });
    set(uids, out);
    out.extend_from_slice(b"\r\n");
}

/// A line of FETCH: [`FetchLine::begin`], items with what they are, [`FetchLine::end`].
///
/// ```text
/// message-data = nz-number SP "FETCH" SP msg-att
/// msg-att      = "(" (msg-att-dynamic / msg-att-static) *(SP (msg-att-dynamic / msg-att-static)) ")"
/// ```
#[derive(Debug)]
pub struct FetchLine {
    is_first: bool,
}

impl FetchLine {
    /// The line of message `number`.
    pub fn begin(number: u32, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(format!("* {number} FETCH (").as_bytes());
        Self { is_first: true }
    }

    /// The item's name, as the answer has it; its value is to follow.
    pub fn item(&mut self, item: &FetchItem, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.is_first) {
            out.push(b' ');
        }
        item_name(item, out);
        out.push(b' ');
    }

    /// An item that is a number: UID, RFC822.SIZE, BINARY.SIZE.
    pub fn number(&mut self, item: &FetchItem, number: u64, out: &mut Vec<u8>) {
        self.item(item, out);
        out.extend_from_slice(number.to_string().as_bytes());
    }

    /// `"FLAGS" SP "(" [flag-fetch *(SP flag-fetch)] ")"`
    pub fn flags<'a>(&mut self, all: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
        self.item(&FetchItem::Flags, out);
        flags(all, out);
    }

    /// `"INTERNALDATE" SP date-time`
    pub fn internal_date(&mut self, at: i64, zone: i32, out: &mut Vec<u8>) {
        self.item(&FetchItem::InternalDate, out);
        date_time(at, zone, out);
    }

    /// `"MODSEQ" SP "(" permsg-modsequence ")"`
    pub fn modseq(&mut self, modseq: u64, out: &mut Vec<u8>) {
        self.item(&FetchItem::ModSeq, out);
        out.extend_from_slice(format!("({modseq})").as_bytes());
    }

    /// The line's end.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b")\r\n");
    }
}

/// What an item is called in the answer: as in the command, but without PEEK, and with the first
/// octet only of a range.
fn item_name(item: &FetchItem, out: &mut Vec<u8>) {
    let mut words = |words: &str| out.extend_from_slice(words.as_bytes());
    match item {
        FetchItem::Envelope => words("ENVELOPE"),
        FetchItem::Flags => words("FLAGS"),
        FetchItem::InternalDate => words("INTERNALDATE"),
        FetchItem::Size => words("RFC822.SIZE"),
        FetchItem::Uid => words("UID"),
        FetchItem::ModSeq => words("MODSEQ"),
        FetchItem::Body => words("BODY"),
        FetchItem::BodyStructure => words("BODYSTRUCTURE"),
        FetchItem::Rfc822 => words("RFC822"),
        FetchItem::Rfc822Header => words("RFC822.HEADER"),
        FetchItem::Rfc822Text => words("RFC822.TEXT"),
        FetchItem::Section { section: which, partial, .. } => {
            words("BODY[");
            section(which, out);
            out.push(b']');
            origin(partial.as_ref(), out);
        }
        FetchItem::Binary { part, partial, .. } => {
            words(&format!("BINARY[{}]", part_text(part)));
            origin(partial.as_ref(), out);
        }
        FetchItem::BinarySize(part) => words(&format!("BINARY.SIZE[{}]", part_text(part))),
    }
}

/// `section-spec`
pub fn section(section: &Section, out: &mut Vec<u8>) {
    let dot = if section.part.is_empty() || section.text.is_none() { "" } else { "." };
    out.extend_from_slice(format!("{}{dot}", part_text(&section.part)).as_bytes());
    match &section.text {
        None => {}
        Some(SectionText::Header) => out.extend_from_slice(b"HEADER"),
        Some(SectionText::Text) => out.extend_from_slice(b"TEXT"),
        Some(SectionText::Mime) => out.extend_from_slice(b"MIME"),
        Some(SectionText::Fields { not, names }) => {
            out.extend_from_slice(if *not { b"HEADER.FIELDS.NOT " } else { b"HEADER.FIELDS " });
            list(names, out, |name, out| astring(name, out));
        }
    }
}

/// `section-part = nz-number *("." nz-number)`
fn part_text(part: &[u32]) -> String {
    part.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

/// `["<" number ">"]`
fn origin(partial: Option<&Partial>, out: &mut Vec<u8>) {
    if let Some(partial) = partial {
        out.extend_from_slice(format!("<{}>", partial.start).as_bytes());
    }
}

/// Whether a flag can be told of: an atom, perhaps with a backslash before it.
pub fn is_flag(flag: &str) -> bool {
    let atom = flag.strip_prefix('\\').unwrap_or(flag);
    !atom.is_empty() && atom.bytes().all(is_atom_char)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
