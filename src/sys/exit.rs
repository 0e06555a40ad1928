//! Exit statuses of sysexits(3).
//!
//! They are a contract: `local-deliver`'s and `sendmail`'s callers decide by them whether to try
//! again, to bounce, or to be content.

use std::process::ExitCode;

/// An exit status as sysexits(3) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The command line is wrong.
    Usage = 64,
    /// The message or other input is wrong.
    DataErr = 65,
    /// An input file is missing or can't be read.
    NoInput = 66,
    /// No such user.
    NoUser = 67,
    /// No such host.
    NoHost = 68,
    /// A service or helper is not available.
    Unavailable = 69,
    /// A fault of our own.
    Software = 70,
    /// The system refused something it should give (fork, pipe).
    OsErr = 71,
    /// A system file is missing or wrong.
    OsFile = 72,
    /// An output file can't be made.
    CantCreat = 73,
    /// Input or output failed.
    IoErr = 74,
    /// Try again later.
    TempFail = 75,
    /// The other side broke the protocol.
    Protocol = 76,
    /// Not allowed.
    NoPerm = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
