//! `make demo` and `make run`: the whole path of a message, in one temporary directory, on high
//! ports of the loopback address, without root.
//!
//! `demo` plays the sessions of the lecture that the suite was built after, shows every line, checks
//! what came out, and ends; its exit status tells whether all was right. `demo --stay` sets the same
//! up for a person with telnet or a mail program, until ^C.
//!
//! Started by root, it runs the programs as `nobody`, from copies that this account may read.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hikyaku::sys::{Account, fd, privilege, signal::Signals};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A step worked, or why it did not.
type Outcome<T> = Result<T, String>;

const USERS: [&str; 2] = ["toshi", "hunt"];
const PASSWORD: &str = "Watts?Watt?";
/// What `openssl passwd -6` makes of the password.
const HASH: &str = "{SHA512-CRYPT}$6$kyusan2005smkw$UHMLtkBdOINSmuD8YdQtmMs.2ohGPvMbOI6cOAqUgPDLAX2CEfaJ7EzvFMu5Xztps3N88Cqp2dN9tr437gPHJ0";
const PROGRAMS: [&str; 7] =
    ["smtpd", "popd", "imapd", "mta-queue", "sendmail", "local-deliver", "dotlock"];

/// The lecture's message: ISO-2022-JP in the body, encoded words in the header.
const JAPANESE_HEADER: &str = "\
From: Toshihiko SHIMOKAWA / =?ISO-2022-JP?B?GyRCMjxAbj1TSScbKEI=?= <toshi@tenbin.org>
To: hunt@smkwlab.net
Subject: =?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?=
MIME-Version: 1.0
Content-Type: text/plain; charset=ISO-2022-JP
Content-Disposition: inline
Content-Transfer-Encoding: 7bit
";
const JAPANESE_BODY: &[u8] = b"\x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#\x1b(B";
/// What a mail program shows instead of the bytes in transit.
const READABLE: [(&[u8], &str); 3] = [
    (b"=?ISO-2022-JP?B?GyRCMjxAbj1TSScbKEI=?=", "下川俊彦"),
    (b"=?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?=", "テスト"),
    (JAPANESE_BODY, "こんにちは。これはテストのメイルです。"),
];

fn main() -> ExitCode {
    let stay = match std::env::args_os().nth(1) {
        None => false,
        Some(word) if word == "--stay" => true,
        Some(_) => {
            complain("usage: demo [--stay]");
            return ExitCode::from(64);
        }
    };
    // Before the first thread and the first child: ^C is for this process, which then stops them.
    let taken = Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    let (signals, site) = match (taken, Site::new(stay)) {
        (Ok(signals), Ok(site)) => (signals, Arc::new(site)),
        (Err(error), _) => return failed(&error.to_string()),
        (_, Err(what)) => return failed(&what),
    };
    let player = {
        let site = Arc::clone(&site);
        thread::spawn(move || if stay { serve(&site) } else { demonstrate(&site) })
    };
    let mut interrupted = false;
    while !player.is_finished() && !interrupted {
        interrupted = fd::wait_readable(&signals, 100).unwrap_or(true);
    }
    let result = if interrupted {
        Err("interrupted".to_owned())
    } else {
        player.join().unwrap_or_else(|_| Err("a step broke off".into()))
    };
    let log = site.log();
    let cleaned = site.stop();
    match result.and(cleaned) {
        Ok(()) => {
            say("\nEvery step worked. The programs are stopped and the directory is removed.");
            ExitCode::SUCCESS
        }
        Err(_) if interrupted && stay => {
            say("\nThe programs are stopped and the directory is removed.");
            ExitCode::SUCCESS
        }
        Err(what) => {
            if !interrupted && !log.is_empty() {
                complain(&format!("the programs' log:\n{log}"));
            }
            failed(&what)
        }
    }
}

fn failed(what: &str) -> ExitCode {
    complain(&format!("demo: {what}"));
    ExitCode::FAILURE
}

/// A line for the person; one that can't be shown ends nothing.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn heading(text: &str) {
    say(&format!("\n== {text}\n"));
}

/// Shows bytes as a mail program would, set off from our own words.
fn show(bytes: &[u8]) {
    for line in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|b| *b == b'\n') {
        say(&format!("    {}", readable(line)));
    }
}

