//! The session of a user who has logged in, run as that user.
//!
//! [`Session`] reads commands, one at a time; here they are obeyed. What is asked of the selected
//! mailbox is in `selected`, what of folders in `folders`, and messages that come in `message`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::out::Out;
use super::view::{Telling, View};
use crate::config::Config;
use crate::delivery::local;
use crate::imap::CAPABILITIES;
use crate::imap::command::{Command, Tagged};
use crate::imap::reply::{self, Code, Condition, Word};
use crate::imap::session::{Action, Session};
use crate::mailbox::folders::{self, Folders, Name};
use crate::mailbox::{Error, Place};
use crate::server::Connection;
use crate::server::login::shown;
use crate::sys::signal::{self, Signals};
use crate::sys::{Account, Exit, Log, fd};

use super::message::Incoming;

/// Of the command that logged in, still to be answered.
pub struct LoggedIn {
    /// Its tag.
    pub tag: String,
    /// The input that came behind it.
    pub leftover: Vec<u8>,
}

/// So long may a client say nothing (RFC 9051 section 5.4).
const IDLE: Duration = Duration::from_mins(30);

/// So long, in milliseconds, may a client take nothing of what it is sent.
const STUCK: u32 = 300_000;

/// So long does a client say nothing before marks that only the index has are written into the
/// mailbox.
const QUIET: Duration = Duration::from_mins(1);

/// So often is looked at what others did where nothing can be waited at, or a look has failed.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// So much is read at once.
const READ: usize = 16 * 1024;

/// The log's word for a session that a signal has ended.
const ASKED: &str = "asked to end";

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// The client has said LOGOUT, or was told BYE.
    Said(&'static str),
    /// It can't go on, for which the client is told why.
    Told(&'static str, &'static str),
    /// It is gone, or can't be served any more.
    Gone(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// An answer that ends a command: how it went, a code, and words.
pub(super) type Answer = (Condition, Option<Code>, String);

/// It went well.
pub(super) fn ok(text: &str) -> Answer {
    (Condition::Ok, None, text.to_owned())
}

/// It can't be done.
pub(super) fn no(word: Option<Word>, text: &(impl ToString + ?Sized)) -> Answer {
    (Condition::No, word.map(Code::Word), text.to_string())
}

/// It was no command here.
pub(super) fn bad(text: &str) -> Answer {
    (Condition::Bad, None, text.to_owned())
}

/// What is said of a mailbox that failed.
pub(super) fn failed(error: &Error) -> Answer {
    let word = match error {
        Error::OverQuota { .. } => Word::OverQuota,
        Error::Locked { .. } => Word::InUse,
        Error::Changed => Word::ExpungeIssued,
        Error::Damaged { .. } => Word::Corruption,
        // Somebody has renamed or deleted it since it was found.
        error if error.is_missing() => Word::NonExistent,
        _ => Word::Unavailable,
    };
    no(Some(word), error)
}

/// What is said of a folder that failed.
pub(super) fn folder_failed(error: &folders::Error) -> Answer {
    use folders::Error as E;
    let word = match error {
        E::NonExistent(_) => Word::NonExistent,
        E::AlreadyExists(_) => Word::AlreadyExists,
        E::HasChildren(_) => Word::HasChildren,
        E::Cannot(_) => Word::Cannot,
        E::UseAttribute(_) => Word::UseAttr,
        E::NoPermission(_) => Word::NoPerm,
        E::InUse(_) => Word::InUse,
        E::Limit(_) => Word::Limit,
        E::Failed(_) => Word::Unavailable,
    };
    no(Some(word), error)
}

/// Whether the mailbox is gone, or has become what can't be used.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Refused { .. }) || error.is_missing()
}

/// A user's session.
pub struct User<'a> {
    pub(super) folders: Folders,
    pub(super) out: Out<'a>,
    pub(super) session: Session,
    pub(super) selected: Option<View>,
    /// It has enabled IMAP4rev2.
    pub(super) rev2: bool,
    /// The largest message that is taken, in octets.
    pub(super) largest: u64,
    pub(super) incoming: Option<Incoming>,
    pub(super) warnings: Vec<String>,
    /// The last look at the mailbox has failed.
    is_behind: bool,
    /// When marks are to be written into the mailbox.
    settle_at: Option<Instant>,
}

