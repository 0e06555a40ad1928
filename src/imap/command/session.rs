//! Commands about the session: who is there, and what is spoken.

use base64ct::{Base64, Encoding};

use super::cursor::Cursor;
use super::{Command, Error};
use crate::sasl::Secret;

/// RFC 2971 section 3.3: so many pairs, of so many octets.
const MAX_ID_PAIRS: usize = 30;
const MAX_ID_FIELD: usize = 30;
const MAX_ID_VALUE: usize = 1024;

/// So many capabilities may be enabled at once.
const MAX_ENABLED: usize = 50;

/// What may be said before login, and in any state.
pub(super) fn command(name: &str, cursor: &mut Cursor) -> Result<Command, Error> {
    match name {
        "CAPABILITY" => Ok(Command::Capability),
        "NOOP" => Ok(Command::Noop),
        "LOGOUT" => Ok(Command::Logout),
        "STARTTLS" => Ok(Command::StartTls),
        "ID" => id(cursor),
        "LOGIN" => login(cursor),
        "AUTHENTICATE" => authenticate(cursor),
        _ => Err(Error::Unknown),
    }
}

/// ```text
/// id             = "ID" SP id_params_list                     ; RFC 2971 section 4
/// id_params_list = "(" *(string SP nstring) ")" / nil         ; with spaces between the pairs
/// ```
fn id(cursor: &mut Cursor) -> Result<Command, Error> {
    cursor.sp()?;
    if cursor.eat_word("NIL") {
        return Ok(Command::Id(Vec::new()));
    }
    let pairs = cursor.list(MAX_ID_PAIRS, "fields of ID", |cursor| {
        let field = cursor.string()?;
        cursor.sp()?;
        let value = cursor.nstring()?;
        if field.len() > MAX_ID_FIELD || value.as_ref().is_some_and(|v| v.len() > MAX_ID_VALUE) {
            return Err(Error::Wanted("a shorter field"));
        }
        Ok((field, value))
    });
    pairs.map(Command::Id)
}

/// `login = "LOGIN" SP userid SP password`, both an `astring`.
fn login(cursor: &mut Cursor) -> Result<Command, Error> {
    cursor.sp()?;
    let user = cursor.astring()?;
    cursor.sp()?;
    let password = Secret(cursor.astring()?);
    Ok(Command::Login { user, password })
}

/// `authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp] *(CRLF base64)`, `initial-resp =
/// (base64 / "=")`: the sign is an empty one.
fn authenticate(cursor: &mut Cursor) -> Result<Command, Error> {
    cursor.sp()?;
    let mechanism = cursor.atom()?.to_ascii_uppercase();
    let initial = match cursor.eat(b' ') {
        false => None,
        true if cursor.end().is_ok() => None,
        true if cursor.eat(b'=') => Some(Secret(Vec::new())),
        true => Some(response(cursor.take_while(|byte| byte.is_ascii_graphic()))?),
    };
    Ok(Command::Authenticate { mechanism, initial })
}

/// What a client says in an exchange of AUTHENTICATE, decoded.
///
/// ```text
/// base64 = *(4base64-char) [base64-terminal]
/// ```
pub(in crate::imap) fn response(text: &[u8]) -> Result<Secret, Error> {
    let text = std::str::from_utf8(text).ok();
    let decoded = text.and_then(|text| Base64::decode_vec(text).ok());
    decoded.map(Secret).ok_or(Error::Wanted("base64"))
}

/// `enable = "ENABLE" 1*(SP capability)`
pub(super) fn enable(cursor: &mut Cursor) -> Result<Command, Error> {
    let mut names = Vec::new();
    cursor.sp()?;
    loop {
        if names.len() >= MAX_ENABLED {
            return Err(Error::TooMany("capabilities"));
        }
        names.push(cursor.atom()?.to_ascii_uppercase());
        if !cursor.eat(b' ') || cursor.end().is_ok() {
            return Ok(Command::Enable(names));
        }
    }
}
