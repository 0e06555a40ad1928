//! SEARCH.

use jiff::civil;

use super::Error;
use super::cursor::Cursor;
use super::date::date;
use super::flag::Flag;
use super::sequence::{SequenceSet, begins_set, sequence_set};

/// So deep keys may lie within each other; a chain of OR is one key.
pub const MAX_DEPTH: usize = 100;
/// So many keys a search may have.
pub const MAX_KEYS: usize = 1000;

/// `SEARCH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// What is to be returned (RFC 4731): `None` where the client has not said so, and none as ALL.
    pub returns: Option<Vec<Return>>,
    /// The charset of the strings.
    pub charset: Option<Vec<u8>>,
    /// What must be true of a message, all of it.
    pub keys: Vec<Key>,
}

/// `search-return-opt`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// `MIN`
    Min,
    /// `MAX`
    Max,
    /// `ALL`
    All,
    /// `COUNT`
    Count,
    /// `SAVE` (RFC 5182)
    Save,
}

/// `search-key`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `ALL`
    All,
    /// Its number is in the set.
    Numbers(SequenceSet),
    /// `UID`
    Uids(SequenceSet),
    /// It has the flag: `SEEN`, `KEYWORD`
    Has(Flag),
    /// It has not: `UNSEEN`, `UNKEYWORD`
    HasNot(Flag),
    /// `RECENT`
    Recent,
    /// `OLD`
    Old,
    /// `NEW`: recent, and not seen.
    New,
    /// `HEADER`, and `FROM` and the like: a field has the text. All who have the field, where it is
    /// empty.
    Header {
        /// The field's name.
        field: Vec<u8>,
        /// In the search's charset.
        text: Vec<u8>,
    },
    /// `BODY`
    Body(Vec<u8>),
    /// `TEXT`
    Text(Vec<u8>),
    /// `BEFORE`, `SENTON` and the like.
    Date(Moment, Relation, civil::Date),
    /// `LARGER`
    Larger(u64),
    /// `SMALLER`
    Smaller(u64),
    /// `MODSEQ` (RFC 7162): this or larger.
    ModSeq(u64),
    /// `NOT`
    Not(Box<Self>),
    /// `OR`: one of them, of two or more. `OR a OR b c` and `OR OR a b c` are the same.
    Or(Vec<Self>),
    /// In parentheses: all of them.
    And(Vec<Self>),
}

impl Key {
    /// Whether it is one of RFC 7162, or has one in it.
    pub(super) fn wants_condstore(&self) -> bool {
        match self {
            Self::ModSeq(_) => true,
            Self::Not(key) => key.wants_condstore(),
            Self::Or(keys) | Self::And(keys) => keys.iter().any(Self::wants_condstore),
            _ => false,
        }
    }
}

/// Which date of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// INTERNALDATE
    Arrived,
    /// The Date field.
    Sent,
}

/// How it stands to the date that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Earlier.
    Before,
    /// That day.
    On,
    /// That day or later.
    Since,
}

/// ```text
/// search             = "SEARCH" [search-return-opts] SP search-program
/// search-program     = ["CHARSET" SP charset SP] search-key *(SP search-key)
/// search-return-opts = SP "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")"
/// charset            = atom / quoted              ; RFC 3501: an astring, which is taken
/// ```
pub(super) fn search(cursor: &mut Cursor) -> Result<Search, Error> {
    cursor.sp()?;
    let mut returns = None;
    if cursor.eat_word("RETURN ") {
        returns = Some(cursor.list(5, "return options", |cursor| {
            Ok(match cursor.word().as_str() {
                "MIN" => Return::Min,
                "MAX" => Return::Max,
                "ALL" => Return::All,
                "COUNT" => Return::Count,
                "SAVE" => Return::Save,
                _ => return Err(Error::Wanted("a return option of SEARCH")),
            })
        })?);
        cursor.sp()?;
    }
    let mut charset = None;
    if cursor.eat_word("CHARSET ") {
        charset = Some(cursor.astring()?);
        cursor.sp()?;
    }
    let mut left = MAX_KEYS;
    let mut keys = vec![key(cursor, &mut left)?];
    while cursor.eat(b' ') && cursor.end().is_err() {
        keys.push(key(cursor, &mut left)?);
    }
    Ok(Search { returns, charset, keys })
}

/// ```text
/// search-key = "ALL" / "ANSWERED" / "BCC" SP astring / "BEFORE" SP date / … /
///              "OR" SP search-key SP search-key / "NOT" SP search-key / "UID" SP sequence-set /
///              sequence-set / "(" search-key *(SP search-key) ")"
/// search-key =/ "NEW" / "OLD" / "RECENT"          ; RFC 3501
/// ```
///
/// Keys within each other are no calls within each other: clients look for one of many texts by a
/// long chain of OR.
fn key(cursor: &mut Cursor, left: &mut usize) -> Result<Key, Error> {
    let mut open = Vec::new();
    loop {
        *left = left.checked_sub(1).ok_or(Error::TooMany("search keys"))?;
        let mut key = match begin(cursor)? {
            Begun::Key(key) => key,
            Begun::Open(one) => {
                open.push(one);
                let deep = open.iter().filter(|one| !matches!(one, Open::Or(_))).count();
                if deep > MAX_DEPTH {
                    return Err(Error::TooMany("keys within each other"));
                }
                continue;
            }
        };
        loop {
            key = match open.pop() {
                None => return Ok(key),
                Some(Open::Not) => Key::Not(Box::new(key)),
                Some(Open::Or(None)) => {
                    cursor.sp()?;
                    open.push(Open::Or(Some(key)));
                    break;
                }
                Some(Open::Or(Some(one))) => either(one, key),
                Some(Open::And(mut keys)) => {
                    keys.push(key);
                    if !cursor.eat(b')') {
                        cursor.expect(b' ', "a space or the end of a list")?;
                        open.push(Open::And(keys));
                        break;
                    }
                    Key::And(keys)
                }
            };
        }
    }
}

