//! The structures of a mailbox's messages: each message is read for its own once, by whichever
//! session asks first.

use super::cache::Cache;
use super::index::Directory;
use super::store::{Message, Store};
use super::uids::Uid;
use super::{Error, Place};
use crate::message::structure::{Parser, Structure};

/// The end of a cache's name.
pub const ENDING: &str = ".cache";

/// A session's way to the structures of a mailbox.
#[derive(Debug)]
pub struct Structures {
    cache: Cache,
    /// How many were known.
    pub hits: u64,
    /// For how many the message was read.
    pub misses: u64,
}

impl Structures {
    /// Those of the mailbox at this place, with the cache beside its index. Where there can't be
    /// one, each session reads messages for itself.
    pub fn open(place: &Place) -> Self {
        let directory = Directory::new(&place.index, &place.path, place.owner);
        let file = directory.file(ENDING, true).ok().flatten();
        Self { cache: Cache::open(file), hits: 0, misses: 0 }
    }

    /// The structure of message `uid`. [`Error::Changed`] if it is gone.
    pub fn of(&mut self, store: &mut dyn Store, uid: Uid) -> Result<Structure, Error> {
        // What a store reads is what had this digest, or nothing.
        let digest = store.message(uid)?.ok_or(Error::Changed)?.digest;
        if let Some(structure) = self.known(uid, &digest) {
            return Ok(structure);
        }
        let mut parser = Parser::default();
        store.read(uid, 0..u64::MAX, &mut |octets| {
            parser.push(octets);
            Ok(())
        })?;
        Ok(self.learned(uid, &digest, parser))
    }

    /// The structure of a message that was read anyway: this is its text.
    pub fn of_text(&mut self, message: &Message, text: &[u8]) -> Structure {
        if let Some(structure) = self.known(message.uid, &message.digest) {
            return structure;
        }
        let mut parser = Parser::default();
        parser.push(text);
        self.learned(message.uid, &message.digest, parser)
    }

    fn known(&mut self, uid: Uid, digest: &[u8; 16]) -> Option<Structure> {
        let structure = self.cache.get(uid, digest)?;
        self.hits = self.hits.saturating_add(1);
        Some(structure)
    }

    fn learned(&mut self, uid: Uid, digest: &[u8; 16], parser: Parser) -> Structure {
        let structure = parser.finish();
        self.misses = self.misses.saturating_add(1);
        self.cache.put(uid, digest, &structure);
        structure
    }

    /// Drops those of messages that are gone, where they are many. To be called now and then.
    pub fn drop_gone(&mut self, store: &dyn Store) {
        self.cache.keep_only(|uid| store.uids().contains(uid));
    }
}

#[cfg(test)]
#[path = "structures_tests.rs"]
mod tests;
