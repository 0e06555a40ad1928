//! FETCH and STORE.

use super::Error;
use super::cursor::Cursor;
use super::flag::{Flag, flags};
use super::sequence::{SequenceSet, sequence_set};

/// So many items a FETCH may have.
const MAX_ITEMS: usize = 1000;
/// So many numbers the name of a part may have.
const MAX_PART: usize = 100;
/// So many fields a section may name.
const MAX_FIELDS: usize = 1000;

/// `FETCH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Of which messages.
    pub set: SequenceSet,
    /// What, in the client's order; ALL, FULL and FAST are what they stand for.
    pub items: Vec<FetchItem>,
    /// `CHANGEDSINCE` (RFC 7162)
    pub changed_since: Option<u64>,
    /// `VANISHED` (RFC 7162)
    pub vanished: bool,
}

/// `fetch-att`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchItem {
    /// `ENVELOPE`
    Envelope,
    /// `FLAGS`
    Flags,
    /// `INTERNALDATE`
    InternalDate,
    /// `RFC822.SIZE`
    Size,
    /// `UID`
    Uid,
    /// `MODSEQ` (RFC 7162)
    ModSeq,
    /// `BODY`, without a section.
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// `RFC822` (RFC 3501)
    Rfc822,
    /// `RFC822.HEADER` (RFC 3501)
    Rfc822Header,
    /// `RFC822.TEXT` (RFC 3501)
    Rfc822Text,
    /// `BODY[…]`
    Section {
        /// `BODY.PEEK`: the message does not become `\Seen`.
        peek: bool,
        /// What of the message.
        section: Section,
        /// Which octets of it.
        partial: Option<Partial>,
    },
    /// `BINARY[…]` (RFC 3516)
    Binary {
        /// `BINARY.PEEK`
        peek: bool,
        /// The numbers of the part.
        part: Vec<u32>,
        /// Which octets of it.
        partial: Option<Partial>,
    },
    /// `BINARY.SIZE[…]` (RFC 3516)
    BinarySize(Vec<u32>),
}

/// `section-spec`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The numbers of the part; none for the message itself.
    pub part: Vec<u32>,
    /// What of it; `None` is all, of a part its body.
    pub text: Option<SectionText>,
}

/// `section-text`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// `HEADER`
    Header,
    /// `HEADER.FIELDS`, or `HEADER.FIELDS.NOT`
    Fields {
        /// All but these.
        not: bool,
        /// Their names, as the client has written them.
        names: Vec<Vec<u8>>,
    },
    /// `TEXT`
    Text,
    /// `MIME`
    Mime,
}

/// `partial = "<" number64 "." nz-number64 ">"`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first octet, counted from 0.
    pub start: u64,
    /// How many at most, never 0.
    pub length: u64,
}

/// `STORE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which messages.
    pub set: SequenceSet,
    /// What becomes of their flags.
    pub action: StoreAction,
    /// Whether nothing is to be told of them.
    pub silent: bool,
    /// Which flags.
    pub flags: Vec<Flag>,
    /// `UNCHANGEDSINCE` (RFC 7162)
    pub unchanged_since: Option<u64>,
}

