//! `local-deliver` through its real binary: what it writes, what it refuses, and how it ends.
//!
//! As root it delivers to `nobody`, else to whoever runs the tests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on fails"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hikyaku::config::LockKind;
use hikyaku::mailbox::{MboxStore, Place, Store};
use hikyaku::sys::Account;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, geteuid};

const PROGRAM: &str = env!("CARGO_BIN_EXE_local-deliver");

const OK: i32 = 0;
const USAGE: i32 = 64;
const DATAERR: i32 = 65;
const NOUSER: i32 = 67;
const IOERR: i32 = 74;
const CANTCREAT: i32 = 73;
const TEMPFAIL: i32 = 75;
const NOPERM: i32 = 77;
const CONFIG: i32 = 78;

/// A spool with one user.
struct Host {
    dir: tempfile::TempDir,
    account: Account,
    spool: PathBuf,
    inbox: PathBuf,
}

impl Host {
    fn new() -> Self {
        let uid = if geteuid().is_root() { Uid::from_raw(65534) } else { geteuid() };
        let account = Account::by_uid(uid).unwrap().unwrap();
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let spool = dir.path().join("spool");
        for name in ["spool", "users"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            chown(&path, Some(account.uid.as_raw()), None).unwrap();
        }
        let host = Self { inbox: spool.join(&account.name), dir, account, spool };
        host.configure("");
        host
    }

    fn configure(&self, more: &str) {
        let libexec = Path::new(PROGRAM).parent().unwrap().display();
        let (spool, dir) = (self.spool.display(), self.dir.path().display());
        let text = format!(
            "hostname = \"mx.example.org\"\nlog = \"stderr\"\n[users]\nmin_uid = 1\n[paths]\n\
             inbox = \"{spool}/%u\"\nindex = \"{dir}/users/%u/.index\"\nlibexec = \"{libexec}\"\n{more}"
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("hikyaku.toml")
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("-C").arg(self.config()).args(arguments);
        feed(&mut command, input)
    }

    /// Delivers to the user.
    fn deliver(&self, input: &[u8]) -> Output {
        self.run(&["-f", "s@b.org", &self.account.name], input)
    }

    fn content(&self) -> String {
        String::from_utf8(fs::read(&self.inbox).unwrap()).unwrap()
    }

    fn put(&self, content: &str) {
        fs::write(&self.inbox, content).unwrap();
        chown(&self.inbox, Some(self.account.uid.as_raw()), None).unwrap();
    }

    /// The messages as clients get them.
    fn shown(&self) -> Vec<String> {
        let mut mailbox = MboxStore::open(Place {
            path: self.inbox.clone(),
            // Whoever reads it here may not be the user.
            index: "/dev/null/index".into(),
            owner: self.account.uid,
            locks: vec![LockKind::Fcntl, LockKind::Flock],
            libexec: PathBuf::new(),
            lock_timeout: Duration::from_secs(5),
            quota: 0,
        })
        .unwrap();
        let messages = mailbox.messages().unwrap();
        let mut shown = Vec::new();
        for message in messages {
            let mut out = Vec::new();
            let mut sink = |bytes: &[u8]| {
                out.extend_from_slice(bytes);
                Ok(())
            };
            mailbox.read(message.uid, 0..u64::MAX, &mut sink).unwrap();
            assert_eq!(message.size, out.len() as u64);
            shown.push(String::from_utf8(out).unwrap());
        }
        shown
    }

    /// A message as it is stored, less its From_ line, with room for so many bytes of keywords.
    fn stored(&self, more: &str, length: usize, room: usize, rest: &str) -> String {
        let name = &self.account.name;
        format!(
            "Return-Path: <s@b.org>\nDelivered-To: {name}@mx.example.org\n\
             Content-Length: {length}\n{more}Status:{blank:10}\nX-Status:{blank:10}\n\
             X-Keywords:{blank:room$}\n{rest}\n",
            blank = ""
        )
    }
}

fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn expect(output: &Output, status: i32, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(said), "{said:?} is not in {stderr:?}");
    assert!(output.stdout.is_empty());
}

