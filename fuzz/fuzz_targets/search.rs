//! What is searched, as text: octets in any charset, in pieces; fields of headers; and searches.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/search.rs"]
mod search;

libfuzzer_sys::fuzz_target!(|input: &[u8]| search::check(input));
