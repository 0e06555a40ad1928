//! Password hashes: what crypt(3), Dovecot and their kin write down instead of a password.
//!
//! A [`enum@Hash`] that exists can be verified within bounds: its form and its cost were looked at when
//! it was parsed, so that a slip in a users file can't keep a process busy for hours.

use std::fmt;
use std::io;
use std::num::NonZeroU32;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc;
use base64ct::{Base64, Encoding};
use sha_crypt::ShaCrypt;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use yescrypt::{PasswordHasher, Yescrypt};

use crate::sasl::Keys;
use crate::sasl::scram;

/// The most memory that one verification may take, in KiB.
const MAX_MEMORY: u64 = 256 * 1024;

/// The most memory that Argon2 may pass over, in KiB: memory times passes.
const MAX_PASSES: u64 = 1024 * 1024;

/// The most rounds of SHA-crypt: some seconds.
const MAX_ROUNDS: u32 = 5_000_000;

/// The largest cost of bcrypt, the logarithm of its rounds: some seconds.
const MAX_BCRYPT_COST: u32 = 16;

/// What a password is held against.
#[derive(Clone)]
pub enum Hash {
    /// No password is right: an empty field, or one that begins with `!` or `*`.
    Locked,
    /// `{PLAIN}`: the password itself.
    Plain(String),
    /// `$y$`: yescrypt.
    Yescrypt(String),
    /// `$5$` and `$6$`: SHA-256-crypt and SHA-512-crypt.
    ShaCrypt(String),
    /// `$2a$`, `$2b$` and `$2y$`: bcrypt.
    Bcrypt(String),
    /// `$argon2id$`.
    Argon2(Box<phc::PasswordHash>),
    /// `{SCRAM-SHA-256}` and `{SCRAM-SHA-1}`: keys, which any password can be held against.
    Scram(Keys),
    /// `{SSHA256}`: digest and salt, in one go. Enough for what is drawn by lot, and for nothing
    /// that somebody has thought up.
    Ssha256 {
        /// SHA-256 of password and salt.
        digest: Vec<u8>,
        /// The salt.
        salt: Vec<u8>,
    },
}

/// Bytes of a new salt.
const SALT: usize = 16;

/// Bytes of a SHA-256.
const SHA256: usize = 32;

/// The iterations of new SCRAM keys: a fifth of a second.
const ITERATIONS: NonZeroU32 = match NonZeroU32::new(100_000) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};

/// How a new password is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// yescrypt, the strongest where the file is stolen.
    Yescrypt,
    /// SCRAM keys, with which clients need not say the password.
    Scram(scram::Hash),
    /// For passwords that were drawn by lot.
    Ssha256,
}

impl Scheme {
    /// The field of a users file for this password.
    pub fn field(self, password: &[u8]) -> io::Result<String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        Ok(match self {
            Self::Yescrypt => {
                let hash = Yescrypt::default().hash_password_with_salt(password, &salt);
                format!("{{CRYPT}}{}", hash.map_err(io::Error::other)?)
            }
            Self::Scram(hash) => {
                let name = match hash {
                    scram::Hash::Sha1 => "SCRAM-SHA-1",
                    scram::Hash::Sha256 => "SCRAM-SHA-256",
                };
                format!("{{{name}}}{}", Keys::derive(hash, ITERATIONS, &salt, password))
            }
            Self::Ssha256 => {
                let mut bytes = ssha256(password, &salt);
                bytes.extend_from_slice(&salt);
                format!("{{SSHA256}}{}", Base64::encode_string(&bytes))
            }
        })
    }
}

fn ssha256(password: &[u8], salt: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(password).chain_update(salt).finalize().to_vec()
}

#[cfg(test)]
thread_local! {
    /// The kinds of hashes that this thread has held passwords against, for a test of how long that
    /// takes.
    pub(super) static COMPUTED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl fmt::Debug for Hash {
    /// The kind only: a hash is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "Locked",
            Self::Plain(_) => "Plain",
            Self::Yescrypt(_) => "Yescrypt",
            Self::ShaCrypt(_) => "ShaCrypt",
            Self::Bcrypt(_) => "Bcrypt",
            Self::Argon2(_) => "Argon2",
            Self::Scram(_) => "Scram",
            Self::Ssha256 { .. } => "Ssha256",
        })
    }
}

