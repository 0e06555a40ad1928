//! A message without lines (BINARYMIME, RFC 3030 section 3) as one that has them, for whoever keeps
//! messages as lines: each part that is `binary` becomes base64 (RFC 2045 section 6.8), and what
//! only contains parts becomes `8bit`. All else stays as it is, with clean line ends.

use base64ct::{Base64, Encoding as _};

use crate::text::data::LineEnds;

/// The longest header of a part that is looked at; with a longer one the rest is text.
const MAX_HEADER: usize = 1 << 20;
/// So deep parts are looked at; deeper ones are text.
const MAX_DEPTH: usize = 100;
/// The longest line that may be a delimiter: a boundary has at most 70 characters (RFC 2046 section
/// 5.1.1), and white space may follow it.
const MAX_DELIMITER: usize = 256;
/// Bytes of a line of base64.
const LINE: usize = 57;

/// What is done with a part's body.
#[derive(Debug)]
enum Body {
    Lines(LineEnds),
    /// With the bytes that do not fill a line yet.
    Base64(Vec<u8>),
}

/// Converts one message, in pieces of any cut.
#[derive(Debug)]
pub struct Downgrade {
    /// The header that is being read; `None` in a body.
    header: Option<Vec<u8>>,
    body: Body,
    /// The boundaries that may come, the innermost last.
    boundaries: Vec<Vec<u8>>,
    /// The line so far, while it may be a delimiter or belongs to a header.
    line: Vec<u8>,
    /// In a line of a body that is no delimiter.
    inside: bool,
    /// A CRLF that belongs to the body unless a delimiter follows.
    held: bool,
}

impl Default for Downgrade {
    /// At the start of a message.
    fn default() -> Self {
        Self {
            header: Some(Vec::new()),
            body: lines(),
            boundaries: Vec::new(),
            line: Vec::new(),
            inside: false,
            held: false,
        }
    }
}

fn lines() -> Body {
    Body::Lines(LineEnds::default())
}

