//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): what a client comes back with, so that the
//! two need not prove each other again who they are.
//!
//! A session is a process, and no two know each other: the listening parent makes the keys, and
//! each session has them from it. A key makes tickets for [`ROTATION`] and opens them for as long
//! again; then it is gone, and with it whatever could read old connections.

use std::time::{Duration, Instant};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

/// So long a key makes tickets.
const ROTATION: Duration = Duration::from_hours(6);

/// So long, in seconds, a ticket is good at least from the point of view of its client.
const LIFETIME: u32 = 6 * 60 * 60;

type Key = [u8; 32];

/// The listening parent's keys.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
    made: Instant,
}

impl Keys {
    /// A new key.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { current: random()?, previous: None, made: Instant::now() })
    }

    /// When the current one was made.
    pub fn made(&self) -> Instant {
        self.made
    }

    /// Makes a new key when it is time. Without randomness the old one stays.
    pub fn rotate(&mut self) {
        self.rotate_at(Instant::now());
    }

    fn rotate_at(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.made);
        if age < ROTATION {
            return;
        }
        if let Ok(new) = random() {
            // Nobody came for so long: the current one is too old as well.
            let old = std::mem::replace(&mut self.current, new);
            overwrite(&mut self.previous);
            self.previous = (age < 2 * ROTATION).then_some(old);
            self.made = now;
        }
    }

    /// Overwrites them.
    pub fn forget(&mut self) {
        let mut current = Some(self.current);
        overwrite(&mut current);
        self.current = [0; 32];
        overwrite(&mut self.previous);
        std::hint::black_box(&self.current);
    }

    /// A session's tickets; `None` where the library does not take the keys.
    pub(super) fn ticketer(&self) -> Option<Ticketer> {
        let key = |key: &Key| Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?));
        let previous = self.previous.as_ref().map(key);
        Some(Ticketer { current: key(&self.current)?, previous: previous.flatten() })
    }
}

fn random() -> std::io::Result<Key> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    Ok(key)
}

fn overwrite(key: &mut Option<Key>) {
    if let Some(key) = key {
        key.fill(0);
    }
    std::hint::black_box(&*key);
    *key = None;
}

/// Makes and opens tickets: a nonce, and what the library wants to know again, sealed.
#[derive(Debug)]
pub(super) struct Ticketer {
    current: LessSafeKey,
    previous: Option<LessSafeKey>,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.current.seal_in_place_append_tag(unique, Aad::empty(), &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find_map(|key| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
            plain.truncate(length);
            Some(plain)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustls::server::ProducesTickets;

    use super::{Keys, ROTATION};

    #[test]
    fn a_ticket_is_opened_until_its_key_has_been_replaced_twice() {
        let mut keys = Keys::new().unwrap();
        let start = Instant::now();
        let ticket = keys.ticketer().unwrap().encrypt(b"state").unwrap();
        assert!(!ticket.windows(5).any(|part| part == b"state"));
        let opened = |keys: &Keys| keys.ticketer().unwrap().decrypt(&ticket);
        keys.rotate_at(start + ROTATION / 2);
        assert_eq!(opened(&keys).as_deref(), Some(&b"state"[..]));
        keys.rotate_at(start + ROTATION * 3 / 2);
        assert_eq!(opened(&keys).as_deref(), Some(&b"state"[..]));
        assert_ne!(keys.ticketer().unwrap().encrypt(b"state").unwrap(), ticket);
        keys.rotate_at(start + ROTATION * 5 / 2);
        assert_eq!(opened(&keys), None);
        // After a long silence nothing of before is opened.
        let ticket = keys.ticketer().unwrap().encrypt(b"state").unwrap();
        keys.rotate_at(start + ROTATION * 9);
        assert_eq!(keys.ticketer().unwrap().decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_none() {
        let ticketer = Keys::new().unwrap().ticketer().unwrap();
        let ticket = ticketer.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "{at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "{at}");
        }
        assert_eq!(Keys::new().unwrap().ticketer().unwrap().decrypt(&ticket), None);
    }
}
