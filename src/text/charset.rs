//! What octets say as text, as they stream by.
//!
//! Mail names its charset wrongly or not at all. So a text that is said to be UTF-8 or ASCII, or of
//! which nothing that is known is said, is what it looks like: ISO-2022-JP, where an escape to it
//! comes before anything that is not ASCII; else UTF-8, and octets that are none are those of
//! windows-1252. In whatever pieces a text comes, the result is the same.

use encoding_rs::{CoderResult, EUC_JP, Encoding, ISO_2022_JP, SHIFT_JIS, UTF_8, WINDOWS_1252};

const ESCAPE: u8 = 0x1b;
/// So much room a text gets at once.
const ROOM: usize = 8 * 1024;

/// Names that the WHATWG's list of encodings has not, of charsets that it has.
const ALIASES: [(&str, &Encoding); 9] = [
    ("cp50220", ISO_2022_JP),
    ("cp50221", ISO_2022_JP),
    ("cp51932", EUC_JP),
    ("cp932", SHIFT_JIS),
    ("eucjp-win", EUC_JP),
    ("iso-2022-jp-1", ISO_2022_JP),
    ("iso-2022-jp-2", ISO_2022_JP),
    ("iso-2022-jp-ms", ISO_2022_JP),
    ("utf8mb4", UTF_8),
];

/// The charset of this name, in any case; `None` where it is unknown.
pub fn named(name: &[u8]) -> Option<&'static Encoding> {
    let name = name.trim_ascii();
    let alias = ALIASES.iter().find(|(alias, _)| alias.as_bytes().eq_ignore_ascii_case(name));
    alias.map(|(_, charset)| *charset).or_else(|| Encoding::for_label_no_replacement(name))
}

/// The charset that a text of this name is taken for; `None` where it is what it looks like.
fn believed(name: Option<&[u8]>) -> Option<&'static Encoding> {
    let name = name?.trim_ascii();
    let is_ascii = name.eq_ignore_ascii_case(b"us-ascii") || name.eq_ignore_ascii_case(b"ascii");
    named(name).filter(|charset| *charset != UTF_8 && !is_ascii)
}

/// All of a text.
pub fn text(charset: Option<&[u8]>, octets: &[u8]) -> String {
    let (mut decoder, mut text) = (Decoder::new(charset), String::new());
    decoder.push(octets, &mut |piece| text.push_str(piece));
    decoder.finish(&mut |piece| text.push_str(piece));
    text
}

/// A decoder of one text.
pub struct Decoder(Kind);

enum Kind {
    Guessed(Guessed),
    Named(encoding_rs::Decoder),
}

/// A text whose charset is guessed.
#[derive(Default)]
struct Guessed {
    /// What may be the beginning of a character, or of an escape.
    held: Vec<u8>,
    /// There was something that is not ASCII.
    is_wide: bool,
}

impl Decoder {
    /// For a charset of this name.
    pub fn new(name: Option<&[u8]>) -> Self {
        Self(believed(name).map_or_else(
            || Kind::Guessed(Guessed::default()),
            |charset| Kind::Named(charset.new_decoder_without_bom_handling()),
        ))
    }

    /// Takes the next octets, and gives `sink` what they say.
    pub fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&str)) {
        match &mut self.0 {
            Kind::Named(decoder) => decode(decoder, octets, false, sink),
            Kind::Guessed(guessed) => {
                let mut joined = std::mem::take(&mut guessed.held);
                let octets = if joined.is_empty() {
                    octets
                } else {
                    joined.extend_from_slice(octets);
                    &joined
                };
                if let Some(rest) = guessed.push(octets, sink) {
                    let mut decoder = ISO_2022_JP.new_decoder_without_bom_handling();
                    decode(&mut decoder, rest, false, sink);
                    self.0 = Kind::Named(decoder);
                }
            }
        }
    }

    /// All has come.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&str)) {
        match &mut self.0 {
            Kind::Named(decoder) => decode(decoder, &[], true, sink),
            Kind::Guessed(guessed) => {
                let held = std::mem::take(&mut guessed.held);
                sink(&WINDOWS_1252.decode_without_bom_handling(&held).0);
            }
        }
    }
}

