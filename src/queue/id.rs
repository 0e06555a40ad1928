//! Queue ids.

use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// A queue id: 11 characters of the time in microseconds and 4 of chance, so that ids sort by
/// age and no two are the same even when the clock is set back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 15;

impl Id {
    /// A new id.
    pub fn new() -> io::Result<Self> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let chance = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
        let bits = (time << 20) | u128::from(chance & 0xf_ffff);
        let id = (0..LENGTH)
            .rev()
            .map(|place| {
                let index = (bits >> (5 * place)) & 31;
                usize::try_from(index)
                    .ok()
                    .and_then(|index| ALPHABET.get(index))
                    .map_or('0', |b| char::from(*b))
            })
            .collect();
        Ok(Self(id))
    }

    /// Parses a file name or an operator's argument.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte));
        valid.then(|| Self(text.to_owned()))
    }

    /// As text, which is a safe file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn ids_sort_by_age_and_read_back() {
        let first = Id::new().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = Id::new().unwrap();
        assert!(first < second);
        assert_eq!(Id::parse(first.as_str()), Some(first));
        for bad in ["", "../../../../etc", "0123456789ABCDI", "0123456789ABCDEF"] {
            assert_eq!(Id::parse(bad), None);
        }
    }
}
