//! Debian's Postfix, Exim and OpenSMTPD as neighbours: each takes mail for a domain of its own and
//! relays all other mail to one host, which is ours. Postfix and OpenSMTPD may also hand the mail of
//! their domain over to our delivery agent, for the users of a site.
//!
//! Each stands in a temporary directory and listens on a loopback address of its own. Of the three
//! packages Debian lets only one be installed, which is Postfix here; the others are unpacked into
//! `target/neighbours` (`.ci/neighbours` does that) and see themselves as installed in a mount
//! namespace: `/usr` with their package over it, `/etc` with their configuration and accounts. The
//! namespace of processes makes sure that nothing outlives a test.

mod exim;
mod opensmtpd;
mod postfix;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::host;
use super::peer::Peer;
use super::run::{Server, children};
use super::site::{Site, must, queue_id};
use super::{find, free_port, need, need_root, skip, wait_until};

/// Who has a mailbox at each of them.
pub const USERS: [&str; 4] = ["toshi", "hunt", "alice", "bob"];

/// To whom the mailboxes of a neighbour belong; no Debian system gives the number out.
const MAILBOX_UID: u32 = 64_104;

/// The three of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postfix,
    Exim,
    OpenSmtpd,
}

pub const KINDS: [Kind; 3] = [Kind::Postfix, Kind::Exim, Kind::OpenSmtpd];

impl Kind {
    /// The domain for which it takes mail.
    pub fn domain(self) -> &'static str {
        match self {
            Self::Postfix => "postfix.test",
            Self::Exim => "exim.test",
            Self::OpenSmtpd => "opensmtpd.test",
        }
    }

    /// Its loopback address.
    pub fn ip(self) -> Ipv4Addr {
        match self {
            Self::Postfix => Ipv4Addr::new(127, 0, 0, 11),
            Self::Exim => Ipv4Addr::new(127, 0, 0, 12),
            Self::OpenSmtpd => Ipv4Addr::new(127, 0, 0, 13),
        }
    }

    /// Whether TLS works there for who calls it. OpenSMTPD of Debian 12 offers STARTTLS, but its
    /// handshake fails: version 6.8.0 signs by hooks that OpenSSL 3 does not call.
    pub fn has_working_tls(self) -> bool {
        self != Self::OpenSmtpd
    }

    /// Whether it is there, told like [`need`].
    pub fn need(self) -> bool {
        let package = match self {
            Self::Postfix => return need_root() && need("postfix") && need("unshare"),
            Self::Exim => exim::PACKAGE,
            Self::OpenSmtpd => opensmtpd::PACKAGE,
        };
        let there = unpacked(package).is_dir();
        need_root()
            && need("unshare")
            && (there || skip(&format!("needs {package}, which .ci/neighbours unpacks")))
    }
}

/// How a neighbour encrypts what it relays to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Where we offer it, whoever we are.
    May,
    /// Always, whoever we are.
    Encrypt,
    /// Always, and to the host of this name, whose certificate one in this file vouches for.
    Verify(&'static str, PathBuf),
    /// Always, and to whoever has the certificate with this SHA-256. Only Postfix knows this.
    Fingerprint(String),
}

/// Where a package is unpacked.
fn unpacked(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/neighbours").join(package)
}

/// What a neighbour is told.
struct Setting {
    kind: Kind,
    /// Its directory.
    at: PathBuf,
    address: SocketAddr,
    /// The host to which it relays; without one it relays nothing.
    next_hop: Option<SocketAddr>,
    tls: Tls,
    /// The recipients that it puts off.
    later: Vec<String>,
    /// Who delivers the mail for its domain, where it does not do so itself.
    local: Option<Local>,
}

/// The users of a site, and how mail for them is handed over, in the words of the configuration.
struct Local {
    accounts: Vec<host::Account>,
    words: String,
}

impl Setting {
    /// A path of its directory, as its configuration names it.
    fn path(&self, name: &str) -> String {
        self.at.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at.join(name), text).unwrap();
    }

    /// The host's accounts, the site's, and these.
    fn write_accounts(&self, accounts: &[(&str, u32)]) {
        let mut all: Vec<host::Account> = accounts
            .iter()
            .map(|(name, id)| host::Account {
                name: (*name).to_owned(),
                id: *id,
                home: "/nonexistent".into(),
            })
            .collect();
        all.extend(self.local.iter().flat_map(|local| local.accounts.clone()));
        self.write("etc/passwd", &host::passwd(&all));
        self.write("etc/group", &host::group(&all));
    }

    /// The next hop as it calls it: where a certificate has to have the name, by that, which a file
    /// of its host leads to the address.
    fn next_name(&self, next: SocketAddr) -> String {
        let Tls::Verify(name, _) = &self.tls else {
            return next.ip().to_string();
        };
        self.write("etc/hosts", &format!("127.0.0.1 localhost\n{} {name}\n", next.ip()));
        (*name).to_owned()
    }

    /// A directory that belongs to `uid`.
    fn make(&self, name: &str, uid: u32) {
        let path = self.at.join(name);
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }
}

