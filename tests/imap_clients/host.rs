//! A host with imapd for clients of every kind, and a session beside theirs that looks and meddles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::letters::{delivered, id, id_of, letter, lines};
use super::support::peer::Peer;
use super::support::run::{Server, run};
use super::support::site::Site;
use super::support::store::{Form, SENDER, USER};
use super::support::tls::Pair;

pub const PASSWORD: &str = "Watts?Watt?";
/// How clients call the host, and the name in its certificate.
pub const NAME: &str = "localhost";

pub struct Host {
    pub pair: Pair,
    pub site: Site,
    imap: (Server, SocketAddr),
    imaps: (Server, SocketAddr),
}

/// Messages of a mailbox, by their Message-IDs: their flags, and all of their text.
pub type Messages = BTreeMap<String, (BTreeSet<String>, Vec<u8>)>;

impl Host {
    /// One whose users have mbox inboxes and folders in `~/mail`, or a Maildir with subfolders.
    pub fn new(form: Form) -> Self {
        let pair = Pair::of(NAME);
        let mut plan = pair.plan_for("imap.tls", pair.plan_for("pop3.tls", form.plan()));
        if form == Form::Maildir {
            plan = plan.set("paths", "folders", "\"%h/Maildir/\"");
        }
        let site = plan.build();
        let (imap, imaps) = (site.serve("imapd"), site.serve_word("imapd", "imaps"));
        Self { pair, site, imap, imaps }
    }

    /// Where imapd is, without TLS or for STARTTLS.
    pub fn address(&self) -> SocketAddr {
        self.imap.1
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.imap.1.port()
    }

    /// The port of imapd with TLS from the first byte on.
    pub fn tls_port(&self) -> u16 {
        self.imaps.1.port()
    }

    pub fn certificate(&self) -> String {
        self.pair.certificate().display().to_string()
    }

    /// A new directory of a client's, which is its home.
    pub fn home(&self, client: &str) -> PathBuf {
        let home = self.site.path().join(client);
        fs::create_dir(&home).unwrap();
        home
    }

    /// Delivers the letter of each number.
    pub fn deliver(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.site.local_deliver(USER, SENDER, &letter(number)).expect(0);
        }
    }

    /// popd, with this spoken there.
    pub fn popd(&self, word: &str) -> (Server, SocketAddr) {
        self.site.serve_word("popd", word)
    }

    /// Adds a user with keys of SCRAM, whose password is the same.
    pub fn add_user(&self, name: &str, scheme: &str) {
        let account = Site::account("bob");
        let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
        let home = self.site.home("bob").display().to_string();
        let words = ["user", "add", name, "--uid", &uid, "--gid", &gid, "--home", &home];
        let words = [&words[..], &["--scheme", scheme]].concat();
        let input = format!("{PASSWORD}\n");
        run(self.site.command("mailctl").args(words), input.as_bytes()).expect(0);
    }

    /// A session beside the client's, without TLS.
    pub fn session(&self) -> Session {
        let mut peer = Peer::connect(self.imap.1);
        assert!(peer.line().starts_with("* OK "));
        let mut session = Session { peer };
        session.ok(&format!("LOGIN {USER} {PASSWORD}"));
        session
    }

    /// What there is in a folder, as a session of its own is told.
    #[track_caller]
    pub fn folder(&self, name: &str) -> Messages {
        let mut session = self.session();
        session.ok(&format!("EXAMINE {name}"));
        let told = session.told();
        session.log_out();
        told
    }

    /// All that the mailboxes are made of, without what is known of them.
    pub fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = tree(&self.site.home(USER));
        all.retain(|path, _| path.components().all(|part| part.as_os_str() != ".index"));
        all.insert(PathBuf::from("INBOX"), self.site.spool(USER));
        all
    }

    /// Waits for a text in the log of the imapd with TLS from the first byte on; the log.
    #[track_caller]
    pub fn encrypted_log(&self, text: &str) -> String {
        self.imaps.0.wait_for_log(text)
    }

    /// Waits until every session is over, and looks for complaints in the log: there is no line of
    /// another kind than of sessions that went well.
    #[track_caller]
    pub fn ends_well(self) {
        for (server, _) in [&self.imap, &self.imaps] {
            is_content(server);
        }
    }
}

/// That a server has nothing to complain of when its sessions are over.
#[track_caller]
pub fn is_content(server: &Server) {
    server.wait_until_quiet();
    let log = server.log();
    for line in log.lines() {
        let (_, said) = line.split_once("]: ").unwrap();
        let is_end = said.starts_with("Disconnected: ")
            && ["logout", "gone", "quit"].iter().any(|end| said.ends_with(&format!("end={end}")));
        assert!(
            is_end || said.starts_with("Login: ") || said.starts_with("connect "),
            "{line}\nin\n{log}"
        );
    }
}

