//! `mailctl user`: the users file, and that of the app passwords.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use crate::auth::app_passwords::{self, MAX_PER_USER, Scope};
use crate::auth::hash::{Hash, Scheme};
use crate::auth::{find_account, is_name, keeper, users_file};
use crate::config::{Config, Source};
use crate::program::Failure;
use crate::sasl::{MAX_PASSWORD, scram};
use crate::sys::{Exit, terminal};

/// The signs of a new app password: 32, and none that looks like another one.
const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// How many of them one has: 100 bits.
const LENGTH: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user; the password is asked for, or read from stdin
    Add {
        /// The user's name
        name: String,
        /// The uid of the user's mailbox; must be given with root
        #[arg(long)]
        uid: Option<u32>,
        /// The gid; must be given with root
        #[arg(long)]
        gid: Option<u32>,
        /// The home directory
        #[arg(long)]
        home: Option<PathBuf>,
        /// How the password is stored
        #[arg(long, value_enum, default_value_t)]
        scheme: Word,
    },
    /// Give a user another password
    Passwd {
        /// The user's name
        name: String,
        /// How the password is stored
        #[arg(long, value_enum, default_value_t)]
        scheme: Word,
    },
    /// Delete a user, and the app passwords; the mail stays
    Del {
        /// The user's name
        name: String,
    },
    /// List the users
    List,
    /// Passwords for one program or device
    #[command(subcommand)]
    AppPassword(AppPassword),
}

#[derive(Debug, Subcommand)]
pub(super) enum AppPassword {
    /// Make up a password, and print it this once
    Add {
        /// The user's name
        name: String,
        /// What it is for
        label: String,
        /// What it works for: some of smtp, imap, pop
        #[arg(long, default_value = "smtp,imap,pop")]
        scope: String,
        /// The day on which it no longer works, as 2027-01-31
        #[arg(long, value_name = "DAY")]
        expires: Option<String>,
    },
    /// List them, of one user or of all
    List {
        /// The user's name
        name: Option<String>,
    },
    /// Delete one: from now on it does not work
    Del {
        /// The user's name
        name: String,
        /// Its label
        label: String,
    },
}

/// The words of `--scheme`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Word {
    #[default]
    Yescrypt,
    #[value(name = "scram-sha-256")]
    ScramSha256,
    #[value(name = "scram-sha-1")]
    ScramSha1,
}

impl From<Word> for Scheme {
    fn from(word: Word) -> Self {
        match word {
            Word::Yescrypt => Self::Yescrypt,
            Word::ScramSha256 => Self::Scram(scram::Hash::Sha256),
            Word::ScramSha1 => Self::Scram(scram::Hash::Sha1),
        }
    }
}

