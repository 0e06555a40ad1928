//! The files that say who a server is, pairs of a certificate chain and its private key, and the
//! keys of its session tickets.
//!
//! A listening parent holds the files as bytes, and reads them anew when they have changed, so that
//! a renewal needs no restart. It is root and looks into none: PEM is parsed by the process that
//! speaks TLS ([`super::server`]). It makes the keys of tickets, so that all sessions have the same,
//! and makes new ones in time.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::tickets::Keys;
use super::validity::Validity;
use crate::config::Files;

/// The largest file that is read, in bytes: more than any chain or key has.
const MAX: u64 = 1024 * 1024;

/// Who the server is.
pub struct Identity {
    pairs: Vec<Pair>,
    tickets: Option<Keys>,
}

/// Certificate chain and private key, as bytes.
pub(super) struct Pair {
    certificate: Pem,
    key: Pem,
}

/// What is wrong with one of the files, and what is wanted.
#[derive(Debug)]
pub enum Error {
    /// It can't be opened or read.
    Unreadable(PathBuf, io::Error),
    /// It is a directory, a device, or too large.
    NotPem(PathBuf),
    /// No certificate is in it.
    NoCertificate(PathBuf),
    /// No private key is in it that could be used.
    NoKey(PathBuf),
    /// The key is another certificate's.
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The TLS library takes something of it amiss.
    Unusable(PathBuf, String),
    /// A certificate in it is good at another time only.
    NotGood {
        /// The file.
        certificate: PathBuf,
        /// Which one of the chain: 1 is the server's own.
        number: usize,
        /// When it is good; `None` where that can't be read.
        validity: Option<Validity>,
    },
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: can't be read: {error}; a PEM file is wanted", path.display())
            }
            Self::NotPem(path) => {
                write!(f, "{}: a PEM file of at most {MAX} bytes is wanted", path.display())
            }
            Self::NoCertificate(path) => {
                write!(f, "{}: has no certificate; a chain in PEM is wanted", path.display())
            }
            Self::NoKey(path) => write!(
                f,
                "{}: has no private key; one in PEM without a passphrase is wanted",
                path.display()
            ),
            Self::Mismatch { certificate, key } => write!(
                f,
                "{}: is not the key of the first certificate in {}; name a pair",
                key.display(),
                certificate.display()
            ),
            Self::Unusable(path, what) => {
                write!(f, "{}: can't be used: {what}", path.display())
            }
            Self::NotGood { certificate, number, validity } => {
                write!(f, "{}: certificate {number} ", certificate.display())?;
                match validity {
                    Some(when) => write!(f, "is good {when} only; renew it"),
                    None => f.write_str("does not tell until when it is good"),
                }
            }
        }
    }
}

impl Error {
    /// The file that is to be mended.
    pub fn file(&self) -> &Path {
        match self {
            Self::Unreadable(path, _)
            | Self::NotPem(path)
            | Self::NoCertificate(path)
            | Self::NoKey(path)
            | Self::Unusable(path, _)
            | Self::Mismatch { key: path, .. }
            | Self::NotGood { certificate: path, .. } => path,
        }
    }
}

impl Identity {
    /// What a section names, files of certificates and of their keys, not read yet; `None` where it
    /// names nothing.
    pub fn of(certificates: &Files, keys: &Files) -> Option<Self> {
        let files = certificates.iter().zip(keys.iter());
        let pairs = files.map(|(certificate, key)| Pair {
            certificate: Pem::new(certificate),
            key: Pem::new(key),
        });
        let pairs: Vec<Pair> = pairs.collect();
        (!pairs.is_empty()).then_some(Self { pairs, tickets: None })
    }

    /// Gives out session tickets from now on, for a process that many sessions come from.
    pub fn issue_tickets(&mut self) -> io::Result<()> {
        self.tickets = Some(Keys::new()?);
        Ok(())
    }

    /// Reads what has changed since the last call, and makes new keys for tickets in time. A file
    /// that can't be read now leaves what was read before in use, and is told once until it changes
    /// again.
    pub fn refresh(&mut self) -> Result<(), Error> {
        self.tickets.iter_mut().for_each(Keys::rotate);
        // All are read; the first error is told.
        self.read().into_iter().next().map_or(Ok(()), Err)
    }

    /// Reads what has changed since the last call; what can't be read.
    pub fn read(&mut self) -> Vec<Error> {
        let files = self.pairs.iter_mut().flat_map(|pair| [&mut pair.certificate, &mut pair.key]);
        files.filter_map(|file| file.refresh().err()).collect()
    }

