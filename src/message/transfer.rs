//! Content-Transfer-Encoding (RFC 2045 section 6), taken off as the octets come.
//!
//! What the world's mail has in it is passed over: characters that base64 has not, blanks at the ends
//! of lines, signs that stand for nothing.

/// A decoder of one body.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// 7bit, 8bit, binary.
    Identity,
    /// base64: the bits that are not an octet yet, and how many.
    Base64(u32, u32),
    /// quoted-printable: what may be the beginning of a sign, or blanks at the end of a line.
    QuotedPrintable(Vec<u8>),
}

/// So many blanks may be held back; more are no blanks at the end of a line.
const MOST_BLANKS: usize = 1000;

impl Decoder {
    /// For an encoding of this name, in any case; `None` where it is unknown.
    pub fn of(encoding: Option<&[u8]>) -> Option<Self> {
        let name = encoding.unwrap_or(b"7bit").trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if ["7bit", "8bit", "binary", ""].into_iter().any(is) {
            Some(Self::Identity)
        } else if is("base64") {
            Some(Self::Base64(0, 0))
        } else if is("quoted-printable") {
            Some(Self::QuotedPrintable(Vec::new()))
        } else {
            None
        }
    }

    /// Takes octets, and gives what they stand for.
    pub fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Identity => sink(octets),
            Self::Base64(bits, count) => {
                let mut out = Vec::with_capacity(octets.len());
                for octet in octets {
                    let Some(six) = six_bits(*octet) else {
                        if *octet == b'=' {
                            // What comes behind is another one, put together from parts.
                            (*bits, *count) = (0, 0);
                        }
                        continue;
                    };
                    *bits = *bits << 6 | six;
                    *count += 6;
                    if *count >= 8 {
                        *count -= 8;
                        out.push((*bits >> *count).to_le_bytes()[0]);
                        *bits &= (1 << *count) - 1;
                    }
                }
                sink(&out);
            }
            Self::QuotedPrintable(held) => {
                let mut out = Vec::with_capacity(octets.len());
                for octet in octets {
                    quoted_printable(held, *octet, &mut out);
                }
                sink(&out);
            }
        }
    }

    /// All has come.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if let Self::QuotedPrintable(held) = self {
            let rest = std::mem::take(held);
            if !rest.iter().all(|octet| matches!(octet, b' ' | b'\t')) && rest != b"=" {
                sink(&rest);
            }
        }
    }
}

fn six_bits(octet: u8) -> Option<u32> {
    Some(match octet {
        b'A'..=b'Z' => u32::from(octet - b'A'),
        b'a'..=b'z' => u32::from(octet - b'a') + 26,
        b'0'..=b'9' => u32::from(octet - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

fn quoted_printable(held: &mut Vec<u8>, octet: u8, out: &mut Vec<u8>) {
    if held.first() == Some(&b'=') {
        held.push(octet);
        match held.as_slice() {
            [_, _] if octet.is_ascii_hexdigit() || matches!(octet, b' ' | b'\t' | b'\r') => {}
            [_, b'\n'] => held.clear(),
            [_, high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(nibble(*high) << 4 | nibble(*low));
                held.clear();
            }
            // Blanks between the sign and the line's end.
            [_, blanks @ .., _]
                if blanks.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
                    && matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
                    && blanks.len() < MOST_BLANKS =>
            {
                if octet == b'\n' {
                    held.clear();
                }
            }
            _ => {
                // It is no sign after all; its last octet may begin one.
                held.pop();
                out.append(held);
                quoted_printable(held, octet, out);
            }
        }
        return;
    }
    match octet {
        b' ' | b'\t' if held.len() < MOST_BLANKS => held.push(octet),
        b'\r' | b'\n' => {
            if held.last() != Some(&b'\r') {
                held.clear();
            }
            out.push(octet);
        }
        b'=' => {
            out.append(held);
            held.push(octet);
        }
        _ => {
            out.append(held);
            out.push(octet);
        }
    }
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::Decoder;

    fn decoded(encoding: &str, text: &[u8]) -> String {
        let whole = decoded_in(encoding, text, usize::MAX);
        for piece in [1, 2, 3, 5] {
            assert_eq!(decoded_in(encoding, text, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn decoded_in(encoding: &str, text: &[u8], piece: usize) -> String {
        let mut decoder = Decoder::of(Some(encoding.as_bytes())).unwrap();
        let mut out = Vec::new();
        for piece in text.chunks(piece) {
            decoder.push(piece, &mut |octets| out.extend_from_slice(octets));
        }
        decoder.finish(&mut |octets| out.extend_from_slice(octets));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn base64_is_read_whatever_stands_between() {
        assert_eq!(decoded("base64", b"aGVsbG8="), "hello");
        assert_eq!(decoded("BASE64", b"aGVs\r\nbG8=\r\n"), "hello");
        assert_eq!(decoded("base64", b"aGV!sb G8"), "hello");
        assert_eq!(decoded("base64", b"aGk=aGk="), "hihi");
        assert_eq!(decoded("base64", b""), "");
    }

    #[test]
    fn quoted_printable_is_read_as_it_is_written() {
        assert_eq!(decoded("quoted-printable", b"a=3Db=\r\nc \r\nd"), "a=bc\r\nd");
        assert_eq!(decoded("quoted-printable", b"a= \t\r\nb"), "ab");
        assert_eq!(decoded("quoted-printable", b"a=\nb"), "ab");
        assert_eq!(decoded("quoted-printable", b"a=zb = ==3d"), "a=zb = ==");
        assert_eq!(decoded("quoted-printable", b"a b  c\t \r\n d "), "a b  c\r\n d");
        assert_eq!(decoded("quoted-printable", b"x="), "x");
    }

    #[test]
    fn the_rest_is_as_it_is_or_unknown() {
        assert_eq!(decoded(" 8BIT ", b"a=3D\r\n"), "a=3D\r\n");
        assert!(Decoder::of(None).is_some());
        assert!(Decoder::of(Some(b"uuencode")).is_none());
    }
}
