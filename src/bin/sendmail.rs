//! `sendmail`: see man sendmail(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::sendmail_main()
}
