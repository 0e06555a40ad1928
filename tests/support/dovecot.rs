//! Debian's Dovecot on the mailbox of a site's user, without a server: doveadm, dovecot-lda, and
//! IMAP sessions, each a process of its own that runs as the user.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use super::peer::Peer;
use super::run::{Server, run};
use super::site::Site;
use super::{find, maildir};

/// Where Debian has what Dovecot runs itself.
const LIBEXEC: &str = "/usr/lib/dovecot";

/// Writes the configuration for the mailbox of a user. The locks are those of Debian's; whoever
/// can't get them gives up after seconds, and is asked again by who runs it.
pub fn configuration(site: &Site, user: &str) -> PathBuf {
    let at = site.path().display();
    let home = site.home(user).display().to_string();
    let account = Site::account(user);
    let file = site.path().join(format!("dovecot-{user}.conf"));
    let text = format!(
        "protocols =\nlog_path = /dev/stderr\nbase_dir = {at}/run\nssl = no\n\
         mail_location = mbox:{home}/dovecot:INBOX={inbox}\n\
         mbox_write_locks = fcntl dotlock\nmbox_lock_timeout = 2 secs\nfirst_valid_uid = 1\n\
         mail_uid = {}\nmail_gid = {}\nmail_home = {home}\n\
         hostname = mx.smkwlab.net\npostmaster_address = postmaster@smkwlab.net\n",
        account.uid,
        account.gid,
        inbox = site.inbox(user).display()
    );
    fs::write(&file, text).unwrap();
    file
}

/// A session on a Maildir in a user's home, where a message is a file as it is; and its configuration.
pub fn on_maildir(
    site: &Site,
    user: &str,
    messages: impl Iterator<Item = Vec<u8>>,
) -> (Imap, PathBuf) {
    let configuration = configuration(site, user);
    let text = fs::read_to_string(&configuration).unwrap();
    let root = site.home(user).join("Maildir");
    let location = format!("mail_location = maildir:{}\n", root.display());
    let other = |line: &str| {
        if line.starts_with("mail_location") { location.clone() } else { format!("{line}\n") }
    };
    fs::write(&configuration, text.lines().map(other).collect::<String>()).unwrap();
    let account = Site::account(user);
    for path in maildir::make(&root, messages) {
        chown(&path, Some(account.uid), Some(account.gid)).unwrap();
    }
    (Imap::open(site, user, &configuration).unwrap(), configuration)
}

/// Runs `doveadm` as a user.
pub fn doveadm(site: &Site, user: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(find("doveadm").unwrap());
    command.arg("-c").arg(configuration(site, user)).args(arguments);
    site.become_user(&mut command, user);
    run(&mut command, input).expect(0).stdout
}

/// `dovecot-lda`, which delivers what stands on its stdin.
pub fn lda(site: &Site, user: &str, sender: &str, configuration: &PathBuf) -> Command {
    let mut command = Command::new(PathBuf::from(LIBEXEC).join("dovecot-lda"));
    command.arg("-c").arg(configuration).args(["-f", sender]);
    site.become_user(&mut command, user);
    command
}

/// One IMAP session of a user, who is logged in already.
pub struct Imap {
    server: Server,
    peer: Peer,
}

/// One answer of the server that belongs to no tag.
pub struct Answer {
    /// Its text, without what stands in literals.
    pub text: String,
    /// What stands in literals.
    pub literals: Vec<Vec<u8>>,
}

/// A message that was fetched.
pub struct Fetched {
    pub uid: u32,
    pub flags: Vec<String>,
    pub message: Vec<u8>,
}

impl Answer {
    /// The number behind a word: `UID 7`.
    pub fn number(&self, word: &str) -> Option<u32> {
        let mut words = self.text.split([' ', '(', ')']);
        words.find(|found| *found == word)?;
        words.next()?.parse().ok()
    }
}

impl Imap {
    /// Starts it, and opens the inbox; why not, where Dovecot can't.
    pub fn open(site: &Site, user: &str, configuration: &PathBuf) -> Result<Self, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(PathBuf::from(LIBEXEC).join("imap"));
        command.arg("-c").arg(configuration);
        site.become_user(&mut command, user);
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
        let server = Server::start(&mut command);
        drop(command);
        let mut imap = Self { server, peer: Peer::new(ours) };
        let greeting = imap.peer.line();
        assert!(greeting.starts_with("* PREAUTH "), "{greeting}");
        imap.command("SELECT INBOX").map(|_| imap)
    }

    /// Sends a command. Its answers, where it ends with OK; else how it ended.
    pub fn command(&mut self, command: &str) -> Result<Vec<Answer>, String> {
        self.peer.send(format!("a {command}\r\n"));
        let mut answers = Vec::new();
        loop {
            let mut answer = Answer { text: self.peer.line(), literals: Vec::new() };
            if let Some(end) = answer.text.strip_prefix("a ") {
                return if end.starts_with("OK ") { Ok(answers) } else { Err(end.to_owned()) };
            }
            if answer.text.is_empty() || answer.text.starts_with("* BYE ") {
                return Err(self.end(command));
            }
            while let Some(length) = literal(&answer.text) {
                let Some(bytes) = self.peer.take(length) else {
                    return Err(self.end(command));
                };
                answer.literals.push(bytes);
                answer.text.push_str(&self.peer.line());
            }
            answers.push(answer);
        }
    }

    /// What to say where the session ended without being asked to.
    fn end(&self, command: &str) -> String {
        format!("no answer to {command}: {}", self.server.wait_for_log(": Disconnected: "))
    }

    /// Ends it, and waits until Dovecot has written what it had put off.
    pub fn log_out(mut self) {
        self.peer.send("a LOGOUT\r\n");
        self.peer.rest();
        self.server.join();
    }

    /// What a `UID SEARCH` finds.
    pub fn search(&mut self, what: &str) -> Result<Vec<u32>, String> {
        let answers = self.command(&format!("UID SEARCH {what}"))?;
        let found = answers.iter().filter_map(|answer| answer.text.strip_prefix("* SEARCH"));
        Ok(found.flat_map(str::split_whitespace).map(|uid| uid.parse().unwrap()).collect())
    }

    /// Messages, with LF line ends.
    pub fn fetch(&mut self, uids: &str) -> Result<Vec<Fetched>, String> {
        let answers = self.command(&format!("UID FETCH {uids} (FLAGS BODY.PEEK[])"))?;
        let fetched = |mut answer: Answer| {
            let message = answer.literals.pop()?;
            let flags = answer.text.split_once("FLAGS (")?.1.split_once(')')?.0;
            Some(Fetched {
                uid: answer.number("UID")?,
                flags: flags.split(' ').map(str::to_owned).collect(),
                message: message.split(|b| *b == b'\r').collect::<Vec<_>>().concat(),
            })
        };
        Ok(answers.into_iter().filter_map(fetched).collect())
    }
}

/// The length of the literal that begins behind a line: `… {123}`.
fn literal(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}
