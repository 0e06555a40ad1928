//! What POP3 and IMAP ask of a mailbox, wherever its messages are kept.
//!
//! A [`Store`] is one session's handle on one mailbox. Messages are known by their UIDs, and stand
//! in their order. What the handle shows changes by [`Store::sync`], which looks at what others
//! did, and by its own changes; [`Store::changes_since`] tells what has happened since a MODSEQ,
//! which is what NOOP, IDLE and a client that comes again (RFC 7162) ask alike.

use std::collections::HashMap;
use std::io;
use std::ops::{BitAnd, BitOr, BitXor, Not, Range};
use std::os::fd::BorrowedFd;

use xxhash_rust::xxh3::xxh3_128;

use super::uids::{Uid, UidSet};
use super::{Error, NewMessage};

/// So many keywords a mailbox may have: they are the bits of a number.
pub const MOST_KEYWORDS: usize = 64;

/// Longer names of keywords are none.
pub const MOST_KEYWORD_BYTES: usize = 255;

/// The system flags of a message (RFC 9051 section 2.3.2), as a set. `\Recent` is none: it belongs
/// to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`
    pub const DELETED: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);
    /// Each of them.
    pub const ALL: Self = Self(31);

    /// The set as bits; what is no flag is left out.
    pub fn of_bits(bits: u8) -> Self {
        Self(bits) & Self::ALL
    }

    /// The bits of the set.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are in it.
    pub fn has(self, other: Self) -> bool {
        self & other == other
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Flags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitXor for Flags {
    type Output = Self;
    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl Not for Flags {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }
}

/// Whether this can be the name of a keyword: an atom (RFC 9051 section 9), not overlong.
pub fn is_keyword(name: &str) -> bool {
    let special = |b: &u8| b"(){%*\"\\]".contains(b);
    (1..=MOST_KEYWORD_BYTES).contains(&name.len())
        && name.as_bytes().iter().all(|b| b.is_ascii_graphic() && !special(b))
}

/// The bit of a keyword among those of a mailbox. They are the same in either case (RFC 9051
/// section 2.3.2).
pub fn keyword<'a>(all: impl IntoIterator<Item = &'a String>, name: &str) -> Option<u64> {
    all.into_iter().position(|other| other.eq_ignore_ascii_case(name)).map(keyword_bit)
}

/// The names of the keywords of a mailbox that these bits stand for.
pub fn keywords(all: &[String], bits: u64) -> impl Iterator<Item = &str> {
    let names = all.iter().enumerate().filter(move |(at, _)| bits & keyword_bit(*at) != 0);
    names.map(|(_, name)| name.as_str())
}

/// The bit of the keyword at a place.
pub(super) fn keyword_bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0)
}

/// What a message is marked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Its system flags.
    pub flags: Flags,
    /// Its keywords: bit n is the mailbox's keyword n.
    pub keywords: u64,
}

/// How a change of marks is meant (RFC 9051 section 6.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
    /// `FLAGS`
    Replace,
}

impl Marking {
    /// What `marks` become by it.
    pub fn of(self, marks: Marks, by: Marks) -> Marks {
        match self {
            Self::Add => {
                Marks { flags: marks.flags | by.flags, keywords: marks.keywords | by.keywords }
            }
            Self::Remove => {
                Marks { flags: marks.flags & !by.flags, keywords: marks.keywords & !by.keywords }
            }
            Self::Replace => by,
        }
    }
}

/// One message of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub uid: Uid,
    /// Octets of its header with the blank line, as a client gets them.
    pub header: u32,
    /// Its flags and keywords.
    pub marks: Marks,
    /// The mailbox's MODSEQ when it came or its marks were last changed (RFC 7162).
    pub modseq: u64,
    /// Its octets, as a client gets them.
    pub size: u64,
    /// When it arrived (INTERNALDATE), in seconds since 1970.
    pub date: i64,
    /// What it is known again by.
    pub digest: [u8; 16],
    /// Where the mailbox has it.
    pub extent: Extent,
}

/// Where an mbox has a message. Other kinds of mailboxes leave it empty, but for `unwritten`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Its `From_` line, in the file.
    pub start: u64,
    /// Bytes of its header and body, as stored.
    pub length: u64,
    /// Bytes of its `From_` line.
    pub from_line: u32,
    /// Bytes of its header with the blank line, as stored.
    pub header: u32,
    /// Bytes behind its body that belong to it: the blank line that ends it.
    pub gap: u32,
    /// The marks that the mailbox itself has for it: what differs when it is looked at again was
    /// changed by somebody else.
    pub stored: Marks,
    /// We quoted its body.
    pub quoted: bool,
    /// Its marks are in the index only, not in the mailbox itself yet.
    pub unwritten: bool,
    /// The mailbox itself has its UID, too.
    pub named: bool,
    /// Its header has no room for marks and UID.
    pub no_room: bool,
    /// It is being removed: should the removal be killed, of those that are the same it is the one
    /// that is gone.
    pub doomed: bool,
}

