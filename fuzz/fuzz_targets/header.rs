//! Messages as they arrive, and what becomes of them in a mailbox.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/header.rs"]
mod header;
#[path = "../checks/home.rs"]
mod home;

libfuzzer_sys::fuzz_target!(|input: &[u8]| header::check(input));
