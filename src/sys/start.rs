//! How a program begins.
//!
//! Rust's own beginning looks through /proc/self/maps and makes a stack for a message on stack
//! overflow: a tenth of a millisecond in each process, and a delivery is a process. So, with glibc,
//! the C library calls us directly. (Elsewhere std learns the arguments from its own beginning only.)

use std::io::Write;

use nix::sys::signal::{SigHandler, Signal};

use super::Exit;

/// Makes a program's `main` of a function that returns an [`Exit`].
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the C library.
        #[cfg(target_env = "gnu")]
        #[allow(unsafe_code, reason = "the C library knows main by its name")]
        // SAFETY: nobody else defines main.
        #[unsafe(no_mangle)]
        pub extern "C" fn main() -> core::ffi::c_int {
            $crate::sys::start::run($main)
        }

        #[cfg(not(target_env = "gnu"))]
        fn main() -> std::process::ExitCode {
            $main().into()
        }
    };
}

/// Runs a program's body; its exit status.
#[allow(unsafe_code, reason = "signal() has no safe form")]
pub fn run(main: fn() -> Exit) -> i32 {
    // A reader that has gone is an error to report, not a death in the middle of something.
    // SAFETY: ignoring a signal runs no handler.
    let ignored = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let exit = if ignored.is_ok() { main() } else { Exit::OsErr };
    match std::io::stdout().flush() {
        Err(_) if exit == Exit::Ok => Exit::IoErr as i32,
        _ => exit as i32,
    }
}