pub(super) fn run(config: &Config, command: &Command) -> Result<Exit, Failure> {
    let file = &config.users.file;
    if config.users.source != Source::File && !matches!(command, Command::AppPassword(_)) {
        let what = "[users] source is \"system\": the accounts are the host's, see useradd(8) and \
                    passwd(1), or set source = \"file\"";
        return Err(Failure::new(Exit::Config, what));
    }
    match command {
        Command::Add { name, uid, gid, home, scheme } => {
            check_name(name)?;
            let there = || format!("there is a user {name} already; see mailctl user passwd");
            // Nobody is asked for a password in vain; whether it still holds is seen again below.
            if file.exists() && users_file::look_up(file, name).map_err(io_err)?.is_some() {
                return Err(Failure::new(
                    Exit::DataErr,
                    format!("{}: {}", file.display(), there()),
                ));
            }
            let number = |id: &Option<u32>| id.map(|id| id.to_string()).unwrap_or_default();
            let home = home.as_ref().map(|home| home.display().to_string()).unwrap_or_default();
            let line = |password: &str| {
                format!("{name}:{password}:{}:{}::{home}::", number(uid), number(gid))
            };
            // What is wrong with the line is told before a password is asked for.
            let own = crate::auth::Identity::own();
            let tried = users_file::parse(Path::new("user add"), line("!").as_bytes(), own);
            if home.contains([':', '\n', '\r']) || tried.len() != 1 {
                return Err(Failure::new(
                    Exit::Usage,
                    "--home: no colon and no line end is wanted",
                ));
            }
            if let Some(Err(error)) = tried.into_iter().next() {
                let hint = "give --uid, --gid and --home";
                return Err(Failure::new(Exit::Usage, format!("{error}; {hint}")));
            }
            let line = line(&field((*scheme).into())?);
            keeper::edit(file, |text| {
                let mut names = users_file::lines(text).map(|(line, _)| users_file::user(line));
                if names.any(|other| other == Some(name)) {
                    return Err(there());
                }
                Ok(keeper::with_line(text, &line))
            })
            .map_err(io_err)?;
        }
        Command::Passwd { name, scheme } => {
            find(file, name)?;
            let field = field((*scheme).into())?;
            keeper::edit(file, |text| {
                keeper::with_password(text, name, &field).ok_or_else(|| nobody(name))
            })
            .map_err(io_err)?;
        }
        Command::Del { name } => {
            find(file, name)?;
            // First: a user of the same name who comes later has none of them.
            delete_app_passwords(config, |user, _| user == name)?;
            keeper::edit(file, |text| {
                let (text, _) =
                    keeper::without(text, |line| users_file::user(line) == Some(name.as_str()));
                Ok(text)
            })
            .map_err(io_err)?;
        }
        Command::List => {
            let mut out = String::new();
            for entry in users_file::read(file).map_err(io_err)? {
                match entry {
                    Ok(entry) => {
                        let (account, hash) = (entry.account, entry.hash);
                        let home = account.home.display();
                        let (name, uid, gid) = (account.name, account.uid, account.gid);
                        let kind = format!("{hash:?}").to_lowercase();
                        let kind = if matches!(hash, Hash::Locked) { "locked" } else { &kind };
                        let _ = writeln!(out, "{name}\t{uid}\t{gid}\t{home}\t{kind}");
                    }
                    Err(error) => super::super::complain("mailctl", &error.to_string()),
                }
            }
            print(&out)?;
        }
        Command::AppPassword(command) => return app_password(config, command),
    }
    Ok(Exit::Ok)
}

