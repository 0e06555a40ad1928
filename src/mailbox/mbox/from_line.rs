//! The `From_` line that begins a message: `From sender Thu Jan  1 00:00:00 1970`.

use std::time::SystemTime;

/// The longest line that is taken for a `From_` line.
pub const LONGEST: usize = 4096;

/// Whether `bytes` begin with a `From_` line: `From `, anything, and a date that can be read.
///
/// Quirk: the date may lack its seconds, may have time zones before or behind its year, and more
/// may follow it (`remote from host`), as all of these are found in files.
pub fn begins(bytes: &[u8]) -> bool {
    let line = match memchr::memchr(b'\n', bytes) {
        Some(end) => bytes.get(..end).unwrap_or_default(),
        None => bytes,
    };
    if line.len() > LONGEST {
        return false;
    }
    let Some(rest) = line.strip_prefix(b"From ") else {
        return false;
    };
    let words: Vec<&[u8]> =
        rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    (0..words.len()).any(|at| words.get(at..).is_some_and(is_date))
}

/// `Www Mmm dd hh:mm[:ss] [zone] yyyy`, at the beginning of these words.
fn is_date(words: &[&[u8]]) -> bool {
    let [day, month, date, time, rest @ ..] = words else {
        return false;
    };
    let year = |word: &&&[u8]| {
        word.len() == 4
            && word.first().is_some_and(|b| matches!(b, b'1'..=b'9'))
            && word.iter().all(u8::is_ascii_digit)
    };
    one_of(day, b"SunMonTueWedThuFriSat")
        && one_of(month, b"JanFebMarAprMayJunJulAugSepOctNovDec")
        && number(date).is_some_and(|n| (1..=31).contains(&n))
        && is_time(time)
        && rest.iter().take(3).any(|word| year(&word))
}

fn one_of(word: &[u8], names: &[u8]) -> bool {
    names.chunks(3).any(|name| word.eq_ignore_ascii_case(name))
}

fn is_time(word: &[u8]) -> bool {
    let parts: Vec<Option<u32>> = word.split(|b| *b == b':').map(number).collect();
    match parts.as_slice() {
        [Some(h), Some(m)] => *h < 24 && *m < 60,
        [Some(h), Some(m), Some(s)] => *h < 24 && *m < 60 && *s <= 60,
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 2 {
        return None;
    }
    digits.iter().try_fold(0_u32, |n, b| {
        b.is_ascii_digit().then(|| n * 10 + u32::from(b.saturating_sub(b'0')))
    })
}

/// So much of a sender is written: RFC 5321's longest path has 256 bytes, and mutt reads lines of
/// 1024.
const SENDER: usize = 256;

/// A `From_` line with its line end; the null sender is written `MAILER-DAEMON`.
///
/// Whatever could keep a neighbour from knowing the line is written `?` (s-nail gives up at quoted
/// quotes, Python's mailbox at bytes that are not ASCII): Return-Path has the sender as it is.
pub fn write(sender: &[u8], at: SystemTime) -> Vec<u8> {
    let sender = if sender.is_empty() { b"MAILER-DAEMON" } else { sender };
    let mut line = b"From ".to_vec();
    line.extend(sender.iter().take(SENDER).map(|b| match b {
        b'"' | b'\\' => b'?',
        b if b.is_ascii_graphic() => *b,
        _ => b'?',
    }));
    let date = jiff::ZonedDateTime::try_from(at).map_or_else(
        |_| "Thu Jan  1 00:00:00 1970".into(),
        |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string(),
    );
    line.push(b' ');
    line.extend_from_slice(date.as_bytes());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::{begins, write};

    #[test]
    fn dates_as_the_neighbours_write_them_make_a_from_line() {
        for line in [
            &b"From a@b.org Thu Jan  1 00:00:00 1970\n"[..],
            b"From a@b.org  Thu Jan  1 00:00:00 1970\r\n",
            b"From - Thu Jan 01 00:00:00 1970",
            b"From \"a b\"@c.org Sat Dec 31 23:59:60 2016 +0100\n",
            b"From a Thu Jan  1 00:00 EST 1970 remote from b\n",
            b"From MAILER-DAEMON Thu Jan  1 00:00:00 MET DST 1970\n",
        ] {
            assert!(begins(line), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_sentence_that_begins_with_from_is_no_from_line() {
        for line in [
            &b"From here on, it is easy\n"[..],
            b"From a Thu Jan  1 25:00:00 1970\n",
            b"From a Thu Jan  1 00:00:00 n\nThu Jan 1 00:00:00 1970\n",
            b"From: a Thu Jan  1 00:00:00 1970\n",
            b"From ",
        ] {
            assert!(!begins(line), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn what_we_write_is_one_line_that_we_read() {
        let line = write(b"a\nFrom b", std::time::SystemTime::now());
        assert!(begins(&line));
        assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
        assert!(write(b"", std::time::SystemTime::now()).starts_with(b"From MAILER-DAEMON "));
    }

    #[test]
    fn a_strange_sender_does_not_keep_anybody_from_knowing_the_line() {
        let now = std::time::SystemTime::now();
        let line = write("\"a\\\" \u{fc}\"@c.org".as_bytes(), now);
        assert!(line.starts_with(b"From ?a??????@c.org "));
        let long = write(&[b'a'; 5000], now);
        assert!(begins(&long) && long.len() < 300);
    }
}
