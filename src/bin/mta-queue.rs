//! `mta-queue`: see man mta-queue(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::mta_queue_main()
}
