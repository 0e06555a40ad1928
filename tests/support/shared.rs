//! A mailbox on which several programs work at once, each with the locks that Debian gives it, and
//! what has to become of it.

mod imapd;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use super::dovecot::{self, Fetched, Imap};
use super::letter::{Agent, Fate, Letter, View};
use super::mta::Mta;
use super::peer::{Peer, stuffed};
use super::run::{Server, run};
use super::site::Site;
use super::{Dice, find, mbox, mutt};

/// How long they write and read.
const TIME: Duration = Duration::from_secs(5);

/// What an IMAP client sets.
const FLAGS: [&str; 4] = ["\\Seen", "\\Flagged", "\\Answered", "$Label1"];

/// What EX_TEMPFAIL says: a lock could not be had in time, and nothing was delivered.
const LATER: i32 = 75;

/// What Dovecot says where it can't have a lock in time.
const LOCKED: &str = "Timeout while waiting for lock";

/// For each flag that was named in a STORE: whether it has to be there.
type Commanded = BTreeMap<&'static str, bool>;

/// A mailbox that is shared, and what is known of it.
pub struct Shared {
    pub site: Site,
    time: Duration,
    dovecot: PathBuf,
    started: Instant,
    over: AtomicBool,
    /// What was delivered.
    sent: Mutex<BTreeSet<Letter>>,
    /// What was expunged, by an IMAP or POP3 client, and by which one and when.
    gone: Mutex<BTreeMap<Letter, String>>,
    /// What an IMAP client wants to be expunged, whether it is or not.
    marked: Mutex<BTreeSet<Letter>>,
    /// What a client of Dovecot's has set on a message, or taken off, under the UID that Dovecot had
    /// for it.
    flags: Mutex<BTreeMap<(Letter, u32), Commanded>>,
    /// What the UIDs of our own handles mean.
    uids: Mutex<store::Uids>,
    /// What the UIDs of clients of our imapd mean.
    by_imapd: Mutex<imapd::Uids>,
    /// What our own handles have marked with a keyword of theirs.
    ours: Mutex<BTreeSet<Letter>>,
    /// How many messages were read while others wrote.
    read: AtomicUsize,
    /// mutt has this for itself while it has the mailbox open; whoever else changes what stands
    /// there already, and does not only append, shares it.
    ///
    /// Where somebody has done so, mutt reads the mailbox anew without any lock (`reopen_mailbox`
    /// of its mbox.c). What is appended at this moment it knows twice, or by half, and from then
    /// on it writes from wrong places: messages are torn, doubled and lost. With a second mutt or
    /// Dovecot, and procmail or Postfix to deliver, it does so without us in one run out of ten.
    rewriting: RwLock<()>,
    /// Whether somebody beside a POP3 client removes messages.
    has_remover: AtomicBool,
    /// Whether mutt is there.
    has_mutt: AtomicBool,
    /// Whether our own handles are there: as long as a message has marks that only our index has, we
    /// don't look at the keywords that Dovecot gives it.
    has_store: AtomicBool,
    /// Whether Dovecot's client marks one half of the messages, and clients of our imapd the other:
    /// of a message that both mark at once nobody can say what it has, as Dovecot writes into the
    /// file what it knew some time ago.
    is_parted: AtomicBool,
    /// How often mutt has opened the mailbox.
    visits: AtomicUsize,
    /// How often Dovecot was wrong about a message that mutt had rewritten.
    stale: AtomicUsize,
    /// How often it answered that it had not set a flag.
    forgotten: AtomicUsize,
}

/// Somebody who works on the mailbox until time is over.
pub type Actor<'a> = Box<dyn FnOnce() + Send + 'a>;

impl Shared {
    pub fn new() -> Self {
        Self::lasting(TIME)
    }

