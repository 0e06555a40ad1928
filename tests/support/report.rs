//! A reader of delivery status notifications (RFC 3464) that shares nothing with the one that writes
//! them.

use super::mbox;

/// What a notification says of its first recipient, and as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub recipient: String,
    /// `failed` or `delayed`.
    pub action: String,
    /// The enhanced status code.
    pub status: String,
    /// `smtp; 550 5.1.1 No such user`; empty where there is none.
    pub diagnostic: String,
    /// `dns; mx.example`; empty where there is none.
    pub remote_mta: String,
    /// The part that is for people.
    pub words: String,
    /// Whom else it is about.
    pub others: Vec<String>,
}

/// Reads the notification that stands in a mailbox.
#[track_caller]
pub fn of_message(message: &mbox::Message) -> Report {
    let kind = message.field("Content-Type").unwrap_or_default();
    read(kind, &message.text())
}

/// Reads it from its Content-Type and its body with LF line ends.
#[track_caller]
pub fn read(kind: &str, body: &str) -> Report {
    assert!(kind.contains("multipart/report"), "{kind:?}: {body}");
    let boundary = kind.split_once("boundary=\"").and_then(|(_, rest)| rest.split_once('"'));
    let (boundary, _) = boundary.unwrap_or_else(|| panic!("no boundary in {kind}"));
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    let part = |wanted: &str| {
        let found = parts
            .iter()
            .find(|part| part.split("\n\n").next().unwrap().to_ascii_lowercase().contains(wanted));
        found.unwrap_or_else(|| panic!("no {wanted} in {body}")).split_once("\n\n").unwrap().1
    };
    let mut report = Report { words: part("text/plain").to_owned(), ..Report::default() };
    let status = part("message/delivery-status");
    let mut recipients = status.split("\n\n").filter(|group| group.contains("Final-Recipient:"));
    let field = |group: &str, name: &str| {
        let group = group.replace("\n ", " ").replace("\n\t", " ");
        let mut lines = group.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let recipient = |group: &str| field(group, "Final-Recipient").replace("rfc822; ", "");
    let first = recipients.next().unwrap_or_else(|| panic!("about nobody: {status}"));
    report.recipient = recipient(first);
    report.action = field(first, "Action");
    report.status = field(first, "Status");
    report.diagnostic = field(first, "Diagnostic-Code");
    report.remote_mta = field(first, "Remote-MTA");
    report.others = recipients.map(recipient).collect();
    report
}
