//! What a field of a header says as text: encoded words (RFC 2047) decoded, and what stands there
//! besides taken for what it looks like ([`charset`]).

use super::transfer::Decoder;
use crate::text::charset;

/// The longest name of a charset.
const MAX_CHARSET: usize = 64;
/// So much is put together from words that don't end where a character does.
const MAX_JOINED: usize = 4096;

/// What a field says; `value` is without line ends.
///
/// Named quirks: an encoded word may stand anywhere, be longer than 75 octets, and contain blanks;
/// a character may be divided between two that follow each other. A word that can't be one is text.
pub fn decode(value: &[u8]) -> String {
    let text = charset::text(None, value);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
    let mut before: Option<Octets> = None;
    while let Some(at) = memchr::memmem::find(rest.as_bytes(), b"=?") {
        let (between, encoded) = rest.split_at(at);
        let Some((word, behind)) = Word::parse(encoded) else {
            flush(before.take(), &mut out);
            let (text, behind) = rest.split_at(at.saturating_add(1));
            out.push_str(text);
            rest = behind;
            continue;
        };
        // Blanks between two words are none.
        let follows = before.is_some() && between.trim_ascii().is_empty();
        let mut octets = match before.take() {
            Some(octets) if follows && octets.end_within(word.charset) => octets,
            other => {
                flush(other, &mut out);
                out.push_str(if follows { "" } else { between });
                Octets { charset: word.charset, octets: Vec::new() }
            }
        };
        word.decode(&mut octets.octets);
        before = Some(octets);
        rest = behind;
    }
    flush(before, &mut out);
    out.push_str(rest);
    out
}

/// ```text
/// encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?="
/// ```
struct Word<'a> {
    charset: &'a str,
    is_base64: bool,
    text: &'a str,
}

impl<'a> Word<'a> {
    /// At the beginning of `text`; also what comes behind it.
    fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
        if charset.is_empty() || charset.len() > MAX_CHARSET || charset.contains([' ', '\t']) {
            return None;
        }
        let charset = charset.split('*').next().unwrap_or(charset);
        let is_base64 = match rest.get(..2)? {
            "B?" | "b?" => true,
            "Q?" | "q?" => false,
            _ => return None,
        };
        let (text, behind) = rest.get(2..)?.split_once('?')?;
        Some((Self { charset, is_base64, text }, behind.strip_prefix('=')?))
    }

    fn decode(&self, out: &mut Vec<u8>) {
        let mut rest = self.text.as_bytes();
        if self.is_base64 {
            if let Some(mut decoder) = Decoder::of(Some(b"base64")) {
                decoder.push(rest, &mut |octets| out.extend_from_slice(octets));
            }
            return;
        }
        while let Some((octet, behind)) = rest.split_first() {
            let escaped = if *octet == b'=' { behind.get(..2).and_then(hexadecimal) } else { None };
            out.push(match octet {
                b'_' => b' ',
                _ => escaped.unwrap_or(*octet),
            });
            rest = escaped.and_then(|_| behind.get(2..)).unwrap_or(behind);
        }
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// What encoded words stand for.
struct Octets<'a> {
    charset: &'a str,
    octets: Vec<u8>,
}

impl Octets<'_> {
    /// Whether they end within a character, of which the next word may have the rest.
    fn end_within(&self, next: &str) -> bool {
        self.octets.len() <= MAX_JOINED
            && self.charset.eq_ignore_ascii_case(next)
            && charset::named(self.charset.as_bytes()).is_some_and(|charset| {
                charset.decode_without_bom_handling_and_without_replacement(&self.octets).is_none()
            })
    }
}

fn flush(octets: Option<Octets>, out: &mut String) {
    if let Some(Octets { charset, octets }) = octets {
        out.push_str(&charset::text(Some(charset.as_bytes()), &octets));
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn encoded_words_are_read() {
        for (value, text) in [
            // RFC 2047 section 8.
            ("(=?ISO-8859-1?Q?a?=)", "(a)"),
            ("(=?ISO-8859-1?Q?a?= b)", "(a b)"),
            ("(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
            ("(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
            ("(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
            ("(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
            ("=?iso-8859-1?q?this=20is=20some=20text?=", "this is some text"),
            ("=?US-ASCII*EN?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
            ("=?ISO-2022-JP?B?GyRCMjxAbhsoQg==?=", "下川"),
            ("=?iso-2022-jp?b?GyRCMjwbKEI=?= =?iso-2022-jp?b?GyRCQG4bKEI=?=", "下川"),
            ("=?Shift_JIS?Q?=89=BA=90=EC?=", "下川"),
            ("=?euc-jp?b?srzA7g==?=", "下川"),
            // A character is divided.
            ("=?utf-8?b?5LiL5Q==?= =?UTF-8?Q?=B7=9D?=!", "下川!"),
            ("=?utf-8?b?5LiL5Q==?= =?iso-8859-1?q?x?=", "下åx"),
            ("=?x-unknown?q?gr=C3=BCn?=", "grün"),
        ] {
            assert_eq!(decode(value.as_bytes()), text, "{value}");
        }
    }

    #[test]
    fn what_is_none_is_text() {
        for text in [
            "",
            "=?",
            "=?=",
            "=?a?q?b",
            "=?a?q?b?",
            "=?a?x?b?=",
            "=??q?b?=",
            "a =? b ?=",
            "=?a b?q?c?=",
            "=?a?q",
            "==??==",
            "=?a?é?b?=",
        ] {
            assert_eq!(decode(text.as_bytes()), text);
        }
        assert_eq!(decode(b"=?=?utf-8?q?a=zb=?="), "=?a=zb=");
        assert_eq!(decode(b"x =?a?q?b?= y"), "x b y");
        assert_eq!(decode(b"=?a?q?b?= y =?a?q?c?="), "b y c");
    }

    #[test]
    fn raw_octets_are_what_they_look_like() {
        assert_eq!(decode(b"\x1b$B2<@n\x1b(B <a@b> =?utf-8?q?=C3=BC?="), "下川 <a@b> ü");
        assert_eq!(decode("下川 =?utf-8?q?=C3=BC?=".as_bytes()), "下川 ü");
        assert_eq!(decode(b"gr\xfcn"), "grün");
    }
}
