//! Records that a session child sends its monitor, and the answers to them.
//!
//! The monitor is root, so that what it decodes must be too simple to be wrong about: byte arrays
//! of one size, each with lengths in front and zeroes behind. Which record it is, is told by whose
//! turn it is, never by the record.

use crate::pop3::{MAX_LEFTOVER, login};
use crate::sasl::scram::{Hash, MAX_SALT};
use crate::sasl::{Keys, Mechanism};

/// The bytes of a name that fit.
const NAME: usize = login::MAX_NAME;

/// The bytes of a password that fit.
const PASSWORD: usize = login::MAX_PASSWORD;

/// "Is this the password of that name?"
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, as the client gave it.
    pub user: Vec<u8>,
    /// The password, as the client gave it.
    pub password: Vec<u8>,
}

impl Credentials {
    /// The record's size: two bytes and the name, two bytes and the password.
    pub const LENGTH: usize = 2 + NAME + 2 + PASSWORD;

    /// The record; `None` where something does not fit.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        field(&mut record, &self.user, NAME)?;
        field(&mut record, &self.password, PASSWORD)?;
        Some(record)
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (user, rest) = take(record, NAME)?;
        let (password, rest) = take(rest, PASSWORD)?;
        rest.is_empty().then(|| Self { user: user.to_vec(), password: password.to_vec() })
    }
}

/// By which mechanism a question of AUTH is asked, one byte.
pub fn mechanism(byte: u8) -> Option<Mechanism> {
    Mechanism::ALL.into_iter().find(|one| *one as u8 == byte)
}

/// A name: "which SCRAM keys has that one?", or whose a certificate is.
pub struct Name;

impl Name {
    /// The record's size: two bytes and the name.
    pub const LENGTH: usize = 2 + NAME;

    /// The record; `None` where the name does not fit.
    pub fn encode(name: &str) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        field(&mut record, name.as_bytes(), NAME)?;
        Some(record)
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<&str> {
        let (name, rest) = take(record, NAME)?;
        let name = std::str::from_utf8(name).ok()?;
        rest.is_empty().then_some(name)
    }
}

/// The answer to "which SCRAM keys has that name?"
pub struct ScramKeys;

/// The bytes of a SCRAM key that fit.
const KEY: usize = 32;

impl ScramKeys {
    /// The answer's size: four bytes of iterations, and salt and two keys behind their lengths.
    pub const LENGTH: usize = 4 + 2 + MAX_SALT + 2 * (2 + KEY);

    /// The record; without keys it says that it can't be told now.
    pub fn encode(keys: Option<&Keys>) -> Option<Vec<u8>> {
        let Some(keys) = keys else {
            return Some(vec![0; Self::LENGTH]);
        };
        let mut record = keys.iterations.to_be_bytes().to_vec();
        field(&mut record, &keys.salt, MAX_SALT)?;
        field(&mut record, &keys.stored, KEY)?;
        field(&mut record, &keys.server, KEY)?;
        Some(record)
    }

    /// Decodes the answer, of keys of this hash function; `Some(None)` is "not now".
    pub fn decode(record: &[u8], hash: Hash) -> Option<Option<Keys>> {
        let (iterations, rest) = record.split_first_chunk::<4>()?;
        let (salt, rest) = take(rest, MAX_SALT)?;
        let (stored, rest) = take(rest, KEY)?;
        let (server, rest) = take(rest, KEY)?;
        let iterations = u32::from_be_bytes(*iterations);
        let (salt, stored, server) = (salt.to_vec(), stored.to_vec(), server.to_vec());
        let keys = Keys { hash, iterations, salt, stored, server };
        rest.is_empty().then(|| (iterations > 0).then_some(keys))
    }
}

/// "Go on with this": the input that came behind the right password, not looked at by anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The input.
    pub leftover: Vec<u8>,
}

impl HandOver {
    /// The record's size: two bytes and the input.
    pub const LENGTH: usize = 2 + MAX_LEFTOVER;

    /// The record; `None` where the input does not fit.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        field(&mut record, &self.leftover, MAX_LEFTOVER)?;
        Some(record)
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (leftover, rest) = take(record, MAX_LEFTOVER)?;
        rest.is_empty().then(|| Self { leftover: leftover.to_vec() })
    }
}

