//! Commands about mailboxes.

use super::cursor::Cursor;
use super::sequence::{SequenceSet, sequence_set};
use super::{Command, Error};

/// So many patterns a LIST may have.
pub const MAX_PATTERNS: usize = 100;
/// So many words a list of options or items may have.
const MAX_WORDS: usize = 50;

/// `LIST`, with the extensions of RFC 5258, RFC 5819 and RFC 6154.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Which mailboxes. `None`: it is the old command, where the pattern "" asks for the delimiter.
    pub select: Option<Vec<SelectOption>>,
    /// What stands before each pattern.
    pub reference: String,
    /// The patterns, at least one.
    pub patterns: Vec<String>,
    /// What is to be told of each.
    pub returns: Vec<ReturnOption>,
}

/// `list-select-opt`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectOption {
    /// `SUBSCRIBED`
    Subscribed,
    /// `REMOTE`
    Remote,
    /// `RECURSIVEMATCH`
    RecursiveMatch,
    /// `SPECIAL-USE` (RFC 6154)
    SpecialUse,
}

/// `return-option`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnOption {
    /// `SUBSCRIBED`
    Subscribed,
    /// `CHILDREN`
    Children,
    /// `SPECIAL-USE` (RFC 6154)
    SpecialUse,
    /// `STATUS` (RFC 5819)
    Status(Vec<StatusItem>),
}

/// `status-att`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// `MESSAGES`
    Messages,
    /// `RECENT` (RFC 3501)
    Recent,
    /// `UIDNEXT`
    UidNext,
    /// `UIDVALIDITY`
    UidValidity,
    /// `UNSEEN`
    Unseen,
    /// `DELETED`
    Deleted,
    /// `SIZE` (RFC 8438)
    Size,
    /// `HIGHESTMODSEQ` (RFC 7162)
    HighestModSeq,
}

impl StatusItem {
    const ALL: [Self; 8] = [
        Self::Messages,
        Self::Recent,
        Self::UidNext,
        Self::UidValidity,
        Self::Unseen,
        Self::Deleted,
        Self::Size,
        Self::HighestModSeq,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::Size => "SIZE",
            Self::HighestModSeq => "HIGHESTMODSEQ",
        }
    }
}

/// What stands behind the mailbox of SELECT and EXAMINE (RFC 4466, RFC 7162).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `CONDSTORE`
    pub condstore: bool,
    /// `QRESYNC`
    pub resync: Option<Resync>,
}

/// What a client knows of a mailbox from before (RFC 7162 section 3.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resync {
    /// The UIDVALIDITY.
    pub uid_validity: u32,
    /// The MODSEQ.
    pub modseq: u64,
    /// The UIDs; `None` are all.
    pub known: Option<SequenceSet>,
    /// Message numbers, and the UIDs they had.
    pub matches: Option<(SequenceSet, SequenceSet)>,
}

pub(super) fn command(name: &str, cursor: &mut Cursor) -> Result<Command, Error> {
    let one = |cursor: &mut Cursor| {
        cursor.sp()?;
        cursor.mailbox()
    };
    Ok(match name {
        // `select = "SELECT" SP mailbox [select-params]`, and EXAMINE likewise.
        "SELECT" => select(cursor).map(|(name, with)| Command::Select(name, with))?,
        "EXAMINE" => select(cursor).map(|(name, with)| Command::Examine(name, with))?,
        "CREATE" => Command::Create(one(cursor)?, create_params(cursor)?),
        "DELETE" => Command::Delete(one(cursor)?),
        // `rename = "RENAME" SP mailbox SP mailbox`
        "RENAME" => Command::Rename { from: one(cursor)?, to: one(cursor)? },
        "SUBSCRIBE" => Command::Subscribe(one(cursor)?),
        "UNSUBSCRIBE" => Command::Unsubscribe(one(cursor)?),
        "LIST" => Command::List(list(cursor)?),
        // `lsub = "LSUB" SP mailbox SP list-mailbox`
        "LSUB" => {
            let reference = one(cursor)?;
            cursor.sp()?;
            Command::Lsub { reference, pattern: cursor.list_mailbox()? }
        }
        // `status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"`
        "STATUS" => {
            let mailbox = one(cursor)?;
            cursor.sp()?;
            Command::Status(mailbox, status_items(cursor)?)
        }
        _ => return Err(Error::Unknown),
    })
}

