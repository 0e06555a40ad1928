//! Debian's Postfix and Dovecot, each in a private directory, so that a transcript can be played
//! against somebody else's reading of the RFCs.
//!
//! They need root (Postfix changes to its account, Dovecot to its users). They listen on loopback
//! only, and what Postfix accepts it throws away.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls::ClientConnection;
use tempfile::TempDir;

use super::run::{Server, run};
use super::site::{Account, HOST, Site, must, must_end};
use super::tls::{Pair, VERSIONS};
use super::transcript::Host;
use super::{find, wait_until};

/// A loopback port that nobody had a moment ago.
fn free_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, super::free_port(&[Ipv4Addr::LOCALHOST])))
}

/// A private Postfix, with one port for each kind of site; whether a password is right, a Dovecot
/// tells it.
pub struct Postfix {
    _auth: Server,
    directory: TempDir,
    /// What it offers TLS with.
    pair: Pair,
    /// The kinds of `# site:` lines.
    ports: Vec<(&'static str, SocketAddr)>,
}

/// The kinds of sites, and what smtpd(8) of Postfix is told for each.
const SITES: [(&str, &str); 9] = [
    ("usual", ""),
    ("closed", "-o mynetworks="),
    ("tls", "-o smtpd_tls_security_level=may"),
    ("small", "-o message_size_limit=65536 -o smtpd_recipient_limit=100"),
    ("lookups", ""),
    ("auth", "-o mynetworks= -o smtpd_sasl_auth_enable=yes"),
    (
        "submission",
        "-o mynetworks= -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_sasl_auth_enable=yes \
         -o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes \
         -o smtpd_client_restrictions=permit_sasl_authenticated,reject",
    ),
    ("proxy", "-o smtpd_upstream_proxy_protocol=haproxy"),
    ("xclient", "-o smtpd_authorized_xclient_hosts=127.0.0.1"),
];

impl Postfix {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("hikyaku-postfix-").tempdir().unwrap();
        let at = directory.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "spool", "data"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        must(Command::new("chown").arg("postfix").arg(at.join("data")));
        let ports: Vec<_> = SITES.map(|(name, _)| (name, free_port())).to_vec();
        let pair = Pair::new();
        fs::write(at.join("etc/main.cf"), main_cf(at, &pair)).unwrap();
        fs::write(at.join("etc/master.cf"), master_cf(&ports)).unwrap();
        let auth = dovecot_auth(at);
        let postfix = Self { _auth: auth, directory, pair, ports };
        // Its daemons keep stdout open: no pipe to wait for.
        must_end(postfix.command().arg("start"));
        for (name, address) in &postfix.ports {
            wait_until(&format!("Postfix, site {name}"), || TcpStream::connect(address).ok());
        }
        postfix
    }

    fn command(&self) -> Command {
        let mut command = Command::new(find("postfix").unwrap());
        command
            .arg("-c")
            .arg(self.directory.path().join("etc"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.command().arg("stop").status();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            super::note(&format!("Postfix's log, last line first: {lines:#?}"));
        }
    }
}

impl Host for Postfix {
    fn name(&self) -> &'static str {
        "postfix"
    }

    fn address(&mut self, site: &str, _mailbox: usize) -> SocketAddr {
        let mut ports = self.ports.iter();
        ports
            .find(|(name, _)| *name == site)
            .unwrap_or_else(|| panic!("Postfix has no site {site}"))
            .1
    }

    fn tls(&self) -> ClientConnection {
        self.pair.client(VERSIONS)
    }
}

fn main_cf(at: &Path, pair: &Pair) -> String {
    let mut users = String::new();
    for account in Site::accounts() {
        write!(users, "{{{}=x}}, ", account.name).unwrap();
    }
    format!(
        "compatibility_level = 3.6
queue_directory = {at}/spool
data_directory = {at}/data
maillog_file = {at}/log
maillog_file_prefixes = {at}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {HOST}
mydestination = smkwlab.net, {HOST}
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps = inline:{{ {users}{{postmaster=x}} }}
local_transport = discard
default_transport = discard
relay_transport = discard
disable_dns_lookups = yes
smtpd_helo_required = yes
smtpd_forbid_bare_newline = normalize
smtpd_forbid_bare_newline_exclusions =
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_forbid_unauth_pipelining = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {at}/auth
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 200
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
unknown_local_recipient_reject_code = 550
",
        at = at.display(),
        certificate = pair.certificate().display(),
        key = pair.key().display()
    )
}

/// A Dovecot that serves nobody but Postfix, at `auth` in its directory.
fn dovecot_auth(at: &Path) -> Server {
    let mut users = String::new();
    for Account { name, password, .. } in Site::accounts() {
        writeln!(users, "{name}:{{PLAIN}}{password}").unwrap();
    }
    writeln!(users, "new:{{PLAIN}}pencil").unwrap();
    fs::write(at.join("users"), users).unwrap();
    let (path, at) = (at.join("dovecot.conf"), at.display());
    let text = format!(
        "protocols =
base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log.dovecot
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {at}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/
}}
service auth {{
  unix_listener {at}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"
    );
    fs::write(&path, text).unwrap();
    let mut command = Command::new(find("dovecot").unwrap());
    command.arg("-F").arg("-c").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
    let server = Server::start(&mut command);
    let socket = path.with_file_name("auth");
    wait_until("Dovecot's auth", || UnixStream::connect(&socket).ok());
    server
}

