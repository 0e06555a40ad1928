//! Signals, as descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Exit;
use super::process::{self, Ended};

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

/// The signals that ask a process to end.
pub const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// While it lives, a signal that asks the process to end waits: what must not be left half done is
/// done, or undone, first. Dropping it lets the signal through.
#[derive(Debug)]
pub struct Hold(SigSet);

impl Hold {
    /// Begins to hold signals back.
    pub fn begin() -> io::Result<Self> {
        let set = ENDING.into_iter().collect::<SigSet>();
        let mut before = SigSet::empty();
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        Ok(Self(before))
    }

    /// Holds them back to the process's end, which then tells by its exit status what came of it: a
    /// caller who sees it killed believes that nothing was done.
    pub fn for_good() -> io::Result<()> {
        std::mem::forget(Self::begin()?);
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Whether a signal that asks the process to end is being held back: then waiting should stop.
#[allow(unsafe_code, reason = "nix has no sigpending")]
pub fn is_end_asked_for() -> bool {
    // SAFETY: sigset_t is plain data, for which all zeroes is a value.
    let mut pending: nix::libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call, and the set is filled in before it is read.
    let known = unsafe { nix::libc::sigpending(&raw mut pending) } == 0;
    let is_pending = |signal: &Signal| {
        // SAFETY: the set is a valid one, filled in by sigpending.
        1 == unsafe { nix::libc::sigismember(&raw const pending, *signal as i32) }
    };
    known && ENDING.iter().any(is_pending)
}

/// Children at work for this process, one after the other. A signal that asks this process to end
/// is passed on to the child: what it makes of that is what came of the work, and is waited for.
#[derive(Debug)]
pub struct Foreman {
    before: SigSet,
    /// What is waited for: a child's end, or a signal to pass on.
    news: SigSet,
    asked: bool,
}

impl Foreman {
    /// Holds these signals back from now on, to the process's end.
    pub fn begin() -> io::Result<Self> {
        let mut news = ENDING.into_iter().collect::<SigSet>();
        news.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&news), Some(&mut before))?;
        Ok(Self { before, news, asked: false })
    }

    /// Lets a child do this, and waits for its end. When it was asked to end, no other child is
    /// begun.
    pub fn let_do(&mut self, body: impl FnOnce() -> Exit) -> io::Result<Ended> {
        if self.asked {
            return Err(io::Error::other("it was asked to end"));
        }
        let child = process::fork(|| {
            let mask = Some(&self.before);
            match nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, mask, None) {
                Ok(()) => body(),
                Err(_) => Exit::OsErr,
            }
        })?;
        loop {
            if let Some(how) = process::try_wait(child)? {
                return Ok(how);
            }
            let signal = self.news.wait()?;
            if signal != Signal::SIGCHLD {
                self.asked = true;
                // It has not been waited for: the number is its own.
                nix::sys::signal::kill(child, signal)?;
            }
        }
    }
}

/// Lets all signals through again, in a forked child.
pub fn unblock_all() -> io::Result<()> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Whatever the caller thinks of its children: we want to know how ours end. (Where SIGCHLD is
/// ignored, the kernel forgets them.)
#[allow(unsafe_code, reason = "signal() has no safe form")]
pub fn hear_of_children() -> io::Result<()> {
    // SAFETY: the default action runs no handler.
    unsafe {
        nix::sys::signal::signal(Signal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl)?;
    }
    Ok(())
}

/// Lets the kernel forget our children when they end: nobody waits for them.
#[allow(unsafe_code, reason = "signal() has no safe form")]
pub fn forget_children() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no handler.
    unsafe {
        nix::sys::signal::signal(Signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn)?;
    }
    Ok(())
}

/// Turns SIGXFSZ into EFBIG: a file size limit is an error to report, not a death in the middle of
/// a write. (SIGPIPE is ignored from the beginning: [`super::start`].)
#[allow(unsafe_code, reason = "signal() has no safe form")]
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no handler.
    unsafe {
        nix::sys::signal::signal(Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn)?;
    }
    Ok(())
}