/// What is none is BAD, whatever is wrong: NO would say that nothing is selected any more.
fn select(cursor: &mut Cursor) -> Result<(String, Parameters), Error> {
    let mut read = || {
        cursor.sp()?;
        Ok((cursor.mailbox()?, select_params(cursor)?))
    };
    read().map_err(|error| match error {
        Error::Name | Error::TooMany(_) => Error::Wanted("the name of a mailbox"),
        error => error,
    })
}

/// `"(" status-att *(SP status-att) ")"`
fn status_items(cursor: &mut Cursor) -> Result<Vec<StatusItem>, Error> {
    cursor.full_list(MAX_WORDS, "items of STATUS", |cursor| {
        let word = cursor.word();
        let item = StatusItem::ALL.into_iter().find(|item| item.as_str() == word);
        item.ok_or(Error::Wanted("an item of STATUS"))
    })
}

/// ```text
/// select-params = SP "(" select-param *(SP select-param) ")"      ; RFC 4466 section 3
/// select-param  =/ "CONDSTORE" / "QRESYNC" SP "(" uidvalidity SP mod-sequence-value
///                  [SP known-uids] [SP seq-match-data] ")"         ; RFC 7162 section 7
/// ```
fn select_params(cursor: &mut Cursor) -> Result<Parameters, Error> {
    let mut parameters = Parameters::default();
    if !cursor.eat(b' ') || cursor.end().is_ok() {
        return Ok(parameters);
    }
    cursor.full_list(MAX_WORDS, "parameters", |cursor| {
        match cursor.word().as_str() {
            "CONDSTORE" => parameters.condstore = true,
            "QRESYNC" => parameters.resync = Some(resync(cursor)?),
            _ => return Err(Error::Wanted("a parameter of SELECT")),
        }
        Ok(())
    })?;
    Ok(parameters)
}

fn resync(cursor: &mut Cursor) -> Result<Resync, Error> {
    cursor.sp()?;
    cursor.expect(b'(', "what is known of the mailbox")?;
    let uid_validity = cursor.nz_number()?;
    cursor.sp()?;
    let modseq = cursor.number64()?;
    let mut resync = Resync { uid_validity, modseq, known: None, matches: None };
    let mut more = cursor.eat(b' ');
    if more && cursor.peek() != Some(b'(') {
        resync.known = Some(known_set(cursor)?);
        more = cursor.eat(b' ');
    }
    if more {
        // `seq-match-data = "(" known-sequence-set SP known-uid-set ")"`
        cursor.expect(b'(', "numbers and UIDs of messages")?;
        let numbers = known_set(cursor)?;
        cursor.sp()?;
        resync.matches = Some((numbers, known_set(cursor)?));
        cursor.expect(b')', "the end of a list")?;
    }
    cursor.expect(b')', "the end of a list")?;
    Ok(resync)
}

/// `known-uids = sequence-set ; Sequence of UIDs; "*" is not allowed`
fn known_set(cursor: &mut Cursor) -> Result<SequenceSet, Error> {
    let set = sequence_set(cursor)?;
    let is_known = match &set {
        SequenceSet::Saved => false,
        SequenceSet::Ranges(ranges) => {
            let is = |number| matches!(number, super::Number::Is(_));
            ranges.iter().all(|(first, last)| is(*first) && is(*last))
        }
    };
    if is_known { Ok(set) } else { Err(Error::Wanted("a set of known messages")) }
}

