//! PLAIN and LOGIN: the client says its password.

use super::{MAX_NAME, MAX_PASSWORD, Secret};

/// The challenges of LOGIN; some clients look for these very words.
pub(super) const USERNAME: &str = "Username:";
pub(super) const PASSWORD: &str = "Password:";

/// ```text
/// message = [authzid] UTF8NUL authcid UTF8NUL passwd    ; RFC 4616 section 2
/// ```
///
/// Nobody acts as somebody else here: an authzid must be the authcid.
pub(super) fn message(response: &[u8]) -> Option<(String, Secret)> {
    let mut parts = response.split(|byte| *byte == 0);
    let (authzid, authcid, passwd) = (parts.next()?, parts.next()?, parts.next()?);
    let is_own = authzid.is_empty() || authzid == authcid;
    if !is_own || parts.next().is_some() {
        return None;
    }
    Some((name(authcid)?, password(passwd)?))
}

/// `authcid = 1*SAFE ; MUST accept up to 255 octets`; longer ones than 64 are nobody's here.
pub(super) fn name(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let fits = (1..=MAX_NAME).contains(&text.len());
    (fits && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// `passwd = 1*SAFE`
pub(super) fn password(text: &[u8]) -> Option<Secret> {
    let fits = (1..=MAX_PASSWORD).contains(&text.len());
    (fits && !text.iter().any(u8::is_ascii_control)).then(|| Secret(text.to_vec()))
}
