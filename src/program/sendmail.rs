//! `sendmail`: submission by a command; also `mailq` and `newaliases`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use nix::unistd::User;

use super::{Common, Failure, load, prepare_queue, run, start};
use crate::config::{Config, Wakeup};
use crate::message::submission::{Missing, Scan, complete, recipients as header_recipients};
use crate::message::{Address, date, list};
use crate::queue::{Envelope, Id, Inlet, Origin, Spool, Wake};
use crate::route::Tables;
use crate::route::index::{self, Summary};
use crate::route::table::{self, Syntax};
use crate::server::Connection;
use crate::server::smtp::{Server, Service};
use crate::smtp::dsn::{EnvelopeId, Notify, Ret};
use crate::smtp::{Body, Recipient};
use crate::sys::jail::Jail;
use crate::sys::{Exit, Log, clock, privilege, process};
use crate::text::canonical::Reader;

/// The longest header that is taken.
const MAX_HEADER: usize = 16 << 20;

/// Submission command: puts the message on stdin into the queue.
///
/// As mailq it lists the queue; as newaliases it indexes aliases and other tables.
#[derive(Debug, Parser)]
#[command(
    name = "sendmail",
    version,
    // The last one counts: PHP and others add options to those that are configured.
    args_override_self = true,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Take recipients from To, Cc and Bcc as well; remove Bcc
    #[arg(short = 't')]
    from_header: bool,
    /// A line with a single dot does not end the message
    #[arg(short = 'i')]
    ignore_dots: bool,
    /// The envelope's sender
    #[arg(short = 'f', value_name = "ADDRESS", visible_short_alias = 'r')]
    sender: Option<OsString>,
    /// The sender's full name, for a From field that is missing
    #[arg(short = 'F', value_name = "NAME")]
    full_name: Option<OsString>,
    /// m: send; s: SMTP; p: list the queue; i: as newaliases
    #[arg(short = 'b', value_name = "MODE", default_value = "m", hide_default_value = true,
        hide_possible_values = true, value_parser = ["m", "s", "p", "i"])]
    mode: String,
    /// Run the queue now; a TIME is refused
    #[arg(short = 'q', value_name = "TIME", num_args = 0..=1, require_equals = true,
        default_missing_value = "")]
    run_queue: Option<String>,
    /// i: as -i; any other option is accepted and has no effect
    #[arg(short = 'o', value_name = "OPTION")]
    option: Vec<String>,
    /// Report: never, or some of success,failure,delay
    #[arg(short = 'N', value_name = "WHEN", value_parser = notify)]
    notify: Option<Notify>,
    /// A report of a failure returns: full or hdrs
    #[arg(short = 'R', value_name = "WHAT", value_parser = ret)]
    ret: Option<Ret>,
    /// What reports call this message
    #[arg(short = 'V', value_name = "ENVID", value_parser = envelope_id)]
    envelope_id: Option<EnvelopeId>,
    /// Other programs' wishes: accepted, without effect
    #[arg(short = 'B', value_name = "VALUE", short_aliases = ['O', 'L', 'A', 'h'])]
    body: Option<OsString>,
    /// Accepted, without effect
    #[arg(short = 'v', short_aliases = ['m', 'n', 'U', 'G'])]
    verbose: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Recipients
    #[arg(value_name = "RECIPIENT")]
    recipients: Vec<OsString>,
}

/// Runs the program.
pub fn main() -> Exit {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name);
    if name == Some(OsStr::new("mailq")) {
        arguments.push("-bp".into());
    }
    if name == Some(OsStr::new("newaliases")) {
        arguments.push("-bi".into());
    }
    // -q15m: the value is attached or not there at all, or else it would eat a recipient.
    for argument in &mut arguments {
        if let Some(time) = argument.to_str().and_then(|text| text.strip_prefix("-q"))
            && !time.is_empty()
            && !time.starts_with('=')
        {
            *argument = format!("-q={time}").into();
        }
    }
    run(arguments, sendmail)
}

fn sendmail(arguments: &Args) -> Result<Exit, Failure> {
    start()?;
    let config = load(&arguments.common)?;
    match (arguments.mode.as_str(), &arguments.run_queue) {
        ("p", _) => mta_queue(arguments, Some("--list")),
        ("i", _) => new_aliases(&config),
        (_, Some(time)) if time.is_empty() => mta_queue(arguments, None),
        (_, Some(time)) => Err(Failure::new(
            Exit::Usage,
            format!("-q{time}: no daemon stays here; mta-queue's timer or cron does that"),
        )),
        ("s", _) => smtp(&config),
        _ => submit(arguments, &config),
    }
}

