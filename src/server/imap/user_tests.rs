//! A session over mailboxes that fail, and that others change at the wrong moment.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::super::doubles::{arrival, place};
use super::super::out::Out;
use super::super::view::View;
use super::{End, LoggedIn, User, reply};
use crate::imap::reply::{Code, Word};
use crate::mailbox::folders::{Folders, Name};
use crate::mailbox::store::{Arrival, Changes, Flags, Marking, Message, Status, Store, Version};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::{self, Error, Memory, Structures};
use crate::server::Connection;
use crate::sys::signal::Signals;

/// What goes wrong, for all handles alike.
#[derive(Clone, Default)]
struct Trouble {
    /// Nothing can be written.
    full: Rc<Cell<bool>>,
    /// There is no such mailbox any more.
    gone: Rc<Cell<bool>>,
    /// It is another one now.
    other: Rc<Cell<bool>>,
    /// It becomes another one when a message is read.
    other_when_read: Rc<Cell<bool>>,
    /// Somebody else removes a message just before.
    hasty: Rc<Cell<Option<Uid>>>,
    /// No message can be read.
    unreadable: Rc<Cell<bool>>,
    /// The messages that were read.
    read: Rc<RefCell<UidSet>>,
}

struct Wayward {
    store: Memory,
    trouble: Trouble,
    /// It is another one, and was looked at since.
    is_other: bool,
}

impl Wayward {
    fn look(&mut self) {
        self.is_other = self.trouble.other.get();
    }