impl Hash {
    /// Parses a password field: `{SCHEME}hash`, or a hash whose kind is told by its `$id$`. The
    /// error says what is wrong without telling the hash.
    pub fn parse(field: &str) -> Result<Self, String> {
        let Some((scheme, text)) = field.strip_prefix('{').and_then(|f| f.split_once('}')) else {
            return crypt(field);
        };
        let wanted = match scheme.to_ascii_uppercase().as_str() {
            "PLAIN" if text.is_empty() => return Ok(Self::Locked),
            "PLAIN" => return Ok(Self::Plain(text.to_owned())),
            "SCRAM-SHA-1" | "SCRAM-SHA-256" | "SSHA256" if text.is_empty() => {
                return Ok(Self::Locked);
            }
            "SCRAM-SHA-1" => return Keys::parse(scram::Hash::Sha1, text).map(Self::Scram),
            "SCRAM-SHA-256" => return Keys::parse(scram::Hash::Sha256, text).map(Self::Scram),
            "SSHA256" => {
                let bytes = Base64::decode_vec(text).unwrap_or_default();
                return match bytes.split_at_checked(SHA256) {
                    Some((digest, salt)) if !salt.is_empty() => {
                        Ok(Self::Ssha256 { digest: digest.to_vec(), salt: salt.to_vec() })
                    }
                    _ => Err("the SSHA256 hash is damaged".into()),
                };
            }
            "CRYPT" => "$",
            "SHA256-CRYPT" => "$5$",
            "SHA512-CRYPT" => "$6$",
            "BLF-CRYPT" => "$2",
            "ARGON2ID" => "$argon2id$",
            _ => {
                return Err(format!(
                    "password scheme {{{scheme}}} is not known; known are PLAIN, CRYPT, \
                     SHA256-CRYPT, SHA512-CRYPT, BLF-CRYPT, ARGON2ID, SCRAM-SHA-256, SCRAM-SHA-1 \
                     and SSHA256"
                ));
            }
        };
        match crypt(text)? {
            Self::Locked => Ok(Self::Locked),
            hash if text.starts_with(wanted) => Ok(hash),
            _ => Err(format!("the hash is of another kind than {{{scheme}}}")),
        }
    }

    /// A hash of no known password, of the kind that Debian gives new accounts: verifying against
    /// it takes the usual time.
    pub fn stand_in() -> Self {
        Self::Yescrypt(
            "$y$j9T$xFw/0XlL2VMDPpZXaMPm7/$QzF5I3sTTN40ZSVSx9uGVSdfUMSvwWnNqKTveqBebU8".into(),
        )
    }

    /// Whether this is the password. An empty one never is.
    pub fn verify(&self, password: &[u8]) -> bool {
        #[cfg(test)]
        COMPUTED.with_borrow_mut(|all| all.push(format!("{self:?}")));
        let right = match self {
            Self::Locked => false,
            // Digests, so that not even the length shows in the time.
            Self::Plain(text) => Sha256::digest(text).ct_eq(&Sha256::digest(password)).into(),
            Self::Yescrypt(text) => {
                Yescrypt::default().verify_password(password, text.as_str()).is_ok()
            }
            Self::ShaCrypt(text) => {
                ShaCrypt::default().verify_password(password, text.as_str()).is_ok()
            }
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Self::Scram(keys) => keys.verify(password),
            Self::Ssha256 { digest, salt } => ssha256(password, salt).ct_eq(digest).into(),
        };
        right && !password.is_empty()
    }
}

