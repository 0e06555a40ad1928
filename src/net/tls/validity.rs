//! From when until when a certificate is good.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::der::element;

/// What seconds are counted from. Dates, not the library's timestamps: these end a day before the last
/// second of 9999, which stands for "never" (RFC 5280 section 4.1.2.5).
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Both ends, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

impl Validity {
    /// That of the certificate, given as DER; `None` where it has another form.
    ///
    /// ```text
    /// TBSCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer,
    ///                               validity, ... }              ; RFC 5280 section 4.1
    /// Validity ::= SEQUENCE { notBefore Time, notAfter Time }
    /// ```
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (0x30, inside, _) = element(certificate)? else {
            return None;
        };
        let (0x30, mut rest, _) = element(inside)? else {
            return None;
        };
        if let (0xa0, _, behind) = element(rest)? {
            rest = behind;
        }
        for _ in ["serialNumber", "signature", "issuer"] {
            (_, _, rest) = element(rest)?;
        }
        let (0x30, validity, _) = element(rest)? else {
            return None;
        };
        let (kind, not_before, rest) = element(validity)?;
        let not_before = time(kind, not_before)?;
        let (kind, not_after, _) = element(rest)?;
        Some(Self { not_before, not_after: time(kind, not_after)? })
    }

    /// Whether this moment is in it; seconds since 1970.
    pub fn contains(&self, now: u64) -> bool {
        i64::try_from(now).is_ok_and(|now| self.not_before <= now && now <= self.not_after)
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |seconds| EPOCH.saturating_add(SignedDuration::from_secs(seconds));
        write!(f, "from {}Z to {}Z", time(self.not_before), time(self.not_after))
    }
}

/// `Time ::= CHOICE { utcTime UTCTime, generalTime GeneralizedTime }` (RFC 5280 section 4.1.2.5), to
/// the second and in UTC, as certificates have it.
fn time(kind: u8, text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (kind, digits.len()) {
        (0x17, 12) => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (0x18, 14) => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse().ok();
    let moment = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    Some(moment.duration_since(EPOCH).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read_and_nothing_else() {
        for (kind, text, wanted) in [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "500101000000Z", Some(-631_152_000)),
            (0x18, "20500101000000Z", Some(2_524_608_000)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (0x17, "701301000000Z", None),
            (0x17, "7001010000Z", None),
            (0x17, "700101000000", None),
            (0x17, "7001010000+0Z", None),
            (0x18, "700101000000Z", None),
            (0x0c, "700101000000Z", None),
            (0x17, "", None),
        ] {
            assert_eq!(time(kind, text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn a_certificate_is_good_from_its_first_second_to_its_last() {
        let mut made = rcgen::CertificateParams::new(vec!["mx.example".into()]).unwrap();
        made.not_before = rcgen::date_time_ymd(1971, 1, 1);
        made.not_after = rcgen::date_time_ymd(2055, 1, 1);
        let made = made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der: &[u8] = made.der();
        let validity = Validity::of(der).unwrap();
        assert_eq!(validity, Validity { not_before: 31_536_000, not_after: 2_682_374_400 });
        assert_eq!(validity.to_string(), "from 1971-01-01T00:00:00Z to 2055-01-01T00:00:00Z");
        for (now, wanted) in
            [(31_535_999, false), (31_536_000, true), (2_682_374_400, true), (2_682_374_401, false)]
        {
            assert_eq!(validity.contains(now), wanted, "{now}");
        }
        for end in 0..der.len() {
            assert_eq!(Validity::of(&der[..end]), None);
        }
    }
}
