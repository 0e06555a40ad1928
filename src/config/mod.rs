//! The configuration: `hikyaku.toml`.
//!
//! [`parse`] is pure (text to [`Config`]); [`load`] reads the file. Every key has a default, so
//! that an empty file is a working host. The keys that exist are those of `Config::default()`:
//! the check for unknown keys, the sample file and the man page are all held against it.

mod error;
mod stamp;
mod value;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::Error;
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
    pub pop3: Connections,
    /// The IMAP server.
    pub imap: Connections,
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

/// `[paths]`. `%u`, `%d` and `%h` stand for user, domain and home directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The queue's directory; its owner is the account that the queue runs as.
    pub queue: PathBuf,
    /// A user's inbox.
    pub inbox: String,
    /// A user's folders.
    pub folders: String,
    /// A user's mailbox indexes and journals.
    pub index: String,
    /// The alias file.
    pub aliases: PathBuf,
    /// The file of virtual domains and their users.
    #[serde(rename = "virtual")]
    pub virtual_users: PathBuf,
    /// The access table.
    pub access: PathBuf,
    /// Where local-deliver and dotlock are run from.
    pub libexec: PathBuf,
}

/// `[users]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Users {
    /// The host's accounts, or a file of virtual ones.
    pub source: Source,
    /// That file: Dovecot passwd-file lines.
    pub file: PathBuf,
    /// Further passwords of users of either source, each with a scope and an end.
    pub app_passwords: PathBuf,
    /// With root, accounts below this uid are never served.
    pub min_uid: u32,
    /// The account, without rights anywhere, under which popd and imapd speak to a client that has
    /// not logged in.
    pub login: String,
}

/// `[smtp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smtp {
    /// The largest message, in bytes with CRLF line ends.
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most sessions at once.
    pub max_connections: usize,
    /// The most sessions at once from one address.
    pub max_connections_per_ip: usize,
    /// The most sessions that begin in a minute from one address; 0: any.
    pub max_connections_per_minute: usize,
    /// How long a client may take for a command, or for a piece of a message.
    pub command_time_limit: Interval,
    /// How long a session may last.
    pub session_time_limit: Interval,
    /// How long a stranger waits for the greeting; who speaks first is sent away.
    pub greet_delay: Interval,
    /// Load balancers, which say by the PROXY protocol who their clients are.
    pub proxies: Vec<Network>,
    /// Clients that may say by XCLIENT whom they speak for.
    pub xclient: Vec<Network>,
    /// VRFY is answered.
    pub vrfy: bool,
    /// EXPN is answered, to those who may relay.
    pub expn: bool,
    /// Clients that may send to other hosts through us.
    pub relay_networks: Vec<Network>,
    /// Lists of unwelcome clients, in DNS.
    pub dnsbl: Vec<String>,
    /// What a stranger's HELO must be.
    pub helo_check: HeloCheck,
    /// Strangers without a verified name are put off.
    pub require_client_name: bool,
    /// Clients of the service `smtp` may log in.
    pub auth: bool,
    /// Who has logged in sends under addresses only by which mail reaches him.
    pub senders_must_be_own: bool,
    /// Certificate and key.
    pub tls: Tls,
}

/// `[smtp.tls]`; empty paths mean no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM files of the certificate chains.
    pub certificate: Files,
    /// PEM files of their private keys, in the same order.
    pub key: Files,
    /// The file of users' client certificates; empty: none are asked for.
    pub client_certificates: PathBuf,
}

/// `[greylist]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Greylist {
    /// So long mail waits of a sender whom a stranger has not brought before; 0s: not at all.
    pub delay: Interval,
    /// Within this time it has to come again.
    pub retry_within: Interval,
    /// So long it is known who has come again.
    pub remember: Interval,
}

impl Greylist {
    /// Whether there is any.
    pub fn is_on(&self) -> bool {
        self.delay.seconds() > 0
    }
}

/// `[pop3]` and `[imap]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// The most sessions at once.
    pub max_connections: usize,
    /// The most sessions at once from one address.
    pub max_connections_per_ip: usize,
}

/// `[lmtp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lmtp {
    /// The most sessions at once.
    pub max_connections: usize,
}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// The waits between attempts; the last one repeats.
    pub retry: Vec<Interval>,
    /// After this time the sender is told that the message still waits.
    pub warn_after: Interval,
    /// After this time the message is returned.
    pub expire_after: Interval,
    /// How a new message starts its delivery.
    pub wakeup: Wakeup,
}

