//! Where a recipient's mail goes.

pub mod mx;

use std::io;

use crate::config::Config;
use crate::message::Address;
use crate::sys::Account;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To a user of this host, by this name.
    Local(&'a str),
    /// To another host, by this domain.
    Remote(&'a str),
}

/// Routes an address by its domain; an address literal of this host is not known yet as local.
pub fn route<'a>(config: &Config, address: &'a Address) -> Route<'a> {
    if config.is_local_domain(address.domain()) {
        Route::Local(address.local())
    } else {
        Route::Remote(address.domain())
    }
}

/// The account that a local-part means: the very name, else the name in lower case, as local-parts
/// are compared without letter case by every neighbour.
pub fn account(config: &Config, local: &str) -> io::Result<Option<Account>> {
    if let Some(account) = crate::auth::find_account(config, local)? {
        return Ok(Some(account));
    }
    let lower = local.to_ascii_lowercase();
    if lower == local { Ok(None) } else { crate::auth::find_account(config, &lower) }
}