    fn write(&self) -> Result<(), Error> {
        if self.trouble.full.get() { Err(io_error(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

fn io_error(kind: io::ErrorKind) -> Error {
    Error::Io { path: "box".into(), doing: "be used", source: kind.into() }
}

impl Store for Wayward {
    fn sync(&mut self) -> Result<(), Error> {
        if self.trouble.gone.get() {
            return Err(io_error(io::ErrorKind::NotFound));
        }
        self.look();
        self.store.sync()
    }

    fn status(&self) -> Status {
        self.store.status()
    }

    fn version(&self) -> Version {
        let version = self.store.version();
        let uid_validity = version.uid_validity + u32::from(self.is_other);
        Version { uid_validity, ..version }
    }

    fn uids(&self) -> &UidSet {
        self.store.uids()
    }
    fn messages(&self) -> Result<Vec<Message>, Error> {
        self.store.messages()
    }
    fn message(&self, uid: Uid) -> Result<Option<Message>, Error> {
        self.store.message(uid)
    }

    fn keywords(&self) -> &[String] {
        self.store.keywords()
    }

    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        if self.trouble.unreadable.get() {
            return Err(io_error(io::ErrorKind::Other));
        }
        self.trouble.read.borrow_mut().insert(uid);
        self.store.read(uid, range, sink)?;
        self.trouble.other.set(self.trouble.other.get() || self.trouble.other_when_read.get());
        self.look();
        Ok(())
    }

    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error> {
        self.store.append(arrivals)
    }

    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error> {
        self.write()?;
        self.look();
        self.store.mark(uids, marking, flags, keywords, unchanged_since)
    }

    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        if let Some(uid) = self.trouble.hasty.take() {
            self.store.another().expunge(&UidSet::from(uid..=uid))?;
        }
        if !uids.is_empty() {
            self.write()?;
        }
        self.store.expunge(uids)
    }

    fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        self.store.changes_since(modseq)
    }

    fn claim_recent(&mut self) -> Result<Uid, Error> {
        self.write()?;
        self.store.claim_recent()
    }

    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error> {
        Ok(None)
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// A mailbox of two messages.
fn mailbox() -> Memory {
    let mut memory = Memory::new(7);
    memory
        .append(&[arrival("Subject: 1\r\n\r\none\r\n", 0), arrival("Subject: 2\r\n\r\ntwo\r\n", 0)])
        .unwrap();
    memory
}

/// Has a session with the mailbox selected; what it was sent.
fn serve<T>(memory: &Memory, trouble: &Trouble, act: impl FnOnce(&mut User) -> T) -> (T, String) {
    let home = tempfile::tempdir().unwrap();
    let place = place(home.path());
    let store = Wayward { store: memory.another(), trouble: trouble.clone(), is_other: false };
    let view = View::new(Name::inbox(), Box::new(store), Structures::open(&place), false);
    let sent = RefCell::new(Vec::new());
    let mut sink = |bytes: &[u8]| {
        sent.borrow_mut().extend_from_slice(bytes);
        Ok(())
    };
    let folders = Folders::open(&home.path().join("mail"), place);
    let login = LoggedIn { tag: "in".into(), leftover: Vec::new() };
    let mut user = User::new(folders, Out::new(&mut sink), &login, 1000);
    user.selected = Some(view);
    let done = act(&mut user);
    drop(user);
    (done, String::from_utf8(sent.into_inner()).unwrap())
}

fn say(user: &mut User, command: &str) -> Result<(), End> {
    user.session.push(command.as_bytes());
    user.session.push(b"\r\n");
    user.obey()
}

fn marked(memory: &Memory) -> Vec<Flags> {
    let mut memory = memory.another();
    memory.sync().unwrap();
    memory.messages().unwrap().iter().map(|message| message.marks.flags).collect()
}

#[test]
fn what_others_want_to_keep_after_all_stays_at_close() {
    let mut memory = mailbox();
    let all = UidSet::from(1..=2);
    memory.mark(&all, Marking::Add, Flags::DELETED, &[], None).unwrap();
    let (done, _) = serve(&memory.another(), &Trouble::default(), |user| {
        memory.mark(&UidSet::from(1..=1), Marking::Remove, Flags::DELETED, &[], None).unwrap();
        say(user, "a CLOSE")
    });
    done.unwrap();
    memory.sync().unwrap();
    let left: Vec<Uid> = memory.messages().unwrap().iter().map(|message| message.uid).collect();
    assert_eq!(left, [1]);
}

#[test]
fn uids_of_another_mailbox_are_not_taken_for_those_of_this_one() {
    let commands = [
        "a STORE 1 +FLAGS (\\Deleted)",
        "a FETCH 1 BODY[]",
        "a EXPUNGE",
        "a UID EXPUNGE 2",
        "a MOVE 1 x",
        "a CLOSE",
    ];
    for command in commands {
        let mut memory = mailbox();
        memory.mark(&UidSet::from(2..=2), Marking::Add, Flags::DELETED, &[], None).unwrap();
        let trouble = Trouble::default();
        let (done, said) = serve(&memory, &trouble, |user| {
            say(user, "c CREATE x").unwrap();
            trouble.other.set(true);
            say(user, command)
        });
        assert_eq!(marked(&memory), [Flags::default(), Flags::DELETED], "{command}");
        if command == "a CLOSE" {
            done.unwrap();
        } else {
            assert!(matches!(done, Err(End::Told(..))), "{command}: {said}");
        }
    }
}

#[test]
fn what_somebody_else_has_moved_is_in_one_place() {
    let memory = mailbox();
    let trouble = Trouble::default();
    let (count, said) = serve(&memory, &trouble, |user| {
        say(user, "a CREATE x").unwrap();
        trouble.hasty.set(Some(1));
        say(user, "b MOVE 1:2 x").unwrap();
        say(user, "c STATUS x (MESSAGES)").unwrap();
        let (_, place) = user.place("x").unwrap();
        mailbox::open(place).unwrap().messages().unwrap().len()
    });
    assert_eq!(count, 1, "{said}");
    assert_eq!(marked(&memory), []);
    let wanted = " 2 2] moved\r\n* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n* 0 RECENT\r\nb NO [EXPUNGEISSUED]";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn what_could_not_be_moved_is_where_it_was() {
    let memory = mailbox();
    let trouble = Trouble::default();
    let (count, said) = serve(&memory, &trouble, |user| {
        say(user, "a CREATE x").unwrap();
        trouble.full.set(true);
        say(user, "b MOVE 1:2 x").unwrap();
        let (_, place) = user.place("x").unwrap();
        mailbox::open(place).unwrap().messages().unwrap().len()
    });
    assert_eq!((count, marked(&memory).len()), (0, 2), "{said}");
    assert!(said.contains("b NO ") && !said.contains("COPYUID"), "{said}");
}

#[test]
fn mail_can_be_read_where_nothing_can_be_written() {
    let memory = mailbox();
    let trouble = Trouble::default();
    trouble.full.set(true);
    let ((), said) = serve(&memory, &trouble, |user| {
        say(user, "a FETCH 1:2 BODY[TEXT]").unwrap();
        // Others can write, as they have room.
        let mut other = memory.another();
        other.append(&[arrival("Subject: 3\r\n\r\nthree\r\n", 0)]).unwrap();
        other.mark(&UidSet::from(1..=1), Marking::Add, Flags::FLAGGED, &[], None).unwrap();
        say(user, "b NOOP").unwrap();
        assert!(!user.warnings.is_empty());
    });
    for wanted in
        ["one\r\n", "two\r\n", "a OK", "* 3 EXISTS", "* 1 FETCH (FLAGS (\\Flagged", "b OK"]
    {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
}

#[test]
fn a_client_knows_the_keywords_that_it_is_told_of_messages() {
    for command in ["a FETCH 1 BODY[TEXT]", "a STORE 1 +FLAGS (\\Seen)", "a NOOP"] {
        let mut memory = mailbox();
        let ((), said) = serve(&memory.another(), &Trouble::default(), |user| {
            let one = UidSet::from(1..=1);
            memory.mark(&one, Marking::Add, Flags::default(), &["new".into()], None).unwrap();
            say(user, command).unwrap();
        });
        let known = said.find("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft new)");
        let told = said.find("* 1 FETCH (");
        assert!(known.is_some() && told.is_some() && known < told, "{command}: {said}");
    }
}

#[test]
fn of_a_mailbox_that_is_replaced_amid_a_command_no_message_is_taken_for_another() {
    for command in ["a FETCH 1:2 BODY.PEEK[TEXT]", "a FETCH 1:2 BODY[TEXT]", "a COPY 1:2 work"] {
        let trouble = Trouble::default();
        let memory = mailbox();
        let ((done, copied), said) = serve(&memory, &trouble, |user| {
            user.create("work", &[]);
            trouble.other_when_read.set(true);
            let done = say(user, command);
            user.out.flush().unwrap();
            let (_, place) = user.place("work").unwrap();
            (done, mailbox::open(place).unwrap().messages().unwrap().len())
        });
        assert!(matches!(done, Err(End::Told(..))), "{command}: {said}");
        assert!(!said.contains("* 2 FETCH") && copied == 0, "{command}: {said}");
        assert!(!marked(&memory)[1].has(Flags::SEEN));
    }
}

#[test]
fn a_session_ends_whose_mailbox_is_gone() {
    let trouble = Trouble::default();
    let (done, said) = serve(&mailbox(), &trouble, |user| {
        trouble.gone.set(true);
        say(user, "a NOOP")
    });
    assert!(matches!(done, Err(End::Told(..))), "{said}");
}

/// As where somebody deletes it between a look at the folders and its opening.
#[test]
fn a_mailbox_that_has_just_gone_does_not_exist_and_another_failure_is_for_later() {
    let word = |kind| super::failed(&io_error(kind)).1;
    let is = |kind, wanted| matches!(word(kind), Some(Code::Word(word)) if word == wanted);
    assert!(is(io::ErrorKind::NotFound, Word::NonExistent));
    assert!(is(io::ErrorKind::PermissionDenied, Word::Unavailable));
}

#[test]
fn an_idle_client_hears_of_mail_where_nothing_can_be_waited_at() {
    let memory = mailbox();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Connection::new(ours.try_clone().unwrap().into(), ours.into());
    let signals = Signals::take(&[]).unwrap();
    let ((), said) = serve(&memory, &Trouble::default(), |user| {
        say(user, "a IDLE").unwrap();
        memory.another().append(&[arrival("Subject: 3\r\n\r\nthree\r\n", 0)]).unwrap();
        let ender = std::thread::spawn(move || {
            std::thread::sleep(super::AGAIN * 10);
            drop(theirs);
        });
        let client = RefCell::new(&mut client);
        let heard = user.wait(&client, &signals, &mut [0; 10], &mut |warnings| warnings.clear());
        assert!(matches!(heard, Ok(0)), "{heard:?}");
        ender.join().unwrap();
    });
    assert!(said.contains("* 3 EXISTS"), "{said}");
}

#[test]
fn what_could_not_be_sent_is_not_sent_again() {
    let count = Cell::new(0);
    let mut sink = |_: &[u8]| {
        count.set(count.get() + 1);
        Err(io::ErrorKind::TimedOut.into())
    };
    let mut out = Out::new(&mut sink);
    out.buffer.extend_from_slice(b"* 1 EXISTS\r\n");
    assert!(Write::flush(&mut out).is_err());
    assert!(Write::flush(&mut out).is_ok());
    assert_eq!(count.get(), 1);
}

/// RFC 5182 section 2.1, RFC 9051 section 6.4.4.4.
#[test]
fn a_search_saves_what_it_finds_and_nothing_where_it_fails() {
    let mut memory = Memory::new(7);
    memory
        .append(&["0", "1", "2", "3", "4"].map(|n| arrival(format!("A: b\n\n{n}.\n"), 0)))
        .unwrap();
    let trouble = Trouble::default();
    for (searches, saved) in [
        (&["RETURN (SAVE) 2:4"][..], Some("2:4")),
        // Others leave it alone.
        (&["RETURN (SAVE) 2:4", "1", "RETURN (ALL) 1", "RETURN () 5"], Some("2:4")),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE) NONSENSE"], Some("2:4")),
        (&["RETURN (SAVE) 2:4", "CHARSET nonsense ALL"], Some("2:4")),
        (&["RETURN (SAVE) 2:4", "BODY unreadable"], Some("2:4")),
        // These fail, or find nothing.
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE) CHARSET nonsense ALL"], None),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE) BODY unreadable"], None),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE MIN) ANSWERED"], None),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE COUNT) NOT ALL"], None),
        // What is saved is of the search, or of its ends.
        (&["RETURN (SAVE) ALL", "RETURN (SAVE) $ NOT 3 BODY ."], Some("1:2,4:5")),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE) NOT $"], Some("1,5")),
        (&["RETURN (SAVE) 2:4", "RETURN (SAVE) UID $ 3:*"], Some("3:4")),
        (&["RETURN (SAVE SAVE) 2:4"], Some("2:4")),
        (&["RETURN (SAVE ALL) 2:4"], Some("2:4")),
        (&["RETURN (SAVE MIN) 2:4"], Some("2")),
        (&["RETURN (MAX SAVE) 2:4"], Some("4")),
        (&["RETURN (MAX MIN SAVE) 2:4"], Some("2,4")),
        (&["RETURN (MIN MAX SAVE) 3"], Some("3")),
        (&["RETURN (MIN COUNT SAVE) 2:4"], Some("2:4")),
        (&["RETURN (MIN MAX ALL SAVE) 2:4"], Some("2:4")),
    ] {
        let ((), said) = serve(&memory, &trouble, |user| {
            for search in searches {
                trouble.unreadable.set(search.contains("unreadable"));
                say(user, &format!("a SEARCH {search}")).unwrap();
            }
            trouble.unreadable.set(false);
            say(user, "b SEARCH RETURN (ALL) $").unwrap();
        });
        let all = saved.map_or_else(String::new, |saved| format!(" ALL {saved}"));
        let wanted = format!("* ESEARCH (TAG \"b\"){all}\r\nb OK ");
        assert!(said.contains(&wanted), "{searches:?}:\n{said}");
    }
}

