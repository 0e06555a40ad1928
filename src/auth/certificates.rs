//! The file of client certificates, for EXTERNAL: a fingerprint and a user, a line each.
//!
//! ```text
//! AB:CD:...:EF user
//! ```
//!
//! The fingerprint is the SHA-256 of the certificate's DER, in hexadecimal digits with or without
//! colons. `#` begins a comment line. A certificate may stand in one line only; a user may have
//! several.

use std::io;
use std::path::Path;

use super::{is_name, may_log_in, users_file};
use crate::config::Config;
use crate::sys::Account;

/// SHA-256 of a certificate's DER.
pub type Fingerprint = [u8; 32];

/// A line: the fingerprint, and whose it is.
pub type Entry = (Fingerprint, String);

/// Reads the file, a regular one. The errors of lines are `file:line: what`.
pub fn read(path: &Path) -> io::Result<Vec<Result<Entry, String>>> {
    let bytes = users_file::text(path)?;
    let mut seen = Vec::new();
    let parsed = users_file::lines(&bytes).map(|(line, number)| {
        let read = entry(line).and_then(|(fingerprint, user)| {
            if seen.contains(&fingerprint) {
                return Err("this fingerprint stands in a line above".into());
            }
            seen.push(fingerprint);
            Ok((fingerprint, user))
        });
        read.map_err(|what| format!("{}:{number}: {what}", path.display()))
    });
    Ok(parsed.collect())
}

/// Whose certificate it is, where that is an account that may log in.
pub fn owner(config: &Config, fingerprint: &Fingerprint) -> io::Result<Option<Account>> {
    match look_up(&config.smtp.tls.client_certificates, fingerprint)? {
        Some(name) => may_log_in(config, &name),
        None => Ok(None),
    }
}

/// The first right line of this certificate; the others are not looked at.
fn look_up(path: &Path, fingerprint: &Fingerprint) -> io::Result<Option<String>> {
    let bytes = users_file::text(path)?;
    let mut entries = users_file::lines(&bytes).filter_map(|(line, _)| entry(line).ok());
    Ok(entries.find(|(known, _)| known == fingerprint).map(|(_, user)| user))
}

fn entry(line: &[u8]) -> Result<Entry, String> {
    let wanted = || "a line is the SHA-256 fingerprint of a certificate, and a user".to_owned();
    let text = std::str::from_utf8(line).map_err(|_| wanted())?;
    let mut words = text.split_ascii_whitespace();
    let (Some(digits), Some(user), None) = (words.next(), words.next(), words.next()) else {
        return Err(wanted());
    };
    if !is_name(user) {
        return Err(format!("{user:?} can't be the name of an account"));
    }
    let fingerprint = parse(digits).ok_or(
        "the fingerprint has another form than `openssl x509 -fingerprint -sha256` prints",
    )?;
    Ok((fingerprint, user.to_owned()))
}

/// A fingerprint as it is written: `AB:CD:...`, as OpenSSL prints it.
pub fn shown(fingerprint: &Fingerprint) -> String {
    fingerprint.map(|byte| format!("{byte:02X}")).join(":")
}

fn parse(digits: &str) -> Option<Fingerprint> {
    let digits = digits.replace(':', "");
    let mut fingerprint = [0; 32];
    if digits.len() != 2 * fingerprint.len() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    for (at, byte) in fingerprint.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_leads_to_its_user_in_either_form() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("certificates");
        let colons = vec!["aB"; 32].join(":");
        let text = format!(
            "# known\n{colons} hunt\n{} bob\r\n{} other\nab hunt\n{} a/b\n\n{} x y\n",
            "0c".repeat(32),
            "Ab".repeat(32),
            "01".repeat(32),
            "02".repeat(32),
        );
        std::fs::write(&path, text).unwrap();
        let user = |byte| look_up(&path, &[byte; 32]).unwrap();
        assert_eq!(parse(&shown(&[0xa0; 32])), Some([0xa0; 32]));
        assert_eq!(user(0xab).as_deref(), Some("hunt"));
        assert_eq!(user(0x0c).as_deref(), Some("bob"));
        assert_eq!([user(1), user(2), user(0xff)], [None, None, None]);
        let lines = read(&path).unwrap();
        let wrong: Vec<&String> = lines.iter().filter_map(|line| line.as_ref().err()).collect();
        assert_eq!(lines.len(), 6);
        assert!(wrong[0].ends_with("certificates:4: this fingerprint stands in a line above"));
        assert!(wrong[1].contains(":5: the fingerprint has another form"), "{wrong:?}");
        assert!(wrong[2].contains(":6: \"a/b\" can't be the name"), "{wrong:?}");
        assert!(wrong[3].contains(":8: a line is the SHA-256"), "{wrong:?}");
        let missing = look_up(&place.path().join("none"), &[0; 32]).unwrap_err().to_string();
        assert!(missing.contains("/none: "), "{missing}");
    }

    #[test]
    fn what_is_no_fingerprint_is_none() {
        for digits in ["", "ab", &"+1".repeat(32), &"zz".repeat(32), &"é".repeat(32)] {
            assert_eq!(parse(digits), None, "{digits}");
        }
    }
}
