//! Sessions of IMAP users with clients that say anything.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/home.rs"]
mod home;
#[path = "../checks/imap_session.rs"]
mod imap_session;
#[path = "../../tests/support/imap_play/node.rs"]
mod node;
#[path = "../../tests/support/imap_play/told.rs"]
mod told;

libfuzzer_sys::fuzz_target!(|input: &[u8]| imap_session::check(input));
