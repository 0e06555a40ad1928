//! Why a delivery failed, and whether trying again may help.

use std::fmt;

use crate::mailbox::{self, folders};
use crate::sys::Exit;

/// The code of a mailbox that somebody else keeps locked.
pub const LOCKED: &str = "4.2.0";

/// A failed delivery, with its enhanced status code (RFC 3463) and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again may help.
    Temporary {
        /// `4.x.x`.
        code: &'static str,
        /// What is wrong.
        text: String,
    },
    /// Trying again will not help.
    Permanent {
        /// `5.x.x`.
        code: &'static str,
        /// What is wrong.
        text: String,
    },
}

impl Failure {
    /// A failure that may pass.
    pub fn temporary(code: &'static str, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self::Temporary { code, text }
    }

    /// A failure for good.
    pub fn permanent(code: &'static str, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        Self::Permanent { code, text }
    }

    /// Whether trying again may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
    }

    /// The enhanced status code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Temporary { code, .. } | Self::Permanent { code, .. } => code,
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Self::Temporary { text, .. } | Self::Permanent { text, .. } => text,
        }
    }

    /// The exit status of a delivery program that ends with this failure: EX_TEMPFAIL wherever
    /// trying again may help, as callers bounce the mail on nearly anything else.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Temporary { .. } => Exit::TempFail,
            Self::Permanent { code, .. } => match *code {
                "5.1.1" => Exit::NoUser,
                "5.2.0" | "5.2.1" | "5.2.2" => Exit::CantCreat,
                "5.3.0" => Exit::Unavailable,
                "5.7.0" | "5.7.1" => Exit::NoPerm,
                _ => Exit::DataErr,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.text())
    }
}

impl std::error::Error for Failure {}

impl From<mailbox::Error> for Failure {
    /// A mailbox that can't be written now is always worth another try: the operator or the user
    /// mends it, and the mail waits.
    fn from(error: mailbox::Error) -> Self {
        use mailbox::Error;
        let code = match (&error, error.os_error().map(nix::Error::from_raw)) {
            (_, Some(nix::Error::ENOSPC | nix::Error::EFBIG)) => "4.3.1",
            (Error::OverQuota { .. }, _) | (_, Some(nix::Error::EDQUOT)) => "4.2.2",
            (Error::Locked { .. }, _) | (_, Some(nix::Error::ESTALE)) => LOCKED,
            _ => "4.3.0",
        };
        Self::temporary(code, error)
    }
}

impl From<folders::Error> for Failure {
    /// What can never be is the caller's mistake; all else may be mended, and the mail waits.
    fn from(error: folders::Error) -> Self {
        use folders::Error;
        match error {
            Error::Cannot(text) | Error::Limit(text) => Self::permanent("5.2.0", text),
            Error::InUse(text) => Self::temporary(LOCKED, text),
            error => Self::temporary("4.3.0", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use crate::mailbox::Error;
    use crate::sys::Exit;

    #[test]
    fn a_full_disk_and_a_full_quota_are_told_apart_and_both_wait() {
        for (number, code) in [
            (nix::libc::ENOSPC, "4.3.1"),
            (nix::libc::EFBIG, "4.3.1"),
            (nix::libc::EDQUOT, "4.2.2"),
            (nix::libc::EACCES, "4.3.0"),
        ] {
            let failure = Failure::from(Error::Sink(std::io::Error::from_raw_os_error(number)));
            assert_eq!((failure.code(), failure.exit()), (code, Exit::TempFail));
        }
    }
}
