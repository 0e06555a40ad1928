//! Commands (RFC 1939 section 3, RFC 2449 section 8).
//!
//! ```text
//! command     =  keyword *(SP param) CRLF    ;255 octets maximum
//! keyword     =  3*4VCHAR
//! param       =  1*VCHAR
//! ```
//!
//! Quirks, for people at a terminal: a line may end with a bare LF, more than one space may stand
//! before a parameter, and spaces at the end are no parameter. PASS takes the rest of its line as
//! it is, since passwords have spaces.

use crate::sasl::Secret;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `USER name`
    User(Vec<u8>),
    /// `PASS string`
    Pass(Secret),
    /// `AUTH [mechanism [initial-response]]` (RFC 5034 section 4); without a mechanism it asks which
    /// there are, as clients did before there was CAPA.
    Auth {
        /// The mechanism's name.
        mechanism: Option<Vec<u8>>,
        /// The initial response, in base64 or `=`.
        initial: Option<Secret>,
    },
    /// `STLS` (RFC 2595 section 4)
    Stls,
    /// A way to log in that is known but not offered: APOP.
    NotOffered,
    /// `CAPA`
    Capa,
    /// `QUIT`
    Quit,
    /// `STAT`
    Stat,
    /// `LIST [msg]`
    List(Option<Number>),
    /// `RETR msg`
    Retr(Number),
    /// `DELE msg`
    Dele(Number),
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `TOP msg n`
    Top(Number, u64),
    /// `UIDL [msg]`
    Uidl(Option<Number>),
}

/// A message number as the client counts, from 1; there may be no such message.
pub type Number = u64;

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such keyword.
    Unknown,
    /// The parameters are not those of the command, which is used like this.
    Usage(&'static str),
}

impl Error {
    /// The error's reply, without its line end.
    pub fn reply(self) -> String {
        match self {
            Self::Unknown => "-ERR unknown command".into(),
            Self::Usage(usage) => format!("-ERR usage: {usage}"),
        }
    }
}

/// `command`, without its line end.
pub fn command(line: &[u8]) -> Result<Command, Error> {
    // C programs and log files would end in the middle of such a line.
    if line.contains(&0) {
        return Err(Error::Unknown);
    }
    let (keyword, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(at) => {
            let (keyword, rest) = line.split_at(at);
            (keyword, rest.get(1..).unwrap_or_default())
        }
        None => (line, &[] as &[u8]),
    };
    let params: Vec<&[u8]> =
        rest.split(|byte| *byte == b' ').filter(|param| !param.is_empty()).collect();
    let bare = |command, usage| match params.as_slice() {
        [] => Ok(command),
        _ => Err(Error::Usage(usage)),
    };
    match keyword.to_ascii_uppercase().as_slice() {
        b"USER" => match rest.trim_ascii() {
            b"" => Err(Error::Usage("USER name")),
            name => Ok(Command::User(name.to_vec())),
        },
        b"PASS" if rest.is_empty() => Err(Error::Usage("PASS string")),
        b"PASS" => Ok(Command::Pass(Secret(rest.to_vec()))),
        b"APOP" => Ok(Command::NotOffered),
        b"STLS" => bare(Command::Stls, "STLS"),
        b"AUTH" => match params.as_slice() {
            [] => Ok(Command::Auth { mechanism: None, initial: None }),
            [mechanism] => Ok(Command::Auth { mechanism: Some(mechanism.to_vec()), initial: None }),
            [mechanism, initial] => Ok(Command::Auth {
                mechanism: Some(mechanism.to_vec()),
                initial: Some(Secret(initial.to_vec())),
            }),
            _ => Err(Error::Usage("AUTH mechanism [initial-response]")),
        },
        b"CAPA" => bare(Command::Capa, "CAPA"),
        b"QUIT" => bare(Command::Quit, "QUIT"),
        b"STAT" => bare(Command::Stat, "STAT"),
        b"NOOP" => bare(Command::Noop, "NOOP"),
        b"RSET" => bare(Command::Rset, "RSET"),
        b"LIST" if params.is_empty() => Ok(Command::List(None)),
        b"LIST" => single(&params)
            .map(|message| Command::List(Some(message)))
            .ok_or(Error::Usage("LIST [message]")),
        b"UIDL" if params.is_empty() => Ok(Command::Uidl(None)),
        b"UIDL" => single(&params)
            .map(|message| Command::Uidl(Some(message)))
            .ok_or(Error::Usage("UIDL [message]")),
        b"RETR" => single(&params).map(Command::Retr).ok_or(Error::Usage("RETR message")),
        b"DELE" => single(&params).map(Command::Dele).ok_or(Error::Usage("DELE message")),
        b"TOP" => match params.as_slice() {
            [message, lines] => number(message)
                .zip(number(lines))
                .map(|(message, lines)| Command::Top(message, lines)),
            _ => None,
        }
        .ok_or(Error::Usage("TOP message lines")),
        _ => Err(Error::Unknown),
    }
}

