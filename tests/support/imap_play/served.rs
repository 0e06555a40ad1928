//! Who serves the transcripts: our imapd, on mboxes and on Maildirs, and Debian's Dovecot.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use rustls::ClientConnection;

use super::super::run::{Server, run};
use super::super::site::{Plan, Site};
use super::super::tls::{Pair, VERSIONS};
use super::super::{find, free_port, wait_until};
use super::node::{Node, Response};
use super::play::{Host, PASSWORD};

/// So many users there are, one for each transcript.
const USERS: usize = 500;

/// When the messages of an inbox came: 2004-06-21 03:15:20 +0900, as their From_ lines say.
const CAME: u64 = 1_087_755_320;
const FROM: &str = "From toshi@is.kyusan-u.ac.jp Mon Jun 21 03:15:20 2004\n";

/// The users of a site: whoever was somebody once is nobody again.
struct Users {
    site: Site,
    maildirs: bool,
    next: usize,
}

impl Users {
    fn new(plan: Plan, maildirs: bool) -> Self {
        let plan = if maildirs {
            let maildir = "\"%h/Maildir/\"";
            plan.set("paths", "inbox", maildir).set("paths", "folders", maildir)
        } else {
            plan
        };
        let site = plan.build();
        let (uid, gid) = owner();
        let users = (0..USERS).fold(String::new(), |mut text, number| {
            let home = site.home(&format!("u{number}"));
            let home = home.display();
            writeln!(text, "u{number}:{{PLAIN}}{PASSWORD}:{uid}:{gid}::{home}::").unwrap();
            text
        });
        fs::write(site.path().join("users"), users).unwrap();
        Self { site, maildirs, next: 0 }
    }

    /// A user with these messages.
    fn next(&mut self, inbox: &[Vec<u8>]) -> String {
        let user = format!("u{}", self.next);
        self.next += 1;
        assert!(self.next < USERS);
        let home = self.site.home(&user);
        own_directory(&home);
        if self.maildirs {
            let maildir = home.join("Maildir");
            for directory in ["", "cur", "new", "tmp"] {
                own_directory(&maildir.join(directory));
            }
            for (number, message) in (CAME..).zip(inbox) {
                own_file(&maildir.join(format!("new/{number}.x.host")), message);
            }
        } else {
            let text = |message: &Vec<u8>| [FROM.as_bytes(), message, b"\n"].concat();
            let text: Vec<u8> = inbox.iter().flat_map(text).collect();
            own_file(&self.site.inbox(&user), &text);
        }
        user
    }
}

/// Whose the homes are.
fn owner() -> (u32, u32) {
    let account = Site::account("hunt");
    (account.uid, account.gid)
}

fn own_directory(path: &Path) {
    let _ = fs::create_dir(path);
    own(path, 0o700);
}

fn own_file(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(CAME))
        .unwrap();
    own(path, 0o600);
}

