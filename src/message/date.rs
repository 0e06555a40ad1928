//! Dates as mail writes them.

use jiff::ZonedDateTime;

/// RFC 5322 section 3.3: `Mon, 21 Jun 2004 03:15:20 +0900 (JST)`.
pub fn rfc5322(time: &ZonedDateTime) -> String {
    time.strftime("%a, %-d %b %Y %H:%M:%S %z (%Z)").to_string()
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
}
