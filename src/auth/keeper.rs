//! Changes to the users file and to that of the app passwords.
//!
//! A change holds the file's flock, writes the whole text anew beside it, and renames: who reads
//! meanwhile has the old file or the new one. Owner and mode stay; so does, byte for byte, each
//! line that the change is not about.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::users_file;
use crate::sys::lock::{self, Kind};

/// The mode of a file that is new: its group may be one that reads mail accounts.
const MODE: u32 = 0o640;

/// How often, and with which pauses, another one who changes the file is waited for.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Changes the file's text. An error of `change`, such as that there is no such user, leaves it as
/// it is. Errors name the file.
pub fn edit(path: &Path, change: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let (real, held) = hold(path).map_err(named)?;
    let old = users_file::text(&real)?;
    let new =
        change(&old).map_err(|what| io::Error::other(format!("{}: {what}", path.display())))?;
    replace(&real, &held, &new).map_err(named)
}

/// Opens the file, as nobody else who changes it has it. Made where it is missing.
fn hold(path: &Path) -> io::Result<(PathBuf, File)> {
    for _ in 0..TRIES {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        // A link stays a link: the file that it leads to is changed.
        let real = path.canonicalize()?;
        if lock::try_flock(&file, Kind::Exclusive)? {
            // While the lock was waited for, the name may have gone to another file.
            let (named, held) = (real.metadata()?, file.metadata()?);
            if (named.dev(), named.ino()) == (held.dev(), held.ino()) {
                return Ok((real, file));
            }
        } else {
            std::thread::sleep(PAUSE);
        }
    }
    Err(io::Error::other("another program is changing it; try again"))
}

fn replace(path: &Path, old: &File, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".users").tempfile_in(directory)?;
    draft.write_all(text)?;
    let kept = old.metadata()?;
    fchown(draft.as_file(), Some(kept.uid()), Some(kept.gid()))?;
    draft.as_file().set_permissions(Permissions::from_mode(kept.mode() & 0o7777))?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// The text with one more line.
pub fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut text = text.to_vec();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text
}

/// The text without the lines, comments aside, that `is_gone` says; and how many they were.
pub fn without(text: &[u8], is_gone: impl Fn(&[u8]) -> bool) -> (Vec<u8>, usize) {
    let mut count = 0;
    let kept: Vec<&[u8]> = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            let gone = !line.starts_with(b"#") && is_gone(line.trim_ascii_end());
            count += usize::from(gone);
            !gone
        })
        .collect();
    (kept.concat(), count)
}

/// The text with another password field in the user's line, the first one, as it counts; `None`
/// where there is none.
pub fn with_password(text: &[u8], name: &str, password: &str) -> Option<Vec<u8>> {
    let mut changed = Vec::with_capacity(text.len() + password.len());
    let mut found = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if found || users_file::user(line.trim_ascii_end()) != Some(name) {
            changed.extend_from_slice(line);
            continue;
        }
        found = true;
        let rest = line.get(name.len() + 1..).unwrap_or_default();
        // The field ends at the next colon, or with the line.
        let end = rest.iter().position(|byte| matches!(byte, b':' | b'\r' | b'\n'));
        changed.extend_from_slice(format!("{name}:{password}").as_bytes());
        changed.extend_from_slice(end.and_then(|end| rest.get(end..)).unwrap_or_default());
    }
    found.then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"# users: hunt:x\n\nhunt:{PLAIN}a:1:2::/home/hunt\r\nodd \xff line\nbob:b\nhunt:second";

    #[test]
    fn only_the_line_that_is_meant_changes() {
        let changed = with_password(TEXT, "hunt", "{PLAIN}new").unwrap();
        let wanted = b"# users: hunt:x\n\nhunt:{PLAIN}new:1:2::/home/hunt\r\nodd \xff line\nbob:b\nhunt:second";
        assert_eq!(changed, wanted);
        let changed = with_password(TEXT, "bob", "c").unwrap();
        assert!(String::from_utf8_lossy(&changed).contains("\nbob:c\nhunt:second"));
        assert!(with_password(TEXT, "nobody", "c").is_none());
        let (changed, count) = without(TEXT, |line| users_file::user(line) == Some("hunt"));
        assert_eq!(
            (changed.as_slice(), count),
            (&b"# users: hunt:x\n\nodd \xff line\nbob:b\n"[..], 2)
        );
        assert!(with_line(TEXT, "new:x").ends_with(b"\nhunt:second\nnew:x\n"));
        assert_eq!(with_line(b"", "new:x"), b"new:x\n");
    }

    #[test]
    fn mode_and_owner_stay_and_a_refused_change_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("users");
        edit(&path, |text| Ok(with_line(text, "a:b"))).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777 & !MODE, 0, "made for few");
        std::fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink("users", &link).unwrap();
        edit(&link, |text| Ok(with_line(text, "c:d"))).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"a:b\nc:d\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o604);
        let error = edit(&path, |_| Err("no".into())).unwrap_err().to_string();
        assert_eq!(error, format!("{}: no", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), b"a:b\nc:d\n");
        assert_eq!(place.path().read_dir().unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn changes_at_the_same_time_all_count() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("users");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    edit(path, |text| Ok(with_line(text, &format!("user{n}:x")))).unwrap();
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 8, "{text}");
    }
}