/// Becomes mta-queue, without the group that we were given.
fn mta_queue(arguments: &Args, flag: Option<&str>) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::OsErr, error);
    privilege::drop_setgid().map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?.with_file_name("mta-queue");
    let mut argv = vec![OsStr::new("mta-queue")];
    argv.extend(flag.map(OsStr::new));
    if let Some(config) = &arguments.common.config {
        argv.extend([OsStr::new("-C"), config.as_os_str()]);
    }
    let error = process::exec(&program, &argv, &[], io::stdin(), io::stdout());
    Err(Failure::new(Exit::OsFile, format!("{}: can't be run: {error}", program.display())))
}

/// `-bi`: makes the index of each table that is there, and says what is wrong with its lines.
fn new_aliases(config: &Config) -> Result<Exit, Failure> {
    privilege::drop_setgid().map_err(|error| Failure::new(Exit::OsErr, error))?;
    let mut exit = Exit::Ok;
    let tables = Tables::of(config);
    for (table, syntax, what) in [
        (&tables.aliases, Syntax::Aliases, "aliases"),
        (&tables.virtual_users, Syntax::Virtual, "virtual users"),
        (&tables.access, Syntax::Access, "access lines"),
    ] {
        let path = table.path().display();
        let summary = match index::compile(table.path(), syntax, config.origin()) {
            Ok(summary) => summary,
            // Nobody needs to have virtual users.
            Err(error) if table::is_missing(&error) && syntax != Syntax::Aliases => continue,
            Err(error) => {
                super::complain("newaliases", &format!("{path}: {error}"));
                exit = Exit::CantCreat;
                continue;
            }
        };
        for problem in summary.errors.iter().chain(&summary.warnings) {
            super::complain("newaliases", problem);
        }
        if !summary.errors.is_empty() {
            exit = Exit::DataErr;
            continue;
        }
        let Summary { count, longest, total, .. } = summary;
        let line =
            format!("{path}: {count} {what}, longest {longest} bytes, {total} bytes total\n");
        io::stdout()
            .write_all(line.as_bytes())
            .map_err(|error| Failure::new(Exit::IoErr, error))?;
    }
    Ok(exit)
}

/// `-bs`: the SMTP server's own session, into drop/; with root as smtpd has it, into incoming/,
/// since the session must not be root and nobody else's file in drop/ would be root's.
fn smtp(config: &Config) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::OsErr, error);
    let log = Log::open("sendmail", config.log.into());
    let spool = Spool::new(&config.paths.queue);
    let (inlet, owner) = if privilege::is_root() {
        let owner = prepare_queue(&spool)?;
        (spool.incoming().map_err(failed)?, Some(owner))
    } else {
        (drop_box(&spool)?, None)
    };
    let server = Server {
        config,
        log: &log,
        inlet,
        wake: Wake::wanted(config),
        jail: Jail::prepare().map_err(failed)?,
        knows_users: false,
        owner,
    };
    let connection = Connection::on_stdin_and_stdout().map_err(failed)?;
    Ok(server.session(connection, Service::Smtp, None, None))
}

/// The directory that sendmail may create entries in.
fn drop_box(spool: &Spool) -> Result<Inlet, Failure> {
    let failed = |error| {
        Failure::new(
            Exit::TempFail,
            format!("{}: can't put a message there: {error}", spool.root().join("drop").display()),
        )
    };
    match spool.owner() {
        // Root needs no setgid bit, but the queue's owner reads the file by its group.
        Ok(owner) if privilege::is_root() => privilege::take_group(owner.gid).map_err(failed)?,
        // A private queue: make what is missing. Elsewhere it is not ours to make.
        Ok(_) if !privilege::is_elevated() => drop(prepare_queue(spool)?),
        _ => {}
    }
    spool.drop_box().map_err(failed)
}

/// `-N` (RFC 3461 section 4.1).
fn notify(value: &str) -> Result<Notify, &'static str> {
    Notify::parse(value.as_bytes()).ok_or("never, or some of success,failure,delay is wanted")
}

/// `-R` (RFC 3461 section 4.3).
fn ret(value: &str) -> Result<Ret, &'static str> {
    Ret::parse(value.as_bytes()).ok_or("full or hdrs is wanted")
}

/// `-V`, in the form of ENVID (RFC 3461 section 4.4).
fn envelope_id(value: &str) -> Result<EnvelopeId, &'static str> {
    EnvelopeId::parse(value.as_bytes()).ok_or("at most 100 characters of xtext are wanted")
}

/// An argument as text: UTF-8, and nothing in it that could end a line.
fn text(argument: &OsStr) -> Result<&str, Failure> {
    let bad = || {
        let what = format!("{}: not UTF-8, or a control character", argument.display());
        Failure::new(Exit::DataErr, what)
    };
    argument.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(bad)
}

