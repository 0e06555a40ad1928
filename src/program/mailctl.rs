//! `mailctl`: the operator's single commands.

mod mailbox;
mod user;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::{Parser, Subcommand};
use nix::unistd::{AccessFlags, access};

use super::explain::explain;
use super::{Common, Failure, load, run};
use crate::auth::{app_passwords, certificates, find_account, users_file};
use crate::config::{Config, Source};
use crate::mailbox::directory;
use crate::message::Address;
use crate::net::tls::identity::{Error, Identity};
use crate::net::tls::server::examine;
use crate::queue::{self, Spool};
use crate::route::table::{self, Syntax};
use crate::route::{self, Destination, Files, Tables, index};
use crate::sys::{Account, Exit, clock, privilege};

/// The operator's tool.
#[derive(Debug, Parser)]
#[command(name = "mailctl", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, the queue's directories and the accounts, and say what is wrong
    Check,
    /// Look at a user's mailbox, or make its index anew
    #[command(subcommand)]
    Mailbox(mailbox::Command),
    /// Keep the users file
    #[command(subcommand)]
    User(user::Command),
    /// Say step by step where mail for an address goes
    Explain {
        /// The address; without a domain it is in this host's
        address: String,
    },
}

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), mailctl)
}

fn mailctl(arguments: &Args) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    match &arguments.command {
        Command::Check => check(&config),
        Command::Mailbox(command) => mailbox::run(&config, command),
        Command::User(command) => user::run(&config, command),
        Command::Explain { address } => explain(&config, address),
    }
}

/// Prints what is wrong, a line each; `Exit::Config` where there is anything.
fn check(config: &Config) -> Result<Exit, Failure> {
    let mut problems = Vec::new();
    queue(config, &mut problems);
    tls(config, &mut problems);
    programs(config, &mut problems);
    users(config, &mut problems);
    inboxes(config, &mut problems);
    tables(config, &mut problems);
    for problem in &problems {
        super::complain("mailctl", problem);
    }
    if !problems.is_empty() {
        return Ok(Exit::Config);
    }
    writeln!(io::stdout(), "The configuration of {} is sound.", config.hostname)
        .map_err(|error| Failure::new(Exit::IoErr, error))?;
    Ok(Exit::Ok)
}

fn queue(config: &Config, problems: &mut Vec<String>) {
    let spool = Spool::new(&config.paths.queue);
    let owner = match spool.owner() {
        Ok(owner) => owner,
        Err(error) => {
            problems.push(format!("[paths] queue: {}: {error}", spool.root().display()));
            return;
        }
    };
    for (name, mode) in queue::spool::DIRECTORIES {
        let path = spool.root().join(name);
        // What is missing is made by the first program that needs it.
        let Ok(found) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let path = path.display();
        if !found.is_dir() || found.uid() != owner.uid.as_raw() {
            problems
                .push(format!("{path}: is no directory of the queue's owner (uid {})", owner.uid));
        } else if found.mode() & 0o7777 != mode {
            let now = found.mode() & 0o7777;
            problems.push(format!("{path}: has mode {now:04o}; chmod {mode:04o} {path}"));
        }
    }
}

fn tls(config: &Config, problems: &mut Vec<String>) {
    let (smtp, pop3, imap) = (&config.smtp.tls, &config.pop3.tls, &config.imap.tls);
    for (section, certificates, keys) in [
        ("smtp", &smtp.certificate, &smtp.key),
        ("pop3", &pop3.certificate, &pop3.key),
        ("imap", &imap.certificate, &imap.key),
    ] {
        let Some(mut identity) = Identity::of(certificates, keys) else {
            continue;
        };
        let mut errors = identity.read();
        // Of a file that could not be read there is nothing more to say.
        let examined = examine(&identity, clock::seconds()).into_iter();
        let is_new = |error: &Error| errors.iter().all(|other| other.file() != error.file());
        let more: Vec<_> = examined.filter(is_new).collect();
        errors.extend(more);
        problems.extend(errors.iter().map(|error| format!("[{section}.tls] {error}")));
    }
    client_certificates(config, problems);
}

