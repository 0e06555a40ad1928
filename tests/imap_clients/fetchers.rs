//! fetchmail, getmail and mpop: programs that bring mail here, by IMAP and by POP3, leave it there or
//! take it away, and never bring a message twice.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::{Host, Messages, NAME, PASSWORD, client, flags, has, is_content};
use super::letters::{delivered, id_of, lines};
use super::support::run::{Ran, Server, run, spawn, wait};
use super::support::store::{FORMS, USER};
use super::support::{PATIENCE, need, need_account, wait_until};

/// The messages below a directory, a file each; none is there twice.
#[track_caller]
fn brought(directory: &Path) -> Messages {
    let mut all = Messages::new();
    for (path, text) in super::host::tree(directory) {
        let text = lines(&text);
        // getmail tells where it had it from.
        let text: Vec<u8> = text
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !line.starts_with(b"X-getmail-retrieved-from-mailbox: "))
            .flatten()
            .copied()
            .collect();
        let id = id_of(&text);
        let old = all.insert(id, (BTreeSet::new(), text));
        assert!(old.is_none(), "{} is there twice", path.display());
    }
    all
}

/// A Maildir to bring messages to.
fn maildir(home: &Path) -> PathBuf {
    let maildir = home.join("Maildir");
    for part in ["tmp", "new", "cur"] {
        fs::create_dir_all(maildir.join(part)).unwrap();
    }
    maildir
}

/// Writes a file that nobody else may read, as these programs want it.
fn private(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A delivery agent that makes each message a file in a directory; and that.
fn agent(home: &Path) -> (PathBuf, PathBuf) {
    let (agent, out) = (home.join("agent"), home.join("out"));
    fs::create_dir_all(&out).unwrap();
    let text = format!("#!/bin/sh\nexec cat >\"$(mktemp {}/XXXXXX)\"\n", out.display());
    fs::write(&agent, text).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    (agent, out)
}

/// fetchmail with what stands behind `poll NAME`; each message becomes a file in `out`.
struct Fetchmail {
    home: PathBuf,
    out: PathBuf,
    rc: PathBuf,
}

impl Fetchmail {
    fn new(host: &Host, name: &str, server: &str, user: &str) -> Self {
        let home = host.home(name);
        let (agent, out) = agent(&home);
        let text = format!(
            "set invisible\npoll {NAME} {server} auth password username {USER:?} password {PASSWORD:?} \
             sslcertck sslcertfile \"{}\" {user} no rewrite mda \"{}\"\n",
            host.certificate(),
            agent.display()
        );
        let rc = private(home.join("rc"), &text);
        Self { home, out, rc }
    }

    fn command(&self) -> Command {
        let mut command = client("fetchmail", &self.home);
        command.env("FETCHMAILHOME", &self.home);
        command.args(["--nosyslog", "--nodetach", "-v", "-f"]).arg(&self.rc);
        // Root's fetchmails are one at a time otherwise.
        command.arg("--pidfile").arg(self.home.join("pid"));
        command
    }

    /// Runs it once: whether there was anything.
    #[track_caller]
    fn run(&self) -> bool {
        let ran = run(&mut self.command(), b"");
        match ran.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("{ran}"),
        }
    }
}

#[test]
fn fetchmail_keeps_or_takes_what_is_in_several_folders() {
    if !need("fetchmail") || !need_account() {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let begun = format!("protocol imap service {}", host.port());
        let encrypted = format!("protocol imap service {}", host.tls_port());
        let keeps =
            Fetchmail::new(&host, "keeps", &begun, "sslproto \"TLS1.2+\" folder INBOX,Lists keep");
        let takes = Fetchmail::new(&host, "takes", &encrypted, "ssl folder INBOX,Lists fetchall");
        let mut other = host.session();
        other.ok("CREATE Lists");
        assert!(!keeps.run());
        host.deliver(0..6);
        other.append("Lists", "", &delivered(50));
        // It is seen already.
        other.append("Lists", "\\Seen", &delivered(51));
        assert!(keeps.run());
        has(&brought(&keeps.out), (0..6).chain([50]));
        host.deliver(6..8);
        other.ok("SELECT INBOX");
        other.expunge(6);
        other.of("STORE", 2, "-FLAGS.SILENT (\\Seen)");
        fs::remove_file(file_of(&keeps.out, 2)).unwrap();
        assert!(keeps.run());
        has(&brought(&keeps.out), (0..6).chain([7, 50]));
        assert!(!keeps.run());
        let inbox = host.folder("INBOX");
        has(&inbox, (0..6).chain([7]));
        for number in [0, 2, 7] {
            assert_eq!(flags(&inbox, number), "\\Seen");
        }
        assert!(takes.run());
        has(&brought(&takes.out), (0..6).chain([7, 50, 51]));
        has(&host.folder("INBOX"), []);
        has(&host.folder("Lists"), []);
        other.log_out();
        host.ends_well();
    }
}