fn readable(line: &[u8]) -> String {
    let mut line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
    for (bytes, text) in READABLE {
        if let Some(at) = find(&line, bytes) {
            line.splice(at..at + bytes.len(), text.bytes());
        }
    }
    String::from_utf8_lossy(&line).into_owned()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Checks that a text holds what it must.
fn must_hold(what: &str, text: &[u8], parts: &[&[u8]]) -> Outcome<()> {
    for part in parts {
        if find(text, part).is_none() {
            return Err(format!("{what} lacks {:?}", readable(part)));
        }
    }
    Ok(())
}

/// What the programs stand on: a directory with configuration, queue and mailboxes.
struct Site {
    directory: tempfile::TempDir,
    programs: PathBuf,
    /// Whom the programs run as, where that is not who we are.
    account: Option<Account>,
    children: Mutex<Vec<Child>>,
    log: Option<fs::File>,
    smtp: SocketAddr,
    pop3: SocketAddr,
    imap: SocketAddr,
}

impl Site {
    fn new(stay: bool) -> Outcome<Self> {
        let account = if privilege::is_root() {
            let nobody = Account::by_name("nobody").map_err(|error| error.to_string())?;
            Some(nobody.ok_or("started by root, and there is no account nobody to run as")?)
        } else {
            None
        };
        let directory = tempfile::Builder::new()
            .prefix("hikyaku-demo-")
            .tempdir()
            .map_err(|error| format!("no temporary directory: {error}"))?;
        let [smtp, pop3, imap] =
            free_addresses(stay).map_err(|error| format!("no port: {error}"))?;
        let mut site = Self {
            directory,
            programs: PathBuf::new(),
            account,
            children: Mutex::default(),
            log: None,
            smtp,
            pop3,
            imap,
        };
        site.furnish(stay).map_err(|error| error.to_string())?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn furnish(&mut self, stay: bool) -> io::Result<()> {
        let demo = std::env::current_exe()?;
        // target/debug/examples/demo
        let built = demo.ancestors().nth(2).unwrap_or(Path::new("/"));
        for program in PROGRAMS {
            if !built.join(program).exists() {
                return Err(io::Error::other(format!(
                    "{} is not built; make demo does that",
                    built.join(program).display()
                )));
            }
        }
        built.clone_into(&mut self.programs);
        self.give(self.directory.path())?;
        if self.account.is_some() {
            self.programs = self.path("programs");
            self.make_directory("programs")?;
            for program in PROGRAMS {
                fs::copy(built.join(program), self.programs.join(program))?;
            }
        }
        for name in ["queue", "mail", "home", "home/toshi", "home/hunt"] {
            self.make_directory(name)?;
        }
        self.make_file("hikyaku.toml", &self.configuration())?;
        self.make_file("users", &self.users())?;
        if !stay {
            self.log = Some(fs::File::create(self.path("log"))?);
        }
        Ok(())
    }

    fn make_directory(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.path(name))?;
        self.give(&self.path(name))
    }

    fn make_file(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.path(name), text)?;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600))?;
        self.give(&self.path(name))
    }

    /// Makes the account that the programs run as the owner.
    fn give(&self, path: &Path) -> io::Result<()> {
        match &self.account {
            Some(account) => chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())),
            None => Ok(()),
        }
    }

    fn configuration(&self) -> String {
        let root = self.directory.path().display();
        format!(
            "hostname = \"mx.smkwlab.net\"\n\
             local_domains = [\"smkwlab.net\"]\n\
             log = \"stderr\"\n\
             \n\
             [paths]\n\
             queue = \"{root}/queue\"\n\
             inbox = \"{root}/mail/%u\"\n\
             libexec = \"{}\"\n\
             \n\
             [users]\n\
             source = \"file\"\n\
             file = \"{root}/users\"\n",
            self.programs.display()
        )
    }

    fn users(&self) -> String {
        let home = self.path("home");
        let mut text = String::new();
        for user in USERS {
            // No uid and gid: they are those of the programs.
            let _ = writeln!(text, "{user}:{HASH}:::{user}:{}/{user}::", home.display());
        }
        text
    }

    /// A program of the suite with our configuration, as the right account.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .arg("-C")
            .arg(self.path("hikyaku.toml"))
            .env_clear()
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(account) = &self.account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        command
    }

    /// Starts a program that stays.
    fn start(&self, program: &str, arguments: &[&str]) -> Outcome<()> {
        say(&format!("    $ {program} {} &", arguments.join(" ")));
        let mut command = self.command(program);
        command.args(arguments);
        if let Some(log) = &self.log {
            let log = log.try_clone().map_err(|error| error.to_string())?;
            command.stdout(Stdio::null()).stderr(log);
        }
        let child =
            command.spawn().map_err(|error| format!("{program} can't be started: {error}"))?;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        Ok(())
    }

    /// Runs a program to its end and shows what it says.
    fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Outcome<Vec<u8>> {
        say(&format!("    $ {program} {}", arguments.join(" ")));
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program} can't be started: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).map_err(|error| format!("{program} does not read: {error}"))?;
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = [output.stdout, output.stderr].concat();
        if !text.is_empty() {
            show(&text);
        }
        if !output.status.success() {
            return Err(format!("{program}: {}", output.status));
        }
        Ok(text)
    }

    fn log(&self) -> String {
        fs::read(self.path("log"))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stops what was started, their sessions too, and removes the directory.
    fn stop(&self) -> Outcome<()> {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        for child in children.iter() {
            let _ = kill(pid(child), Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut stubborn = 0;
        for child in children.iter_mut() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            if matches!(child.try_wait(), Ok(None)) {
                stubborn += 1;
            }
            // Each leads a group of its own, so that this reaches nobody else's processes.
            let _ = killpg(pid(child), Signal::SIGKILL);
            let _ = child.wait();
        }
        children.clear();
        fs::remove_dir_all(self.directory.path())
            .map_err(|error| format!("the directory can't be removed: {error}"))?;
        if stubborn > 0 {
            return Err(format!("{stubborn} programs did not end on SIGTERM"));
        }
        Ok(())
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Addresses that nobody listens on: for a person the same ones each time, where they are free.
fn free_addresses(stay: bool) -> io::Result<[SocketAddr; 3]> {
    let bind = |port: u16| {
        let chosen = TcpListener::bind((Ipv4Addr::LOCALHOST, if stay { port } else { 0 }));
        chosen.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
    };
    let (smtp, pop3, imap) = (bind(2525)?, bind(1110)?, bind(1143)?);
    Ok([smtp.local_addr()?, pop3.local_addr()?, imap.local_addr()?])
}

/// A conversation by lines over TCP, of which each line is shown.
struct Talk {
    reader: BufReader<TcpStream>,
}

impl Talk {
    /// Calls a server that may still be starting.
    fn call(address: SocketAddr) -> Outcome<Self> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(format!("nobody answers on {address}: {error}")),
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .map_err(|error| error.to_string())?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    fn line(&mut self) -> Outcome<Vec<u8>> {
        let mut line = Vec::new();
        self.reader
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("the server does not answer: {error}"))?;
        if line.is_empty() {
            return Err("the server hung up".into());
        }
        say(&format!("    S: {}", readable(line.trim_ascii_end())));
        Ok(line)
    }

    /// Reads a reply that must begin with `start`.
    fn hear(&mut self, start: &str) -> Outcome<String> {
        let line = self.line()?;
        if line.starts_with(start.as_bytes()) {
            Ok(readable(line.trim_ascii_end()))
        } else {
            Err(format!("a reply that begins with {start:?} was due"))
        }
    }

    /// Reads the lines of a message up to the dot.
    fn hear_message(&mut self) -> Outcome<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let line = self.line()?;
            if line == b".\r\n" {
                return Ok(text);
            }
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// Says an IMAP command, and reads its answers up to the last one, which must be OK.
    fn tagged(&mut self, tag: &str, command: &str) -> Outcome<Vec<u8>> {
        self.say(&format!("{tag} {command}"))?;
        let mut said = Vec::new();
        loop {
            let line = self.line()?;
            if line.starts_with(format!("{tag} OK").as_bytes()) {
                return Ok(said);
            }
            if line.starts_with(format!("{tag} ").as_bytes()) {
                return Err(format!("{tag} OK was due"));
            }
            said.extend_from_slice(&line);
        }
    }

    fn say(&mut self, line: &str) -> Outcome<()> {
        say(&format!("    C: {line}"));
        self.reader
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .map_err(|error| format!("the server does not listen: {error}"))
    }

    /// Says a line and reads the reply.
    fn ask(&mut self, line: &str, start: &str) -> Outcome<String> {
        self.say(line)?;
        self.hear(start)
    }
}

/// All that the demonstration shows, in its order.
fn demonstrate(site: &Site) -> Outcome<()> {
    heading("1. A configuration and a users file");
    introduce(site);
    heading("2. The servers");
    start_servers(site)?;
    heading("3. A message by SMTP, as in the lecture");
    let id = submit_by_smtp(site)?;
    heading("4. It waits in the queue");
    show_queue(site, &id)?;
    heading("5. The runner delivers it");
    deliver(site, b"to=<toshi@smkwlab.net>")?;
    heading("6. It stands in the mailbox");
    show_mailbox(site)?;
    heading("7. Its reader takes it by POP3");
    let text = read_by_pop3(site, "toshi")?;
    must_hold("the message", &text, &[b"\r\n\r\nHello. This is test.\r\n"])?;
    heading("8. A message in Japanese, by sendmail (decoded for this screen)");
    submit_by_sendmail(site)?;
    deliver(site, b"to=<hunt@smkwlab.net>")?;
    let body = [b"\r\n\r\n", JAPANESE_BODY, b"\r\n"].concat();
    let from = JAPANESE_HEADER.lines().next().unwrap_or_default();
    let wanted = [from.as_bytes(), b"charset=ISO-2022-JP", &body];
    heading("9. And its reader, by IMAP (decoded for this screen)");
    must_hold("the message", &read_by_imap(site, "hunt")?, &wanted)?;
    heading("10. By POP3 it is taken away");
    must_hold("the message", &read_by_pop3(site, "hunt")?, &wanted)?;
    heading("11. The log of the servers");
    // The last line is written when its client has gone already.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !site.log().contains("Disconnected: user=<hunt>") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let log = site.log();
    show(log.as_bytes());
    must_hold("the log", log.as_bytes(), &[id.as_bytes(), b"Disconnected: user=<hunt>"])
}

fn introduce(site: &Site) {
    if let Some(account) = &site.account {
        say(&format!("Started by root: the programs run as {}.\n", account.name));
    }
    say(&format!("    {}/hikyaku.toml:", site.directory.path().display()));
    show(site.configuration().as_bytes());
    say(&format!("\n    {}/users:", site.directory.path().display()));
    show(site.users().as_bytes());
    say(&format!("\nThe password of both is {PASSWORD} and every program gets -C hikyaku.toml."));
}

fn start_servers(site: &Site) -> Outcome<()> {
    site.start("smtpd", &["--listen", &site.smtp.to_string()])?;
    site.start("popd", &["--listen", &site.pop3.to_string()])?;
    site.start("imapd", &["--listen", &site.imap.to_string()])
}

fn submit_by_smtp(site: &Site) -> Outcome<String> {
    let mut talk = Talk::call(site.smtp)?;
    talk.hear("220 mx.smkwlab.net")?;
    talk.ask("HELO mx.smkwlab.net", "250")?;
    talk.ask("MAIL FROM: toshi@is.kyusan-u.ac.jp", "250")?;
    talk.ask("RCPT TO: toshi@smkwlab.net", "250")?;
    talk.ask("DATA", "354")?;
    talk.say("Hello. This is test.")?;
    let queued = talk.ask(".", "250")?;
    talk.ask("QUIT", "221")?;
    let id = queued.split_whitespace().next_back().unwrap_or_default();
    if id.len() < 8 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("{queued:?} names no queue id"));
    }
    Ok(id.to_owned())
}