/// A session of IMAP.
pub struct Session {
    pub peer: Peer,
}

impl Session {
    /// What is said to a command, but for its last line, which must be OK.
    #[track_caller]
    pub fn ok(&mut self, command: &str) -> String {
        let mut said = self.peer.imap(&format!("a {command}"));
        let end = said[..said.len() - 1].rfind('\n').map_or(0, |at| at + 1);
        let last = said.split_off(end);
        assert!(last.starts_with("a OK"), "{command}: {said}{last}");
        said
    }

    /// Appends a message to a folder, with these flags.
    #[track_caller]
    pub fn append(&mut self, folder: &str, flags: &str, message: &[u8]) {
        let message = super::letters::crlf(message);
        self.peer.send(format!("a APPEND {folder} ({flags}) {{{}+}}\r\n", message.len()));
        self.peer.send([&message[..], b"\r\n"].concat());
        loop {
            let line = self.peer.line();
            if !line.starts_with("* ") {
                assert!(line.starts_with("a OK"), "{line}");
                return;
            }
        }
    }

    /// The UID of the message of this number.
    #[track_caller]
    pub fn uid(&mut self, number: usize) -> u32 {
        self.ok("NOOP");
        let said = self.ok(&format!("UID SEARCH HEADER Message-ID {}", id(number)));
        let found = said.lines().find_map(|line| line.strip_prefix("* SEARCH ")).unwrap();
        found.parse().unwrap()
    }

    /// Says `UID word UID rest` of the message of this number.
    #[track_caller]
    pub fn of(&mut self, word: &str, number: usize, rest: &str) -> String {
        let uid = self.uid(number);
        self.ok(&format!("UID {word} {uid} {rest}"))
    }

    /// Removes the message of this number.
    #[track_caller]
    pub fn expunge(&mut self, number: usize) {
        let uid = self.uid(number);
        self.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"));
        // A client's EXPUNGE may have come before.
        self.ok(&format!("UID EXPUNGE {uid}"));
    }

    /// All messages of the selected mailbox, without `\Recent`. None is there twice.
    #[track_caller]
    pub fn told(&mut self) -> Messages {
        let mut all = Messages::new();
        let mut is_old = false;
        self.peer.send("a UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n");
        loop {
            let line = self.peer.line();
            let Some(rest) = line.split_once("FETCH (").map(|(_, rest)| rest) else {
                if line.starts_with("* ") {
                    continue;
                }
                assert!(line.starts_with("a OK"), "{line}");
                return if is_old { self.told() } else { all };
            };
            if !rest.ends_with('}') {
                // Somebody has marked one meanwhile.
                is_old = true;
                continue;
            }
            let length = rest.rsplit_once('{').unwrap().1.strip_suffix('}').unwrap();
            let text = lines(&self.peer.take(length.parse().unwrap()).unwrap());
            assert_eq!(self.peer.line(), ")");
            let flags = rest.split_once("FLAGS (").unwrap().1.split_once(')').unwrap().0;
            let flags = flags.split(' ').filter(|flag| !flag.is_empty() && *flag != "\\Recent");
            let flags = flags.map(str::to_owned).collect();
            let id = id_of(&text);
            assert!(all.insert(id.clone(), (flags, text)).is_none(), "{id} is there twice");
        }
    }

    #[track_caller]
    pub fn log_out(mut self) {
        self.peer.send("a LOGOUT\r\n");
        assert!(self.peer.rest().contains("a OK"));
    }
}

/// That a mailbox has exactly the messages of these numbers, whole as they were delivered.
#[track_caller]
pub fn has(found: &Messages, numbers: impl IntoIterator<Item = usize>) {
    let numbers: Vec<usize> = numbers.into_iter().collect();
    let ids: BTreeSet<String> = numbers.iter().map(|number| id(*number)).collect();
    let there: BTreeSet<String> = found.keys().cloned().collect();
    assert_eq!(there, ids);
    for number in numbers {
        same(&found[&id(number)].1, &delivered(number));
    }
}

/// The flags of the message of this number, with blanks between them.
#[track_caller]
pub fn flags(found: &Messages, number: usize) -> String {
    let (flags, _) = found.get(&id(number)).unwrap_or_else(|| panic!("there is no {number}"));
    flags.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// That these bytes are those.
#[track_caller]
pub fn same(found: &[u8], wanted: &[u8]) {
    assert!(found == wanted, "{}\nis not\n{}", found.escape_ascii(), wanted.escape_ascii());
}

/// All files below a directory, with what is in them.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                all.insert(
                    path.strip_prefix(directory).unwrap().to_owned(),
                    fs::read(path).unwrap(),
                );
            }
        }
    }
    all
}

/// A client's program, with nothing of whoever runs the tests.
pub fn client(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("TZ", "Asia/Tokyo");
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    command.env_remove("XDG_DATA_HOME").current_dir(home);
    command
}
