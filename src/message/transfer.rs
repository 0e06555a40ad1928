//! What a Content-Transfer-Encoding (RFC 2045 section 6) has made of a part's body, undone as it
//! streams by.
//!
//! Lenient: mail is cut, wrapped and appended to on its way, and what is left is still wanted. In
//! whatever pieces a body comes, the result is the same.

/// So many undecided octets are kept; more of them are text.
const MAX_UNDECIDED: usize = 16 * 1024;
/// What is no digit of base64.
const NO_DIGIT: u8 = 0xff;
/// What each octet is worth in base64.
const DIGITS: [u8; 256] = digits();

/// A decoder of one body.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// 7bit, 8bit, binary: what comes out is what goes in.
    Identity,
    /// base64
    Base64(Base64),
    /// quoted-printable
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    /// For an encoding of this name, in any case; `None` where it is unknown.
    pub fn of(encoding: Option<&[u8]>) -> Option<Self> {
        let name = encoding.unwrap_or_default().trim_ascii().to_ascii_lowercase();
        Some(match name.as_slice() {
            b"" | b"7bit" | b"8bit" | b"binary" => Self::Identity,
            b"base64" => Self::Base64(Base64::default()),
            b"quoted-printable" => Self::QuotedPrintable(QuotedPrintable::default()),
            _ => return None,
        })
    }

    /// Takes the next octets, and gives `sink` those that they stand for, if any.
    pub fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let decoded = match self {
            Self::Identity => octets,
            Self::Base64(base64) => base64.push(octets),
            Self::QuotedPrintable(quoted) => return quoted.push(octets, sink),
        };
        if !decoded.is_empty() {
            sink(decoded);
        }
    }

    /// All has come: gives `sink` what was still undecided.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if let Self::QuotedPrintable(quoted) = self {
            quoted.finish(sink);
        }
    }
}

/// base64: what is no digit is passed over. Behind padding another text may begin: some programs put
/// together what was encoded in parts.
#[derive(Clone, Debug, Default)]
pub struct Base64 {
    /// Digits that don't fill an octet yet, and how many bits they have.
    bits: u32,
    count: u32,
    out: Vec<u8>,
}

impl Base64 {
    fn push(&mut self, octets: &[u8]) -> &[u8] {
        self.out.clear();
        self.out.reserve(octets.len() / 4 * 3 + 3);
        let mut rest = octets;
        while let Some((octet, behind)) = rest.split_first() {
            if self.count == 0 {
                rest = self.groups(rest);
                if rest.len() < behind.len() {
                    continue;
                }
            }
            rest = behind;
            match digit(*octet) {
                NO_DIGIT if *octet == b'=' => (self.bits, self.count) = (0, 0),
                NO_DIGIT => {}
                digit => self.put(digit),
            }
        }
        &self.out
    }

    /// Decodes whole groups of digits, and returns what comes behind them.
    fn groups<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let mut rest = octets;
        while let Some(([a, b, c, d], behind)) = rest.split_first_chunk() {
            let [a, b, c, d] = [digit(*a), digit(*b), digit(*c), digit(*d)];
            if a | b | c | d == NO_DIGIT {
                break;
            }
            self.out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
            rest = behind;
        }
        rest
    }

    fn put(&mut self, digit: u8) {
        self.bits = self.bits << 6 | u32::from(digit);
        self.count += 6;
        if self.count >= 8 {
            self.count -= 8;
            let [.., octet] = (self.bits >> self.count).to_be_bytes();
            self.out.push(octet);
            self.bits &= (1 << self.count) - 1;
        }
    }
}

/// What an octet is worth in base64.
fn digit(octet: u8) -> u8 {
    DIGITS.get(usize::from(octet)).copied().unwrap_or(NO_DIGIT)
}

const fn digits() -> [u8; 256] {
    let mut digits = [NO_DIGIT; 256];
    let mut octet = 0_u8;
    loop {
        let digit = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => NO_DIGIT,
        };
        #[allow(
            clippy::indexing_slicing,
            reason = "an octet is below 256, and get_mut isn't const"
        )]
        {
            digits[octet as usize] = digit;
        }
        if octet == u8::MAX {
            return digits;
        }
        octet += 1;
    }
}