/// A neighbour that runs.
pub struct Mta {
    _directory: TempDir,
    setting: Setting,
    server: Option<Server>,
}

impl Mta {
    /// Starts one at a port of its choice; without a next hop it relays nothing.
    pub fn start(kind: Kind, next_hop: Option<SocketAddr>) -> Self {
        Self::start_at(kind, free_port(&[kind.ip()]), next_hop)
    }

    pub fn start_at(kind: Kind, port: u16, next_hop: Option<SocketAddr>) -> Self {
        Self::start_with(kind, port, next_hop, Tls::May, None)
    }

    /// Starts one that relays to a host that has to encrypt, or to prove who it is.
    pub fn start_trusting(kind: Kind, next_hop: SocketAddr, tls: Tls) -> Self {
        Self::start_with(kind, free_port(&[kind.ip()]), Some(next_hop), tls, None)
    }

    /// Starts one that hands mail for its domain over, as these words of its configuration say, to
    /// the users of a site, who are accounts of its host.
    pub fn start_for(kind: Kind, site: &Site, words: &str) -> Self {
        let local = Local { accounts: host::accounts(site), words: words.to_owned() };
        Self::start_with(kind, free_port(&[kind.ip()]), None, Tls::May, Some(local))
    }

    /// Starts a Postfix whose local(8) delivers into the spool of a site.
    pub fn start_local(site: &Site) -> Self {
        // Whoever can't have the locks comes again soon. Which ones they are is left to Debian.
        let words = format!(
            "mydestination = smkwlab.net\nmail_spool_directory = {}\nlocal_recipient_maps =\nforward_path =\n\
             mailbox_command =\ndeliver_lock_attempts = 2\n\
             local_destination_concurrency_limit = 10",
            site.path().join("mail").display()
        );
        Self::start_for(Kind::Postfix, site, &words)
    }

