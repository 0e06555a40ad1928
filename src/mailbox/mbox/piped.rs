//! What a message tells that comes through a pipe out of a mailbox, or from a mail system on its way
//! there.

use super::from_line;

/// A path without its angle brackets.
pub fn bare(path: &str) -> &str {
    path.strip_prefix('<').and_then(|path| path.strip_suffix('>')).unwrap_or(path)
}

/// So much of a message is looked at for its sender.
pub const BEGINNING: usize = 8 * 1024;

/// The sender that a message names which comes out of a mailbox, or from a mail system on its way
/// there: it begins with a `From_` line. Return-Path right behind that has the sender as it is, the
/// line itself perhaps not, and `MAILER-DAEMON` for the null sender.
///
/// A message as it comes over a network does not begin so, and its fields are a stranger's.
pub fn sender(beginning: &[u8]) -> Option<String> {
    let beginning = String::from_utf8_lossy(beginning);
    let mut lines = beginning.lines();
    let first = lines.next().filter(|line| from_line::begins(line.as_bytes()))?;
    let next = lines.find(|line| !line.starts_with(">From "));
    let field = next.and_then(|line| line.split_once(':'));
    if let Some((_, path)) = field.filter(|(name, _)| name.eq_ignore_ascii_case("Return-Path")) {
        return Some(bare(path.trim()).to_owned()).filter(|path| !path.contains(char::is_control));
    }
    match first.split_ascii_whitespace().nth(1)? {
        "MAILER-DAEMON" => Some(String::new()),
        // Mozilla names nobody, and of a quoted word this is a part only.
        sender if sender == "-" || sender.contains(['"', '?']) => None,
        sender => Some(sender.to_owned()),
    }
}

/// Whether a message of this length comes out of an mbox with the empty line behind it that is no
/// part of it, as formail(1) hands it over: it has one byte more than its Content-Length tells.
pub fn has_separator(beginning: &[u8], length: u64) -> bool {
    if !from_line::begins(beginning) {
        return false;
    }
    let Some(end) = memchr::memmem::find(beginning, b"\n\n") else {
        return false;
    };
    let header = String::from_utf8_lossy(beginning.get(..end).unwrap_or_default());
    let mut fields = header.lines().filter_map(|line| line.split_once(':'));
    let told = fields.find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
    let told = told.and_then(|(_, value)| value.trim().parse::<u64>().ok());
    told.is_some_and(|told| length.checked_sub(end as u64 + 3) == Some(told))
}

#[cfg(test)]
mod tests {
    use super::{has_separator, sender};

    #[test]
    fn a_message_out_of_an_mbox_ends_where_its_content_length_says() {
        let from = "From a@b.org Mon Jun 21 03:15:20 2004\n";
        for (message, is_one) in [
            (format!("{from}Content-Length: 3\nA: 1\n\nx\n\n\n"), true),
            (format!("{from}content-length:  0\n\n\n"), true),
            (format!("{from}Content-Length: 3\n\nx\n\n"), false),
            (format!("{from}Content-Length: 2\n\nx\n\n\n"), false),
            (format!("{from}A: 1\n\nContent-Length: 18\n\n"), false),
            (format!("{from}A: 1\n\nx\n\n"), false),
            (format!("{from}Content-Length: 2\n"), false),
            ("Content-Length: 2\n\nx\n\n".into(), false),
        ] {
            let found = has_separator(message.as_bytes(), message.len() as u64);
            assert_eq!(found, is_one, "{message:?}");
        }
    }

    #[test]
    fn a_message_with_a_from_line_names_its_sender() {
        let from = "From a@b.org Mon Jun 21 03:15:20 2004\n";
        for (message, wanted) in [
            (format!("{from}Subject: x\n\n"), Some("a@b.org")),
            (format!("{from}return-path: <o'c@b.org>\nA: 1\n\n"), Some("o'c@b.org")),
            (format!("{from}>From x\r\nReturn-Path: <\"a b\"@c.org>\r\n"), Some("\"a b\"@c.org")),
            (format!("{from}Return-Path: <>\n\n"), Some("")),
            // Of a stranger.
            (format!("{from}A: 1\nReturn-Path: <x@b.org>\n\n"), Some("a@b.org")),
            (format!("{from}\nReturn-Path: <x@b.org>\n\n"), Some("a@b.org")),
            ("Return-Path: <x@b.org>\n\n".into(), None),
            ("From here on\nReturn-Path: <x@b.org>\n\n".into(), None),
            (from.replace("a@b.org", "MAILER-DAEMON"), Some("")),
            (from.replace("a@b.org", "-"), None),
            (from.replace("a@b.org", "\"a b\"@c.org"), None),
            (String::new(), None),
        ] {
            assert_eq!(sender(message.as_bytes()).as_deref(), wanted, "{message}");
        }
    }
}
