//! Where a recipient's mail goes.
//!
//! [`resolve::resolve`] follows an address to its end, for the queue; [`verify`] says whether there
//! is such a recipient, for a session. Both ask the same tables in the same order.

pub mod access;
pub mod forward;
pub mod index;
pub mod mx;
pub mod resolve;
pub mod table;
mod tables;

use std::io;

use crate::config::Config;
use crate::message::Address;
use crate::sys::Account;

pub use resolve::{Destination, Expansion, Group, resolve};
pub use tables::{Files, Tables, Verdict, verify};

/// The most members of an alias, with all that they lead to.
pub const MAX_MEMBERS: usize = 10_000;

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
/// are compared without letter case by every neighbour; else the same of what stands before the
/// first `[delivery] recipient_delimiter` in it.
pub fn account(config: &Config, local: &str) -> io::Result<Option<Account>> {
    for name in [local, before_extension(config, local)] {
        for name in [name, &name.to_ascii_lowercase()] {
            if let Some(account) = crate::auth::find_account(config, name)? {
                return Ok(Some(account));
            }
        }
    }
    Ok(None)
}

/// The extension in a local-part that leads to the account of this name: empty where it has none,
/// `None` where it leads to somebody else.
pub fn extension<'a>(config: &Config, name: &str, local: &'a str) -> Option<&'a str> {
    let is = |local: &str| local == name || local.to_ascii_lowercase() == name;
    if is(local) {
        return Some("");
    }
    let base = before_extension(config, local);
    let rest = local.get(base.len() + config.delivery.recipient_delimiter.len()..);
    if is(base) { rest } else { None }
}

/// What stands before the first `[delivery] recipient_delimiter`.
pub fn before_extension<'a>(config: &Config, local: &'a str) -> &'a str {
    let delimiter = config.delivery.recipient_delimiter.as_str();
    match local.split_once(delimiter) {
        Some((base, _)) if !delimiter.is_empty() && !base.is_empty() => base,
        _ => local,
    }
}

#[cfg(test)]
mod tests {
    use super::extension;
    use crate::config::Config;

    #[test]
    fn what_stands_behind_the_first_delimiter_is_the_extension() {
        let mut config = Config::default();
        for (local, wanted) in [
            ("hunt", Some("")),
            ("Hunt", Some("")),
            ("hunt+a+b", Some("a+b")),
            ("HUNT+A", Some("A")),
            ("hunt+", Some("")),
            ("+hunt", None),
            ("toshi+hunt", None),
            ("hunter", None),
        ] {
            assert_eq!(extension(&config, "hunt", local), wanted, "{local}");
        }
        assert_eq!(extension(&config, "a+b", "a+b"), Some(""));
        config.delivery.recipient_delimiter.clear();
        assert_eq!(extension(&config, "hunt", "hunt+a"), None);
    }
}
