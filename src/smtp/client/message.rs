//! An envelope in a client's words: MAIL and RCPT with what the server knows of their parameters.

use std::fmt::Write as _;

use crate::message::Address;
use crate::smtp::dsn::{EnvelopeId, Ret};
use crate::smtp::reply::Answer;
use crate::smtp::{Body, Recipient};

/// An envelope, and what the server wants to know about the text before it comes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The reverse-path; `None` is the null path.
    pub sender: Option<&'a Address>,
    /// The forward-paths.
    pub recipients: &'a [&'a Recipient],
    /// What the text may be made of.
    pub body: Body,
    /// Whether it is for servers with SMTPUTF8 only (RFC 6531).
    pub utf8: bool,
    /// `RET` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461).
    pub envelope_id: Option<&'a EnvelopeId>,
    /// The text's size in bytes, with CRLF line ends and before dots are stuffed (RFC 1870
    /// section 5).
    pub size: u64,
}

impl Message<'_> {
    /// Why a server with these extensions can't be given the message, whoever it is for.
    pub(super) fn misfit(&self, offers: impl Fn(&str) -> bool) -> Option<Answer> {
        if self.utf8 && !offers("SMTPUTF8") {
            // RFC 6531 section 3.2.
            let text = "5.6.7 the message needs SMTPUTF8, which the server does not offer";
            return Some(Answer::new(553, text));
        }
        let is_binary = self.body == Body::BinaryMime;
        if is_binary && !(offers("BINARYMIME") && offers("CHUNKING")) {
            // RFC 3030 section 3.
            let text = "5.6.3 the message needs BINARYMIME, which the server does not offer";
            return Some(Answer::new(554, text));
        }
        None
    }

    /// `mail = "MAIL FROM:" Reverse-path [SP Mail-parameters]`, without its line end.
    pub fn mail(&self, offers: impl Fn(&str) -> bool) -> String {
        let sender = self.sender.map(Address::to_string).unwrap_or_default();
        let mut line = format!("MAIL FROM:<{sender}>");
        // Writing to a String can't fail.
        if offers("SIZE") {
            let _ = write!(line, " SIZE={}", self.size);
        }
        // Where 8BITMIME is not offered, the text goes as it is: nearly every server takes it, and
        // converting it would break signatures. A choice against RFC 6152 section 3.
        match self.body {
            Body::EightBitMime if !offers("8BITMIME") => {}
            Body::SevenBit => {}
            body => {
                let _ = write!(line, " BODY={body}");
            }
        }
        if self.utf8 {
            line.push_str(" SMTPUTF8");
        }
        if let Some(ret) = self.ret.filter(|_| offers("DSN")) {
            let _ = write!(line, " RET={ret}");
        }
        if let Some(id) = self.envelope_id.filter(|_| offers("DSN")) {
            let _ = write!(line, " ENVID={id}");
        }
        line
    }

    /// `rcpt = "RCPT TO:" Forward-path [SP Rcpt-parameters]`, without its line end.
    pub fn rcpt(recipient: &Recipient, offers: impl Fn(&str) -> bool) -> String {
        let Recipient { address, notify, original } = recipient;
        let mut line = format!("RCPT TO:<{address}>");
        if let Some(notify) = notify.filter(|_| offers("DSN")) {
            let _ = write!(line, " NOTIFY={notify}");
        }
        if let Some(original) = original.as_ref().filter(|_| offers("DSN")) {
            let _ = write!(line, " ORCPT={original}");
        }
        line
    }
}
