//! Files of any content as a cache of structures.

#![no_main]

#[path = "../checks/cache.rs"]
mod cache;
#[path = "../checks/dice.rs"]
mod dice;

libfuzzer_sys::fuzz_target!(|input: &[u8]| cache::check(input));
