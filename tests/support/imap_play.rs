//! IMAP conversations: a client that takes answers apart, holds each against what it was told before,
//! and compares them with what a transcript says.

pub mod client;
pub mod node;
pub mod pattern;
pub mod play;
pub mod served;
pub mod told;
