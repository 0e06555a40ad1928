//! Addresses as SMTP's clients and as people write them.

#![no_main]

#[path = "../checks/addresses.rs"]
mod addresses;

libfuzzer_sys::fuzz_target!(|input: &[u8]| addresses::check(input));
