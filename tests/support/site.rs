//! A private host in a temporary directory: configuration, queue, users, mailboxes.
//!
//! Without root all of it belongs to us, and the programs serve the one account there is. With
//! root it is built like an installed host, and the programs change to its accounts: the queue
//! has an owner, every user has a uid. They are numbers that no Debian system gives out, so that
//! the tests need no account made for them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::peer::Peer;
use super::run::{Ran, Server, run, spawn, wait};
use super::{PATIENCE, is_root, mbox, wait_until};

/// The name of the host that is built.
pub const HOST: &str = "mx.smkwlab.net";

/// The directories of the queue, without `drop`.
pub const QUEUE: [&str; 5] = ["incoming", "work", "deferred", "hold", "corrupt"];

/// Somebody with a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub name: &'static str,
    pub password: &'static str,
    pub uid: u32,
    pub gid: u32,
}

/// The users of every site, in the uids they have with root.
const USERS: [(&str, &str); 5] = [
    ("toshi", "tenbin"),
    ("hunt", "Watts?Watt?"),
    ("alice", "wonder land"),
    ("bob", "builder"),
    ("example", "of the lecture"),
];
const FIRST_UID: u32 = 64_011;
const QUEUE_UID: u32 = 64_001;

/// What a site is built from.
#[derive(Default)]
pub struct Plan {
    in_memory: bool,
    settings: BTreeMap<String, BTreeMap<String, String>>,
}

impl Plan {
    /// Sets a key of the configuration; the value is TOML. The empty section is the top.
    #[must_use]
    pub fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        let section = self.settings.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Names the host, and the domains whose mail is delivered on it.
    #[must_use]
    pub fn named(self, host: &str, domains: &[&str]) -> Self {
        self.set("", "hostname", &format!("{host:?}")).set(
            "",
            "local_domains",
            &format!("{domains:?}"),
        )
    }

    /// Builds it where fsync(2) costs nothing, for tests that start programs many hundred times.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    pub fn build(self) -> Site {
        let mut builder = tempfile::Builder::new();
        builder.prefix("hikyaku-test-");
        let memory = Path::new("/dev/shm");
        let directory = if self.in_memory && memory.is_dir() {
            builder.tempdir_in(memory)
        } else {
            builder.tempdir()
        };
        let directory = directory.unwrap();
        Site::build(directory, self)
    }
}

/// A private host.
pub struct Site {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Drop for Site {
    /// `HIKYAKU_KEEP=1` keeps the directory, for a look at what a failing test left.
    fn drop(&mut self) {
        if std::env::var_os("HIKYAKU_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            super::note(&format!("kept {}", directory.keep().display()));
        }
    }
}

impl Site {
    /// The usual host: nothing is delivered before `mta-queue` is run.
    pub fn new() -> Self {
        Self::plan().build()
    }

    pub fn plan() -> Plan {
        Plan::default()
    }

    fn build(directory: TempDir, plan: Plan) -> Self {
        let path = directory.path().canonicalize().unwrap();
        let site = Self { directory: Some(directory), path };
        site.make(&site.path, 0o755, None);
        site.make(&site.path.join("home"), 0o755, None);
        let sticky = if is_root() { 0o1777 } else { 0o755 };
        site.make(&site.path.join("mail"), sticky, None);
        for account in Self::accounts() {
            site.make(&site.home(account.name), 0o700, Some(account.uid));
        }
        let owner = is_root().then_some(QUEUE_UID);
        site.make(&site.queue(), 0o755, owner);
        for name in QUEUE {
            site.make(&site.queue().join(name), 0o700, owner);
        }
        site.make(&site.queue().join("drop"), 0o1730, owner);
        let wake = site.queue().join("wake");
        nix::unistd::mkfifo(&wake, nix::sys::stat::Mode::from_bits_truncate(0o622)).unwrap();
        site.own(&wake, 0o622, owner);
        site.write_users();
        fs::write(site.path.join("aliases"), "postmaster: toshi\n").unwrap();
        site.write_configuration(plan);
        site
    }

    fn make(&self, path: &Path, mode: u32, owner: Option<u32>) {
        debug_assert!(path.starts_with(&self.path));
        let _ = fs::create_dir(path);
        self.own(path, mode, owner);
    }