    fn start_with(
        kind: Kind,
        port: u16,
        next_hop: Option<SocketAddr>,
        tls: Tls,
        local: Option<Local>,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("hikyaku-mta-").tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        let address = (kind.ip(), port).into();
        let setting = Setting { kind, at, address, next_hop, tls, later: Vec::new(), local };
        setting.make("etc", 0);
        setting.make("mail", MAILBOX_UID);
        if let Tls::Verify(_, authority) = &setting.tls {
            // Their accounts can't read it where it is.
            setting.write("authority.pem", &fs::read_to_string(authority).unwrap());
        }
        let certified = rcgen::generate_simple_self_signed([kind.domain().to_owned()]).unwrap();
        setting.write("certificate.pem", &certified.cert.pem());
        setting.write("key.pem", &certified.signing_key.serialize_pem());
        fs::set_permissions(setting.path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut mta = Self { _directory: directory, setting, server: None };
        mta.up();
        mta
    }

    /// Starts it; a second time after [`Self::down`].
    pub fn up(&mut self) {
        let setting = &self.setting;
        let script = match setting.kind {
            Kind::Postfix => postfix::script(setting),
            Kind::Exim => exim::script(setting),
            Kind::OpenSmtpd => opensmtpd::script(setting),
        };
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", &script])
            .current_dir(&setting.at)
            .stdin(Stdio::null())
            .stdout(fs::File::create(setting.path("stdout")).unwrap());
        let mut server = Server::start(&mut command);
        wait_until(&format!("{:?} on {}", setting.kind, setting.address), || {
            let ended = server.ended();
            assert!(ended.is_none(), "{:?}: {ended:?}: {}", setting.kind, server.log());
            TcpStream::connect(setting.address).ok()
        });
        // Its greeting comes when all of it is there.
        let mut peer = Peer::connect(setting.address);
        let greeting = peer.reply();
        assert!(greeting.starts_with("220 "), "{greeting}: {}", server.log());
        peer.command("QUIT");
        self.server = Some(server);
    }

    /// Ends it, as a power cut does. Its queue and its mailboxes stay.
    pub fn down(&mut self) {
        self.server = None;
        // Those who were killed with it may still be ending.
        wait_until("nobody to listen any more", || {
            TcpStream::connect(self.setting.address).err().map(drop)
        });
    }

    /// From now on it refuses these recipients for a while, with a reply of 4xx.
    pub fn put_off(&mut self, recipients: &[&str]) {
        self.down();
        self.setting.later = recipients.iter().map(|to| (*to).to_owned()).collect();
        self.up();
    }

    /// Has it try again at once what it has put off. Only OpenSMTPD must be told: it does not call a
    /// host again soon that has failed, but after a new start.
    pub fn hurry(&mut self) {
        if self.setting.kind == Kind::OpenSmtpd {
            self.down();
            self.up();
            opensmtpd::schedule_all(children(self.server.as_ref().unwrap().pid())[0]);
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.setting.address
    }

    /// An address of its domain.
    pub fn user(&self, name: &str) -> String {
        format!("{name}@{}", self.setting.kind.domain())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let written = fs::read_to_string(self.setting.path("log/mainlog")).unwrap_or_default();
        let said = self.server.as_ref().map(Server::log).unwrap_or_default();
        said + &written
    }

    /// How many messages it has in its queue. Only Postfix is asked.
    pub fn queued(&self) -> usize {
        fn files(directory: &Path) -> usize {
            let Ok(entries) = fs::read_dir(directory) else {
                return 0;
            };
            let count = |path: PathBuf| if path.is_dir() { files(&path) } else { 1 };
            entries.filter_map(Result::ok).map(|entry| count(entry.path())).sum()
        }
        let spool = self.setting.at.join("spool");
        ["maildrop", "incoming", "active", "deferred"]
            .iter()
            .map(|name| files(&spool.join(name)))
            .sum()
    }

    /// One of Postfix's commands, about this Postfix.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(find(name).unwrap());
        command.arg("-c").arg(self.setting.path("etc"));
        command
    }

    /// Waits until it has nothing left to do.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        wait_until("an empty queue", || (self.queued() == 0).then_some(()));
    }

    /// How many clients have connected.
    pub fn connections(&self) -> usize {
        let words = match self.setting.kind {
            Kind::Postfix => "]: connect from ",
            Kind::Exim => " (TCP/IP connection count",
            Kind::OpenSmtpd => " smtp connected ",
        };
        self.log().matches(words).count()
    }

    /// The messages of a user, as they stand in its Maildir, the oldest first.
    pub fn mail(&self, user: &str) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.setting.at.join("mail").join(user).join("new")) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
            .collect();
        files.sort();
        files.iter().map(|(_, path)| fs::read(path).unwrap()).collect()
    }

    /// Waits for a text in what it logs.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_until(&format!("{text:?} in the log of {:?}", self.setting.kind), || {
            let log = self.log();
            log.contains(text).then_some(log)
        })
    }

    /// Waits until a user has so many messages.
    #[track_caller]
    pub fn wait_for_mail(&self, user: &str, count: usize) -> Vec<Vec<u8>> {
        wait_until(&format!("{count} messages for {user}"), || {
            let mail = self.mail(user);
            (mail.len() >= count).then_some(mail)
        })
    }

    /// Hands it a message, by SMTP; Postfix's queue id.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &[&str], message: &[u8]) -> String {
        let mut peer = Peer::connect(self.address());
        peer.greet();
        let reply = peer.mail(from, to, message);
        assert!(reply.starts_with("250 "), "{reply}");
        peer.command("QUIT");
        queue_id(&reply)
    }

    /// Hands Postfix a message, and waits until it has delivered it.
    #[track_caller]
    pub fn deliver(&self, from: &str, to: &str, message: &[u8]) {
        let id = self.submit(from, &[to], message);
        let delivered = |line: &str| line.contains(&id) && line.contains(" status=sent ");
        let mut asked = Instant::now();
        wait_until(&format!("the delivery of {id}"), || {
            if self.log().lines().any(delivered) {
                return Some(());
            }
            // What it puts off while its own look into the queue is under way it forgets for long.
            if asked.elapsed() > Duration::from_secs(2) {
                must(self.command("postqueue").arg("-f"));
                asked = Instant::now();
            }
            None
        });
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        if std::thread::panicking() {
            super::note(&format!("the log of {:?}:\n{}", self.setting.kind, self.log()));
        }
    }
}