/// What STORE does with flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAction {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// ```text
/// fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att /
///         "(" fetch-att *(SP fetch-att) ")") [fetch-modifiers]
/// fetch-modifiers = SP "(" fetch-modifier *(SP fetch-modifier) ")"        ; RFC 4466 section 3
/// fetch-modifier  =/ "CHANGEDSINCE" SP mod-sequence-value / "VANISHED"    ; RFC 7162 section 7
/// ```
pub(super) fn fetch(cursor: &mut Cursor) -> Result<Fetch, Error> {
    use FetchItem::{Body, Envelope, Flags, InternalDate, Size};
    cursor.sp()?;
    let set = sequence_set(cursor)?;
    cursor.sp()?;
    let items = if cursor.peek() == Some(b'(') {
        cursor.full_list(MAX_ITEMS, "items of FETCH", fetch_att)?
    } else {
        let mut ahead = *cursor;
        let items = match ahead.word().as_str() {
            "ALL" => vec![Flags, InternalDate, Size, Envelope],
            "FULL" => vec![Flags, InternalDate, Size, Envelope, Body],
            "FAST" => vec![Flags, InternalDate, Size],
            _ => vec![],
        };
        if items.is_empty() {
            vec![fetch_att(cursor)?]
        } else {
            *cursor = ahead;
            items
        }
    };
    let mut fetch = Fetch { set, items, changed_since: None, vanished: false };
    if cursor.eat(b' ') && cursor.end().is_err() {
        cursor.full_list(2, "modifiers", |cursor| {
            match cursor.word().as_str() {
                "CHANGEDSINCE" => {
                    cursor.sp()?;
                    fetch.changed_since = Some(cursor.number64()?);
                }
                "VANISHED" => fetch.vanished = true,
                _ => return Err(Error::Wanted("a modifier of FETCH")),
            }
            Ok(())
        })?;
    }
    if fetch.vanished && fetch.changed_since.is_none() {
        return Err(Error::Wanted("CHANGEDSINCE beside VANISHED"));
    }
    Ok(fetch)
}

/// ```text
/// fetch-att = "ENVELOPE" / "FLAGS" / "INTERNALDATE" / "RFC822.SIZE" / "BODY" ["STRUCTURE"] /
///             "UID" / "BODY" section [partial] / "BODY.PEEK" section [partial] /
///             "BINARY" [".PEEK"] section-binary [partial] / "BINARY.SIZE" section-binary
/// fetch-att =/ "RFC822" [".HEADER" / ".TEXT"]      ; RFC 3501
/// fetch-att =/ "MODSEQ"                            ; RFC 7162
/// ```
fn fetch_att(cursor: &mut Cursor) -> Result<FetchItem, Error> {
    let word = cursor.word();
    let item = match word.as_str() {
        "ENVELOPE" => FetchItem::Envelope,
        "FLAGS" => FetchItem::Flags,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822.SIZE" => FetchItem::Size,
        "UID" => FetchItem::Uid,
        "MODSEQ" => FetchItem::ModSeq,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "RFC822" => FetchItem::Rfc822,
        "RFC822.HEADER" => FetchItem::Rfc822Header,
        "RFC822.TEXT" => FetchItem::Rfc822Text,
        "BODY" if cursor.peek() != Some(b'[') => FetchItem::Body,
        "BODY" | "BODY.PEEK" => {
            let (section, partial) = (section(cursor)?, partial(cursor)?);
            FetchItem::Section { peek: word == "BODY.PEEK", section, partial }
        }
        "BINARY" | "BINARY.PEEK" => {
            let (part, partial) = (section_binary(cursor)?, partial(cursor)?);
            FetchItem::Binary { peek: word == "BINARY.PEEK", part, partial }
        }
        "BINARY.SIZE" => FetchItem::BinarySize(section_binary(cursor)?),
        _ => return Err(Error::Wanted("an item of FETCH")),
    };
    Ok(item)
}

/// ```text
/// section        = "[" [section-spec] "]"
/// section-spec   = section-msgtext / (section-part ["." section-text])
/// section-text   = section-msgtext / "MIME"
/// ```
fn section(cursor: &mut Cursor) -> Result<Section, Error> {
    const WANTED: &str = "a section like [1.2.TEXT]";
    cursor.expect(b'[', WANTED)?;
    let mut section = Section::default();
    if cursor.eat(b']') {
        return Ok(section);
    }
    let (part, goes_on) = section_part(cursor)?;
    section.part = part;
    if goes_on || section.part.is_empty() {
        section.text = Some(section_text(cursor, &section.part)?);
    }
    cursor.expect(b']', WANTED)?;
    Ok(section)
}