/// Which messages each has to read, of which those with UIDs 3, 5 and 6 match.
#[test]
fn a_search_for_the_first_or_the_last_reads_no_message_beyond_it() {
    let mut memory = Memory::new(7);
    let texts = ["no", "no", "yes", "no", "yes", "yes", "no", "no", "no"];
    memory.append(&texts.map(|text| arrival(format!("A: b\r\n\r\n{text}\r\n"), 0))).unwrap();
    memory.expunge(&UidSet::from(1..=1)).unwrap();
    for (returns, key, answer, reads) in [
        ("MIN", "yes", " MIN 2", "2:3"),
        ("MAX", "yes", " MAX 5", "6:9"),
        ("MIN MAX", "yes", " MIN 2 MAX 5", "2:3,6:9"),
        ("MAX MIN SAVE", "yes", " MIN 2 MAX 5", "2:3,6:9"),
        ("MIN SAVE", "yes", " MIN 2", "2:3"),
        // It is the first and the last, or there is none.
        ("MIN MAX", "yes 2", " MIN 2 MAX 2", "3"),
        ("MIN MAX", "yes 1:3", " MIN 2 MAX 2", "2:4"),
        ("MIN MAX", "none", "", "2:9"),
        ("MAX", "none", "", "2:9"),
        // These are of all.
        ("MIN COUNT", "yes", " MIN 2 COUNT 3", "2:9"),
        ("MAX ALL", "yes", " MAX 5 ALL 2,4:5", "2:9"),
        ("SAVE", "yes", "", "2:9"),
        ("", "yes", " ALL 2,4:5", "2:9"),
    ] {
        let trouble = Trouble::default();
        let (key, numbers) = key.split_once(' ').unwrap_or((key, "ALL"));
        let ((), said) = serve(&memory, &trouble, |user| {
            say(user, &format!("a SEARCH RETURN ({returns}) {numbers} BODY {key}")).unwrap();
        });
        let wanted = format!("* ESEARCH (TAG \"a\"){answer}\r\na OK ");
        assert!(said.contains(&wanted) || returns == "SAVE", "{returns}, {key}: {said}");
        let read = reply::set_text(trouble.read.take().ranges().iter().cloned());
        assert_eq!(read, reads, "{returns}, {key}");
    }
}

