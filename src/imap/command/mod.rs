//! Commands (RFC 9051 sections 6 and 9, RFC 3501 likewise, and extensions).
//!
//! ```text
//! command = tag SP (command-any / command-auth / command-nonauth / command-select) CRLF
//! ```
//!
//! A command comes from [`super::input`] as a whole, with its literals in it, and so within limits;
//! here are limits of what is made of it. A literal whose octets are not there yet ends in
//! [`Error::More`]: a command can be judged before they are asked for.
//!
//! Quirks, each named where it is: spaces at the end of a command; octets above 127 in quoted strings;
//! `\Recent` among flags; a day of one digit without a space in a date with time.

mod append;
mod cursor;
mod date;
mod fetch;
mod flag;
mod mailbox;
mod search;
mod sequence;
mod session;

use std::fmt;

use crate::sasl::Secret;

pub use append::{AppendTo, Appended, append, append_more};
pub use date::DateTime;
pub use fetch::{Fetch, FetchItem, Partial, Section, SectionText, Store, StoreAction};
pub use flag::{Flag, MAX_FLAGS};
pub use mailbox::{List, MAX_PATTERNS, Parameters, Resync, ReturnOption, SelectOption, StatusItem};
pub use search::{Key, MAX_DEPTH, MAX_KEYS, Moment, Relation, Return, Search};
pub use sequence::{MAX_RANGES, Number, SequenceSet};

pub(super) use cursor::{is_astring_char, is_atom_char};
pub(super) use session::response;

use cursor::Cursor;

/// A command with its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// What its last answer begins with.
    pub tag: String,
    /// The command.
    pub command: Command,
}

/// A command. Of those that begin with UID, `uid` is true, and their sets are of UIDs. Names of
/// mailboxes are decoded, and INBOX is in capitals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `CAPABILITY`
    Capability,
    /// `NOOP`
    Noop,
    /// `LOGOUT`
    Logout,
    /// `ID` (RFC 2971): fields and their values.
    Id(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// `STARTTLS`
    StartTls,
    /// `LOGIN`
    Login {
        /// The name.
        user: Vec<u8>,
        /// The password.
        password: Secret,
    },
    /// `AUTHENTICATE`
    Authenticate {
        /// The mechanism's name, in capitals.
        mechanism: String,
        /// The initial response (RFC 4959), decoded.
        initial: Option<Secret>,
    },
    /// `ENABLE` (RFC 5161): names in capitals.
    Enable(Vec<String>),
    /// `SELECT`
    Select(String, Parameters),
    /// `EXAMINE`
    Examine(String, Parameters),
    /// `CREATE`, and what for (RFC 6154): attributes as they were written.
    Create(String, Vec<String>),
    /// `DELETE`
    Delete(String),
    /// `RENAME`
    Rename {
        /// The old name.
        from: String,
        /// The new one.
        to: String,
    },
    /// `SUBSCRIBE`
    Subscribe(String),
    /// `UNSUBSCRIBE`
    Unsubscribe(String),
    /// `LIST`
    List(List),
    /// `LSUB` (RFC 3501).
    Lsub {
        /// What stands before the pattern.
        reference: String,
        /// The pattern.
        pattern: String,
    },
    /// `NAMESPACE` (RFC 2342)
    Namespace,
    /// `STATUS`
    Status(String, Vec<StatusItem>),
    /// `IDLE` (RFC 2177); the line `DONE` ends it.
    Idle,
    /// `CHECK` (RFC 3501).
    Check,
    /// `CLOSE`
    Close,
    /// `UNSELECT` (RFC 3691)
    Unselect,
    /// `EXPUNGE`, or `UID EXPUNGE` (RFC 4315) with its set.
    Expunge(Option<SequenceSet>),
    /// `SEARCH`
    Search {
        /// Whether the answer has UIDs.
        uid: bool,
        /// What is searched for.
        search: Search,
    },
    /// `FETCH`
    Fetch {
        /// Whether the set has UIDs.
        uid: bool,
        /// What is fetched.
        fetch: Fetch,
    },
    /// `STORE`
    Store {
        /// Whether the set has UIDs.
        uid: bool,
        /// What is stored.
        store: Store,
    },
    /// `COPY`
    Copy {
        /// Whether the set has UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// Where to.
        mailbox: String,
    },
    /// `MOVE` (RFC 6851)
    Move {
        /// Whether the set has UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// Where to.
        mailbox: String,
    },
}

impl Command {
    /// Whether it has words of RFC 7162.
    pub fn wants_condstore(&self) -> bool {
        let is_modseq = |items: &[StatusItem]| items.contains(&StatusItem::HighestModSeq);
        match self {
            Self::Select(_, parameters) | Self::Examine(_, parameters) => {
                *parameters != Parameters::default()
            }
            Self::Status(_, items) => is_modseq(items),
            Self::List(list) => list
                .returns
                .iter()
                .any(|option| matches!(option, ReturnOption::Status(items) if is_modseq(items))),
            Self::Search { search, .. } => search.keys.iter().any(Key::wants_condstore),
            Self::Fetch { fetch, .. } => {
                fetch.changed_since.is_some() || fetch.items.contains(&FetchItem::ModSeq)
            }
            Self::Store { store, .. } => store.unchanged_since.is_some(),
            _ => false,
        }
    }
}

/// Why a text is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The octets of a literal are still to come.
    More,
    /// There is no such command.
    Unknown,
    /// There is, after login.
    NotYet,
    /// Something else should stand there.
    Wanted(&'static str),
    /// More than is taken of these.
    TooMany(&'static str),
    /// A mailbox can't have such a name.
    Name,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::More => f.write_str("the rest of a literal is missing"),
            Self::Unknown => f.write_str("unknown command"),
            Self::NotYet => f.write_str("log in first"),
            Self::Wanted(what) => write!(f, "{what} is wanted"),
            Self::TooMany(what) => write!(f, "too many {what}"),
            Self::Name => f.write_str("a mailbox can't have such a name"),
        }
    }
}