fn show_queue(site: &Site, id: &str) -> Outcome<()> {
    let list = site.run("mta-queue", &["--list"], b"")?;
    must_hold(
        "the list",
        &list,
        &[id.as_bytes(), b"toshi@is.kyusan-u.ac.jp", b"toshi@smkwlab.net"],
    )?;
    say("");
    let entry = site.run("mta-queue", &["--show", id], b"")?;
    must_hold(
        "the queue entry",
        &entry,
        &[
            b"toshi@is.kyusan-u.ac.jp",
            b"toshi@smkwlab.net",
            b"Received: from mx.smkwlab.net",
            b"Hello. This is test.",
        ],
    )
}

/// Runs the queue once; afterwards it is empty.
fn deliver(site: &Site, recipient: &[u8]) -> Outcome<()> {
    let log = site.run("mta-queue", &[], b"")?;
    must_hold("the log", &log, &[recipient, b"status=sent"])?;
    let left = ["incoming", "drop", "work", "deferred", "hold", "corrupt"]
        .iter()
        .flat_map(|name| fs::read_dir(site.path("queue").join(name)).into_iter().flatten())
        .count();
    if left > 0 {
        return Err(format!("{left} messages are still in the queue"));
    }
    Ok(())
}

fn show_mailbox(site: &Site) -> Outcome<()> {
    say("    $ cat mail/toshi");
    let mailbox = fs::read(site.path("mail/toshi"))
        .map_err(|error| format!("mail/toshi can't be read: {error}"))?;
    show(&mailbox);
    if !mailbox.starts_with(b"From toshi@is.kyusan-u.ac.jp ") {
        return Err("the mailbox does not begin with a From_ line".into());
    }
    must_hold(
        "the mailbox",
        &mailbox,
        &[
            b"\nReturn-Path: <toshi@is.kyusan-u.ac.jp>\n",
            b"by mx.smkwlab.net (Hikyaku) with SMTP id ",
            b"\n\nHello. This is test.\n\n",
        ],
    )
}

