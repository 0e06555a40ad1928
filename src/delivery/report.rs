//! The report to a sender on what became of a message (RFC 3461 to 3464).
//!
//! A multipart/report of three parts: a text for the person, the facts for programs, and the
//! returned message's header, or where its sender wants that, all of it. Its reverse-path is null, so
//! that a report never causes a report. Where an address has UTF-8, the parts are those of RFC 6533.

use std::fmt::Write as _;
use std::io;

use super::fate::Remote;
use crate::message::{Address, date};
use crate::queue::{Envelope, Id, Inlet, Origin};
use crate::smtp::Body;
use crate::sys::clock;
use crate::text::line;

/// How much of the returned message's header is returned.
pub const MAX_HEADER: usize = 64 * 1024;
/// The largest message that is returned whole.
pub const MAX_WHOLE: usize = 1 << 20;

/// What is reported (RFC 3464 section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The message is given up for these recipients.
    Failed,
    /// It waits, and will be tried again.
    Delayed,
    /// It is in the mailbox.
    Delivered,
    /// It was sent on, to where nothing more will be reported from.
    Relayed,
    /// It was sent on to the several members of an alias.
    Expanded,
}

/// A recipient, and what became of the message there.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// Who.
    pub address: Address,
    /// Whom the sender meant, as `type;address` (`ORCPT`, RFC 3461 section 4.2).
    pub original: Option<String>,
    /// Enhanced status code (RFC 3463).
    pub code: String,
    /// Why, in words.
    pub text: String,
    /// The words of another host, where it was that host's decision.
    pub remote: Option<Remote>,
}

/// The message that is reported on.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// This host.
    pub hostname: &'a str,
    /// Its queue id, where it was in the queue.
    pub id: Option<&'a Id>,
    /// What its sender calls it (`ENVID`, RFC 3461 section 4.4).
    pub envelope_id: Option<&'a str>,
    /// Its envelope's sender, who gets the report.
    pub sender: &'a Address,
    /// When it arrived, seconds since 1970.
    pub arrived: u64,
    /// What is reported.
    pub action: Action,
    /// Of whom.
    pub recipients: &'a [Recipient],
    /// The start of its text, [`MAX_HEADER`] bytes at most.
    pub text: &'a [u8],
    /// The text is all of it, and is all returned (`RET=FULL`, RFC 3461 section 4.3).
    pub whole: bool,
}

