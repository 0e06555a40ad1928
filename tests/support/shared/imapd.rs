//! Clients of our imapd among the others.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::super::Dice;
use super::super::imap::view::{View as Mailbox, set};
use super::super::imap::{Imap, Said};
use super::super::letter::{Fate, Letter, View};
use super::super::site::Site;
use super::{Actor, Shared};

/// The keyword that our clients set, and nobody takes off.
pub const OURS: &str = "$Ours";

/// What the UIDs that our clients have seen mean, for each UIDVALIDITY.
pub type Uids = HashMap<(u32, u32), Letter>;

/// A lock could not be had, or a message is gone.
fn may_pass(text: &str) -> bool {
    ["[INUSE]", "[EXPUNGEISSUED]"].iter().any(|code| text.starts_with(code))
}

/// A session with the inbox selected.
struct Client {
    imap: Imap,
    mailbox: Mailbox,
}

impl Client {
    /// Says a command; its answers, where it ended well.
    #[track_caller]
    fn ask(&mut self, command: &str, keeps: bool) -> Option<Vec<Said>> {
        let said = self.imap.ask(command);
        let said = said.unwrap_or_else(|error| panic!("{command}: {error}\n{}", self.imap));
        for one in &said {
            let heard = self.mailbox.hear(one, keeps);
            heard.unwrap_or_else(|why| panic!("{why}\n{}", self.imap));
        }
        let Some(Said::End(_, how, text)) = said.last() else {
            panic!("{command} has no end\n{}", self.imap);
        };
        let is_ok = how == "OK";
        assert!(is_ok || (how == "NO" && may_pass(text)), "{command}\n{}", self.imap);
        is_ok.then_some(said)
    }
}

