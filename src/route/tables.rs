//! The alias file and the file of virtual users, as they are on disk.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::resolve::{self, Lookups, Virtual};
use super::table::{self, Syntax, Table, Value};
use crate::config::Config;
use crate::message::Address;

/// The largest file that an alias includes.
const MAX_INCLUDE: u64 = 1 << 20;

/// Both tables. A file that changes is looked at anew.
#[derive(Debug)]
pub struct Tables {
    /// `[paths] aliases`.
    pub aliases: Table,
    /// `[paths] virtual`.
    pub virtual_users: Table,
}

impl Tables {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            aliases: Table::new(&config.paths.aliases, Syntax::Aliases),
            virtual_users: Table::new(&config.paths.virtual_users, Syntax::Virtual),
        }
    }

    /// Those of the configuration as they are now, for a process that soon can open no file.
    pub fn now(config: &Config) -> Self {
        let mut tables = Self::of(config);
        tables.aliases.freeze();
        tables.virtual_users.freeze();
        tables
    }

    /// The descriptors that they have open.
    pub fn descriptors(&mut self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.aliases.descriptors().chain(self.virtual_users.descriptors())
    }

    /// Whether a domain is a virtual one.
    pub fn is_virtual_domain(&self, domain: &str) -> bool {
        self.virtual_users.find(&domain.to_ascii_lowercase()).is_ok_and(|found| found.is_some())
    }
}

/// The tables, and somebody who knows accounts.
pub struct Files<'a, F> {
    /// The tables.
    pub tables: &'a Tables,
    /// Whether a local-part leads to an account.
    pub has_account: F,
}

impl<F: Fn(&str) -> io::Result<bool>> Lookups for Files<'_, F> {
    fn alias(&self, name: &str) -> Result<Option<Value>, String> {
        self.tables.aliases.find(name).map_err(|error| error.to_string())
    }

    fn virtual_user(&self, key: &str) -> Result<Option<Value>, String> {
        self.tables.virtual_users.find(key).map_err(|error| error.to_string())
    }

    fn include(&self, file: &Path) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| format!("{}: {error}; it is included", file.display());
        let opened = table::open(file).map_err(failed)?;
        let mut text = Vec::new();
        opened.take(MAX_INCLUDE + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_INCLUDE {
            let what = format!("is longer than {MAX_INCLUDE} bytes");
            return Err(failed(io::Error::other(what)));
        }
        Ok(text)
    }

    fn has_account(&self, local: &str) -> Result<bool, String> {
        (self.has_account)(local).map_err(|error| format!("account {local}: {error}"))
    }
}

/// What a session is told of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its mail is taken: there is such an account, alias or virtual user.
    Ok,
    /// Its mail is sent on, from whomever it comes (`relay_domains`).
    Relay,
    /// It is for another host: for those only who may relay.
    Foreign,
    /// There is nobody of this name.
    Unknown,
    /// It can't be told now.
    TempFail,
}

/// Whether mail for an address is to be taken, without following it further than one step. What
/// keeps it from being told is given to `log`.
pub fn verify(
    config: &Config,
    tables: &Tables,
    has_account: impl Fn(&str) -> io::Result<bool>,
    address: &Address,
    log: impl Fn(&str),
) -> Verdict {
    look(config, &Files { tables, has_account }, address).unwrap_or_else(|what| {
        log(&what);
        Verdict::TempFail
    })
}

fn look(config: &Config, lookups: &impl Lookups, address: &Address) -> Result<Verdict, String> {
    let (local, domain) = (address.local(), address.domain());
    // RFC 5321 section 4.5.1: always taken, whether or not there is such an account.
    let always = local.eq_ignore_ascii_case("postmaster");
    if always && config.is_local_domain(domain) {
        return Ok(Verdict::Ok);
    }
    match resolve::virtual_user(config, lookups, address)? {
        Virtual::User { .. } => return Ok(Verdict::Ok),
        Virtual::Unknown if always => return Ok(Verdict::Ok),
        Virtual::Unknown => return Ok(Verdict::Unknown),
        Virtual::No => {}
    }
    if !config.is_local_domain(domain) {
        let relay = config.is_relay_domain(domain);
        return Ok(if relay { Verdict::Relay } else { Verdict::Foreign });
    }
    let known = resolve::alias(config, lookups, local)?.is_some()
        || resolve::is_mailer_daemon(local)
        || lookups.has_account(local)?;
    Ok(if known { Verdict::Ok } else { Verdict::Unknown })
}