    /// One on which they work for so long.
    pub fn lasting(time: Duration) -> Self {
        let site = Site::new();
        site.fill("hunt", b"");
        let users = fs::Permissions::from_mode(0o644);
        fs::set_permissions(site.path().join("users"), users).unwrap();
        // Without times of access, as many hosts have it: procmail sleeps for a second with its
        // locks where the mailbox was read since it was changed last.
        let _ = Command::new("chattr").arg("+A").arg(site.inbox("hunt")).status();
        let dovecot = dovecot::configuration(&site, "hunt");
        Self {
            site,
            time,
            dovecot,
            started: Instant::now(),
            over: AtomicBool::new(false),
            sent: Mutex::default(),
            gone: Mutex::default(),
            marked: Mutex::default(),
            flags: Mutex::default(),
            uids: Mutex::default(),
            by_imapd: Mutex::default(),
            ours: Mutex::default(),
            read: AtomicUsize::new(0),
            rewriting: RwLock::default(),
            has_remover: AtomicBool::new(false),
            has_mutt: AtomicBool::new(false),
            has_store: AtomicBool::new(false),
            is_parted: AtomicBool::new(false),
            visits: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            forgotten: AtomicUsize::new(0),
        }
    }

    /// Lets them all work at once, for some time.
    pub fn by(&self, actors: Vec<Actor<'_>>) {
        struct AtEnd<'a>(&'a AtomicBool);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        self.begin();
        let started = Instant::now();
        std::thread::scope(|scope| {
            for actor in actors {
                scope.spawn(|| {
                    // One who fails ends it for all.
                    let _end = AtEnd(&self.over);
                    actor();
                });
            }
            while started.elapsed() < self.time && !self.is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.over.store(true, Ordering::Relaxed);
        });
        let mut by_agent = BTreeMap::new();
        for letter in self.sent.lock().unwrap().iter() {
            *by_agent.entry(letter.agent).or_insert(0) += 1;
        }
        super::note(&format!(
            "{by_agent:?}: {} delivered, {} expunged, {} read meanwhile, {} flagged by IMAP; mutt \
             came {} times, Dovecot was wrong about {} of its messages, and forgot {} flags at once",
            self.sent.lock().unwrap().len(),
            self.gone.lock().unwrap().len(),
            self.read.load(Ordering::Relaxed),
            self.flags.lock().unwrap().len(),
            self.visits.load(Ordering::Relaxed),
            self.stale.load(Ordering::Relaxed),
            self.forgotten.load(Ordering::Relaxed),
        ));
    }

    /// A first message, in whose header popd writes the UIDVALIDITY. Of a mailbox that has none Dovecot
    /// may be choosing another one at the same moment: then that counts, and sessions end.
    fn begin(&self) {
        let letter = Letter { agent: Agent::LocalDeliver, writer: 99, number: 0 };
        let command = self.site.local_deliver_command("hunt", &letter.sender());
        assert!(Self::is_delivered(&letter, command));
        self.sent.lock().unwrap().insert(letter);
        assert_eq!(self.by_popd(), [letter]);
        let file = fs::read(self.site.inbox("hunt")).unwrap();
        assert!(file.windows(10).any(|word| word == b"X-IMAPbase"));
    }

    /// These messages are gone, as a client was told.
    fn are_gone(&self, letters: impl IntoIterator<Item = Letter>, by: &str) {
        let how = format!("{by}, {:.1?}", self.started.elapsed());
        let letters = letters.into_iter().map(|letter| (letter, how.clone()));
        self.gone.lock().unwrap().extend(letters);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One writer of an agent: `deliver` says whether it delivered, else it is asked again. It
    /// rests in between: procmail and others sleep a second where they find a lock, and should be
    /// heard as well.
    ///
    /// Several neighbours sleep while they have the locks: procmail a second where somebody has
    /// read the mailbox since it was last changed, Dovecot until the clock shows another second
    /// than at the change before. That, and not we, is why so few messages come together.
    fn write(&self, agent: Agent, writer: usize, deliver: &mut dyn FnMut(&Letter) -> bool) {
        let mut dice = Dice::new(u64::try_from(writer).unwrap() + 1);
        let mut number = 0;
        while number == 0 || !self.is_over() {
            let letter = Letter { agent, writer, number };
            if deliver(&letter) {
                self.sent.lock().unwrap().insert(letter);
                number += 1;
            }
            self.rest(&mut dice, if self.is_rush() { 40 } else { 600 });
        }
    }

    /// Mail comes in bursts. mutt needs a calm moment: it sleeps a second where it finds a lock,
    /// and where mail has come while it slept it writes nothing, but asks its user to look first.
    fn is_rush(&self) -> bool {
        self.started.elapsed().as_millis() % 1000 < 500
    }

    fn rest(&self, dice: &mut Dice, most: usize) {
        let until = Instant::now() + Duration::from_millis(dice.below(most).try_into().unwrap());
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A writer that is a program which takes one message.
    fn by_program<'a>(
        &'a self,
        agent: Agent,
        writer: usize,
        command: impl Fn(&Letter) -> Command + Send + 'a,
    ) -> Actor<'a> {
        Box::new(move || {
            self.write(agent, writer, &mut |letter| Self::is_delivered(letter, command(letter)));
        })
    }

    /// Runs a program that takes a message, and either delivers it or wants to be asked again.
    fn is_delivered(letter: &Letter, mut command: Command) -> bool {
        let ran = run(&mut command, &letter.message());
        assert!(matches!(ran.code(), Some(0 | LATER)), "{letter}: {ran}");
        ran.code() == Some(0)
    }

    pub fn local_deliver(&self, writer: usize) -> Actor<'_> {
        self.by_program(Agent::LocalDeliver, writer, |letter| {
            self.site.local_deliver_command("hunt", &letter.sender())
        })
    }

    /// One `local-deliver --lmtp` for all messages of a writer.
    pub fn lmtp(&self, writer: usize) -> Actor<'_> {
        Box::new(move || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut command = self.site.command("local-deliver");
            command.args(["--lmtp", "-d", "hunt"]);
            self.site.become_user(&mut command, "hunt");
            command.stdin(OwnedFd::from(theirs.try_clone().unwrap()));
            command.stdout(OwnedFd::from(theirs));
            let server = Server::start(&mut command);
            drop(command);
            let mut peer = Peer::new(ours);
            assert!(peer.reply().starts_with("220 "));
            assert!(peer.command("LHLO client.example").starts_with("250"));
            self.write(Agent::LocalDeliver, writer, &mut |letter| {
                let from = format!("MAIL FROM:<{}>", letter.sender());
                for command in [&from, "RCPT TO:<hunt@smkwlab.net>", "DATA"] {
                    let reply = peer.command(command);
                    assert!(reply.starts_with(['2', '3']), "{command}: {reply}");
                }
                peer.send(stuffed(&letter.message()));
                let reply = peer.reply();
                assert!(reply.starts_with(['2', '4']), "{reply}");
                reply.starts_with('2')
            });
            peer.command("QUIT");
            server.join();
        })
    }

    pub fn procmail(&self, writer: usize) -> Actor<'_> {
        let rc = self.site.path().join("procmailrc");
        let inbox = self.site.inbox("hunt").display().to_string();
        fs::write(&rc, format!("DEFAULT={inbox}\nLOCKSLEEP=1\nLOGFILE=/dev/null\n")).unwrap();
        self.by_program(Agent::Procmail, writer, move |letter| {
            let mut command = Command::new(find("procmail").unwrap());
            command.args(["-f", &letter.sender(), "-m"]).arg(&rc);
            self.site.become_user(&mut command, "hunt");
            command
        })
    }

    pub fn maildrop(&self, writer: usize) -> Actor<'_> {
        let filter = self.site.path().join("mailfilter");
        fs::write(&filter, format!("to {}\n", self.site.inbox("hunt").display())).unwrap();
        fs::set_permissions(&filter, fs::Permissions::from_mode(0o600)).unwrap();
        self.by_program(Agent::Maildrop, writer, move |letter| {
            let mut command = Command::new(find("maildrop").unwrap());
            // It runs for nobody who has no name in passwd(5), as our users there have none.
            command.args(["-f", &letter.sender()]).arg(&filter).env("HOME", self.site.path());
            command
        })
    }

    pub fn lda(&self, writer: usize) -> Actor<'_> {
        Box::new(move || {
            self.write(Agent::DovecotLda, writer, &mut |letter| {
                // It also numbers the messages that have come since.
                let _shared = self.rewriting.read().unwrap();
                let lda = dovecot::lda(&self.site, "hunt", &letter.sender(), &self.dovecot);
                Self::is_delivered(letter, lda)
            });
        })
    }

    pub fn postfix<'a>(&'a self, mta: &'a Mta, writer: usize) -> Actor<'a> {
        Box::new(move || {
            self.write(Agent::Postfix, writer, &mut |letter| {
                mta.deliver(&letter.sender(), "hunt@smkwlab.net", &letter.message());
                true
            });
        })
    }

    /// Reads messages by POP3, and deletes those whose fate it is.
    pub fn popd(&self) -> Actor<'_> {
        Box::new(move || {
            let (_server, address) = self.site.serve("popd");
            let mut dice = Dice::new(77);
            while !self.is_over() {
                let mut peer = Peer::connect(address);
                peer.line();
                peer.pop("USER hunt");
                let answer = peer.pop("PASS Watts?Watt?");
                assert!(answer.starts_with("+OK"), "{answer}");
                let answer = peer.pop("STAT");
                let count: usize = answer.split(' ').nth(1).unwrap().parse().unwrap();
                let mut deleted = BTreeMap::new();
                for _ in 0..40_usize.min(count) {
                    let number = dice.below(count) + 1;
                    let answer = peer.pop(&format!("RETR {number}"));
                    if !answer.starts_with("+OK") {
                        let may_be_gone = self.has_remover.load(Ordering::Relaxed);
                        assert!(may_be_gone || deleted.contains_key(&number), "{answer}");
                        continue;
                    }
                    let letter = proven(&peer.pop_body(), View::Ours);
                    self.read.fetch_add(1, Ordering::Relaxed);
                    if letter.fate() == Fate::Delete {
                        assert!(peer.pop(&format!("DELE {number}")).starts_with("+OK"));
                        deleted.insert(number, letter);
                    }
                }
                let shared = (!deleted.is_empty()).then(|| self.rewriting.read().unwrap());
                let answer = peer.pop("QUIT");
                assert!(answer.starts_with("+OK"), "{answer}");
                drop(shared);
                self.are_gone(deleted.into_values(), "popd");
                self.rest(&mut dice, 1500);
            }
        })
    }

    /// Sets flags by IMAP on messages that it has read, and expunges those whose fate it is.
    ///
    /// Dovecot does not see what mutt has changed, which puts the mailbox's times back, and goes on
    /// with sizes that it knows from before: it breaks a session off, or gives a message without
    /// its last bytes (as many as the `Lines:` that mutt has put in), though it stands whole in the
    /// file. The two alone, without us, do the same. So where mutt is there, and only there, a
    /// message that Dovecot gives is not held to be whole; the file is looked at in the end, by
    /// a Dovecot as well that knows nothing of before.
    pub fn imap(&self) -> Actor<'_> {
        self.has_remover.store(true, Ordering::Relaxed);
        Box::new(move || {
            let mut dice = Dice::new(143);
            while !self.is_over() {
                let shared = self.rewriting.read().unwrap();
                let worked = Imap::open(&self.site, "hunt", &self.dovecot).and_then(|mut imap| {
                    let worked = self.work_by_imap(&mut imap, &mut dice);
                    imap.log_out();
                    worked
                });
                drop(shared);
                if let Err(error) = worked {
                    let is_stale = self.has_mutt() && error.contains("Cached message size");
                    self.stale.fetch_add(usize::from(is_stale), Ordering::Relaxed);
                    assert!(is_stale || error.contains(LOCKED), "{error}");
                }
            }
        })
    }

    /// Dovecot's client and those of our imapd mark different messages from now on.
    pub fn part(&self) {
        self.is_parted.store(true, Ordering::Relaxed);
    }

    fn is_parted(&self) -> bool {
        self.is_parted.load(Ordering::Relaxed)
    }

    /// Whether somebody else changes what messages are marked with.
    fn has_rewriter(&self) -> bool {
        self.has_mutt() || !self.flags.lock().unwrap().is_empty()
    }

    fn has_mutt(&self) -> bool {
        self.has_mutt.load(Ordering::Relaxed)
    }

    fn work_by_imap(&self, imap: &mut Imap, dice: &mut Dice) -> Result<(), String> {
        for _ in 0..5 {
            let mut uids = imap.search("ALL")?;
            let doomed = imap.search(&format!("UNDELETED SUBJECT {}", Fate::Expunge.word()))?;
            let mut chosen: Vec<u32> = doomed.into_iter().take(5).collect();
            while chosen.len() < 10 && !uids.is_empty() {
                chosen.push(uids.swap_remove(dice.below(uids.len())));
            }
            let mut marked = Vec::new();
            for uid in chosen {
                for found in imap.fetch(&uid.to_string())? {
                    // Dovecot goes by the places that it has kept while others write into
                    // headers, as mutt and our sessions do. The file is held to be whole.
                    let Ok(letter) = Letter::prove(&found.message, View::Stored) else {
                        self.stale.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    self.read.fetch_add(1, Ordering::Relaxed);
                    if letter.fate() == Fate::Expunge {
                        self.marked.lock().unwrap().insert(letter);
                        imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)"))?;
                        marked.push((uid, letter));
                        continue;
                    }
                    if self.is_parted() && letter.number % 2 == 1 {
                        continue;
                    }
                    let flag = FLAGS[dice.below(FLAGS.len())];
                    let set = dice.below(3) > 0;
                    let sign = if set { '+' } else { '-' };
                    let answers = imap.command(&format!("UID STORE {uid} {sign}FLAGS ({flag})"))?;
                    // Where somebody has removed messages since it last looked, Dovecot forgets the
                    // flag that is being set, also where a file is only made shorter by hand. It
                    // says so: what it answers is held to be so.
                    let mut answers = answers.iter().filter(|one| one.number("UID") == Some(uid));
                    if answers
                        .any(|one| one.text.split([' ', '(', ')']).any(|is| is == flag) != set)
                    {
                        self.forgotten.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let mut flags = self.flags.lock().unwrap();
                    flags.entry((letter, uid)).or_default().insert(flag, set);
                }
            }
            imap.command("EXPUNGE")?;
            let left = imap.search("ALL")?;
            // One that Dovecot has numbered anew meanwhile, and forgotten what was said of it, is
            // there still.
            let mut there = BTreeSet::new();
            for uid in imap.search(&format!("SUBJECT {}", Fate::Expunge.word()))? {
                let found = imap.fetch(&uid.to_string())?;
                let letters = found.iter().map(|one| Letter::prove(&one.message, View::Stored));
                there.extend(letters.flatten());
            }
            let is_gone =
                |(uid, letter): &(u32, Letter)| !left.contains(uid) && !there.contains(letter);
            let gone = marked.into_iter().filter(is_gone);
            self.are_gone(gone.map(|(_, letter)| letter), "Dovecot");
            self.rest(dice, 100);
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Flags messages in mutt, or takes the flags off again, and saves those elsewhere whose fate
    /// it is.
    pub fn mutt(&self) -> Actor<'_> {
        self.has_mutt.store(true, Ordering::Relaxed);
        self.has_remover.store(true, Ordering::Relaxed);
        Box::new(move || {
            let saved = self.saved().display().to_string();
            let inbox = self.site.inbox("hunt");
            let mut dice = Dice::new(211);
            while !self.is_over() {
                let digit = dice.below(10);
                let keys = format!(
                    "<untag-pattern>.<enter><tag-pattern>~s [{digit}1]-keep<enter>\
                     <tag-prefix-cond><flag-message><end-cond><sync-mailbox>n\
                     <untag-pattern>.<enter><tag-pattern>~s -move<enter>\
                     <tag-prefix-cond><save-message>{saved}<enter><end-cond><sync-mailbox>n"
                );
                let pause = Duration::from_millis(200);
                let alone = self.rewriting.write().unwrap();
                mutt::press_often(&self.site, "hunt", &inbox, &keys, 2, pause);
                drop(alone);
                self.visits.fetch_add(1, Ordering::Relaxed);
                self.rest(&mut dice, 500);
            }
        })
    }

    /// Where mutt saves messages.
    fn saved(&self) -> PathBuf {
        self.site.home("hunt").join("saved")
    }

    /// Looks at what has become of the mailbox.
    pub fn look(&self) {
        let sent = self.sent.lock().unwrap();
        let gone = self.gone.lock().unwrap();
        let left = whole(&self.site.inbox("hunt"));
        let saved: BTreeSet<Letter> = whole(&self.saved()).into_iter().collect();
        assert!(saved.iter().all(|letter| letter.fate() == Fate::Move), "{saved:?}");

        let set: BTreeSet<Letter> = left.iter().copied().collect();
        let twice = left.len() - set.len();
        let unknown: Vec<_> = set.difference(&sent).collect();
        let back: Vec<_> = gone.iter().filter(|(letter, _)| set.contains(letter)).collect();
        let places = [&set, &saved, &self.marked.lock().unwrap()];
        let lost: Vec<String> = sent
            .iter()
            .filter(|letter| !gone.contains_key(letter))
            .filter(|letter| places.iter().all(|place| !place.contains(letter)))
            .map(Letter::to_string)
            .collect();
        assert!(
            twice == 0 && unknown.is_empty() && back.is_empty() && lost.is_empty(),
            "{twice} are there twice, nobody has delivered {unknown:?}, {back:?} were expunged, \
             {lost:?} are lost; there are, in their order: {left:?}"
        );

        let mut last = BTreeMap::new();
        for letter in &left {
            let before = last.insert((letter.agent, letter.writer), letter.number);
            assert!(before < Some(letter.number), "{letter} stands behind {before:?}");
        }
        let names: Vec<_> = fs::read_dir(self.site.path().join("mail"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["hunt"], "a lock was left");

        // Their order is that of their UIDs, which Dovecot may give in another one.
        let sorted = |mut letters: Vec<Letter>| {
            letters.sort_unstable();
            letters
        };
        assert_eq!(sorted(self.by_popd()), sorted(left.clone()));
        if find("doveadm").is_some() {
            let alone = !self.has_mutt();
            if !alone {
                // mutt puts times back. What Dovecot once knew may not be true any more.
                let _ = fs::remove_dir_all(self.site.home("hunt").join("dovecot"));
            }
            let mut imap = Imap::open(&self.site, "hunt", &self.dovecot).unwrap();
            let messages = imap.fetch("1:*").unwrap();
            let flags = self.flags.lock().unwrap();
            let (mut found, mut anew) = (Vec::new(), 0);
            for Fetched { flags: has, message, uid } in messages {
                let letter = proven(&message, View::Stored);
                // Of the first message, whose header Dovecot writes to all the time, it forgets a
                // flag now and then, with procmail or Postfix and without us as well.
                let counts = alone && !found.is_empty();
                // Where others remove messages that have no UIDs in the file, Dovecot can't tell which
                // are left, and numbers them anew: what it has not written yet is forgotten then.
                let names = flags.range((letter, 0)..=(letter, u32::MAX)).count();
                let under_one = names == 1;
                anew += usize::from(names > 0 && !flags.contains_key(&(letter, uid)));
                if let (true, Some(flags)) = (counts, flags.get(&(letter, uid))) {
                    for flag in FLAGS {
                        if flag == "$Label1" && self.has_store.load(Ordering::Relaxed) {
                            continue;
                        }
                        let Some(set) = flags.get(flag).copied().or(under_one.then_some(false))
                        else {
                            continue;
                        };
                        assert_eq!(
                            has.iter().any(|has| has == flag),
                            set,
                            "{letter}, {} of {}, UID {uid}: {flag}",
                            found.len() + 1,
                            left.len(),
                        );
                    }
                }
                found.push(letter);
            }
            super::note(&format!("{anew} messages with flags were numbered anew by Dovecot"));
            assert_eq!(found, left);
        }
    }

    /// What popd reads.
    fn by_popd(&self) -> Vec<Letter> {
        let (_server, mut peer) = self.site.session("popd");
        peer.line();
        peer.pop("USER hunt");
        let answer = peer.pop("PASS Watts?Watt?");
        assert!(answer.starts_with("+OK"), "{answer}");
        let answer = peer.pop("STAT");
        let count: usize = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let read = |number| {
            let answer = peer.pop(&format!("RETR {number}"));
            assert!(answer.starts_with("+OK"), "{answer}");
            proven(&peer.pop_body(), View::Ours)
        };
        (1..=count).map(read).collect()
    }
}

#[track_caller]
fn proven(message: &[u8], view: View) -> Letter {
    Letter::prove(message, view).unwrap_or_else(|why| panic!("a torn message: {why}"))
}

/// The messages of a file, all of which are whole.
#[track_caller]
fn whole(path: &Path) -> Vec<Letter> {
    let content = fs::read(path).unwrap_or_default();
    let messages = mbox::split(&content).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    messages.iter().map(|message| proven(message, View::Stored)).collect()
}
