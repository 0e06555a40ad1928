//! `local-deliver`: see man local-deliver(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::local_deliver_main()
}
