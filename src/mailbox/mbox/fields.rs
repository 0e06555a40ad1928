//! The header fields that mail programs keep their own state in.

/// Says that we quoted lines of this body (`>From `), so that one `>` comes off again for clients.
pub const QUOTED: &str = "X-Mbox-Quoted";

/// A field that clients never see, and that is stripped from arriving mail: a stranger must not set
/// flags, UIDs or lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// `Status`
    Status,
    /// `X-Status`
    XStatus,
    /// `X-Keywords`
    Keywords,
    /// `X-UID`
    Uid,
    /// `X-IMAPbase`
    ImapBase,
    /// `X-IMAP`
    Imap,
    /// `Content-Length`
    ContentLength,
    /// `Lines`
    Lines,
    /// [`QUOTED`]
    Quoted,
}

const HIDDEN: [(&str, Hidden); 9] = [
    ("Status", Hidden::Status),
    ("X-Status", Hidden::XStatus),
    ("X-Keywords", Hidden::Keywords),
    ("X-UID", Hidden::Uid),
    ("X-IMAPbase", Hidden::ImapBase),
    ("X-IMAP", Hidden::Imap),
    ("Content-Length", Hidden::ContentLength),
    ("Lines", Hidden::Lines),
    (QUOTED, Hidden::Quoted),
];

impl Hidden {
    /// The field of this name, if it is one that is hidden.
    pub fn of(name: &[u8]) -> Option<Self> {
        let mut all = HIDDEN.iter();
        let found = all.find(|(hidden, _)| name.eq_ignore_ascii_case(hidden.as_bytes()))?;
        Some(found.1)
    }
}

/// The hidden field that a header line begins, if it begins one.
pub fn hidden(line: &[u8]) -> Option<Hidden> {
    // Nearly all lines are none, and their first letters say so.
    let Some(b'S' | b's' | b'X' | b'x' | b'C' | b'c' | b'L' | b'l') = line.first() else {
        return None;
    };
    name(line).and_then(Hidden::of)
}

/// Whether a field of this name is ours to hide.
pub fn is_hidden(name: &[u8]) -> bool {
    Hidden::of(name).is_some()
}

/// A longer name, with the blanks before its colon, is none: RFC 5322 section 2.1.1 has no longer
/// lines. Whoever sees this much of a line knows its name, whatever comes.
pub const LONGEST: usize = 998;

/// The name of the field that a header line begins; `None` where it begins none.
///
/// `field-name = 1*ftext` (RFC 5322 section 3.6.8), with blanks before the colon as the obsolete
/// syntax has them.
pub fn name(line: &[u8]) -> Option<&[u8]> {
    if !line.first()?.is_ascii_graphic() {
        return None;
    }
    let colon = memchr::memchr(b':', line.get(..LONGEST).unwrap_or(line))?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

/// What stands behind the colon, without the blanks and line ends around it.
pub fn value(line: &[u8]) -> &[u8] {
    memchr::memchr(b':', line)
        .and_then(|colon| line.get(colon..))
        .and_then(|rest| rest.get(1..))
        .unwrap_or_default()
        .trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::{HIDDEN, LONGEST, hidden, is_hidden, name, value};

    #[test]
    fn a_hidden_field_is_known_in_any_case_and_with_blanks_before_the_colon() {
        for line in [&b"STATUS: RO\n"[..], b"x-uid  : 4\n", b"Content-length:5\n"] {
            assert!(is_hidden(name(line).unwrap()));
        }
        assert!(!is_hidden(name(b"Status-Report: x").unwrap()));
        assert_eq!(name(b"no field"), None);
        for (name, field) in HIDDEN {
            for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert_eq!(hidden(format!("{name} : x").as_bytes()), Some(field));
            }
        }
        assert_eq!(name(format!("Status{}: RO", " ".repeat(LONGEST)).as_bytes()), None);
        assert_eq!(name(b" folded: x"), None);
        assert_eq!(value(b"Content-Length:     17 \r\n"), b"17");
    }
}
