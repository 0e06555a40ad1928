//! Stored text as clients get it where a mailbox hides nothing: each line ends with CRLF.
//!
//! Input may come in any pieces; only whether the last byte was a CR is kept.

/// Makes line ends CRLF. A bare CR, and a last line without an end, stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crlf {
    cr: bool,
}

impl Crlf {
    /// Takes the next stored bytes, and puts what a client gets behind `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len().saturating_add(bytes.len() / 16));
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            out.extend_from_slice(content);
            if let Some(last) = content.last() {
                self.cr = *last == b'\r';
            }
            if content.len() < line.len() {
                out.extend_from_slice(if self.cr { b"\n" } else { b"\r\n" });
                self.cr = false;
            }
        }
    }
}

/// Counts the octets of a message as a client gets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measure {
    size: u64,
    header: Option<u64>,
    /// Bytes of the line so far, without its end.
    line: u64,
    cr: bool,
}

impl Measure {
    /// Takes the next stored bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            self.size = self.size.saturating_add(content.len() as u64);
            self.line = self.line.saturating_add(content.len() as u64);
            if let Some(last) = content.last() {
                self.cr = *last == b'\r';
            }
            if content.len() < line.len() {
                self.size = self.size.saturating_add(if self.cr { 1 } else { 2 });
                if self.header.is_none() && self.line == u64::from(self.cr) {
                    self.header = Some(self.size);
                }
                self.line = 0;
                self.cr = false;
            }
        }
    }

    /// The octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The octets of the header with its blank line; none if that has not come.
    pub fn header(&self) -> Option<u64> {
        self.header
    }
}

#[cfg(test)]
mod tests {
    use super::{Crlf, Measure};

    #[test]
    fn line_ends_become_crlf_and_are_counted_so_in_pieces_of_any_size() {
        for (stored, shown, header) in [
            ("", "", None),
            ("\n", "\r\n", Some(2)),
            (
                "A: 1\nB: 2\n\nx\r\ny\rz\r\r\n\n",
                "A: 1\r\nB: 2\r\n\r\nx\r\ny\rz\r\r\n\r\n",
                Some(14),
            ),
            ("A: 1\r\n\r\nend", "A: 1\r\n\r\nend", Some(8)),
            ("A: 1\n\r", "A: 1\r\n\r", None),
            ("A: 1\n\r\r\n\n", "A: 1\r\n\r\r\n\r\n", Some(11)),
        ] {
            for step in 1..=stored.len().max(1) {
                let (mut crlf, mut measure, mut out) =
                    (Crlf::default(), Measure::default(), Vec::new());
                for piece in stored.as_bytes().chunks(step) {
                    crlf.push(piece, &mut out);
                    measure.push(piece);
                }
                assert_eq!(String::from_utf8(out).unwrap(), shown);
                assert_eq!((measure.size(), measure.header()), (shown.len() as u64, header));
            }
        }
    }
}
