//! Who are you.
use crate::config::Config;
use crate::sys::Account;
use std::io;
/// Looks an account up.
pub fn find_account(_config: &Config, name: &str) -> io::Result<Option<Account>> {
    Account::by_name(name)
}
