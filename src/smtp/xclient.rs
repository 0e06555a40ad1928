//! XCLIENT: a client that is trusted says whom it speaks for, as Postfix has it (its
//! `XCLIENT_README`).
//!
//! ```text
//! xclient-command = "XCLIENT" 1*( SP attribute-name "=" attribute-value )
//! attribute-name  = "NAME" / "ADDR" / "PORT" / "PROTO" / "HELO" / "LOGIN"
//! attribute-value = xtext; of what is not known "[UNAVAILABLE]" or "[TEMPUNAVAIL]"
//! ```

use std::net::IpAddr;

use super::dsn::from_xtext;
use crate::message::address::{self, Alphabet};

/// The attributes that are understood, as EHLO announces them.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO LOGIN";

/// What is said of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// What it is.
    As(T),
    /// That nobody knows.
    Not,
}

impl<T> Known<T> {
    /// What it is, if that is known.
    pub fn value(self) -> Option<T> {
        match self {
            Self::As(value) => Some(value),
            Self::Not => None,
        }
    }
}

/// What is said of the client; of what is `None` nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: Option<Known<String>>,
    /// Its address.
    pub address: Option<Known<IpAddr>>,
    /// What it calls itself.
    pub helo: Option<Known<String>>,
    /// As whom it has logged in.
    pub login: Option<Known<String>>,
    /// Whether it speaks ESMTP.
    pub extended: Option<bool>,
}

/// Parses the command's argument. An error names the attribute that is wrong.
pub fn parse(argument: &[u8]) -> Result<Claim, &'static str> {
    let mut claim = Claim::default();
    let attributes = argument.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let mut some = false;
    for attribute in attributes {
        some = true;
        let at = memchr::memchr(b'=', attribute).ok_or("attribute=value")?;
        let (name, value) = attribute.split_at(at);
        let value = from_xtext(value.get(1..).unwrap_or_default()).ok_or("xtext")?;
        let known =
            !matches!(value.to_ascii_uppercase().as_str(), "[UNAVAILABLE]" | "[TEMPUNAVAIL]");
        let value = Some(value.as_str()).filter(|_| known);
        match name.to_ascii_uppercase().as_slice() {
            b"NAME" => claim.name = Some(all(value, host_name).ok_or("NAME=host")?),
            b"ADDR" => claim.address = Some(all(value, ip_address).ok_or("ADDR=address")?),
            b"PORT" => {
                all(value, |port| port.parse::<u16>().ok()).ok_or("PORT=number")?;
            }
            b"PROTO" => match value.map(str::to_ascii_uppercase).as_deref() {
                Some("SMTP") => claim.extended = Some(false),
                Some("ESMTP") => claim.extended = Some(true),
                _ => return Err("PROTO=SMTP or PROTO=ESMTP"),
            },
            b"HELO" => claim.helo = Some(all(value, helo).ok_or("HELO=name")?),
            b"LOGIN" => claim.login = Some(all(value, login).ok_or("LOGIN=name")?),
            _ => return Err(ATTRIBUTES),
        }
    }
    if some { Ok(claim) } else { Err("XCLIENT attribute=value") }
}

/// `None` where there is a value that `parse` does not take.
fn all<T>(value: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Option<Known<T>> {
    match value {
        None => Some(Known::Not),
        Some(value) => parse(value).map(Known::As),
    }
}

fn host_name(name: &str) -> Option<String> {
    let name = address::domain(name.as_bytes(), Alphabet::Ascii).ok()?;
    (!name.starts_with('[') && name.parse::<IpAddr>().is_err()).then_some(name)
}

fn ip_address(text: &str) -> Option<IpAddr> {
    let tag = text.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPV6:"));
    let address = tag.map_or(text, |tag| text.get(tag.len()..).unwrap_or_default()).parse();
    address.ok().map(|address: IpAddr| address.to_canonical())
}

fn helo(name: &str) -> Option<String> {
    let valid = (1..=address::MAX_DOMAIN).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| name.to_owned())
}

fn login(name: &str) -> Option<String> {
    ((1..=255).contains(&name.len()) && !name.contains('\0')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_said_known_or_not_known() {
        let all =
            parse(b"NAME=mail.example ADDR=192.0.2.7 PORT=4711 PROTO=SMTP HELO=x+2By LOGIN=hunt");
        let wanted = Claim {
            name: Some(Known::As("mail.example".into())),
            address: Some(Known::As([192, 0, 2, 7].into())),
            helo: Some(Known::As("x+y".into())),
            login: Some(Known::As("hunt".into())),
            extended: Some(false),
        };
        assert_eq!(all.unwrap(), wanted);
        let none = parse(b" name=[unavailable]  addr=[TEMPUNAVAIL] login=[UNAVAILABLE]").unwrap();
        let wanted = Claim {
            name: Some(Known::Not),
            address: Some(Known::Not),
            login: Some(Known::Not),
            ..Claim::default()
        };
        assert_eq!(none, wanted);
        let six = parse(b"ADDR=IPv6:2001:db8::1 PROTO=esmtp").unwrap();
        assert_eq!(six.address, Some(Known::As("2001:db8::1".parse().unwrap())));
        assert_eq!(six.extended, Some(true));
        let mapped = parse(b"ADDR=IPv6:::ffff:192.0.2.7 NAME=mail.example.").unwrap();
        assert_eq!(mapped.address, Some(Known::As([192, 0, 2, 7].into())));
        assert_eq!(mapped.name, Some(Known::As("mail.example".into())));
    }

    #[test]
    fn what_is_wrong_is_refused_whole() {
        for bad in [
            "",
            "NAME",
            "NAME=",
            "NAME=a_b c",
            "NAME=192.0.2.1",
            "NAME=a+0Ab",
            "ADDR=here",
            "ADDR=",
            "PORT=65536",
            "PROTO=HTTP",
            "PROTO=[UNAVAILABLE]",
            "HELO=a+20b",
            "HELO=",
            "LOGIN=",
            "DESTADDR=192.0.2.1",
            "ADDR=192.0.2.1 X=y",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
