//! One alias file and one table of virtual users, given to us and to Debian's Postfix: who gets a
//! message to each name, from whom, and what the sender is told.
//!
//! Where both do the same a case has one line of facts. Where they differ it has Postfix's, too,
//! and why: those are the lines of "Where Postfix differs" in hikyaku-aliases(5).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::mta::{Kind, Mta};
use support::peer::Peer;
use support::run::{Server, run};
use support::site::{HOST, Site, must};
use support::{entry, find, mbox, need, report, wait_until};

const NONE: [&str; 0] = [];
/// Domains with accounts and aliases.
const DOMAINS: [&str; 4] = ["smkwlab.net", HOST, "both.example", "catch.example"];
const SENDER: &str = "far@sender.example";

/// A case of `tests/aliases/*.txt`: what a message to a name leads to.
struct Case {
    /// `> TO`: whom it is sent to; several with commas.
    to: Vec<String>,
    /// `| LINE`: what the table has for it.
    lines: String,
    /// `both FACTS` or `we FACTS`: what comes of it, in the order of the alphabet.
    facts: String,
    /// `Postfix FACTS`, where that is something else, and `because WHY`.
    postfix: Option<(String, String)>,
}

/// The cases of a file.
fn cases(name: &str) -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aliases").join(name);
    let mut cases = Vec::new();
    for block in fs::read_to_string(file).unwrap().trim_end().split("\n\n") {
        let all = |key: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix(key));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let one = |key: &str| all(key).pop().map(|value| value.trim().to_owned());
        let [to] = &all("> ")[..] else { panic!("no case: {block}") };
        let address = |to: &str| {
            if to.contains('@') { to.to_owned() } else { format!("{to}@smkwlab.net") }
        };
        let lines = all("| ").into_iter().map(|line| line.replace("@CR@", "\r") + "\n");
        let case = Case {
            to: to.split(',').map(address).collect(),
            lines: lines.collect(),
            facts: one("both ").or(one("we ")).expect(block),
            postfix: one("Postfix ").map(|facts| (facts, one("because ").expect(block))),
        };
        let differs = case.postfix.as_ref().is_some_and(|(facts, _)| *facts != case.facts);
        assert_eq!(differs, one("we ").is_some(), "{block}");
        cases.push(case);
    }
    cases
}

/// A host with the tables, and the host that takes its mail for elsewhere.
struct Host {
    site: Site,
    elsewhere: Site,
    _server: Server,
    smarthost: SocketAddr,
}

impl Host {
    fn new() -> Self {
        let elsewhere = Site::new();
        let (server, smarthost) = elsewhere.serve("smtpd");
        let site = Site::plan()
            .named(HOST, &DOMAINS)
            .set("delivery", "smarthost", &format!("\"[127.0.0.1]:{}\"", smarthost.port()))
            .set("", "relay_domains", "[\"relay.example\"]")
            .set("smtp", "relay_networks", "[]")
            .build();
        let key = format!("[paths]\nvirtual = \"{}\"", site.path().join("virtual").display());
        let text = fs::read_to_string(site.configuration()).unwrap();
        fs::write(site.configuration(), text.replace("[paths]", &key)).unwrap();
        site.let_users_send();
        let open = site.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        let script = format!(
            "#!/bin/sh\ncase=$(sed -n 's/^Subject: //p')\n\
             echo \"$case ran $* from $SENDER to $RECIPIENT\" >>{}/ran\n",
            open.display()
        );
        let run = site.path().join("run");
        fs::write(&run, script).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        Self { site, elsewhere, _server: server, smarthost }
    }

    /// A table with the lines of all cases and more.
    fn write(&self, name: &str, text: &str) {
        let at = self.site.path();
        let text = text.replace("@DIR@", at.join("open").to_str().unwrap());
        let text = text.replace("@RUN@", at.join("run").to_str().unwrap());
        fs::write(at.join(name), text).unwrap();
    }