impl Downgrade {
    /// Takes the next piece of the message, and appends what is known of the result to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(&line, out);
            } else if self.header.is_none() && (self.inside || self.line.len() > MAX_DELIMITER) {
                // A CR may be half of a line end.
                let held = self.line.pop_if(|last| *last == b'\r');
                let line = std::mem::take(&mut self.line);
                self.keep(&line, out);
                self.inside = true;
                self.line.extend(held);
            } else if self.line.len() > MAX_HEADER {
                self.give_up(out);
            }
        }
    }

    /// The message is whole.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take(&line, out);
        }
        if let Some(header) = self.header.take() {
            out.extend_from_slice(&header);
        }
        if std::mem::take(&mut self.held) {
            self.put(b"\r\n", out);
        }
        self.end_body(out);
    }

    /// A line, with its end where it has one.
    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let was_inside = std::mem::take(&mut self.inside);
        let text = line.strip_suffix(b"\r\n");
        if !was_inside && let Some((depth, is_last)) = self.delimiter(text.unwrap_or(line)) {
            return self.delimit(depth, is_last, text.unwrap_or(line), out);
        }
        if let Some(header) = &mut self.header {
            let text = text.or(line.strip_suffix(b"\n")).unwrap_or(line);
            header.extend(text.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
            header.extend_from_slice(b"\r\n");
            if text.is_empty() {
                self.end_header(out);
            } else if header.len() > MAX_HEADER {
                self.give_up(out);
            }
            return;
        }
        self.keep(text.unwrap_or(line), out);
        self.held = text.is_some();
        // Only behind CRLF a delimiter may stand.
        self.inside = text.is_none();
    }

    /// Which of the boundaries that is, and whether its last.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let line = line.strip_prefix(b"--")?.trim_ascii_end();
        let find = |line: &[u8]| self.boundaries.iter().rposition(|boundary| boundary == line);
        match find(line) {
            Some(depth) => Some((depth, false)),
            None => find(line.strip_suffix(b"--")?).map(|depth| (depth, true)),
        }
    }

    fn delimit(&mut self, depth: usize, is_last: bool, line: &[u8], out: &mut Vec<u8>) {
        if let Some(header) = self.header.take() {
            out.extend_from_slice(&header);
        }
        self.end_body(out);
        if std::mem::take(&mut self.held) {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        self.boundaries.truncate(if is_last { depth } else { depth + 1 });
        self.header = (!is_last).then(Vec::new);
    }

    /// Something of a body, behind what was held back before it.
    fn keep(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held) {
            self.put(b"\r\n", out);
        }
        self.put(bytes, out);
    }

    fn put(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.body {
            Body::Lines(ends) => {
                while !bytes.is_empty() {
                    out.extend_from_slice(ends.next(&mut bytes));
                }
            }
            Body::Base64(rest) => {
                rest.extend_from_slice(bytes);
                let whole = rest.len() - rest.len() % LINE;
                for line in rest.drain(..whole).as_slice().chunks(LINE) {
                    out.extend_from_slice(Base64::encode_string(line).as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }

    fn end_body(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.body, lines()) {
            // A line that a delimiter has ended is whole.
            Body::Lines(_) if self.held => {}
            Body::Lines(ends) => out.extend_from_slice(ends.finish()),
            Body::Base64(rest) => {
                out.extend_from_slice(Base64::encode_string(&rest).as_bytes());
                if !rest.is_empty() && !self.held {
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }

    /// The header is whole: what its body is, and what is to be done with that.
    fn end_header(&mut self, out: &mut Vec<u8>) {
        let header = self.header.take().unwrap_or_default();
        let parsed = mailparse::parse_headers(&header).map(|(fields, _)| fields);
        let fields = parsed.unwrap_or_default();
        let value = |name: &str| {
            let field = fields.iter().find(|field| field.get_key_ref().eq_ignore_ascii_case(name));
            field.map(mailparse::MailHeader::get_value)
        };
        let content = value("Content-Type").map(|value| mailparse::parse_content_type(&value));
        let kind = content.as_ref().map_or("text/plain", |content| content.mimetype.as_str());
        let encoding = value("Content-Transfer-Encoding").unwrap_or_default();
        let is_binary = encoding.trim().eq_ignore_ascii_case("binary");
        let is_plain = ["", "7bit", "8bit"].iter().any(|e| encoding.trim().eq_ignore_ascii_case(e));
        let boundary = content.as_ref().and_then(|content| content.params.get("boundary"));
        let is_deep = self.boundaries.len() >= MAX_DEPTH;
        let contains = match kind {
            "message/rfc822" | "message/global" => true,
            _ => kind.starts_with("multipart/") && boundary.is_some(),
        };
        if is_deep || !(is_binary || is_plain) || !(is_binary || contains) {
            out.extend_from_slice(&header);
            return;
        }
        if contains {
            recode(&header, "8bit", is_binary, out);
            match boundary.filter(|_| kind.starts_with("multipart/")) {
                Some(boundary) => {
                    self.boundaries.push(boundary.as_bytes().trim_ascii_end().to_vec());
                }
                None => self.header = Some(Vec::new()),
            }
        } else {
            recode(&header, "base64", true, out);
            self.body = Body::Base64(Vec::new());
        }
    }

    /// The header is too long to be looked at.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header.take().unwrap_or_default());
        self.boundaries.clear();
        self.inside = true;
        let line = std::mem::take(&mut self.line);
        self.put(&line, out);
    }
}

/// Appends the header, with another encoding in its field where that is `wanted`.
fn recode(header: &[u8], encoding: &str, wanted: bool, out: &mut Vec<u8>) {
    let name = b"Content-Transfer-Encoding:";
    let mut left_out = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        left_out &= line.starts_with(b" ") || line.starts_with(b"\t");
        let is_field = line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if wanted && is_field {
            left_out = true;
            out.extend_from_slice(format!("Content-Transfer-Encoding: {encoding}\r\n").as_bytes());
        } else if !left_out {
            out.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts with the message cut at every place; all cuts must give the same.
    fn convert(message: &[u8]) -> Vec<u8> {
        let mut results = (0..=message.len()).map(|cut| {
            let (mut downgrade, mut out) = (Downgrade::default(), Vec::new());
            downgrade.push(&message[..cut], &mut out);
            downgrade.push(&message[cut..], &mut out);
            downgrade.finish(&mut out);
            out
        });
        let first = results.next().unwrap();
        for (cut, result) in results.enumerate() {
            assert_eq!(
                String::from_utf8_lossy(&result),
                String::from_utf8_lossy(&first),
                "cut {}",
                cut + 1
            );
        }
        assert!(!String::from_utf8_lossy(&first).replace("\r\n", "").contains(['\r', '\n']));
        first
    }

    #[test]
    fn binary_parts_become_base64_and_lose_no_byte() {
        let binary: Vec<u8> = (0..=255).chain(*b"\r\n--other\r\n.\r\n\n\r\r\n").collect();
        let start = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=\"a b\"\r\n\
            Content-Transfer-Encoding: BINARY\r\n\r\npreamble\r\n--a b\r\n\r\nplain\r\n--a b \r\n\
            Content-Type: application/x\r\ncontent-transfer-encoding:\r\n binary\r\nX-Last: y\r\n\r\n";
        let message = [start, binary.as_slice(), b"\r\n--a b--\r\nepilogue\r\n"].concat();
        let converted = convert(&message);
        let mail = mailparse::parse_mail(&converted).unwrap();
        assert_eq!(mail.subparts.len(), 2);
        assert_eq!(mail.subparts[0].get_body_raw().unwrap().trim_ascii_end(), b"plain");
        assert_eq!(mail.subparts[1].get_body_raw().unwrap(), binary);
        let text = String::from_utf8(converted).unwrap();
        assert!(text.contains("Content-Transfer-Encoding: 8bit\r\n\r\npreamble"), "{text}");
        assert!(text.contains("Content-Transfer-Encoding: base64\r\nX-Last: y\r\n\r\n"), "{text}");
        assert!(text.ends_with("\r\n--a b--\r\nepilogue\r\n"));
        assert!(text.lines().all(|line| line.len() <= 78));
    }

    #[test]
    fn a_message_of_one_binary_part_and_one_within_another_are_converted() {
        let field = b"Content-Transfer-Encoding: binary\r\n\r\n";
        let converted = convert(&[field, &b"a\0b\r\n"[..]].concat());
        assert_eq!(converted, b"Content-Transfer-Encoding: base64\r\n\r\nYQBiDQo=\r\n");
        let inner = [field, &b"a\nb"[..]].concat();
        let outer = b"Content-Type: message/rfc822\r\n";
        let converted = convert(&[outer, &field[..], &inner].concat());
        let wanted = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
                      Content-Transfer-Encoding: base64\r\n\r\nYQpi\r\n";
        assert_eq!(String::from_utf8(converted).unwrap(), wanted);
    }

    #[test]
    fn what_is_not_binary_stays_as_it_is_with_clean_line_ends() {
        for (message, wanted) in [
            (&b"Subject: x\r\n\r\ntext\r\n"[..], &b"Subject: x\r\n\r\ntext\r\n"[..]),
            (b"Subject: x\n\na\nb\rc", b"Subject: x\r\n\r\na\r\nb c\r\n"),
            (b"Subject: x\r\n", b"Subject: x\r\n"),
            (b"", b""),
        ] {
            assert_eq!(convert(message), wanted);
        }
    }

    #[test]
    fn a_part_without_end_and_parts_without_number_cost_no_memory() {
        let (mut downgrade, mut out) = (Downgrade::default(), Vec::new());
        downgrade.push(b"Content-Transfer-Encoding: binary\r\n\r\n", &mut out);
        for _ in 0..1000 {
            out.clear();
            downgrade.push(&[b'x'; 10_000], &mut out);
            assert!(downgrade.line.len() <= MAX_DELIMITER && out.len() < 20_000);
        }
        // Nor does a header.
        let (mut downgrade, mut out) = (Downgrade::default(), Vec::new());
        for _ in 0..3000 {
            downgrade.push(&[b'x'; 1000], &mut out);
        }
        assert!(downgrade.line.len() <= MAX_HEADER && downgrade.header.is_none());
        // Nor does depth.
        let mut downgrade = Downgrade::default();
        for depth in 0..1000 {
            let part =
                format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
            downgrade.push(part.as_bytes(), &mut out);
        }
        assert!(downgrade.boundaries.len() <= MAX_DEPTH);
    }
}
