//! Commands: one line of the client, parsed (RFC 5321 section 4.1.1).

use super::Reply;
use crate::message::address::{self, Mailbox};

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ehlo = "EHLO" SP ( Domain / address-literal )`
    Ehlo(String),
    /// `helo = "HELO" SP Domain`
    Helo(String),
    /// RFC 2033 section 4.1.
    Lhlo(String),
    /// `mail = "MAIL FROM:" Reverse-path [SP Mail-parameters]`
    Mail {
        /// `None` is the null path.
        from: Option<Mailbox>,
        /// What stands behind the path.
        parameters: MailParameters,
    },
    /// `rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path )`
    Rcpt(Mailbox),
    /// `data = "DATA"`
    Data,
    /// `bdat = "BDAT" SP chunk-size [ SP "LAST" ]` (RFC 3030 section 2)
    Bdat(Chunk),
    /// `STARTTLS` (RFC 3207 section 4)
    StartTls,
    /// `rset = "RSET"`
    Rset,
    /// `noop = "NOOP" [ SP String ]`
    Noop,
    /// `vrfy = "VRFY" SP String`
    Vrfy,
    /// `expn = "EXPN" SP String`
    Expn,
    /// `help = "HELP" [ SP String ]`
    Help,
    /// `quit = "QUIT"`
    Quit,
}

/// A chunk of text that follows its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes.
    pub size: u64,
    /// Whether the message is whole with it.
    pub last: bool,
}

/// The parameters of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=n` (RFC 1870): the message's size in bytes, as the client thinks.
    pub size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
}

/// Parses a line without its end.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    if line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(Reply::new(500, "5.5.2", "Error: control character in the command"));
    }
    let line = line.trim_ascii_end();
    let (verb, argument) = match memchr::memchr(b' ', line) {
        Some(at) => {
            let (verb, rest) = line.split_at(at);
            (verb, rest.trim_ascii_start())
        }
        None => (line, &[] as &[u8]),
    };
    let none = |command| match argument {
        [] => Ok(command),
        _ => Err(syntax("this command takes no argument")),
    };
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO" => name(argument).map(Command::Ehlo),
        b"HELO" => name(argument).map(Command::Helo),
        b"LHLO" => name(argument).map(Command::Lhlo),
        b"MAIL" => mail(argument),
        b"RCPT" => rcpt(argument),
        b"DATA" => none(Command::Data),
        b"BDAT" => bdat(argument),
        b"STARTTLS" => none(Command::StartTls),
        b"RSET" => none(Command::Rset),
        b"QUIT" => none(Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if argument.is_empty() => Err(syntax("VRFY address")),
        b"VRFY" => Ok(Command::Vrfy),
        b"EXPN" if argument.is_empty() => Err(syntax("EXPN list")),
        b"EXPN" => Ok(Command::Expn),
        _ => Err(Reply::new(500, "5.5.2", "Error: command not recognized")),
    }
}

fn syntax(text: &str) -> Reply {
    Reply::new(501, "5.5.4", format!("Syntax: {text}"))
}

/// What a client calls itself. Quirk: anything printable is taken, as clients behind NAT and on
/// desktops call themselves all kinds of names; it is only ever repeated, never believed.
fn name(argument: &[u8]) -> Result<String, Reply> {
    let valid = (1..=address::MAX_DOMAIN).contains(&argument.len())
        && argument.iter().all(u8::is_ascii_graphic);
    if !valid {
        return Err(syntax("HELO hostname"));
    }
    Ok(String::from_utf8_lossy(argument).into_owned())
}

fn after_word<'a>(argument: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (start, rest) = argument.split_at_checked(word.len())?;
    let rest = start.eq_ignore_ascii_case(word.as_bytes()).then_some(rest)?;
    // Quirk: spaces before the colon.
    rest.trim_ascii_start().strip_prefix(b":")
}

fn bad_address(error: address::Error, enhanced: &'static str) -> Reply {
    match error {
        address::Error::Syntax | address::Error::TooLong => {
            Reply::new(501, enhanced, format!("Bad address syntax: {error}"))
        }
        address::Error::NotAscii => Reply::new(553, "5.6.7", format!("Error: {error}")),
    }
}

