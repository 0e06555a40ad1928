//! `smtpd`: see man smtpd(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::smtpd_main()
}
