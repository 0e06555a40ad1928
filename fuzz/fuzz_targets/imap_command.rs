//! Commands of IMAP's clients.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/imap_command.rs"]
mod imap_command;
#[path = "../checks/imap_oracle.rs"]
mod imap_oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    imap_command::check(input);
    imap_oracle::check(input);
});
