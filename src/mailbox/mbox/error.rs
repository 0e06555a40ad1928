//! What can go wrong with a mailbox, in the words of its owner and of the operator.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why an operation on a mailbox failed. In each case the mailbox is as it was.
#[derive(Debug)]
pub enum Error {
    /// Other programs held a lock all the time.
    Locked {
        /// The mailbox.
        path: PathBuf,
        /// Which lock, and who where it is known.
        held: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The file or its directory is not what a mailbox may be.
    Refused {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The dot lock can't be made, neither by us nor by the helper.
    Dotlock {
        /// The mailbox.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The directory of the journals can't be used: without them nothing is written.
    Index {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What was tried, or is wrong.
        why: String,
        /// What the system said, if it did.
        source: Option<io::Error>,
    },
    /// The index of a mailbox is damaged, or gone: it is to be made anew from the mailbox.
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system failed.
    Io {
        /// The mailbox; empty where only the caller knows it.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The mailbox would be larger than it may be.
    OverQuota {
        /// The mailbox.
        path: PathBuf,
        /// How large it may be, in bytes.
        quota: u64,
    },
    /// A message is not there any more, or not as it was.
    Changed,
    /// The mailbox has more messages than are listed.
    TooMany(usize),
    /// Whoever was given the message failed to take it.
    Sink(io::Error),
}

impl Error {
    /// Whether the mailbox is not there: it was never made, or was renamed or removed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(in crate::mailbox) fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing, source }
    }

    pub(super) fn reading(source: io::Error) -> Self {
        Self::io(Path::new(""), "be read", source)
    }

    /// Puts the path in where it was not known.
    pub(super) fn at(self, name: &Path) -> Self {
        match self {
            Self::Io { path, doing, source } if path.as_os_str().is_empty() => {
                Self::io(name, doing, source)
            }
            other => other,
        }
    }

    /// The system's error number, where there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. }
            | Self::Sink(source)
            | Self::Index { source: Some(source), .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path, held, waited } => {
                let (path, seconds) = (path.display(), waited.as_secs());
                write!(f, "{path} was locked by another program for {seconds} s ({held})")
            }
            Self::Refused { path, why } => write!(f, "{} {why}", path.display()),
            Self::Dotlock { path, why } => {
                let path = path.display();
                write!(
                    f,
                    "can't make {path}.lock: {why}; install the dotlock helper setgid mail, \
                     or take \"dotlock\" out of [mailbox] locks"
                )
            }
            Self::Index { path, why, source } => {
                write!(f, "{} {why}", path.display())?;
                if let Some(source) = source {
                    write!(f, ": {source}")?;
                }
                write!(
                    f,
                    " (a mailbox is not changed without its journal, for which [paths] index is)"
                )
            }
            Self::Damaged { path, why } => write!(f, "{} is damaged: {why}", path.display()),
            Self::Io { path, doing, source } => {
                write!(f, "{} can't {doing}: {source}", path.display())
            }
            Self::OverQuota { path, quota } => {
                let name = path.file_name().unwrap_or(path.as_os_str()).display();
                write!(
                    f,
                    "mailbox {name} is full: with this message it would be larger than {quota} bytes"
                )
            }
            Self::Changed => write!(
                f,
                "the message has been changed or removed, or its mailbox numbered anew, meanwhile"
            ),
            Self::TooMany(most) => write!(f, "the mailbox has more than {most} messages"),
            Self::Sink(error) => write!(f, "the message can't be passed on: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. }
            | Self::Sink(source)
            | Self::Index { source: Some(source), .. } => Some(source),
            _ => None,
        }
    }
}
