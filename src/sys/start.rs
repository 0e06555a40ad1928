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
        /// Called by the C library; the harness of unit tests has its own.
        #[cfg(all(target_env = "gnu", not(test)))]
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

/// All that is wanted of libm: with these in its place that library need not be loaded either, which
/// is again near a tenth of a millisecond, and a fork has fewer mappings to copy.
#[cfg(all(panic = "abort", target_env = "gnu"))]
#[allow(unsafe_code, reason = "they are known by their names")]
mod no_libm {
    // SAFETY: nobody else defines it, and its type is that of C.
    #[unsafe(no_mangle)]
    extern "C" fn exp(x: f64) -> f64 {
        libm::exp(x)
    }

    // SAFETY: nobody else defines it, and its type is that of C.
    #[unsafe(no_mangle)]
    extern "C" fn pow(x: f64, y: f64) -> f64 {
        libm::pow(x, y)
    }
}

/// What std wants of the library that unwinds the stack after a panic. In a release a panic ends the
/// process at once; with these in its place the library need not be loaded, which is another tenth
/// of a millisecond.
#[cfg(all(panic = "abort", target_env = "gnu"))]
#[allow(unsafe_code, reason = "they are known by their names")]
mod no_unwinding {
    use core::ffi::c_int;

    /// `_URC_END_OF_STACK`: a backtrace is empty.
    const END_OF_STACK: c_int = 5;

    // SAFETY: nobody else defines it.
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Backtrace() -> c_int {
        END_OF_STACK
    }

    macro_rules! never_called {
        ($($name:ident)*) => { $(
            // SAFETY: nobody else defines it, and nothing unwinds that could call it.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )* };
    }

    never_called! {
        _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData
        _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_Resume _Unwind_SetGR _Unwind_SetIP
    }
}
