//! The configuration: `hikyaku.toml`.
//!
//! [`parse`] is pure (text to [`Config`]); [`load`] reads the file. Every key has a default, so
//! that an empty file is a working host. The keys that exist are those of `Config::default()`:
//! the check for unknown keys, the sample file and the man page are all held against it.

mod error;
mod impossible;
mod sections;
mod stamp;
mod value;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::Error;
pub use sections::{
    Access, Auth, Certificates, Delivery, Dns, Greylist, Lmtp, Mailbox, Paths, Queue, Smtp, Tls,
    Users,
};
pub use stamp::{PREFIX, SYSCONFDIR, VERSION};
pub use value::{
    Files, HeloCheck, Host, Interval, LockKind, LogTarget, Network, OverQuota, Smarthost, Source,
    Wakeup,
};

/// All of `hikyaku.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name this host gives itself in SMTP, Received fields and message ids.
    pub hostname: String,
    /// Domains whose mail is delivered here; empty means `[hostname]`.
    pub local_domains: Vec<String>,
    /// Domains whose mail is taken from everybody and sent on to their own hosts.
    pub relay_domains: Vec<String>,
    /// Where log lines go.
    pub log: LogTarget,
    /// Files and directories.
    pub paths: Paths,
    /// Who has a mailbox.
    pub users: Users,
    /// The SMTP server.
    pub smtp: Smtp,
    /// Greylisting.
    pub greylist: Greylist,
    /// The POP3 server.
    pub pop3: Access,
    /// The IMAP server.
    pub imap: Access,
    /// The queue.
    pub queue: Queue,
    /// The LMTP server.
    pub lmtp: Lmtp,
    /// Delivery, to users and to other hosts.
    pub delivery: Delivery,
    /// Name service.
    pub dns: Dns,
    /// How mailboxes are shared with other programs.
    pub mailbox: Mailbox,
    /// Passwords.
    pub auth: Auth,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: own_hostname(),
            local_domains: Vec::new(),
            relay_domains: Vec::new(),
            log: LogTarget::Syslog,
            paths: Paths::default(),
            users: Users::default(),
            smtp: Smtp::default(),
            greylist: Greylist::default(),
            pop3: Access::default(),
            imap: Access::default(),
            queue: Queue::default(),
            lmtp: Lmtp::default(),
            delivery: Delivery::default(),
            dns: Dns::default(),
            mailbox: Mailbox::default(),
            auth: Auth::default(),
        }
    }
}

impl Config {
    /// Whether mail for `domain` is delivered on this host.
    pub fn is_local_domain(&self, domain: &str) -> bool {
        if self.local_domains.is_empty() {
            return domain.eq_ignore_ascii_case(&self.hostname);
        }
        self.local_domains.iter().any(|local| domain.eq_ignore_ascii_case(local))
    }

    /// Whether mail for `domain` is taken from everybody and sent on.
    pub fn is_relay_domain(&self, domain: &str) -> bool {
        self.relay_domains.iter().any(|relay| domain.eq_ignore_ascii_case(relay))
    }

    /// The domain of an address that was written without one: this host's name where mail for it
    /// is delivered here, else the first of `local_domains`.
    pub fn origin(&self) -> &str {
        match self.local_domains.first() {
            Some(first) if !self.is_local_domain(&self.hostname) => first,
            _ => &self.hostname,
        }
    }
}

/// A path of `[paths]` with `%u` (user), `%d` (domain), `%h` (home) and `%%` put in.
///
/// `None` where a value would lead elsewhere than the pattern says: a name that is empty, `.` or
/// `..`, or has a slash or a NUL.
pub fn expand(pattern: &str, user: &str, domain: &str, home: &Path) -> Option<PathBuf> {
    fn plain(name: &str) -> bool {
        !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
    }
    let mut path = std::ffi::OsString::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            path.push(c.encode_utf8(&mut [0; 4]));
            continue;
        }
        match characters.next() {
            Some('u') if plain(user) => path.push(user),
            Some('d') if plain(domain) => path.push(domain),
            Some('h') => path.push(home),
            Some('%') => path.push("%"),
            _ => return None,
        }
    }
    Some(path.into())
}

/// Parses the text of the file `name`.
pub fn parse(name: &Path, text: &str) -> Result<Config, Error> {
    match toml::from_str::<Config>(text) {
        Ok(config) if config.impossible().is_none() => Ok(config),
        parsed => Err(diagnose(name, text, parsed)),
    }
}

/// What is wrong with a text that makes no configuration, and where. (A second look, which a right
/// one does not cost.)
fn diagnose(name: &Path, text: &str, parsed: Result<Config, toml::de::Error>) -> Error {
    let document = match toml::de::DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => return Error::at(name, text, error.span(), error.message()),
    };
    if let Err(error) = error::check_keys(name, text, document.get_ref()) {
        return error;
    }
    match parsed {
        Err(error) => Error::at(name, text, error.span(), error.message()),
        Ok(config) => {
            let (path, what) = config.impossible().unwrap_or_default();
            Error::at(name, text, error::span_of(document.get_ref(), path), &what)
        }
    }
}

/// Reads the configuration: `explicit` (from `-C`), or the default file, which may be missing.
pub fn load(explicit: Option<&Path>) -> Result<Config, Error> {
    let default = Path::new(SYSCONFDIR).join("hikyaku/hikyaku.toml");
    let path = explicit.unwrap_or(&default);
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => parse(path, &text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Err(Error::at(path, &text, Some(valid..valid), "not UTF-8 text"))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && explicit.is_none() => {
            Ok(Config::default())
        }
        Err(error) => Err(Error::unreadable(path, &error)),
    }
}

/// gethostname(2), or `localhost` where it can't be a host name.
fn own_hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests;
