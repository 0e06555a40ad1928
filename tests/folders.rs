//! Folders that we make are Dovecot's and mutt's, and theirs are ours.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use hikyaku::config::LockKind;
use hikyaku::mailbox::Place;
use hikyaku::mailbox::folders::{Folders, Name};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use support::dovecot::{self, Imap};
use support::run::run;
use support::site::Site;
use support::{is_root, mutt, need};

const USER: &str = "hunt";

/// A site, and its user's folders.
struct Host {
    site: Site,
    root: PathBuf,
}

impl Host {
    fn new() -> Self {
        let site = Site::new();
        site.fill(USER, b"");
        // Whoever delivers here is the user, and looks for no other.
        fs::set_permissions(site.path().join("users"), fs::Permissions::from_mode(0o644)).unwrap();
        Self { root: site.home(USER).join("mail"), site }
    }

    /// Delivers into a folder.
    fn deliver(&self, folder: &str) {
        let mut command = self.site.local_deliver_command(USER, "a@b.org");
        command.args(["-m", folder]);
        run(&mut command, format!("Subject: {folder}\n\nhello\n").as_bytes()).expect(0);
    }

    /// Does something with the folders as the user.
    fn at<T>(&self, action: impl FnOnce(&Folders) -> T) -> T {
        let account = Site::account(USER);
        let place = Place {
            path: self.site.inbox(USER),
            index: self.root.join(".index"),
            owner: Uid::from_raw(account.uid),
            locks: vec![LockKind::Fcntl, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(5),
            quota: 0,
        };
        // This thread's files only; the other tests go on as who they are.
        let before = is_root()
            .then(|| (setfsgid(Gid::from_raw(account.gid)), setfsuid(Uid::from_raw(account.uid))));
        let done = action(&Folders::open(&self.root, place));
        if let Some((gid, uid)) = before {
            setfsuid(uid);
            setfsgid(gid);
        }
        done
    }

    /// Names, with `-` behind those without messages.
    fn names(&self) -> Vec<String> {
        let entries = self.at(|folders| folders.list("", "*").unwrap().entries);
        let shown = entries
            .iter()
            .map(|entry| format!("{}{}", entry.name, if entry.no_select { "-" } else { "" }));
        shown.collect()
    }

    /// An IMAP session of Dovecot's on the same folders, whose names it has in modified UTF-7 or as
    /// they are.
    fn dovecot(&self, utf8: bool) -> Imap {
        let configuration = dovecot::configuration(&self.site, USER);
        let text = fs::read_to_string(&configuration).unwrap();
        let home = self.site.home(USER).display().to_string();
        let inbox = self.site.inbox(USER).display().to_string();
        let usual = format!("mbox:{home}/dovecot:INBOX={inbox}");
        assert!(text.contains(&usual));
        let names = if utf8 { ":UTF-8" } else { "" };
        let ours = format!("mbox:{home}/mail:INBOX={inbox}:INDEX={home}/dovecot{names}");

        fs::write(&configuration, text.replace(&usual, &ours)).unwrap();
        Imap::open(&self.site, USER, &configuration).unwrap()
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// The folders that an answer of Dovecot's tells of, with `-` behind those without messages.
fn listed(imap: &mut Imap, command: &str) -> Vec<String> {
    let answers = imap.command(command).unwrap();
    let folder = |answer: &dovecot::Answer| {
        let (attributes, name) = answer.text.split_once(" \"/\" ")?;
        let none = if attributes.contains("\\Noselect") { "-" } else { "" };
        Some(format!("{}{none}", name.trim_matches('"')))
    };
    let mut all: Vec<String> = answers.iter().filter_map(folder).collect();
    // Dovecot takes what begins with a dot for folders, too.
    all.retain(|name| !name.starts_with(".index"));
    all.sort();
    all
}

/// The subject of the one message in a folder, as Dovecot reads it.
fn subject(imap: &mut Imap, folder: &str) -> String {
    imap.command(&format!("SELECT \"{folder}\"")).unwrap();
    let messages = imap.fetch("1:*").unwrap();
    assert_eq!(messages.len(), 1, "{folder}");
    let text = String::from_utf8(messages[0].message.clone()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap().to_owned()
}

#[test]
fn dovecot_opens_what_we_made_and_we_what_dovecot_made() {
    if !need("doveadm") {
        return;
    }
    let host = Host::new();
    host.at(|folders| {
        folders.create(&name("work/2026"), &[]).unwrap();
        folders.create(&name("work"), &[]).unwrap();
        folders.create(&name("Entw\u{fc}rfe"), &[]).unwrap();
        for text in ["work", "Entw\u{fc}rfe", "R&D"] {
            folders.subscribe(&name(text)).unwrap();
        }
    });
    for folder in ["work", "work/2026", "Entw\u{fc}rfe", "R&D", "R&-D"] {
        host.deliver(folder);
    }
    let mut imap = host.dovecot(false);
    assert_eq!(
        listed(&mut imap, "LIST \"\" *"),
        ["Entw&APw-rfe", "INBOX", "R&--D", "R&-D", "work", "work.sbd-", "work.sbd/2026"]
    );
    // What it shows in modified UTF-7 and does not stand so on the disk, it can't open.
    for (folder, ours) in [("work", "work"), ("work.sbd/2026", "work/2026"), ("R&--D", "R&-D")] {
        assert_eq!(subject(&mut imap, folder), ours);
    }
    let mut other = host.dovecot(true);
    for (folder, ours) in [("Entw&APw-rfe", "Entw\u{fc}rfe"), ("R&-D", "R&D")] {
        assert_eq!(subject(&mut other, folder), ours);
    }
    other.log_out();
    assert_eq!(listed(&mut imap, "LSUB \"\" *"), ["Entw&APw-rfe", "R&-D", "work"]);
    for command in [
        "CREATE \"lists/Gr&APw-n\"",
        "CREATE INBOX/old",
        "CREATE \"Q&-A\"",
        "SUBSCRIBE \"lists/Gr&APw-n\"",
        "UNSUBSCRIBE work",
    ] {
        imap.command(command).unwrap();
    }
    imap.log_out();
    assert_eq!(
        host.names(),
        [
            "INBOX",
            "Entw\u{fc}rfe",
            "INBOX/old",
            "Q&A",
            "R&-D",
            "R&D",
            "lists-",
            "lists/Gr\u{fc}n",
            "work",
            "work/2026"
        ]
    );
    let subscriptions = host.at(|folders| folders.subscriptions().unwrap());
    assert_eq!(subscriptions, ["Entw\u{fc}rfe", "R&D", "lists/Gr\u{fc}n"].map(name));
    // What Dovecot made is delivered into, and moves with what stands below it.
    host.deliver("lists/Gr\u{fc}n");
    host.at(|folders| folders.rename(&name("lists"), &name("work/lists")).unwrap());
    let mut imap = host.dovecot(false);
    assert_eq!(subject(&mut imap, "work.sbd/lists/Gr&APw-n"), "lists/Gr\u{fc}n");
    imap.log_out();
}

#[test]
fn what_dovecot_wrote_as_the_second_form_of_subscriptions_is_kept() {
    if !need("doveadm") {
        return;
    }
    let host = Host::new();
    host.at(|folders| folders.create(&name("a/b"), &[]).unwrap());
    let mut imap = host.dovecot(false);
    for command in ["CREATE \"x/&APw-\"", "SUBSCRIBE \"x/&APw-\"", "SUBSCRIBE a.sbd/b"] {
        imap.command(command).unwrap();
    }
    imap.log_out();
    let text = || fs::read_to_string(host.root.join(".subscriptions")).unwrap();
    assert!(text().starts_with("V\t2\n\n"), "{}", text());
    host.at(|folders| {
        assert_eq!(folders.subscriptions().unwrap(), [name("x/\u{fc}")]);
        folders.subscribe(&name("x/none")).unwrap();
        folders.unsubscribe(&name("x/\u{fc}")).unwrap();
    });
    let mut imap = host.dovecot(false);
    assert_eq!(listed(&mut imap, "LSUB \"\" *"), ["a.sbd/b", "x/none"]);
    imap.log_out();
}

#[test]
fn mutt_opens_what_we_made_and_we_deliver_into_what_mutt_made() {
    if !mutt::possible_as_user() {
        return;
    }
    let host = Host::new();
    let folders = ["work", "work/2026", "Gr\u{fc}n"];
    host.at(|at| {
        for folder in folders {
            at.create(&name(folder), &[]).unwrap();
        }
    });
    for folder in folders {
        host.deliver(folder);
    }
    for (path, folder) in
        [("work", "work"), ("work.sbd/2026", "work/2026"), ("Gr\u{fc}n", "Gr\u{fc}n")]
    {
        let copy = host.site.home(USER).join("copy");
        let _ = fs::remove_file(&copy);
        let keys = format!("<first-entry><pipe-message>cat >{}<enter><exit>", copy.display());
        mutt::press_as(&host.site, USER, &host.root.join(path), "", &keys);
        let text = fs::read_to_string(&copy).unwrap();
        assert!(text.contains(&format!("\nSubject: {folder}\n")), "{text}");
    }
    // Saved by mutt into a folder that was not there.
    let keys = "<first-entry><copy-message>^U=mail/saved<enter><exit>".replace("^U", "<kill-line>");
    mutt::press_as(&host.site, USER, &host.root.join("work"), "", &keys);
    host.deliver("saved");
    assert!(host.names().contains(&"saved".to_owned()));
    let text = fs::read_to_string(host.root.join("saved")).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("Subject: ")).count(), 2, "{text}");
}