impl Guessed {
    /// Returns what is ISO-2022-JP.
    fn push<'a>(&mut self, octets: &'a [u8], sink: &mut dyn FnMut(&str)) -> Option<&'a [u8]> {
        let mut rest = octets;
        if !self.is_wide {
            let (ascii, behind) = rest.split_at(Encoding::ascii_valid_up_to(rest));
            for at in memchr::memchr_iter(ESCAPE, ascii) {
                let (before, escape) = octets.split_at(at);
                match escape.get(1) {
                    Some(b'$' | b'(') | None => {
                        sink(str::from_utf8(before).unwrap_or_default());
                        if escape.len() == 1 {
                            self.held = escape.to_vec();
                            return None;
                        }
                        return Some(escape);
                    }
                    Some(_) => {}
                }
            }
            sink(str::from_utf8(ascii).unwrap_or_default());
            self.is_wide = !behind.is_empty();
            rest = behind;
        }
        loop {
            let error = match str::from_utf8(rest) {
                Ok(text) => {
                    sink(text);
                    return None;
                }
                Err(error) => error,
            };
            let (text, behind) = rest.split_at(error.valid_up_to());
            sink(str::from_utf8(text).unwrap_or_default());
            let Some(length) = error.error_len() else {
                self.held = behind.to_vec();
                return None;
            };
            let (other, behind) = behind.split_at(length);
            sink(&WINDOWS_1252.decode_without_bom_handling(other).0);
            rest = behind;
        }
    }
}

fn decode(
    decoder: &mut encoding_rs::Decoder,
    mut octets: &[u8],
    last: bool,
    sink: &mut dyn FnMut(&str),
) {
    // An escape right behind another one is marked as wrong; it comes of lines that were put
    // together, and divides nothing.
    let is_marked = decoder.encoding() == ISO_2022_JP;
    let mut text = String::with_capacity(ROOM);
    loop {
        text.clear();
        let (result, read, _) = decoder.decode_to_string(octets, &mut text, last);
        if is_marked {
            text.retain(|c| c != char::REPLACEMENT_CHARACTER);
        }
        sink(&text);
        octets = octets.get(read..).unwrap_or_default();
        if result == CoderResult::InputEmpty {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, named, text};

    /// In whole, and in pieces.
    fn decoded(charset: &str, octets: &[u8]) -> String {
        let charset = Some(charset.as_bytes()).filter(|name| !name.is_empty());
        let whole = text(charset, octets);
        for piece in [1, 2, 3, 5, 7] {
            let (mut decoder, mut text) = (Decoder::new(charset), String::new());
            for piece in octets.chunks(piece) {
                decoder.push(piece, &mut |piece| text.push_str(piece));
            }
            decoder.finish(&mut |piece| text.push_str(piece));
            assert_eq!(text, whole, "{} in pieces of {piece}", octets.escape_ascii());
        }
        whole
    }

    #[test]
    fn the_charset_that_is_named_is_taken() {
        for (name, octets) in [
            ("iso-2022-jp", &b"\x1b$B2<@n\x1b(B"[..]),
            ("ISO-2022-JP-2", b"\x1b$B2<@n\x1b(B"),
            ("Shift_JIS", b"\x89\xba\x90\xec"),
            ("cp932", b"\x89\xba\x90\xec"),
            ("EUC-JP", b"\xb2\xbc\xc0\xee"),
            (" utf-8 ", "下川".as_bytes()),
            ("gb18030", b"\xcf\xc2\xb4\xa8"),
            ("utf-16be", b"\x4e\x0b\x5d\xdd"),
        ] {
            assert_eq!(decoded(name, octets), "下川", "{name}");
        }
        assert_eq!(decoded("iso-8859-1", b"gr\xfcn"), "grün");
        assert_eq!(decoded("koi8-r", b"\xcd\xc9\xd2"), "мир");
    }

    #[test]
    fn what_is_not_named_is_what_it_looks_like() {
        for name in ["", "us-ascii", "utf-8", "x-unknown"] {
            assert_eq!(decoded(name, b"hello"), "hello");
            assert_eq!(decoded(name, "下川 grün".as_bytes()), "下川 grün");
            assert_eq!(decoded(name, b"a \x1b$B2<@n\x1b(B b \x1b$B2<@n\x1b(B"), "a 下川 b 下川");
            assert_eq!(decoded(name, b"gr\xfcn \xe4\xb8"), "grün ä¸");
            assert_eq!(decoded(name, b"\x1b[1mbold\x1b"), "\u{1b}[1mbold\u{1b}");
            // Behind what is no ISO-2022-JP there is none.
            assert_eq!(decoded(name, b"\xfc \x1b$B2<"), "ü \u{1b}$B2<");
        }
    }

    #[test]
    fn escapes_without_anything_between_them_divide_nothing() {
        assert_eq!(decoded("iso-2022-jp", b"\x1b$B2<\x1b(B\x1b$B@n\x1b(B"), "下川");
    }

    #[test]
    fn a_name_is_known_or_it_is_not() {
        assert!(named(b"x-sjis").is_some() && named(b"US-ASCII").is_some());
        assert!(named(b"").is_none() && named(b"x-none").is_none());
        // Known, and given up.
        assert!(named(b"iso-2022-kr").is_none());
    }
}
