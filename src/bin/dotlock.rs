//! `dotlock`: the setgid helper that makes and removes a mailbox's dot lock.

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::dotlock_main()
}