/// `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// The host that takes all mail for elsewhere; empty: by MX.
    pub smarthost: Smarthost,
    /// The file with `user:password` for the smarthost; empty: none.
    pub credentials: PathBuf,
    /// The port that MX hosts are called on.
    pub port: u16,
    /// The most deliveries at once.
    pub concurrency: usize,
    /// The most deliveries at once to one domain.
    pub concurrency_per_domain: usize,
    /// What parts a user's name from an extension in `user+extension`; empty: nothing does.
    pub recipient_delimiter: String,
    /// The program, with its first arguments, that takes mail which a user forwards: it is called
    /// as sendmail is.
    pub sendmail: Vec<String>,
    /// How long a command of a user's `.forward` may take.
    pub command_time_limit: Interval,
    /// The account that runs the commands and writes the files of an alias file of root's.
    pub alias_user: String,
}

/// `[dns]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Name servers; empty: those of resolv.conf.
    pub servers: Vec<std::net::SocketAddr>,
}

/// `[mailbox]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mailbox {
    /// The locks that are taken, all of them, around each change.
    pub locks: Vec<LockKind>,
    /// The largest size of a mailbox, in bytes; 0: any.
    pub quota: u64,
    /// The part of its quota, in percent, beyond which a mailbox's user is warned; 0: never.
    pub quota_warning: u8,
    /// What happens to a message for which there is no room.
    pub over_quota: OverQuota,
    /// So long a message with the same Message-ID is not delivered again; 0s: it always is.
    pub drop_duplicates: Interval,
}

/// `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Passwords are taken from other hosts without TLS.
    pub plaintext_without_tls: bool,
    /// The service of PAM's that checks the passwords of the host's accounts; empty: shadow has them.
    pub pam_service: String,
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
            pop3: Connections::default(),
            imap: Connections::default(),
            queue: Queue::default(),
            lmtp: Lmtp::default(),
            delivery: Delivery::default(),
            dns: Dns::default(),
            mailbox: Mailbox::default(),
            auth: Auth::default(),
        }
    }
}

impl Default for Greylist {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            delay: Interval::from_seconds(0),
            retry_within: Interval::from_seconds(2 * DAY),
            remember: Interval::from_seconds(35 * DAY),
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            queue: "/var/spool/hikyaku".into(),
            inbox: "/var/mail/%u".into(),
            folders: "%h/mail".into(),
            index: "%h/mail/.index".into(),
            aliases: Path::new(SYSCONFDIR).join("hikyaku/aliases"),
            virtual_users: Path::new(SYSCONFDIR).join("hikyaku/virtual"),
            access: Path::new(SYSCONFDIR).join("hikyaku/access"),
            libexec: Path::new(PREFIX).join("libexec/hikyaku"),
        }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self {
            source: Source::System,
            file: Path::new(SYSCONFDIR).join("hikyaku/users"),
            app_passwords: Path::new(SYSCONFDIR).join("hikyaku/app-passwords"),
            min_uid: 1000,
            login: "hikyaku-login".into(),
        }
    }
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            max_message_size: 52_428_800,
            max_recipients: 1000,
            max_connections: 200,
            max_connections_per_ip: 50,
            max_connections_per_minute: 0,
            command_time_limit: Interval::from_seconds(5 * 60),
            session_time_limit: Interval::from_seconds(2 * 60 * 60),
            greet_delay: Interval::from_seconds(0),
            proxies: Vec::new(),
            xclient: Vec::new(),
            vrfy: false,
            expn: false,
            relay_networks: Network::loopback(),
            dnsbl: Vec::new(),
            helo_check: HeloCheck::None,
            require_client_name: false,
            auth: false,
            senders_must_be_own: true,
            tls: Tls::default(),
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self { max_connections: 200, max_connections_per_ip: 50 }
    }
}

impl Default for Lmtp {
    fn default() -> Self {
        Self { max_connections: 100 }
    }
}

