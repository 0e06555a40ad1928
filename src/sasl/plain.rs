//! PLAIN and LOGIN: the client says its password.

use super::{Failure, MAX_NAME, MAX_PASSWORD, Secret};

/// The challenges of LOGIN; some clients look for these very words.
pub(super) const USERNAME: &str = "Username:";
pub(super) const PASSWORD: &str = "Password:";

/// The longest name that is somebody's or nobody's, and no mistake (RFC 4616 section 2).
const MAX_AUTHCID: usize = 255;

/// ```text
/// message = [authzid] UTF8NUL authcid UTF8NUL passwd    ; RFC 4616 section 2
/// ```
///
/// Nobody acts as somebody else here: an authzid must be the authcid. Where no password could make it
/// right, nobody is asked.
pub(super) fn message(response: &[u8]) -> Result<(String, Secret), Failure> {
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(authzid), Some(authcid), Some(passwd), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Malformed);
    };
    let (user, password) = (name(authcid)?, password(passwd)?);
    let is_own = authzid.is_empty() || authzid == authcid;
    if is_own { Ok((user, password)) } else { Err(Failure::Refused) }
}

/// `authcid = 1*SAFE ; MUST accept up to 255 octets`; those of more than 64 are nobody's here.
pub(super) fn name(text: &[u8]) -> Result<String, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| Failure::Malformed)?;
    if text.contains(char::is_control) || !(1..=MAX_AUTHCID).contains(&text.len()) {
        return Err(Failure::Malformed);
    }
    if text.len() <= MAX_NAME { Ok(text.to_owned()) } else { Err(Failure::Refused) }
}

/// `passwd = 1*SAFE`
pub(super) fn password(text: &[u8]) -> Result<Secret, Failure> {
    let fits = (1..=MAX_PASSWORD).contains(&text.len());
    let is_safe = fits && !text.iter().any(u8::is_ascii_control);
    if is_safe { Ok(Secret(text.to_vec())) } else { Err(Failure::Malformed) }
}