/// `section-part = nz-number *("." nz-number)`, or nothing; whether a dot stands behind it.
fn section_part(cursor: &mut Cursor) -> Result<(Vec<u32>, bool), Error> {
    let mut part = Vec::new();
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        if part.len() >= MAX_PART {
            return Err(Error::TooMany("numbers of parts"));
        }
        part.push(cursor.nz_number()?);
        if !cursor.eat(b'.') {
            return Ok((part, false));
        }
    }
    let goes_on = !part.is_empty();
    Ok((part, goes_on))
}

/// ```text
/// section-msgtext = "HEADER" / "HEADER.FIELDS" [".NOT"] SP header-list / "TEXT"
/// header-list     = "(" header-fld-name *(SP header-fld-name) ")"
/// header-fld-name = astring
/// ```
fn section_text(cursor: &mut Cursor, part: &[u32]) -> Result<SectionText, Error> {
    let word = cursor.word();
    Ok(match word.as_str() {
        "HEADER" => SectionText::Header,
        "TEXT" => SectionText::Text,
        "MIME" if !part.is_empty() => SectionText::Mime,
        "HEADER.FIELDS" | "HEADER.FIELDS.NOT" => {
            cursor.sp()?;
            let names = cursor.full_list(MAX_FIELDS, "fields", Cursor::astring)?;
            SectionText::Fields { not: word == "HEADER.FIELDS.NOT", names }
        }
        _ => return Err(Error::Wanted("HEADER, HEADER.FIELDS, TEXT or the MIME of a part")),
    })
}

/// `section-binary = "[" [section-part] "]"`
fn section_binary(cursor: &mut Cursor) -> Result<Vec<u32>, Error> {
    const WANTED: &str = "a section like [1.2]";
    cursor.expect(b'[', WANTED)?;
    let (part, goes_on) = section_part(cursor)?;
    if goes_on {
        return Err(Error::Wanted(WANTED));
    }
    cursor.expect(b']', WANTED)?;
    Ok(part)
}

fn partial(cursor: &mut Cursor) -> Result<Option<Partial>, Error> {
    const WANTED: &str = "a range like <0.100>";
    if !cursor.eat(b'<') {
        return Ok(None);
    }
    let start = cursor.number64()?;
    cursor.expect(b'.', WANTED)?;
    let length = cursor.number64()?;
    cursor.expect(b'>', WANTED)?;
    if length == 0 { Err(Error::Wanted(WANTED)) } else { Ok(Some(Partial { start, length })) }
}

/// ```text
/// store           = "STORE" SP sequence-set [store-modifiers] SP store-att-flags
/// store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))
/// store-modifier  =/ "UNCHANGEDSINCE" SP mod-sequence-valzer      ; RFC 7162 section 7
/// ```
pub(super) fn store(cursor: &mut Cursor) -> Result<Store, Error> {
    cursor.sp()?;
    let set = sequence_set(cursor)?;
    cursor.sp()?;
    let mut unchanged_since = None;
    if cursor.peek() == Some(b'(') {
        cursor.full_list(1, "modifiers", |cursor| {
            if cursor.word() != "UNCHANGEDSINCE" {
                return Err(Error::Wanted("a modifier of STORE"));
            }
            cursor.sp()?;
            unchanged_since = Some(cursor.number64()?);
            Ok(())
        })?;
        cursor.sp()?;
    }
    let action = match cursor.peek() {
        Some(b'+') => StoreAction::Add,
        Some(b'-') => StoreAction::Remove,
        _ => StoreAction::Replace,
    };
    if action != StoreAction::Replace {
        cursor.take_one();
    }
    let silent = match cursor.word().as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(Error::Wanted("FLAGS or FLAGS.SILENT")),
    };
    cursor.sp()?;
    Ok(Store { set, action, silent, flags: flags(cursor)?, unchanged_since })
}