/// The file of the letter of this number.
fn file_of(directory: &Path, number: usize) -> PathBuf {
    let mut paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| id_of(&fs::read(path).unwrap()) == super::letters::id(number);
    paths.find(is_it).unwrap()
}

/// A fetchmail that stays until it is told to end.
struct Stays(Child);

impl Drop for Stays {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fetchmail_idles_and_has_what_comes_at_once() {
    if !need("fetchmail") || !need_account() {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let server = format!("protocol imap service {}", host.tls_port());
        let fetchmail = Fetchmail::new(&host, "fetchmail", &server, "ssl keep idle");
        host.deliver(0..2);
        let mut command = fetchmail.command();
        let mut stays =
            Stays(spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())));
        let count = || fs::read_dir(&fetchmail.out).unwrap().count();
        wait_until("what was there", || (count() == 2).then_some(()));
        let mut other = host.session();
        other.ok("SELECT INBOX");
        for number in 2..6 {
            host.deliver([number]);
            wait_until("what has come", || (count() > number).then_some(()));
        }
        other.expunge(1);
        host.deliver(6..9);
        wait_until("what has come since", || (count() == 9).then_some(()));
        wait_until("that it is marked", || {
            let inbox = host.folder("INBOX");
            inbox.values().all(|(flags, _)| flags.contains("\\Seen")).then_some(())
        });
        other.log_out();
        kill(Pid::from_raw(i32::try_from(stays.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(wait(&mut stays.0, PATIENCE).is_some());
        has(&brought(&fetchmail.out), 0..9);
        has(&host.folder("INBOX"), [0, 2, 3, 4, 5, 6, 7, 8]);
        host.ends_well();
    }
}

#[test]
fn getmail_fetches_once_what_it_leaves_and_deletes_what_it_takes() {
    if !need("getmail") || !need_account() {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let (pop, pops) = (host.popd("pop3"), host.popd("pop3s"));
        let rows = [
            ("SimpleIMAPRetriever", host.port()),
            ("SimpleIMAPSSLRetriever", host.tls_port()),
            ("SimplePOP3Retriever", pop.1.port()),
            ("SimplePOP3SSLRetriever", pops.1.port()),
        ];
        let mut other = host.session();
        other.ok("SELECT INBOX");
        for (first, (retriever, port)) in (0..).step_by(10).zip(rows) {
            let getmail = |deletes: bool| {
                let name = format!("{retriever}-{deletes}");
                let home = host.site.path().join(&name);
                if !home.is_dir() {
                    host.home(&name);
                }
                let (agent, out) = agent(&home);
                let has_tls = retriever.contains("SSL");
                let authority = format!("ca_certs = {}\n", host.certificate());
                let text = format!(
                    "[retriever]\ntype = {retriever}\nserver = {NAME}\nport = {port}\ntimeout = 30\n\
                     username = {USER}\npassword = {PASSWORD}\n{}\n[destination]\n\
                     type = MDA_external\npath = {}\nallow_root_commands = true\n\
                     unixfrom = false\n\n[options]\nread_all = false\n\
                     delivered_to = false\nreceived = false\ndelete = {deletes}\n",
                    if has_tls { &authority } else { "" },
                    agent.display()
                );
                let rc = private(home.join("rc"), &text);
                let mut command = client("getmail", &home);
                command.arg("--getmaildir").arg(&home).arg("--rcfile").arg(rc);
                let ran = run(&mut command, b"").expect(0);
                assert!(!ran.to_string().to_lowercase().contains("error"), "{ran}");
                brought(&out)
            };
            host.deliver(first..first + 4);
            has(&getmail(false), first..first + 4);
            has(&getmail(false), first..first + 4);
            host.deliver(first + 4..first + 7);
            other.expunge(first);
            has(&getmail(false), first..first + 7);
            has(&getmail(true), first + 1..first + 7);
            has(&host.folder("INBOX"), []);
        }
        other.log_out();
        is_content(&pop.0);
        is_content(&pops.0);
        host.ends_well();
    }
}

#[test]
fn fetchmail_by_pop_takes_each_message_once() {
    if !need("fetchmail") || !need_account() {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let (pop, pops) = (host.popd("pop3"), host.popd("pop3s"));
        let of = |at: &(Server, SocketAddr)| format!("protocol pop3 service {} uidl", at.1.port());
        let keeps = Fetchmail::new(&host, "keeps", &of(&pop), "sslproto \"TLS1.2+\" keep");
        let takes = Fetchmail::new(&host, "takes", &of(&pops), "ssl fetchall");
        host.deliver(0..5);
        assert!(keeps.run());
        host.deliver(5..7);
        let mut other = host.session();
        other.ok("SELECT INBOX");
        other.expunge(2);
        other.of("STORE", 0, "+FLAGS.SILENT (\\Flagged)");
        assert!(keeps.run());
        assert!(!keeps.run());
        has(&brought(&keeps.out), 0..7);
        assert!(takes.run());
        has(&brought(&takes.out), [0, 1, 3, 4, 5, 6]);
        has(&host.folder("INBOX"), []);
        other.log_out();
        is_content(&pop.0);
        is_content(&pops.0);
        host.ends_well();
    }
}

#[test]
fn mpop_logs_in_by_every_mechanism_and_takes_each_message_once() {
    if !need("mpop") {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let (pop, pops) = (host.popd("pop3"), host.popd("pop3s"));
        host.add_user("new", "scram-sha-256");
        let mpop = |name: &str, user: &str, mechanism: &str, keeps: bool, begun: bool| -> Ran {
            let home = host.site.path().join(name);
            if !home.is_dir() {
                host.home(name);
            }
            let on = |on: bool| if on { "on" } else { "off" };
            let port = if begun { pop.1.port() } else { pops.1.port() };
            let text = format!(
                "account default\nhost {NAME}\nport {port}\nuser {user}\npassword {PASSWORD}\n\
                 auth {mechanism}\ntls on\ntls_starttls {}\ntls_trust_file {}\nkeep {}\n\
                 received_header off\nuidls_file {}\ndelivery maildir {}\n",
                on(begun),
                host.certificate(),
                on(keeps),
                home.join("uidls").display(),
                maildir(&home).display()
            );
            let rc = private(home.join("rc"), &text);
            run(client("mpop", &home).arg("-C").arg(rc), b"")
        };
        let here = |name: &str| brought(&host.site.path().join(name).join("Maildir"));
        let mut next = 0;
        for mechanism in ["user", "plain", "login", "on"] {
            for begun in [true, false] {
                host.deliver(next..next + 2);
                next += 2;
                mpop("keeps", USER, mechanism, true, begun).expect(0);
                has(&here("keeps"), 0..next);
            }
        }
        let mut other = host.session();
        other.ok("SELECT INBOX");
        other.expunge(3);
        mpop("takes", USER, "plain", false, true).expect(0);
        has(&here("takes"), (0..next).filter(|number| *number != 3));
        has(&host.folder("INBOX"), []);
        for begun in [true, false] {
            mpop("keeps", "new", "scram-sha-256", true, begun).expect(0);
        }
        other.log_out();
        let log = [pop.0.log(), pops.0.log()].concat();
        for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
            assert!(log.contains(&format!("method={mechanism},")), "{mechanism}: {log}");
        }
        is_content(&pop.0);
        is_content(&pops.0);
        host.ends_well();
    }
}
