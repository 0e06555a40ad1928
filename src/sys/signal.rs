//! Signals, as descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocked signals that are read from a descriptor, so that a poll loop sees them in its turn.
pub struct Signals(SignalFd);

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Signals {
    /// Blocks these signals and opens the descriptor.
    pub fn take(signals: &[Signal]) -> io::Result<Self> {
        let set = signals.iter().copied().collect::<SigSet>();
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next pending signal, without waiting.
    pub fn next(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

/// Lets all signals through again, in a forked child.
pub fn unblock_all() -> io::Result<()> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Turns SIGXFSZ into EFBIG: a file size limit is an error to report, not a death in the middle of
/// a write. (SIGPIPE is ignored by Rust's runtime already.)
#[allow(unsafe_code, reason = "signal() has no safe form")]
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no handler.
    unsafe {
        nix::sys::signal::signal(Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn)?;
    }
    Ok(())
}