/// Reads the one message of a user, removes it, and returns it.
fn read_by_pop3(site: &Site, user: &str) -> Outcome<Vec<u8>> {
    let mut talk = Talk::call(site.pop3)?;
    talk.hear("+OK")?;
    talk.ask(&format!("user {user}"), "+OK")?;
    talk.ask(&format!("pass {PASSWORD}"), "+OK")?;
    talk.ask("stat", "+OK 1 ")?;
    talk.ask("retr 1", "+OK")?;
    let text = talk.hear_message()?;
    talk.ask("dele 1", "+OK")?;
    talk.ask("quit", "+OK")?;
    let mailbox = site.path("mail").join(user);
    match fs::metadata(&mailbox) {
        Ok(metadata) if metadata.len() == 0 => Ok(text),
        Ok(metadata) => Err(format!("{} bytes are left in the mailbox", metadata.len())),
        Err(error) => Err(format!("the mailbox is gone: {error}")),
    }
}

/// Reads the one message of a user, which stays where it is, and returns it.
fn read_by_imap(site: &Site, user: &str) -> Outcome<Vec<u8>> {
    let mut talk = Talk::call(site.imap)?;
    talk.hear("* OK")?;
    talk.tagged("a001", &format!("login {user} {PASSWORD}"))?;
    talk.tagged("a002", "select inbox")?;
    let said = talk.tagged("a003", "fetch 1 (flags body.peek[])")?;
    talk.tagged("a004", "logout")?;
    Ok(said)
}

