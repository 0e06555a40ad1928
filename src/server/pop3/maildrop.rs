//! The session of a user who has logged in, run as that user: it opens the mailbox and does what
//! [`crate::pop3::session`] says.

use std::io;

use super::{CHUNK, READ, STUCK, Wire, shown};
use crate::config::Config;
use crate::delivery::local;
use crate::mailbox::mbox::{Mbox, Snapshot};
use crate::pop3::session::{Action, Message, Session};
use crate::server::Connection;
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
    let (mut mailbox, snapshot) = match open(config, account) {
        Ok(opened) => opened,
        Err(what) => {
            log.error(&format!("Mailbox: {who}, status=unavailable: {what}"));
            let _ = client.send(&Session::refusal(), STUCK);
            return Exit::TempFail;
        }
    };
    let mut wire = Wire::new(client);
    let mut tally = Tally::default();
    let served = Maildrop { mailbox: &mut mailbox, snapshot: &snapshot, log, who: &who }
        .serve(&mut wire, leftover, &mut tally);
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

fn open(config: &Config, account: &Account) -> Result<(Mbox, Snapshot), String> {
    let mut mailbox = local::mailbox_of(config, account).map_err(|failure| failure.to_string())?;
    let snapshot = mailbox.scan().map_err(|error| error.to_string())?;
    Ok((mailbox, snapshot))
}

/// An open mailbox and those who hear about it.
struct Maildrop<'a> {
    mailbox: &'a mut Mbox,
    snapshot: &'a Snapshot,
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
        let messages: Vec<Message> = (0..self.snapshot.len())
            .filter_map(|n| {
                let size = self.snapshot.size(n)?;
                Some(Message { size, unique_id: self.snapshot.unique_id(n)? })
            })
            .collect();
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
        let read = self.mailbox.read(self.snapshot, index, body_lines, &mut |piece| {
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

    /// Removes messages; how many it were that were still there, or `None` where it can't.
    fn expunge(&mut self, indexes: &[usize]) -> Option<usize> {
        match self.mailbox.expunge(self.snapshot, indexes) {
            Ok(removed) => Some(removed),
            Err(error) => {
                self.log.error(&format!("Mailbox: {}, status=not removed: {error}", self.who));
                None
            }
        }
    }
}
