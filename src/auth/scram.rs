//! SCRAM keys for those who check proofs, and the host's secret: what an unknown name's keys are
//! made of.
//!
//! The secret stands beside the users file, as `users.secret`, and is made by the first who needs
//! it. Without one that stays the same, a stranger could tell by the salt whether a name is known.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::hash::Hash;
use super::{Identity, served, users_file};
use crate::config::{Config, Source};
use crate::sasl::{Keys, scram};
use crate::sys::Account;

/// Bytes of the secret.
const SECRET: usize = 32;

/// The hash functions for which somebody's keys are stored; none where the accounts are the host's.
pub fn stored(config: &Config) -> io::Result<Vec<scram::Hash>> {
    if config.users.source != Source::File {
        return Ok(Vec::new());
    }
    let lines = users_file::read(&config.users.file)?;
    let has = |hash: &scram::Hash| {
        lines
            .iter()
            .flatten()
            .any(|entry| matches!(&entry.hash, Hash::Scram(keys) if keys.hash == *hash))
    };
    let stored: Vec<_> = scram::Hash::ALL.into_iter().filter(has).collect();
    if !stored.is_empty() {
        secret(&config.users.file)?;
    }
    Ok(stored)
}

/// The keys of this name, and whose they are. For a name that has none (an unknown one, one whose
/// password is stored in another way) they are made up and nobody's.
pub fn keys(config: &Config, name: &str, hash: scram::Hash) -> io::Result<(Option<Account>, Keys)> {
    let lines = users_file::read(&config.users.file)?;
    let secret = secret(&config.users.file)?;
    let like = lines.iter().flatten().find_map(|entry| match &entry.hash {
        Hash::Scram(keys) if keys.hash == hash => Some(keys.clone()),
        _ => None,
    });
    let stand_in = Keys::stand_in(&secret, name, hash, like.as_ref());
    let found = users_file::find(lines, name).transpose()?;
    if let Some(entry) = found
        && let Hash::Scram(keys) = entry.hash
        && keys.hash == hash
        && let Some(account) = served(config, entry.account, Identity::own())
    {
        return Ok((Some(account), keys));
    }
    Ok((None, stand_in))
}

/// Where the secret stands.
pub fn secret_file(users: &Path) -> PathBuf {
    let mut name = users.as_os_str().to_owned();
    name.push(".secret");
    name.into()
}

/// Reads the secret; makes it where it is missing.
fn secret(users: &Path) -> io::Result<[u8; SECRET]> {
    let path = secret_file(users);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(&path).and_then(|()| read(&path)).map_err(named)
        }
        read => read.map_err(named),
    }
}

fn read(path: &Path) -> io::Result<[u8; SECRET]> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut secret = [0; SECRET];
    File::open(path)?.read_exact(&mut secret)?;
    Ok(secret)
}

/// Under its name it is whole from the first moment; another process's that was faster stays.
fn make(path: &Path) -> io::Result<()> {
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let draft = tempfile::Builder::new().prefix(".secret").make_in(directory, |path| {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    })?;
    draft.as_file().write_all(&secret)?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => File::open(directory)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_made_once_and_for_its_owner_only() {
        let place = tempfile::tempdir().unwrap();
        let users = place.path().join("users");
        let first = secret(&users).unwrap();
        assert_eq!(secret(&users).unwrap(), first);
        let file = secret_file(&users);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "short").unwrap();
        let error = secret(&users).unwrap_err().to_string();
        assert!(error.contains("users.secret"), "{error}");
    }

    #[test]
    fn keys_are_those_of_the_file_or_made_up() {
        let place = tempfile::tempdir().unwrap();
        let own = Identity::own();
        let uid = if own.uid.is_root() { 1234 } else { own.uid.as_raw() };
        let stored =
            crate::auth::hash::Scheme::Scram(scram::Hash::Sha256).field(b"pencil").unwrap();
        let mut config = Config::default();
        config.users.source = Source::File;
        config.users.file = place.path().join("users");
        let text =
            format!("user:{stored}:{uid}:{uid}\nplain:{{PLAIN}}x:{uid}:{uid}\nroot:{stored}:0:0\n");
        std::fs::write(&config.users.file, text).unwrap();
        assert_eq!(super::stored(&config).unwrap(), [scram::Hash::Sha256]);
        let keys = |name, hash| keys(&config, name, hash).unwrap();
        let (account, known) = keys("user", scram::Hash::Sha256);
        assert_eq!(account.unwrap().name, "user");
        assert!(known.verify(b"pencil"));
        for (name, hash) in [
            ("nobody", scram::Hash::Sha256),
            ("plain", scram::Hash::Sha256),
            ("root", scram::Hash::Sha256),
            ("user", scram::Hash::Sha1),
        ] {
            let (account, made_up) = keys(name, hash);
            assert!(account.is_none() && made_up != known, "{name}");
            assert_eq!(keys(name, hash).1, made_up);
            let form = (made_up.iterations, made_up.salt.len());
            if hash == known.hash {
                assert_eq!(form, (known.iterations, known.salt.len()));
            }
        }
        config.users.source = Source::System;
        assert!(super::stored(&config).unwrap().is_empty());
    }
}
