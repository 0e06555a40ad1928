//! A mailbox in a directory of its own.

use std::fs;
use std::time::Duration;

use hikyaku::config::LockKind;
use hikyaku::mailbox::store::Message;
use hikyaku::mailbox::{Mbox, MboxStore, Place, Store};

pub struct Home {
    _dir: tempfile::TempDir,
    pub place: Place,
}

impl Home {
    /// With this content.
    pub fn new(content: &[u8]) -> Self {
        // In memory: there are many fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let inbox = dir.path().join("box");
        fs::write(&inbox, content).unwrap();
        let place = Place {
            path: inbox,
            index: dir.path().join("index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(1),
            quota: 0,
        };
        Self { _dir: dir, place }
    }

    /// For a delivery.
    pub fn mbox(&self) -> Mbox {
        Mbox::new(self.place.clone())
    }

    /// For a session.
    pub fn open(&self) -> MboxStore {
        MboxStore::open(self.place.clone()).unwrap()
    }

    pub fn content(&self) -> Vec<u8> {
        fs::read(&self.place.path).unwrap()
    }

    /// All messages as clients get them, as they stand in the file.
    pub fn read_all(&self) -> Vec<Vec<u8>> {
        let mut store = self.open();
        in_order(&store).iter().map(|message| read(&mut store, message)).collect()
    }
}

/// The messages as they stand in the file.
pub fn in_order(store: &MboxStore) -> Vec<Message> {
    let mut messages = store.messages().unwrap();
    messages.sort_by_key(|message| message.extent.start);
    messages
}

/// A message as clients get it.
pub fn read(store: &mut MboxStore, message: &Message) -> Vec<u8> {
    let mut shown = Vec::new();
    let mut sink = |bytes: &[u8]| {
        shown.extend_from_slice(bytes);
        Ok(())
    };
    store.read(message.uid, 0..u64::MAX, &mut sink).unwrap();
    shown
}
