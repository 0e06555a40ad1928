//! Commands: one line of the client, parsed (RFC 5321 section 4.1.1).

use base64ct::{Base64, Encoding};

use super::dsn::{self, EnvelopeId, Notify, OriginalRecipient, Ret};
use super::xclient::{self, Claim};
use super::{Body, Reply};
use crate::message::address::{self, Alphabet, Mailbox};
use crate::sasl::Secret;

/// The longest AUTH parameter of MAIL, as it is written (RFC 4954 section 5).
const MAX_AUTH: usize = 500;

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
    Rcpt {
        /// The forward-path.
        to: Mailbox,
        /// What stands behind it.
        parameters: RcptParameters,
    },
    /// `data = "DATA"`
    Data,
    /// `bdat = "BDAT" SP chunk-size [ SP "LAST" ]` (RFC 3030 section 2)
    Bdat(Chunk),
    /// `STARTTLS` (RFC 3207 section 4)
    StartTls,
    /// `auth-command = "AUTH" SP sasl-mech [SP initial-response]` (RFC 4954 section 8)
    Auth {
        /// The mechanism's name.
        mechanism: Vec<u8>,
        /// The initial response, decoded.
        initial: Option<Secret>,
    },
    /// `rset = "RSET"`
    Rset,
    /// `noop = "NOOP" [ SP String ]`
    Noop,
    /// `vrfy = "VRFY" SP String`
    Vrfy(Vec<u8>),
    /// `expn = "EXPN" SP String`
    Expn(Vec<u8>),
    /// [`xclient`]
    Xclient(Claim),
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