    /// The files that the cases name.
    fn write_files(&self) {
        for (name, text) in [
            ("inc", "hunt, toshi,\n# not this one\n\n  bob\n\"F. Ar\" <far@other.example> (him)\n"),
            ("empty", "# nobody\n\n"),
            ("inc2", "hunt\n:include:@DIR@/inc3\n"),
            ("inc3", "toshi\n:include:@DIR@/inc2\n"),
            ("inc-crlf", "hunt\r\n# no\r\ntoshi,bob\r\n"),
            ("inc-noend", "toshi"),
            ("inc-long", &format!("{}hunt\n", "# a comment of some length\n".repeat(5000))),
            (
                "inc-many",
                &(0..60).map(|n| format!("u{n}@far.example\n")).collect::<Vec<_>>().concat(),
            ),
            ("with-command", "hunt\n\"|@RUN@ included\"\n"),
            ("with-file", "hunt\n@DIR@/included\n"),
        ] {
            self.write(&format!("open/{name}"), text);
        }
        fs::create_dir(self.site.path().join("open/dir")).unwrap();
        self.site.write_home("alice", ".forward", "\\alice, toshi, fwdlist\n");
        self.site.write_home("bob", ".forward+list", "hunt\n");
    }

    /// What came of each case, besides what was refused. `waiting` are the messages in the queue.
    fn facts(&self, mut all: Facts, waiting: Vec<Vec<u8>>) -> Facts {
        let mut add = |text: &[u8], fact: String| {
            all.entry(case_of(text)).or_default().push(fact);
        };
        for account in Site::accounts() {
            for message in self.site.messages(account.name) {
                add(&message.body, fact_of(account.name, &message));
            }
        }
        let open = self.site.path().join("open");
        for file in files(&open) {
            let name = file.strip_prefix(&open).unwrap().to_str().unwrap();
            // A message of a Maildir has a name of its own.
            let name = name.split("/new/").next().unwrap();
            let text = fs::read(&file).unwrap();
            if name == "ran" {
                for line in String::from_utf8(text).unwrap().lines() {
                    let (_, fact) = line.split_once(' ').unwrap();
                    add(format!("Subject: {line}").as_bytes(), fact.to_owned());
                }
            } else if text.starts_with(b"From ") || file.parent().unwrap().ends_with("new") {
                for message in mbox::parse(&text) {
                    add(&text, fact_of(&format!("file {name}"), &message));
                }
            }
        }
        for name in self.elsewhere.queued_in("incoming") {
            let entry = entry::read(&self.elsewhere.queue().join("incoming").join(name)).unwrap();
            let text = String::from_utf8(entry.content).unwrap().replace("\r\n", "\n");
            let text = format!("From x\nReturn-Path: <{}>\n{text}", entry.sender);
            let message = mbox::parse(text.as_bytes()).remove(0);
            for to in &entry.recipients {
                add(text.as_bytes(), fact_of(to, &message));
            }
        }
        for text in waiting {
            add(&text, "waits".into());
        }
        for fact in all.values_mut().flatten() {
            *fact = fact.replace(open.to_str().unwrap(), "@DIR@");
            *fact = fact.replace(self.site.path().join("run").to_str().unwrap(), "@RUN@");
        }
        for facts in all.values_mut() {
            facts.sort();
        }
        all
    }
}

/// All files below a directory.
fn files(at: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The case whose message this is, or whose message it returns.
fn case_of(text: &[u8]) -> usize {
    let text = String::from_utf8_lossy(text);
    let number = text.split_once("case-").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().ok()
    });
    number.unwrap_or_else(|| panic!("no case's message: {text}"))
}

/// Who got it: the name, with the sender where that is another one than it was; or of whom a report
/// tells.
fn fact_of(name: &str, message: &mbox::Message) -> String {
    let sender = message.field("Return-Path").unwrap_or("?");
    if message.field("Content-Type").is_some_and(|kind| kind.contains("multipart/report")) {
        let report = report::of_message(message);
        let about = [vec![report.recipient], report.others].concat().join(" and ");
        assert_eq!(sender, "<>", "{message:?}");
        return format!("{name} hears that {about} {} {}", report.action, report.status);
    }
    if sender == format!("<{SENDER}>") { name.to_owned() } else { format!("{name} from {sender}") }
}

