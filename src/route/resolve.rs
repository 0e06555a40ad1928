//! Where an address leads: through virtual users, aliases and the files that they include, down to
//! accounts of this host, addresses elsewhere, commands and files.
//!
//! Pure over [`Lookups`]. An alias is expanded once a message, however often it is met. Met inside
//! itself it stands for the account of that name (`hunt: hunt, archive`), and for nobody where there
//! is none; a circle that leads to nobody at all is an error.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::forward::{self, Entry};
use super::table::{self, MAX_FILE, Value};
use super::{MAX_MEMBERS, before_extension};
use crate::config::Config;
use crate::message::Address;

/// So deep may aliases lead to each other, and files include each other.
const MAX_DEPTH: usize = 20;

/// After so long, files that are being changed are waited for no more: who may write one that is
/// included must not hold up everybody's mail.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked while an address is followed. An error says that it can't be told now, and names
/// what has to be mended.
pub trait Lookups {
    /// The line of an alias, whose name is in lower case.
    fn alias(&self, name: &str) -> Result<Option<Value>, String>;
    /// The line of `user@domain`, `@domain` or `domain`, in lower case.
    fn virtual_user(&self, key: &str) -> Result<Option<Value>, String>;
    /// The text of a file that an alias includes; `patient` where one that is being changed may be
    /// waited for.
    fn include(&self, file: &Path, patient: bool) -> Result<Vec<u8>, String>;
    /// Whether a local-part leads to an account of this host.
    fn has_account(&self, local: &str) -> Result<bool, String>;
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the account that its local-part names, if there is one.
    Account,
    /// To another host, by its domain.
    Remote,
    /// To nobody: its domain is a virtual one without such a user.
    Unknown,
    /// To others.
    Expanded(Expansion),
}

/// What an address stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Whom the message is sent on to. None of them is an alias any more.
    pub groups: Vec<Group>,
    /// Commands for the shell.
    pub commands: Vec<String>,
    /// Mailboxes.
    pub files: Vec<PathBuf>,
    /// Who hears of failures of commands and files; `None` as in a group.
    pub program_owner: Option<Address>,
    /// The way that was taken, for people: a line each.
    pub steps: Vec<String>,
}

/// Addresses that get the message from the same sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The list, or the address that it all began with.
    pub list: Address,
    /// Who hears of failures: the list's owner; the message's own sender where there is none.
    pub owner: Option<Address>,
    /// Accounts of this host, and addresses elsewhere.
    pub members: Vec<Address>,
}

/// Follows an address. An error is something that can be mended: the mail waits for that.
pub fn resolve(
    config: &Config,
    lookups: &impl Lookups,
    address: &Address,
) -> Result<Destination, String> {
    let group = Group { list: address.clone(), owner: None, members: Vec::new() };
    let mut making = Making {
        config,
        lookups,
        expansion: Expansion { groups: vec![group], ..Expansion::default() },
        seen: HashSet::new(),
        path: Vec::new(),
        circle: None,
        count: 0,
        included: 0,
        waited: Duration::ZERO,
    };
    if let Some(end) = making.address(address, 0)? {
        return Ok(end);
    }
    let Making { mut expansion, circle, .. } = making;
    expansion.groups.retain(|group| !group.members.is_empty());
    let Expansion { groups, commands, files, .. } = &expansion;
    if groups.is_empty() && commands.is_empty() && files.is_empty() {
        return Err(match circle {
            Some(circle) => format!("aliases lead in a circle and to nobody: {circle}"),
            // /dev/null was all of it.
            None => return Ok(Destination::Expanded(expansion)),
        });
    }
    Ok(Destination::Expanded(expansion))
}

/// What virtual users say of an address.
pub enum Virtual {
    /// Nothing.
    No,
    /// Its domain is a virtual one, and it has no such user.
    Unknown,
    /// Its line, and the extension that its targets get.
    User {
        /// Its key.
        key: String,
        /// Its line.
        value: Value,
        /// What its targets get behind their names, with the delimiter; may be empty.
        extension: String,
    },
}

/// Looks an address up among virtual users: with its extension, without, and then as anybody in its
/// domain (virtual(5) of Postfix).
pub fn virtual_user(
    config: &Config,
    lookups: &impl Lookups,
    address: &Address,
) -> Result<Virtual, String> {
    let (local, domain) = (address.local(), address.domain());
    let base = before_extension(config, local);
    let rest = local.get(base.len()..).unwrap_or_default();
    let mut keys = vec![(format!("{local}@{domain}"), "")];
    if base != local {
        keys.push((format!("{base}@{domain}"), rest));
    }
    keys.push((format!("@{domain}"), ""));
    for (key, extension) in keys {
        let key = key.to_ascii_lowercase();
        if let Some(value) = lookups.virtual_user(&key)? {
            return Ok(Virtual::User { key, value, extension: extension.to_owned() });
        }
    }
    Ok(if is_virtual_domain(config, lookups, domain)? { Virtual::Unknown } else { Virtual::No })
}