impl Report<'_> {
    /// Puts the report into the queue.
    pub fn enqueue(&self, inlet: &Inlet) -> io::Result<Id> {
        let now = clock::now();
        let envelope = Envelope {
            arrived: clock::seconds(),
            origin: Origin::Local,
            sender: None,
            body: if self.is_eight_bit() { Body::EightBitMime } else { Body::SevenBit },
            utf8: !self.sender.is_ascii(),
            ret: None,
            envelope_id: None,
            recipients: vec![self.sender.clone().into()],
        };
        let mut draft = inlet.create(Id::new()?, &envelope)?;
        let message = self.message(draft.id(), &now);
        draft.write(&message)?;
        draft.commit()
    }

    /// Whether the report's facts have UTF-8 (RFC 6533).
    fn is_global(&self) -> bool {
        let of = |to: &Recipient| {
            !to.address.is_ascii() || to.original.as_ref().is_some_and(|to| !to.is_ascii())
        };
        !self.sender.is_ascii() || self.recipients.iter().any(of)
    }

    fn is_eight_bit(&self) -> bool {
        self.is_global() || !self.returned().is_ascii()
    }

    /// What is returned of the message.
    fn returned(&self) -> &[u8] {
        if self.whole { self.text } else { self.header() }
    }

    /// The message's header, as far as it is returned.
    fn header(&self) -> &[u8] {
        let text = self.text.get(..MAX_HEADER).unwrap_or(self.text);
        match memchr::memmem::find(text, b"\r\n\r\n") {
            Some(end) => text.get(..end + 2).unwrap_or(text),
            None => match memchr::memrchr(b'\n', text) {
                Some(end) => text.get(..=end).unwrap_or(text),
                None => &[],
            },
        }
    }

    /// The message, with CRLF line ends.
    pub fn message(&self, own_id: &Id, now: &jiff::ZonedDateTime) -> Vec<u8> {
        let Self { hostname, sender, .. } = self;
        // Not in the returned header: its writer could not know our id.
        let boundary = format!("{own_id}/{hostname}");
        let date = date::rfc5322(now);
        let (subject, action, what) = match self.action {
            Action::Failed => (
                "Undelivered Mail Returned to Sender",
                "failed",
                "Your message could not be delivered to one or more recipients.",
            ),
            Action::Delayed => (
                "Delayed Mail (still being retried)",
                "delayed",
                "Your message could not be delivered yet. You do not need to send it\nagain: it \
                 will be tried until it is delivered or too old.",
            ),
            Action::Delivered => (
                "Successful Mail Delivery Report",
                "delivered",
                "Your message was put into the mailbox of the recipient.",
            ),
            Action::Relayed => (
                "Successful Mail Delivery Report",
                "relayed",
                "Your message was sent on as the recipient wished. You will hear no more of it\n\
                 unless that fails.",
            ),
            Action::Expanded => (
                "Successful Mail Delivery Report",
                "expanded",
                "Your message was sent on to everybody for whom this address stands. You will\n\
                 hear no more of it unless that fails.",
            ),
        };
        let encoding = if self.is_eight_bit() { "8bit" } else { "7bit" };
        let attached = if self.whole { "Your message" } else { "The header of your message" };
        let is_global = self.is_global();
        let (charset, status, kind) = if is_global {
            ("utf-8", "message/global-delivery-status", "utf-8")
        } else {
            ("us-ascii", "message/delivery-status", "rfc822")
        };
        // Addresses and what they were before have no control characters, whatever else they have.
        let address_text = |text: &str| if is_global { text.to_owned() } else { printable(text) };
        let mut text = format!(
            "Date: {date}\n\
             From: Mail Delivery System <MAILER-DAEMON@{hostname}>\n\
             To: <{sender}>\n\
             Subject: {subject}\n\
             Message-ID: <{own_id}@{hostname}>\n\
             Auto-Submitted: auto-replied\n\
             MIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status;\n\
             \tboundary=\"{boundary}\"\n\
             Content-Transfer-Encoding: {encoding}\n\
             \n\
             This is a MIME-encapsulated message.\n\
             \n\
             --{boundary}\n\
             Content-Description: Notification\n\
             Content-Type: text/plain; charset={charset}\n\
             Content-Transfer-Encoding: {encoding}\n\
             \n\
             This is the mail system at host {hostname}.\n\
             \n\
             {what}\n\
             {attached} is attached below.\n\n"
        );
        for Recipient { address, text: why, .. } in self.recipients {
            let _ = writeln!(text, "<{address}>: {}\n", printable(why));
        }
        let arrived = clock::at(self.arrived).map(|time| date::rfc5322(&time));
        let _ = write!(
            text,
            "--{boundary}\n\
             Content-Description: Delivery report\n\
             Content-Type: {status}\n\
             Content-Transfer-Encoding: {encoding}\n\
             \n\
             Reporting-MTA: dns; {hostname}\n"
        );
        if let Some(id) = self.envelope_id {
            let _ = writeln!(text, "Original-Envelope-Id: {}", printable(id));
        }
        if let Some(id) = self.id {
            let _ = writeln!(text, "X-Hikyaku-Queue-ID: {id}");
        }
        if let Some(arrived) = arrived {
            let _ = writeln!(text, "Arrival-Date: {arrived}");
        }
        let succeeded = !matches!(self.action, Action::Failed | Action::Delayed);
        for Recipient { address, original, code, text: why, remote } in self.recipients {
            text.push('\n');
            if let Some((kind, address)) = original.as_ref().and_then(|o| o.split_once(';')) {
                let (kind, address) = (printable(kind), address_text(address));
                let _ = writeln!(text, "Original-Recipient: {kind}; {address}");
            }
            let _ = write!(
                text,
                "Final-Recipient: {kind}; {address}\n\
                 Action: {action}\n\
                 Status: {code}\n"
            );
            let _ = match remote {
                Some(Remote { host, reply }) => write!(
                    text,
                    "Remote-MTA: dns; {}\nDiagnostic-Code: smtp; {}\n",
                    printable(host),
                    printable(reply)
                ),
                None if succeeded => Ok(()),
                None => writeln!(text, "Diagnostic-Code: X-Hikyaku; {}", printable(why)),
            };
        }
        let (description, media) = match (self.whole, is_global) {
            (true, false) => ("Undelivered Message", "message/rfc822"),
            (true, true) => ("Undelivered Message", "message/global"),
            (false, false) => ("Message Headers", "text/rfc822-headers"),
            (false, true) => ("Message Headers", "message/global-headers"),
        };
        let _ = write!(
            text,
            "\n--{boundary}\n\
             Content-Description: {description}\n\
             Content-Type: {media}\n\
             Content-Transfer-Encoding: {encoding}\n\n"
        );
        let mut message = text.replace('\n', "\r\n").into_bytes();
        message.extend_from_slice(self.returned());
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }
}