/// The From_ line and the rest.
fn after_from(content: &str) -> &str {
    let (from, rest) = content.split_once('\n').unwrap();
    assert!(from.starts_with("From s@b.org "), "{from}");
    rest
}

#[test]
fn a_message_is_appended_byte_for_byte() {
    let host = Host::new();
    let output = host.deliver(b"Subject: a\r\nStatus: RO\r\n\r\nx\r\nFrom y\r\n.\r\nlast");
    let said = format!("to=<{}@mx.example.org> status=delivered size=", host.account.name);
    expect(&output, OK, &said);
    let rest = "Subject: a\n\nx\n>From y\n.\nlast\n";
    let first = host.stored("X-Mbox-Quoted: yes\n", 17, 150, rest);
    assert_eq!(after_from(&host.content()), first);
    let found = fs::metadata(&host.inbox).unwrap();
    assert_eq!(found.uid(), host.account.uid.as_raw());
    assert_eq!(found.mode() & 0o777, 0o600);
    expect(&host.deliver(b"From x@y Thu Jan  1 00:00:00 1970\nB: 1\n\nz\n"), OK, "");
    let content = host.content();
    let second = content.strip_prefix(content.lines().next().unwrap()).unwrap();
    let second = second.strip_prefix('\n').unwrap().strip_prefix(&first).unwrap();
    assert_eq!(after_from(second), host.stored("", 2, 90, "B: 1\n\nz\n"));
    let head = |name: &str| {
        let user = &host.account.name;
        format!("Return-Path: <s@b.org>\r\nDelivered-To: {user}@mx.example.org\r\n{name}\r\n\r\n")
    };
    assert_eq!(
        host.shown(),
        [head("Subject: a") + "x\r\nFrom y\r\n.\r\nlast\r\n", head("B: 1") + "z\r\n"]
    );
}

#[test]
fn the_null_sender_is_mailer_daemon_and_the_default_is_the_caller() {
    let host = Host::new();
    for from in ["", "<>"] {
        expect(&host.run(&["-f", from, "-d", &host.account.name], b"A: 1\n\n"), OK, "");
        let content = host.content();
        assert!(content.starts_with("From MAILER-DAEMON "));
        assert!(content.contains("\nReturn-Path: <>\n"));
        fs::remove_file(&host.inbox).unwrap();
    }
    expect(&host.run(&[&host.account.name], b"A: 1\n\n"), OK, "");
    let caller = Account::by_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    assert!(host.content().contains(&format!("\nReturn-Path: <{caller}>\n")));
}

#[test]
fn a_message_that_comes_with_a_from_line_says_itself_who_sent_it() {
    let host = Host::new();
    let from = "From a@b.org Mon Jun 21 03:15:20 2004\n";
    for (head, option, sender) in [
        ("", None, "a@b.org"),
        ("Return-Path: <o'c@b.org>\n", None, "o'c@b.org"),
        ("Return-Path: <o'c@b.org>\n", Some("x@b.org"), "x@b.org"),
    ] {
        let mut arguments = vec!["-d", host.account.name.as_str()];
        arguments.extend(option.iter().flat_map(|option| ["-f", *option]));
        expect(&host.run(&arguments, format!("{from}{head}A: 1\n\n").as_bytes()), OK, "");
        let content = host.content();
        assert!(content.starts_with(&format!("From {sender} ")), "{content}");
        assert!(
            content.contains(&format!("\nReturn-Path: <{sender}>\nDelivered-To: ")),
            "{content}"
        );
        fs::remove_file(&host.inbox).unwrap();
    }
}

