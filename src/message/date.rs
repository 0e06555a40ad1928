//! Dates as mail writes them.

use jiff::ZonedDateTime;
use jiff::civil;

/// RFC 5322 section 3.3: `Mon, 21 Jun 2004 03:15:20 +0900 (JST)`.
pub fn rfc5322(time: &ZonedDateTime) -> String {
    time.strftime("%a, %-d %b %Y %H:%M:%S %z (%Z)").to_string()
}

/// When a message says that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// In seconds since 1970.
    pub at: i64,
    /// The day where it was written, which is what is searched for (RFC 9051 section 6.4.4, SENTON).
    pub day: civil::Date,
}

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// The zones of RFC 5322 section 4.3 that have names, with their hours; all others are 0.
const ZONES: [(&[u8], i64); 8] = [
    (b"EDT", -4),
    (b"EST", -5),
    (b"CDT", -5),
    (b"CST", -6),
    (b"MDT", -6),
    (b"MST", -7),
    (b"PDT", -7),
    (b"PST", -8),
];

/// Reads a Date field.
///
/// ```text
/// date-time = [ day-of-week "," ] day month year hour ":" minute [ ":" second ] zone
/// ```
///
/// Named quirks: a year may have two or three digits and a zone a name (RFC 5322 section 4.3), zone
/// and time may be missing (RFC 5256 section 2.2: then they are 0), hyphens may stand for blanks,
/// and the year may stand behind the time, as asctime(3) writes it.
pub fn parse(value: &[u8]) -> Option<Sent> {
    let (mut day, mut month, mut year, mut time, mut zone) = (None, None, None, None, 0);
    for word in words(value) {
        if let Some(digits) = word.strip_prefix(b"+") {
            zone = offset(digits).unwrap_or(zone);
        } else if let Some(digits) = word.strip_prefix(b"-") {
            zone = offset(digits).map_or(zone, |offset| -offset);
        } else if word.contains(&b':') {
            time = time.or(clock(&word));
        } else if let Some(number) = number(&word) {
            match day {
                None if word.len() <= 2 => day = Some(number),
                _ => year = year.or(Some(full_year(number, word.len()))),
            }
        } else if let Some((_, hours)) = ZONES.iter().find(|(name, _)| *name == word) {
            zone = hours * 3600;
        } else if let Some(name) = word.get(..3) {
            let found = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name));
            month = month.or(found);
        }
    }
    let month = i8::try_from(month? + 1).ok()?;
    let day = civil::Date::new(i16::try_from(year?).ok()?, month, i8::try_from(day?).ok()?).ok()?;
    let since = day.duration_since(civil::date(1970, 1, 1)).as_secs();
    Some(Sent { at: since + time.unwrap_or(0) - zone, day })
}

/// The words of a date, without comments; hyphens divide them, but for the sign of a zone.
fn words(value: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut depth) = (Vec::new(), Vec::<u8>::new(), 0_usize);
    for byte in value.iter().take(MAX_DATE) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            b',' | b' ' | b'\t' | b'\r' | b'\n' => words.push(std::mem::take(&mut word)),
            b'-' if word.first().is_some_and(|first| !first.is_ascii_punctuation()) => {
                words.push(std::mem::take(&mut word));
            }
            _ => word.push(*byte),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The longest date that is read.
const MAX_DATE: usize = 256;

fn number(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_number = digits.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn full_year(number: i64, digits: usize) -> i64 {
    match (digits, number) {
        (0..=2, 0..=49) => number + 2000,
        (0..=3, _) => number + 1900,
        _ => number,
    }
}

/// The seconds of `0900`.
fn offset(digits: &[u8]) -> Option<i64> {
    let number = number(digits).filter(|_| digits.len() == 4)?;
    Some((number / 100 * 60 + number % 100) * 60)
}

/// The seconds of `hour ":" minute [":" second]`.
fn clock(word: &[u8]) -> Option<i64> {
    let mut seconds = 0;
    let mut parts = word.split(|byte| *byte == b':');
    for (unit, most) in [(3600, 23), (60, 59), (1, 60)] {
        let Some(part) = parts.next() else { break };
        seconds += unit * number(part).filter(|number| *number <= most)?;
    }
    Some(seconds)
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::tz::TimeZone;
    use jiff::{Timestamp, ZonedDateTime};

    /// The moment of the lecture's message.
    pub fn lecture() -> ZonedDateTime {
        let time = Timestamp::from_second(1_087_755_320).unwrap();
        time.to_zoned_datetime(TimeZone::posix("JST-9").unwrap())
    }

    #[test]
    fn dates_are_written_as_the_neighbours_do() {
        assert_eq!(super::rfc5322(&lecture()), "Mon, 21 Jun 2004 03:15:20 +0900 (JST)");
    }

    /// Seconds and day.
    fn sent(value: &str) -> Option<(i64, String)> {
        super::parse(value.as_bytes()).map(|sent| (sent.at, sent.day.to_string()))
    }

    #[test]
    fn dates_of_the_rfc_and_of_the_world_are_read() {
        let lecture = Some((1_087_755_320, "2004-06-21".to_owned()));
        for same in [
            "Mon, 21 Jun 2004 03:15:20 +0900 (JST)",
            "21 jun 04 03:15:20 +0900",
            "Mon , (a (b) c) 21\r\n JUNE 2004 03:15:20(x)+0900",
            "21-Jun-2004 03:15:20 +0900",
            "Mon Jun 21 03:15:20 2004 +0900",
        ] {
            let blanks = same.replace("(x)", " ");
            assert_eq!(sent(&blanks), lecture, "{same}");
        }
        let utc = |value| sent(value).unwrap();
        assert_eq!(utc("1 Jan 1970 00:00 GMT"), (0, "1970-01-01".to_owned()));
        assert_eq!(utc("31 Dec 1969 19:00 EST"), (0, "1969-12-31".to_owned()));
        assert_eq!(utc("31 Dec 69 16:30:00 -0730"), (0, "1969-12-31".to_owned()));
        assert_eq!(utc("1 Jan 1970"), (0, "1970-01-01".to_owned()));
        assert_eq!(utc("1 Jan 102 00:00 Z").1, "2002-01-01");
        assert_eq!(utc("29 Feb 2004 23:59:60 +0000").1, "2004-02-29");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for none in
            ["", "x", "30 Feb 2004 00:00 GMT", "Jun 2004", "21 Jun", "0 Jan 2004", "(", "1 x 2"]
        {
            assert_eq!(sent(none), None, "{none}");
        }
        assert_eq!(sent("1 Jan 1970 24:00 GMT").unwrap().0, 0);
        assert_eq!(sent("1 Jan 1970 00:00 +00000").unwrap().0, 0);
        assert_eq!(sent(&"1 ".repeat(1 << 20)), None);
    }
}
