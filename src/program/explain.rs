//! `mailctl explain`: where mail for an address goes, step by step.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::Failure;
use super::mailctl::follow;
use crate::config::Config;
use crate::delivery::local;
use crate::message::{Address, list};
use crate::route::{self, Destination, Expansion, Route, Tables, Verdict};
use crate::sys::Exit;

/// Prints where mail for an address goes; `Exit::NoUser` where that is nowhere, `Exit::Config`
/// where something has to be mended first.
pub fn explain(config: &Config, text: &str) -> Result<Exit, Failure> {
    let bad = |what: String| Failure::new(Exit::Usage, what);
    let found = list::addresses(text.as_bytes(), config.origin()).map_err(bad)?;
    let [address] = found.as_slice() else {
        return Err(bad(format!("{text:?}: one address is wanted")));
    };
    let tables = Tables::of(config);
    let mut out = String::new();
    let exit =
        match follow(config, &tables, address) {
            Err(what) => {
                let _ = writeln!(out, "{address}: waits in the queue: {what}");
                Exit::Config
            }
            Ok(Destination::Unknown) => {
                let _ =
                    writeln!(out, "{address}: refused, there is no such user in a virtual domain");
                Exit::NoUser
            }
            Ok(Destination::Expanded(expansion)) => {
                expanded(config, &tables, address, &expansion, &mut out);
                Exit::Ok
            }
            Ok(Destination::Account | Destination::Remote) => {
                if last(config, address, "", &mut out) { Exit::Ok } else { Exit::NoUser }
            }
        };
    io::stdout().write_all(out.as_bytes()).map_err(|error| Failure::new(Exit::IoErr, error))?;
    Ok(exit)
}

fn expanded(
    config: &Config,
    tables: &Tables,
    address: &Address,
    expansion: &Expansion,
    out: &mut String,
) {
    let _ = writeln!(out, "{address}: stands for others");
    for step in &expansion.steps {
        let _ = writeln!(out, "  {step}");
    }
    for group in &expansion.groups {
        if let Some(owner) = &group.owner {
            let _ = writeln!(out, "from <{owner}>, who hears of failures:");
        }
        for member in &group.members {
            if route::verify(config, tables, member) == Ok(Verdict::Unknown) {
                let _ = writeln!(out, "  {member}: there is no such virtual user");
            } else {
                last(config, member, "  ", out);
            }
        }
    }
    let user = &config.delivery.alias_user;
    for command in &expansion.commands {
        let _ = writeln!(out, "  command {command:?}, as the alias file's owner or {user}");
    }
    for file in &expansion.files {
        let _ = writeln!(out, "  file {}, as the alias file's owner or {user}", file.display());
    }
}

/// An address that stands for itself; false where there is nobody.
fn last(config: &Config, address: &Address, indent: &str, out: &mut String) -> bool {
    let local = match route::route(config, address) {
        Route::Local(local) => local,
        Route::Remote(domain) => {
            let smarthost = String::from(config.delivery.smarthost.clone());
            let way = match (smarthost.as_str(), config.is_relay_domain(domain)) {
                ("", true) => format!("the hosts of {domain}, by MX; a relay domain"),
                ("", false) => format!("the hosts of {domain}, by MX"),
                (smarthost, _) => format!("the smarthost {smarthost}"),
            };
            let _ = writeln!(out, "{indent}{address}: sent on to {way}");
            return true;
        }
    };
    let account = match route::account(config, local) {
        Ok(Some(account)) => account,
        Ok(None) => {
            let _ = writeln!(out, "{indent}{address}: there is no such account");
            return false;
        }
        Err(error) => {
            let _ = writeln!(out, "{indent}{address}: its account can't be looked up: {error}");
            return false;
        }
    };
    let _ = write!(out, "{indent}{address}: account {} (uid {})", account.name, account.uid);
    let extension = route::extension(config, &account.name, local).unwrap_or_default();
    if !extension.is_empty() {
        let _ = write!(out, ", extension {extension}");
    }
    let _ = match local::inbox_place(config, &account) {
        Ok(place) => write!(out, ", inbox {}", place.path.display()),
        Err(failure) => write!(out, ", {failure}"),
    };
    if let Some(file) = local::forward_file(config, &account, extension) {
        let _ = write!(out, ", unless {} says otherwise", file.display());
    }
    out.push('\n');
    true
}
