//! Greylisting: mail of a sender that a client has not brought before is put off once. A mail server
//! comes again; what only sends junk seldom does.
//!
//! What is known stands in a file of one size, `greylist` in the queue's directory: a page of
//! header, then pages of records, each record on the page that its key says.
//!
//! ```text
//! hikyaku-greylist 1\n SWEPT                               seconds since 1970, 8 bytes little-endian
//! KEY[16] FIRST[4] LAST[4] COUNT[4] CRC[4]                 32 bytes; times in seconds, little-endian
//! ```
//!
//! A key is the start of the SHA-256 of a client's network, a sender and a recipient, or of the
//! network alone, which is trusted when several have come again. A page that is full forgets what
//! was heard of longest ago. Nothing here is worth a sync: what is lost, or damaged, costs somebody
//! one more delay.

use std::fs::{File, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use ring::digest;

use crate::config;
use crate::sys::lock;

const PAGE: usize = 4096;
const RECORD: usize = 32;
const KEY: usize = 16;
const PAGES: u64 = 2048;
const HEAD: &[u8] = b"hikyaku-greylist 1\n";

/// So many senders and recipients, come again, make their client's network trusted.
const TRUSTED: u32 = 5;

/// Seconds between two sweeps.
const SWEEP: u64 = 3600;

/// What is known of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    key: [u8; KEY],
    /// When it came first.
    first: u32,
    /// When it came last.
    last: u32,
    /// How often it was let through; of a network: how many of its senders and recipients were.
    count: u32,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<KEY>()?;
        let (content, crc) = bytes.split_at_checked(RECORD - 4)?;
        if crc32fast::hash(content).to_le_bytes() != crc {
            return None;
        }
        let mut numbers = rest.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four));
        Some(Self {
            key: *key,
            first: numbers.next()?,
            last: numbers.next()?,
            count: numbers.next()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.key.to_vec();
        for number in [self.first, self.last, self.count] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Whether it says nothing any more.
    fn is_over(&self, times: &config::Greylist, now: u32) -> bool {
        let keep = if self.count > 0 { times.remember } else { times.retry_within };
        let age = u64::from(now.saturating_sub(self.last));
        // A time to come is of a clock that was wrong.
        age > keep.seconds() || self.last > now || self.first > now
    }
}

/// The page of a key, by its number, and where in the file it begins.
fn page_of(key: &[u8; KEY]) -> u64 {
    let number = u64::from(u16::from_le_bytes([key[0], key[1]])) % PAGES;
    (number + 1) * PAGE as u64
}

/// What is known, and for how long.
pub struct Greylist {
    file: File,
    times: config::Greylist,
}

impl Greylist {
    /// Opens the file in the queue's directory, or makes it, as its owner's. The directory is the
    /// queue's owner's, and we may be root: what stands there may be anything.
    pub fn open(queue: &Path, times: &config::Greylist) -> io::Result<Self> {
        let owner = queue.metadata()?;
        let path = queue.join("greylist");
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
        let file = match options.clone().create_new(true).open(&path) {
            Ok(file) => {
                std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path)?,
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if !is_own(&found, &owner) {
            let what = "is no file of the queue's owner alone; remove it";
            return Err(io::Error::other(format!("{}: {what}", path.display())));
        }
        Ok(Self { file, times: times.clone() })
    }

    /// How many seconds mail of this sender to this recipient has to wait, if at all.
    pub fn wait(
        &self,
        now: u64,
        client: IpAddr,
        sender: &str,
        recipient: &str,
    ) -> io::Result<Option<u64>> {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let delay = self.times.delay.seconds();
        let network = network(client);
        let of_network = key(&[&network]);
        let _held = Held::by(&self.file)?;
        let trusted = self.find(&of_network, now)?;
        if trusted.is_some_and(|record| record.count >= TRUSTED) {
            self.keep(
                Record { last: now, ..trusted.unwrap_or_else(|| new(of_network, now)) },
                now,
            )?;
            return Ok(None);
        }
        let key = key(&[
            &network,
            sender.to_ascii_lowercase().as_bytes(),
            recipient.to_ascii_lowercase().as_bytes(),
        ]);
        let Some(known) = self.find(&key, now)? else {
            self.keep(new(key, now), now)?;
            return Ok(Some(delay));
        };
        let age = u64::from(now - known.first);
        if known.count == 0 && age < delay {
            return Ok(Some(delay - age));
        }
        self.keep(Record { last: now, count: known.count.saturating_add(1), ..known }, now)?;
        if known.count == 0 {
            let network = trusted.unwrap_or_else(|| new(of_network, now));
            self.keep(Record { last: now, count: network.count + 1, ..network }, now)?;
        }
        Ok(None)
    }

    /// Forgets what is over, where that has not been done for a while.
    pub fn sweep(&self, now: u64) -> io::Result<()> {
        let mut head = [0; PAGE];
        self.read(&mut head, 0)?;
        let place = HEAD.len()..HEAD.len() + 8;
        let swept = head.starts_with(HEAD).then(|| head.get(place.clone())).flatten();
        let swept = swept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        if (swept..swept.saturating_add(SWEEP)).contains(&now) {
            return Ok(());
        }
        let _held = Held::by(&self.file)?;
        let mut page = [0; PAGE];
        for offset in (1..=PAGES).map(|number| number * PAGE as u64) {
            self.read(&mut page, offset)?;
            let mut changed = false;
            for bytes in page.as_chunks_mut::<RECORD>().0 {
                let over = match Record::parse(bytes) {
                    Some(record) => {
                        record.is_over(&self.times, u32::try_from(now).unwrap_or(u32::MAX))
                    }
                    None => bytes.iter().any(|byte| *byte != 0),
                };
                if over {
                    bytes.fill(0);
                    changed = true;
                }
            }
            if changed {
                self.file.write_all_at(&page, offset)?;
            }
        }
        let head = [HEAD, &now.to_le_bytes()].concat();
        self.file.write_all_at(&head, 0)
    }

    fn find(&self, key: &[u8; KEY], now: u32) -> io::Result<Option<Record>> {
        let mut page = [0; PAGE];
        self.read(&mut page, page_of(key))?;
        let mut records = page.as_chunks::<RECORD>().0.iter().filter_map(|b| Record::parse(b));
        let found = records.find(|record| record.key == *key);
        Ok(found.filter(|record| !record.is_over(&self.times, now)))
    }

    /// Writes a record over its older state, or where there is room, or over what matters least.
    fn keep(&self, record: Record, now: u32) -> io::Result<()> {
        let start = page_of(&record.key);
        let mut page = [0; PAGE];
        self.read(&mut page, start)?;
        let worth = |bytes: &[u8; RECORD]| match Record::parse(bytes) {
            Some(old) if old.key == record.key => (0, 0),
            None => (1, 0),
            Some(old) if old.is_over(&self.times, now) => (1, 0),
            Some(old) => (if old.count == 0 { 2 } else { 3 }, old.last),
        };
        let places = (0..).step_by(RECORD).zip(page.as_chunks::<RECORD>().0);
        let place = places.min_by_key(|(_, bytes)| worth(bytes)).map_or(0, |(place, _)| place);
        self.file.write_all_at(&record.encode(), start + place)
    }

    /// A page; what the file does not have yet is zeros.
    fn read(&self, page: &mut [u8; PAGE], offset: u64) -> io::Result<()> {
        let mut length = 0;
        while let Some(room) = page.get_mut(length..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, offset + length as u64)? {
                0 => break,
                count => length += count,
            }
        }
        page.get_mut(length..).unwrap_or_default().fill(0);
        Ok(())
    }
}

fn is_own(found: &Metadata, owner: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == owner.uid()
}

fn new(key: [u8; KEY], now: u32) -> Record {
    Record { key, first: now, last: now, count: 0 }
}

/// The network of a client: those who send from several hosts, send from one network.
fn network(client: IpAddr) -> Vec<u8> {
    let octets = match client.to_canonical() {
        IpAddr::V4(four) => four.octets().get(..3).map(<[u8]>::to_vec),
        IpAddr::V6(six) => six.octets().get(..8).map(<[u8]>::to_vec),
    };
    octets.unwrap_or_default()
}

fn key(parts: &[&[u8]]) -> [u8; KEY] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut key = [0; KEY];
    key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    key
}