/// Whether a domain is a virtual one: who has no line there, is nobody.
fn is_virtual_domain(
    config: &Config,
    lookups: &impl Lookups,
    domain: &str,
) -> Result<bool, String> {
    let is_local = config.is_local_domain(domain);
    Ok(!is_local && lookups.virtual_user(&domain.to_ascii_lowercase())?.is_some())
}

/// The alias that a local-part means: the very name, else what stands before the extension.
pub fn alias(
    config: &Config,
    lookups: &impl Lookups,
    local: &str,
) -> Result<Option<(String, Value)>, String> {
    let base = before_extension(config, local);
    for name in [local, base] {
        let name = name.to_ascii_lowercase();
        if let Some(value) = lookups.alias(&name)? {
            return Ok(Some((name, value)));
        }
        if base == local {
            break;
        }
    }
    Ok(None)
}

/// Whether this is the name that delivery reports come from; its mail is the postmaster's.
pub fn is_mailer_daemon(local: &str) -> bool {
    local.eq_ignore_ascii_case("mailer-daemon")
}

struct Making<'a, L> {
    config: &'a Config,
    lookups: &'a L,
    expansion: Expansion,
    /// Aliases, virtual users and files that were met.
    seen: HashSet<String>,
    /// Those that are being expanded.
    path: Vec<String>,
    /// A circle that was found.
    circle: Option<String>,
    /// Members and files so far.
    count: usize,
    /// Bytes of files so far, and the time that they took.
    included: u64,
    waited: Duration,
}