/// A key that has keys, of which not all were read.
enum Open {
    Not,
    Or(Option<Key>),
    And(Vec<Key>),
}

enum Begun {
    Key(Key),
    Open(Open),
}

fn either(one: Key, other: Key) -> Key {
    Key::Or(match (one, other) {
        (Key::Or(mut one), Key::Or(mut other)) => {
            one.append(&mut other);
            one
        }
        (Key::Or(mut one), other) => {
            one.push(other);
            one
        }
        (one, Key::Or(mut other)) => {
            other.insert(0, one);
            other
        }
        (one, other) => vec![one, other],
    })
}

fn begin(cursor: &mut Cursor) -> Result<Begun, Error> {
    if cursor.eat(b'(') {
        return Ok(Begun::Open(Open::And(Vec::new())));
    }
    if begins_set(cursor.peek()) {
        return sequence_set(cursor).map(|set| Begun::Key(Key::Numbers(set)));
    }
    let word = cursor.word();
    let found = match word.as_str() {
        "ALL" => Key::All,
        "ANSWERED" => Key::Has(Flag::Answered),
        "DELETED" => Key::Has(Flag::Deleted),
        "DRAFT" => Key::Has(Flag::Draft),
        "FLAGGED" => Key::Has(Flag::Flagged),
        "SEEN" => Key::Has(Flag::Seen),
        "UNANSWERED" => Key::HasNot(Flag::Answered),
        "UNDELETED" => Key::HasNot(Flag::Deleted),
        "UNDRAFT" => Key::HasNot(Flag::Draft),
        "UNFLAGGED" => Key::HasNot(Flag::Flagged),
        "UNSEEN" => Key::HasNot(Flag::Seen),
        "NEW" => Key::New,
        "OLD" => Key::Old,
        "RECENT" => Key::Recent,
        "NOT" => {
            cursor.sp()?;
            return Ok(Begun::Open(Open::Not));
        }
        "OR" => {
            cursor.sp()?;
            return Ok(Begun::Open(Open::Or(None)));
        }
        _ => {
            let argument = with_argument(&word).ok_or(Error::Wanted("a search key"))?;
            cursor.sp()?;
            argument(cursor)?
        }
    };
    Ok(Begun::Key(found))
}

type Argument = fn(&mut Cursor) -> Result<Key, Error>;

/// Keys that have an argument which is no key.
fn with_argument(word: &str) -> Option<Argument> {
    Some(match word {
        "BCC" => |cursor| field(cursor, b"Bcc"),
        "CC" => |cursor| field(cursor, b"Cc"),
        "FROM" => |cursor| field(cursor, b"From"),
        "SUBJECT" => |cursor| field(cursor, b"Subject"),
        "TO" => |cursor| field(cursor, b"To"),
        // `"HEADER" SP header-fld-name SP astring`
        "HEADER" => |cursor| {
            let name = cursor.astring()?;
            cursor.sp()?;
            field(cursor, &name)
        },
        "BODY" => |cursor| cursor.astring().map(Key::Body),
        "TEXT" => |cursor| cursor.astring().map(Key::Text),
        "BEFORE" => |cursor| day(cursor, Moment::Arrived, Relation::Before),
        "ON" => |cursor| day(cursor, Moment::Arrived, Relation::On),
        "SINCE" => |cursor| day(cursor, Moment::Arrived, Relation::Since),
        "SENTBEFORE" => |cursor| day(cursor, Moment::Sent, Relation::Before),
        "SENTON" => |cursor| day(cursor, Moment::Sent, Relation::On),
        "SENTSINCE" => |cursor| day(cursor, Moment::Sent, Relation::Since),
        "KEYWORD" => |cursor| Ok(Key::Has(Flag::Keyword(cursor.atom()?))),
        "UNKEYWORD" => |cursor| Ok(Key::HasNot(Flag::Keyword(cursor.atom()?))),
        "LARGER" => |cursor| cursor.number64().map(Key::Larger),
        "SMALLER" => |cursor| cursor.number64().map(Key::Smaller),
        "UID" => |cursor| sequence_set(cursor).map(Key::Uids),
        "MODSEQ" => modseq,
        _ => return None,
    })
}

fn field(cursor: &mut Cursor, field: &[u8]) -> Result<Key, Error> {
    Ok(Key::Header { field: field.to_vec(), text: cursor.astring()? })
}

fn day(cursor: &mut Cursor, moment: Moment, relation: Relation) -> Result<Key, Error> {
    Ok(Key::Date(moment, relation, date(cursor)?))
}

/// ```text
/// search-modsequence = "MODSEQ" [search-modseq-ext] SP mod-sequence-valzer  ; RFC 7162 section 7
/// search-modseq-ext  = SP entry-name SP entry-type-req
/// ```
///
/// There is one MODSEQ for all flags of a message, so that the entry says nothing.
fn modseq(cursor: &mut Cursor) -> Result<Key, Error> {
    if cursor.peek() == Some(b'"') {
        cursor.string()?;
        cursor.sp()?;
        if !["ALL", "PRIV", "SHARED"].contains(&cursor.word().as_str()) {
            return Err(Error::Wanted("all, priv or shared"));
        }
        cursor.sp()?;
    }
    cursor.number64().map(Key::ModSeq)
}
