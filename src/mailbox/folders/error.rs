//! Why something can't be done with a folder, as IMAP has codes for it (RFC 5530).

use std::fmt;
use std::io;

use super::name::Name;
use crate::mailbox;

/// Why an operation failed. Unless said otherwise, everything is as before.
#[derive(Debug)]
pub enum Error {
    /// `NONEXISTENT`
    NonExistent(Name),
    /// `ALREADYEXISTS`
    AlreadyExists(Name),
    /// `HASCHILDREN`
    HasChildren(Name),
    /// `CANNOT`: it never will be possible.
    Cannot(String),
    /// `USEATTR` (RFC 6154)
    UseAttribute(String),
    /// `NOPERM`
    NoPermission(String),
    /// `INUSE`: others held a lock all the time.
    InUse(String),
    /// `LIMIT`
    Limit(String),
    /// The system failed; trying again may help.
    Failed(String),
}

impl Error {
    /// What the system said to `doing` with `what`.
    pub(super) fn io(what: impl fmt::Display, doing: &str, error: &io::Error) -> Self {
        let text = format!("{what} can't {doing}: {error}");
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NoPermission(text)
            }
            io::ErrorKind::CrossesDevices => {
                Self::Cannot(format!("{what} can't {doing}: it would leave its file system"))
            }
            io::ErrorKind::InvalidFilename => Self::Limit(text),
            _ => Self::Failed(text),
        }
    }
}

impl From<mailbox::Error> for Error {
    fn from(error: mailbox::Error) -> Self {
        let text = error.to_string();
        match &error {
            mailbox::Error::Locked { .. } => Self::InUse(text),
            mailbox::Error::Refused { .. } => Self::Cannot(text),
            _ => match error.os_error().map(io::Error::from_raw_os_error) {
                Some(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Self::NoPermission(text)
                }
                _ => Self::Failed(text),
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonExistent(name) => write!(f, "there is no folder {name}"),
            Self::AlreadyExists(name) => write!(f, "there is a folder {name} already"),
            Self::HasChildren(name) => write!(f, "there are folders below {name}"),
            Self::Cannot(text)
            | Self::UseAttribute(text)
            | Self::NoPermission(text)
            | Self::InUse(text)
            | Self::Limit(text)
            | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
