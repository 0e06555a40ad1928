//! The alias file, the file of virtual users and the access table, as they are on disk.

use std::io;
use std::path::Path;

use super::resolve::{self, Lookups, Virtual};
use super::table::{self, Syntax, Table, Value};
use crate::config::Config;
use crate::message::Address;

/// The largest file that an alias includes.
const MAX_INCLUDE: u64 = 1 << 20;

/// All tables. A file that changes is looked at anew.
#[derive(Debug)]
pub struct Tables {
    /// `[paths] aliases`.
    pub aliases: Table,
    /// `[paths] virtual`.
    pub virtual_users: Table,
    /// `[paths] access`.
    pub access: Table,
}

impl Tables {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            aliases: Table::new(&config.paths.aliases, Syntax::Aliases),
            virtual_users: Table::new(&config.paths.virtual_users, Syntax::Virtual),
            access: Table::new(&config.paths.access, Syntax::Access),
        }
    }

    /// Those of the configuration as they are now, for a process that soon can open no file.
    pub fn now(config: &Config) -> Self {
        let mut tables = Self::of(config);
        tables.aliases.freeze();
        tables.virtual_users.freeze();
        tables.access.freeze();
        tables
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

    fn include(&self, file: &Path, patient: bool) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| format!("{}: {error}; it is included", file.display());
        let too_long = || {
            let what = format!("is longer than {MAX_INCLUDE} bytes");
            failed(io::Error::other(what))
        };
        let opened = table::open(file).map_err(failed)?;
        if opened.metadata().map_err(failed)?.len() > MAX_INCLUDE {
            return Err(too_long());
        }
        let text = if patient {
            table::read_settled(&opened, None).map(|(text, _)| text)
        } else {
            table::read_at_once(&opened)
        };
        let text = text.map_err(failed)?;
        // Not every file tells its size.
        if text.len() as u64 > MAX_INCLUDE {
            return Err(too_long());
        }
        Ok(text)
    }

    fn has_account(&self, local: &str) -> Result<bool, String> {
        (self.has_account)(local).map_err(|error| format!("account {local}: {error}"))
    }
}

/// What the tables say of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an alias or virtual user.
    Known,
    /// There is if there is an account for its local-part.
    Account,
    /// Its mail is sent on, from whomever it comes (`relay_domains`).
    Relay,
    /// It is for another host: for those only who may relay.
    Foreign,
    /// There is nobody of this name.
    Unknown,
}

/// Whether mail for an address is to be taken, without following it further than one step. An error
/// says what keeps it from being told.
pub fn verify(config: &Config, tables: &Tables, address: &Address) -> Result<Verdict, String> {
    let lookups = Files { tables, has_account: |_: &str| Ok(false) };
    let (local, domain) = (address.local(), address.domain());
    // RFC 5321 section 4.5.1: always taken, whether or not there is such an account.
    let always = local.eq_ignore_ascii_case("postmaster");
    if always && config.is_local_domain(domain) {
        return Ok(Verdict::Known);
    }
    match resolve::virtual_user(config, &lookups, address)? {
        Virtual::User { .. } => return Ok(Verdict::Known),
        Virtual::Unknown if always => return Ok(Verdict::Known),
        Virtual::Unknown => return Ok(Verdict::Unknown),
        Virtual::No => {}
    }
    if !config.is_local_domain(domain) {
        let relay = config.is_relay_domain(domain);
        return Ok(if relay { Verdict::Relay } else { Verdict::Foreign });
    }
    let known =
        resolve::alias(config, &lookups, local)?.is_some() || resolve::is_mailer_daemon(local);
    Ok(if known { Verdict::Known } else { Verdict::Account })
}
