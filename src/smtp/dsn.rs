//! What a sender wants to hear of a message's fate: the parameters of DSN (RFC 3461).
//!
//! The words of the sender come back in a report one day. They are decoded and checked here, once:
//! no [`EnvelopeId`] and no [`OriginalRecipient`] has a control character, a line end or a NUL, or
//! is empty. `Display` writes each as its parameter had it, so that it reads back the same.

use std::fmt;

use crate::message::Address;
use crate::message::address::Alphabet;

/// The longest ENVID, as it is written (RFC 3461 section 4.4).
const MAX_ENVELOPE_ID: usize = 100;
/// The longest ORCPT, as it is written (RFC 3461 section 4.2).
const MAX_ORIGINAL: usize = 500;

/// How much of the message a report of its failure has.
///
/// ```text
/// ret-value = "FULL" / "HDRS"                            ; RFC 3461 section 4.3
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Ret {
    /// Parses the parameter's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value.to_ascii_uppercase().as_slice() {
            b"FULL" => Some(Self::Full),
            b"HDRS" => Some(Self::Headers),
            _ => None,
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// Of what the sender is to be told; of nothing by `NEVER`.
///
/// ```text
/// notify-esmtp-value  = "NEVER" / 1#notify-list-element  ; RFC 3461 section 4.1
/// notify-list-element = "SUCCESS" / "FAILURE" / "DELAY"
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// That the message was delivered.
    pub success: bool,
    /// That it can't be.
    pub failure: bool,
    /// That it has to wait.
    pub delay: bool,
}

impl Notify {
    /// Parses the parameter's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut notify = Self::default();
        if value.eq_ignore_ascii_case(b"NEVER") {
            return Some(notify);
        }
        for element in value.split(|byte| *byte == b',') {
            match element.to_ascii_uppercase().as_slice() {
                b"SUCCESS" => notify.success = true,
                b"FAILURE" => notify.failure = true,
                b"DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let wanted: Vec<&str> = all.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if wanted.is_empty() { "NEVER".into() } else { wanted.join(",") }.as_str())
    }
}

/// What the sender calls this sending of the message (RFC 3461 section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// Parses the parameter's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_ENVELOPE_ID {
            return None;
        }
        from_xtext(value).map(Self)
    }

    /// Decoded: printable ASCII and spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        to_xtext(&self.0, f)
    }
}

/// Who the sender had written to, before anybody forwarded the message.
///
/// ```text
/// original-recipient-address = addr-type ";" xtext       ; RFC 3461 section 4.2
/// utf-8-type-addr = "utf-8;" utf-8-enc-addr              ; RFC 6533 section 3
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    kind: String,
    address: String,
}

impl OriginalRecipient {
    /// Parses the parameter's value; with [`Alphabet::Utf8`] an address of type `utf-8` may stand
    /// there unencoded.
    pub fn parse(value: &[u8], alphabet: Alphabet) -> Option<Self> {
        let (kind, address) = value.split_at_checked(memchr::memchr(b';', value)?)?;
        let address = address.strip_prefix(b";")?;
        // `addr-type = atom` (RFC 822 section 3.3), without what no esmtp-value may have.
        let is_atom = !kind.is_empty()
            && kind.iter().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\".[]=".contains(b));
        if !is_atom || value.len() > MAX_ORIGINAL {
            return None;
        }
        let kind = String::from_utf8_lossy(kind).into_owned();
        let address =
            if is_utf8(&kind) { from_unitext(address, alphabet)? } else { from_xtext(address)? };
        let original = Self { kind, address };
        // Encoded again, it may be longer than it came.
        (original.to_string().len() <= MAX_ORIGINAL).then_some(original)
    }

    /// An address that the sender has written to. `None` where it is too long for the parameter.
    pub fn of(address: &Address) -> Option<Self> {
        let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
        let original = Self { kind: kind.to_owned(), address: address.to_string() };
        (original.to_string().len() <= MAX_ORIGINAL).then_some(original)
    }

    /// The type of the address, as it was written: `rfc822`, `utf-8`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The address, decoded: printable ASCII and spaces, and UTF-8 in one of type `utf-8`. It need
    /// not be one that we know how to read.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for OriginalRecipient {
    /// In ASCII, for servers with and without SMTPUTF8.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.kind)?;
        if is_utf8(&self.kind) { to_unitext(&self.address, f) } else { to_xtext(&self.address, f) }
    }
}