#[test]
fn where_the_users_file_is_closed_to_its_users_each_is_known_by_their_own_name() {
    let host = Host::new();
    let users = host.dir.path().join("passwords");
    fs::write(&users, "").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o000)).unwrap();
    let text = fs::read_to_string(host.config()).unwrap();
    let section = format!("[users]\nsource = \"file\"\nfile = {users:?}\n");
    fs::write(host.config(), text.replace("[users]\n", &section)).unwrap();
    let name = &host.account.name;
    let ids = [host.account.uid.as_raw(), host.account.gid.as_raw()].map(|id| id.to_string());
    for (number, user) in ["", "+x", "@mx.example.org", "+x@mx.example.org"].iter().enumerate() {
        let mut command = Command::new(PROGRAM);
        if geteuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid", &ids[0], "--regid", &ids[1], "--clear-groups", PROGRAM]);
        }
        command.arg("-C").arg(host.config()).args(["-f", "s@b.org", "-d"]);
        command.arg(format!("{name}{user}")).env("HOME", host.dir.path().join("users"));
        expect(&feed(&mut command, b"A: 1\n\n"), OK, "status=delivered");
        assert_eq!(host.content().matches("\nDelivered-To: ").count(), number + 1, "{user}");
    }
    assert_eq!(host.content().matches(&format!("\nDelivered-To: {name}+x@")).count(), 2);
}

#[test]
fn a_sender_and_an_extension_may_begin_with_a_hyphen() {
    let host = Host::new();
    let name = &host.account.name;
    expect(&host.run(&["-f", "-d@b.org", "-a", "-n", "-d", name], b"A: 1\n\n"), OK, "");
    let content = host.content();
    assert!(content.contains("\nReturn-Path: <-d@b.org>\n"), "{content}");
    let to = format!("\nDelivered-To: {name}+-n@mx.example.org\n");
    assert!(content.contains(&to), "{content}");
}

#[test]
fn exit_statuses_tell_the_caller_what_to_do() {
    let host = Host::new();
    expect(&host.deliver(b""), DATAERR, "no message");
    assert!(!host.inbox.exists() || host.content().is_empty());
    expect(&host.run(&["no-such-user"], b"A: 1\n\n"), NOUSER, "no user no-such-user");
    expect(&host.run(&["--no-such-flag"], b""), USAGE, "--no-such-flag");
    expect(&host.run(&["-f", "a\nb", "x"], b""), USAGE, "control");
    expect(&host.run(&["../x"], b"A: 1\n\n"), NOUSER, "");
    let root = if geteuid().is_root() { NOUSER } else { NOPERM };
    expect(&host.run(&["root"], b"A: 1\n\n"), root, "root");
    // The good one is delivered all the same.
    let both = host.run(&["no-such-user", &host.account.name], b"A: 1\n\n");
    expect(&both, NOUSER, "status=delivered");
    fs::write(host.config(), "nonsense = 1\n").unwrap();
    expect(&host.deliver(b"A: 1\n\n"), CONFIG, "nonsense");
}

#[test]
fn an_input_that_breaks_off_delivers_nothing() {
    let host = Host::new();
    let output = Command::new(PROGRAM)
        .arg("-C")
        .arg(host.config())
        .arg(&host.account.name)
        // Reading a directory fails.
        .stdin(fs::File::open("/").unwrap())
        .output()
        .unwrap();
    expect(&output, IOERR, "can't be read");
    assert!(!host.inbox.exists() || host.content().is_empty());
}

#[test]
fn a_message_over_the_limit_is_refused_for_good() {
    let host = Host::new();
    host.configure("[smtp]\nmax_message_size = 65536\n");
    let mut message = b"A: 1\n\n".to_vec();
    message.resize(65536, b'x');
    expect(&host.deliver(&message), DATAERR, "5.3.4");
    message.truncate(65000);
    expect(&host.deliver(&message), OK, "");
    // Many lines: each line end counts as two.
    let lines = [&b"A: 1\n\n"[..], &b"x\n".repeat(30_000)].concat();
    expect(&host.deliver(&lines), DATAERR, "5.3.4");
}

