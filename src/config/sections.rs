//! The sections of the file, with their defaults.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::value::{
    Files, HeloCheck, Interval, LockKind, Network, OverQuota, Smarthost, Source, Wakeup,
};
use super::{PREFIX, SYSCONFDIR};

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
    /// How long a client may take for a command, or be silent in the middle of a message.
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
pub struct Access {
    /// The most sessions at once.
    pub max_connections: usize,
    /// The most sessions at once from one address.
    pub max_connections_per_ip: usize,
    /// Load balancers, which say by the PROXY protocol who their clients are.
    pub proxies: Vec<Network>,
    /// Certificate and key.
    pub tls: Certificates,
}

/// `[pop3.tls]` and `[imap.tls]`; empty paths mean no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// PEM files of the certificate chains.
    pub certificate: Files,
    /// PEM files of their private keys, in the same order.
    pub key: Files,
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

impl Default for Access {
    fn default() -> Self {
        Self {
            max_connections: 200,
            max_connections_per_ip: 50,
            proxies: Vec::new(),
            tls: Certificates::default(),
        }
    }
}

impl Access {
    /// Whether a load balancer of ours is at this address.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
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