impl std::error::Error for Error {}

/// An [`Error`] and whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The command's tag, where it has one.
    pub tag: Option<String>,
    /// What is wrong.
    pub error: Error,
}

/// How a session reads commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Names of mailboxes are UTF-8 (RFC 9051 section 5.1), as the client has said by ENABLE, and not
    /// modified UTF-7 (RFC 3501 section 5.1.3).
    pub utf8: bool,
}

/// The tag that a command begins with, however it goes on.
pub fn tag(text: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(text, false);
    cursor.tag().filter(|_| cursor.is_at_end() || cursor.peek() == Some(b' '))
}

/// A command of any state but APPEND, which is [`append`]'s.
pub fn parse(text: &[u8], dialect: Dialect) -> Result<Tagged, Failure> {
    tagged(text, dialect, |name, cursor| {
        let uid = name == "UID";
        let name = if uid {
            cursor.sp()?;
            cursor.word()
        } else {
            name.to_owned()
        };
        match name.as_str() {
            "SEARCH" => Ok(Command::Search { uid, search: search::search(cursor)? }),
            "FETCH" => Ok(Command::Fetch { uid, fetch: fetch::fetch(cursor)? }),
            "STORE" => Ok(Command::Store { uid, store: fetch::store(cursor)? }),
            "COPY" => {
                let (set, mailbox) = set_and_mailbox(cursor)?;
                Ok(Command::Copy { uid, set, mailbox })
            }
            "MOVE" => {
                let (set, mailbox) = set_and_mailbox(cursor)?;
                Ok(Command::Move { uid, set, mailbox })
            }
            // `uid-expunge = "UID" SP "EXPUNGE" SP sequence-set`
            "EXPUNGE" if uid => {
                cursor.sp()?;
                Ok(Command::Expunge(Some(sequence::sequence_set(cursor)?)))
            }
            _ if uid => Err(Error::Unknown),
            "EXPUNGE" => Ok(Command::Expunge(None)),
            "IDLE" => Ok(Command::Idle),
            "CHECK" => Ok(Command::Check),
            "CLOSE" => Ok(Command::Close),
            "UNSELECT" => Ok(Command::Unselect),
            "NAMESPACE" => Ok(Command::Namespace),
            "ENABLE" => session::enable(cursor),
            _ => match mailbox::command(&name, cursor) {
                Err(Error::Unknown) => session::command(&name, cursor),
                result => result,
            },
        }
    })
}

/// A command before login: all others are [`Error::NotYet`], and not looked at any further.
pub fn parse_before_login(text: &[u8]) -> Result<Tagged, Failure> {
    const LATER: [&str; 25] = [
        "APPEND",
        "CHECK",
        "CLOSE",
        "COPY",
        "CREATE",
        "DELETE",
        "ENABLE",
        "EXAMINE",
        "EXPUNGE",
        "FETCH",
        "IDLE",
        "LIST",
        "LSUB",
        "MOVE",
        "NAMESPACE",
        "RENAME",
        "SEARCH",
        "SELECT",
        "STATUS",
        "STORE",
        "SUBSCRIBE",
        "UID",
        "UNSELECT",
        "UNSUBSCRIBE",
        "XLIST",
    ];
    let dialect = Dialect::default();
    let result = tagged(text, dialect, session::command);
    result.map_err(|failure| {
        let mut cursor = Cursor::new(text, false);
        let known = cursor.tag().is_some() && cursor.eat(b' ') && {
            let name = cursor.word();
            LATER.contains(&name.as_str())
        };
        match failure.error {
            Error::Unknown if known => Failure { error: Error::NotYet, ..failure },
            _ => failure,
        }
    })
}

/// A tag, a name, and what `arguments` finds behind it; then nothing more.
fn tagged(
    text: &[u8],
    dialect: Dialect,
    arguments: impl FnOnce(&str, &mut Cursor) -> Result<Command, Error>,
) -> Result<Tagged, Failure> {
    let (tag, name, mut cursor) = beginning(text, dialect)?;
    let command = arguments(&name, &mut cursor).and_then(|command| {
        cursor.end()?;
        Ok(command)
    });
    match command {
        Ok(command) => Ok(Tagged { tag, command }),
        Err(error) => Err(Failure { tag: Some(tag), error }),
    }
}

/// The tag and the name of a command.
fn beginning(text: &[u8], dialect: Dialect) -> Result<(String, String, Cursor<'_>), Failure> {
    let mut cursor = Cursor::new(text, dialect.utf8);
    let tag = cursor.tag().filter(|_| cursor.is_at_end() || cursor.peek() == Some(b' '));
    let Some(tag) = tag else {
        return Err(Failure { tag: None, error: Error::Wanted("a tag and a command") });
    };
    if !cursor.eat(b' ') {
        return Err(Failure { tag: Some(tag), error: Error::Wanted("a command") });
    }
    let name = cursor.word();
    Ok((tag, name, cursor))
}

/// `copy = "COPY" SP sequence-set SP mailbox`, and MOVE likewise.
fn set_and_mailbox(cursor: &mut Cursor) -> Result<(SequenceSet, String), Error> {
    cursor.sp()?;
    let set = sequence::sequence_set(cursor)?;
    cursor.sp()?;
    Ok((set, cursor.mailbox()?))
}

#[cfg(test)]
mod tests;