impl Default for Queue {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        Self {
            retry: [5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR]
                .map(Interval::from_seconds)
                .to_vec(),
            warn_after: Interval::from_seconds(4 * HOUR),
            expire_after: Interval::from_seconds(5 * 24 * HOUR),
            wakeup: Wakeup::Nudge,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            smarthost: Smarthost::default(),
            credentials: PathBuf::new(),
            port: 25,
            concurrency: 100,
            concurrency_per_domain: 20,
            recipient_delimiter: "+".into(),
            sendmail: vec![format!("{PREFIX}/sbin/sendmail")],
            command_time_limit: Interval::from_seconds(5 * 60),
            alias_user: "nobody".into(),
        }
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            locks: vec![LockKind::Fcntl, LockKind::Flock, LockKind::Dotlock],
            quota: 0,
            quota_warning: 90,
            over_quota: OverQuota::Refuse,
            drop_duplicates: Interval::from_seconds(0),
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

impl Smtp {
    /// Whether a client at this address may send to other hosts through us.
    pub fn may_relay(&self, client: IpAddr) -> bool {
        self.relay_networks.iter().any(|network| network.contains(client))
    }

    /// Whether a client may say by XCLIENT whom it speaks for.
    pub fn may_claim(&self, client: IpAddr) -> bool {
        self.xclient.iter().any(|network| network.contains(client))
    }