fn client_certificates(config: &Config, problems: &mut Vec<String>) {
    let file = &config.smtp.tls.client_certificates;
    if file.as_os_str().is_empty() {
        return;
    }
    match certificates::read(file) {
        Ok(lines) => {
            for line in lines {
                match line.map(|(_, user)| (find_account(config, &user), user)) {
                    Ok((Ok(Some(_)), _)) => {}
                    Ok((Ok(None), user)) => {
                        problems.push(format!("{}: there is no user {user}", file.display()));
                    }
                    Ok((Err(error), user)) => problems.push(format!("user {user}: {error}")),
                    Err(what) => problems.push(what),
                }
            }
        }
        Err(error) => problems.push(format!("[smtp.tls] client_certificates: {error}")),
    }
}

fn programs(config: &Config, problems: &mut Vec<String>) {
    for name in ["local-deliver", "dotlock"] {
        let path = config.paths.libexec.join(name);
        if access(&path, AccessFlags::X_OK).is_err() {
            problems.push(format!("[paths] libexec: {}: no such program", path.display()));
        }
    }
}

fn users(config: &Config, problems: &mut Vec<String>) {
    if let Err(failure) = super::login_account(config) {
        problems.push(failure.what);
    }
    if config.users.source == Source::File {
        match users_file::read(&config.users.file) {
            Ok(lines) => {
                problems.extend(
                    lines.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string),
                );
            }
            Err(error) => problems.push(format!("{}: {error}", config.users.file.display())),
        }
    }
    let service = &config.auth.pam_service;
    let is_there = |directory| Path::new(directory).join(service).exists();
    if !service.is_empty() && !PAM.into_iter().any(is_there) {
        problems.push(format!(
            "[auth] pam_service: there is no /etc/pam.d/{service}, so that PAM takes the rules of its \
             service \"other\"; copy share/hikyaku/pam there"
        ));
    }
    match app_passwords::read(&config.users.app_passwords) {
        Ok(lines) => problems
            .extend(lines.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string)),
        Err(error) => problems.push(error.to_string()),
    }
    let postmaster = Address::new("postmaster", config.origin()).map_err(|error| error.to_string());
    let leads = postmaster.and_then(|address| follow(config, &Tables::of(config), &address));
    // What is wrong with a line is said where the tables are looked at.
    if leads != Ok(Destination::Account) {
        return;
    }
    match route::account(config, "postmaster") {
        Ok(Some(_)) => {}
        Ok(None) => problems.push(
            "there is neither an alias nor an account postmaster: mail for it is taken (RFC 5321) \
             and waits in the queue"
                .into(),
        ),
        Err(error) => problems.push(format!("account postmaster: {error}")),
    }
}

/// Where PAM looks for the rules of a service.
const PAM: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

/// Every line of the tables, and whether who runs the commands of aliases can be found.
fn tables(config: &Config, problems: &mut Vec<String>) {
    let Tables { aliases, virtual_users, access } = Tables::of(config);
    let all =
        [(aliases, Syntax::Aliases), (virtual_users, Syntax::Virtual), (access, Syntax::Access)];
    for (table, syntax) in all {
        match index::check(table.path(), syntax, config.origin()) {
            Ok(summary) => problems.extend(summary.errors.into_iter().chain(summary.warnings)),
            Err(error) if table::is_missing(&error) => {}
            Err(error) => problems.push(format!("{}: {error}", table.path().display())),
        }
    }
    let name = &config.delivery.alias_user;
    if privilege::is_root() && !matches!(Account::by_name(name), Ok(Some(_))) {
        problems.push(format!("[delivery] alias_user: there is no account {name}"));
    }
}

/// Where an address leads, asked as the caller.
pub(super) fn follow(
    config: &Config,
    tables: &Tables,
    address: &Address,
) -> Result<Destination, String> {
    let has_account = |local: &str| Ok(route::account(config, local)?.is_some());
    route::resolve(config, &Files { tables, has_account }, address)
}

fn inboxes(config: &Config, problems: &mut Vec<String>) {
    let Some(directory) = Path::new(&config.paths.inbox).parent() else {
        return;
    };
    if directory.to_str().is_none_or(|text| text.contains('%')) {
        return;
    }
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            problems.push(format!("[paths] inbox: {shown} is no directory"));
        }
        Ok(found) if !directory::is_safe_directory(found.mode()) => problems.push(format!(
            "[paths] inbox: {shown} can be written by everybody and has no sticky bit; \
             chmod 1777 {shown}, or 2775 with group mail"
        )),
        Ok(_) => {}
        Err(error) => problems.push(format!("[paths] inbox: {shown}: {error}")),
    }
}