/// quoted-printable: blanks that were put behind a line are none of it, nor do they keep a soft
/// line break from being one; an equals sign that escapes nothing stands for itself.
#[derive(Clone, Debug, Default)]
pub struct QuotedPrintable {
    out: Vec<u8>,
    /// So much of `out` is decided. What comes behind it are blanks and CRs, or an escape.
    decided: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind an equals sign.
    Escape,
    /// Behind an equals sign and a digit.
    Digit(u8),
    /// Behind an equals sign and blanks.
    Soft,
}

impl QuotedPrintable {
    fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let mut rest = octets;
        while let Some((octet, behind)) = rest.split_first() {
            if self.out.len().saturating_sub(self.decided) > MAX_UNDECIDED {
                self.decide();
            }
            match (self.state, *octet) {
                (State::Text, _) => {
                    rest = self.text(rest);
                    continue;
                }
                (State::Escape, octet) if octet.is_ascii_hexdigit() => {
                    self.state = State::Digit(octet);
                    self.out.push(octet);
                }
                (State::Digit(first), second) if second.is_ascii_hexdigit() => {
                    self.out.truncate(self.decided);
                    self.out.push(value(first) << 4 | value(second));
                    self.decide();
                }
                (State::Escape | State::Soft, b' ' | b'\t' | b'\r') => {
                    self.state = State::Soft;
                    self.out.push(*octet);
                }
                (State::Escape | State::Soft, b'\n') => {
                    self.out.truncate(self.decided);
                    self.state = State::Text;
                }
                _ => {
                    self.decide();
                    continue;
                }
            }
            rest = behind;
        }
        let (decided, undecided) = self.out.split_at(self.decided.min(self.out.len()));
        if !decided.is_empty() {
            sink(decided);
            self.out = undecided.to_vec();
            self.decided = 0;
        }
    }

    /// Takes text up to the next line end or equals sign, and returns what comes behind it.
    fn text<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr2(b'\n', b'=', octets);
        // In pieces, so that blanks without end are text wherever the input is cut.
        let room = MAX_UNDECIDED.saturating_add(1).saturating_sub(self.out.len() - self.decided);
        let length = end.unwrap_or(octets.len()).min(room);
        let (text, behind) = octets.split_at(length);
        self.out.extend_from_slice(text);
        if let Some(last) = text.iter().rposition(|octet| !b" \t\r".contains(octet)) {
            self.decided = self.out.len() - (text.len() - last - 1);
        }
        match behind.split_first() {
            Some((b'\n', behind)) => {
                let is_crlf = self.undecided().last() == Some(&b'\r');
                self.out.truncate(self.out.len() - usize::from(is_crlf));
                self.cut_blanks();
                self.out.extend_from_slice(if is_crlf { b"\r\n" } else { b"\n" });
                self.decide();
                behind
            }
            Some((b'=', behind)) => {
                self.decide();
                self.out.push(b'=');
                self.state = State::Escape;
                behind
            }
            _ => behind,
        }
    }

    fn undecided(&self) -> &[u8] {
        self.out.get(self.decided..).unwrap_or_default()
    }

    /// Drops blanks at the end that may be dropped.
    fn cut_blanks(&mut self) {
        let blanks = self.undecided().iter().rev().take_while(|o| b" \t".contains(o)).count();
        self.out.truncate(self.out.len() - blanks);
    }

    /// What is there is text.
    fn decide(&mut self) {
        self.decided = self.out.len();
        self.state = State::Text;
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        match self.state {
            State::Text => self.cut_blanks(),
            State::Escape | State::Soft => self.out.truncate(self.decided),
            State::Digit(_) => {}
        }
        if !self.out.is_empty() {
            sink(&self.out);
        }
        *self = Self::default();
    }
}

/// What a hexadecimal digit is worth.
fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0xf,
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
