//! Mailbox addresses of the envelope (RFC 5321 section 4.1.2): the one address parser.
//!
//! Nothing that is no address leaves here, so that an [`Address`] can be written into a header, a
//! queue file or a command without another look: no control character, no CR, LF or NUL. It is ASCII
//! unless whoever had it parsed allowed [`Alphabet::Utf8`]; who hands such an address on has to know
//! that the other side takes UTF-8 ([`Address::is_ascii`] tells which ones need it).

use std::fmt;

/// The longest local-part taken, in bytes (RFC 5321 asks for 64; VERP addresses are longer).
pub const MAX_LOCAL_PART: usize = 255;
/// The longest domain, in bytes (RFC 5321 section 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;

/// What an address may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// RFC 5321.
    Ascii,
    /// RFC 6531 section 3.3, where both sides have agreed on SMTPUTF8.
    Utf8,
}

/// A local-part and a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    local: String,
    domain: String,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not the syntax of a mailbox.
    Syntax,
    /// A byte outside ASCII.
    NotAscii,
    /// Longer than the limits.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "this is no mail address",
            Self::NotAscii => "an address outside ASCII needs SMTPUTF8",
            Self::TooLong => "the address is too long",
        })
    }
}

impl std::error::Error for Error {}

/// An address whose domain may be missing, as people and `RCPT TO:<postmaster>` write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    local: String,
    domain: Option<String>,
}

impl Mailbox {
    /// With `domain` where none was written.
    pub fn or_domain(self, domain: &str) -> Address {
        Address { local: self.local, domain: self.domain.unwrap_or_else(|| domain.to_owned()) }
    }
}

impl Address {
    /// Parses `local-part@domain` in ASCII; the domain must be there.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::parse_in(text, Alphabet::Ascii)
    }

    /// The same in an alphabet of the caller's.
    pub fn parse_in(text: &[u8], alphabet: Alphabet) -> Result<Self, Error> {
        let mailbox = mailbox(text, alphabet)?;
        let domain = mailbox.domain.ok_or(Error::Syntax)?;
        Ok(Self { local: mailbox.local, domain })
    }

    /// A local-part, without quotes, in a domain: both made of what was parsed before.
    pub fn new(local: &str, domain: &str) -> Result<Self, Error> {
        if local.len() > MAX_LOCAL_PART || domain.len() > MAX_DOMAIN {
            return Err(Error::TooLong);
        }
        Ok(Self { local: local.to_owned(), domain: domain.to_owned() })
    }

    /// The local-part, its quotes and escapes taken off.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain as it was written; `[...]` for an address literal.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether anybody can be told of it who does not know SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.is_ascii()
    }

    /// Whether both name the same mailbox as far as anybody but its host can tell: domains
    /// compare without letter case (RFC 5321 section 2.4).
    pub fn is_same(&self, other: &Self) -> bool {
        self.local == other.local && self.domain.eq_ignore_ascii_case(&other.domain)
    }
}

impl fmt::Display for Address {
    /// `local-part@domain`, quoted where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

/// The path behind `MAIL FROM:` or `RCPT TO:`, and the rest of the line (its parameters).
///
/// ```text
/// Reverse-path = Path / "<>"
/// Path         = "<" [ A-d-l ":" ] Mailbox ">"          ; RFC 5321 section 4.1.2
/// ```
///
/// Quirks: spaces before the path, and a path without angle brackets, are taken, as people type
/// them into telnet. `None` is the null path `<>`.
pub fn path(text: &[u8], alphabet: Alphabet) -> Result<(Option<Mailbox>, &[u8]), Error> {
    let text = text.trim_ascii_start();
    let Some(inner) = text.strip_prefix(b"<") else {
        let end = end_of_word(text);
        let (word, rest) = text.split_at(end);
        return Ok((Some(mailbox(word, alphabet)?), rest));
    };
    let end = closing_bracket(inner).ok_or(Error::Syntax)?;
    let (inside, rest) = inner.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return Err(Error::Syntax);
    }
    let inside = inside.trim_ascii();
    if inside.is_empty() {
        return Ok((None, rest));
    }
    Ok((Some(mailbox(without_source_route(inside, alphabet)?, alphabet)?), rest))
}

