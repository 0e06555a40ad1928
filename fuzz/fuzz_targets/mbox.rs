//! Files of any content as an mbox.

#![no_main]

#[path = "../checks/dice.rs"]
mod dice;
#[path = "../checks/home.rs"]
mod home;
#[path = "../checks/mbox.rs"]
mod mbox;

// Reading and changing cost many system calls: one input of eight has to do.
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mbox::check_listing(input);
    if dice::Dice::of(input).below(8) == 0 {
        mbox::check_reading(input);
        mbox::check_changing(input, 1);
        mbox::check_life(input, 12);
    }
});