/// The message of a case.
fn message(number: usize) -> String {
    format!("Subject: case-{number}\n\ncase-{number}\n")
}

/// What came of each case.
type Facts = BTreeMap<usize, Vec<String>>;

/// Sends one message for each case; those that were refused.
fn send_all(address: SocketAddr, cases: &[Case]) -> Facts {
    let mut peer = Peer::connect(address);
    peer.greet();
    let mut refused = Facts::new();
    for (number, case) in cases.iter().enumerate() {
        let to: Vec<&str> = case.to.iter().map(String::as_str).collect();
        let reply = peer.mail(SENDER, &to, message(number).as_bytes());
        if !reply.starts_with("250 ") {
            let (code, _) = reply.split_once(' ').unwrap();
            refused.insert(number, vec![format!("refused with {code}")]);
            peer.command("RSET");
        }
    }
    peer.command("QUIT");
    refused
}

/// Gives us the messages, and runs the queue as long as there is something new in it.
fn ours(host: &Host, cases: &[Case]) -> Facts {
    let (server, address) = host.site.serve("smtpd");
    let refused = send_all(address, cases);
    drop(server);
    for _ in 0..10 {
        host.site.mta_queue(&NONE);
        if ["incoming", "drop"].iter().all(|name| host.site.queued_in(name).is_empty()) {
            break;
        }
    }
    let mut waiting = Vec::new();
    for name in host.site.queued() {
        let (directory, _) = name.split_once('/').unwrap();
        assert_eq!(directory, "deferred", "{name}");
        waiting.push(entry::read(&host.site.queue().join(name)).unwrap().content);
    }
    host.facts(refused, waiting)
}

/// Starts Postfix on the host with its tables.
fn postfix(host: &Host) -> Mta {
    let at = host.site.path();
    // For who makes its tables before it is started.
    let etc = at.join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    for (program, table) in [("postalias", "aliases"), ("postmap", "virtual")] {
        let table = format!("hash:{}", at.join(table).display());
        must(Command::new(find(program).unwrap()).arg("-c").arg(&etc).arg(table));
    }
    let words = format!(
        "myhostname = {HOST}\nmydestination = {}\nrelay_domains = relay.example
alias_maps = hash:{at}/aliases\nvirtual_alias_maps = hash:{at}/virtual
mail_spool_directory = {at}/mail\nmailbox_command =
default_transport = smtp:[127.0.0.1]:{port}\nrelay_transport = $default_transport
queue_run_delay = 1h\nminimal_backoff_time = 1h
smtpd_soft_error_limit = 1000\nsmtpd_hard_error_limit = 1000",
        DOMAINS.join(", "),
        at = at.display(),
        port = host.smarthost.port()
    );
    Mta::start_for(Kind::Postfix, &host.site, &words)
}

