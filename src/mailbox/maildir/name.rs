//! Names of a Maildir's files: `BASE` in `new/`, `BASE:2,LETTERS` in `cur/`.
//!
//! The base stays as long as the message does. Capital letters are flags; small ones are keywords,
//! whose names stand elsewhere ([`super::keywords`]). Letters that nobody knows are kept.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::gethostname;
use xxhash_rust::xxh3::xxh3_128;

use crate::mailbox::NewMessage;
use crate::mailbox::store::Flags;

/// The flags with letters; `P` is a keyword to IMAP.
pub(super) const FLAGS: [(u8, Flags); 5] = [
    (b'D', Flags::DRAFT),
    (b'F', Flags::FLAGGED),
    (b'R', Flags::ANSWERED),
    (b'S', Flags::SEEN),
    (b'T', Flags::DELETED),
];

/// `TIME.MmicrosecondsPpidRrandom.HOST,S=size,W=size`: it tells the size, and that with CRLF line
/// ends, to readers that would have to count.
pub(super) fn unique(message: &NewMessage) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = getrandom::u64().map_err(io::Error::other)?;
    let host = gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut safe = String::new();
    for c in host.chars() {
        match c {
            '/' => safe.push_str("\\057"),
            ':' => safe.push_str("\\072"),
            c if c.is_ascii_graphic() && c != ',' => safe.push(c),
            _ => safe.push('_'),
        }
    }
    let size = message.length();
    let trace = memchr::memchr_iter(b'\n', &message.trace).count() as u64;
    let network = message.text.network_length().saturating_add(message.trace.len() as u64 + trace);
    Ok(format!(
        "{}.M{:06}P{}R{random:016x}.{safe},S={size},W={network}",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id(),
    ))
}

/// The part that stays.
pub(super) fn base(name: &[u8]) -> &[u8] {
    let end = memchr::memchr(b':', name).unwrap_or(name.len());
    name.get(..end).unwrap_or(name)
}

/// What a message is known again by.
pub(super) fn digest(name: &[u8]) -> [u8; 16] {
    xxh3_128(base(name)).to_be_bytes()
}

/// The letters, and what follows them, which is nobody's but kept.
pub(super) fn letters(name: &[u8]) -> (&[u8], &[u8]) {
    let info = name.get(base(name).len()..).and_then(|info| info.strip_prefix(b":2,"));
    let info = info.unwrap_or_default();
    info.split_at(memchr::memchr(b',', info).unwrap_or(info.len()))
}

/// The name with these letters.
pub(super) fn with_letters(name: &[u8], letters: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut letters: Vec<u8> = letters.into_iter().collect();
    letters.sort_unstable();
    letters.dedup();
    let (_, rest) = self::letters(name);
    [base(name), b":2,", &letters, rest].concat()
}

/// The number behind `,S=` (the size) or `,W=` (the size with CRLF line ends).
pub(super) fn number(name: &[u8], field: &[u8]) -> Option<u64> {
    let base = base(name);
    digits(base.get(memchr::memmem::find(base, field)? + field.len()..)?)
}

/// Names in the order in which the messages came, as far as they tell.
pub(super) fn order(name: &[u8]) -> (u64, u64, &[u8]) {
    let second = digits(name).unwrap_or(u64::MAX);
    let unique = name.splitn(3, |byte| *byte == b'.').nth(1).unwrap_or_default();
    let micros = memchr::memchr(b'M', unique).and_then(|at| digits(unique.get(at + 1..)?));
    (second, micros.unwrap_or(0), base(name))
}

fn digits(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{base, digest, letters, number, order, with_letters};

    #[test]
    fn a_name_keeps_its_base_and_what_nobody_knows() {
        for (name, expected) in [
            (&b"1.M2P3.h,S=10,W=12"[..], (&b"1.M2P3.h,S=10,W=12"[..], &b""[..], &b""[..])),
            (b"1.x:2,", (b"1.x", b"", b"")),
            (b"1.x:2,FSa,e=1", (b"1.x", b"FSa", b",e=1")),
            (b"1.x:1,S", (b"1.x", b"", b"")),
            (b":2,S", (b"", b"S", b"")),
        ] {
            assert_eq!((base(name), letters(name).0, letters(name).1), expected);
            assert_eq!(digest(name), digest(expected.0));
        }
        assert_eq!(with_letters(b"1.x:2,FSa,e=1", *b"zTSAS"), b"1.x:2,ASTz,e=1");
        assert_eq!(with_letters(b"1.x", *b""), b"1.x:2,");
    }

    #[test]
    fn sizes_stand_in_the_base() {
        assert_eq!(number(b"1.x,S=123,W=4567:2,S", b",S="), Some(123));
        assert_eq!(number(b"1.x,S=123,W=4567:2,S", b",W="), Some(4567));
        assert_eq!(number(b"1.x:2,S,S=1", b",S="), None);
        assert_eq!(number(b"1.x,S=:2,", b",S="), None);
        assert_eq!(number(b"1.x,S=99999999999999999999999", b",S="), None);
    }

    #[test]
    fn messages_that_came_together_are_told_apart_by_their_microseconds() {
        let mut names: [&[u8]; 5] =
            [b"10.M5P1.h", b"9.M9P1.h", b"note", b"10.M40P1.h:2,S", b"10.1_1.h"];
        names.sort_by_key(|name| order(name));
        assert_eq!(
            names,
            [&b"9.M9P1.h"[..], b"10.1_1.h", b"10.M5P1.h", b"10.M40P1.h:2,S", b"note"]
        );
    }
}