/// The monitor's answer to [`Credentials`], one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The password is right; [`HandOver`] is awaited.
    Accepted,
    /// It is not.
    Refused,
    /// It can't be told now.
    Unavailable,
}

impl Answer {
    /// The record's size.
    pub const LENGTH: usize = 1;

    /// The record.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        match self {
            Self::Accepted => *b"A",
            Self::Refused => *b"R",
            Self::Unavailable => *b"U",
        }
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<Self> {
        match record {
            b"A" => Some(Self::Accepted),
            b"R" => Some(Self::Refused),
            b"U" => Some(Self::Unavailable),
            _ => None,
        }
    }
}

/// Appends a length and `room` bytes, of which the value takes the first.
fn field(record: &mut Vec<u8>, value: &[u8], room: usize) -> Option<()> {
    let length = u16::try_from(value.len()).ok()?;
    let spare = room.checked_sub(value.len())?;
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(value);
    record.extend(std::iter::repeat_n(0, spare));
    Some(())
}

/// Splits a value in `room` bytes from what stands behind it.
fn take(record: &[u8], room: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = record.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(room)?;
    let (value, spare) = value.split_at_checked(u16::from_be_bytes(*length).into())?;
    spare.iter().all(|byte| *byte == 0).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: usize, password: usize) -> Credentials {
        Credentials { user: vec![b'u'; user], password: vec![b'p'; password] }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_has_one_size() {
        for asked in [credentials(4, 11), credentials(64, 256), credentials(0, 0)] {
            let record = asked.encode().unwrap();
            assert_eq!(record.len(), Credentials::LENGTH);
            assert!(Credentials::decode(&record) == Some(asked));
        }
        for length in [0, 1, 8192] {
            let handed = HandOver { leftover: vec![b'x'; length] };
            let record = handed.encode().unwrap();
            assert_eq!(record.len(), HandOver::LENGTH);
            assert_eq!(HandOver::decode(&record), Some(handed));
        }
        for answer in [Answer::Accepted, Answer::Refused, Answer::Unavailable] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn scram_keys_are_records_of_one_size() {
        for (hash, salt) in [(Hash::Sha1, 1), (Hash::Sha256, 64)] {
            let key = vec![7; hash.length()];
            let (stored, server) = (key.clone(), key);
            let keys = Keys { hash, iterations: 4096, salt: vec![1; salt], stored, server };
            let record = ScramKeys::encode(Some(&keys)).unwrap();
            assert_eq!(record.len(), ScramKeys::LENGTH);
            assert_eq!(ScramKeys::decode(&record, hash), Some(Some(keys)));
            assert_eq!(ScramKeys::decode(&record[1..], hash), None);
        }
        let none = ScramKeys::encode(None).unwrap();
        assert_eq!(ScramKeys::decode(&none, Hash::Sha1), Some(None));
        for name in ["", "hunt", &"x".repeat(64)] {
            let record = Name::encode(name).unwrap();
            assert_eq!(record.len(), Name::LENGTH);
            assert_eq!(Name::decode(&record), Some(name));
        }
        assert!(Name::encode(&"x".repeat(65)).is_none() && Name::decode(&[0]).is_none());
        for one in Mechanism::ALL {
            assert_eq!(mechanism(one as u8), Some(one));
        }
        assert_eq!(mechanism(99), None);
    }

    #[test]
    fn what_does_not_fit_is_not_encoded() {
        assert!(credentials(65, 1).encode().is_none());
        assert!(credentials(1, 257).encode().is_none());
        let leftover = vec![0; 8193];
        assert!(HandOver { leftover }.encode().is_none());
    }

    #[test]
    fn a_record_of_another_shape_is_refused() {
        let record = credentials(4, 11).encode().unwrap();
        assert!(Credentials::decode(&[]).is_none());
        assert!(Credentials::decode(&record[..record.len() - 1]).is_none());
        assert!(Credentials::decode(&[&record[..], b"\0"].concat()).is_none());
        let mut long_name = record.clone();
        long_name[1] = 65;
        assert!(Credentials::decode(&long_name).is_none(), "a length beyond its room");
        let mut hidden = record;
        hidden[2 + 63] = b'x';
        assert!(Credentials::decode(&hidden).is_none(), "bytes behind the value");
        assert!(Answer::decode(b"AA").is_none() && Answer::decode(b"").is_none());
    }
}