fn is_utf8(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("utf-8")
}

/// What stands for itself in both encodings but for `\`, which does in `xtext` only: `xchar` of RFC
/// 3461 section 4, `QCHAR` of RFC 6533 section 3.
fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '+' | '=')
}

fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic()
}

/// Decodes text of one character or more; all of it is printable ASCII then.
///
/// ```text
/// xtext   = *( xchar / hexchar )                         ; RFC 3461 section 4
/// hexchar = "+" 2(upper case hexadecimal digit)
/// ```
pub(super) fn from_xtext(value: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(value).ok()?;
    let mut decoded = String::new();
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        decoded.push(match c {
            '+' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                code_point(digits).filter(|c| is_printable(*c))?
            }
            c if is_plain(c) => c,
            _ => return None,
        });
    }
    (!decoded.is_empty()).then_some(decoded)
}

fn to_xtext(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        c if is_plain(c) => write!(f, "{c}"),
        c => write!(f, "+{:02X}", u32::from(c)),
    })
}

/// Decodes text of one character or more; no control character is in it then.
///
/// ```text
/// utf-8-addr-xtext    = 1*(QCHAR / EmbeddedUnicodeChar)  ; RFC 6533 section 3
/// utf-8-addr-unitext  = 1*(QUCHAR / EmbeddedUnicodeChar)
/// QUCHAR              = QCHAR / UTF8-2 / UTF8-3 / UTF8-4
/// EmbeddedUnicodeChar = "\x{" HEXPOINT "}"
/// ```
fn from_unitext(value: &[u8], alphabet: Alphabet) -> Option<String> {
    let mut rest = std::str::from_utf8(value).ok()?;
    let mut decoded = String::new();
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        let c = match c {
            '\\' => {
                let (digits, after) = rest.strip_prefix("x{")?.split_once('}')?;
                rest = after;
                code_point(digits)?
            }
            c if is_plain(c) || (alphabet == Alphabet::Utf8 && !c.is_ascii()) => c,
            _ => return None,
        };
        if c.is_control() {
            return None;
        }
        decoded.push(c);
    }
    (!decoded.is_empty()).then_some(decoded)
}

fn to_unitext(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        c if is_plain(c) && c != '\\' => write!(f, "{c}"),
        c => write!(f, "\\x{{{:02X}}}", u32::from(c)),
    })
}