fn submit_by_sendmail(site: &Site) -> Outcome<()> {
    let message = [JAPANESE_HEADER.as_bytes(), b"\n", JAPANESE_BODY, b"\n"].concat();
    show(&message);
    say("");
    site.run("sendmail", &["-t", "-f", "toshi@tenbin.org"], &message)?;
    Ok(())
}

/// `make run`: the servers and a waiting runner, for a person.
fn serve(site: &Site) -> Outcome<()> {
    heading("A mail host in one directory");
    introduce(site);
    heading("Its programs");
    start_servers(site)?;
    site.start("mta-queue", &["--watch"])?;
    Talk::call(site.smtp)?.hear("220")?;
    Talk::call(site.pop3)?.hear("+OK")?;
    Talk::call(site.imap)?.hear("* OK")?;
    let (smtp, pop3, imap) = (site.smtp, site.pop3, site.imap);
    heading("To try");
    say(&format!(
        "    telnet {} {}\n        HELO mx.smkwlab.net\n        MAIL FROM: toshi@is.kyusan-u.ac.jp\n        \
         RCPT TO: hunt@smkwlab.net\n        DATA\n        Hello. This is test.\n        .\n        QUIT\n\n    \
         telnet {} {}\n        user hunt\n        pass {PASSWORD}\n        stat\n        retr 1\n        quit\n\n    \
         mutt -n -F /dev/null -e 'set ssl_force_tls=no smtp_url=smtp://{smtp} from=toshi@smkwlab.net' hunt@smkwlab.net\n    \
         mutt -n -F /dev/null -e 'set ssl_force_tls=no pop_pass={PASSWORD}' -f pop://hunt@{pop3}\n    \
         mutt -n -F /dev/null -e 'set ssl_force_tls=no imap_pass={PASSWORD}' -f imap://hunt@{imap}\n    \
         curl -u 'hunt:{PASSWORD}' pop3://{pop3}/1\n    \
         curl -u 'hunt:{PASSWORD}' 'imap://{imap}/INBOX;MAILINDEX=1'\n\n\
         Accounts: toshi and hunt, password {PASSWORD}. The log follows. ^C ends it.\n",
        smtp.ip(),
        smtp.port(),
        pop3.ip(),
        pop3.port(),
    ));
    loop {
        thread::sleep(Duration::from_millis(200));
        let mut children = site.children.lock().unwrap_or_else(PoisonError::into_inner);
        for child in children.iter_mut() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("a program ended by itself: {status}"));
            }
        }
    }
}
