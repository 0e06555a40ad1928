//! SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, and the server that it
//! knows the client's keys, and neither says them.
//!
//! ```text
//! client ── n,,n=user,r=nonce ──►                          First
//!        ◄── r=nonce+ours,s=salt,i=iterations ──           Challenged
//!        ── c=binding,r=nonce+ours,p=proof ──►             Proven
//!        ◄── v=signature ──                                Told
//!        ── (empty) ──►                                    accepted
//! ```
//!
//! Whether the name was known shows nowhere: an unknown one has keys that no password fits.

use std::fmt;
use std::num::NonZeroU32;

use base64ct::{Base64, Encoding};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use super::{Answer, Facts, Failure, Mechanism, Question, Step, plain};

/// The fewest iterations that keys may have (RFC 7677 section 4).
pub const MIN_ITERATIONS: u32 = 4096;

/// The most: some seconds of a client's time, and ours.
pub const MAX_ITERATIONS: u32 = 2_000_000;

/// The longest salt, in bytes.
pub const MAX_SALT: usize = 64;

/// The longest nonce of a client, in bytes.
const MAX_NONCE: usize = 256;

/// The hash functions that SCRAM is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// RFC 5802.
    Sha1,
    /// RFC 7677.
    Sha256,
}

impl Hash {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// Bytes of a digest, and so of each key.
    pub fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn digest(self, data: &[u8]) -> digest::Digest {
        digest::digest(
            match self {
                Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                Self::Sha256 => &digest::SHA256,
            },
            data,
        )
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data)
    }
}

/// What is stored of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The hash function.
    pub hash: Hash,
    /// How often it is applied.
    pub iterations: u32,
    /// What makes equal passwords different.
    pub salt: Vec<u8>,
    /// `StoredKey := H(ClientKey)`
    pub stored: Vec<u8>,
    /// `ServerKey := HMAC(SaltedPassword, "Server Key")`
    pub server: Vec<u8>,
}

impl fmt::Debug for Keys {
    /// Keys are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.hash)
    }
}

impl fmt::Display for Keys {
    /// As Dovecot writes them: `iterations,salt,StoredKey,ServerKey`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Base64::encode_string;
        let (salt, stored, server) = (text(&self.salt), text(&self.stored), text(&self.server));
        write!(f, "{},{salt},{stored},{server}", self.iterations)
    }
}