#[test]
fn what_may_not_be_a_mailbox_is_refused_and_the_mail_waits() {
    let host = Host::new();
    let other = host.spool.join("other");
    let refused = |said: &str| {
        expect(&host.deliver(b"A: 1\n\nx\n"), TEMPFAIL, said);
        expect(&host.deliver(b"A: 1\n\nx\n"), TEMPFAIL, "status=deferred 4.3.0");
    };
    fs::write(&other, "").unwrap();
    symlink(&other, &host.inbox).unwrap();
    refused("is a symbolic link");
    fs::remove_file(&host.inbox).unwrap();
    symlink(host.spool.join("nowhere"), &host.inbox).unwrap();
    refused("is a symbolic link");
    fs::remove_file(&host.inbox).unwrap();
    host.put("");
    fs::hard_link(&host.inbox, host.spool.join("second")).unwrap();
    refused("has a second name");
    fs::remove_file(&host.inbox).unwrap();
    fs::create_dir(&host.inbox).unwrap();
    refused("is a directory");
    fs::remove_dir(&host.inbox).unwrap();
    nix::unistd::mkfifo(&host.inbox, nix::sys::stat::Mode::S_IRWXU).unwrap();
    chown(&host.inbox, Some(host.account.uid.as_raw()), None).unwrap();
    refused("is not a regular file");
    fs::remove_file(&host.inbox).unwrap();
    if geteuid().is_root() {
        fs::write(&host.inbox, "").unwrap();
        fs::set_permissions(&host.inbox, fs::Permissions::from_mode(0o666)).unwrap();
        refused("belongs to uid 0");
        fs::remove_file(&host.inbox).unwrap();
    }
    fs::set_permissions(&host.spool, fs::Permissions::from_mode(0o777)).unwrap();
    refused("sticky");
    fs::set_permissions(&host.spool, fs::Permissions::from_mode(0o1777)).unwrap();
    expect(&host.deliver(b"A: 1\n\nx\n"), OK, "");
    assert_eq!(fs::read(&other).unwrap(), b"");
}

#[test]
fn a_full_disk_leaves_the_mailbox_as_it_was() {
    let host = Host::new();
    host.put("From a@b Thu Jan  1 00:00:00 1970\n\nold\n\n");
    let before = host.content();
    let script = "ulimit -f 20; exec \"$@\"";
    let mut message = b"A: 1\n\n".to_vec();
    message.resize(200_000, b'x');
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", PROGRAM, "-C"]).arg(host.config());
    command.args(["-f", "s@b.org", &host.account.name]);
    expect(&feed(&mut command, &message), TEMPFAIL, "4.3.1");
    assert_eq!(host.content(), before);
    expect(&host.deliver(b"A: 1\n\nx\n"), OK, "");
    assert!(host.content().starts_with(&before));
    assert_eq!(host.shown().len(), 2);
}

#[test]
fn twenty_processes_at_once_lose_and_tear_nothing() {
    const EACH: usize = 50;
    let host = Host::new();
    std::thread::scope(|scope| {
        for process in 0..20 {
            let host = &host;
            scope.spawn(move || {
                for n in 0..EACH {
                    let body = format!("{process}.{n} ").repeat(n * 7);
                    let message = format!("Subject: {process}.{n}\n\n{body}\nFrom me\n");
                    expect(&host.deliver(message.as_bytes()), OK, "");
                }
            });
        }
    });
    let mut subjects: Vec<String> = host
        .shown()
        .iter()
        .map(|message| {
            let subject = message.split_once("Subject: ").unwrap().1;
            let (subject, rest) = subject.split_once("\r\n\r\n").unwrap();
            let n: usize = subject.split_once('.').unwrap().1.parse().unwrap();
            let body = format!("{subject} ").repeat(n * 7);
            assert_eq!(rest, format!("{body}\r\nFrom me\r\n"));
            subject.to_owned()
        })
        .collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), 20 * EACH);
    assert!(!host.spool.join(format!("{}.lock", host.account.name)).exists());
}

#[test]
fn a_foreign_lock_makes_the_mail_wait() {
    let host = Host::new();
    host.put("");
    let other = fs::File::options().write(true).open(&host.inbox).unwrap();
    other.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| host.deliver(b"A: 1\n\nx\n"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(host.content(), "");
        other.unlock().unwrap();
        expect(&waiting.join().unwrap(), OK, "");
    });
}