fn own(path: &Path, mode: u32) {
    if super::super::is_root() {
        let (uid, gid) = owner();
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Our imapd, one for each kind of site.
pub struct Ours {
    maildirs: bool,
    pair: Pair,
    running: Vec<(String, Server, SocketAddr, Users)>,
}

impl Ours {
    pub fn new(maildirs: bool) -> Self {
        Self { maildirs, pair: Pair::new(), running: Vec::new() }
    }

    fn plan(&self, site: &str) -> Plan {
        match site {
            "usual" => Site::plan(),
            // A load balancer says where clients come from; there is TLS.
            "proxy" => {
                let plan = self.pair.plan_for("imap.tls", Site::plan());
                plan.set("imap", "proxies", "[\"127.0.0.1\"]")
            }
            "tls" => self.pair.plan_for("imap.tls", Site::plan()),
            "small" => Site::plan().set("smtp", "max_message_size", "65536"),
            _ => panic!("no site {site}"),
        }
    }
}

impl Host for Ours {
    fn name(&self) -> &'static str {
        if self.maildirs { "maildir" } else { "ours" }
    }

    fn user(&mut self, site: &str, inbox: &[Vec<u8>]) -> (SocketAddr, String) {
        if !self.running.iter().any(|(name, ..)| name == site) {
            let users = Users::new(self.plan(site), self.maildirs);
            let (server, address) = users.site.serve("imapd");
            self.running.push((site.to_owned(), server, address, users));
        }
        let of_site = self.running.iter_mut().find(|(name, ..)| name == site);
        let (_, _, address, users) = of_site.unwrap();
        (*address, users.next(inbox))
    }

    fn tls(&self) -> ClientConnection {
        self.pair.client(VERSIONS)
    }
}

/// A private Dovecot over the users of a site.
pub struct Dovecot {
    server: Option<Server>,
    users: Users,
    pair: Pair,
    /// By kind of site.
    ports: [(&'static str, SocketAddr); 4],
}

impl Dovecot {
    pub fn start() -> Self {
        let users = Users::new(Site::plan(), false);
        let pair = Pair::new();
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&[Ipv4Addr::LOCALHOST])));
        let (usual, proxy) = (port(), port());
        let ports = [("usual", usual), ("tls", usual), ("proxy", proxy), ("small", usual)];
        let at = users.site.path().to_owned();
        let configuration = at.join("dovecot.conf");
        fs::write(&configuration, dovecot_conf(&at, &pair, usual, proxy)).unwrap();
        // Its auth process is not root.
        fs::set_permissions(at.join("users"), fs::Permissions::from_mode(0o644)).unwrap();
        let mut command = Command::new(find("dovecot").unwrap());
        command.arg("-F").arg("-c").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("TZ", "Asia/Tokyo");
        let server = Some(Server::start(&mut command));
        wait_until("Dovecot", || TcpStream::connect(usual).ok());
        Self { server, users, pair, ports }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let at = self.users.site.path();
        if std::thread::panicking() {
            let log = fs::read_to_string(at.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            super::super::note(&format!("Dovecot's log, last line first: {lines:#?}"));
        }
        let doveadm = find("doveadm").unwrap();
        run(Command::new(doveadm).arg("-c").arg(at.join("dovecot.conf")).arg("stop"), b"");
        drop(self.server.take());
    }
}

impl Host for Dovecot {
    fn name(&self) -> &'static str {
        "dovecot"
    }

    fn user(&mut self, site: &str, inbox: &[Vec<u8>]) -> (SocketAddr, String) {
        let of_site = self.ports.iter().find(|(name, _)| *name == site);
        (of_site.unwrap().1, self.users.next(inbox))
    }

    fn tls(&self) -> ClientConnection {
        self.pair.client(VERSIONS)
    }

    /// CONDSTORE.
    fn adds(&self, response: &Response) -> bool {
        let word = response.code().and_then(|code| code.first());
        let is = |text: &str| word == Some(&Node::Word(text.into()));
        response.word(0) == "*" && (is("HIGHESTMODSEQ") || is("NOMODSEQ"))
    }
}

fn dovecot_conf(at: &Path, pair: &Pair, usual: SocketAddr, proxy: SocketAddr) -> String {
    format!(
        "protocols = imap
base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
haproxy_trusted_networks = 127.0.0.1
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = mbox:~/mail:INBOX={at}/mail/%u:DIRNAME=mbox-messages
mbox_write_locks = dotlock fcntl
first_valid_uid = 1
mail_max_userip_connections = 0
imap_idle_notify_interval = 1 mins
mailbox_idle_check_interval = 1 secs
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    special_use = \\Sent
  }}
  mailbox Drafts {{
    special_use = \\Drafts
  }}
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {at}/users
}}
userdb {{
  driver = passwd-file
  args = {at}/users
}}
service imap-login {{
  inet_listener imap {{
    address = {ip}
    port = {usual}
  }}
  inet_listener imaps {{
    port = 0
  }}
  inet_listener imap_haproxy {{
    address = {ip}
    port = {proxy}
    haproxy = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
",
        at = at.display(),
        certificate = pair.certificate().display(),
        key = pair.key().display(),
        ip = usual.ip(),
        usual = usual.port(),
        proxy = proxy.port(),
    )
}
