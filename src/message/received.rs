//! The Received field that each server puts on top (RFC 5321 section 4.4).

use std::net::IpAddr;

use jiff::ZonedDateTime;

use super::{Address, date};

/// The facts of one hop.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// Where it came from.
    pub from: From<'a>,
    /// This host's name.
    pub by: &'a str,
    /// The protocol, as registered for `with` (`SMTP`, `ESMTP`, `local`).
    pub with: Option<&'a str>,
    /// The queue id.
    pub id: &'a str,
    /// The recipient where there is just one: with more, the field would tell one of the other.
    pub recipient: Option<&'a Address>,
    /// When.
    pub time: &'a ZonedDateTime,
}

/// Where a message came from.
#[derive(Clone, Debug)]
pub enum From<'a> {
    /// A client of the network: its HELO name, its verified name if there is one, its address.
    Host {
        /// What it called itself.
        helo: &'a str,
        /// What its address is called.
        name: Option<&'a str>,
        /// Where it is.
        address: IpAddr,
    },
    /// A user of this host.
    User(u32),
}

impl Received<'_> {
    /// The field with its CRLF, in the form that the lecture shows:
    /// `from HELO (NAME [ADDRESS]) by HOST (Hikyaku) with ESMTP id ID for <RECIPIENT>; DATE`.
    pub fn field(&self) -> String {
        let from = match &self.from {
            From::Host { helo, name, address } => {
                let tag = if address.is_ipv6() { "IPv6:" } else { "" };
                let name = name.unwrap_or("unknown");
                format!("from {} ({name} [{tag}{address}])", printable(helo))
            }
            From::User(uid) => format!("(from userid {uid})"),
        };
        let with = self.with.map(|with| format!(" with {with}")).unwrap_or_default();
        let to = self.recipient.map(|to| format!("\r\n\tfor <{to}>")).unwrap_or_default();
        format!(
            "Received: {from}\r\n\tby {} (Hikyaku){with} id {}{to}; {}\r\n",
            self.by,
            self.id,
            date::rfc5322(self.time)
        )
    }
}

/// A client's word for itself, as one harmless token.
fn printable(helo: &str) -> String {
    let token: String = helo
        .chars()
        .map(|c| if c.is_ascii_graphic() && !"()<>,;\\\"".contains(c) { c } else { '?' })
        .take(255)
        .collect();
    if token.is_empty() { "?".into() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_has_the_form_of_the_lecture() {
        let time = date::tests::lecture();
        let recipient = Address::parse(b"example@smkwlab.net").unwrap();
        let received = Received {
            from: From::Host {
                helo: "hawks.qgpop.net",
                name: Some("hawks.qgpop.net"),
                address: [133, 69, 130, 4].into(),
            },
            by: "mx.smkwlab.net",
            with: Some("ESMTP"),
            id: "817C71BFE9",
            recipient: Some(&recipient),
            time: &time,
        };
        assert_eq!(
            received.field(),
            "Received: from hawks.qgpop.net (hawks.qgpop.net [133.69.130.4])\r\n\
             \tby mx.smkwlab.net (Hikyaku) with ESMTP id 817C71BFE9\r\n\
             \tfor <example@smkwlab.net>; Mon, 21 Jun 2004 03:15:20 +0900 (JST)\r\n"
        );
    }

    #[test]
    fn a_hostile_helo_stays_one_token() {
        assert_eq!(printable("a\r\nb (c) <d>"), "a??b??c???d?");
        assert_eq!(printable(""), "?");
    }
}