fn printable(text: &str) -> String {
    line::printable(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read_by_an_independent_parser() {
        let sender = Address::parse(b"toshi@tenbin.org").unwrap();
        let recipients = [Recipient {
            address: Address::parse(b"nobody@smkwlab.net").unwrap(),
            original: Some("rfc822;somebody@smkwlab.net".into()),
            code: "5.1.1".into(),
            text: "no such user\r\nX-Forged: \u{e9}".into(),
            remote: None,
        }];
        let id = Id::parse("0123456789ABCDE").unwrap();
        let report = Report {
            hostname: "mx.smkwlab.net",
            id: Some(&id),
            envelope_id: Some("QQ314159"),
            sender: &sender,
            arrived: 1_087_755_320,
            action: Action::Failed,
            recipients: &recipients,
            whole: false,
            text: b"Subject: hello\r\nX-Long: a\r\n b\r\n\r\nsecret body\r\n",
        };
        let message = report.message(&Id::new().unwrap(), &clock::now());
        let lines = String::from_utf8(message.clone()).unwrap();
        assert!(lines.replace("\r\n", "").find(['\r', '\n']).is_none());
        assert!(!lines.contains("secret body"));
        let mail = mailparse::parse_mail(&message).unwrap();
        assert_eq!(mail.ctype.mimetype, "multipart/report");
        let types: Vec<&str> = mail.subparts.iter().map(|p| p.ctype.mimetype.as_str()).collect();
        assert_eq!(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
        let status = mail.subparts[1].get_body().unwrap();
        assert!(
            status.contains("Final-Recipient: rfc822; nobody@smkwlab.net\r\nAction: failed\r\n")
        );
        assert!(status.contains("\nOriginal-Envelope-Id: QQ314159\r\n"));
        assert!(status.contains("\nOriginal-Recipient: rfc822; somebody@smkwlab.net\r\n"));
        assert!(!status.contains("\nX-Forged"));
        assert!(mail.subparts[2].get_body().unwrap().contains("Subject: hello\r\n"));

        let whole = Report { whole: true, ..report.clone() };
        let message = whole.message(&Id::new().unwrap(), &clock::now());
        let mail = mailparse::parse_mail(&message).unwrap();
        assert_eq!(mail.subparts[2].ctype.mimetype, "message/rfc822");
        assert!(mail.subparts[2].get_body().unwrap().contains("\r\n\r\nsecret body\r\n"));

        // With UTF-8 in an address (RFC 6533).
        let alphabet = crate::message::address::Alphabet::Utf8;
        let address = Address::parse_in("jos\u{e9}@b".as_bytes(), alphabet).unwrap();
        let recipients = [Recipient { address, ..recipients[0].clone() }];
        let global = Report { recipients: &recipients, ..report };
        let message = global.message(&Id::new().unwrap(), &clock::now());
        let mail = mailparse::parse_mail(&message).unwrap();
        let types: Vec<&str> = mail.subparts.iter().map(|p| p.ctype.mimetype.as_str()).collect();
        let wanted = ["text/plain", "message/global-delivery-status", "message/global-headers"];
        assert_eq!(types, wanted);
        assert!(
            String::from_utf8(message)
                .unwrap()
                .contains("\nFinal-Recipient: utf-8; jos\u{e9}@b\r\n")
        );
    }
}
