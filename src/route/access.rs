//! The access table: whose mail is taken and whose is not (hikyaku-aliases(5)).
//!
//! ```text
//! connect:192.0.2        REJECT text       a client, by its address or the beginning of it
//! connect:example.org    OK                 or by its verified name, or that of its domain
//! from:user@example.org  550 5.7.1 text     an envelope's sender, or all of its domain; <> is null
//! to:old@here.example    DEFER text         a recipient, likewise
//! ```
//!
//! The keys of something go from the special to the general, and the first that the table has
//! counts.

use std::net::IpAddr;

use super::before_extension;
use super::table::Table;
use crate::config::Config;
use crate::message::Address;
use crate::smtp::Reply;
use crate::smtp::reply::is_enhanced;

/// What the table says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Welcome: no further check for strangers.
    Ok,
    /// Refused, and this is said.
    Refuse(Reply),
}

impl Access {
    /// Parses a line's value.
    pub fn parse(value: &[u8]) -> Result<Self, String> {
        let value = String::from_utf8_lossy(value);
        let words: Vec<&str> = value.split_whitespace().collect();
        let (first, rest) = words.split_first().ok_or_else(wanted)?;
        let text = |rest: &[&str], default: &str| {
            if rest.is_empty() { default.to_owned() } else { rest.join(" ") }
        };
        let refuse = |code, enhanced: &str, rest: &[&str], default: &str| {
            Ok(Self::Refuse(Reply::new(code, enhanced.to_owned(), text(rest, default))))
        };
        match first.to_ascii_uppercase().as_str() {
            "OK" if rest.is_empty() => Ok(Self::Ok),
            "REJECT" => refuse(550, "5.7.1", rest, "Access denied"),
            "DEFER" => refuse(450, "4.7.1", rest, "Access denied for now, try again later"),
            code if code.len() == 3 && code.starts_with(['4', '5']) => {
                let number: u16 = code.parse().map_err(|_| wanted())?;
                let class = if number < 500 { '4' } else { '5' };
                let default = "Access denied";
                match rest.split_first() {
                    Some((enhanced, rest)) if is_enhanced(enhanced, class) => {
                        refuse(number, enhanced, rest, default)
                    }
                    _ => {
                        refuse(number, if class == '4' { "4.7.1" } else { "5.7.1" }, rest, default)
                    }
                }
            }
            _ => Err(wanted()),
        }
    }
}

fn wanted() -> String {
    "OK, REJECT, DEFER or a reply as 550 5.7.1 is wanted behind the key, and then a text".into()
}

/// What the table says under the first of these keys that it has.
pub fn find(
    table: &Table,
    keys: impl IntoIterator<Item = String>,
) -> Result<Option<Access>, String> {
    for key in keys {
        if let Some(value) = table.find(&key).map_err(|error| error.to_string())? {
            return Access::parse(&value.text).map(Some).map_err(|what| value.at(1, what));
        }
    }
    Ok(None)
}

/// The keys of a client's address: all of it, then fewer and fewer of its parts.
pub fn address_keys(address: IpAddr) -> Vec<String> {
    let (parts, separator): (Vec<String>, _) = match address {
        IpAddr::V4(four) => (four.octets().iter().map(ToString::to_string).collect(), "."),
        IpAddr::V6(six) => (six.segments().iter().map(|part| format!("{part:x}")).collect(), ":"),
    };
    let shorter = (1..parts.len()).rev().filter_map(|count| parts.get(..count));
    let shorter = shorter.map(|parts| parts.join(separator));
    [address.to_string()].into_iter().chain(shorter).map(|key| format!("connect:{key}")).collect()
}

/// The keys of a client's name.
pub fn name_keys(name: &str) -> Vec<String> {
    domains("connect:", name)
}

/// The keys of an envelope's sender.
pub fn sender_keys(config: &Config, sender: Option<&Address>) -> Vec<String> {
    sender.map_or_else(|| vec!["from:<>".into()], |sender| mailbox("from:", config, sender))
}

/// The keys of a recipient.
pub fn recipient_keys(config: &Config, recipient: &Address) -> Vec<String> {
    mailbox("to:", config, recipient)
}

fn mailbox(tag: &str, config: &Config, address: &Address) -> Vec<String> {
    let (local, domain) = (address.local(), address.domain());
    let base = before_extension(config, local);
    let mut keys = vec![format!("{tag}{local}@{domain}").to_ascii_lowercase()];
    if base != local {
        keys.push(format!("{tag}{base}@{domain}").to_ascii_lowercase());
    }
    keys.extend(domains(tag, domain));
    keys.push(format!("{tag}{base}@").to_ascii_lowercase());
    keys
}

/// A domain and those that it is in.
fn domains(tag: &str, domain: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = Some(domain);
    while let Some(domain) = rest {
        keys.push(format!("{tag}{domain}").to_ascii_lowercase());
        rest = domain.split_once('.').map(|(_, parent)| parent);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_from_the_special_to_the_general() {
        let config = Config::default();
        let address = Address::parse(b"Hunt+x@a.Example").unwrap();
        let wanted =
            ["to:hunt+x@a.example", "to:hunt@a.example", "to:a.example", "to:example", "to:hunt@"];
        assert_eq!(recipient_keys(&config, &address), wanted);
        assert_eq!(sender_keys(&config, None), ["from:<>"]);
        let wanted = ["connect:192.0.2.7", "connect:192.0.2", "connect:192.0", "connect:192"];
        assert_eq!(address_keys([192, 0, 2, 7].into()), wanted);
        let keys = address_keys("2001:db8::1".parse().unwrap());
        assert_eq!(keys.first().unwrap(), "connect:2001:db8::1");
        assert!(
            keys.contains(&"connect:2001:db8:0:0".into()) && keys.contains(&"connect:2001".into())
        );
        assert_eq!(
            name_keys("MX.a.example"),
            ["connect:mx.a.example", "connect:a.example", "connect:example"]
        );
    }

    #[test]
    fn a_value_is_a_word_or_a_reply_of_ones_own() {
        let said = |value: &str| match Access::parse(value.as_bytes()) {
            Ok(Access::Ok) => "ok".to_owned(),
            Ok(Access::Refuse(reply)) => reply.to_string(),
            Err(_) => "error".to_owned(),
        };
        for (value, wanted) in [
            (" ok", "ok"),
            ("REJECT", "550 5.7.1 Access denied"),
            ("reject  go \n away", "550 5.7.1 go away"),
            ("DEFER later", "450 4.7.1 later"),
            ("551 5.1.6 moved", "551 5.1.6 moved"),
            ("451 5.1.6 odd", "451 4.7.1 5.1.6 odd"),
            ("550", "550 5.7.1 Access denied"),
            ("250 2.0.0 fine", "error"),
            ("OK but", "error"),
            ("5x5 a", "error"),
            ("", "error"),
            ("DISCARD", "error"),
        ] {
            assert_eq!(said(value), wanted, "{value:?}");
        }
    }
}
