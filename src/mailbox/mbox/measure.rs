//! A message's size and digest, from its stored bytes in any pieces.

use xxhash_rust::xxh3::Xxh3Default;

use super::present::Presenter;

/// The header is hashed in pieces of this size: line by line would take longer.
const COLLECT: usize = 64 * 1024;

/// Counts the octets of a message as a client gets it ([`Presenter`]), and makes its digest: of its
/// header as a client gets it, and of its body as stored, with its last line end: who appends to a
/// file that ends without one makes it.
pub(super) struct Measure {
    hash: Xxh3Default,
    size: u64,
    /// What of the header has not been hashed.
    header: Vec<u8>,
    /// The last byte that was taken.
    last: u8,
    quoted: Option<Presenter>,
    shown: Vec<u8>,
}

impl Measure {
    pub fn new() -> Self {
        Self {
            hash: Xxh3Default::new(),
            size: 0,
            header: Vec::new(),
            last: b'\n',
            quoted: None,
            shown: Vec::new(),
        }
    }

    /// A message begins.
    pub fn start(&mut self) {
        self.hash.reset();
        self.size = 0;
        self.header.clear();
        self.last = b'\n';
    }

    /// A line of the header that clients get, or a piece of it. Of a line in pieces each must come.
    pub fn header(&mut self, piece: &[u8]) {
        let before = self.header.len();
        match piece.split_last() {
            Some((b'\n', content)) => {
                self.header.extend_from_slice(content);
                let cr = content.last().unwrap_or(&self.last) == &b'\r';
                self.header.extend_from_slice(if cr { b"\n" } else { b"\r\n" });
                self.last = b'\n';
            }
            Some((last, _)) => {
                self.header.extend_from_slice(piece);
                self.last = *last;
            }
            None => {}
        }
        self.size = self.size.saturating_add(count(self.header.len().saturating_sub(before)));
        if self.header.len() >= COLLECT {
            self.flush();
        }
    }

    /// The header has ended; its blank line goes in with it. Returns its octets.
    pub fn end_header(&mut self, quoted: bool) -> u64 {
        if self.last != b'\n' {
            self.header(b"\n");
        }
        self.header(b"\r\n");
        self.flush();
        self.quoted = quoted.then(|| {
            let mut presenter = Presenter::new(true, None);
            presenter.push(b"\n", &mut self.shown);
            self.shown.clear();
            presenter
        });
        self.size
    }

    /// The next piece of the body.
    pub fn body(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        if let Some(presenter) = &mut self.quoted {
            presenter.push(piece, &mut self.shown);
            self.size = self.size.saturating_add(count(self.shown.len()));
            self.shown.clear();
            self.last = piece.last().copied().unwrap_or(self.last);
            return;
        }
        let ends = memchr::memchr_iter(b'\n', piece).count();
        let mut whole =
            memchr::memchr(b'\r', piece).and_then(|first| piece.get(first..)).map_or(0, crlf);
        if self.last == b'\r' && piece.first() == Some(&b'\n') {
            whole += 1;
        }
        let octets = piece.len().saturating_add(ends.saturating_sub(whole));
        self.size = self.size.saturating_add(count(octets));
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    /// The message has ended: its octets and its digest.
    pub fn finish(&mut self) -> (u64, [u8; 16]) {
        if self.last != b'\n' {
            self.hash.update(b"\n");
        }
        let missing = if let Some(mut presenter) = self.quoted.take() {
            presenter.finish(&mut self.shown);
            let missing = self.shown.len();
            self.shown.clear();
            missing
        } else {
            match self.last {
                b'\n' => 0,
                b'\r' => 1,
                _ => 2,
            }
        };
        (self.size.saturating_add(count(missing)), self.hash.digest128().to_be_bytes())
    }

    fn flush(&mut self) {
        self.hash.update(&self.header);
        self.header.clear();
    }
}

/// How many line ends are CRLF.
fn crlf(bytes: &[u8]) -> usize {
    // Bytes that count up to 255 are added many at once.
    let behind = bytes.get(1..).unwrap_or_default();
    let count = |(first, second): (&[u8], &[u8])| {
        let pairs = first.iter().zip(second);
        let ends = pairs.fold(0_u8, |sum, (first, second)| {
            sum.wrapping_add(u8::from(*first == b'\r') & u8::from(*second == b'\n'))
        });
        usize::from(ends)
    };
    bytes.chunks(255).zip(behind.chunks(255)).map(count).sum()
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