/// Gives Postfix the messages, and waits until each has been tried.
fn theirs(host: &Host, mta: &Mta, cases: &[Case]) -> Facts {
    let refused = send_all(mta.address(), cases);
    // What a message becomes is in the queue before the message leaves it.
    let busy = || {
        let listed = must(mta.command("postqueue").arg("-j"));
        let busy = |line: &&str| !line.contains("\"queue_name\": \"deferred\"");
        listed.lines().filter(busy).count()
    };
    let mut quiet = 0;
    wait_until("Postfix to have tried all", || {
        quiet = if busy() == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(50));
        (quiet == 5).then_some(())
    });
    let listed = must(mta.command("postqueue").arg("-j"));
    let ids = listed.lines().map(|line| {
        let (_, rest) = line.split_once("\"queue_id\": \"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    });
    let waiting =
        ids.map(|id| run(mta.command("postcat").arg("-bhq").arg(id), b"").expect(0).stdout);
    host.facts(refused, waiting.collect())
}

/// Holds what came of each case against what is said of it; all that is wrong at once.
#[track_caller]
fn compare(name: &str, hosts: &[Host; 2], mta: &Mta) {
    let cases = cases(name);
    let (ours, theirs) = (ours(&hosts[0], &cases), theirs(&hosts[1], mta, &cases));
    let mut wrong = String::new();
    for (number, case) in cases.iter().enumerate() {
        let text =
            |facts: &Facts| facts.get(&number).map_or("nothing".into(), |facts| facts.join(", "));
        let (us, them) = (text(&ours), text(&theirs));
        let wanted = case.postfix.as_ref().map_or(&case.facts, |(facts, _)| facts);
        if us != case.facts || them != *wanted {
            let (to, lines) = (case.to.join(","), &case.lines);
            writeln!(wrong, "> {to}\n{lines}we       {us}\nPostfix  {them}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
}

/// The lines that all cases of a file have in the table.
fn lines(name: &str) -> String {
    cases(name).into_iter().map(|case| case.lines).collect()
}

#[test]
fn a_message_to_an_alias_comes_where_postfix_brings_it() {
    if !Kind::Postfix.need() {
        return;
    }
    let hosts = [Host::new(), Host::new()];
    for host in &hosts {
        host.write_files();
        host.write("aliases", &lines("local.txt"));
        host.write("virtual", "");
    }
    let mta = postfix(&hosts[1]);
    compare("local.txt", &hosts, &mta);
}

#[test]
fn a_message_to_a_virtual_user_comes_where_postfix_brings_it() {
    if !Kind::Postfix.need() {
        return;
    }
    let hosts = [Host::new(), Host::new()];
    for host in &hosts {
        host.write_files();
        host.write("aliases", "postmaster: toshi\nvlist: hunt, toshi\n");
        host.write("virtual", &lines("virtual.txt"));
    }
    let mta = postfix(&hosts[1]);
    compare("virtual.txt", &hosts, &mta);
}

/// The lines of a wrong alias file: whether we complain of them, and what postalias says of them.
const WRONG: [(&str, bool, &str); 15] = [
    (" begins: hunt", true, "must not start with whitespace: \" begins: hunt\""),
    ("nothing:", true, "line 2: need name:value pair"),
    ("nocolon hunt", true, "line 3: need name:value pair"),
    ("right: hunt", false, ""),
    ("user@domain: hunt", true, "line 5: name must be local"),
    ("twice: hunt", false, ""),
    ("twice: toshi", true, "duplicate entry: \"twice\""),
    (": hunt", true, "line 8: need name:value pair"),
    ("\"open: hunt", true, "line 9: need name:value pair"),
    // These are for whoever sends there to find out.
    ("two words: hunt", true, ""),
    ("quote: \"hunt", true, ""),
    ("command: \"|\"", true, ""),
    ("relative: :include:hunt", true, ""),
    ("h\u{fc}nt: hunt", true, ""),
    ("last: hunt", false, ""),
];

#[test]
fn newaliases_complains_of_each_line_that_postalias_complains_of() {
    if !need("postalias") {
        return;
    }
    let site = Site::new();
    let aliases = site.path().join("aliases");
    let text: Vec<&str> = WRONG.iter().map(|(line, ..)| *line).collect();
    fs::write(&aliases, text.join("\n") + "\n").unwrap();
    let ours = run(site.command("sendmail").arg("-bi"), b"").expect(65).stderr;
    let etc = site.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    let mut postalias = Command::new(find("postalias").unwrap());
    postalias.arg("-c").arg(&etc).arg(format!("hash:{}", aliases.display()));
    let theirs = run(&mut postalias, b"").expect(0).stderr;
    for (number, (line, us, them)) in (1..).zip(WRONG) {
        assert_eq!(ours.contains(&format!("aliases:{number}: ")), us, "{line}: {ours}");
        assert!(theirs.contains(them), "{line}: {theirs}");
    }
    let told = WRONG.iter().filter(|(.., them)| !them.is_empty());
    assert_eq!(theirs.lines().count(), told.count(), "{theirs}");
}
