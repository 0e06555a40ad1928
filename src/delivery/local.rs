//! Stand-in until local delivery is merged.

use std::io;

use crate::config::{self, Config};
use crate::mailbox::mbox::Mbox;
use crate::sys::Account;

/// A user's inbox.
pub fn mailbox_of(config: &Config, account: &Account) -> io::Result<Mbox> {
    let path = config::expand(
        &config.paths.inbox,
        &account.name,
        &config.hostname,
        &account.home,
    );
    Ok(Mbox {
        path: path.ok_or(io::ErrorKind::InvalidInput)?,
    })
}

/// Stand-in.
pub fn become_recipient(_config: &Config, account: &Account) -> io::Result<()> {
    crate::sys::privilege::become_user(account)
}
