//! What is to be done with a message, as a value: worked out before anything is written, then
//! carried out.
//!
//! Without a `.forward` that is the inbox. Filters would make plans, too.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::recipient;
use crate::config::Config;
use crate::delivery::Failure;
use crate::mailbox::Place;
use crate::mailbox::folders::Wanted;
use crate::message::Address;
use crate::route::forward::{self, Entry};
use crate::route::resolve::Lookups;
use crate::route::table::Value;
use crate::route::{self, Destination, Expansion, Route, Tables};
use crate::sys::Account;

/// So deep may files include each other.
const MAX_DEPTH: usize = 10;

/// The steps, each kind in its order. They are taken in this order, too: what is most likely to
/// fail comes first, so that a message that has to come again repeats as little as possible.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Commands that are given the message.
    pub commands: Vec<String>,
    /// Mailboxes that it is put into.
    pub mailboxes: Vec<Place>,
    /// Whom it is sent on to.
    pub addresses: Vec<Address>,
}

impl Plan {
    /// Into the inbox.
    pub fn inbox(config: &Config, account: &Account) -> Result<Self, Failure> {
        Ok(Self { mailboxes: vec![recipient::inbox_place(config, account)?], ..Self::default() })
    }

    /// Into a folder.
    pub fn folder(config: &Config, account: &Account, folder: &Wanted) -> Result<Self, Failure> {
        let place = recipient::folders(config, account)?.place_of_delivery(folder)?;
        Ok(Self { mailboxes: vec![place], ..Self::default() })
    }

    /// What the user's `.forward+EXTENSION` or `.forward` says; `None` where there is none, or
    /// nothing in it. Anything wrong with it can be mended: the mail waits for that.
    pub fn forward(
        config: &Config,
        account: &Account,
        extension: &str,
    ) -> Result<Option<Self>, Failure> {
        for path in files(config, account, extension) {
            if let Some(entries) = read(config, account, &path)? {
                let mut making =
                    Making { config, account, plan: Self::default(), seen: HashSet::new() };
                making.include(&path, entries)?;
                // An empty file forwards nothing.
                return Ok((!making.seen.is_empty()).then_some(making.plan));
            }
        }
        Ok(None)
    }

    /// The commands and files that an address stands for as an alias. The account must be who the
    /// alias file lets it be: its owner, or anybody without rights where that is root.
    pub fn alias(config: &Config, account: &Account, recipient: &str) -> Result<Self, Failure> {
        let file = &config.paths.aliases;
        let wait = |what: String| Failure::temporary("4.3.5", what);
        let named = |what: String| wait(format!("{}{what}", file.display()));
        let found =
            std::fs::metadata(file).map_err(|error| named(format!(": can't be read: {error}")))?;
        if found.mode() & 0o022 != 0 {
            return Err(named(" may be written by others: chmod go-w it".into()));
        }
        if found.uid() != 0 && found.uid() != account.uid.as_raw() {
            let owner = found.uid();
            return Err(named(format!(" belongs to uid {owner}, not to uid {}", account.uid)));
        }
        let address = Address::parse(recipient.as_bytes())
            .map_err(|error| Failure::permanent("5.1.3", format!("{recipient}: {error}")))?;
        let tables = Tables::of(config);
        match route::resolve(config, &Programs(&tables), &address).map_err(wait)? {
            Destination::Expanded(Expansion { commands, files, .. })
                if !commands.is_empty() || !files.is_empty() =>
            {
                let places =
                    files.into_iter().map(|file| recipient::place_of(config, account, file));
                let mailboxes = places.collect::<Result<_, _>>()?;
                Ok(Self { commands, mailboxes, addresses: Vec::new() })
            }
            _ => {
                let text = format!("{recipient} has no commands and files any more");
                Err(Failure::permanent("5.1.1", text))
            }
        }
    }

    /// Whether the message goes into the inbox and nowhere else.
    pub fn is_inbox_only(&self, inbox: &Path) -> bool {
        self.commands.is_empty()
            && self.addresses.is_empty()
            && matches!(self.mailboxes.as_slice(), [one] if one.path == inbox)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = (self.commands.iter().map(|command| format!("command {command:?}")))
            .chain(self.mailboxes.iter().map(|place| format!("mailbox {}", place.path.display())))
            .chain(self.addresses.iter().map(|address| format!("forward <{address}>")));
        let steps: Vec<String> = steps.collect();
        if steps.is_empty() { f.write_str("discard") } else { f.write_str(&steps.join(", ")) }
    }
}

/// Whether mail with either extension is sent on by the same file.
pub fn is_same_file(config: &Config, account: &Account, one: &str, other: &str) -> bool {
    let found = |extension| forward_file(config, account, extension);
    one == other || found(one) == found(other)
}

/// The user's file that says what is done with mail for this extension, where there is one.
pub fn forward_file(config: &Config, account: &Account, extension: &str) -> Option<PathBuf> {
    files(config, account, extension).find(|path| path.exists())
}