fn mail(argument: &[u8]) -> Result<Command, Reply> {
    let rest = after_word(argument, "FROM").ok_or_else(|| syntax("MAIL FROM:<address>"))?;
    let (from, rest) = address::path(rest).map_err(|error| bad_address(error, "5.1.7"))?;
    let mut parameters = MailParameters::default();
    for word in words(rest) {
        let (key, value) = esmtp_param(word)?;
        match key.to_ascii_uppercase().as_slice() {
            b"SIZE" => parameters.size = Some(size_value(value)?),
            b"BODY" if value.eq_ignore_ascii_case(b"8BITMIME") => parameters.eight_bit = true,
            b"BODY" if value.eq_ignore_ascii_case(b"7BIT") => {}
            b"BODY" => return Err(syntax("BODY=7BIT or BODY=8BITMIME")),
            _ => return Err(unknown_parameter(key)),
        }
    }
    Ok(Command::Mail { from, parameters })
}

fn rcpt(argument: &[u8]) -> Result<Command, Reply> {
    let rest = after_word(argument, "TO").ok_or_else(|| syntax("RCPT TO:<address>"))?;
    let (to, rest) = address::path(rest).map_err(|error| bad_address(error, "5.1.3"))?;
    if let Some(word) = words(rest).next() {
        return Err(unknown_parameter(esmtp_param(word)?.0));
    }
    to.map(Command::Rcpt).ok_or_else(|| syntax("RCPT TO:<address>; the null path can't receive"))
}

fn bdat(argument: &[u8]) -> Result<Command, Reply> {
    let mut words = words(argument);
    let wrong = || syntax("BDAT size [LAST]");
    let size = size_value(words.next().ok_or_else(wrong)?)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(wrong()),
    };
    if words.next().is_some() {
        return Err(wrong());
    }
    Ok(Command::Bdat(Chunk { size, last }))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// `esmtp-param = esmtp-keyword ["=" esmtp-value]`
fn esmtp_param(word: &[u8]) -> Result<(&[u8], &[u8]), Reply> {
    let (key, value) = match memchr::memchr(b'=', word) {
        Some(at) => {
            let (key, value) = word.split_at(at);
            (key, value.get(1..).unwrap_or_default())
        }
        None => (word, &[] as &[u8]),
    };
    let keyword = key.first().is_some_and(u8::is_ascii_alphanumeric)
        && key.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    if keyword { Ok((key, value)) } else { Err(syntax("KEYWORD=value behind the address")) }
}

/// `size-value = 1*20DIGIT` (RFC 1870 section 3)
fn size_value(value: &[u8]) -> Result<u64, Reply> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()));
    // 20 digits may be more than fits; no message is that large.
    digits.map(|text| text.parse().unwrap_or(u64::MAX)).ok_or_else(|| syntax("SIZE=number"))
}

fn unknown_parameter(key: &[u8]) -> Reply {
    let text = format!("Unsupported option: {}", String::from_utf8_lossy(key));
    Reply::new(555, "5.5.4", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_in_any_letter_case() {
        for (line, wanted) in [
            ("noop x y", Command::Noop),
            ("QuIt ", Command::Quit),
            ("ehlo  a.b", Command::Ehlo("a.b".into())),
            ("HELP me", Command::Help),
            ("bdat 5 last", Command::Bdat(Chunk { size: 5, last: true })),
            ("BDAT 0", Command::Bdat(Chunk { size: 0, last: false })),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(wanted));
        }
        let Ok(Command::Mail { from: Some(from), parameters }) =
            parse(b"mail from: <a@b> size=10 body=8bitmime")
        else {
            panic!("no MAIL");
        };
        assert_eq!(from.or_domain("x").to_string(), "a@b");
        assert_eq!(parameters, MailParameters { size: Some(10), eight_bit: true });
    }

    #[test]
    fn bad_lines_get_the_code_of_their_kind() {
        for (line, code) in [
            (&b""[..], 500),
            (b"FOO", 500),
            (b"NO\0OP", 500),
            (b"HELO", 501),
            (b"HELO a b", 501),
            (b"MAIL", 501),
            (b"MAIL FROM", 501),
            (b"MAIL TO:<a@b>", 501),
            (b"MAIL FROM:<a@b", 501),
            (b"MAIL FROM:<a@b> SIZE=x", 501),
            (b"MAIL FROM:<a@b> FOO=1", 555),
            (b"MAIL FROM:<\xc3\xa9@b>", 553),
            (b"RCPT TO:<>", 501),
            (b"RCPT TO:<a@b> NOTIFY=NEVER", 555),
            (b"RCPT TO:a b c", 555),
            (b"DATA x", 501),
            (b"STARTTLS x", 501),
            (b"VRFY", 501),
            (b"BDAT", 501),
            (b"BDAT -1", 501),
            (b"BDAT 1 FIRST", 501),
            (b"BDAT 1 LAST x", 501),
        ] {
            let reply = parse(line).unwrap_err();
            assert_eq!(reply.code(), code, "{:?}", line.escape_ascii().to_string());
        }
    }
}
