//! The time of day, in the host's time zone.

use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

const LOCAL: &str = "/etc/localtime";

/// Now, in local time.
pub fn now() -> ZonedDateTime {
    Timestamp::now().to_zoned_datetime(zone().clone())
}

/// Seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Microseconds since 1970.
pub fn microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
}

/// A number that is another one after each start of the system; 0 where it does not tell.
pub fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    })
}

/// This moment of local time, from seconds since 1970.
pub fn at(seconds: u64) -> Option<ZonedDateTime> {
    let time = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(time.to_zoned_datetime(zone().clone()))
}

/// The zone of `$TZ` or of /etc/localtime, read once: a process that forks for each client, or is
/// about to lose sight of the file, calls this first.
///
/// (jiff's own search also wants to know the zone's name, and walks all of /usr/share/zoneinfo for
/// it in every process: more than everything else that a session does.)
pub fn zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let zone = match std::env::var("TZ") {
            Ok(name) if !name.is_empty() => named(name.strip_prefix(':').unwrap_or(&name)),
            _ => file(LOCAL),
        };
        zone.unwrap_or(TimeZone::UTC)
    })
}

/// A name such as `Asia/Tokyo`, or a rule such as `JST-9`.
fn named(name: &str) -> Option<TimeZone> {
    if name == LOCAL {
        return file(LOCAL);
    }
    let plain = !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    let zone = if plain { file(&format!("/usr/share/zoneinfo/{name}")) } else { None };
    zone.or_else(|| TimeZone::posix(name).ok())
}

fn file(path: &str) -> Option<TimeZone> {
    TimeZone::tzif("Local", &fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::named;
    use jiff::Timestamp;

    #[test]
    fn a_zone_is_a_name_or_a_rule_and_nothing_outside_the_database() {
        let noon = Timestamp::from_second(1_087_755_320).unwrap();
        let hour = |name| named(name).map(|zone| noon.to_zoned_datetime(zone).hour());
        assert_eq!(hour("JST-9"), Some(3));
        assert!(named("../../../etc/passwd").is_none());
        assert!(named("").is_none());
    }
}