fn single(params: &[&[u8]]) -> Option<Number> {
    match params {
        [param] => number(param),
        _ => None,
    }
}

/// `1*DIGIT`; a number too large to count is the largest one.
fn number(param: &[u8]) -> Option<u64> {
    if param.is_empty() || !param.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(param.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::{Command, Error, Secret, command};

    #[test]
    fn keywords_are_known_in_any_letter_case() {
        for line in [&b"stat"[..], b"STAT", b"Stat", b"STAT  "] {
            assert_eq!(command(line), Ok(Command::Stat));
        }
        assert_eq!(command(b"retr 1"), Ok(Command::Retr(1)));
        assert_eq!(command(b"TOP  2 10 "), Ok(Command::Top(2, 10)));
        assert_eq!(command(b"list"), Ok(Command::List(None)));
        assert_eq!(command(b"uidl 3"), Ok(Command::Uidl(Some(3))));
        assert_eq!(command(b"user hunt"), Ok(Command::User(b"hunt".to_vec())));
    }

    #[test]
    fn a_password_is_the_rest_of_the_line_as_it_is() {
        let pass = |text: &[u8]| Ok(Command::Pass(Secret(text.to_vec())));
        assert_eq!(command(b"pass Watts?Watt?"), pass(b"Watts?Watt?"));
        assert_eq!(command(b"PASS  two  words "), pass(b" two  words "));
        assert_eq!(command(b"PASS \xe4\t"), pass(b"\xe4\t"));
        assert!(command(b"PASS").is_err() && command(b"PASS ").is_err());
    }

    #[test]
    fn auth_has_a_mechanism_and_a_response_or_neither() {
        let auth = |mechanism: Option<&[u8]>, initial: Option<&[u8]>| {
            let initial = initial.map(|text| Secret(text.to_vec()));
            Ok(Command::Auth { mechanism: mechanism.map(<[u8]>::to_vec), initial })
        };
        assert_eq!(command(b"AUTH"), auth(None, None));
        assert_eq!(command(b"auth plain"), auth(Some(b"plain"), None));
        assert_eq!(command(b"AUTH PLAIN ="), auth(Some(b"PLAIN"), Some(b"=")));
        assert!(command(b"AUTH PLAIN a b").is_err());
        assert_eq!(command(b"STLS"), Ok(Command::Stls));
        assert!(command(b"STLS now").is_err());
        assert_eq!(command(b"APOP a b"), Ok(Command::NotOffered));
    }

    #[test]
    fn debugging_output_shows_no_password() {
        assert!(!format!("{:?}", command(b"PASS secret")).contains("secret"));
    }

    #[test]
    fn wrong_parameters_are_told_the_usage() {
        assert_eq!(command(b"RETR"), Err(Error::Usage("RETR message")));
        for line in [
            &b"RETR one"[..],
            b"RETR 1 2",
            b"RETR -1",
            b"RETR +1",
            b"TOP 1",
            b"TOP 1 2 3",
            b"LIST 1 2",
            b"STAT 1",
            b"USER ",
        ] {
            assert!(matches!(command(line), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn a_number_too_large_to_count_is_no_error_of_syntax() {
        assert_eq!(command(b"RETR 99999999999999999999"), Ok(Command::Retr(u64::MAX)));
    }

    #[test]
    fn a_line_with_nul_is_no_command() {
        assert_eq!(command(b"PASS a\0b"), Err(Error::Unknown));
        assert_eq!(command(b""), Err(Error::Unknown));
        assert_eq!(command(b" STAT"), Err(Error::Unknown));
        assert_eq!(command(b"STAT\t"), Err(Error::Unknown));
    }
}
