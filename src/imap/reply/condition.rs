//! How it went: status responses and their codes (RFC 9051 section 7.1, RFC 5530).

use std::fmt::{self, Display, Write as _};

use crate::imap::command::{Error, Failure};
use crate::text::utf7;

/// `resp-cond-state` and `resp-cond-bye`: how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `OK`
    Ok,
    /// `NO`
    No,
    /// `BAD`
    Bad,
    /// `PREAUTH`
    PreAuth,
    /// `BYE`
    Bye,
}

impl Condition {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::No => "NO",
            Self::Bad => "BAD",
            Self::PreAuth => "PREAUTH",
            Self::Bye => "BYE",
        }
    }
}

/// `resp-text-code`. Sets are as [`super::set_text`] writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// One that has no argument: `ALERT`, `READ-ONLY`, `TRYCREATE`, or one of RFC 5530.
    Word(Word),
    /// `BADCHARSET`: those that are known.
    BadCharset(Vec<&'static str>),
    /// `CAPABILITY`
    Capability(String),
    /// `PERMANENTFLAGS`: `\*` among them where keywords may be made.
    PermanentFlags(Vec<String>),
    /// `UIDNEXT`
    UidNext(u32),
    /// `UIDVALIDITY`
    UidValidity(u32),
    /// `UNSEEN` (RFC 3501): the number of the first one.
    Unseen(u32),
    /// `APPENDUID`
    AppendUid {
        /// The mailbox's UIDVALIDITY.
        uid_validity: u32,
        /// The new UIDs.
        uids: String,
    },
    /// `COPYUID`
    CopyUid {
        /// The target's UIDVALIDITY.
        uid_validity: u32,
        /// The UIDs of the messages.
        from: String,
        /// Those of the copies.
        to: String,
    },
    /// `HIGHESTMODSEQ` (RFC 7162)
    HighestModSeq(u64),
    /// `MODIFIED` (RFC 7162): those that were not stored.
    Modified(String),
}

/// A response code without an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 9051 section 7.1 and RFC 5530 have the meanings")]
pub enum Word {
    Alert,
    AlreadyExists,
    AuthenticationFailed,
    AuthorizationFailed,
    Cannot,
    ClientBug,
    Closed,
    ContactAdmin,
    Corruption,
    Expired,
    ExpungeIssued,
    HasChildren,
    InUse,
    Limit,
    NoModSeq,
    NonExistent,
    NoPerm,
    NotSaved,
    OverQuota,
    Parse,
    PrivacyRequired,
    ReadOnly,
    ReadWrite,
    TooBig,
    TryCreate,
    UidNotSticky,
    Unavailable,
    UnknownCte,
    UseAttr,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "ALERT",
            Self::AlreadyExists => "ALREADYEXISTS",
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Self::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Self::Cannot => "CANNOT",
            Self::ClientBug => "CLIENTBUG",
            Self::Closed => "CLOSED",
            Self::ContactAdmin => "CONTACTADMIN",
            Self::Corruption => "CORRUPTION",
            Self::Expired => "EXPIRED",
            Self::ExpungeIssued => "EXPUNGEISSUED",
            Self::HasChildren => "HASCHILDREN",
            Self::InUse => "INUSE",
            Self::Limit => "LIMIT",
            Self::NoModSeq => "NOMODSEQ",
            Self::NonExistent => "NONEXISTENT",
            Self::NoPerm => "NOPERM",
            Self::NotSaved => "NOTSAVED",
            Self::OverQuota => "OVERQUOTA",
            Self::Parse => "PARSE",
            Self::PrivacyRequired => "PRIVACYREQUIRED",
            Self::ReadOnly => "READ-ONLY",
            Self::ReadWrite => "READ-WRITE",
            Self::TooBig => "TOOBIG",
            Self::TryCreate => "TRYCREATE",
            Self::UidNotSticky => "UIDNOTSTICKY",
            Self::Unavailable => "UNAVAILABLE",
            Self::UnknownCte => "UNKNOWN-CTE",
            Self::UseAttr => "USEATTR",
        }
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word.as_str()),
            Self::BadCharset(known) if known.is_empty() => f.write_str("BADCHARSET"),
            Self::BadCharset(known) => write!(f, "BADCHARSET ({})", known.join(" ")),
            Self::Capability(list) => write!(f, "CAPABILITY {list}"),
            Self::PermanentFlags(flags) => write!(f, "PERMANENTFLAGS ({})", flags.join(" ")),
            Self::UidNext(uid) => write!(f, "UIDNEXT {uid}"),
            Self::UidValidity(uid_validity) => write!(f, "UIDVALIDITY {uid_validity}"),
            Self::Unseen(number) => write!(f, "UNSEEN {number}"),
            Self::AppendUid { uid_validity, uids } => write!(f, "APPENDUID {uid_validity} {uids}"),
            Self::CopyUid { uid_validity, from, to } => {
                write!(f, "COPYUID {uid_validity} {from} {to}")
            }
            Self::HighestModSeq(modseq) => write!(f, "HIGHESTMODSEQ {modseq}"),
            Self::Modified(set) => write!(f, "MODIFIED {set}"),
        }
    }
}

/// ```text
/// response-tagged = tag SP resp-cond-state CRLF
/// resp-text       = ["[" resp-text-code "]" SP] text
/// ```
///
/// Without a tag it is an untagged one. The text is in ASCII: what else may stand there is of names of
/// mailboxes, and written as that.
pub fn status(
    tag: Option<&str>,
    condition: Condition,
    code: Option<&Code>,
    text: &str,
    out: &mut Vec<u8>,
) {
    status_in(false, tag, condition, code, text, out);
}

/// The same; `utf8`: for who has enabled it.
pub fn status_in(
    utf8: bool,
    tag: Option<&str>,
    condition: Condition,
    code: Option<&Code>,
    text: &str,
    out: &mut Vec<u8>,
) {
    let mut line = format!("{} {} ", tag.unwrap_or("*"), condition.as_str());
    if let Some(code) = code {
        let _ = write!(line, "[{code}] ");
    }
    // A text has one character at least, and begins with no other code.
    let text = text.trim_start_matches('[');
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let text = if utf8 { text } else { utf7::encode(&text) };
    line.push_str(if text.is_empty() { "-" } else { &text });
    line.push_str("\r\n");
    out.extend_from_slice(line.as_bytes());
}

/// What is said to what is no command.
pub fn failure(failure: &Failure, out: &mut Vec<u8>) {
    let (condition, code) = match failure.error {
        Error::Name => (Condition::No, Some(Code::Word(Word::Cannot))),
        Error::TooMany(_) => (Condition::No, Some(Code::Word(Word::Limit))),
        _ => (Condition::Bad, None),
    };
    status(failure.tag.as_deref(), condition, code.as_ref(), &failure.error.to_string(), out);
}
