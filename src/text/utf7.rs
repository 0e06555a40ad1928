//! Modified UTF-7 (RFC 3501 section 5.1.3): names of mailboxes in ASCII.
//!
//! IMAP4rev1 has them so on the wire, and Dovecot on the disk. There is one way to write a name;
//! any other is refused, or one mailbox would have several names.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// Writes a name in ASCII.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut shifted = Vec::new();
    for c in name.chars() {
        if matches!(c, ' '..='~') {
            shift(&mut shifted, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            shifted.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
    shift(&mut shifted, &mut out);
    out
}

/// Writes what is not printable ASCII: UTF-16 in base64.
fn shift(units: &mut Vec<u16>, out: &mut String) {
    if units.is_empty() {
        return;
    }
    let digit =
        |bits: u32| ALPHABET.get(bits as usize & 63).map_or('A', |digit| char::from(*digit));
    let (mut bits, mut count) = (0_u32, 0);
    out.push('&');
    for unit in units.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        count += 16;
        while count >= 6 {
            count -= 6;
            out.push(digit(bits >> count));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(digit(bits << (6 - count)));
    }
    out.push('-');
}

/// Reads a name; `None` where it is not written as [`encode`] does.
pub fn decode(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, behind)) = rest.split_once('&') {
        name.push_str(plain);
        let (digits, behind) = behind.split_once('-')?;
        if digits.is_empty() {
            name.push('&');
        } else {
            name.push_str(&String::from_utf16(&units(digits)?).ok()?);
        }
        rest = behind;
    }
    name.push_str(rest);
    (encode(&name) == text).then_some(name)
}

/// The UTF-16 that stands in base64; bits that are too few for a unit are the caller's to judge.
fn units(digits: &str) -> Option<Vec<u16>> {
    let mut units = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        count += 6;
        if count >= 16 {
            count -= 16;
            units.push(u16::try_from((bits >> count) & 0xffff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(units)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn names_are_written_as_the_rfc_does() {
        for (name, text) in [
            ("", ""),
            ("INBOX/a b~", "INBOX/a b~"),
            (
                "~peter/mail/\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}",
                "~peter/mail/&U,BTFw-/&ZeVnLIqe-",
            ),
            ("R&D", "R&-D"),
            ("&", "&-"),
            ("&&", "&-&-"),
            ("Entw\u{fc}rfe", "Entw&APw-rfe"),
            ("\u{1f4e7}", "&2D3c5w-"),
            ("a\tb\u{7f}", "a&AAk-b&AH8-"),
            ("\u{e4}-&-\u{e4}", "&AOQ--&--&AOQ-"),
        ] {
            assert_eq!(encode(name), text);
            assert_eq!(decode(text).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_could_be_written_in_another_way_is_refused() {
        for text in [
            "&",
            "a&",
            "&APw",
            "&AP-",
            "&A-",
            "&APx-",
            "&APw=-",
            "&AP w-",
            "&APwA-",
            "&APwAA-",
            // Printable ASCII, RFC 3501's own bad example, and a slash that would escape.
            "&AEE-",
            "&U,BTFwBm-",
            "&AC8-",
            "&AC4ALgAv-",
            // Two shifts where one will do; a line end and a letter that stand unshifted.
            "&U,BTFw-&ZeVnLIqe-",
            "a\tb",
            "\u{fc}",
            // Half a pair of surrogates, and the halves the other way round.
            "&2D0-",
            "&3OfYPQ-",
            "&APw/-",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_name_is_read_back_and_every_text_that_is_read_is_written_the_same() {
        let mut seed = 1_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let letters: Vec<char> =
            "a~ &-/,+A\u{0}\n\u{7f}\u{80}\u{fc}\u{53f0}\u{ffff}\u{1f4e7}".chars().collect();
        let bytes = b"&&&---AZaz09+,/PwQ2D3c5 ~=";
        for _ in 0..20_000 {
            let name: String = (0..next(9)).map(|_| letters[next(letters.len())]).collect();
            let text = encode(&name);
            assert!(text.bytes().all(|b| matches!(b, b' '..=b'~')), "{text:?}");
            assert_eq!(decode(&text), Some(name));
            let text: String =
                (0..next(12)).map(|_| char::from(bytes[next(bytes.len())])).collect();
            if let Some(name) = decode(&text) {
                assert_eq!(encode(&name), text);
            }
        }
    }
}
