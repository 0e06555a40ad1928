//! The session of a user who has logged in, run as that user: it opens the mailbox and does what
//! [`crate::pop3::session`] says.

use std::io;

use super::{CHUNK, READ, STUCK, Wire};
use crate::config::Config;
use crate::delivery::local;
use crate::mailbox::Error;
use crate::mailbox::store::{self, Store, unique_ids};
use crate::mailbox::uids::{Uid, UidSet};
use crate::pop3::session::{Action, Message, Session};
use crate::server::Connection;
use crate::server::login::shown;
use crate::sys::{Account, Exit, Log};
use crate::text::dot::Stuffer;

/// How a session went, for the log.
#[derive(Debug, Default)]
struct Tally {
    messages: usize,
    retrieved: usize,
    deleted: usize,
}

/// Serves a user's mailbox, as that user. `leftover` is input that came before.
pub fn session(
    config: &Config,
    client: &mut Connection,
    account: &Account,
    leftover: &[u8],
    log: &Log,
) -> Exit {
    let peer = client.peer;
    let who = format!("user=<{}>, rip={peer}", shown(account.name.as_bytes()));
    // What POP3 shows is what there was at the beginning, whatever others do.
    let opened =
        local::open_inbox(config, account).and_then(|mailbox| Ok((mailbox.messages()?, mailbox)));
    let (messages, mut mailbox) = match opened {
        Ok(opened) => opened,
        Err(what) => {
            log.error(&format!("Mailbox: {who}, status=unavailable: {what}"));
            let _ = client.send(&Session::refusal(), STUCK);
            return Exit::TempFail;
        }
    };
    let mut wire = Wire::new(client);
    let mut tally = Tally::default();
    let served = Maildrop { mailbox: mailbox.as_mut(), messages: &messages, log, who: &who }
        .serve(&mut wire, leftover, &mut tally);
    for warning in mailbox.take_warnings() {
        log.warning(&format!("Mailbox: {who}: {warning}"));
    }
    let (end, exit) = match &served {
        Ok(true) => ("quit".to_owned(), Exit::Ok),
        Ok(false) => ("gone".to_owned(), Exit::Ok),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ("timeout".to_owned(), Exit::Ok),
        Err(error) => (error.to_string(), Exit::IoErr),
    };
    log.info(&format!(
        "Disconnected: {who}, messages={}, retrieved={}, deleted={}, bytes={}, end={end}",
        tally.messages, tally.retrieved, tally.deleted, wire.sent
    ));
    exit
}

/// An open mailbox and those who hear about it.
struct Maildrop<'a> {
    mailbox: &'a mut dyn Store,
    messages: &'a [store::Message],
    log: &'a Log,
    who: &'a str,
}

impl Maildrop<'_> {
    /// Obeys the session until it ends: true when the client said QUIT, false when it just went.
    fn serve(
        &mut self,
        wire: &mut Wire<'_>,
        leftover: &[u8],
        tally: &mut Tally,
    ) -> io::Result<bool> {
        let each = self.messages.iter().zip(unique_ids(self.messages));
        let messages: Vec<Message> =
            each.map(|(message, unique_id)| Message { size: message.size, unique_id }).collect();
        tally.messages = messages.len();
        let mut session = Session::new(messages);
        session.push(leftover);
        let mut buffer = [0; READ];
        loop {
            while let Some(action) = session.next() {
                match action {
                    Action::Send(bytes) => wire.out.extend_from_slice(&bytes),
                    Action::SendMessage { reply, index, body_lines } => {
                        if self.send_message(wire, &reply, index, body_lines)? {
                            tally.retrieved += usize::from(body_lines.is_none());
                        } else {
                            session.unreadable();
                        }
                    }
                    Action::Expunge(indexes) => {
                        let removed = self.expunge(&indexes);
                        tally.deleted = removed.unwrap_or(0);
                        // What another program has removed is gone, too.
                        session.expunged(removed.is_some());
                    }
                    Action::Close => {
                        wire.flush()?;
                        return Ok(true);
                    }
                }
                if wire.out.len() >= CHUNK {
                    wire.flush()?;
                }
                wire.active();
            }
            match wire.receive(&mut buffer)? {
                [] => return Ok(false),
                bytes => session.push(bytes),
            }
        }
    }

    /// Sends a message; false where it can't be read and nothing of it went out. Where it breaks
    /// off behind that, the error ends the connection.
    fn send_message(
        &mut self,
        wire: &mut Wire<'_>,
        reply: &[u8],
        index: usize,
        body_lines: Option<u64>,
    ) -> io::Result<bool> {
        let (start, sent) = (wire.out.len(), wire.sent);
        wire.out.extend_from_slice(reply);
        let mut stuffer = Stuffer::default();
        let mut lost = None;
        let read = self.read(index, body_lines, &mut |piece| {
            stuffer.push(piece, &mut wire.out);
            if wire.out.len() < CHUNK {
                return Ok(());
            }
            wire.flush().map_err(|error| {
                let copy = error.kind().into();
                lost = Some(error);
                copy
            })
        });
        match (read, lost) {
            (Ok(()), _) => {
                stuffer.finish(&mut wire.out);
                Ok(true)
            }
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => {
                let number = index.saturating_add(1);
                self.log.error(&format!("Mailbox: {}, message={number}: {error}", self.who));
                if wire.sent != sent {
                    return Err(io::Error::other("message can't be read to its end"));
                }
                wire.out.truncate(start);
                Ok(false)
            }
        }
    }

    /// Gives a message to `sink`, with at most so many lines of its body.
    fn read(
        &mut self,
        index: usize,
        body_lines: Option<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let message = self.messages.get(index).ok_or(Error::Changed)?;
        let end = match body_lines {
            Some(lines) => self.end_of_lines(message, lines)?,
            None => message.size,
        };
        self.mailbox.read(message.uid, 0..end, sink)
    }

    /// Where so many lines of a message's body end.
    fn end_of_lines(&mut self, message: &store::Message, lines: u64) -> Result<u64, Error> {
        let (mut end, mut left) = (u64::from(message.header), lines);
        while left > 0 && end < message.size {
            let next = end.saturating_add(CHUNK as u64).min(message.size);
            self.mailbox.read(message.uid, end..next, &mut |piece| {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let line_ends = memchr::memchr_iter(b'\n', piece).take(most);
                let (count, last) =
                    line_ends.fold((0_u64, 0), |(count, _), at| (count + 1, at + 1));
                if left > 0 {
                    let taken = if count == left { last } else { piece.len() };
                    end = end.saturating_add(taken as u64);
                }
                left = left.saturating_sub(count);
                Ok(())
            })?;
        }
        Ok(end)
    }

    /// Removes messages; how many it were that were still there, or `None` where it can't.
    fn expunge(&mut self, indexes: &[usize]) -> Option<usize> {
        let uid = |index: &usize| self.messages.get(*index).map(|message| message.uid);
        let uids: Vec<Uid> = indexes.iter().filter_map(uid).collect();
        match self.mailbox.expunge(&uids.into_iter().collect::<UidSet>()) {
            Ok(removed) => Some(usize::try_from(removed.len()).unwrap_or(usize::MAX)),
            Err(error) => {
                self.log.error(&format!("Mailbox: {}, status=not removed: {error}", self.who));
                None
            }
        }
    }
}
