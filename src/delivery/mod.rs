//! What happens to a message that is to leave the queue.

pub mod failure;
pub mod local;

pub use failure::Failure;