fn master_cf(ports: &[(&str, SocketAddr)]) -> String {
    let mut text = String::new();
    for ((_, options), (_, address)) in SITES.iter().zip(ports) {
        writeln!(text, "{address} inet n - n - - smtpd\n  {options}").unwrap();
    }
    text.push_str(
        "pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
",
    );
    text
}

/// A private Dovecot: POP3 and, where it has that, LMTP on loopback, over the spool and the users of
/// a [`Site`].
pub struct Dovecot {
    server: Option<Server>,
    site: Site,
    address: SocketAddr,
    lmtp: SocketAddr,
    configuration: PathBuf,
}

impl Dovecot {
    pub fn start() -> Self {
        let site = Site::new();
        let (address, lmtp) = (free_port(), free_port());
        let at = site.path().to_owned();
        let configuration = at.join("dovecot.conf");
        let text = dovecot_conf(&at, address);
        let lmtp_conf = if find(LMTPD).is_some() { dovecot_lmtp_conf(lmtp) } else { String::new() };
        fs::write(&configuration, text + &lmtp_conf).unwrap();
        // Its auth process is not root.
        fs::set_permissions(at.join("users"), fs::Permissions::from_mode(0o644)).unwrap();
        let mut command = Command::new(find("dovecot").unwrap());
        command.arg("-F").arg("-c").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null());
        let server = Some(Server::start(&mut command));
        wait_until("Dovecot", || TcpStream::connect(address).ok());
        if find(LMTPD).is_some() {
            wait_until("Dovecot's LMTP", || TcpStream::connect(lmtp).ok());
        }
        Self { server, site, address, lmtp, configuration }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.site.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            super::note(&format!("Dovecot's log, last line first: {lines:#?}"));
        }
        let doveadm = find("doveadm").unwrap();
        run(Command::new(doveadm).arg("-c").arg(&self.configuration).arg("stop"), b"");
        drop(self.server.take());
    }
}

impl Host for Dovecot {
    fn name(&self) -> &'static str {
        "dovecot"
    }

    fn address(&mut self, _site: &str, mailbox: usize) -> SocketAddr {
        fill(&self.site, mailbox);
        self.address
    }

    fn between(&mut self) {
        unlocked(&self.site);
    }
}

/// Its LMTP, which a package of its own brings.
pub const LMTPD: &str = "/usr/lib/dovecot/lmtp";

/// The same Dovecot, asked by LMTP.
pub struct DovecotLmtp(pub Dovecot);

impl Host for DovecotLmtp {
    fn name(&self) -> &'static str {
        "dovecot"
    }

    fn address(&mut self, _site: &str, _mailbox: usize) -> SocketAddr {
        self.0.lmtp
    }
}

fn dovecot_lmtp_conf(address: SocketAddr) -> String {
    format!(
        "protocols = pop3 lmtp
hostname = {HOST}
auth_username_format = %Ln
service lmtp {{
  inet_listener lmtp {{
    address = {ip}
    port = {port}
  }}
}}
",
        ip = address.ip(),
        port = address.port()
    )
}

fn dovecot_conf(at: &Path, address: SocketAddr) -> String {
    format!(
        "protocols = pop3
base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log
listen = {ip}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
mail_location = mbox:~/dovecot:INBOX={at}/mail/%u:INDEX=MEMORY
mbox_write_locks = dotlock fcntl
first_valid_uid = 1000
pop3_client_workarounds =
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {at}/users
}}
userdb {{
  driver = passwd-file
  args = {at}/users
}}
service pop3-login {{
  inet_listener pop3 {{
    address = {ip}
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
",
        at = at.display(),
        ip = address.ip(),
        port = address.port()
    )
}

/// The mailbox of every POP3 transcript: messages of known content for `hunt`.
pub fn fill(site: &Site, count: usize) {
    unlocked(site);
    let mut mbox = String::new();
    for number in 1..=count {
        write!(
            mbox,
            "From toshi@is.kyusan-u.ac.jp Mon Jun 21 03:15:2{number} 2004\n\
             From: toshi@is.kyusan-u.ac.jp\nTo: hunt@smkwlab.net\n\
             Subject: message {number}\nMessage-ID: <{number}@is.kyusan-u.ac.jp>\n\
             Date: Mon, 21 Jun 2004 03:15:2{number} +0900\n\n\
             Line one of {number}.\n.\n..two dots\nline four\n\n"
        )
        .unwrap();
    }
    site.fill("hunt", mbox.as_bytes());
}

/// Waits until the session before has let the maildrop go: its process outlives its connection.
fn unlocked(site: &Site) {
    let inbox = site.inbox("hunt");
    let dotlock = inbox.with_extension("lock");
    wait_until("the maildrop to be free", || (!dotlock.exists()).then_some(()));
}
