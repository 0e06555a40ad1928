//! The `From_` line that begins a message: `From sender Thu Jan  1 00:00:00 1970`.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::sys::clock;

/// The longest line that is taken for a `From_` line.
pub const LONGEST: usize = 4096;

/// Whether `bytes` begin with a `From_` line: `From `, anything, and a date that can be read.
///
/// Quirk: the date may lack its seconds, may have time zones before or behind its year, and more
/// may follow it (`remote from host`), as all of these are found in files.
pub fn begins(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

/// The moment that the `From_` line at the beginning of `bytes` names, in seconds since 1970: 0
/// where no such day is in the calendar; `None` where it is none. Without a zone it is local time.
pub fn date(bytes: &[u8]) -> Option<i64> {
    parse(bytes).map(|date| date.seconds().unwrap_or(0))
}

fn parse(bytes: &[u8]) -> Option<Date<'_>> {
    let rest = bytes.strip_prefix(b"From ")?;
    let most = LONGEST.saturating_sub(5);
    let line = match memchr::memchr(b'\n', rest.get(..=most).unwrap_or(rest)) {
        Some(end) => rest.get(..end)?,
        None if rest.len() > most => return None,
        None => rest,
    };
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    loop {
        if let Some(date) = Date::of_words(words.clone()) {
            return Some(date);
        }
        words.next()?;
    }
}

/// `Www Mmm dd hh:mm[:ss] [zone] yyyy [zone]`.
struct Date<'a> {
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    year: i16,
    /// The words before the year, and the one behind it.
    zone: [&'a [u8]; 3],
}

impl<'a> Date<'a> {
    /// At the beginning of these words.
    fn of_words(mut words: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        named(words.next()?, b"SunMonTueWedThuFriSat")?;
        let month = named(words.next()?, b"JanFebMarAprMayJunJulAugSepOctNovDec")?;
        let day = number(words.next()?).filter(|day| (1..=31).contains(day))?;
        let (hour, minute, second) = time(words.next()?)?;
        let mut zone = [&b""[..]; 3];
        for at in 0..3 {
            let word = words.next()?;
            if let Some(year) = year(word) {
                if let (Some(behind), Some(last)) = (words.next(), zone.last_mut()) {
                    *last = behind;
                }
                return Some(Self { month, day, hour, minute, second, year, zone });
            }
            if let Some(place) = zone.get_mut(at) {
                *place = word;
            }
        }
        None
    }

    fn seconds(&self) -> Option<i64> {
        let second = self.second.min(59);
        let date =
            DateTime::new(self.year, self.month, self.day, self.hour, self.minute, second, 0);
        let date = date.ok()?;
        let moment = match self.offset() {
            Some(minutes) => {
                Offset::from_seconds(minutes.checked_mul(60)?).ok()?.to_timestamp(date)
            }
            None => clock::zone().to_timestamp(date),
        };
        Some(moment.ok()?.as_second())
    }

    /// The zone's distance from UTC in minutes, where it is named in a way that means only one.
    fn offset(&self) -> Option<i32> {
        let [first, second, _] = self.zone;
        let minutes = self.zone.iter().find_map(|word| offset(word))?;
        let summer = second.eq_ignore_ascii_case(b"DST") && !first.is_empty();
        Some(if summer { minutes + 60 } else { minutes })
    }
}

/// Which of these names, of three letters each, it is, counted from 1.
fn named(word: &[u8], names: &[u8]) -> Option<i8> {
    let at = names.chunks(3).position(|name| word.eq_ignore_ascii_case(name))?;
    i8::try_from(at + 1).ok()
}

fn year(word: &[u8]) -> Option<i16> {
    let digits = word.len() == 4 && word.iter().all(u8::is_ascii_digit);
    let year = if digits { std::str::from_utf8(word).ok()?.parse().ok()? } else { 0 };
    (year >= 1000).then_some(year)
}

fn time(word: &[u8]) -> Option<(i8, i8, i8)> {
    let mut parts = word.split(|b| *b == b':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let right = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    right.then_some((hour, minute, second))
}

fn number(digits: &[u8]) -> Option<i8> {
    if digits.is_empty() || digits.len() > 2 {
        return None;
    }
    digits.iter().try_fold(0_i8, |n, b| {
        let digit = i8::try_from(b.wrapping_sub(b'0')).ok().filter(|digit| *digit < 10)?;
        Some(n * 10 + digit)
    })
}

/// Zones and their hours: those of RFC 5322 section 4.3, and a few that were as usual.
const ZONES: [(&str, i32); 16] = [
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("MET", 1),
    ("CET", 1),
    ("MEST", 2),
    ("CEST", 2),
    ("JST", 9),
];

/// `+hhmm`, or a name.
fn offset(word: &[u8]) -> Option<i32> {
    if let [sign @ (b'+' | b'-'), hours @ .., m, n] = word {
        let minutes =
            number(hours).filter(|hours| *hours < 24).map(|hours| i32::from(hours) * 60)?
                + number(&[*m, *n]).filter(|minutes| *minutes < 60).map(i32::from)?;
        return Some(if *sign == b'-' { -minutes } else { minutes });
    }
    let named = ZONES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, hours)| hours * 60)
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
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = clock::at(since.as_secs()).map_or_else(
        || "Thu Jan  1 00:00:00 1970".into(),
        |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string(),
    );
    line.push(b' ');
    line.extend_from_slice(date.as_bytes());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::{begins, date, write};

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
    fn a_from_line_tells_when() {
        let at = |rest: &str| date(format!("From a@b.org {rest}\nA: 1\n").as_bytes());
        for (line, wanted) in [
            ("Thu Jan  1 00:00:05 1970 +0000", 5),
            ("Thu Jan  1 00:01 UTC 1970", 60),
            ("Fri Jan  2 00:00:00 EST 1970", 86400 + 5 * 3600),
            ("Fri Jan  2 00:00:00 MET DST 1970", 86400 - 2 * 3600),
            ("Fri Jan  2 00:00:00 1970 -0930", 86400 + 34200),
            ("Wed Dec 31 23:59:58 1969 GMT", -2),
            ("Sat Dec 31 23:59:60 2016 +0000", 1_483_228_799),
            ("Mon Feb 30 00:00:00 1970", 0),
        ] {
            assert_eq!(at(line), Some(wanted), "{line}");
        }
        assert_eq!(at("no date"), None);
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_087_755_320);
        assert_eq!(date(&write(b"a", then)), Some(1_087_755_320));
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
