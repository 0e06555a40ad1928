//! Commands of SMTP and their arguments: what is understood can be written, and is understood the
//! same then; what is not gets a reply that is one.

use std::fmt::{self, Write};

use hikyaku::message::address::{Alphabet, Mailbox};
use hikyaku::sasl::Secret;
use hikyaku::smtp::command::{
    Command, Extensions, MailParameters, RcptParameters, asked_for, parse,
};
use hikyaku::smtp::dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};
use hikyaku::smtp::xclient::{self, Claim, Known};
use hikyaku::smtp::{Body, Reply};

use base64ct::{Base64, Encoding};

const ORIGIN: &str = "here.example";
const ALL: Extensions = Extensions { chunking: true, binarymime: true, auth: true, xclient: true };

pub fn check(input: &[u8]) {
    check_values(input);
    check_claim(input);
    check_asked_for(input);
    // An extension makes more of the lines commands, and no command another one.
    let plain = parse(input, Extensions::default());
    let command = parse(input, ALL);
    if let Err(refusal) = &plain {
        check_refusal(refusal);
    } else {
        assert_eq!(plain, command);
    }
    let command = match command {
        Ok(command) => command,
        Err(refusal) => return check_refusal(&refusal),
    };
    check_command(&command);
    let line = written(&command);
    let again = parse(&line, ALL).unwrap_or_else(|reply| panic!("{reply}: {}", shown(&line)));
    assert_eq!(shown(&written(&again)), shown(&line));
}

fn shown(line: &[u8]) -> String {
    line.escape_ascii().to_string()
}

