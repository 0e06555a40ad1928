//! Messages of any content, and the structures that they have.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/structure.rs"]
mod structure;

libfuzzer_sys::fuzz_target!(|input: &[u8]| structure::check(input));
