//! A second reading of messages' texts on the wire.

/// What DATA's text is, and how many bytes it took with its end; `None` where it has no end.
pub fn decoded(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let before = [&b"\r\n"[..], input].concat();
    let end = memchr::memmem::find(&before, b"\r\n.\r\n")?;
    let text = before.get(2..end + 2).unwrap_or_default();
    Some((undotted(text), end + 3))
}

/// What is left of a text's lines without the dots that were put before others.
fn undotted(text: &[u8]) -> Vec<u8> {
    let clean = cleaned(text);
    let lines = clean.split_inclusive(|byte| *byte == b'\n');
    // A line that is a dot alone and ends with a bare LF was never meant as anything else.
    let kept = |line: &&[u8]| *line == b".\r\n";
    let undotted =
        lines.map(|line| if kept(&line) { line } else { line.strip_prefix(b".").unwrap_or(line) });
    undotted.flatten().copied().collect()
}

/// A text with CRLF after each line, and nowhere else a CR or LF.
pub fn cleaned(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let is_last = line.as_ptr_range().end == text.as_ptr_range().end;
        let line = if is_last { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        clean.extend(line.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
        clean.extend_from_slice(b"\r\n");
    }
    clean
}
