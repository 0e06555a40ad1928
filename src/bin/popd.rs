//! `popd`: see man popd(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::popd_main()
}
