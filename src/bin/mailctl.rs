//! `mailctl`: see man mailctl(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::mailctl_main()
}