/// `A-d-l = At-domain *( "," At-domain )`: to be accepted and ignored (RFC 5321 appendix C).
fn without_source_route(inside: &[u8], alphabet: Alphabet) -> Result<&[u8], Error> {
    if !inside.starts_with(b"@") {
        return Ok(inside);
    }
    let colon = memchr::memchr(b':', inside).ok_or(Error::Syntax)?;
    let (route, mailbox) = inside.split_at(colon);
    let valid = route
        .split(|b| *b == b',')
        .all(|hop| hop.strip_prefix(b"@").is_some_and(|name| domain(name, alphabet).is_ok()));
    if valid { Ok(mailbox.get(1..).unwrap_or_default()) } else { Err(Error::Syntax) }
}

fn closing_bracket(text: &[u8]) -> Option<usize> {
    outside_quotes(text, |byte| byte == b'>')
}

fn end_of_word(text: &[u8]) -> usize {
    outside_quotes(text, |byte| byte == b' ').unwrap_or(text.len())
}

/// The first place, outside a quoted string, where `wanted` holds.
fn outside_quotes(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.iter().position(|&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if !quoted => return wanted(byte),
            _ => {}
        }
        false
    })
}

/// The text, where it is in the alphabet.
fn characters(text: &[u8], alphabet: Alphabet) -> Result<&str, Error> {
    if alphabet == Alphabet::Ascii && !text.is_ascii() {
        return Err(Error::NotAscii);
    }
    std::str::from_utf8(text).map_err(|_| Error::Syntax)
}

/// `Mailbox = Local-part "@" ( Domain / address-literal )`, the domain optional.
pub fn mailbox(text: &[u8], alphabet: Alphabet) -> Result<Mailbox, Error> {
    let text = characters(text, alphabet)?;
    // The last @ outside quotes parts the two.
    let mut at = None;
    let mut from = 0;
    while let Some(found) =
        outside_quotes(text.as_bytes().get(from..).unwrap_or_default(), |byte| byte == b'@')
    {
        at = Some(from + found);
        from += found + 1;
    }
    let (local, host) = match at.and_then(|at| text.split_at_checked(at)) {
        Some((local, host)) => (local, host.strip_prefix('@')),
        None => (text, None),
    };
    let domain = host.map(|host| domain(host.as_bytes(), alphabet)).transpose()?;
    Ok(Mailbox { local: local_part(local)?, domain })
}

/// `Local-part = Dot-string / Quoted-string`. Quirk: empty atoms (`a..b@c`, `.a@c`) are taken, as
/// some hosts have such users.
fn local_part(text: &str) -> Result<String, Error> {
    let local = match text.strip_prefix('"') {
        Some(rest) => quoted_string(rest.strip_suffix('"').ok_or(Error::Syntax)?)?,
        None if is_dot_string(text) => text.to_owned(),
        None => return Err(Error::Syntax),
    };
    if local.len() > MAX_LOCAL_PART { Err(Error::TooLong) } else { Ok(local) }
}

/// The inside of a `Quoted-string`, its `quoted-pairSMTP`s undone; printable ASCII, and with RFC
/// 6531 `qtextSMTP =/ UTF8-non-ascii`.
fn quoted_string(text: &str) -> Result<String, Error> {
    let mut local = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let (c, escaped) = match c {
            '\\' => (characters.next().ok_or(Error::Syntax)?, true),
            '"' => return Err(Error::Syntax),
            c => (c, false),
        };
        if !((' '..='~').contains(&c) || (!escaped && is_utf8_non_ascii(c))) {
            return Err(Error::Syntax);
        }
        local.push(c);
    }
    if local.is_empty() { Err(Error::Syntax) } else { Ok(local) }
}