/// RFC 4731 section 3.1.
#[test]
fn a_search_returns_what_is_asked_for() {
    let mut memory = Memory::new(7);
    memory
        .append(&["0", "1", "2", "3", "4"].map(|n| arrival(format!("A: b\n\n{n}.\n"), 0)))
        .unwrap();
    memory.expunge(&UidSet::from(2..=2)).unwrap();
    for (command, wanted) in [
        ("SEARCH 2:3", "* SEARCH 2 3\r\n"),
        ("UID SEARCH 2:3", "* SEARCH 3 4\r\n"),
        ("SEARCH ANSWERED", "* SEARCH\r\n"),
        ("SEARCH RETURN () 2:3", "* ESEARCH (TAG \"a\") ALL 2:3\r\n"),
        ("UID SEARCH RETURN () ALL", "* ESEARCH (TAG \"a\") UID ALL 1,3:5\r\n"),
        (
            "UID SEARCH RETURN (MIN MAX COUNT) ALL",
            "* ESEARCH (TAG \"a\") UID MIN 1 MAX 5 COUNT 4\r\n",
        ),
        ("SEARCH RETURN (MAX) 2:3", "* ESEARCH (TAG \"a\") MAX 3\r\n"),
        ("SEARCH RETURN (MIN MAX ALL COUNT) ANSWERED", "* ESEARCH (TAG \"a\") COUNT 0\r\n"),
        ("SEARCH RETURN (MIN) ANSWERED", "* ESEARCH (TAG \"a\")\r\n"),
        ("SEARCH RETURN (SAVE) ALL", ""),
        ("SEARCH RETURN (SAVE COUNT) ALL", "* ESEARCH (TAG \"a\") COUNT 4\r\n"),
        ("SEARCH RETURN (COUNT) 9:*,1", "* ESEARCH (TAG \"a\") COUNT 2\r\n"),
        ("SEARCH RETURN (ALL) UID 2,4:*", "* ESEARCH (TAG \"a\") ALL 3:4\r\n"),
    ] {
        let ((), said) = serve(&memory, &Trouble::default(), |user| {
            say(user, &format!("a {command}")).unwrap();
        });
        let said = said.split_once("logged in\r\n").unwrap().1;
        let (untagged, end) = said.split_once("a OK ").unwrap();
        assert_eq!(untagged, wanted, "{command}: {end}");
    }
    let ((), said) = serve(&memory, &Trouble::default(), |user| {
        user.rev2 = true;
        say(user, "a SEARCH 2:3").unwrap();
    });
    assert!(said.contains("* ESEARCH (TAG \"a\") ALL 2:3\r\na OK "), "{said}");
}