/// The extensions that not every session announces; what belongs to the others is unknown to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 3030 section 2.
    pub chunking: bool,
    /// RFC 3030 section 3.
    pub binarymime: bool,
    /// RFC 4954.
    pub auth: bool,
    /// Postfix's.
    pub xclient: bool,
}

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=n` (RFC 1870): the message's size in bytes, as the client thinks.
    pub size: Option<u64>,
    /// `BODY` (RFC 6152 section 3, RFC 3030 section 3).
    pub body: Body,
    /// `SMTPUTF8` (RFC 6531 section 3.4).
    pub utf8: bool,
    /// `RET` (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461 section 4.4).
    pub envelope_id: Option<EnvelopeId>,
}

/// The parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// `NOTIFY` (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
    /// `ORCPT` (RFC 3461 section 4.2).
    pub original: Option<OriginalRecipient>,
}

/// Parses a line without its end. Any address may have UTF-8: whether this transaction may is for
/// the session to say, with [`not_ascii`].
pub fn parse(line: &[u8], extensions: Extensions) -> Result<Command, Reply> {
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
        b"MAIL" => mail(argument, extensions),
        b"RCPT" => rcpt(argument),
        b"DATA" => none(Command::Data),
        b"BDAT" => bdat(argument),
        b"STARTTLS" => none(Command::StartTls),
        b"AUTH" => auth(argument),
        b"RSET" => none(Command::Rset),
        b"QUIT" => none(Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if argument.is_empty() => Err(syntax("VRFY address")),
        b"VRFY" => Ok(Command::Vrfy(argument.to_vec())),
        b"EXPN" if argument.is_empty() => Err(syntax("EXPN list")),
        b"EXPN" => Ok(Command::Expn(argument.to_vec())),
        b"XCLIENT" if extensions.xclient => {
            xclient::parse(argument).map(Command::Xclient).map_err(syntax)
        }
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
        address::Error::NotAscii => not_ascii(),
    }
}

/// To an address with UTF-8 where MAIL has not said SMTPUTF8 (RFC 6531 section 3.5).
pub fn not_ascii() -> Reply {
    Reply::new(553, "5.6.7", format!("Error: {}", address::Error::NotAscii))
}

/// Whom VRFY or EXPN asks for: an address, in angle brackets or not; a person's name is none. Behind it
/// may stand that the answer may have UTF-8, `SMTPUTF8` (RFC 6531 section 3.7.4.2).
pub fn asked_for(argument: &[u8]) -> Result<Mailbox, Reply> {
    let last = memchr::memrchr(b' ', argument).map(|at| argument.split_at(at));
    let utf8 = last.filter(|(_, word)| word.eq_ignore_ascii_case(b" SMTPUTF8"));
    let whom = utf8.map_or(argument, |(whom, _)| whom.trim_ascii_end());
    let inside = whom.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">"));
    let mailbox = address::mailbox(inside.unwrap_or(whom), Alphabet::Utf8);
    mailbox.map_err(|error| bad_address(error, "5.1.3"))
}

fn mail(argument: &[u8], extensions: Extensions) -> Result<Command, Reply> {
    let rest = after_word(argument, "FROM").ok_or_else(|| syntax("MAIL FROM:<address>"))?;
    let (from, rest) =
        address::path(rest, Alphabet::Utf8).map_err(|error| bad_address(error, "5.1.7"))?;
    let mut parameters = MailParameters::default();
    for parameter in esmtp_params(rest) {
        let (key, given) = parameter?;
        let value = given.unwrap_or_default();
        match key.to_ascii_uppercase().as_slice() {
            b"SIZE" => parameters.size = Some(size_value(value)?),
            b"BODY" => {
                let body = Body::parse(value);
                let known = body.filter(|b| extensions.binarymime || *b != Body::BinaryMime);
                parameters.body = known.ok_or_else(|| unknown_body(extensions))?;
            }
            b"SMTPUTF8" if given.is_none() => parameters.utf8 = true,
            b"SMTPUTF8" => return Err(syntax("SMTPUTF8 has no value")),
            // Who the message was from, in the words of a client that we need not believe: read, and
            // not repeated (RFC 4954 section 5).
            b"AUTH" if extensions.auth => {
                let is_known = value.len() <= MAX_AUTH && dsn::from_xtext(value).is_some();
                if !is_known {
                    return Err(syntax("AUTH=xtext or AUTH=<>"));
                }
            }
            b"RET" => {
                let ret = Ret::parse(value).ok_or_else(|| syntax("RET=FULL or RET=HDRS"))?;
                parameters.ret = Some(ret);
            }
            b"ENVID" => {
                let id = EnvelopeId::parse(value);
                parameters.envelope_id = Some(id.ok_or_else(|| syntax("ENVID=xtext"))?);
            }
            _ => return Err(unknown_parameter(key)),
        }
    }
    Ok(Command::Mail { from, parameters })
}

fn unknown_body(extensions: Extensions) -> Reply {
    let binary = if extensions.binarymime { ", BODY=BINARYMIME" } else { "" };
    syntax(&format!("BODY=7BIT, BODY=8BITMIME{binary}"))
}

fn rcpt(argument: &[u8]) -> Result<Command, Reply> {
    let rest = after_word(argument, "TO").ok_or_else(|| syntax("RCPT TO:<address>"))?;
    let (to, rest) =
        address::path(rest, Alphabet::Utf8).map_err(|error| bad_address(error, "5.1.3"))?;
    let mut parameters = RcptParameters::default();
    for parameter in esmtp_params(rest) {
        let (key, given) = parameter?;
        let value = given.unwrap_or_default();
        match key.to_ascii_uppercase().as_slice() {
            b"NOTIFY" => {
                let wrong = || syntax("NOTIFY=NEVER, or some of SUCCESS,FAILURE,DELAY");
                parameters.notify = Some(Notify::parse(value).ok_or_else(wrong)?);
            }
            b"ORCPT" => {
                let original = OriginalRecipient::parse(value, Alphabet::Utf8);
                parameters.original = Some(original.ok_or_else(|| syntax("ORCPT=type;xtext"))?);
            }
            _ => return Err(unknown_parameter(key)),
        }
    }
    let to = to.ok_or_else(|| syntax("RCPT TO:<address>; the null path can't receive"))?;
    Ok(Command::Rcpt { to, parameters })
}

fn auth(argument: &[u8]) -> Result<Command, Reply> {
    let mut words = words(argument);
    let wrong = || syntax("AUTH mechanism [initial-response]");
    let mechanism = words.next().ok_or_else(wrong)?.to_vec();
    // `initial-response = base64 / "="`: the sign is an empty one.
    let initial = match words.next() {
        None => None,
        Some(b"=") => Some(Secret(Vec::new())),
        Some(text) => Some(response(text)?),
    };
    if words.next().is_some() {
        return Err(wrong());
    }
    Ok(Command::Auth { mechanism, initial })
}

/// What a client says in an exchange of AUTH, decoded.
pub fn response(text: &[u8]) -> Result<Secret, Reply> {
    let text = std::str::from_utf8(text).ok();
    let decoded = text.and_then(|text| Base64::decode_vec(text).ok());
    decoded.map(Secret).ok_or_else(|| Reply::new(501, "5.5.2", "Error: base64 is wanted"))
}

/// Whether a line is for this command, right or wrong.
pub fn is_for(line: &[u8], command: &str) -> bool {
    let verb = line.split(|byte| !byte.is_ascii_alphanumeric()).next();
    verb.is_some_and(|verb| verb.eq_ignore_ascii_case(command.as_bytes()))
}

/// Whether a client has to wait for what is said to this line, right or wrong, as it decides what
/// the bytes behind it are (RFC 2920 section 3.1).
pub fn ends_group(line: &[u8]) -> bool {
    let verbs = ["HELO", "EHLO", "LHLO", "DATA", "STARTTLS", "AUTH", "XCLIENT"];
    verbs.iter().any(|verb| is_for(line, verb))
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

/// A keyword, and what stands behind its `=` where it has one.
type Parameter<'a> = (&'a [u8], Option<&'a [u8]>);

/// The parameters behind a path, each once at most (RFC 3461 section 4).
fn esmtp_params(text: &[u8]) -> impl Iterator<Item = Result<Parameter<'_>, Reply>> {
    let mut seen: Vec<&[u8]> = Vec::new();
    words(text).map(move |word| {
        let (key, value) = esmtp_param(word)?;
        if seen.iter().any(|other| other.eq_ignore_ascii_case(key)) {
            return Err(syntax("each parameter once"));
        }
        seen.push(key);
        Ok((key, value))
    })
}

/// `esmtp-param = esmtp-keyword ["=" esmtp-value]`
fn esmtp_param(word: &[u8]) -> Result<Parameter<'_>, Reply> {
    let (key, value) = match memchr::memchr(b'=', word) {
        Some(at) => {
            let (key, value) = word.split_at(at);
            (key, Some(value.get(1..).unwrap_or_default()))
        }
        None => (word, None),
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
mod tests;