/// Serves a user, as that user.
pub fn session(
    config: &Config,
    client: &mut Connection,
    account: &Account,
    login: &LoggedIn,
    log: &Log,
) -> Exit {
    let who = format!("user=<{}>, rip={}", shown(account.name.as_bytes()), client.peer);
    let folders = match local::folders(config, account) {
        Ok(folders) => folders,
        Err(what) => {
            log.error(&format!("Mailbox: {who}, status=unavailable: {what}"));
            let _ = client.send(&super::refusal(&login.tag), STUCK);
            return Exit::TempFail;
        }
    };
    let taken = Signals::take(&signal::ENDING);
    let signals = match taken.and_then(|signals| client.heed(signals.as_fd()).map(|()| signals)) {
        Ok(signals) => signals,
        Err(error) => {
            log.error(&format!("{who}: signals can't be waited for: {error}"));
            let _ = client.send(&super::refusal(&login.tag), STUCK);
            return Exit::OsErr;
        }
    };
    let client = RefCell::new(client);
    let mut sink = |bytes: &[u8]| client.borrow_mut().send(bytes, STUCK);
    let mut user = User::new(folders, Out::new(&mut sink), login, config.smtp.max_message_size);
    let mut last = String::new();
    let mut report = |warnings: &mut Vec<String>| {
        for warning in warnings.drain(..) {
            // What fails at each look is said once.
            if warning != last {
                log.warning(&format!("Mailbox: {who}: {warning}"));
                last = warning;
            }
        }
    };
    let mut buffer = vec![0; READ];
    let end = loop {
        let obeyed = user.obey();
        report(&mut user.warnings);
        if let Err(end) = obeyed {
            break end;
        }
        match user.wait(&client, &signals, &mut buffer, &mut report) {
            Ok(0) => break End::Gone(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => user.push(buffer.get(..length).unwrap_or_default()),
            Err(end) => break end,
        }
    };
    if let End::Told(_, text) = end {
        reply::status(None, Condition::Bye, None, text, &mut user.out.buffer);
    }
    let _ = user.out.flush();
    user.close(false);
    report(&mut user.warnings);
    let (why, exit) = match &end {
        End::Said(why) | End::Told(why, _) => ((*why).to_owned(), Exit::Ok),
        End::Gone(error) => match error.kind() {
            io::ErrorKind::TimedOut => ("timeout".to_owned(), Exit::Ok),
            io::ErrorKind::UnexpectedEof => ("gone".to_owned(), Exit::Ok),
            io::ErrorKind::ConnectionAborted => (ASKED.to_owned(), Exit::Ok),
            _ => (error.to_string(), Exit::IoErr),
        },
    };
    log.info(&format!("Disconnected: {who}, bytes={}, end={why}", user.out.sent));
    exit
}

impl<'a> User<'a> {
    /// A session whose login is still to be answered.
    pub fn new(folders: Folders, mut out: Out<'a>, login: &LoggedIn, largest: u64) -> Self {
        let code = Code::Capability(CAPABILITIES.to_owned());
        let tag = Some(login.tag.as_str());
        reply::status(tag, Condition::Ok, Some(&code), "logged in", &mut out.buffer);
        Self {
            folders,
            out,
            session: Session::new(&login.leftover),
            selected: None,
            rev2: false,
            largest,
            incoming: None,
            warnings: Vec::new(),
            is_behind: false,
            settle_at: None,
        }
    }

    /// Takes input.
    pub fn push(&mut self, bytes: &[u8]) {
        self.session.push(bytes);
    }

    /// Does what there is to do, and sends what there is to say.
    pub fn obey(&mut self) -> Result<(), End> {
        while let Some(action) = self.session.next() {
            self.settle_at = Some(Instant::now() + QUIET);
            match action {
                Action::Send(bytes) => self.out.write_all(&bytes)?,
                Action::Run(tagged) => self.run(tagged)?,
                Action::Append(to) => {
                    let wanted = self.announced(to);
                    self.session.take_message(wanted);
                }
                Action::Chunk(octets) => self.chunk(&octets),
                Action::Appended(whole) => self.appended(whole)?,
                Action::Done(tag) => self.finish(&tag, &ok("that was it"), true, false)?,
                Action::Close => {
                    self.out.flush()?;
                    return Err(End::Said("closed"));
                }
            }
            self.out.settle()?;
        }
        Ok(self.out.flush()?)
    }

    /// Waits for input, and tells an idle client meanwhile what happens; how much there was.
    fn wait(
        &mut self,
        client: &RefCell<&mut Connection>,
        signals: &Signals,
        buffer: &mut [u8],
        report: &mut dyn FnMut(&mut Vec<String>),
    ) -> Result<usize, End> {
        let silent_at = Instant::now() + IDLE;
        let mut looked = Instant::now();
        loop {
            let idle = self.session.is_idle();
            let view = self.selected.as_mut().filter(|_| idle);
            let has_mailbox = view.is_some();
            let watch = view.and_then(|view| view.store.watch().ok().flatten());
            let again = has_mailbox && (watch.is_none() || self.is_behind);
            let look_at = again.then(|| looked + AGAIN);
            let until = [Some(silent_at), self.settle_at, look_at];
            let until = until.into_iter().flatten().min().unwrap_or(silent_at);
            // Not before the time: it is rounded up.
            let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            let [input, is_told, is_asked] = {
                let client = client.borrow();
                let [input, _] = client.descriptors();
                fd::wait_for_any([input, watch.unwrap_or(input), signals.as_fd()], left)?
            };
            let now = Instant::now();
            if is_asked {
                return Err(End::Told(ASKED, "the server is going down, come again"));
            }
            if input {
                return Ok(client.borrow_mut().receive(buffer, STUCK)?);
            }
            if now >= silent_at {
                return Err(End::Told("timeout", "you have been silent for too long"));
            }
            if is_told || look_at.is_some_and(|at| now >= at) {
                self.look()?;
                looked = Instant::now();
            }
            if self.settle_at.is_some_and(|at| now >= at) {
                self.settle();
            }
            report(&mut self.warnings);
        }
    }

    /// Writes into the mailbox what only the index has.
    fn settle(&mut self) {
        self.settle_at = None;
        if let Some(view) = &mut self.selected
            && let Err(error) = view.store.checkpoint()
        {
            view.warn(&error);
            self.warnings.append(&mut view.take_warnings());
        }
    }

    /// Looks what others did, and tells it.
    fn look(&mut self) -> Result<(), End> {
        self.tell(true, false)?;
        Ok(self.out.flush()?)
    }

    /// Tells what others did. A session whose mailbox is another one now, or none, can't go on.
    fn tell(&mut self, expunges: bool, uids: bool) -> Result<(), End> {
        let telling = Telling { expunges, uids, rev2: self.rev2 };
        let Some(view) = &mut self.selected else {
            return Ok(());
        };
        let looked = view.store.sync();
        self.is_behind = looked.is_err();
        let stays = match looked {
            Ok(()) => view.tell(telling, &mut self.out.buffer),
            Err(error) => Err(error),
        };
        let stays = stays.unwrap_or_else(|error| {
            view.warn(&error);
            !is_lost(&error)
        });
        self.warnings.append(&mut view.take_warnings());
        if stays {
            Ok(())
        } else {
            Err(End::Told("replaced", "the mailbox was replaced or deleted"))
        }
    }

    /// Ends a command: tells what has happened meanwhile, and how it went.
    pub(super) fn finish(
        &mut self,
        tag: &str,
        answer: &Answer,
        expunges: bool,
        uids: bool,
    ) -> Result<(), End> {
        self.tell(expunges, uids)?;
        self.say(tag, answer);
        Ok(())
    }

    /// Only how it went.
    pub(super) fn say(&mut self, tag: &str, (condition, code, text): &Answer) {
        let (code, out) = (code.as_ref(), &mut self.out.buffer);
        reply::status_in(self.rev2, Some(tag), *condition, code, text, out);
    }

    /// Leaves the selected mailbox; `expunge`: what is deleted goes.
    pub fn close(&mut self, expunge: bool) {
        let Some(mut view) = self.selected.take() else {
            return;
        };
        if expunge && !view.read_only {
            // What others have marked otherwise meanwhile stays.
            let expunged = match view.look() {
                Ok(true) => {
                    view.deleted().and_then(|deleted| view.store.expunge(&deleted).map(drop))
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = expunged {
                view.warn(&error);
            }
        }
        view.structures.drop_gone(view.store.as_ref());
        if let Err(error) = view.store.checkpoint() {
            view.warn(&error);
        }
        self.warnings.append(&mut view.take_warnings());
    }

    /// A name of the client's, and its place.
    pub(super) fn place(&self, name: &str) -> Result<(Name, Place), Answer> {
        let name = Name::parse(name).map_err(|why| no(Some(Word::Cannot), &why))?;
        let place = self.folders.place(&name).map_err(|error| folder_failed(&error))?;
        Ok((name, place))
    }

    fn run(&mut self, Tagged { tag, command }: Tagged) -> Result<(), End> {
        let tag = tag.as_str();
        let answer = match command {
            command if command.wants_condstore() => {
                // Nothing is told within it, as it is no command of numbers or of UIDs here.
                self.say(tag, &bad("CONDSTORE is not offered"));
                return Ok(());
            }
            Command::Capability => {
                reply::words(&format!("CAPABILITY {CAPABILITIES}"), &mut self.out.buffer);
                ok("that is what there is")
            }
            Command::Noop => ok("done"),
            Command::Logout => {
                reply::status(None, Condition::Bye, None, "bye", &mut self.out.buffer);
                self.say(tag, &ok("logged out"));
                self.out.flush()?;
                return Err(End::Said("logout"));
            }
            Command::Id(_) => {
                reply::id(&[("name", "Hikyaku")], &mut self.out.buffer);
                ok("pleased to meet you")
            }
            Command::StartTls | Command::Login { .. } | Command::Authenticate { .. } => {
                bad("you are logged in already")
            }
            Command::Enable(names) => {
                let mut enabled = String::new();
                if names.iter().any(|name| name == "IMAP4REV2") {
                    self.rev2 = true;
                    self.session.speak_utf8();
                    enabled.push_str(" IMAP4rev2");
                }
                reply::words(&format!("ENABLED{enabled}"), &mut self.out.buffer);
                ok("done")
            }
            Command::Namespace => {
                reply::namespace('/', &mut self.out.buffer);
                ok("that is all there is")
            }
            Command::Idle => {
                reply::continuation("idling", &mut self.out.buffer);
                self.session.idle(tag);
                if let Some(view) = &mut self.selected {
                    // What happens behind the look is not missed.
                    let _ = view.store.watch();
                }
                return self.look();
            }
            Command::Select(name, _) => return self.select(tag, &name, false),
            Command::Examine(name, _) => return self.select(tag, &name, true),
            Command::Create(name, uses) => self.create(&name, &uses),
            Command::Delete(name) => self.delete(&name),
            Command::Rename { from, to } => self.rename(&from, &to),
            Command::Subscribe(name) => self.subscribe(&name, true),
            Command::Unsubscribe(name) => self.subscribe(&name, false),
            Command::List(list) => self.list(&list),
            Command::Lsub { reference, pattern } => self.lsub(&reference, &pattern),
            Command::Status(name, items) => self.status(&name, &items),
            command => return self.run_selected(tag, command),
        };
        self.finish(tag, &answer, true, false)
    }
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