/// The files that may say what is done with mail for this extension; the first that is there does.
fn files(config: &Config, account: &Account, extension: &str) -> impl Iterator<Item = PathBuf> {
    let delimiter = &config.delivery.recipient_delimiter;
    let plain = !extension.is_empty() && !extension.contains(['/', '\0']);
    let special = plain.then(|| account.home.join(format!(".forward{delimiter}{extension}")));
    special.into_iter().chain([account.home.join(".forward")])
}

/// The tables for somebody who wants commands and files only: members of included files are the
/// queue's business, and so are accounts.
struct Programs<'a>(&'a Tables);

impl Lookups for Programs<'_> {
    fn alias(&self, name: &str) -> Result<Option<Value>, String> {
        self.0.aliases.find(name).map_err(|error| error.to_string())
    }

    fn virtual_user(&self, key: &str) -> Result<Option<Value>, String> {
        self.0.virtual_users.find(key).map_err(|error| error.to_string())
    }

    fn include(&self, _: &Path, _: bool) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn has_account(&self, _: &str) -> Result<bool, String> {
        Ok(true)
    }
}

/// A plan that is being made of entries.
struct Making<'a> {
    config: &'a Config,
    account: &'a Account,
    plan: Plan,
    /// Each is done once, however often it is named.
    seen: HashSet<String>,
}

impl Making<'_> {
    fn include(&mut self, path: &Path, entries: Vec<Entry>) -> Result<(), Failure> {
        let mut files = vec![(path.to_owned(), entries.into_iter())];
        while let Some((_, entries)) = files.last_mut() {
            let Some(entry) = entries.next() else {
                files.pop();
                continue;
            };
            if !self.seen.insert(format!("{entry:?}")) {
                continue;
            }
            match entry {
                Entry::Include(file) => {
                    let missing = || {
                        let text = format!("{} does not exist; it is included", file.display());
                        Failure::temporary("4.3.5", text)
                    };
                    if files.len() > MAX_DEPTH {
                        let file = file.display();
                        let text = format!("{file}: files include each other too deeply");
                        return Err(Failure::temporary("4.3.5", text));
                    }
                    let more = read(self.config, self.account, &file)?.ok_or_else(missing)?;
                    files.push((file, more.into_iter()));
                }
                Entry::Command(command) => self.plan.commands.push(command),
                Entry::File(file) if file == Path::new("/dev/null") => {}
                Entry::File(file) => {
                    self.mailbox(recipient::place_of(self.config, self.account, file)?);
                }
                Entry::Mailbox(address) | Entry::Address(address) => {
                    if is_own(self.config, self.account, &address) {
                        self.mailbox(recipient::inbox_place(self.config, self.account)?);
                    } else if !self.plan.addresses.iter().any(|other| other.is_same(&address)) {
                        self.plan.addresses.push(address);
                    }
                }
            }
        }
        Ok(())
    }

    fn mailbox(&mut self, place: Place) {
        if !self.plan.mailboxes.iter().any(|other| other.path == place.path) {
            self.plan.mailboxes.push(place);
        }
    }
}

/// Whether an address means the account's own inbox: then it is not sent on, but kept.
fn is_own(config: &Config, account: &Account, address: &Address) -> bool {
    match route::route(config, address) {
        Route::Local(name) => {
            let name =
                if account.name.contains('@') { address.to_string() } else { name.to_owned() };
            name == account.name || name.to_ascii_lowercase() == account.name
        }
        Route::Remote(_) => false,
    }
}

/// The entries of a file, which must be the user's own and writable for nobody else; `None` where
/// there is none.
fn read(config: &Config, account: &Account, path: &Path) -> Result<Option<Vec<Entry>>, Failure> {
    let name = path.display();
    let wait = |what: String| Failure::temporary("4.3.5", format!("{name}{what}"));
    let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(wait(format!(": can't be opened: {error}"))),
    };
    let found = file.metadata().map_err(|error| wait(format!(": can't be looked at: {error}")))?;
    let (owner, uid) = (found.uid(), account.uid);
    if !found.is_file() {
        return Err(wait(" is not a regular file".into()));
    }
    if owner != uid.as_raw() {
        return Err(wait(format!(" belongs to uid {owner}, not to its user (uid {uid})")));
    }
    if found.mode() & 0o022 != 0 {
        return Err(wait(" may be written by others: chmod go-w it".into()));
    }
    let mut text = Vec::new();
    file.take(forward::MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(|error| wait(format!(": can't be read: {error}")))?;
    if text.len() as u64 > forward::MAX_FILE {
        return Err(wait(format!(" is longer than {} bytes", forward::MAX_FILE)));
    }
    let entries = forward::parse(&text, config.origin());
    entries.map(Some).map_err(|error| wait(format!(":{error}")))
}