/// The values of parameters.
fn check_values(input: &[u8]) {
    if let Some(id) = EnvelopeId::parse(input) {
        assert!(is_printable(id.as_str()) && id.to_string().len() <= 100);
        assert_eq!(EnvelopeId::parse(id.to_string().as_bytes()), Some(id));
    }
    let ascii = OriginalRecipient::parse(input, Alphabet::Ascii);
    let utf8 = OriginalRecipient::parse(input, Alphabet::Utf8);
    assert!(ascii.is_none() || (ascii == utf8 && input.is_ascii()));
    if let Some(original) = utf8 {
        let written = original.to_string();
        assert!(is_printable(&written) && !written.contains(' ') && written.len() <= 500);
        assert!(is_printable(original.kind()));
        assert!(!original.address().is_empty() && !original.address().contains(char::is_control));
        assert_eq!(OriginalRecipient::parse(written.as_bytes(), Alphabet::Ascii), Some(original));
    }
    if let Some(notify) = Notify::parse(input) {
        assert_eq!(Notify::parse(notify.to_string().as_bytes()), Some(notify));
    }
    if let Some(ret) = Ret::parse(input) {
        assert_eq!(Ret::parse(ret.to_string().as_bytes()), Some(ret));
    }
    if let Some(body) = Body::parse(input) {
        assert_eq!(Body::parse(body.to_string().as_bytes()), Some(body));
    }
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn check_claim(input: &[u8]) {
    let Ok(claim) = xclient::parse(input) else {
        return;
    };
    for said in [&claim.name, &claim.helo, &claim.login] {
        let text = said.clone().and_then(Known::value);
        assert!(text.is_none_or(|text| is_printable(&text) && text.len() <= 255));
    }
    let address = claim.address.clone().and_then(Known::value);
    assert!(address.is_none_or(|address| address == address.to_canonical()), "{address:?}");
    let line = said(&claim);
    // Who says nothing of what is understood says a port only.
    let line = if line.is_empty() { " PORT=0".into() } else { line };
    assert_eq!(xclient::parse(line.as_bytes()), Ok(claim), "{line}");
}

fn check_asked_for(input: &[u8]) {
    match asked_for(input) {
        Ok(mailbox) => {
            let path = path(&mailbox);
            let again = asked_for(path.as_bytes()).unwrap();
            assert_eq!(again.or_domain("other.example"), mailbox.or_domain(ORIGIN));
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

fn check_refusal(refusal: &Reply) {
    let line = refusal.to_string();
    assert!((500..=599).contains(&refusal.code()) && is_printable(&line), "{line}");
    assert!(line.len() <= 510, "{line}");
    assert_eq!(Reply::parse_refusal(&line).as_ref(), Some(refusal));
}

/// What the session repeats, or stores.
fn check_command(command: &Command) {
    match command {
        Command::Ehlo(name) | Command::Helo(name) | Command::Lhlo(name) => {
            assert!(is_printable(name) && !name.contains(' ') && name.len() <= 255);
        }
        Command::Mail { from: Some(mailbox), .. } | Command::Rcpt { to: mailbox, .. } => {
            let address = path(mailbox);
            assert!(!address.contains(char::is_control), "{address:?}");
        }
        _ => {}
    }
}

fn path(mailbox: &Mailbox) -> String {
    format!("<{}>", mailbox.clone().or_domain(ORIGIN))
}

/// A line that says the same.
fn written(command: &Command) -> Vec<u8> {
    let line = match command {
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Helo(name) => format!("HELO {name}"),
        Command::Lhlo(name) => format!("LHLO {name}"),
        Command::Mail { from, parameters } => {
            let from = from.as_ref().map_or("<>".into(), path);
            format!("MAIL FROM:{from}{}", mail_parameters(parameters))
        }
        Command::Rcpt { to, parameters } => {
            format!("RCPT TO:{}{}", path(to), rcpt_parameters(parameters))
        }
        Command::Data => "DATA".into(),
        Command::Bdat(chunk) => {
            format!("BDAT {}{}", chunk.size, if chunk.last { " LAST" } else { "" })
        }
        Command::StartTls => "STARTTLS".into(),
        Command::Auth { mechanism, initial } => {
            let initial = match initial {
                None => String::new(),
                Some(Secret(bytes)) if bytes.is_empty() => " =".into(),
                Some(Secret(bytes)) => format!(" {}", Base64::encode_string(bytes)),
            };
            return [b"AUTH ", &mechanism[..], initial.as_bytes()].concat();
        }
        Command::Rset => "RSET".into(),
        Command::Noop => "NOOP".into(),
        Command::Vrfy(whom) => return [b"VRFY ", &whom[..]].concat(),
        Command::Expn(list) => return [b"EXPN ", &list[..]].concat(),
        Command::Xclient(claim) if *claim == Claim::default() => "XCLIENT PORT=0".into(),
        Command::Xclient(claim) => format!("XCLIENT{}", said(claim)),
        Command::Help => "HELP".into(),
        Command::Quit => "QUIT".into(),
    };
    line.into_bytes()
}

fn mail_parameters(parameters: &MailParameters) -> String {
    let MailParameters { size, body, utf8, ret, envelope_id } = parameters;
    let mut line = format!(" BODY={body}{}", if *utf8 { " SMTPUTF8" } else { "" });
    parameter(&mut line, "SIZE", size.as_ref());
    parameter(&mut line, "RET", ret.as_ref());
    parameter(&mut line, "ENVID", envelope_id.as_ref());
    line
}

fn rcpt_parameters(parameters: &RcptParameters) -> String {
    let RcptParameters { notify, original } = parameters;
    let mut line = String::new();
    parameter(&mut line, "NOTIFY", notify.as_ref());
    parameter(&mut line, "ORCPT", original.as_ref());
    line
}

fn parameter(line: &mut String, key: &str, value: Option<&impl fmt::Display>) {
    if let Some(value) = value {
        let _ = write!(line, " {key}={value}");
    }
}

/// The attributes of XCLIENT.
fn said(claim: &Claim) -> String {
    let Claim { name, address, helo, login, extended } = claim;
    let mut line = String::new();
    attribute(&mut line, "NAME", name.as_ref());
    attribute(&mut line, "ADDR", address.as_ref());
    attribute(&mut line, "HELO", helo.as_ref());
    attribute(&mut line, "LOGIN", login.as_ref());
    let protocol = extended.map(|extended| if extended { "ESMTP" } else { "SMTP" });
    parameter(&mut line, "PROTO", protocol.as_ref());
    line
}

fn attribute(line: &mut String, name: &str, said: Option<&Known<impl ToString>>) {
    let value = match said {
        None => return,
        Some(Known::Not) => "[UNAVAILABLE]".into(),
        Some(Known::As(value)) => xtext(&value.to_string()),
    };
    let _ = write!(line, " {name}={value}");
}

/// All of it encoded.
fn xtext(text: &str) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "+{byte:02X}");
        text
    })
}
