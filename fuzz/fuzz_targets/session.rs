//! Sessions of SMTP and LMTP with clients that send anything.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/session.rs"]
mod session;
#[path = "../checks/text.rs"]
mod text;

libfuzzer_sys::fuzz_target!(|input: &[u8]| session::check(input));