fn submit(arguments: &Args, config: &Config) -> Result<Exit, Failure> {
    let bad = |what: String| Failure::new(Exit::DataErr, what);
    let origin = config.origin();
    let caller = caller(origin)?;
    let sender = match &arguments.sender {
        None => Some(caller.address.clone()),
        Some(sender) => match text(sender)? {
            "" | "<>" => None,
            sender => match list::addresses(sender.as_bytes(), origin).map_err(bad)?.as_slice() {
                [one] => Some(one.clone()),
                _ => return Err(bad(format!("-f {sender}: one address is wanted"))),
            },
        },
    };
    let mut recipients = Vec::new();
    for argument in &arguments.recipients {
        recipients.extend(list::addresses(text(argument)?.as_bytes(), origin).map_err(bad)?);
    }
    let ignore_dots = arguments.ignore_dots || arguments.option.iter().any(|option| option == "i");
    let mut reader = Reader::new(io::stdin().lock(), !ignore_dots);
    let (mut start, mut scan) = (Vec::new(), Scan::default());
    let end = loop {
        let more = reader.read(&mut start).map_err(|error| unreadable(&error))?;
        if let Some(end) = scan.header_end(&start, !more) {
            break end;
        }
        if start.len() > MAX_HEADER {
            return Err(bad(format!("the header is longer than {MAX_HEADER} bytes")));
        }
    };
    let header = start.get(end.start..end.header).unwrap_or_default();
    if arguments.from_header {
        recipients.extend(header_recipients(header, origin).map_err(bad)?);
    }
    let mut unique: Vec<Address> = Vec::new();
    for recipient in recipients {
        if !unique.iter().any(|other| other.is_same(&recipient)) {
            unique.push(recipient);
        }
    }
    if unique.is_empty() {
        let hint = if arguments.from_header { "" } else { "; give some, or -t" };
        return Err(Failure::new(Exit::Usage, format!("the message has no recipients{hint}")));
    }
    if unique.len() > config.smtp.max_recipients {
        let most = config.smtp.max_recipients;
        return Err(bad(format!("more than {most} recipients ([smtp] max_recipients)")));
    }
    let now = clock::now();
    let spool = Spool::new(&config.paths.queue);
    let inlet = drop_box(&spool)?;
    let id = Id::new().map_err(|error| Failure::new(Exit::OsErr, error))?;
    let header = complete(
        header,
        &Missing {
            sender: sender.as_ref().unwrap_or(&caller.address),
            full_name: match &arguments.full_name {
                Some(name) => text(name)?,
                None => &caller.full_name,
            },
            date: &date::rfc5322(&now),
            message_id: &format!("{id}@{}", config.hostname),
            submitter: None,
        },
    )
    .map_err(bad)?;
    let envelope = Envelope {
        arrived: clock::seconds(),
        origin: Origin::User(nix::unistd::getuid().as_raw()),
        sender,
        body: Body::EightBitMime,
        utf8: false,
        ret: arguments.ret,
        envelope_id: arguments.envelope_id.clone(),
        recipients: unique
            .into_iter()
            .map(|address| Recipient { notify: arguments.notify, ..address.into() })
            .collect(),
    };
    let unwritable = |error: io::Error| {
        Failure::new(
            Exit::TempFail,
            format!("{}: can't keep the message: {error}", spool.root().display()),
        )
    };
    let mut draft = inlet.create(id, &envelope).map_err(unwritable)?;
    draft.write(&header).map_err(unwritable)?;
    draft.write(b"\r\n").map_err(unwritable)?;
    let mut body = start.split_off(end.body);
    loop {
        draft.write(&body).map_err(unwritable)?;
        if draft.size() > config.smtp.max_message_size {
            let most = config.smtp.max_message_size;
            return Err(bad(format!("more than {most} bytes ([smtp] max_message_size)")));
        }
        body.clear();
        if !reader.read(&mut body).map_err(|error| unreadable(&error))? && body.is_empty() {
            break;
        }
    }
    draft.commit().map_err(unwritable)?;
    if config.queue.wakeup != Wakeup::None
        && let Ok(wake) = Wake::open_to_write(spool.root())
    {
        wake.nudge();
    }
    Ok(Exit::Ok)
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::NoInput, format!("stdin: {error}"))
}

/// Who calls, by the real user id.
struct Caller {
    address: Address,
    full_name: String,
}

fn caller(origin: &str) -> Result<Caller, Failure> {
    let uid = nix::unistd::getuid();
    let user = User::from_uid(uid).ok().flatten();
    let name = user.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let address = Address::parse(format!("{name}@{origin}").as_bytes())
        .map_err(|error| Failure::new(Exit::NoUser, format!("user {name}: {error}")))?;
    let gecos = user.map(|user| user.gecos.to_string_lossy().into_owned()).unwrap_or_default();
    let full_name = gecos.split(',').next().unwrap_or_default().to_owned();
    Ok(Caller { address, full_name })
}
