//! Flags and keywords.

use super::Error;
use super::cursor::Cursor;

/// So many flags may be named at once.
pub const MAX_FLAGS: usize = 100;

/// A flag that a client may set, or search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Seen`
    Seen,
    /// `\Draft`
    Draft,
    /// `flag-keyword = "$MDNSent" / "$Forwarded" / … / atom`
    Keyword(String),
}

impl Flag {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Seen => "\\Seen",
            Self::Draft => "\\Draft",
            Self::Keyword(keyword) => keyword,
        }
    }
}

/// `flag-list = "(" [flag *(SP flag)] ")"`
pub(super) fn flag_list(cursor: &mut Cursor) -> Result<Vec<Flag>, Error> {
    Ok(cursor.list(MAX_FLAGS, "flags", flag)?.into_iter().flatten().collect())
}

/// `flag-list / (flag *(SP flag))`
pub(super) fn flags(cursor: &mut Cursor) -> Result<Vec<Flag>, Error> {
    if cursor.peek() == Some(b'(') {
        return flag_list(cursor);
    }
    let mut flags = Vec::new();
    loop {
        if flags.len() >= MAX_FLAGS {
            return Err(Error::TooMany("flags"));
        }
        flags.push(flag(cursor)?);
        if !cursor.eat(b' ') || cursor.end().is_ok() {
            return Ok(flags.into_iter().flatten().collect());
        }
    }
}

/// ```text
/// flag           = "\Answered" / "\Flagged" / "\Deleted" / "\Seen" / "\Draft" / flag-keyword /
///                  flag-extension
/// flag-extension = "\" atom
/// ```
///
/// No extension is known. Quirk: `\Recent`, which is not the client's to set, is passed over; clients
/// send it back with what they were told.
fn flag(cursor: &mut Cursor) -> Result<Option<Flag>, Error> {
    if !cursor.eat(b'\\') {
        let keyword = cursor.atom().map_err(|_| Error::Wanted("a flag"))?;
        return Ok(Some(Flag::Keyword(keyword)));
    }
    match cursor.atom()?.to_ascii_uppercase().as_str() {
        "ANSWERED" => Ok(Some(Flag::Answered)),
        "FLAGGED" => Ok(Some(Flag::Flagged)),
        "DELETED" => Ok(Some(Flag::Deleted)),
        "SEEN" => Ok(Some(Flag::Seen)),
        "DRAFT" => Ok(Some(Flag::Draft)),
        "RECENT" => Ok(None),
        _ => Err(Error::Wanted("a system flag that there is")),
    }
}