    /// Overwrites all that is secret, in a process that was forked for something else.
    pub fn forget(&mut self) {
        for pair in &mut self.pairs {
            pair.certificate.forget();
            pair.key.forget();
        }
        self.tickets.iter_mut().for_each(Keys::forget);
        self.tickets = None;
    }

    /// What tells whether something has changed since.
    pub fn state(&self) -> State {
        let files = self.pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        State(files.map(|file| file.seen).collect(), self.tickets.as_ref().map(Keys::made))
    }

    pub(super) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    pub(super) fn tickets(&self) -> Option<&Keys> {
        self.tickets.as_ref()
    }
}

impl Pair {
    /// The file of the certificate chain, and its bytes.
    pub(super) fn certificate(&self) -> (&Path, &[u8]) {
        (&self.certificate.path, &self.certificate.bytes)
    }

    /// The file of the key, and its bytes.
    pub(super) fn key(&self) -> (&Path, &[u8]) {
        (&self.key.path, &self.key.bytes)
    }
}

/// One of the files.
struct Pem {
    path: PathBuf,
    bytes: Vec<u8>,
    /// What the file looked like when it was last read, or tried.
    seen: Option<Look>,
}

/// The state of all files and of the keys for tickets.
#[derive(PartialEq, Eq)]
pub struct State(Vec<Option<Look>>, Option<Instant>);

/// What tells one state of a file from another: where it is, its size, and its times. An error
/// number where it could not be looked at.
type Look = Result<[i128; 5], Option<i32>>;

impl Pem {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: Vec::new(), seen: None }
    }

    fn refresh(&mut self) -> Result<(), Error> {
        let look = look(&self.path);
        if self.seen == Some(look) {
            return Ok(());
        }
        // Looked at before it is read: a change in between is seen by the next look.
        self.seen = Some(look);
        let bytes = self.read()?;
        self.forget();
        self.bytes = bytes;
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>, Error> {
        let unreadable = |error| Error::Unreadable(self.path.clone(), error);
        // Whatever stands there, opening it does not wait.
        let flags = nix::libc::O_NONBLOCK;
        let opened = File::options().read(true).custom_flags(flags).open(&self.path);
        let file = opened.map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() || found.len() > MAX {
            return Err(Error::NotPem(self.path.clone()));
        }
        // All at once: a buffer that grows leaves pieces of a key in memory that is free.
        let room = usize::try_from(found.len()).unwrap_or_default() + 1;
        let mut bytes = Vec::with_capacity(room);
        file.take(found.len()).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn forget(&mut self) {
        self.bytes.fill(0);
        // So that it is really done, although nobody looks at the bytes again.
        std::hint::black_box(&self.bytes);
        self.bytes = Vec::new();
    }
}

fn look(path: &Path) -> Look {
    let found = fs::metadata(path).map_err(|error| error.raw_os_error())?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Identity;
    use crate::config::Files;

    fn bytes(identity: &Identity) -> (&[u8], &[u8]) {
        (identity.pairs[0].certificate().1, identity.pairs[0].key().1)
    }

    #[test]
    fn files_are_read_anew_when_they_change_and_kept_when_they_are_gone() {
        let place = tempfile::tempdir().unwrap();
        let (certificate, key) = (place.path().join("chain"), place.path().join("key"));
        let mut identity = Identity::of(&certificate.clone().into(), &key.clone().into()).unwrap();
        fs::write(&certificate, "one").unwrap();
        let told = identity.refresh().unwrap_err().to_string();
        assert!(told.contains("/key: can't be read"), "{told}");
        assert!(identity.refresh().is_ok(), "it is told once");
        fs::write(&key, "two").unwrap();
        identity.refresh().unwrap();
        assert_eq!(bytes(&identity), (&b"one"[..], &b"two"[..]));
        // As a renewal does it: another file takes the name.
        fs::write(place.path().join("new"), "six").unwrap();
        fs::rename(place.path().join("new"), &key).unwrap();
        identity.refresh().unwrap();
        assert_eq!(bytes(&identity), (&b"one"[..], &b"six"[..]));
        fs::remove_file(&key).unwrap();
        assert!(identity.refresh().is_err());
        assert_eq!(bytes(&identity), (&b"one"[..], &b"six"[..]));
        identity.forget();
        assert_eq!(bytes(&identity), (&b""[..], &b""[..]));
    }

    #[test]
    fn what_can_not_be_pem_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("large");
        fs::File::create(&file).unwrap().set_len(super::MAX + 1).unwrap();
        let mut identity = Identity::of(&file.into(), &place.path().to_owned().into()).unwrap();
        assert!(identity.refresh().is_err());
        assert_eq!(bytes(&identity), (&b""[..], &b""[..]));
        assert!(Identity::of(&Files::default(), &Files::default()).is_none());
    }
}
