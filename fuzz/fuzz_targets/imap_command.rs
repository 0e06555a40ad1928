//! Commands of IMAP's clients.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/imap_command.rs"]
mod imap_command;

libfuzzer_sys::fuzz_target!(|input: &[u8]| imap_command::check(input));