#[test]
fn a_signal_ends_the_waiting_and_the_exit_status_tells_what_came_of_it() {
    let host = Host::new();
    host.put("");
    let other = fs::File::options().write(true).open(&host.inbox).unwrap();
    other.lock().unwrap();
    // For several, root waits for one process after the other.
    let several = ["daemon"].iter().filter(|_| geteuid().is_root());
    for more in [Vec::new(), several.collect()] {
        let mut command = Command::new(PROGRAM);
        command.arg("-C").arg(host.config()).args(["-v", "-f", "s@b.org", &host.account.name]);
        command.args(more).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"A: 1\n\nx\n").unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains(": mailbox "), "it has all, and says what it will do: {line}");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("status=deferred 4.2.0"), "{line}");
        std::io::copy(&mut said, &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(TEMPFAIL));
        assert_eq!(host.content(), "");
    }
}

#[test]
fn the_setgid_helper_locks_where_the_user_may_not() {
    if !geteuid().is_root() {
        return;
    }
    let Some(mail) = nix::unistd::Group::from_name("mail").unwrap() else {
        return;
    };
    let host = Host::new();
    let libexec = host.dir.path().join("libexec");
    fs::create_dir(&libexec).unwrap();
    let helper = libexec.join("dotlock");
    fs::copy(env!("CARGO_BIN_EXE_dotlock"), &helper).unwrap();
    let mail: Gid = mail.gid;
    chown(&host.spool, Some(0), Some(mail.as_raw())).unwrap();
    fs::set_permissions(&host.spool, fs::Permissions::from_mode(0o2775)).unwrap();
    let text = fs::read_to_string(host.config()).unwrap();
    let build = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let text = text.replace(&build, &libexec.display().to_string());
    fs::write(host.config(), text).unwrap();
    // Not setgid yet: it can't help, and says so.
    expect(&host.deliver(b"A: 1\n\nx\n"), TEMPFAIL, "setgid mail");
    assert_eq!(host.content(), "");
    assert_eq!(fs::metadata(&host.inbox).unwrap().mode() & 0o777, 0o660);
    chown(&helper, Some(0), Some(mail.as_raw())).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o2755)).unwrap();
    let output = host.deliver(b"A: 1\n\nx\n");
    if String::from_utf8_lossy(&output.stderr).contains("setgid") {
        // The file system is mounted nosuid.
        return;
    }
    expect(&output, OK, "delivered");
    assert_eq!(host.shown().len(), 1);
    let lock = host.spool.join(format!("{}.lock", host.account.name));
    assert!(!lock.exists());
    // It holds on until its input ends, and refuses a second one.
    let as_user = || {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (host.account.uid.to_string(), host.account.gid.to_string());
        command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        command.arg(&helper);
        command
    };
    let mut holder =
        as_user().arg(&host.inbox).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    holder.stdin.as_mut().unwrap().write_all(b"l").unwrap();
    let mut answer = [0];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut answer).unwrap();
    assert_eq!(answer, *b"y");
    assert!(lock.exists());
    assert_eq!(feed(as_user().arg(&host.inbox), b"l").stdout, b"n");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert!(!lock.exists());
    // Nobody else's mailbox can be locked.
    let foreign = host.spool.join("root");
    fs::write(&foreign, "").unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = feed(as_user().arg(&foreign), b"l").stdout;
    assert!(refused.starts_with(b"e"), "{refused:?}");
    assert!(!host.spool.join("root.lock").exists());
}

/// The texts in a Maildir's `new/`.
fn in_maildir(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.join("new")).into_iter().flatten();
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

impl Host {
    /// Puts keys into a section that the configuration has already.
    fn set(&self, section: &str, keys: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        let text = text.replace(&format!("[{section}]\n"), &format!("[{section}]\n{keys}\n"));
        fs::write(self.config(), text).unwrap();
    }

    fn folders(&self) -> PathBuf {
        self.dir.path().join("users").join(&self.account.name)
    }
}