/// A name for each message that stays the same in every session, and without an index: 32 hexadecimal
/// digits of its digest (RFC 1939's unique-id). Messages that are the same are told apart by their
/// order.
pub fn unique_ids(messages: &[Message]) -> Vec<String> {
    let mut seen: HashMap<[u8; 16], u32> = HashMap::new();
    let name = |message: &Message| {
        let count = seen.entry(message.digest).or_insert(0);
        let digest = match *count {
            0 => u128::from_be_bytes(message.digest),
            _ => xxh3_128(&[&message.digest[..], &count.to_le_bytes()].concat()),
        };
        *count = count.saturating_add(1);
        format!("{digest:032x}")
    };
    messages.iter().map(name).collect()
}

/// What a mailbox is like as a whole (STATUS, and the answers to SELECT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// UIDs count only together with it.
    pub uid_validity: u32,
    /// The next message gets this UID or a larger one.
    pub uid_next: Uid,
    /// The largest MODSEQ.
    pub highest_modseq: u64,
    /// How many messages there are.
    pub messages: usize,
    /// How many are not `\Seen`.
    pub unseen: usize,
    /// The UID of the first of these; 0 where there is none.
    pub first_unseen: Uid,
    /// How many are `\Deleted`.
    pub deleted: usize,
    /// How many no session has been told of as `\Recent` yet.
    pub recent: usize,
    /// The octets of all messages.
    pub size: u64,
}

/// What changes with a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Another one: nothing that was known of it counts any more.
    pub uid_validity: u32,
    /// The largest MODSEQ.
    pub modseq: u64,
}

/// A message to append, with its marks.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The message; its time of arrival is its internal date.
    pub message: NewMessage,
    /// Its system flags.
    pub flags: Flags,
    /// Its keywords.
    pub keywords: Vec<String>,
}

/// What has happened to a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Messages that are new, or marked in another way, ascending.
    pub changed: Vec<Uid>,
    /// Messages that are gone.
    pub vanished: UidSet,
    /// Messages that went may be missing in `vanished`: the mailbox does not remember so far back.
    pub forgotten: bool,
}

/// One session's handle on a mailbox.
///
/// What it shows stays as it is until [`Store::sync`] or an operation that changes the mailbox
/// (`append`, `mark`, `expunge`, `claim_recent`): these look first, so they may show what others did
/// besides. Who numbers messages for a client keeps a list of their UIDs.
///
/// UIDs are meant as they were when the handle was opened. Where the mailbox has another UIDVALIDITY
/// since then, [`Store::version`] says so, and `read`, `mark` and `expunge` fail and do nothing.
pub trait Store {
    /// Looks at what others did since the last look.
    fn sync(&mut self) -> Result<(), Error>;

    /// What the mailbox is like now.
    fn status(&self) -> Status;

    /// Whether anything has changed.
    fn version(&self) -> Version;

    /// The UIDs of its messages.
    fn uids(&self) -> &UidSet;

    /// All its messages at once, ascending by UID.
    fn messages(&self) -> Result<Vec<Message>, Error>;

    /// The names of its keywords; a bit of [`Marks::keywords`] is an index here.
    fn keywords(&self) -> &[String];

    /// Message `uid`, if it is there.
    fn message(&self, uid: Uid) -> Result<Option<Message>, Error>;

    /// Gives octets of a message to `sink`, in pieces, as a client gets them; a range beyond the
    /// end is cut. Nothing is locked while `sink` is called. [`Error::Changed`] if the message is
    /// gone or is not the same any more.
    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error>;

    /// Puts messages in together, and returns their UIDs. On return they are on stable storage; on
    /// any failure the mailbox is as before.
    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error>;

    /// Marks messages; those that are not there are passed over, and those that have the marks
    /// already keep their MODSEQ. Names of keywords are the same in either case; new ones beyond
    /// [`MOST_KEYWORDS`] are left out, here and in [`Store::append`] (a client is told what a
    /// message got, RFC 9051 section 7.1). With `unchanged_since` those whose
    /// MODSEQ is larger are left alone, and returned (RFC 7162 section 3.1.3).
    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error>;

    /// Removes messages for good, and returns those that it removed: others may have done so before.
    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error>;

    /// What has happened since the mailbox's MODSEQ was `modseq`.
    fn changes_since(&self, modseq: u64) -> Result<Changes, Error>;

    /// Says that the messages up to now have been seen by a session, and returns the largest UID for
    /// which that was so before: messages with a larger one are `\Recent` to the caller.
    fn claim_recent(&mut self) -> Result<Uid, Error>;

    /// Something to wait at: it becomes readable when the mailbox may have changed, until the next
    /// [`Store::sync`]. `None` where nobody else can change it.
    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error>;

    /// Brings the mailbox itself in line with what was acknowledged: marks that only the index
    /// has are written into it, where there is room. To be called before a handle is dropped, on
    /// SIGTERM, and now and then.
    fn checkpoint(&mut self) -> Result<(), Error>;

    /// What the operator should know of what was found, since the last call.
    fn take_warnings(&mut self) -> Vec<String>;
}