/// A character by its number, in two to six upper case hexadecimal digits.
fn code_point(digits: &str) -> Option<char> {
    let valid = (2..=6).contains(&digits.len())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| valid)?;
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(value: &str) -> Option<OriginalRecipient> {
        OriginalRecipient::parse(value.as_bytes(), Alphabet::Utf8)
    }

    #[test]
    fn the_values_of_rfc_3461_are_read_and_written_alike() {
        // Its examples, in section 10.
        for value in ["QQ314159", "QQ314159+2Bx", "a+20b", "+3D", "\\x{E9}"] {
            let id = EnvelopeId::parse(value.as_bytes()).unwrap();
            assert_eq!(id.to_string(), value);
        }
        assert_eq!(EnvelopeId::parse(b"a+20+2B+62").unwrap().as_str(), "a +b");
        for (value, kind, address) in [
            ("rfc822;Bob@Example.COM", "rfc822", "Bob@Example.COM"),
            ("rfc822;George@Tax-ME.GOV", "rfc822", "George@Tax-ME.GOV"),
            ("RFC822;Carol+2Bx@Ivory.EDU", "RFC822", "Carol+x@Ivory.EDU"),
            ("x400;/C=3Dde".replace('=', "+3D").as_str(), "x400", "/C=3Dde"),
            ("rfc822;\"a+20b\"@c", "rfc822", "\"a b\"@c"),
        ] {
            let found = original(value).unwrap_or_else(|| panic!("{value}"));
            assert_eq!((found.kind(), found.address()), (kind, address));
            assert_eq!(found.to_string(), value);
        }
    }

    #[test]
    fn utf8_in_an_original_recipient_is_read_in_all_forms_and_written_in_ascii() {
        let encoded = "utf-8;jos\\x{E9}\\x{1F600}@b\\x{5C}\\x{2B}";
        for value in [encoded, "utf-8;jos\u{e9}\u{1f600}@b\\x{5C}\\x{2B}"] {
            let found = original(value).unwrap();
            assert_eq!(found.address(), "jos\u{e9}\u{1f600}@b\\+");
            assert_eq!(found.to_string(), encoded);
        }
        assert!(OriginalRecipient::parse(encoded.as_bytes(), Alphabet::Ascii).is_some());
        let plain = "utf-8;\u{e9}@b".as_bytes();
        assert!(OriginalRecipient::parse(plain, Alphabet::Ascii).is_none());
        assert!(original("rfc822;\u{e9}@b").is_none());
    }

    #[test]
    fn what_could_break_a_report_is_refused() {
        for value in [
            "", "a=b", "+", "+4", "+4g", "+4a", "a b", "+0D+0A", "+00", "+7F", "+E9", "\u{e9}",
            "a\tb",
        ] {
            assert_eq!(EnvelopeId::parse(value.as_bytes()), None, "{value:?}");
            assert_eq!(original(&format!("rfc822;{value}")), None, "{value:?}");
        }
        for value in [
            "",
            "rfc822",
            ";a@b",
            "rfc 822;a@b",
            "rfc822:a@b",
            "r\u{e9};a@b",
            "utf-8;",
            "utf-8;a+40b",
            "utf-8;\\",
            "utf-8;\\x{E9",
            "utf-8;\\x{}",
            "utf-8;\\x{A}",
            "utf-8;\\x{0A}",
            "utf-8;\\x{000D}",
            "utf-8;\\x{00}",
            "utf-8;\\x{85}",
            "utf-8;\\x{D800}",
            "utf-8;\\x{110000}",
            "utf-8;\\x{+0E9}",
            "utf-8;\u{85}",
            "utf-8;a=b",
        ] {
            assert_eq!(original(value), None, "{value:?}");
        }
        assert_eq!(EnvelopeId::parse(b"\xff"), None);
        assert_eq!(OriginalRecipient::parse(b"utf-8;\xc3", Alphabet::Utf8), None);
    }

    #[test]
    fn values_are_bounded() {
        assert!(EnvelopeId::parse(&[b'x'; 100]).is_some());
        assert!(EnvelopeId::parse(&[b'x'; 101]).is_none());
        assert!(original(&format!("rfc822;{}", "x".repeat(493))).is_some());
        assert!(original(&format!("rfc822;{}", "x".repeat(494))).is_none());
        // What goes out has the limit as well.
        assert!(original(&format!("utf-8;{}", "\u{e9}".repeat(82))).is_some());
        assert!(original(&format!("utf-8;{}", "\u{e9}".repeat(83))).is_none());
    }

    #[test]
    fn notify_is_never_or_a_list() {
        for (value, wanted) in [
            ("NEVER", "NEVER"),
            ("success", "SUCCESS"),
            ("DELAY,FAILURE", "FAILURE,DELAY"),
            ("SUCCESS,SUCCESS", "SUCCESS"),
            ("SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"),
        ] {
            assert_eq!(Notify::parse(value.as_bytes()).unwrap().to_string(), wanted);
        }
        for value in
            ["", "NEVER,SUCCESS", "SUCCESS,NEVER", "SUCCESS,", ",", "ALWAYS", "SUCCESS;DELAY"]
        {
            assert_eq!(Notify::parse(value.as_bytes()), None, "{value}");
        }
        for value in ["FULL", "HDRS"] {
            let ret = Ret::parse(value.to_ascii_lowercase().as_bytes()).unwrap();
            assert_eq!(ret.to_string(), value);
        }
        assert_eq!((Ret::parse(b""), Ret::parse(b"BODY")), (None, None));
    }
}
