//! Lists of addresses as headers and people write them (RFC 5322 section 3.4).

use super::address::{self, Address, Alphabet};

/// The longest list, in addresses.
const MAX: usize = 100_000;

/// The addresses of a list; those without a domain (`root`, `Toshi <toshi>`) are in `origin`.
///
/// ```text
/// address-list = (address *("," address))
/// mailbox      = [display-name] "<" addr-spec ">" / addr-spec
/// group        = display-name ":" [group-list] ";"
/// ```
///
/// Names and comments are skipped; what is left is parsed by the one address parser. An error names
/// the address that is none.
pub fn addresses(list: &[u8], origin: &str) -> Result<Vec<Address>, String> {
    addresses_in(list, origin, Alphabet::Ascii)
}

/// As [`addresses`], in this alphabet.
pub fn addresses_in(list: &[u8], origin: &str, alphabet: Alphabet) -> Result<Vec<Address>, String> {
    let mut found = Vec::new();
    // What stands outside, and what stands inside angle brackets.
    let (mut plain, mut angle) = (Vec::new(), None::<Vec<u8>>);
    let (mut in_angle, mut in_literal, mut quoted, mut depth) = (false, false, false, 0_usize);
    let mut bytes = list.iter().copied();
    loop {
        let byte = bytes.next();
        let target = match &mut angle {
            Some(angle) if in_angle => angle,
            _ => &mut plain,
        };
        match byte {
            Some(b'\\') if quoted || depth > 0 => {
                let escaped = bytes.next();
                if depth == 0 {
                    target.push(b'\\');
                    target.extend(escaped);
                }
            }
            Some(b'(') if !quoted => depth += 1,
            Some(b')') if !quoted && depth > 0 => depth -= 1,
            Some(_) if depth > 0 => {}
            Some(b'"') => {
                quoted = !quoted;
                target.push(b'"');
            }
            Some(byte) if quoted => target.push(byte),
            Some(b'<') if !in_angle => {
                in_angle = true;
                angle = Some(Vec::new());
            }
            Some(b'>') if in_angle => in_angle = false,
            Some(byte @ (b'[' | b']')) => {
                in_literal = byte == b'[';
                target.push(byte);
            }
            Some(b':') if !in_angle && !in_literal => plain.clear(),
            Some(b',' | b';') if !in_angle => {
                take(&mut found, &mut plain, &mut angle, origin, alphabet)?;
            }
            Some(byte) => target.push(byte),
            None => break,
        }
    }
    if quoted || in_angle || depth > 0 {
        let text = String::from_utf8_lossy(list);
        return Err(format!("{:?}: a quote or bracket is not closed", text.trim()));
    }
    take(&mut found, &mut plain, &mut angle, origin, alphabet)?;
    Ok(found)
}

fn take(
    found: &mut Vec<Address>,
    plain: &mut Vec<u8>,
    angle: &mut Option<Vec<u8>>,
    origin: &str,
    alphabet: Alphabet,
) -> Result<(), String> {
    let plain = std::mem::take(plain);
    let text = angle.take().unwrap_or(plain);
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    if found.len() >= MAX {
        return Err(format!("more than {MAX} addresses"));
    }
    let mailbox = address::mailbox(text, alphabet)
        .map_err(|error| format!("{:?}: {error}", String::from_utf8_lossy(text)))?;
    found.push(mailbox.or_domain(origin));
    Ok(())
}

#[cfg(test)]
mod tests {
    fn parse(list: &str) -> Result<Vec<String>, String> {
        super::addresses(list.as_bytes(), "here")
            .map(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_are_found_among_names_comments_and_groups() {
        for (list, wanted) in [
            ("a@b", &["a@b"][..]),
            ("root", &["root@here"]),
            ("Toshi <toshi>, \"Q, <R>\" <q@c> (x, (y) z)", &["toshi@here", "q@c"]),
            ("staff: x@d, y@e; z@f", &["x@d", "y@e", "z@f"]),
            ("undisclosed-recipients:;", &[]),
            ("a@[IPv6:::1], \"b c\"@d", &["a@[IPv6:::1]", "\"b c\"@d"]),
            ("=?ISO-2022-JP?B?GyRC?= <a@b>,\r\n c@d", &["a@b", "c@d"]),
            (" , ", &[]),
        ] {
            assert_eq!(parse(list).unwrap(), wanted, "{list}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for list in ["a b@c d", "a@b, \"x", "<a@b", "(a@b", "a@@b@", "\u{e9}@c", "a@b c@d"] {
            assert!(parse(list).is_err(), "{list}");
        }
    }
}