impl Keys {
    /// Reads what `Display` writes; the error says what is wrong without telling a key.
    pub fn parse(hash: Hash, text: &str) -> Result<Self, String> {
        let damaged =
            || "the SCRAM keys are damaged: iterations,salt,StoredKey,ServerKey".to_owned();
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored, server] = parts.as_slice() else {
            return Err(damaged());
        };
        let bytes = |text: &str| Base64::decode_vec(text).map_err(|_| damaged());
        let is_number = iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|_| is_number).ok_or_else(damaged)?;
        if iterations > MAX_ITERATIONS {
            let most = format!("SCRAM may take {MAX_ITERATIONS} iterations");
            return Err(format!("the password hash costs too much: {most}"));
        }
        if iterations < MIN_ITERATIONS {
            return Err(format!("SCRAM has {MIN_ITERATIONS} iterations or more"));
        }
        let (salt, stored, server) = (bytes(salt)?, bytes(stored)?, bytes(server)?);
        let fits = (1..=MAX_SALT).contains(&salt.len());
        if !fits || stored.len() != hash.length() || server.len() != hash.length() {
            return Err(damaged());
        }
        Ok(Self { hash, iterations, salt, stored, server })
    }

    /// The keys of a password.
    pub fn derive(hash: Hash, iterations: NonZeroU32, salt: &[u8], password: &[u8]) -> Self {
        let algorithm = match hash {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut salted = vec![0; hash.length()];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut salted);
        let client = hash.hmac(&salted, b"Client Key");
        let server = hash.hmac(&salted, b"Server Key");
        Self {
            hash,
            iterations: iterations.get(),
            salt: salt.to_vec(),
            stored: hash.digest(client.as_ref()).as_ref().to_vec(),
            server: server.as_ref().to_vec(),
        }
    }

    /// The keys that a name has which has none: of `secret`, so that they are the same each time,
    /// and of a form that `like` has.
    pub fn stand_in(secret: &[u8], name: &str, hash: Hash, like: Option<&Self>) -> Self {
        let part = |what: &str| {
            let data = format!("{what}\0{name}");
            Hash::Sha256.hmac(secret, data.as_bytes()).as_ref().to_vec()
        };
        let (mut salt, mut stored, mut server) = (part("salt"), part("stored"), part("server"));
        salt.extend(part("more salt"));
        salt.truncate(like.map_or(16, |keys| keys.salt.len()));
        stored.truncate(hash.length());
        server.truncate(hash.length());
        let iterations = like.map_or(MIN_ITERATIONS, |keys| keys.iterations);
        Self { hash, iterations, salt, stored, server }
    }

    /// What a client needs to know of them to make its proof; `nonce` is our part of it.
    pub fn salt(&self, nonce: String) -> Salt {
        Salt { iterations: self.iterations, salt: self.salt.clone(), nonce }
    }

    /// What proves to the client that these are its keys, where it has proven to know the password.
    /// `nonce` is what it was to include: a proof for another exchange is none.
    pub fn check(&self, proof: &Proof, nonce: &str) -> Option<Vec<u8>> {
        let signature = self.hash.hmac(&self.stored, &proof.messages);
        let client: Vec<u8> =
            proof.proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let is_right: bool = self.hash.digest(&client).as_ref().ct_eq(&self.stored).into();
        // Shorter, it would be compared in part.
        let is_whole = proof.proof.len() == self.hash.length();
        let is_ours = memchr::memmem::find(&proof.messages, nonce.as_bytes()).is_some();
        let sign = || self.hash.hmac(&self.server, &proof.messages).as_ref().to_vec();
        (is_right && is_whole && is_ours && !nonce.is_empty()).then(sign)
    }

    /// Whether this is the password.
    pub fn verify(&self, password: &[u8]) -> bool {
        let Some(iterations) = NonZeroU32::new(self.iterations) else {
            return false;
        };
        let given = Self::derive(self.hash, iterations, &self.salt, password);
        given.stored.ct_eq(&self.stored).into()
    }
}

/// What a client is challenged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salt {
    /// How often the hash function is applied.
    pub iterations: u32,
    /// What makes equal passwords different.
    pub salt: Vec<u8>,
    /// Our part of the nonce: printable ASCII without a comma, new each time.
    pub nonce: String,
}

/// What a client has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// `AuthMessage`: what both sides have said so far.
    pub messages: Vec<u8>,
    /// `ClientProof`
    pub proof: Vec<u8>,
}

/// What names a TLS connection (RFC 5056): how, and the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `tls-exporter` (RFC 9266) or `tls-server-end-point` (RFC 5929).
    pub name: &'static str,
    /// The connection's bytes for it.
    pub data: Vec<u8>,
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    user: String,
    nonce: String,
    /// `client-first-message-bare`
    bare: String,
    /// What the last message must bind: `gs2-header` and the connection's bytes.
    binding: Vec<u8>,
}

impl First {
    /// ```text
    /// client-first-message      = gs2-header client-first-message-bare      ; RFC 5802 section 7
    /// client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]
    /// ```
    ///
    /// Nobody acts as somebody else here: an authzid must be the name.
    pub(super) fn parse(
        message: &[u8],
        mechanism: Mechanism,
        facts: &Facts,
    ) -> Result<Self, Failure> {
        let (first, authzid) = Self::read(message, mechanism, facts).ok_or(Failure::Malformed)?;
        let is_own = authzid.is_none_or(|authzid| authzid == first.user);
        // Long names, too, are no mistake.
        plain::name(first.user.as_bytes())?;
        if is_own { Ok(first) } else { Err(Failure::Refused) }
    }

