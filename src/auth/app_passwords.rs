//! App passwords: further passwords of a user, one for each program or device, that work for some
//! protocols and until some day.
//!
//! ```text
//! user:label:scopes:expires:{SCHEME}hash
//! ```
//!
//! `scopes` are some of `smtp`, `imap` and `pop` with commas between; `expires` is the day on which
//! it no longer works, as `2027-01-31` (it begins at 0:00 UTC), or empty. What is wrong with a line
//! makes that line worthless, and no other.

use std::fmt;
use std::io;
use std::path::Path;

use jiff::civil::Date;

use super::hash::Hash;
use super::is_name;
use super::users_file::{self, Error};

/// The longest label, in bytes.
const MAX_LABEL: usize = 64;

/// The most of one user, so that trying them all takes no time that counts.
pub const MAX_PER_USER: usize = 32;

/// What a password is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sending mail.
    Smtp,
    /// Reading it by IMAP.
    Imap,
    /// Reading it by POP3.
    Pop,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Smtp, Self::Imap, Self::Pop];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop => "pop",
        }
    }

    /// Parses the words of a list.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let one = |word: &str| {
            let known = Self::ALL.into_iter().find(|scope| scope.word() == word);
            known.ok_or_else(|| format!("{word:?} is no scope; known are smtp, imap and pop"))
        };
        text.split(',').map(one).collect()
    }
}

/// One app password.
#[derive(Clone, Debug)]
pub struct AppPassword {
    /// Whose it is.
    pub user: String,
    /// What it is for, in its user's words.
    pub label: String,
    /// What it works for.
    pub scopes: Vec<Scope>,
    /// From this day on it does not.
    pub expires: Option<Date>,
    hash: Hash,
}

impl AppPassword {
    /// Whether it works for this, on this day.
    pub fn is_usable(&self, scope: Scope, today: Date) -> bool {
        self.scopes.contains(&scope) && self.expires.is_none_or(|end| today < end)
    }

    /// Whether this is it.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.hash.verify(password)
    }
}

impl fmt::Display for AppPassword {
    /// All but the hash, as it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.word()).collect();
        let expires = self.expires.map(|day| day.to_string()).unwrap_or_default();
        write!(f, "{}:{}:{}:{expires}", self.user, self.label, scopes.join(","))
    }
}

/// Whether `text` can be a label.
pub fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && !text.contains(|c: char| c == ':' || c.is_control())
        && text.trim() == text
}

/// Today, in UTC.
pub fn today() -> Date {
    jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date()
}