    fn own(&self, path: &Path, mode: u32, owner: Option<u32>) {
        debug_assert!(path.starts_with(&self.path));
        if is_root() {
            chown(path, owner.or(Some(0)), owner.or(Some(0))).unwrap();
        }
        // After chown, which takes set-id and sticky bits away.
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write_users(&self) {
        let mut text = String::new();
        for Account { name, password, uid, gid } in Self::accounts() {
            let home = self.home(name);
            writeln!(text, "{name}:{{PLAIN}}{password}:{uid}:{gid}::{}::", home.display()).unwrap();
        }
        // As hikyaku.toml(5) asks for: only its owner reads the passwords.
        let path = self.path.join("users");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn write_configuration(&self, plan: Plan) {
        let quoted = |path: PathBuf| format!("{:?}", path.to_str().unwrap());
        let below = |name: &str| quoted(self.path.join(name));
        let mut all = Plan::default()
            .set("", "hostname", &format!("{HOST:?}"))
            .set("", "local_domains", &format!("[\"smkwlab.net\", {HOST:?}]"))
            .set("", "log", "\"stderr\"")
            .set("paths", "queue", &quoted(self.queue()))
            .set("paths", "inbox", &below("mail/%u"))
            .set("paths", "folders", "\"%h/mail\"")
            .set("paths", "index", "\"%h/mail/.index\"")
            .set("paths", "aliases", &below("aliases"))
            .set("paths", "libexec", &quoted(self.libexec()))
            .set("users", "source", "\"file\"")
            .set("users", "file", &below("users"))
            .set("users", "app_passwords", &below("app-passwords"))
            .set("users", "login", "\"nobody\"")
            .set("queue", "wakeup", "\"none\"")
            // Nobody answers there: without hosts of its own, a test asks and calls no other.
            .set("dns", "servers", "[\"127.0.0.1:1\"]")
            .set("delivery", "port", "1");
        for (section, keys) in plan.settings {
            all.settings.entry(section).or_default().extend(keys);
        }
        let mut text = String::new();
        for (section, keys) in all.settings {
            if !section.is_empty() {
                writeln!(text, "\n[{section}]").unwrap();
            }
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        fs::write(self.configuration(), text).unwrap();
    }

    /// Lets users, and what is run as them, send mail by `sendmail`.
    pub fn let_users_send(&self) {
        // Not setgid, as the installed one is: there it would take no configuration from its caller.
        // So all may put files into drop/, and they get its group.
        let sendmail = self.path.join("sendmail");
        fs::copy(program("sendmail"), &sendmail).unwrap();
        let drop = fs::Permissions::from_mode(if is_root() { 0o3733 } else { 0o1733 });
        fs::set_permissions(self.queue().join("drop"), drop).unwrap();
        let text = fs::read_to_string(self.configuration()).unwrap();
        let (program, configuration) = (sendmail.display(), self.configuration());
        let configuration = configuration.display();
        let key = format!("[delivery]\nsendmail = [\"{program}\", \"-C\", \"{configuration}\"]");
        fs::write(self.configuration(), text.replace("[delivery]", &key)).unwrap();
    }

    /// The directory of the built programs; copies of them in the site where the users could not
    /// reach those (a checkout below a private home directory, with root).
    fn libexec(&self) -> PathBuf {
        let built = Path::new(program("local-deliver")).parent().unwrap();
        let open = |path: &Path| {
            fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o1 == 0o1)
        };
        if !is_root() || built.ancestors().all(open) {
            return built.to_owned();
        }
        let copy = self.path.join("libexec");
        if copy.is_dir() {
            return copy;
        }
        fs::create_dir(&copy).unwrap();
        for name in ["local-deliver", "dotlock"] {
            fs::copy(program(name), copy.join(name)).unwrap();
        }
        copy
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn configuration(&self) -> PathBuf {
        self.path.join("hikyaku.toml")
    }

    pub fn queue(&self) -> PathBuf {
        self.path.join("queue")
    }

    pub fn home(&self, user: &str) -> PathBuf {
        self.path.join("home").join(user)
    }

    /// The spool file of a user.
    pub fn inbox(&self, user: &str) -> PathBuf {
        self.path.join("mail").join(user)
    }

    pub fn accounts() -> Vec<Account> {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        (FIRST_UID..)
            .zip(USERS)
            .map(|(number, (name, password))| Account {
                name,
                password,
                uid: if is_root() { number } else { uid.as_raw() },
                gid: if is_root() { number } else { gid.as_raw() },
            })
            .collect()
    }

    pub fn account(name: &str) -> Account {
        let mut accounts = Self::accounts().into_iter();
        accounts.find(|account| account.name == name).unwrap_or_else(|| panic!("no user {name}"))
    }

    /// Whose a file of a site is that a program has made: `home/USER/…`, `mail/USER…`.
    pub fn owner(path: &Path) -> Option<(u32, u32)> {
        let path = path.strip_prefix("home").or(path.strip_prefix("mail")).ok()?;
        let name = path.iter().next()?.to_str()?;
        let name = name.strip_suffix(".lock").unwrap_or(name);
        let mut accounts = Self::accounts().into_iter();
        let account = accounts.find(|account| account.name == name)?;
        Some((account.uid, account.gid))
    }

    /// The account that owns the queue.
    pub fn queue_uid() -> u32 {
        if is_root() { QUEUE_UID } else { nix::unistd::geteuid().as_raw() }
    }

    /// The queue's file names, as `incoming/ID`, in order.
    pub fn queued(&self) -> Vec<String> {
        let mut all = Vec::new();
        for directory in QUEUE.into_iter().chain(["drop"]) {
            for name in self.queued_in(directory) {
                all.push(format!("{directory}/{name}"));
            }
        }
        all
    }

    /// The file names in one directory of the queue, in order.
    pub fn queued_in(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.queue().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The bytes of a user's spool file; none where there is none.
    pub fn spool(&self, user: &str) -> Vec<u8> {
        fs::read(self.inbox(user)).unwrap_or_default()
    }

    /// The messages of a user, as an independent reader sees them.
    pub fn messages(&self, user: &str) -> Vec<mbox::Message> {
        mbox::parse(&self.spool(user))
    }

    /// Gives a user this spool file, and forgets what was known of an older one.
    pub fn fill(&self, user: &str, content: &[u8]) {
        let account = Self::account(user);
        let inbox = self.inbox(user);
        fs::write(&inbox, content).unwrap();
        let _ = fs::remove_dir_all(self.home(user).join("mail"));
        if is_root() {
            chown(&inbox, Some(account.uid), Some(account.gid)).unwrap();
        }
        fs::set_permissions(&inbox, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Waits until a user has so many messages, all of them whole: one that is being written has no
    /// From_ line yet.
    #[track_caller]
    pub fn wait_for_mail(&self, user: &str, count: usize) -> Vec<mbox::Message> {
        wait_until(&format!("{count} messages for {user}"), || {
            let messages = self.messages(user);
            let whole = messages.iter().all(|message| !message.from_line.is_empty());
            (whole && messages.len() >= count).then_some(messages)
        })
    }

    /// Writes a file below a user's home, as the user's own.
    pub fn write_home(&self, user: &str, name: &str, text: &str) -> PathBuf {
        let path = self.home(user).join(name);
        fs::write(&path, text).unwrap();
        self.own(&path, 0o600, Some(Self::account(user).uid));
        path
    }

    /// The messages of a user as clients get them, with LF line ends.
    #[track_caller]
    pub fn fetched(&self, user: &str) -> Vec<Vec<u8>> {
        let (_server, mut peer) = self.session("popd");
        peer.line();
        peer.pop(&format!("USER {user}"));
        let answer = peer.pop(&format!("PASS {}", Self::account(user).password));
        assert!(answer.starts_with("+OK"), "{answer}");
        let count = peer.pop("STAT");
        let count: usize = count.split(' ').nth(1).unwrap().parse().unwrap();
        let fetch = |number| {
            let answer = peer.pop(&format!("RETR {number}"));
            assert!(answer.starts_with("+OK"), "{answer}");
            peer.pop_body()
        };
        (1..=count).map(fetch).collect()
    }

    /// A program of ours with this site's configuration.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.arg("-C").arg(self.configuration());
        // The time of day must not depend on where the tests run.
        command.env("TZ", "Asia/Tokyo").env_remove("LISTEN_FDS");
        command
    }

    /// The same, run as a user of the site.
    pub fn command_as(&self, name: &str, user: &str) -> Command {
        let mut command = self.command(name);
        self.become_user(&mut command, user);
        command
    }

    /// Lets a command run as a user; with root also in the queue's group, as an installed, setgid
    /// `sendmail` is.
    ///
    /// What stands in front of a command (strace, a shell) must be given the user after that: a
    /// `Command` does not tell what it will run as.
    pub fn become_user(&self, command: &mut Command, user: &str) {
        let account = Self::account(user);
        if is_root() {
            let sends = command.get_program() == program("sendmail")
                || command.get_args().any(|argument| argument == program("sendmail"));
            command.uid(account.uid);
            command.gid(if sends { QUEUE_UID } else { account.gid });
        }
        command
            .env("USER", user)
            .env("LOGNAME", user)
            .env("HOME", self.home(user))
            .current_dir(&self.path);
    }

    /// Runs `mta-queue` once.
    pub fn mta_queue<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        run(self.command("mta-queue").args(arguments), b"")
    }

    /// Runs `sendmail` as a user.
    pub fn sendmail<S: AsRef<OsStr>>(&self, user: &str, arguments: &[S], message: &[u8]) -> Ran {
        run(self.command_as("sendmail", user).args(arguments), message)
    }

    /// Runs `local-deliver` for a user, as the user.
    pub fn local_deliver(&self, user: &str, sender: &str, message: &[u8]) -> Ran {
        run(&mut self.local_deliver_command(user, sender), message)
    }

    pub fn local_deliver_command(&self, user: &str, sender: &str) -> Command {
        let mut command = self.command_as("local-deliver", user);
        command.args(["-f", sender, "-d", user]);
        command
    }

    /// The words by which another program calls our delivery agent.
    pub fn agent_words(&self) -> [String; 3] {
        let program = self.libexec().join("local-deliver");
        [&program, Path::new("-C"), &self.configuration()].map(|word| word.display().to_string())
    }

    /// The same for a shell.
    pub fn agent(&self) -> String {
        self.agent_words().map(|word| format!("'{word}'")).join(" ")
    }

    /// Starts a server on a listening socket that we made, handed over as systemd does: no port
    /// is guessed, and a client may connect at once.
    pub fn serve(&self, name: &str) -> (Server, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (self.serve_on(name, listener), address)
    }

    /// The same with what is spoken there.
    pub fn serve_word(&self, name: &str, word: &str) -> (Server, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (self.serve_word_on(name, word, listener), address)
    }

    /// The same on a socket of the caller's.
    pub fn serve_word_on(&self, name: &str, word: &str, listener: TcpListener) -> Server {
        let mut command = self.command(name);
        let mut command = activated(command.args(["--service", word]));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        Server::start(&mut command)
    }

    /// The same on a socket of the caller's.
    pub fn serve_on(&self, name: &str, listener: TcpListener) -> Server {
        let mut command = activated(&self.command(name));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        Server::start(&mut command)
    }

    /// `local-deliver --lmtp` for all users, on a listening socket at this path, to which `owner`
    /// alone may connect, or everybody.
    pub fn serve_lmtp(&self, path: &Path, owner: Option<u32>, more: &[&str]) -> Server {
        let listener = UnixListener::bind(path).unwrap();
        self.own(path, if owner.is_some() { 0o600 } else { 0o666 }, owner);
        let mut command = self.command("local-deliver");
        command.arg("--lmtp").args(more);
        let mut command = activated(&command);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        Server::start(&mut command)
    }

    /// Starts a server with `--listen`, and waits until it answers.
    pub fn listen(&self, name: &str) -> (Server, SocketAddr) {
        self.listen_behind(&[], name)
    }

    /// The same behind a command that sets something first.
    pub fn listen_behind(&self, prefix: &[&str], name: &str) -> (Server, SocketAddr) {
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut command = self.command(name);
            command.arg("--listen").arg(address.to_string());
            if !prefix.is_empty() {
                command = behind(prefix, &command);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let mut server = Server::start(&mut command);
            let up = wait_until(&format!("{name} on {address}"), || {
                if let Some(status) = server.ended() {
                    return Some(Err(status));
                }
                TcpStream::connect(address).ok().map(Ok)
            });
            match up {
                Ok(_) => return (server, address),
                // Somebody took the port in between: another one, then.
                Err(_) if server.log().contains("in use") => {}
                Err(status) => panic!("{name} --listen: {status}: {}", server.log()),
            }
        }
        panic!("no port is free");
    }

    /// One session on stdin and stdout, a TCP connection as inetd gives it.
    pub fn session(&self, name: &str) -> (Server, Peer) {
        Self::session_of(self.command(name))
    }

    /// The same with a command of the caller's.
    pub fn session_of(mut command: Command) -> (Server, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut peer = Peer::new(client);
        peer.other_end = label(&accepted);
        let output = accepted.try_clone().unwrap();
        command.stdin(OwnedFd::from(accepted)).stdout(OwnedFd::from(output));
        (Server::start(&mut command), peer)
    }

    /// One session over what is no network: a local socket, as a program that calls `sendmail -bs`
    /// or a person at a terminal would have it.
    pub fn local_session_of(mut command: Command) -> (Server, Peer) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = theirs.try_clone().unwrap();
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(output));
        (Server::start(&mut command), Peer::new(ours))
    }

    /// Puts a message into the queue by one SMTP session; the queue id.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &[&str], message: impl AsRef<[u8]>) -> String {
        let (_server, mut peer) = self.session("smtpd");
        peer.greet();
        let reply = peer.mail(from, to, message.as_ref());
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        peer.command("QUIT");
        queue_id(&reply)
    }

    /// Sends a message by SMTP to a server of ours; the queue id.
    #[track_caller]
    pub fn send(address: SocketAddr, from: &str, to: &[&str], message: &str) -> String {
        let mut peer = Peer::connect(address);
        peer.greet();
        let reply = peer.mail(from, to, message.as_bytes());
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        peer.command("QUIT");
        queue_id(&reply)
    }
}

/// What strace calls a socket.
fn label(socket: &impl AsFd) -> String {
    let status = nix::sys::stat::fstat(socket).unwrap();
    format!("socket:[{}]", status.st_ino)
}

/// The id in `250 2.0.0 Ok: queued as ID`.
pub fn queue_id(reply: &str) -> String {
    reply.trim_end().rsplit(' ').next().unwrap().to_owned()
}

/// A built program.
pub fn program(name: &str) -> &'static str {
    match name {
        "smtpd" => env!("CARGO_BIN_EXE_smtpd"),
        "imapd" => env!("CARGO_BIN_EXE_imapd"),
        "popd" => env!("CARGO_BIN_EXE_popd"),
        "mta-queue" => env!("CARGO_BIN_EXE_mta-queue"),
        "local-deliver" => env!("CARGO_BIN_EXE_local-deliver"),
        "sendmail" => env!("CARGO_BIN_EXE_sendmail"),
        "dotlock" => env!("CARGO_BIN_EXE_dotlock"),
        "mailctl" => env!("CARGO_BIN_EXE_mailctl"),
        _ => panic!("no program {name}"),
    }
}

/// A command whose stdin is handed over as systemd's fd 3.
///
/// The shell stands in for what needs `pre_exec` otherwise: LISTEN_PID is the pid of the program
/// that it turns into.
pub fn activated(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(
            "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; \
             exec \"$@\"",
        )
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    shell
}

/// The same command behind others, as `strace -f PROGRAM …` or a shell that sets a limit first.
pub fn behind<S: AsRef<OsStr>>(prefix: &[S], command: &Command) -> Command {
    let (first, rest) = prefix.split_first().unwrap();
    let mut wrapped = Command::new(first);
    wrapped.args(rest).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// Runs a command that must succeed, as a step of a test's own.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let ran = run(command, b"");
    assert_eq!(ran.code(), Some(0), "{command:?}: {ran}");
    ran.text()
}

/// Starts a command and lets it end by itself.
pub fn must_end(command: &mut Command) {
    let mut child = spawn(command);
    assert!(wait(&mut child, PATIENCE).unwrap().success(), "{command:?}");
}