    /// The message, and the authzid that is in it.
    fn read(message: &[u8], mechanism: Mechanism, facts: &Facts) -> Option<(Self, Option<String>)> {
        let message = std::str::from_utf8(message).ok()?;
        let (flag, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        let header = message.strip_suffix(bare)?;
        let mut binding = header.as_bytes().to_vec();
        match (flag.strip_prefix("p="), mechanism) {
            (Some(name), Mechanism::ScramSha256Plus) => {
                let bound = facts.bindings.iter().find(|binding| binding.name == name)?;
                binding.extend_from_slice(&bound.data);
            }
            // Whoever says "y" has seen no PLUS among our mechanisms. Where it was there, somebody
            // in between has taken it away.
            (None, Mechanism::ScramSha256 | Mechanism::ScramSha1)
                if flag == "n" || (flag == "y" && !facts.allow(Mechanism::ScramSha256Plus)) => {}
            _ => return None,
        }
        let mut attributes = bare.split(',');
        let user = saslname(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce))?;
        let authzid = match authzid.strip_prefix("a=") {
            Some(name) => Some(saslname(name)?),
            None if authzid.is_empty() => None,
            None => return None,
        };
        let (nonce, bare) = (nonce.to_owned(), bare.to_owned());
        Some((Self { user, nonce, bare, binding }, authzid))
    }

    /// The name.
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// `nonce = "r=" c-nonce ; printable = %x21-2B / %x2D-7E`
fn is_nonce(text: &str) -> bool {
    (1..=MAX_NONCE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// `saslname = 1*(value-safe-char / "=2C" / "=3D")`
fn saslname(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(sign);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

/// Where an exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// How to challenge is asked.
    First(First, Hash),
    /// The client has its challenge.
    Challenged {
        first: First,
        /// Both nonces.
        nonce: String,
        /// `server-first-message`
        challenge: String,
    },
    /// Whether its proof is right is asked.
    Proven { user: String },
    /// It was not right.
    Wrong,
    /// All was said but the client's last word.
    Told { user: String },
}

type Next = (Option<State>, Step);

fn failed(failure: Failure) -> Next {
    (None, Step::Failed(failure))
}

impl State {
    pub(super) fn answer(self, answer: Answer) -> Next {
        match (self, answer) {
            (Self::First(first, _), Answer::Salt(Salt { iterations, salt, nonce: ours }))
                if is_nonce(&ours) =>
            {
                let nonce = format!("{}{ours}", first.nonce);
                let salt = Base64::encode_string(&salt);
                let challenge = format!("r={nonce},s={salt},i={iterations}");
                let step = Step::Challenge(challenge.clone().into());
                (Some(Self::Challenged { first, nonce, challenge }), step)
            }
            (Self::Proven { user }, Answer::Signature(signature)) => {
                let signature = format!("v={}", Base64::encode_string(&signature));
                (Some(Self::Told { user }), Step::Challenge(signature.into()))
            }
            _ => failed(Failure::Refused),
        }
    }

    pub(super) fn respond(self, response: &[u8]) -> Next {
        match self {
            Self::Challenged { first, nonce, challenge } => {
                let Some(last) = Final::parse(response) else {
                    return failed(Failure::Malformed);
                };
                if last.binding != first.binding || last.nonce != nonce {
                    return (Some(Self::Wrong), Step::Ask(Question::Proven(false)));
                }
                let messages = format!("{},{challenge},{}", first.bare, last.bare).into_bytes();
                let proof = Proof { messages, proof: last.proof };
                (Some(Self::Proven { user: first.user }), Step::Ask(Question::Proof(proof)))
            }
            Self::Told { user } if response.is_empty() => (None, Step::Accepted(user)),
            _ => failed(Failure::Malformed),
        }
    }
}

/// The client's last message.
struct Final<'a> {
    binding: Vec<u8>,
    nonce: &'a str,
    proof: Vec<u8>,
    /// `client-final-message-without-proof`
    bare: &'a str,
}

impl<'a> Final<'a> {
    /// ```text
    /// client-final-message-without-proof = channel-binding "," nonce ["," extensions]
    /// client-final-message               = client-final-message-without-proof "," proof
    /// ```
    fn parse(message: &'a [u8]) -> Option<Self> {
        let message = std::str::from_utf8(message).ok()?;
        let (bare, proof) = message.rsplit_once(",p=")?;
        let mut attributes = bare.split(',');
        let binding = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let bytes = |text| Base64::decode_vec(text).ok();
        Some(Self { binding: bytes(binding)?, nonce, proof: bytes(proof)?, bare })
    }
}
