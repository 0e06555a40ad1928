//! auth.

use std::io;

use crate::config::Config;
use crate::sys::{Account, privilege};

/// The account of that name, if it is one that is served.
pub fn find_account(config: &Config, name: &str) -> io::Result<Option<Account>> {
    let Some(account) = Account::by_name(name)? else {
        return Ok(None);
    };
    let served = if privilege::is_root() {
        !account.uid.is_root() && account.uid.as_raw() >= config.users.min_uid
    } else {
        account.uid == nix::unistd::geteuid()
    };
    Ok(served.then_some(account))
}
