//! Commands of SMTP's clients.

#![no_main]

#[path = "../checks/command.rs"]
mod command;

libfuzzer_sys::fuzz_target!(|input: &[u8]| command::check(input));