impl Shared {
    /// A session that reads, marks and expunges, and is begun anew now and then.
    pub fn imapd(&self, address: SocketAddr, number: usize) -> Actor<'_> {
        self.has_remover.store(true, Ordering::Relaxed);
        self.has_store.store(true, Ordering::Relaxed);
        Box::new(move || {
            let mut dice = Dice::new(900 + u64::try_from(number).unwrap());
            while !self.is_over() {
                let shared = self.rewriting.read().unwrap();
                let mut client = Self::select(address);
                drop(shared);
                for _ in 0..10 {
                    let shared = self.rewriting.read().unwrap();
                    self.work_by_imapd(&mut client, &mut dice);
                    drop(shared);
                    self.rest(&mut dice, 200);
                }
                // It writes into the mailbox what only the index has.
                let _shared = self.rewriting.read().unwrap();
                client.imap.must(["CLOSE", "UNSELECT", "LOGOUT"][dice.below(3)]);
            }
        })
    }

    /// One that waits for what others do, and must always know how many messages there are.
    pub fn idler(&self, address: SocketAddr) -> Actor<'_> {
        Box::new(move || {
            let mut client = Self::select(address);
            let mut dice = Dice::new(950);
            while !self.is_over() {
                assert_eq!(client.imap.ask("IDLE").unwrap().last(), Some(&Said::Go));
                self.rest(&mut dice, 1000);
                client.imap.send(b"DONE\r\n").unwrap();
                // It hears all that has come meanwhile, and the end of IDLE.
                client.ask("NOOP", false);
                if let Some(set) = client.mailbox.unknown() {
                    client.ask(&format!("FETCH {set} (UID FLAGS)"), true);
                }
            }
        })
    }

    #[track_caller]
    fn select(address: SocketAddr) -> Client {
        let mut imap = Imap::log_in(address, "hunt", Site::account("hunt").password);
        let mailbox = Mailbox::selected(&imap.must("SELECT INBOX")).unwrap();
        Client { imap, mailbox }
    }

    fn work_by_imapd(&self, client: &mut Client, dice: &mut Dice) {
        if client.ask("NOOP", false).is_none() {
            return;
        }
        if let Some(unknown) = client.mailbox.unknown() {
            client.ask(&format!("FETCH {unknown} (UID FLAGS)"), true);
        }
        let mut uids = client.mailbox.uids();
        let mut chosen = Vec::new();
        while chosen.len() < 12 && !uids.is_empty() {
            chosen.push(uids.swap_remove(dice.below(uids.len())));
        }
        if chosen.is_empty() {
            return;
        }
        let command = format!("UID FETCH {} (UID RFC822.SIZE BODY.PEEK[])", set(chosen));
        let said = client.imap.ask(&command).unwrap();
        for one in &said {
            client.mailbox.hear(one, false).unwrap_or_else(|why| panic!("{why}\n{}", client.imap));
        }
        let (mut doomed, mut kept) = (Vec::new(), Vec::new());
        for (uid, letter) in self.letters_in(&said, client.mailbox.uid_validity) {
            self.read.fetch_add(1, Ordering::Relaxed);
            if letter.fate() == Fate::Expunge {
                doomed.push((uid, letter));
            } else if !self.is_parted() || letter.number % 2 == 1 {
                kept.push((uid, letter));
            }
        }
        if !kept.is_empty() {
            let uids = set(kept.iter().map(|(uid, _)| *uid));
            // One that the client of Dovecot does not set.
            let sign = ["+", "-"][dice.below(2)];
            client.ask(&format!("UID STORE {uids} {sign}FLAGS.SILENT (\\Draft)"), false);
            if client.ask(&format!("UID STORE {uids} +FLAGS ({OURS})"), false).is_some() {
                self.ours.lock().unwrap().extend(kept.iter().map(|(_, letter)| *letter));
            }
        }
        if doomed.is_empty() {
            return;
        }
        self.marked.lock().unwrap().extend(doomed.iter().map(|(_, letter)| *letter));
        let uids = set(doomed.iter().map(|(uid, _)| *uid));
        client.ask(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)"), false);
        if client.ask(&format!("UID EXPUNGE {uids}"), false).is_some() {
            let gone = doomed.iter().filter(|(uid, _)| client.mailbox.number(*uid).is_none());
            self.are_gone(gone.map(|(_, letter)| *letter), "imapd");
        }
    }

    /// The messages that were fetched, each whole, and under no UID that was another one's.
    #[track_caller]
    fn letters_in(&self, said: &[Said], uid_validity: u32) -> Vec<(u32, Letter)> {
        let mut letters = Vec::new();
        for one in said {
            let Said::Fetch(_, items) = one else { continue };
            let item = |name: &str| items.iter().find(|(of, _)| of == name).map(|(_, value)| value);
            let (Some(uid), Some(text)) = (item("UID"), item("BODY[]")) else { continue };
            let (uid, text) = (u32::try_from(uid.number()).unwrap(), text.bytes());
            assert_eq!(item("RFC822.SIZE").unwrap().number(), text.len() as u64);
            let text = text.split(|byte| *byte == b'\r').collect::<Vec<_>>().concat();
            let letter = super::proven(&text, View::Ours);
            let mut uids = self.by_imapd.lock().unwrap();
            let before = *uids.entry((uid_validity, uid)).or_insert(letter);
            assert_eq!(before, letter, "UID {uid} of {uid_validity} was another message before");
            letters.push((uid, letter));
        }
        letters
    }

    /// Looks at the mailbox by our imapd. `keywords`: nobody else can have taken one off.
    pub fn look_by_imapd(&self, address: SocketAddr, keywords: bool) {
        let mut client = Self::select(address);
        let said = client.imap.must("UID FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])");
        for one in &said {
            client.mailbox.hear(one, false).unwrap();
        }
        let letters = self.letters_in(&said, client.mailbox.uid_validity);
        assert_eq!(letters.len(), client.mailbox.lines.len());
        let found: BTreeSet<Letter> = letters.iter().map(|(_, letter)| *letter).collect();
        let left: BTreeSet<Letter> = super::whole(&self.site.inbox("hunt")).into_iter().collect();
        assert_eq!(found, left);
        let ours = self.ours.lock().unwrap();
        for ((_, letter), line) in letters.iter().zip(&client.mailbox.lines) {
            let has = line.flags.as_ref().unwrap().contains(&OURS.to_ascii_lowercase());
            assert!(!keywords || has || !ours.contains(letter), "{letter} has lost {OURS}");
        }
        client.imap.must("LOGOUT");
        super::super::note(&format!(
            "{} messages by imapd, {} UIDs were seen, {} letters marked",
            found.len(),
            self.by_imapd.lock().unwrap().len(),
            ours.len()
        ));
    }
}
