//! What LIST asks for: names with `*` and `%` in them (RFC 9051 section 6.3.9).

/// Whether a name is meant by a pattern: `*` is anything, `%` anything without a slash. In the first
/// word INBOX the case does not matter.
pub fn matches(pattern: &str, name: &str) -> bool {
    let inbox = name == "INBOX" || name.starts_with("INBOX/");
    // Whether the pattern up to here can mean the name up to there.
    let mut reached = vec![false; name.len().saturating_add(1)];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    let mut last = 0;
    for byte in pattern.bytes() {
        if byte == b'*' && last == b'*' {
            continue;
        }
        last = byte;
        let mut before = false;
        let letters = std::iter::once(b'/').chain(name.bytes());
        for (at, (here, letter)) in reached.iter_mut().zip(letters).enumerate() {
            let was = *here;
            *here = match byte {
                b'*' => was || before,
                b'%' => was || (before && at > 0 && letter != b'/'),
                _ if at == 0 => false,
                _ if inbox && at <= 5 => before && letter.eq_ignore_ascii_case(&byte),
                _ => before && letter == byte,
            };
            before = if matches!(byte, b'*' | b'%') { *here } else { was };
        }
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_mean_anything_and_percents_one_word() {
        for (pattern, meant, not) in [
            ("*", &["a", "a/b", "INBOX"][..], &[][..]),
            ("%", &["a", "INBOX"], &["a/b"]),
            ("a/%", &["a/b", "a/"], &["a", "a/b/c", "b/b"]),
            ("a*", &["a", "ab", "a/b/c"], &["b", "ba"]),
            ("%/%", &["a/b"], &["a", "a/b/c"]),
            ("*/c", &["a/c", "a/b/c"], &["c", "a/b/cd"]),
            ("a%c", &["ac", "abc"], &["a/c"]),
            ("inb%", &["INBOX"], &["INBOX/x", "Inbo"]),
            ("inbox/X", &["INBOX/X"], &["INBOX/x"]),
            ("a", &["a"], &["A", "ab", ""]),
            ("", &[""], &["a"]),
            ("*%", &["", "a/b"], &[]),
            ("%*b", &["b", "a/b"], &["a/bc"]),
            ("\u{fc}%", &["\u{fc}x"], &["u"]),
        ] {
            for name in meant {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in not {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    /// As one would write it if time did not matter.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [wild @ (b'*' | b'%'), rest @ ..] => {
                slow(rest, name)
                    || matches!(name, [c, name @ ..] if (*wild == b'*' || *c != b'/') && slow(pattern, name))
            }
            [c, rest @ ..] => matches!(name, [n, name @ ..] if n == c && slow(rest, name)),
        }
    }

    #[test]
    fn the_fast_way_and_the_slow_way_agree() {
        let mut seed = 3_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..50_000 {
            let pattern: String = (0..next(7)).map(|_| char::from(b"ab/*%"[next(5)])).collect();
            let name: String = (0..next(7)).map(|_| char::from(b"ab/"[next(3)])).collect();
            let agreed = slow(pattern.as_bytes(), name.as_bytes());
            assert_eq!(matches(&pattern, &name), agreed, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_is_made_to_take_long_does_not() {
        let (pattern, name) = ("%a*".repeat(300), "a".repeat(1000));
        assert!(matches(&pattern, &name));
    }
}