/// A hash as crypt(3) has it, or a locked field.
fn crypt(text: &str) -> Result<Hash, String> {
    if text.is_empty() || text.starts_with(['!', '*']) {
        return Ok(Hash::Locked);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a password hash is printable ASCII".into());
    }
    let mut parts = text.split('$').skip(1);
    match parts.next() {
        Some("y") => yescrypt(text, &parts.collect::<Vec<_>>()),
        Some("5") => sha_crypt(text, &parts.collect::<Vec<_>>(), 43),
        Some("6") => sha_crypt(text, &parts.collect::<Vec<_>>(), 86),
        Some("2a" | "2b" | "2y") => bcrypt(text),
        Some("argon2id") => argon2(text),
        Some(kind) => Err(format!(
            "password hashes of the kind ${kind}$ are not known; known are $y$, $6$, $5$, $2b$ \
             and $argon2id$"
        )),
        None => Err("a password hash begins with $; a plain password is written {PLAIN}".into()),
    }
}

fn too_costly(what: &str) -> String {
    format!("the password hash costs too much: {what}")
}

fn yescrypt(text: &str, parts: &[&str]) -> Result<Hash, String> {
    let damaged = || "the yescrypt hash is damaged".to_owned();
    // An output cut short would match by chance, an empty one always.
    let [parameters, _salt, output] = parts else {
        return Err(damaged());
    };
    if output.len() != 43 {
        return Err(damaged());
    }
    let parameters: yescrypt::Params = parameters.parse().map_err(|_| damaged())?;
    let (n, r) = (parameters.n(), parameters.r());
    let memory = n.checked_mul(u64::from(r)).map(|blocks| blocks / 8);
    if memory.is_none_or(|memory| memory > MAX_MEMORY) {
        return Err(too_costly("yescrypt may take 256 MiB"));
    }
    // What crypt_gensalt(3) never makes would multiply the time.
    if yescrypt::Params::new(yescrypt::Mode::default(), n, r, 1) != Ok(parameters) {
        return Err("yescrypt is known with its usual flavour and no parallelism only".into());
    }
    Ok(Hash::Yescrypt(text.to_owned()))
}

fn sha_crypt(text: &str, parts: &[&str], length: usize) -> Result<Hash, String> {
    let (rounds, output) = match parts {
        [_salt, output] => (None, output),
        [rounds, _salt, output] => (Some(rounds), output),
        _ => return Err("the SHA-crypt hash is damaged".into()),
    };
    if output.len() != length {
        return Err("the SHA-crypt hash is damaged".into());
    }
    if let Some(rounds) = rounds {
        let rounds = rounds.strip_prefix("rounds=").and_then(|n| n.parse().ok());
        match rounds {
            Some(1000..=MAX_ROUNDS) => {}
            Some(0..1000) => return Err("SHA-crypt has 1000 rounds or more".into()),
            Some(_) => return Err(too_costly("SHA-crypt may take 5000000 rounds")),
            None => return Err("the SHA-crypt hash is damaged".into()),
        }
    }
    Ok(Hash::ShaCrypt(text.to_owned()))
}

fn bcrypt(text: &str) -> Result<Hash, String> {
    let parts: bcrypt::HashParts =
        text.parse().map_err(|_| "the bcrypt hash is damaged".to_owned())?;
    if parts.get_cost() > MAX_BCRYPT_COST {
        return Err(too_costly("bcrypt may have cost 16"));
    }
    Ok(Hash::Bcrypt(text.to_owned()))
}

fn argon2(text: &str) -> Result<Hash, String> {
    let damaged = || "the Argon2 hash is damaged".to_owned();
    let hash = phc::PasswordHash::new(text).map_err(|_| damaged())?;
    let parameters = argon2::Params::try_from(&hash).map_err(|_| damaged())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(damaged());
    }
    let memory = u64::from(parameters.m_cost());
    if memory > MAX_MEMORY {
        return Err(too_costly("Argon2 may take m=262144 (256 MiB)"));
    }
    if memory * u64::from(parameters.t_cost()) > MAX_PASSES {
        return Err(too_costly("Argon2 may have m times t of 1048576"));
    }
    Ok(Hash::Argon2(Box::new(hash)))
}
