//! Aliases, virtual users and the access table.

#![no_main]

#[path = "../checks/aliases.rs"]
mod aliases;
#[path = "../checks/dice.rs"]
mod dice;

libfuzzer_sys::fuzz_target!(|input: &[u8]| aliases::check(input));
