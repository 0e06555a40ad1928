//! The types of the configuration's values, each of which refuses what it can't be.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// syslog(3), facility mail.
    Syslog,
    /// Standard error.
    Stderr,
}

impl From<LogTarget> for crate::sys::log::Target {
    fn from(target: LogTarget) -> Self {
        match target {
            LogTarget::Syslog => Self::Syslog,
            LogTarget::Stderr => Self::Stderr,
        }
    }
}

/// Who has a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The host's accounts.
    System,
    /// The lines of a file.
    File,
}

/// How a new message starts its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wakeup {
    /// A byte into the FIFO `queue/wake`.
    Nudge,
    /// The listening parent starts a runner.
    Spawn,
    /// The next run finds it.
    None,
}

/// A lock on a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// fcntl(2) record lock.
    Fcntl,
    /// flock(2).
    Flock,
    /// `FILE.lock`.
    Dotlock,
}

/// What happens to a message for which a mailbox has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverQuota {
    /// It is refused, and its sender told.
    Refuse,
    /// It waits for room.
    Wait,
}

/// What a stranger's HELO must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeloCheck {
    /// Anything.
    None,
    /// A full name, or the client's address in brackets; and not ours.
    Syntax,
    /// And the name has an address or a mail exchange in DNS.
    Dns,
}

/// Files: none (`""`), one, or several in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Files(Vec<PathBuf>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a path or a list of paths is wanted")]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl std::ops::Deref for Files {
    type Target = [PathBuf];

    fn deref(&self) -> &[PathBuf] {
        &self.0
    }
}

impl From<PathBuf> for Files {
    fn from(path: PathBuf) -> Self {
        OneOrMany::One(path).into()
    }
}

impl From<OneOrMany> for Files {
    fn from(files: OneOrMany) -> Self {
        match files {
            OneOrMany::One(path) if path.as_os_str().is_empty() => Self::default(),
            OneOrMany::One(path) => Self(vec![path]),
            OneOrMany::Many(paths) => Self(paths),
        }
    }
}

impl From<Files> for OneOrMany {
    fn from(mut files: Files) -> Self {
        match (files.0.pop(), files.0.is_empty()) {
            (None, _) => Self::One(PathBuf::new()),
            (Some(path), true) => Self::One(path),
            (Some(path), false) => {
                files.0.push(path);
                Self::Many(files.0)
            }
        }
    }
}

/// A time span such as `90s`, `5m`, `4h` or `5d`, in whole seconds; a day has 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(u64);

impl Interval {
    /// From whole seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// In whole seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted = || format!("a time like \"5m\", \"4h\" or \"5d\" is wanted, not {text:?}");
        let span: Span = text.parse().map_err(|_| wanted())?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wanted())?;
        u64::try_from(length.as_secs()).map(Self).map_err(|_| wanted())
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s > 0 && s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s > 0 && s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s > 0 && s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

/// Addresses of one network, as `192.0.2.0/24`, `2001:db8::/32` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// This host: 127.0.0.0/8 and ::1.
    pub fn loopback() -> Vec<Self> {
        vec![
            Self { address: IpAddr::from([127, 0, 0, 0]), prefix: 8 },
            Self { address: IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]), prefix: 128 },
        ]
    }

    /// Whether the address lies in the network; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(self.prefix.into());
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(self.prefix.into());
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted =
            || format!("an address or a network like \"192.0.2.0/24\" is wanted, not {text:?}");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wanted())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|n| *n <= most).ok_or_else(wanted)?,
            None => most,
        };
        Ok(Self { address, prefix })
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.prefix)
    }
}

/// The host that takes all mail for elsewhere: `host:port`, `[192.0.2.1]:25`, `[2001:db8::1]:25`, or
/// without a port, which then is 25. Empty: there is none. A name is looked up by its addresses,
/// not by MX, whether or not it stands in brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Smarthost(Option<(Host, u16)>);

/// A host by its name or its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// By its name.
    Name(String),
    /// By its address.
    Address(IpAddr),
}

impl Smarthost {
    /// Host and port, where there is one.
    pub fn get(&self) -> Option<(&Host, u16)> {
        self.0.as_ref().map(|(host, port)| (host, *port))
    }
}

impl TryFrom<String> for Smarthost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wanted = || {
            format!(
                "a host like \"mail.example.org:25\" or \"[192.0.2.1]:25\" is wanted, not {text:?}"
            )
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wanted)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wanted)?,
            None if port.is_empty() => 25,
            None => return Err(wanted()),
        };
        let address = host.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address = address.and_then(|_| host.get(5..)).unwrap_or(host);
        let host = match address.parse() {
            Ok(address) => Host::Address(address),
            Err(_) if is_host_name(host) => Host::Name(host.to_ascii_lowercase()),
            Err(_) => return Err(wanted()),
        };
        Ok(Self(Some((host, port))))
    }
}

impl From<Smarthost> for String {
    fn from(smarthost: Smarthost) -> Self {
        match smarthost.0 {
            None => String::new(),
            Some((Host::Name(name), port)) => format!("{name}:{port}"),
            Some((Host::Address(address), port)) => format!("[{address}]:{port}"),
        }
    }
}

/// Letters, digits, hyphens and underscores between dots.
pub(super) fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}