/// ```text
/// create        = "CREATE" SP mailbox [create-params]
/// create-params = SP "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")"    ; RFC 6154 section 6
/// ```
fn create_params(cursor: &mut Cursor) -> Result<Vec<String>, Error> {
    if !cursor.eat(b' ') || cursor.end().is_ok() {
        return Ok(Vec::new());
    }
    let uses = cursor.full_list(MAX_WORDS, "parameters", |cursor| {
        if cursor.word() != "USE" {
            return Err(Error::Wanted("a parameter of CREATE"));
        }
        cursor.sp()?;
        cursor.list(MAX_WORDS, "uses of a mailbox", |cursor| {
            cursor.expect(b'\\', "a use of a mailbox")?;
            Ok(format!("\\{}", cursor.atom()?))
        })
    });
    Ok(uses?.into_iter().flatten().collect())
}

/// ```text
/// list        = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]
/// mbox-or-pat = list-mailbox / patterns
/// patterns    = "(" list-mailbox *(SP list-mailbox) ")"
/// ```
fn list(cursor: &mut Cursor) -> Result<List, Error> {
    let mut list = List::default();
    cursor.sp()?;
    if cursor.peek() == Some(b'(') {
        list.select = Some(list_select_opts(cursor)?);
        cursor.sp()?;
    }
    list.reference = cursor.mailbox()?;
    cursor.sp()?;
    list.patterns = match cursor.peek() {
        Some(b'(') => {
            list.select.get_or_insert_default();
            cursor.full_list(MAX_PATTERNS, "patterns", Cursor::list_mailbox)?
        }
        _ => vec![cursor.list_mailbox()?],
    };
    if cursor.eat(b' ') && cursor.end().is_err() {
        list.select.get_or_insert_default();
        list.returns = list_return_opts(cursor)?;
    }
    Ok(list)
}

/// ```text
/// list-select-opts = "(" [(*(list-select-opt SP) list-select-base-opt *(SP list-select-opt)) /
///                    (list-select-independent-opt *(SP list-select-independent-opt))] ")"
/// ```
///
/// RECURSIVEMATCH needs one beside it that is not REMOTE.
fn list_select_opts(cursor: &mut Cursor) -> Result<Vec<SelectOption>, Error> {
    let options = cursor.list(MAX_WORDS, "options of LIST", |cursor| {
        Ok(match cursor.word().as_str() {
            "SUBSCRIBED" => SelectOption::Subscribed,
            "REMOTE" => SelectOption::Remote,
            "RECURSIVEMATCH" => SelectOption::RecursiveMatch,
            "SPECIAL-USE" => SelectOption::SpecialUse,
            _ => return Err(Error::Wanted("a selection option of LIST")),
        })
    })?;
    let is_base = |option: &SelectOption| {
        !matches!(option, SelectOption::RecursiveMatch | SelectOption::Remote)
    };
    if options.contains(&SelectOption::RecursiveMatch) && !options.iter().any(is_base) {
        return Err(Error::Wanted("an option beside RECURSIVEMATCH"));
    }
    Ok(options)
}

/// ```text
/// list-return-opts = "RETURN" SP "(" [return-option *(SP return-option)] ")"
/// return-option    = "SUBSCRIBED" / "CHILDREN" / status-option / option-extension
/// status-option    = "STATUS" SP "(" status-att *(SP status-att) ")"
/// ```
fn list_return_opts(cursor: &mut Cursor) -> Result<Vec<ReturnOption>, Error> {
    if cursor.word() != "RETURN" {
        return Err(Error::Wanted("RETURN"));
    }
    cursor.sp()?;
    cursor.list(MAX_WORDS, "options of LIST", |cursor| {
        Ok(match cursor.word().as_str() {
            "SUBSCRIBED" => ReturnOption::Subscribed,
            "CHILDREN" => ReturnOption::Children,
            "SPECIAL-USE" => ReturnOption::SpecialUse,
            "STATUS" => {
                cursor.sp()?;
                ReturnOption::Status(status_items(cursor)?)
            }
            _ => return Err(Error::Wanted("a return option of LIST")),
        })
    })
}