/// Reads the file. Where there is none, nobody has any.
pub fn read(path: &Path) -> io::Result<Vec<Result<AppPassword, Error>>> {
    match users_file::text(path) {
        Ok(bytes) => Ok(parse(path, &bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Parses the text of the file `name`.
pub fn parse(name: &Path, bytes: &[u8]) -> Vec<Result<AppPassword, Error>> {
    let lines = users_file::lines(bytes);
    let parsed = lines.map(|(line, number)| {
        app_password(line).map_err(|what| Error {
            file: name.to_owned(),
            line: number,
            user: users_file::user(line).map(str::to_owned),
            what,
        })
    });
    parsed.collect()
}

/// Whether the password is one of that user's for this scope. All are tried, right or not.
pub fn verify(path: &Path, name: &str, scope: Scope, password: &[u8]) -> io::Result<bool> {
    let bytes = match users_file::text(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let today = today();
    let own = users_file::lines(&bytes)
        .filter(|(line, _)| users_file::user(line) == Some(name))
        .take(MAX_PER_USER)
        .filter_map(|(line, _)| app_password(line).ok());
    Ok(own.fold(false, |found, own| {
        let is_it = own.verify(password);
        found | (is_it & own.is_usable(scope, today))
    }))
}

fn app_password(line: &[u8]) -> Result<AppPassword, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8 text".to_owned())?;
    let parts: Vec<&str> = line.split(':').collect();
    let [user, label, scopes, expires, hash] = parts.as_slice() else {
        return Err("five fields are wanted: user:label:scopes:expires:{SCHEME}hash".into());
    };
    if !is_name(user) {
        return Err(format!("{user:?} can't be a user's name"));
    }
    if !is_label(label) {
        return Err(format!("{label:?} can't be a label"));
    }
    let expires = match *expires {
        "" => None,
        day => Some(date(day)?),
    };
    Ok(AppPassword {
        user: (*user).to_owned(),
        label: (*label).to_owned(),
        scopes: Scope::list(scopes)?,
        expires,
        hash: Hash::parse(hash)?,
    })
}

/// A day, as `2027-01-31`.
pub fn date(text: &str) -> Result<Date, String> {
    let wanted = || format!("{text:?} is no day; write it as 2027-01-31");
    let day: Date = text.parse().map_err(|_| wanted())?;
    // The library takes longer forms, too.
    (day.to_string() == text).then_some(day).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_five_fields() {
        let line = "hunt:my phone:smtp,pop:2027-01-31:{PLAIN}x";
        let parsed = parse(Path::new("app"), format!("# them\n{line}\n").as_bytes());
        let app = parsed[0].as_ref().unwrap();
        assert_eq!(app.to_string(), "hunt:my phone:smtp,pop:2027-01-31");
        for line in [
            "hunt:a:smtp:{PLAIN}x",
            "hunt:a:smtp::{PLAIN}x:more",
            "../x:a:smtp::{PLAIN}x",
            "hunt::smtp::{PLAIN}x",
            "hunt: a:smtp::{PLAIN}x",
            "hunt:a:::{PLAIN}x",
            "hunt:a:ftp::{PLAIN}x",
            "hunt:a:smtp:tomorrow:{PLAIN}x",
            "hunt:a:smtp:2027-02-30:{PLAIN}x",
            "hunt:a:smtp::secret",
        ] {
            let error = parse(Path::new("app"), line.as_bytes()).remove(0).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("app:1: ") && !error.contains("secret"), "{line}: {error}");
        }
    }

    #[test]
    fn it_works_in_its_scope_and_before_its_end() {
        let line = b"hunt:phone:smtp,imap:2027-01-31:{PLAIN}x";
        let app = parse(Path::new("app"), line).remove(0).unwrap();
        let day = |text: &str| date(text).unwrap();
        assert!(app.is_usable(Scope::Smtp, day("2027-01-30")));
        assert!(app.is_usable(Scope::Imap, day("2026-01-31")));
        assert!(!app.is_usable(Scope::Pop, day("2027-01-30")));
        assert!(!app.is_usable(Scope::Smtp, day("2027-01-31")));
        assert!(!app.is_usable(Scope::Smtp, day("2027-02-01")));
    }

    #[test]
    fn only_a_users_own_ones_that_may_be_used_are_right() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("app");
        assert!(!verify(&file, "hunt", Scope::Smtp, b"one").unwrap(), "there is no file");
        let text = "hunt:1:smtp::{PLAIN}one\nhunt:2:smtp:2001-01-01:{PLAIN}two\nhunt:3:nonsense\n\
                    bob:1:smtp::{PLAIN}three\nhunt:4:pop::{PLAIN}four\nhunt:5:smtp::!{PLAIN}five\n";
        std::fs::write(&file, text).unwrap();
        let is_right =
            |scope, password: &str| verify(&file, "hunt", scope, password.as_bytes()).unwrap();
        assert!(is_right(Scope::Smtp, "one") && is_right(Scope::Pop, "four"));
        assert!(!is_right(Scope::Smtp, "two"), "expired");
        assert!(!is_right(Scope::Smtp, "three"), "somebody else's");
        assert!(!is_right(Scope::Smtp, "four"), "of another scope");
        assert!(!is_right(Scope::Smtp, "five") && !is_right(Scope::Smtp, ""));
        assert!(verify(place.path(), "hunt", Scope::Smtp, b"one").is_err());
    }
}
