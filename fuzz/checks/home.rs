//! A mailbox in a directory of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hikyaku::config::LockKind;
use hikyaku::mailbox::{Mbox, Place, Snapshot};

pub struct Home {
    _dir: tempfile::TempDir,
    pub inbox: PathBuf,
    pub mailbox: Mbox,
}

impl Home {
    /// With this content.
    pub fn new(content: &[u8]) -> Self {
        // In memory: there are many fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let inbox = dir.path().join("box");
        fs::write(&inbox, content).unwrap();
        let mailbox = Mbox::new(Place {
            path: inbox.clone(),
            index: dir.path().join("index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(1),
            quota: 0,
        });
        Self { _dir: dir, inbox, mailbox }
    }

    pub fn content(&self) -> Vec<u8> {
        fs::read(&self.inbox).unwrap()
    }

    /// Message `n` as clients get it, with at most so many lines of its body.
    pub fn read(&mut self, snapshot: &Snapshot, n: usize, body_lines: Option<u64>) -> Vec<u8> {
        let mut shown = Vec::new();
        let mut sink = |bytes: &[u8]| {
            shown.extend_from_slice(bytes);
            Ok(())
        };
        self.mailbox.read(snapshot, n, body_lines, &mut sink).unwrap();
        shown
    }

    /// All messages as clients get them.
    pub fn read_all(&mut self) -> Vec<Vec<u8>> {
        let snapshot = self.mailbox.scan().unwrap();
        (0..snapshot.len()).map(|n| self.read(&snapshot, n, None)).collect()
    }
}