impl<L: Lookups> Making<'_, L> {
    /// Follows an address; where it is the first one, and stands for nothing else, says what it is.
    fn address(&mut self, address: &Address, group: usize) -> Result<Option<Destination>, String> {
        let first = self.path.is_empty();
        let (config, lookups) = (self.config, self.lookups);
        self.count()?;
        match virtual_user(config, lookups, address)? {
            Virtual::User { key, value, extension } => {
                if self.enter(&key)? {
                    let targets = table::targets(&value.text, config.origin(), address.local())
                        .map_err(|error| value.at(error.line, error.what))?;
                    self.step(&value, format!("virtual user {key}"));
                    for target in targets {
                        let local = format!("{}{extension}", target.local());
                        self.address(&self.new_address(&local, target.domain())?, group)?;
                    }
                    self.path.pop();
                    return Ok(None);
                }
                if !self.path.contains(&key) {
                    return Ok(None);
                }
                if is_virtual_domain(config, lookups, address.domain())? {
                    self.circle(&key);
                    return Ok(None);
                }
                // Met inside itself, as in `hunt@here hunt@here, archive`: an address as others.
            }
            Virtual::Unknown if address.local().eq_ignore_ascii_case("postmaster") => {
                let here = self.new_address("postmaster", config.origin())?;
                self.expansion.steps.push(format!("{address} is the postmaster here"));
                if self.enter(&address.to_string().to_ascii_lowercase())? {
                    self.address(&here, group)?;
                    self.path.pop();
                }
                return Ok(None);
            }
            Virtual::Unknown if first => return Ok(Some(Destination::Unknown)),
            // Delivery says so, of this member alone.
            Virtual::Unknown | Virtual::No => {}
        }
        if !config.is_local_domain(address.domain()) {
            if first {
                return Ok(Some(Destination::Remote));
            }
            self.member(address, group);
            return Ok(None);
        }
        if let Some((name, value)) = alias(config, lookups, address.local())? {
            self.alias(&name, &value, address, group)?;
            return Ok(None);
        }
        if is_mailer_daemon(address.local()) {
            self.expansion.steps.push(format!("{address} is the postmaster"));
            if self.enter("mailer-daemon")? {
                self.address(&self.new_address("postmaster", config.origin())?, group)?;
                self.path.pop();
            }
            return Ok(None);
        }
        if first {
            return Ok(Some(Destination::Account));
        }
        self.member(address, group);
        Ok(None)
    }

    fn alias(
        &mut self,
        name: &str,
        value: &Value,
        address: &Address,
        group: usize,
    ) -> Result<(), String> {
        let (config, lookups) = (self.config, self.lookups);
        if !self.enter(name)? {
            if !self.path.iter().any(|other| other == name) {
                return Ok(());
            }
            if lookups.has_account(address.local())? {
                self.member(address, group);
            } else {
                self.circle(name);
            }
            return Ok(());
        }
        self.step(value, format!("alias {name}"));
        let owner = format!("owner-{name}");
        let is_owner = name.starts_with("owner-") || name.ends_with("-request");
        let group = if !is_owner && lookups.alias(&owner)?.is_some() {
            let list = self.new_address(name, address.domain())?;
            let owner = Some(self.new_address(&owner, address.domain())?);
            self.expansion.groups.push(Group { list, owner, members: Vec::new() });
            self.expansion.groups.len() - 1
        } else {
            group
        };
        let entries = forward::parse_at_most(&value.text, config.origin(), MAX_MEMBERS)
            .map_err(|error| value.at(error.line, error.what))?;
        if entries.is_empty() {
            return Err(value.at(1, format!("{name}: there is nothing behind it")));
        }
        for entry in entries {
            match entry {
                Entry::Command(command) => {
                    self.program(group);
                    self.expansion.commands.push(command);
                }
                Entry::File(file) if file == Path::new("/dev/null") => {
                    self.expansion.steps.push("/dev/null: dropped".into());
                }
                Entry::File(file) => {
                    self.program(group);
                    self.expansion.files.push(file);
                }
                other => self.entry(other, group)?,
            }
        }
        self.path.pop();
        Ok(())
    }

    /// An entry that may stand in an included file, too.
    fn entry(&mut self, entry: Entry, group: usize) -> Result<(), String> {
        match entry {
            Entry::Address(address) => self.address(&address, group).map(|_| ()),
            Entry::Mailbox(address) => {
                self.count()?;
                self.member(&address, group);
                Ok(())
            }
            Entry::Include(file) => self.include(&file, group),
            // Whoever may write the list of members may not run commands with it.
            Entry::Command(_) | Entry::File(_) => {
                Err("an included file may have addresses only; move commands and files to the \
                     alias file"
                    .into())
            }
        }
    }

    fn include(&mut self, file: &Path, group: usize) -> Result<(), String> {
        let name = format!(":include:{}", file.display());
        self.count()?;
        if !self.enter(&name)? {
            return Ok(());
        }
        self.expansion.steps.push(name);
        let began = Instant::now();
        let text = self.lookups.include(file, self.waited < PATIENCE)?;
        self.waited += began.elapsed();
        self.included += text.len() as u64;
        if self.included > MAX_FILE {
            return Err(format!(
                "the files that are included have more than {} MiB",
                MAX_FILE >> 20
            ));
        }
        let about = |what: String| format!("{}: {what}", file.display());
        let entries = forward::parse_at_most(&text, self.config.origin(), MAX_MEMBERS)
            .map_err(|error| format!("{}:{error}", file.display()))?;
        for entry in entries {
            let special = matches!(entry, Entry::Command(_) | Entry::File(_));
            self.entry(entry, group).map_err(|what| if special { about(what) } else { what })?;
        }
        self.path.pop();
        Ok(())
    }

    /// Begins to expand something; false where that was done before.
    fn enter(&mut self, name: &str) -> Result<bool, String> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(false);
        }
        if self.path.len() >= MAX_DEPTH {
            return Err(format!(
                "aliases lead to each other too deeply: {}",
                self.path.join(" -> ")
            ));
        }
        self.path.push(name.to_owned());
        Ok(true)
    }

    /// Remembers that a name was met inside itself, and is nobody else.
    fn circle(&mut self, name: &str) {
        let from = self.path.iter().position(|other| other == name).unwrap_or(0);
        let circle = self.path.get(from..).unwrap_or_default();
        self.circle = Some(format!("{} -> {name}", circle.join(" -> ")));
    }

    fn count(&mut self) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_MEMBERS {
            let first = self.expansion.groups.first();
            let list = first.map(|group| group.list.to_string()).unwrap_or_default();
            return Err(format!("{list} leads to more than {MAX_MEMBERS} members"));
        }
        Ok(())
    }

    fn new_address(&self, local: &str, domain: &str) -> Result<Address, String> {
        let path = self.path.join(" -> ");
        Address::new(local, domain).map_err(|error| format!("{path}: {local}@{domain}: {error}"))
    }

    /// A command or a file is met in this group.
    fn program(&mut self, group: usize) {
        let owner = self.expansion.groups.get(group).and_then(|group| group.owner.clone());
        self.expansion.program_owner = self.expansion.program_owner.take().or(owner);
    }

    fn member(&mut self, address: &Address, group: usize) {
        let known = self
            .expansion
            .groups
            .iter()
            .any(|group| group.members.iter().any(|member| member.is_same(address)));
        if !known && let Some(group) = self.expansion.groups.get_mut(group) {
            group.members.push(address.clone());
        }
    }

    fn step(&mut self, value: &Value, what: String) {
        let text = String::from_utf8_lossy(&value.text);
        let text: Vec<&str> = text.split_whitespace().collect();
        let mut text = text.join(" ");
        if text.len() > 200 {
            text = text.chars().take(200).chain("...".chars()).collect();
        }
        self.expansion.steps.push(format!("{}: {text}", value.at(1, what)));
    }
}

#[cfg(test)]
mod tests;
