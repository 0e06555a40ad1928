//! What a client is sent: collected, so that many short answers are one packet, and sent when it is
//! much, so that a large message is never held.

use std::io::{self, Write};

/// So much is collected.
const CHUNK: usize = 64 * 1024;

/// The way to a client.
pub struct Out<'a> {
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    /// What is not sent yet.
    pub buffer: Vec<u8>,
    /// Bytes that were sent.
    pub sent: u64,
}

/// A place in what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: usize,
    sent: u64,
}

impl<'a> Out<'a> {
    /// To whoever `sink` sends it.
    pub fn new(sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>) -> Self {
        Self { sink, buffer: Vec::new(), sent: 0 }
    }

    /// This place.
    pub fn mark(&self) -> Mark {
        Mark { at: self.buffer.len(), sent: self.sent }
    }

    /// Takes back all from there on; false where some of it is sent already.
    pub fn take_back(&mut self, mark: Mark) -> bool {
        let can = mark.sent == self.sent;
        if can {
            self.buffer.truncate(mark.at);
        }
        can
    }

    /// Sends what is much.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len().saturating_add(bytes.len()) > CHUNK {
            self.flush()?;
        }
        if bytes.len() > CHUNK {
            (self.sink)(bytes)?;
            self.sent = self.sent.saturating_add(bytes.len() as u64);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            let sent = (self.sink)(&self.buffer);
            let length = self.buffer.len() as u64;
            // Also after a failure: a part may be on its way, and is not sent twice.
            self.buffer.clear();
            sent?;
            self.sent = self.sent.saturating_add(length);
        }
        Ok(())
    }
}
