//! Files of any content as the index of a mailbox.

#![no_main]

#[path = "../checks/index.rs"]
mod index;

libfuzzer_sys::fuzz_target!(|input: &[u8]| index::check(input));
