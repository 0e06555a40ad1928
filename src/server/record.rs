//! Records that a session child sends its monitor, and the answers to them.
//!
//! The monitor is root, so that what it decodes must be too simple to be wrong about: byte arrays
//! of one size, each with lengths in front and zeroes behind. Which record it is, is told by whose
//! turn it is, never by the record.

use crate::sasl::scram::MAX_SALT;
use crate::sasl::{MAX_NAME as NAME, MAX_PASSWORD as PASSWORD, Mechanism, Proof, Salt};

/// The bytes of input that are handed over.
pub const MAX_LEFTOVER: usize = 8 * 1024;

/// The bytes of a tag that fit.
pub const MAX_TAG: usize = 255;

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

/// A name: "how is that one challenged?", or whose a certificate is.
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

/// The bytes of a nonce that fit: of our part.
const NONCE: usize = 32;

/// The answer to "how is that name challenged by SCRAM?"
pub struct Challenge;

impl Challenge {
    /// The answer's size: four bytes of iterations, and salt and nonce behind their lengths.
    pub const LENGTH: usize = 4 + 2 + MAX_SALT + 2 + NONCE;

    /// The record; without a challenge it says that it can't be told now.
    pub fn encode(salt: Option<&Salt>) -> Option<Vec<u8>> {
        let Some(salt) = salt else {
            return Some(vec![0; Self::LENGTH]);
        };
        let mut record = salt.iterations.to_be_bytes().to_vec();
        field(&mut record, &salt.salt, MAX_SALT)?;
        field(&mut record, salt.nonce.as_bytes(), NONCE)?;
        Some(record)
    }

    /// Decodes the answer; `Some(None)` is "not now".
    pub fn decode(record: &[u8]) -> Option<Option<Salt>> {
        let (iterations, rest) = record.split_first_chunk::<4>()?;
        let (salt, rest) = take(rest, MAX_SALT)?;
        let (nonce, rest) = take(rest, NONCE)?;
        let iterations = u32::from_be_bytes(*iterations);
        let nonce = std::str::from_utf8(nonce).ok()?.to_owned();
        let salt = Salt { iterations, salt: salt.to_vec(), nonce };
        rest.is_empty().then(|| (iterations > 0).then_some(salt))
    }
}

/// The bytes of a SCRAM key, and so of a proof and a signature.
const KEY: usize = 32;

/// "Is this proof right?": what was said so far, and the proof.
pub struct Proven;

/// Two responses of a client, and the challenge between them.
const MESSAGES: usize = 3584;

impl Proven {
    /// The record's size.
    pub const LENGTH: usize = 2 + MESSAGES + 2 + KEY;

    /// The record; `None` where it does not fit.
    pub fn encode(proof: &Proof) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        field(&mut record, &proof.messages, MESSAGES)?;
        field(&mut record, &proof.proof, KEY)?;
        Some(record)
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<Proof> {
        let (messages, rest) = take(record, MESSAGES)?;
        let (proof, rest) = take(rest, KEY)?;
        let proof = Proof { messages: messages.to_vec(), proof: proof.to_vec() };
        rest.is_empty().then_some(proof)
    }
}

/// The answer to [`Proven`].
pub struct Signature;

impl Signature {
    /// The answer's size.
    pub const LENGTH: usize = 2 + KEY;

    /// The record; an empty one is no.
    pub fn encode(signature: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        field(&mut record, signature.unwrap_or_default(), KEY)?;
        Some(record)
    }

    /// Decodes the answer; `Some(None)` is no.
    pub fn decode(record: &[u8]) -> Option<Option<Vec<u8>>> {
        let (signature, rest) = take(record, KEY)?;
        rest.is_empty().then(|| Some(signature.to_vec()).filter(|bytes| !bytes.is_empty()))
    }
}

/// "Go on with this": what the session of a user who has logged in begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// Whether the child goes on to move bytes between the session and the client, under TLS.
    pub relays: bool,
    /// The tag of the command that is still to be answered; empty where there are no tags.
    pub tag: String,
    /// The input that came behind the login, not looked at by anybody.
    pub leftover: Vec<u8>,
}

impl HandOver {
    /// The record's size: a byte, and tag and input behind their lengths.
    pub const LENGTH: usize = 1 + 2 + MAX_TAG + 2 + MAX_LEFTOVER;

    /// The record; `None` where something does not fit.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(Self::LENGTH);
        record.push(u8::from(self.relays));
        field(&mut record, self.tag.as_bytes(), MAX_TAG)?;
        field(&mut record, &self.leftover, MAX_LEFTOVER)?;
        Some(record)
    }

    /// Decodes the record.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (relays, rest) = record.split_first()?;
        let relays = match relays {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (tag, rest) = take(rest, MAX_TAG)?;
        let (leftover, rest) = take(rest, MAX_LEFTOVER)?;
        // It comes back to the client, and into no other place.
        let tag = std::str::from_utf8(tag)
            .ok()
            .filter(|tag| tag.bytes().all(|b| b.is_ascii_graphic()))?;
        rest.is_empty().then(|| Self { relays, tag: tag.to_owned(), leftover: leftover.to_vec() })
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
            let (relays, tag) = (length > 0, "a".repeat(length.min(255)));
            let handed = HandOver { relays, tag, leftover: vec![b'x'; length] };
            let record = handed.encode().unwrap();
            assert_eq!(record.len(), HandOver::LENGTH);
            assert_eq!(HandOver::decode(&record), Some(handed));
        }
        for answer in [Answer::Accepted, Answer::Refused, Answer::Unavailable] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn what_scram_asks_are_records_of_one_size() {
        for length in [1, 64] {
            let salt = vec![1; length];
            let salt = Salt { iterations: 4096, salt, nonce: "n".repeat(length.min(32)) };
            let record = Challenge::encode(Some(&salt)).unwrap();
            assert_eq!(record.len(), Challenge::LENGTH);
            assert_eq!(Challenge::decode(&record), Some(Some(salt)));
            assert_eq!(Challenge::decode(&record[1..]), None);
        }
        let none = Challenge::encode(None).unwrap();
        assert_eq!(Challenge::decode(&none), Some(None));
        for length in [20, 32] {
            let proof = Proof { messages: vec![b'm'; 100 * length], proof: vec![7; length] };
            let record = Proven::encode(&proof).unwrap();
            assert_eq!(record.len(), Proven::LENGTH);
            assert_eq!(Proven::decode(&record), Some(proof));
            let record = Signature::encode(Some(&vec![7; length])).unwrap();
            assert_eq!(record.len(), Signature::LENGTH);
            assert_eq!(Signature::decode(&record), Some(Some(vec![7; length])));
        }
        let long = Proof { messages: vec![0; 3585], proof: Vec::new() };
        assert!(Proven::encode(&long).is_none() && Proven::decode(&[0]).is_none());
        assert_eq!(Signature::decode(&Signature::encode(None).unwrap()), Some(None));
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
        assert!(HandOver { leftover, ..HandOver::default() }.encode().is_none());
        let tag = "a".repeat(256);
        assert!(HandOver { tag, ..HandOver::default() }.encode().is_none());
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
        let mut handed = HandOver { tag: "a".into(), ..HandOver::default() }.encode().unwrap();
        handed[3] = b'\n';
        assert!(HandOver::decode(&handed).is_none(), "a tag that is none");
        handed[3] = b'a';
        handed[0] = 2;
        assert!(HandOver::decode(&handed).is_none());
    }
}
