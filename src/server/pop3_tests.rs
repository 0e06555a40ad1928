//! The session of a user, over real sockets, in threads.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::Connection;
use super::maildrop::session;
use crate::auth::Identity;
use crate::config::{Config, Source};
use crate::sys::{Account, Exit, Log, log};

const MAIL: &str = "From toshi@tenbin.org Mon Jun 21 03:15:20 2004\nSubject: one\n\n.dot\n..\nlast\n\n\
                    From toshi@tenbin.org Mon Jun 21 03:15:21 2004\nSubject: two\n\na\nb\nc\n\n";

struct Host {
    config: Config,
    inbox: PathBuf,
    _directory: tempfile::TempDir,
}

impl Host {
    fn new(mail: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = Identity::own();
        let inbox = directory.path().join("hunt");
        std::fs::write(&inbox, mail).unwrap();
        let users = directory.path().join("users");
        let line = format!(
            "hunt:{{PLAIN}}Watts?Watt?:{}:{}::{}\n",
            own.uid,
            own.gid,
            directory.path().display()
        );
        std::fs::write(&users, line).unwrap();
        let mut config = Config::default();
        config.paths.inbox = format!("{}/%u", directory.path().display());
        config.paths.index = format!("{}/index", directory.path().display());
        config.users.source = Source::File;
        config.users.file = users;
        Self { config, inbox, _directory: directory }
    }

    /// The account, as the monitor would have found it.
    fn account(&self) -> Account {
        let own = Identity::own();
        Account {
            name: "hunt".into(),
            uid: own.uid,
            gid: own.gid,
            home: self.config.users.file.parent().unwrap().to_owned(),
            shell: "/bin/sh".into(),
        }
    }

    /// A session that is already logged in.
    fn serve(&self, leftover: &str) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (config, account, leftover) =
            (self.config.clone(), self.account(), leftover.to_owned());
        let server = thread::spawn(move || {
            let mut client = connection(theirs);
            let log = Log::open("popd", log::Target::Stderr);
            session(&config, &mut client, &account, leftover.as_bytes(), &log)
        });
        Client::new(ours, server)
    }

    fn mail(&self) -> String {
        std::fs::read_to_string(&self.inbox).unwrap()
    }
}

fn connection(stream: UnixStream) -> Connection {
    let input = OwnedFd::from(stream);
    let output = input.try_clone().unwrap();
    Connection::new(input, output)
}

struct Client {
    stream: BufReader<UnixStream>,
    server: thread::JoinHandle<Exit>,
}

impl Client {
    fn new(stream: UnixStream, server: thread::JoinHandle<Exit>) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream: BufReader::new(stream), server }
    }

    fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(text);
        self.line()
    }

    /// All lines up to the dot.
    fn lines(&mut self) -> String {
        let mut lines = String::new();
        loop {
            let line = self.line();
            lines += &line;
            if line == ".\r\n" || line.is_empty() {
                return lines;
            }
        }
    }

    /// What is still heard, and how the server ended.
    fn end(self) -> (String, Exit) {
        let rest = std::io::read_to_string(self.stream).unwrap();
        (rest, self.server.join().unwrap())
    }
}

#[test]
fn a_user_reads_and_deletes() {
    let host = Host::new(MAIL);
    let mut client = host.serve("");
    assert!(client.line().starts_with("+OK maildrop has 2 messages ("));
    assert!(client.ask("retr 1\r\n").starts_with("+OK "));
    assert!(client.lines().contains("\r\n..dot\r\n...\r\nlast\r\n"));
    assert!(client.ask("dele 1\r\n").starts_with("+OK"));
    assert!(host.mail().contains("Subject: one"), "nothing is deleted before quit");
    client.say("quit\r\n");
    assert_eq!(client.end(), ("+OK bye\r\n".into(), Exit::Ok));
    assert!(!host.mail().contains("Subject: one") && host.mail().contains("Subject: two"));
}

#[test]
fn a_connection_that_is_lost_deletes_nothing() {
    let host = Host::new(MAIL);
    let mut client = host.serve("DELE 1\r\nDELE 2\r\n");
    for _ in 0..3 {
        assert!(client.line().starts_with("+OK"));
    }
    client.stream.get_ref().shutdown(Shutdown::Both).unwrap();
    client.end();
    assert_eq!(host.mail(), MAIL);
}

#[test]
fn top_sends_the_header_and_so_many_lines() {
    let host = Host::new(MAIL);
    let mut client = host.serve("");
    client.line();
    assert_eq!(client.ask("TOP 2 1\r\n"), "+OK\r\n");
    assert_eq!(client.lines(), "Subject: two\r\n\r\na\r\n.\r\n");
    assert_eq!(client.ask("TOP 2 0\r\n"), "+OK\r\n");
    assert_eq!(client.lines(), "Subject: two\r\n\r\n.\r\n");
}

#[test]
fn a_message_that_is_gone_is_told_and_not_half_sent() {
    let host = Host::new(MAIL);
    let mut client = host.serve("");
    client.line();
    std::fs::write(&host.inbox, "").unwrap();
    assert!(client.ask("RETR 1\r\n").starts_with("-ERR [SYS/TEMP]"));
    assert_eq!(client.ask("NOOP\r\n"), "+OK\r\n");
}

#[test]
fn a_large_message_arrives_whole() {
    let body = "0123456789abcdef\n.\n".repeat(50_000);
    let host = Host::new(&format!("From a@b Mon Jun 21 03:15:20 2004\nSubject: large\n\n{body}\n"));
    let mut client = host.serve("RETR 1\r\nQUIT\r\n");
    client.line();
    client.line();
    let expected = body.replace("\n.\n", "\n..\n").replace('\n', "\r\n");
    let whole = format!("Subject: large\r\n\r\n{expected}.\r\n");
    assert!(client.lines() == whole);
    assert_eq!(client.end(), ("+OK bye\r\n".into(), Exit::Ok));
}

#[test]
fn a_mailbox_that_can_t_be_opened_is_temporary() {
    let host = Host::new(MAIL);
    std::fs::remove_file(&host.inbox).unwrap();
    std::fs::create_dir(&host.inbox).unwrap();
    let client = host.serve("STAT\r\n");
    let (heard, exit) = client.end();
    assert!(heard.starts_with("-ERR [SYS/TEMP]"), "{heard}");
    assert_eq!(exit, Exit::TempFail);
}