fn app_password(config: &Config, command: &AppPassword) -> Result<Exit, Failure> {
    let file = &config.users.app_passwords;
    match command {
        AppPassword::Add { name, label, scope, expires } => {
            check_name(name)?;
            let usage = |what: String| Failure::new(Exit::Usage, what);
            if !app_passwords::is_label(label) {
                return Err(usage(format!("{label:?} can't be a label: 1 to 64 bytes, no colon")));
            }
            let scopes = Scope::list(scope).map_err(|what| usage(format!("--scope: {what}")))?;
            let day = expires.as_deref().map(app_passwords::date).transpose();
            let day = day.map_err(|what| usage(format!("--expires: {what}")))?;
            if find_account(config, name).map_err(io_err)?.is_none() {
                return Err(Failure::new(Exit::NoUser, nobody(name)));
            }
            let password = made_up().map_err(io_err)?;
            let hash = Scheme::Ssha256.field(password.as_bytes()).map_err(io_err)?;
            let words: Vec<&str> = scopes.iter().map(|scope| scope.word()).collect();
            let day = day.map(|day| day.to_string()).unwrap_or_default();
            let line = format!("{name}:{label}:{}:{day}:{hash}", words.join(","));
            keeper::edit(file, |text| {
                let own: Vec<_> = app_passwords::parse(file, text)
                    .into_iter()
                    .flatten()
                    .filter(|app| app.user == *name)
                    .collect();
                if own.iter().any(|app| app.label == *label) {
                    return Err(format!("{name} has a password {label:?} already"));
                }
                let lines = users_file::lines(text);
                let count = lines.filter(|(line, _)| users_file::user(line) == Some(name)).count();
                if count >= MAX_PER_USER {
                    return Err(format!("{name} has {count} lines; more are not looked at"));
                }
                Ok(keeper::with_line(text, &line))
            })
            .map_err(io_err)?;
            print(&format!("{password}\n"))?;
        }
        AppPassword::List { name } => {
            let mut out = String::new();
            let today = app_passwords::today();
            for app in app_passwords::read(file).map_err(io_err)? {
                match app {
                    Ok(app) if name.as_ref().is_none_or(|name| app.user == *name) => {
                        let over = app.expires.is_some_and(|end| end <= today);
                        let over = if over { ":expired" } else { "" };
                        let _ = writeln!(out, "{app}{over}");
                    }
                    Ok(_) => {}
                    Err(error) => super::super::complain("mailctl", &error.to_string()),
                }
            }
            print(&out)?;
        }
        AppPassword::Del { name, label } => {
            let count = delete_app_passwords(config, |user, other| user == name && other == label)?;
            if count == 0 {
                let what = format!("{}: {name} has no password {label:?}", file.display());
                return Err(Failure::new(Exit::DataErr, what));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Deletes lines by user and label, right or damaged ones; how many they were.
fn delete_app_passwords(
    config: &Config,
    is_gone: impl Fn(&str, &str) -> bool,
) -> Result<usize, Failure> {
    let file = &config.users.app_passwords;
    if !file.exists() {
        return Ok(0);
    }
    let mut count = 0;
    keeper::edit(file, |text| {
        let (kept, gone) = keeper::without(text, |line| {
            let line = String::from_utf8_lossy(line);
            let mut parts = line.split(':');
            is_gone(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        });
        count = gone;
        Ok(kept)
    })
    .map_err(io_err)?;
    Ok(count)
}

fn find(file: &Path, name: &str) -> Result<(), Failure> {
    let bytes = users_file::text(file).map_err(io_err)?;
    let mut names = users_file::lines(&bytes).map(|(line, _)| users_file::user(line));
    if names.any(|other| other == Some(name)) {
        return Ok(());
    }
    Err(Failure::new(Exit::NoUser, format!("{}: {}", file.display(), nobody(name))))
}

fn nobody(name: &str) -> String {
    format!("there is no user {name}; see mailctl user list")
}

fn check_name(name: &str) -> Result<(), Failure> {
    // A line that begins with # would be a comment.
    if is_name(name) && !name.starts_with('#') && name.trim() == name {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, format!("{name:?} can't be a user's name")))
}

/// The stored form of a new password, which is asked for.
fn field(scheme: Scheme) -> Result<String, Failure> {
    let password = terminal::read_secret("New password: ").map_err(io_err)?;
    let fits = (1..=MAX_PASSWORD).contains(&password.len());
    if !fits || password.contains(char::is_control) {
        let what = format!("a password has 1 to {MAX_PASSWORD} bytes and no control characters");
        return Err(Failure::new(Exit::DataErr, what));
    }
    if terminal::is_terminal()
        && terminal::read_secret("The same again: ").map_err(io_err)? != password
    {
        return Err(Failure::new(Exit::DataErr, "the two are not the same; nothing is changed"));
    }
    scheme.field(password.as_bytes()).map_err(io_err)
}

/// A password by lot, in groups of four.
fn made_up() -> io::Result<String> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::new();
    for (number, byte) in bytes.into_iter().enumerate() {
        if number > 0 && number % 4 == 0 {
            text.push('-');
        }
        text.push(SIGNS.get(usize::from(byte % 32)).copied().map_or('a', char::from));
    }
    Ok(text)
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::new(Exit::IoErr, error))
}

/// An error that names its file, with the usual remedy.
#[allow(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn io_err(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::NoPerm, format!("{error}; run this as the file's owner, or as root"))
        }
        io::ErrorKind::NotFound => {
            Failure::new(Exit::NoInput, format!("{error}; mailctl user add makes the file"))
        }
        _ => Failure::new(Exit::CantCreat, error),
    }
}