/// The file's lock: each session of inetd has its own process that asks.
struct Held<'a>(&'a File);

impl<'a> Held<'a> {
    fn by(file: &'a File) -> io::Result<Self> {
        lock::flock(file)?;
        Ok(Self(file))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = lock::unlock_flock(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Interval;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn greylist(place: &Path) -> Greylist {
        let times = config::Greylist {
            delay: Interval::from_seconds(300),
            retry_within: Interval::from_seconds(2 * DAY),
            remember: Interval::from_seconds(35 * DAY),
        };
        Greylist::open(place, &times).unwrap()
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_second_try_passes_after_the_delay_and_from_the_whole_network() {
        let place = tempfile::tempdir().unwrap();
        let greylist = greylist(place.path());
        let wait = |now, last, to| greylist.wait(now, client(last), "A@b", to).unwrap();
        assert_eq!(wait(NOW, 1, "x@y"), Some(300));
        assert_eq!(wait(NOW + 100, 2, "X@Y"), Some(200), "tries do not make it longer");
        assert_eq!(wait(NOW + 300, 3, "x@y"), None);
        assert_eq!(wait(NOW + 301, 1, "x@y"), None);
        assert_eq!(wait(NOW + 301, 1, "z@y"), Some(300), "another recipient");
        assert_eq!(greylist.wait(NOW, client(1), "", "x@y").unwrap(), Some(300), "another sender");
        let far = IpAddr::from([192, 0, 3, 1]);
        assert_eq!(greylist.wait(NOW + 301, far, "a@b", "x@y").unwrap(), Some(300));
        // Forgotten where it is not heard of for long; each time makes that longer.
        assert_eq!(wait(NOW + 35 * DAY, 1, "x@y"), None);
        assert_eq!(wait(NOW + 70 * DAY, 1, "x@y"), None);
        assert_eq!(wait(NOW + 106 * DAY, 1, "x@y"), Some(300));
    }

    #[test]
    fn who_does_not_come_again_in_time_begins_anew() {
        let place = tempfile::tempdir().unwrap();
        let greylist = greylist(place.path());
        let wait = |now| greylist.wait(now, client(1), "a@b", "x@y").unwrap();
        assert_eq!(wait(NOW), Some(300));
        assert_eq!(wait(NOW + 2 * DAY + 1), Some(300));
        // The clock went back.
        assert_eq!(wait(NOW - DAY), Some(300));
        assert_eq!(wait(NOW - DAY + 300), None);
    }

    #[test]
    fn a_network_that_has_come_again_often_is_trusted_and_ipv6_counts_by_64_bits() {
        let place = tempfile::tempdir().unwrap();
        let greylist = greylist(place.path());
        let at = |now, last: u16, to: &str| {
            let client = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
            greylist.wait(now, client, "a@b", to).unwrap()
        };
        for number in 0..TRUSTED {
            assert_eq!(at(NOW, 1, &format!("{number}@y")), Some(300));
            assert_eq!(at(NOW + 300, 2, &format!("{number}@y")), None);
        }
        assert_eq!(at(NOW + 301, 3, "new@y"), None);
    }

    #[test]
    fn it_stays_in_its_size_whatever_comes_and_keeps_what_passed() {
        let place = tempfile::tempdir().unwrap();
        let greylist = greylist(place.path());
        assert_eq!(greylist.wait(NOW, client(1), "good@b", "x@y").unwrap(), Some(300));
        assert_eq!(greylist.wait(NOW + 300, client(1), "good@b", "x@y").unwrap(), None);
        // One page takes 128: all pages are full several times over.
        let page = key(&[&network(client(1)), b"good@b", b"x@y"]);
        let mut crowd = 0;
        for number in 0_u32.. {
            let sender = format!("junk{number}@b");
            if page_of(&key(&[&network(client(1)), sender.as_bytes(), b"x@y"])) == page_of(&page) {
                assert_eq!(greylist.wait(NOW + 400, client(1), &sender, "x@y").unwrap(), Some(300));
                crowd += 1;
            }
            if crowd == 300 {
                break;
            }
        }
        assert_eq!(greylist.wait(NOW + 500, client(1), "good@b", "x@y").unwrap(), None);
        assert!(place.path().join("greylist").metadata().unwrap().len() <= (PAGES + 1) * 4096);
    }

    #[test]
    fn a_sweep_forgets_what_is_over_and_no_damage_is_more_than_a_delay() {
        let place = tempfile::tempdir().unwrap();
        let greylist = greylist(place.path());
        let wait = |now, to| greylist.wait(now, client(1), "a@b", to).unwrap();
        let count = || {
            let bytes = std::fs::read(place.path().join("greylist")).unwrap();
            let records = bytes.get(PAGE..).unwrap_or_default();
            records.as_chunks::<RECORD>().0.iter().filter(|b| b.iter().any(|x| *x != 0)).count()
        };
        wait(NOW, "old@y");
        wait(NOW + 2 * DAY, "new@y");
        assert_eq!(count(), 2);
        greylist.sweep(NOW + 2 * DAY + 10).unwrap();
        assert_eq!(count(), 1);
        // Not each time.
        wait(NOW + 2 * DAY, "other@y");
        greylist.sweep(NOW + 2 * DAY + 20).unwrap();
        greylist.sweep(NOW + 9 * DAY).unwrap();
        assert_eq!(count(), 0);
        wait(NOW, "x@y");
        let path = place.path().join("greylist");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(PAGE).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(wait(NOW + 300, "x@y"), Some(300));
        assert_eq!(wait(NOW + 600, "x@y"), None);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(wait(NOW + 600, "x@y"), Some(300));
        greylist.sweep(NOW + 90 * DAY).unwrap();
    }

    #[test]
    fn another_ones_file_in_its_place_is_not_touched() {
        let place = tempfile::tempdir().unwrap();
        let other = place.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        let path = place.path().join("greylist");
        let times = config::Greylist::default();
        std::fs::hard_link(&other, &path).unwrap();
        assert!(Greylist::open(place.path(), &times).is_err());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(Greylist::open(place.path(), &times).is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
    }
}
