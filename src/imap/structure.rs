//! The structure of a message as FETCH gives it: ENVELOPE, BODY and BODYSTRUCTURE (RFC 9051 section
//! 7.5.2, RFC 3501 section 7.4.2).

use super::reply::{nstring, string};
use crate::message::structure::{
    Address, Content, Disposition, Envelope, Parameter, Part, Structure,
};

/// What stands for a domain that an address lacks, as Dovecot writes it: no domain at all is the
/// mark of a group, and clients know this word.
const NO_HOST: &[u8] = b"MISSING_DOMAIN";
/// What stands for a local part that an address lacks.
const NO_MAILBOX: &[u8] = b"MISSING_MAILBOX";
/// A part that a multipart must have (RFC 9051: `body-type-mpart = 1*body SP media-subtype`) where
/// there is none.
const NO_PART: &[u8] = b"(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// RFC 3501.
    One,
    /// RFC 9051. Only here message/global is told as message/rfc822 is.
    Two,
}

/// Appends an envelope.
///
/// ```text
/// envelope = "(" env-date SP env-subject SP env-from SP env-sender SP env-reply-to SP env-to SP
///            env-cc SP env-bcc SP env-in-reply-to SP env-message-id ")"
/// ```
pub fn envelope_text(envelope: &Envelope, out: &mut Vec<u8>) {
    let or_from = |list| if <[Address]>::is_empty(list) { &envelope.from[..] } else { list };
    out.push(b'(');
    nstring(envelope.date.as_deref(), out);
    out.push(b' ');
    nstring(envelope.subject.as_deref(), out);
    for list in [
        &envelope.from[..],
        or_from(&envelope.sender),
        or_from(&envelope.reply_to),
        &envelope.to,
        &envelope.cc,
        &envelope.bcc,
    ] {
        out.push(b' ');
        addresses(list, out);
    }
    for text in [&envelope.in_reply_to, &envelope.message_id] {
        out.push(b' ');
        nstring(text.as_deref(), out);
    }
    out.push(b')');
}

/// `"(" 1*address ")" / nil`
fn addresses(list: &[Address], out: &mut Vec<u8>) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for address in list {
        let or = |text: &Option<Vec<u8>>, missing: &'static [u8]| match text.as_deref() {
            Some([]) => Some(missing.to_vec()),
            text => text.map(<[u8]>::to_vec),
        };
        // The mark of a group may have an empty name.
        let mailbox = match address.host {
            Some(_) => or(&address.mailbox, NO_MAILBOX),
            None => address.mailbox.clone(),
        };
        let host = or(&address.host, NO_HOST);
        let all = [&address.name, &address.route, &mailbox, &host];
        for (n, text) in all.into_iter().enumerate() {
            out.push(if n == 0 { b'(' } else { b' ' });
            nstring(text.as_deref(), out);
        }
        out.push(b')');
    }
    out.push(b')');
}

/// Appends the structure of a message: BODYSTRUCTURE where `extensible`, else BODY.
pub fn body_text(structure: &Structure, extensible: bool, revision: Revision, out: &mut Vec<u8>) {
    body(&structure.root, extensible, revision, out);
}

/// `body = "(" (body-type-1part / body-type-mpart) ")"`
fn body(part: &Part, extensible: bool, revision: Revision, out: &mut Vec<u8>) {
    out.push(b'(');
    if let Content::Multipart(parts) = &part.content {
        for child in parts {
            body(child, extensible, revision, out);
        }
        if parts.is_empty() {
            out.extend_from_slice(NO_PART);
            out.extend_from_slice(if extensible { b" NIL NIL NIL NIL)" } else { b")" });
        }
        out.push(b' ');
        string(&part.subtype, out);
        if extensible {
            out.push(b' ');
            parameters(&part.parameters, out);
        }
    } else {
        single(part, extensible, revision, out);
        if extensible {
            out.push(b' ');
            nstring(part.md5.as_deref(), out);
        }
    }
    if extensible {
        out.push(b' ');
        disposition(part.disposition.as_ref(), out);
        out.push(b' ');
        languages(&part.languages, out);
        out.push(b' ');
        nstring(part.location.as_deref(), out);
    }
    out.push(b')');
}

/// `body-type-1part = (body-type-basic / body-type-msg / body-type-text)`, without extensions.
fn single(part: &Part, extensible: bool, revision: Revision, out: &mut Vec<u8>) {
    string(&part.kind, out);
    out.push(b' ');
    string(&part.subtype, out);
    out.push(b' ');
    let has_charset = part.parameters.iter().any(|p| p.name.eq_ignore_ascii_case(b"charset"));
    if part.content == Content::Text && !has_charset {
        let charset = Parameter { name: b"charset".to_vec(), value: b"us-ascii".to_vec() };
        let all: Vec<_> = part.parameters.iter().cloned().chain([charset]).collect();
        parameters(&all, out);
    } else {
        parameters(&part.parameters, out);
    }
    out.push(b' ');
    nstring(part.id.as_deref(), out);
    out.push(b' ');
    nstring(part.description.as_deref(), out);
    out.push(b' ');
    string(part.encoding.as_deref().unwrap_or(b"7bit"), out);
    number(part.end.saturating_sub(part.body), out);
    match &part.content {
        Content::Text => number(part.lines, out),
        Content::Message(message)
            if revision == Revision::Two || part.subtype.eq_ignore_ascii_case(b"rfc822") =>
        {
            out.push(b' ');
            envelope_text(&message.envelope, out);
            out.push(b' ');
            body(&message.root, extensible, revision, out);
            number(part.lines, out);
        }
        _ => {}
    }
}

fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(" {number}").as_bytes());
}

/// `body-fld-param = "(" string SP string *(SP string SP string) ")" / nil`
fn parameters(parameters: &[Parameter], out: &mut Vec<u8>) {
    if parameters.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    for (n, parameter) in parameters.iter().enumerate() {
        out.push(if n == 0 { b'(' } else { b' ' });
        string(&parameter.name, out);
        out.push(b' ');
        string(&parameter.value, out);
    }
    out.push(b')');
}

/// `body-fld-dsp = "(" string SP body-fld-param ")" / nil`
fn disposition(disposition: Option<&Disposition>, out: &mut Vec<u8>) {
    let Some(disposition) = disposition else {
        return out.extend_from_slice(b"NIL");
    };
    out.push(b'(');
    string(&disposition.value, out);
    out.push(b' ');
    parameters(&disposition.parameters, out);
    out.push(b')');
}

/// `body-fld-lang = nstring / "(" string *(SP string) ")"`
fn languages(languages: &[Vec<u8>], out: &mut Vec<u8>) {
    if languages.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    for (n, language) in languages.iter().enumerate() {
        out.push(if n == 0 { b'(' } else { b' ' });
        string(language, out);
    }
    out.push(b')');
}

#[cfg(test)]
#[path = "structure_tests.rs"]
mod tests;
