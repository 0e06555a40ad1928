//! Moments at which a test ends an operation as if the process had been killed there.

/// Stands before each call that changes a file.
#[cfg(not(test))]
pub fn moment() {}

/// Whether extended attributes are used: a test can do as if the file system had none.
#[cfg(not(test))]
pub fn has_attributes() -> bool {
    true
}

/// Which start of the system this is: a test can do as if there had been another one.
#[cfg(not(test))]
pub use crate::sys::clock::boot;

#[cfg(test)]
pub use killing::{boot, restart};
#[cfg(test)]
pub use killing::{has_attributes, killed_at, moment, without_attributes};

#[cfg(test)]
mod killing {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static ATTRIBUTES: Cell<bool> = const { Cell::new(true) };
        static BOOT: Cell<u64> = const { Cell::new(1) };
    }

    struct Killed;

    /// Ends the operation if its time has come. (Unwinding gives the locks back, as the kernel
    /// would, and runs no code that handles errors.)
    pub fn moment() {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                std::panic::resume_unwind(Box::new(Killed));
            }
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
    }

    pub fn has_attributes() -> bool {
        ATTRIBUTES.get()
    }

    /// Runs `action` as if the file system had no extended attributes.
    pub fn without_attributes(action: impl FnOnce()) {
        ATTRIBUTES.set(false);
        action();
        ATTRIBUTES.set(true);
    }

    /// Runs `action` and kills it at its `n`th step; true if it had so many.
    pub fn killed_at(n: u32, action: impl FnOnce()) -> bool {
        LEFT.set(Some(n));
        let ended = catch_unwind(AssertUnwindSafe(action));
        LEFT.set(None);
        match ended {
            Ok(()) => false,
            Err(panic) if panic.is::<Killed>() => true,
            Err(panic) => panic_any(panic),
        }
    }

    pub fn boot() -> u64 {
        BOOT.get()
    }

    /// As after a restart.
    pub fn restart() {
        BOOT.set(BOOT.get() + 1);
    }
}
