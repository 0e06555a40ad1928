//! What is left of a login child when its user has a session: it moves bytes between the client, under
//! TLS, and that session, which has the other end of a socket pair.
//!
//! It holds a few records each way at most: nothing more is read from one side than the other takes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::{Connection, Deadline, Layer, Wire};

/// So much is taken at once from the client, and from the session.
const UP: usize = 4 * 1024;
const DOWN: usize = 16 * 1024;

/// TLS's own words to the client, beyond which it is not listened to.
const MAX_PENDING: usize = 64 * 1024;

/// So long, in milliseconds, a client may take nothing of what waits for it: while there is a session,
/// which waits five minutes and has a log, and after that.
const STUCK: i32 = 330_000;
const LAST: i32 = 60_000;

impl Connection {
    /// Moves bytes until either side has ended, and the other one has what it said last.
    pub fn relay(&mut self, session: &OwnedFd) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let relay = Relay {
            wire: &mut self.wire,
            tls: tls.as_mut(),
            session,
            up: Pipe::default(),
            down: Pipe::default(),
            ended: [false, false],
        };
        relay.run()
    }
}

/// Bytes on their way.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pipe {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what there is room for; whether all is gone.
    fn write(&mut self, to: BorrowedFd<'_>) -> io::Result<bool> {
        while !self.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(to.as_raw_fd(), self.rest(), flags) {
                Ok(sent) => self.taken += sent,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

struct Relay<'a> {
    wire: &'a mut Wire,
    tls: &'a mut dyn Layer,
    session: &'a OwnedFd,
    /// What the client has said, and what is to be sent to it.
    up: Pipe,
    down: Pipe,
    /// Whether the client, and the session, say nothing more.
    ended: [bool; 2],
}

impl Relay<'_> {
    fn run(mut self) -> io::Result<()> {
        // TLS may hold text already.
        let mut ready = [true, true];
        loop {
            self.hear_client(ready[0])?;
            self.hear_session(ready[1])?;
            if self.ended[1] && self.down.is_empty() {
                return Ok(());
            }
            ready = self.wait()?;
        }
    }

    /// Takes from the client while the session takes it.
    fn hear_client(&mut self, mut is_ready: bool) -> io::Result<()> {
        let mut buffer = [0; UP];
        loop {
            match self.up.write(self.session.as_fd()) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // It hears nothing any more; what it has said last is still told.
                Err(_) => self.up = Pipe::default(),
            }
            if self.ended[0] || self.down.rest().len() > MAX_PENDING {
                return Ok(());
            }
            let read = self.tls.read(&mut buffer);
            // What TLS itself has to say: alerts, new keys.
            self.down.push(&self.tls.output()?);
            match read {
                Ok(0) => self.client_ended(),
                Ok(length) => self.up.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !std::mem::take(&mut is_ready) {
                        return Ok(());
                    }
                    match self.tls.fill(self.wire, Deadline::after(0)) {
                        // Many clients end without a word of TLS.
                        Ok(0) => self.client_ended(),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                        Err(_) => self.client_ended(),
                    }
                }
                Err(_) => self.client_ended(),
            }
        }
    }

    fn client_ended(&mut self) {
        self.ended[0] = true;
        let _ = shutdown(self.session.as_raw_fd(), Shutdown::Write);
    }

    /// Takes from the session while the client takes it.
    fn hear_session(&mut self, mut is_ready: bool) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let is_sent = self.down.write(self.wire.output())?;
            if !is_sent || self.ended[1] || !std::mem::take(&mut is_ready) {
                return Ok(());
            }
            buffer.resize(DOWN, 0);
            match recv(self.session.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(()),
                Ok(0) | Err(_) => {
                    self.ended[1] = true;
                    self.tls.finish();
                }
                Ok(length) => {
                    let mut text = buffer.get(..length).unwrap_or_default();
                    while !text.is_empty() {
                        let taken = self.tls.write(text)?;
                        text = text.get(taken..).unwrap_or_default();
                    }
                    is_ready = length == DOWN;
                }
            }
            self.down.push(&self.tls.output()?);
        }
    }

    /// Waits until one of them can go on; which.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let flag = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        let reads = !self.ended[0] && self.up.is_empty() && self.down.rest().len() <= MAX_PENDING;
        let client = flag(reads, PollFlags::POLLIN);
        let client_out = flag(!self.down.is_empty(), PollFlags::POLLOUT);
        let reads = !self.ended[1] && self.down.is_empty();
        let session = flag(reads, PollFlags::POLLIN);
        let session = session | flag(!self.up.is_empty(), PollFlags::POLLOUT);
        let wanted = [
            (self.wire.input.as_fd(), client, 0),
            (self.wire.output(), client_out, 0),
            (self.session.as_fd(), session, 1),
        ];
        // One that nothing is wanted of would wake us by its end, again and again.
        let wanted: Vec<_> = wanted.into_iter().filter(|(_, flags, _)| !flags.is_empty()).collect();
        let mut fds: Vec<PollFd<'_>> =
            wanted.iter().map(|(fd, flags, _)| PollFd::new(*fd, *flags)).collect();
        let stuck = if self.ended[1] { LAST } else { STUCK };
        let stuck = PollTimeout::try_from(stuck).unwrap_or(PollTimeout::MAX);
        let patience = if self.down.is_empty() { PollTimeout::NONE } else { stuck };
        match poll(&mut fds, patience) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = [false, false];
        for ((_, _, side), fd) in wanted.iter().zip(&fds) {
            if fd.revents().is_some_and(|events| !events.is_empty())
                && let Some(one) = ready.get_mut(*side)
            {
                *one = true;
            }
        }
        Ok(ready)
    }
}
