//! The queue: messages that were accepted and have not reached all their recipients.
//!
//! One file is one message with its envelope and its history. Which file is in which state is its
//! directory and its name alone:
//!
//! ```text
//! incoming/ID        new, from smtpd or from pickup; every run empties it
//! drop/ID            new, from sendmail; the caller owns it; pickup copies it into incoming/
//! work/ID            a runner has it, and its lock; without a lock: its runner was killed
//! deferred/DUE.ID    waits until DUE, seconds since 1970 in 10 digits
//! hold/ID            waits for the operator
//! corrupt/ID         damaged or not ours, kept for the operator
//! incoming/.ID       being written, on file systems without unnamed files only
//! wake               a FIFO: a byte in it says that there is something new
//! ```
//!
//! The one system call that commits is link(2) into incoming/ or drop/ for a new message (after
//! fsync of the file, before fsync of the directory), rename(2) for a move, unlink(2) for the end.

pub mod enqueue;
pub mod entry;
pub mod file;
pub mod id;
pub mod pickup;
pub mod spool;
pub mod wake;

pub use enqueue::{Draft, Inlet};
pub use entry::{Envelope, Event, Origin, Outcome};
pub use file::Entry;
pub use id::Id;
pub use spool::{Place, Spool};
pub use wake::Wake;