    /// Whether a load balancer of ours is at this address.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
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

impl Config {
    /// The first value that can't be meant, as its key and what is wrong with it.
    fn impossible(&self) -> Option<(&'static [&'static str], String)> {
        if !value::is_host_name(&self.hostname) {
            return Some((&["hostname"], "a host name like \"mx.example.org\" is wanted".into()));
        }
        for (key, names) in [
            (&["local_domains"] as &[_], &self.local_domains),
            (&["relay_domains"], &self.relay_domains),
            (&["smtp", "dnsbl"], &self.smtp.dnsbl),
        ] {
            if let Some(name) = names.iter().find(|name| !value::is_host_name(name)) {
                return Some((key, format!("{name:?} is no domain name")));
            }
        }
        if let Some(name) = self.relay_domains.iter().find(|name| self.is_local_domain(name)) {
            return Some((&["relay_domains"], format!("{name:?} is a local domain")));
        }
        if self.greylist.is_on() && self.greylist.retry_within <= self.greylist.delay {
            return Some((&["greylist", "retry_within"], "more than delay is wanted".into()));
        }
        for (key, pattern) in [
            (&["paths", "inbox"] as &[_], &self.paths.inbox),
            (&["paths", "folders"], &self.paths.folders),
            (&["paths", "index"], &self.paths.index),
        ] {
            match expand(pattern, "u", "d", Path::new("/h")) {
                Some(path) if path.is_absolute() => {}
                Some(_) => return Some((key, "an absolute path, or one in %h, is wanted".into())),
                None => return Some((key, "after % comes u, d, h or %".into())),
            }
        }
        for (key, path) in [
            (&["paths", "queue"] as &[_], &self.paths.queue),
            (&["paths", "aliases"], &self.paths.aliases),
            (&["paths", "virtual"], &self.paths.virtual_users),
            (&["paths", "access"], &self.paths.access),
            (&["paths", "libexec"], &self.paths.libexec),
            (&["users", "file"], &self.users.file),
            (&["users", "app_passwords"], &self.users.app_passwords),
        ] {
            if !path.is_absolute() {
                return Some((key, "an absolute path is wanted".into()));
            }
        }
        for (key, number) in [
            (&["smtp", "max_recipients"] as &[_], self.smtp.max_recipients),
            (&["smtp", "max_connections"], self.smtp.max_connections),
            (&["smtp", "max_connections_per_ip"], self.smtp.max_connections_per_ip),
            (&["pop3", "max_connections"], self.pop3.max_connections),
            (&["pop3", "max_connections_per_ip"], self.pop3.max_connections_per_ip),
            (&["imap", "max_connections"], self.imap.max_connections),
            (&["imap", "max_connections_per_ip"], self.imap.max_connections_per_ip),
            (&["lmtp", "max_connections"], self.lmtp.max_connections),
            (&["delivery", "concurrency"], self.delivery.concurrency),
            (&["delivery", "concurrency_per_domain"], self.delivery.concurrency_per_domain),
            (&["delivery", "port"], self.delivery.port.into()),
        ] {
            if number == 0 {
                return Some((key, "must be 1 or more".into()));
            }
        }
        if self.smtp.max_recipients < 100 {
            return Some((
                &["smtp", "max_recipients"],
                "must be 100 or more (RFC 5321 section 4.5.3.1.8)".into(),
            ));
        }
        if self.smtp.max_message_size < 65_536 {
            return Some((
                &["smtp", "max_message_size"],
                "must be 65536 or more (RFC 5321 section 4.5.3.1.7)".into(),
            ));
        }
        if self.queue.retry.is_empty() || self.queue.retry.iter().any(|wait| wait.seconds() == 0) {
            return Some((
                &["queue", "retry"],
                "one wait at least, none of them 0, is wanted".into(),
            ));
        }
        if matches!(self.delivery.alias_user.as_str(), "" | "root") {
            let what = "an account without rights, like \"nobody\", is wanted";
            return Some((&["delivery", "alias_user"], what.into()));
        }
        if self.delivery.recipient_delimiter.chars().count() > 1 {
            return Some((&["delivery", "recipient_delimiter"], "one character is wanted".into()));
        }
        let program = self.delivery.sendmail.first();
        if !program.is_some_and(|program| Path::new(program).is_absolute()) {
            let what = "a list like [\"/usr/sbin/sendmail\"] is wanted, with an absolute path";
            return Some((&["delivery", "sendmail"], what.into()));
        }
        // RFC 5321 section 4.5.3.2: a client waits five minutes for the greeting.
        if self.smtp.greet_delay.seconds() > 60 {
            return Some((&["smtp", "greet_delay"], "a minute at most is wanted".into()));
        }
        // As far as poll(2) counts.
        let may_wait = |time: Interval| (1..2_000_000).contains(&time.seconds());
        if !may_wait(self.smtp.command_time_limit) {
            let what = "a time above 0 and below 20d is wanted";
            return Some((&["smtp", "command_time_limit"], what.into()));
        }
        if self.smtp.session_time_limit.seconds() == 0 {
            return Some((&["smtp", "session_time_limit"], "a time above 0 is wanted".into()));
        }
        // mta-queue gives a delivery ten minutes.
        if !(1..600).contains(&self.delivery.command_time_limit.seconds()) {
            let what = "a time above 0 and below 10m is wanted";
            return Some((&["delivery", "command_time_limit"], what.into()));
        }
        if self.mailbox.quota_warning > 100 {
            return Some((&["mailbox", "quota_warning"], "a percentage is wanted".into()));
        }
        if self.mailbox.locks.is_empty() {
            return Some((&["mailbox", "locks"], "at least one lock is wanted".into()));
        }
        let credentials = &self.delivery.credentials;
        if !credentials.as_os_str().is_empty() {
            if !credentials.is_absolute() {
                return Some((&["delivery", "credentials"], "an absolute path is wanted".into()));
            }
            if self.delivery.smarthost.get().is_none() {
                return Some((&["delivery", "credentials"], "they are for a smarthost".into()));
            }
        }
        let service = &self.auth.pam_service;
        if !service.is_empty() {
            let name = &["auth", "pam_service"];
            // The library looks for it in lower case, in a file of this name.
            if !service.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
                let what = "the name of a file in /etc/pam.d, of a-z, 0-9, - and _, is wanted";
                return Some((name, what.into()));
            }
            if self.users.source != Source::System {
                return Some((name, "it is for [users] source = \"system\"".into()));
            }
            if !cfg!(feature = "pam") {
                let what = "PAM is not in this build: make all FEATURES=pam";
                return Some((name, what.into()));
            }
        }
        let Tls { certificate, key, client_certificates } = &self.smtp.tls;
        if certificate.len() != key.len() {
            let what = "certificate and key are given together, as many of the one as of the other";
            return Some((&["smtp", "tls"], what.into()));
        }
        for (name, files) in
            [(&["smtp", "tls", "certificate"] as &[_], certificate), (&["smtp", "tls", "key"], key)]
        {
            if files.iter().any(|path| !path.is_absolute()) {
                return Some((name, "an absolute path is wanted".into()));
            }
        }
        if !client_certificates.as_os_str().is_empty() {
            let name = &["smtp", "tls", "client_certificates"];
            if !client_certificates.is_absolute() {
                return Some((name, "an absolute path is wanted".into()));
            }
            if certificate.is_empty() {
                return Some((name, "they come by TLS: certificate and key are wanted".into()));
            }
        }
        None
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
