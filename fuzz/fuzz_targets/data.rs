//! The text of a message on the wire.

#![no_main]

#[path = "../checks/data.rs"]
mod data;
#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/text.rs"]
mod text;

libfuzzer_sys::fuzz_target!(|input: &[u8]| data::check(input));