/// `Domain = sub-domain *("." sub-domain)`, or `address-literal = "[" ... "]"`. Quirks: `_` in a
/// label, and one dot at the end (which is taken off).
///
/// With RFC 6531 `sub-domain =/ U-label`; whether IDNA knows that label is left to who looks it up.
/// The 63 bytes of a label are those of its ASCII form.
pub fn domain(text: &[u8], alphabet: Alphabet) -> Result<String, Error> {
    if text.len() > MAX_DOMAIN {
        return Err(Error::TooLong);
    }
    let text = characters(text, alphabet)?;
    if let Some(literal) = text.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(Error::Syntax)?;
        return match address_literal(literal) {
            Some(_) => Ok(text.to_owned()),
            None => Err(Error::Syntax),
        };
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_inside =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || is_utf8_non_ascii(c);
    let valid = text.split('.').all(|label| {
        ((1..=63).contains(&label.len()) || !label.is_ascii())
            && label.chars().all(is_inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    if valid { Ok(text.to_owned()) } else { Err(Error::Syntax) }
}

/// `IPv4-address-literal / IPv6-address-literal`, the inside of the brackets.
pub fn address_literal(text: &str) -> Option<std::net::IpAddr> {
    let tag = text.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    match tag.and_then(|_| text.get(5..)) {
        Some(address) => address.parse().ok().map(std::net::IpAddr::V6),
        None => text.parse().ok().map(std::net::IpAddr::V4),
    }
}

/// `atext` (RFC 5322 section 3.2.3), and `atext =/ UTF8-non-ascii` (RFC 6531 section 3.3).
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_non_ascii(c)
}

/// `UTF8-non-ascii` (RFC 6532 section 3.1), without the control characters from U+0080 on, which no
/// terminal and no log shall get.
fn is_utf8_non_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

fn is_dot_string(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| is_atext(c) || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, Error> {
        parse_in(text, Alphabet::Ascii)
    }

    fn parse_in(text: &str, alphabet: Alphabet) -> Result<String, Error> {
        path(text.as_bytes(), alphabet).map(|(mailbox, rest)| {
            let mailbox =
                mailbox.map_or("<>".into(), |mailbox| mailbox.or_domain("here").to_string());
            format!("{mailbox}|{}", String::from_utf8_lossy(rest))
        })
    }

    #[test]
    fn a_path_is_taken_with_and_without_brackets() {
        for (text, wanted) in [
            ("<a@b.c>", "a@b.c|"),
            ("  <a@b.c> SIZE=1", "a@b.c| SIZE=1"),
            (" toshi@is.kyusan-u.ac.jp", "toshi@is.kyusan-u.ac.jp|"),
            ("a@b BODY=8BITMIME", "a@b| BODY=8BITMIME"),
            ("<>", "<>|"),
            ("<postmaster>", "postmaster@here|"),
            ("<@x.org,@y.org:a@b>", "a@b|"),
            ("<\"a b>\\\"\"@[127.0.0.1]>", "\"a b>\\\"\"@[127.0.0.1]|"),
            ("<\"plain\"@b>", "plain@b|"),
            ("<a@[IPv6:::1]>", "a@[IPv6:::1]|"),
            ("<a@b.>", "a@b|"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "<",
            "<a@b",
            "<a@b>x",
            "a b@c d",
            "<a@>",
            "<@b>",
            "<a@b c>",
            "<a\r\n@b>",
            "<a@b\0>",
            "<a@[300.1.1.1]>",
            "<a@-b>",
            "<a@b..c>",
            "<\"\"@b>",
            "<a@\"b\">",
            "<\"a\nb\"@c>",
            "<a,b@c>",
            "<(a)@b>",
            "<@x:>",
        ] {
            if text == "a b@c d" {
                continue; // a word and its parameters; the session refuses those
            }
            assert_eq!(parse(text), Err(Error::Syntax), "{text:?}");
        }
        assert_eq!(parse("<\u{e9}@b>"), Err(Error::NotAscii));
        assert_eq!(parse(&format!("<{}@b>", "a".repeat(256))), Err(Error::TooLong));
    }

    #[test]
    fn what_is_written_out_reads_back_the_same() {
        for text in ["a@b", "\"a b\"@c", "\"a\\\\\\\"\"@[1.2.3.4]", "\"@\"@b"] {
            let address = Address::parse(text.as_bytes()).unwrap();
            assert_eq!(Address::parse(address.to_string().as_bytes()).unwrap(), address);
        }
    }
    #[test]
    fn utf8_stands_in_local_parts_and_labels_where_it_is_allowed() {
        let long = format!("<a@{}>", "\u{e9}".repeat(40));
        for text in [
            "<jos\u{e9}@b>",
            "<a@caf\u{e9}.example>",
            "<\u{30c6}\u{30b9}\u{30c8}@\u{30c6}\u{30b9}\u{30c8}.jp>",
            "<\"\u{e9} \u{1f600}\"@b>",
            "<@\u{e9}.org:a@b>",
            "\u{e9}@b",
            &long,
        ] {
            assert!(parse_in(text, Alphabet::Utf8).is_ok(), "{text}");
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_in("<\u{e9}@b> X", Alphabet::Utf8).as_deref(), Ok("\u{e9}@b| X"));
        assert!(parse_in("<a@b.c>", Alphabet::Utf8).is_ok());
        let (mailbox, _) = path("<a@\u{e9}>".as_bytes(), Alphabet::Utf8).unwrap();
        assert!(!mailbox.unwrap().or_domain("x").is_ascii());
    }

    #[test]
    fn control_characters_and_torn_utf8_are_in_no_address() {
        for text in [
            "<a\u{80}@b>",
            "<a\u{9b}1m@b>",
            "<a@b\u{85}>",
            "<\"\u{9f}\"@b>",
            "<\"\\\u{e9}\"@b>",
            "<\u{e9}\r\n@b>",
            "<\u{e9}\0@b>",
            "<\u{e9} x@b>",
            "<\u{e9}\u{7f}@b>",
            "<a@-\u{e9}>",
            "<a@[\u{e9}]>",
            "<a@\u{e9}..c>",
        ] {
            assert_eq!(parse_in(text, Alphabet::Utf8), Err(Error::Syntax), "{text:?}");
        }
        for bytes in
            [&b"<\xc3@b>"[..], b"<\xe9@b>", b"<a@\xc3>", b"<\xc0\xaf@b>", b"<\xed\xa0\x80@b>"]
        {
            assert_eq!(path(bytes, Alphabet::Utf8), Err(Error::Syntax), "{bytes:?}");
            assert_eq!(path(bytes, Alphabet::Ascii), Err(Error::NotAscii), "{bytes:?}");
        }
        // Lengths count bytes.
        let (fits, long) = ("\u{e9}".repeat(127), "\u{e9}".repeat(128));
        assert!(parse_in(&format!("<{fits}@{fits}>"), Alphabet::Utf8).is_ok());
        for text in [format!("<{long}@b>"), format!("<a@{long}>")] {
            assert_eq!(parse_in(&text, Alphabet::Utf8), Err(Error::TooLong));
        }
    }

    #[test]
    fn what_is_written_out_in_utf8_reads_back_the_same() {
        for text in ["\u{e9}@b", "\"\u{e9} b\"@\u{fc}.c", "\"\u{3000}\\\"\"@c", "\u{3000}@c"] {
            let address = Address::parse_in(text.as_bytes(), Alphabet::Utf8).unwrap();
            let written = address.to_string();
            assert_eq!(Address::parse_in(written.as_bytes(), Alphabet::Utf8).unwrap(), address);
            assert_eq!(Address::parse(written.as_bytes()), Err(Error::NotAscii));
        }
    }
}