#[test]
fn an_inbox_that_ends_in_a_slash_is_a_maildir() {
    let host = Host::new();
    let text = fs::read_to_string(host.config()).unwrap();
    fs::write(host.config(), text.replace("/%u\"\nindex", "/%u/\"\nindex")).unwrap();
    expect(&host.deliver(b"A: 1\r\n\r\nFrom x\r\n"), OK, "status=delivered");
    let name = &host.account.name;
    let head = format!("Return-Path: <s@b.org>\nDelivered-To: {name}@mx.example.org\n");
    assert_eq!(in_maildir(&host.inbox), [format!("{head}A: 1\n\nFrom x\n")]);
    assert_eq!(fs::metadata(&host.inbox).unwrap().uid(), host.account.uid.as_raw());
    assert_eq!(fs::metadata(&host.inbox).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_is_an_mbox_or_a_maildir_as_it_is_named_or_found() {
    let host = Host::new();
    host.set("paths", &format!("folders = \"{}/users/%u\"", host.dir.path().display()));
    let into = |folder: &str| {
        let name = host.account.name.clone();
        expect(&host.run(&["-f", "s@b.org", "-m", folder, &name], b"A: 1\n\nx\n"), OK, "mailbox=");
    };
    let folders = host.folders();
    // As mutt or a person made it.
    let name = &host.account.name;
    fs::create_dir_all(folders.join("plain")).unwrap();
    for path in [&folders, &folders.join("plain")] {
        chown(path, Some(host.account.uid.as_raw()), None).unwrap();
    }
    for folder in ["box", "lists/rust", "dir/", "lists/dir/", "plain/c", "box/below"] {
        into(folder);
    }
    // Found as it is, whatever the name says.
    into("dir");
    assert_eq!(in_maildir(&folders.join("dir")).len(), 2);
    assert_eq!(in_maildir(&folders.join("lists.sbd/dir")).len(), 1);
    for name in ["box", "lists.sbd/rust", "plain/c", "box.sbd/below"] {
        let text = fs::read_to_string(folders.join(name)).unwrap();
        assert!(text.starts_with("From s@b.org ") && text.contains("\nA: 1\n\nx\n"), "{text}");
    }
    into("INBOX");
    assert_eq!(host.shown().len(), 1);
    for folder in ["../x", "/etc/x", ".index/x", "a//b", "", "box.lock"] {
        expect(&host.run(&["-m", folder, name], b"A: 1\n\nx\n"), USAGE, "no name of a folder");
    }
    // Maildir++.
    let text = fs::read_to_string(host.config()).unwrap();
    let text = text.replace("/users/%u\"", "/users/%u/Maildir/\"");
    fs::write(host.config(), text).unwrap();
    into("lists/rust");
    let folder = folders.join("Maildir/.lists.rust");
    assert_eq!(in_maildir(&folder).len(), 1);
    assert!(folder.join("maildirfolder").exists());
    let name = &host.account.name;
    let dotted = host.run(&["-m", "a.b", name], b"A: 1\n\nx\n");
    expect(&dotted, CANTCREAT, "a dot parts");
}

#[test]
fn a_full_mailbox_refuses_or_waits_and_its_user_is_warned_before() {
    let host = Host::new();
    let message = format!("Subject: m\n\n{}\n", "x".repeat(700));
    let deliver = || host.deliver(message.as_bytes());
    let size = || fs::metadata(&host.inbox).map_or(0, |found| found.len());
    let subjects = || -> Vec<String> {
        let lines = host.content();
        let lines = lines.lines().filter_map(|line| line.strip_prefix("Subject: "));
        lines.map(str::to_owned).collect()
    };
    // With the line for the warning in the middle of the next message.
    let limit = |room: u64, one: u64, more: &str| {
        let quota = size() + room;
        let percent = (size() + one / 2) * 100 / quota;
        let keys = format!("quota = {quota}\nquota_warning = {percent}\n{more}");
        host.configure(&format!("[mailbox]\n{keys}"));
    };
    expect(&deliver(), OK, "");
    let first = size();
    expect(&deliver(), OK, "");
    let one = size() - first;
    limit(2 * one + 1000, one, "");
    expect(&deliver(), OK, "mailbox=");
    assert_eq!(subjects(), ["m", "m", "m", "Your mailbox is nearly full"]);
    expect(&deliver(), OK, "mailbox=");
    assert_eq!(subjects().last().unwrap(), "m", "once is enough");
    limit(one + 10, one, "");
    expect(&deliver(), OK, "the user can't be warned of the quota");
    let before = host.content();
    limit(one - 10, one, "");
    expect(&deliver(), CANTCREAT, "status=failed 5.2.2 mailbox");
    expect(&host.run(&["-t", &host.account.name], message.as_bytes()), TEMPFAIL, "5.2.2");
    limit(one - 10, one, "over_quota = \"wait\"\n");
    expect(&deliver(), TEMPFAIL, "status=deferred 4.2.2 mailbox");
    assert_eq!(host.content(), before);
}

#[test]
fn a_message_comes_once_where_copies_are_not_wanted() {
    let host = Host::new();
    let message = b"Message-ID: <1@b.org>\nA: 1\n\nx\n";
    let deliver = |arguments: &[&str]| {
        let name = host.account.name.clone();
        host.run(&[arguments, &[name.as_str()]].concat(), message)
    };
    for _ in 0..2 {
        expect(&deliver(&[]), OK, "mailbox=");
    }
    assert_eq!(host.shown().len(), 2, "they are, by default");
    host.configure("[mailbox]\ndrop_duplicates = \"1h\"\n");
    expect(&deliver(&[]), OK, "mailbox=");
    expect(&deliver(&[]), OK, "dropped, a duplicate");
    expect(&deliver(&["-a", "lists"]), OK, "mailbox=");
    expect(&host.deliver(b"A: 1\n\nx\n"), OK, "mailbox=");
    expect(&host.deliver(b"A: 1\n\nx\n"), OK, "mailbox=");
    assert_eq!(host.shown().len(), 6);
    // What could not be delivered was not delivered.
    let other = b"Message-ID: <2@b.org>\n\nx\n";
    fs::rename(&host.inbox, host.spool.join("away")).unwrap();
    fs::create_dir(&host.inbox).unwrap();
    expect(&host.deliver(other), TEMPFAIL, "is a directory");
    fs::remove_dir(&host.inbox).unwrap();
    expect(&host.deliver(other), OK, "mailbox=");
}

#[test]
fn a_recipient_may_be_an_address_and_have_an_extension() {
    let host = Host::new();
    let name = host.account.name.clone();
    for (given, to) in [
        (vec![format!("{name}@mx.example.org")], name.clone()),
        (vec![format!("{name}+a+b")], format!("{name}+a+b")),
        (vec!["-a".into(), "x".into(), "-d".into(), name.clone()], format!("{name}+x")),
        (vec!["-r".into(), "s@b.org".into(), name.to_uppercase()], name.clone()),
    ] {
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        expect(&host.run(&given, b"A: 1\n\nx\n"), OK, &format!("to=<{to}@mx.example.org>"));
        let content = host.content();
        let last = content.rsplit("\nDelivered-To: ").next().unwrap();
        assert!(last.starts_with(&format!("{to}@mx.example.org\n")), "{last}");
    }
    expect(&host.run(&[&format!("{name}@elsewhere.org")], b"A: 1\n\nx\n"), NOUSER, "no user");
    host.configure("[delivery]\nrecipient_delimiter = \"\"\n");
    expect(&host.run(&[&format!("{name}+a")], b"A: 1\n\nx\n"), NOUSER, "no user");
}

#[test]
fn soft_failures_are_all_worth_another_try() {
    let host = Host::new();
    expect(&host.run(&["-t", "no-such-user"], b"A: 1\n\n"), TEMPFAIL, "no user");
    expect(&host.run(&["-t", &host.account.name], b""), TEMPFAIL, "no message");
    expect(&host.run(&["-t", "-v", &host.account.name], b"A: 1\n\n"), OK, "delivered, 6 bytes");
}
