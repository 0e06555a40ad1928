//! Maildirs of messages that are files as they are, for Dovecot and our store side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hikyaku::mailbox::Place;

/// Makes one; its directories and files.
pub fn make(root: &Path, messages: impl Iterator<Item = Vec<u8>>) -> Vec<PathBuf> {
    let mut made = vec![root.to_owned()];
    made.extend(["cur", "new", "tmp"].map(|name| root.join(name)));
    for directory in &made {
        fs::create_dir(directory).unwrap();
    }
    for (number, message) in messages.enumerate() {
        let file = root.join(format!("cur/{}.x.host:2,S", 1_000_000_000 + number));
        fs::write(&file, message).unwrap();
        made.push(file);
    }
    made
}

/// One of our own, in a directory of the test's.
pub fn place(directory: &Path, messages: impl Iterator<Item = Vec<u8>>) -> Place {
    let root = directory.join("Maildir");
    make(&root, messages);
    Place {
        path: root,
        index: directory.join("index"),
        owner: nix::unistd::geteuid(),
        locks: Vec::new(),
        libexec: "/nonexistent".into(),
        lock_timeout: Duration::from_secs(1),
        quota: 0,
    }
}
