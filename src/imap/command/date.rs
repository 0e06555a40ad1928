//! Dates: of a search, and of a message that is appended.

use jiff::civil;

use super::Error;
use super::cursor::Cursor;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment, as a client has written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// In seconds since 1970.
    pub at: i64,
    /// The zone it was written in, in seconds east.
    pub zone: i32,
}

/// `date = date-text / DQUOTE date-text DQUOTE`
pub(super) fn date(cursor: &mut Cursor) -> Result<civil::Date, Error> {
    let quoted = cursor.eat(b'"');
    let date = date_text(cursor, 1).filter(|_| !quoted || cursor.eat(b'"'));
    date.ok_or(Error::Wanted("a date like 1-Feb-1994"))
}

/// ```text
/// date-text      = date-day "-" date-month "-" date-year
/// date-day       = 1*2DIGIT
/// date-day-fixed = (SP DIGIT) / 2DIGIT
/// date-year      = 4DIGIT
/// ```
fn date_text(cursor: &mut Cursor, least: usize) -> Option<civil::Date> {
    let day = cursor.digits(least..=2)?;
    if !cursor.eat(b'-') {
        return None;
    }
    let month = MONTHS.iter().position(|month| cursor.eat_word(month))?;
    if !cursor.eat(b'-') {
        return None;
    }
    let year = cursor.digits(4..=4)?;
    let month = i8::try_from(month.saturating_add(1)).ok()?;
    civil::Date::new(i16::try_from(year).ok()?, month, i8::try_from(day).ok()?).ok()
}

/// ```text
/// date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
/// time      = 2DIGIT ":" 2DIGIT ":" 2DIGIT
/// zone      = ("+" / "-") 4DIGIT
/// ```
///
/// Quirk: a day of one digit needs no space before it.
pub(super) fn date_time(cursor: &mut Cursor) -> Result<DateTime, Error> {
    read_date_time(cursor).ok_or(Error::Wanted("a date like \" 1-Feb-1994 21:52:25 -0800\""))
}

fn read_date_time(cursor: &mut Cursor) -> Option<DateTime> {
    let eat = |cursor: &mut Cursor, byte| cursor.eat(byte).then_some(());
    eat(cursor, b'"')?;
    cursor.eat(b' ');
    let date = date_text(cursor, 1)?;
    eat(cursor, b' ')?;
    let hour = cursor.digits(2..=2).filter(|hour| *hour <= 23)?;
    eat(cursor, b':')?;
    let minute = cursor.digits(2..=2).filter(|minute| *minute <= 59)?;
    eat(cursor, b':')?;
    let second = cursor.digits(2..=2).filter(|second| *second <= 60)?;
    eat(cursor, b' ')?;
    let sign = if cursor.eat(b'+') { 1 } else { eat(cursor, b'-').map(|()| -1)? };
    let zone = i32::from(cursor.digits(4..=4).filter(|zone| zone % 100 <= 59 && *zone < 2400)?);
    eat(cursor, b'"')?;
    let zone = sign * (zone / 100 * 60 + zone % 100) * 60;
    let time = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let day = date.duration_since(civil::date(1970, 1, 1)).as_secs();
    Some(DateTime { at: day + time - i64::from(zone), zone })
}
