//! Alias files, included files and indexes of any content, unreadable, or changing: a session
//! answers soon and rightly, mail waits for what can be mended, and none is lost.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use support::peer::Peer;
use support::run::run;
use support::site::Site;
use support::{is_root, need_root, note};

const NONE: [&str; 0] = [];
const TEXT: &str = "Subject: to all\n\nhello\n";
/// So long may be worked on one address, in a build without optimisation on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Puts a file into its place as a whole.
fn replace(path: &Path, text: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// What a session of its own says to these recipients.
#[track_caller]
fn rcpt(site: &Site, recipients: &[&str]) -> Vec<String> {
    let started = Instant::now();
    let (_server, mut peer) = site.session("smtpd");
    peer.greet();
    peer.command("MAIL FROM:<far@sender.example>");
    let ask = |to: &&str| peer.command(format!("RCPT TO:<{to}@smkwlab.net>"))[..3].to_owned();
    let said = recipients.iter().map(ask).collect();
    assert!(started.elapsed() < SOON, "{recipients:?}: {:?}", started.elapsed());
    said
}

/// One run of the queue, which ends soon; what it has logged.
#[track_caller]
fn run_queue(site: &Site, arguments: &[&str]) -> String {
    let started = Instant::now();
    let log = site.mta_queue(arguments).expect(0).stderr;
    assert!(started.elapsed() < 2 * SOON, "{:?}: {log}", started.elapsed());
    log
}

fn count(site: &Site, user: &str) -> usize {
    site.messages(user).len()
}

/// What an alias file may look like around one good line; what is said to mail for `bad`, and what
/// the log says of it, where it waits.
fn contents() -> Vec<(&'static str, Vec<u8>, &'static str, Option<&'static str>)> {
    let members = |count: usize| (0..count).map(|n| format!("u{n},")).collect::<Vec<_>>().concat();
    let good = "good: hunt\n";
    let text = |text: String| text.into_bytes();
    vec![
        ("a comment of 1.25 MB", text(format!("#{}\n{good}", "x".repeat(5 << 18))), "550", None),
        ("a key of 1.25 MB", text(format!("{}: hunt\n{good}", "x".repeat(5 << 18))), "550", None),
        ("no colon in 1.25 MB", text(format!("{}\n{good}", "x".repeat(5 << 18))), "550", None),
        ("a member of 1.25 MB", text(format!("bad: {}\n{good}", "x".repeat(5 << 18))), "451", None),
        (
            "a million members",
            text(format!("bad: {}hunt\n{good}", members(1_000_000))),
            "451",
            None,
        ),
        (
            "a line for each member",
            text(format!("bad: hunt,\n{}\n{good}", " u,\n".repeat(20_000))),
            "250",
            Some("more than 10000 "),
        ),
        ("NUL in a member", b"bad: hu\0nt\ngood: hunt\n".to_vec(), "250", Some("control")),
        ("NUL in a key", b"ba\0d: hunt\ngood: hunt\n".to_vec(), "550", None),
        ("NULs alone", [&[0; 5000][..], b"\ngood: hunt\n"].concat(), "550", None),
        ("no UTF-8", b"bad: h\xffnt\ngood: hunt\n".to_vec(), "250", Some("UTF-8")),
        ("no UTF-8 in a key", b"b\xffd: hunt\ngood: hunt\n".to_vec(), "550", None),
        ("a quote", b"bad: \"hunt\ngood: hunt\n".to_vec(), "250", Some("quote is not closed")),
        ("a quote in a key", b"\"bad: hunt\ngood: hunt\n".to_vec(), "550", None),
        (
            "a comment in no bracket",
            b"bad: hunt (\ngood: hunt\n".to_vec(),
            "250",
            Some("aliases:1: "),
        ),
        ("CRLF", b"bad: \"hunt\r\n # c\r\n\r\ngood: hunt\r\n".to_vec(), "250", Some("aliases:1: ")),
        ("no line end", b"bad: |\n\ngood: hunt".to_vec(), "250", Some("aliases:1: ")),
        ("a blank first", b" bad: hunt\n\t\ngood: hunt\n".to_vec(), "550", None),
        ("nothing", b"bad:\n \n#\ngood: hunt\n".to_vec(), "250", Some("nothing behind it")),
        (
            "a key twice",
            b"bad: \x07\nbad: hunt\ngood: hunt\ngood: \x07\n".to_vec(),
            "250",
            Some("aliases:1: "),
        ),
        (
            "many short lines",
            text(format!("{}bad: :include:x\n{good}", "a:b\n\n".repeat(20_000))),
            "250",
            Some("aliases:40001: "),
        ),
        (
            "many colons and quotes",
            text(format!("{}\nbad: {}\n{good}", ":\"\\".repeat(100_000), ":;\"".repeat(50_001))),
            "250",
            Some("aliases:2: "),
        ),
        (
            "many brackets",
            text(format!("bad: {}\n{good}", "(<".repeat(100_000))),
            "250",
            Some("aliases:1: "),
        ),
    ]
}

#[test]
fn an_alias_file_of_any_content_costs_the_mail_for_its_bad_line_and_no_other() {
    let site = Site::new();
    let aliases = site.path().join("aliases");
    for (number, (what, text, code, reason)) in (1..).zip(contents()) {
        replace(&aliases, &text);
        assert_eq!(rcpt(&site, &["good", "bad", "neither"]), ["250", code, "550"], "{what}");
        let to: &[&str] = match reason {
            Some(_) => &["good@smkwlab.net", "bad@smkwlab.net"],
            None => &["good@smkwlab.net"],
        };
        site.submit("far@sender.example", to, TEXT);
        let log = run_queue(&site, &NONE);
        assert_eq!(count(&site, "hunt"), number, "{what}: {log}");
        if let Some(reason) = reason {
            let [name] = &site.queued_in("deferred")[..] else { panic!("{what}: {log}") };
            let told = log.lines().any(|line| line.contains("dsn=4.3.5") && line.contains(reason));
            assert!(told, "{what}: {log}");
            fs::remove_file(site.queue().join("deferred").join(name)).unwrap();
        }
        assert_eq!(site.queued(), NONE, "{what}");
        // Nor do those who look it through stumble.
        let ran = run(site.command("sendmail").arg("-bi"), b"");
        assert!([Some(0), Some(65)].contains(&ran.code()), "{what}: {ran}");
    }
}

#[test]
fn a_key_that_looks_like_a_command_or_a_file_is_a_name() {
    let site = Site::new();
    let keys =
        ["\"|id\"", "\"/etc/passwd\"", "|id", "/etc/passwd", "\":include:/x\"", "\"\\\\hunt\""];
    let lines = keys.map(|key| format!("{key}: hunt\n")).concat();
    fs::write(site.path().join("aliases"), lines).unwrap();
    let to: Vec<String> = keys.iter().map(|key| format!("{key}@smkwlab.net")).collect();
    for to in &to {
        site.submit("far@sender.example", &[to], TEXT);
    }
    run_queue(&site, &NONE);
    assert_eq!(count(&site, "hunt"), keys.len());
    assert_eq!(site.queued(), NONE);
}

/// An alias of this name that includes a file of this name.
fn including(site: &Site, names: &[&str]) {
    let at = site.path().display();
    let lines = names.iter().map(|name| format!("{name}: :include:{at}/lists/{name}\n"));
    fs::write(site.path().join("aliases"), lines.collect::<Vec<_>>().concat()).unwrap();
}

#[test]
fn an_included_file_of_any_kind_costs_the_mail_for_its_list_and_no_other() {
    let site = Site::new();
    let lists = site.path().join("lists");
    fs::create_dir(&lists).unwrap();
    let at = |name: &str| lists.join(name);
    let here = lists.display();
    let write = |name: &str, text: &[u8]| fs::write(at(name), text).unwrap();
    // Good ones.
    write("plain", b"hunt");
    write("open", b"hunt\n");
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
    write("others", b"hunt\n");
    if is_root() {
        chown(at("others"), Some(Site::account("alice").uid), None).unwrap();
    }
    symlink(at("plain"), at("link")).unwrap();
    write("loop", format!("hunt\n:include:{here}/loop2\n").as_bytes());
    write("loop2", format!(":include:{here}/loop\n").as_bytes());
    // Bad ones.
    nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o644)).unwrap();
    symlink("/dev/zero", at("device")).unwrap();
    symlink("/dev/full", at("device2")).unwrap();
    symlink("/proc/self/mem", at("memory")).unwrap();
    symlink(at("circle"), at("circle")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    write("nul", b"hunt\nto\0shi\n");
    write("bytes", b"hunt\n\xff\n");
    write("quote", b"hunt\n\"toshi\n");
    write("command", b"hunt\n\"|touch /tmp/never\"\n");
    write("line", &vec![b'x'; 1 << 20]);
    write("long", &b"# a long file\n".repeat(1 << 17));
    write("sparse", b"hunt\n");
    fs::File::options().write(true).open(at("sparse")).unwrap().set_len(1 << 40).unwrap();
    write("members", &b"x,".repeat(10_001));
    // Each the first of a chain.
    for number in 0..3000 {
        write(&format!("deep{number}"), format!(":include:{here}/deep{}\n", number + 1).as_bytes());
    }
    // One file by thousands of names, which has all of them; and one that is large.
    let names = |file: &str| {
        let name = |n: usize| {
            format!(":include:{here}{}{}{file}\n", "/.".repeat(n % 40), "/".repeat(n / 40 + 1))
        };
        (0..3000).map(name).collect::<Vec<_>>().concat()
    };
    write("wide", names("wide").as_bytes());
    write("bulk", names("big").as_bytes());
    write("big", &b"#\n".repeat(1 << 19));
    let good = ["plain", "open", "others", "link", "loop"];
    let reasons = [
        ("fifo", "/fifo: is not a regular file"),
        ("device", "/device: is not a regular file"),
        ("device2", "/device2: is not a regular file"),
        ("memory", "/memory: "),
        ("circle", "/circle: Too many levels of symbolic links"),
        ("directory", "/directory: is not a regular file"),
        ("missing", "/missing: No such file"),
        ("nul", "/nul:2: has a control character"),
        ("bytes", "/bytes:2: is not UTF-8"),
        ("quote", "/quote:2: a quote is not closed"),
        ("command", "/command: an included file may have addresses only"),
        ("line", "/line:1: "),
        ("long", "/long: is longer than 1048576 bytes"),
        ("sparse", "/sparse: is larger than 64 MiB"),
        ("members", "/members:1: more than 10000 entries"),
        ("deep0", "too deeply"),
        ("wide", "too deeply"),
        ("bulk", "the files that are included have more than 64 MiB"),
    ];
    let bad = reasons.map(|(name, _)| name);
    let all = [&good[..], &bad[..]].concat();
    including(&site, &all);
    assert!(rcpt(&site, &all).iter().all(|code| code == "250"), "nobody looks that far");
    for name in &all {
        site.submit("far@sender.example", &[&format!("{name}@smkwlab.net")], TEXT);
    }
    let log = run_queue(&site, &NONE);
    assert_eq!(count(&site, "hunt"), good.len(), "{log}");
    assert_eq!(site.queued_in("deferred").len(), bad.len(), "{log}");
    for (name, reason) in reasons {
        let to = format!("to=<{name}@smkwlab.net>");
        let told = |line: &str| ["dsn=4.3.5", &to, reason].iter().all(|part| line.contains(part));
        assert!(log.lines().any(told), "{name}: {log}");
    }
    assert!(log.lines().all(|line| line.len() < 2000), "what is wrong is not told in full");
    assert_eq!(site.queued().len(), bad.len());
    // Mended, each brings its mail.
    let lines = bad.map(|name| format!("{name}: toshi\n")).concat();
    replace(&site.path().join("aliases"), lines.as_bytes());
    run_queue(&site, &["--flush"]);
    assert_eq!((count(&site, "toshi"), count(&site, "hunt")), (bad.len(), good.len()));
    assert_eq!(site.queued(), NONE);
}

#[test]
fn many_files_that_seem_to_be_unfinished_are_not_waited_for_one_by_one() {
    let site = Site::plan().in_memory().build();
    let file = site.path().join("empty");
    fs::write(&file, "").unwrap();
    thread::sleep(Duration::from_millis(100));
    let names =
        (0..400).map(|depth| format!("{}/{}empty", site.path().display(), "./".repeat(depth)));
    let members = names.map(|name| format!(":include:{}", name.replace("//", "/")));
    let members = members.collect::<Vec<_>>().join(", ");
    replace(&site.path().join("aliases"), format!("list: {members}, hunt\n").as_bytes());
    let started = Instant::now();
    let mut command = site.command("mailctl");
    let text = run(command.args(["explain", "list@smkwlab.net"]), b"").expect(0).text();
    assert!(text.trim_end().ends_with("hunt"), "{text}");
    // One by one they took twenty seconds.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn what_stands_in_the_place_of_the_alias_file_is_not_waited_for_and_not_taken_for_none() {
    let site = Site::new();
    let aliases = site.path().join("aliases");
    let other = site.path().join("other");
    let large = || {
        fs::write(&other, "good: hunt\n").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_len((64 << 20) + 1).unwrap();
        symlink(&other, &aliases).unwrap();
    };
    let fifo = || nix::unistd::mkfifo(&aliases, Mode::S_IRWXU).unwrap();
    let kinds: [(&str, &dyn Fn()); 6] = [
        ("a FIFO", &fifo),
        ("a directory", &|| fs::create_dir(&aliases).unwrap()),
        ("a device", &|| symlink("/dev/zero", &aliases).unwrap()),
        ("a link to itself", &|| symlink(&aliases, &aliases).unwrap()),
        ("a link to nothing", &|| symlink("/no/such/file", &aliases).unwrap()),
        ("a large file", &large),
    ];
    for (number, (what, make)) in (1..).zip(kinds) {
        replace(&aliases, b"good: hunt\n");
        site.submit("far@sender.example", &["good@smkwlab.net"], TEXT);
        fs::remove_file(&aliases).unwrap();
        make();
        assert_eq!(rcpt(&site, &["good", "neither"]), ["451", "451"], "{what}");
        let log = run_queue(&site, &NONE);
        assert_eq!(site.queued_in("deferred").len(), 1, "{what}: {log}");
        let _ = fs::remove_dir(&aliases);
        replace(&aliases, b"good: hunt\n");
        run_queue(&site, &["--flush"]);
        assert_eq!(count(&site, "hunt"), number, "{what}");
    }
}

#[test]
fn an_alias_file_that_the_queue_may_not_read_keeps_its_mail_waiting() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    let aliases = site.path().join("aliases");
    replace(&aliases, b"good: hunt\n");
    fs::set_permissions(&aliases, fs::Permissions::from_mode(0o600)).unwrap();
    site.submit("far@sender.example", &["good@smkwlab.net"], TEXT);
    let log = run_queue(&site, &NONE);
    assert!(log.contains("dsn=4.3.5") && log.contains("/aliases: Permission denied"), "{log}");
    fs::set_permissions(&aliases, fs::Permissions::from_mode(0o644)).unwrap();
    run_queue(&site, &["--flush"]);
    assert_eq!(count(&site, "hunt"), 1);
}

#[test]
fn an_index_of_any_content_or_kind_changes_no_answer() {
    let site = Site::new();
    let (aliases, index) = (site.path().join("aliases"), site.path().join("aliases.index"));
    let newaliases = || drop(run(site.command("sendmail").arg("-bi"), b"").expect(0));
    let text = |member: &str| format!("first: {member}\ngood: {member}\nother: {member}\n");
    fs::write(&aliases, text("hunt")).unwrap();
    newaliases();
    let right = fs::read(&index).unwrap();
    let damaged = |at: usize| {
        let mut bytes = right.clone();
        bytes[at] ^= 1;
        bytes
    };
    // Its records are 24 bytes behind a head of 96.
    let twisted = [&right[..96], &right[120..144], &right[96..120], &right[144..]].concat();
    let states: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("a head cut off", right[..50].to_vec()),
        ("cut off", right[..right.len() - 1].to_vec()),
        ("a record missing", right[..right.len() - 24].to_vec()),
        ("a record more", [&right[..], &right[96..120]].concat()),
        ("damaged at its head", damaged(30)),
        ("damaged in the middle", damaged(96 + 24 + 3)),
        ("records that changed places", twisted),
        ("rubbish", vec![b'\n'; 5000]),
        (
            "another kind's",
            String::from_utf8_lossy(&right[..96]).replace(" a ", " v ").into_bytes(),
        ),
    ];
    let mut delivered = 0;
    let mut right_answers = |what: &str| {
        assert_eq!(rcpt(&site, &["good", "neither", "first"]), ["250", "550", "250"], "{what}");
        site.submit("far@sender.example", &["good@smkwlab.net"], TEXT);
        let log = run_queue(&site, &NONE);
        delivered += 1;
        assert_eq!(count(&site, "hunt"), delivered, "{what}: {log}");
    };
    right_answers("right");
    for (what, bytes) in states {
        replace(&index, &bytes);
        right_answers(what);
    }
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("a FIFO", &|| nix::unistd::mkfifo(&index, Mode::S_IRWXU).unwrap()),
        ("a directory", &|| fs::create_dir(&index).unwrap()),
        ("a device", &|| symlink("/dev/zero", &index).unwrap()),
        ("a link to itself", &|| symlink(&index, &index).unwrap()),
    ];
    for (what, make) in kinds {
        fs::remove_file(&index).unwrap();
        make();
        right_answers(what);
        let _ = fs::remove_dir(&index);
        replace(&index, &right);
    }
    right_answers("right again");
    // Somebody else's, and one of what the file was.
    if is_root() {
        chown(&index, Some(Site::account("alice").uid), None).unwrap();
        right_answers("somebody else's");
    }
    fs::write(&aliases, text("toshi")).unwrap();
    newaliases();
    let stale = fs::read(&index).unwrap();
    fs::write(&aliases, format!("# now others\n{}", text("hunt"))).unwrap();
    replace(&index, &stale);
    right_answers("stale");
}

/// So long an editor may take from the first byte to the last one; what takes longer is read half.
const STROKE: Duration = Duration::from_millis(40);

/// Tells the editors when it goes.
struct Hours<'a>(&'a AtomicBool);

impl Drop for Hours<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes a file again and again until it is told to end: `begin`, a pause, `end`. Whether each
/// change was quick enough.
fn edit(over: &AtomicBool, begin: impl Fn(), end: impl Fn()) -> bool {
    let mut quick = true;
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        begin();
        thread::sleep(Duration::from_millis(10));
        end();
        quick &= started.elapsed() < STROKE;
        thread::sleep(Duration::from_millis(120));
    }
    quick
}

/// Whoever edits the tables and the lists while mail flows: nobody is unknown for a moment.
#[test]
fn while_a_table_is_written_no_name_in_it_is_unknown() {
    const ALIASES: [&str; 2] = ["first: toshi\n", "good: hunt\n"];
    const VIRTUAL: &str = "v.example -\ngood@v.example hunt\n";
    // Where no journal holds an editor up.
    let site = Site::plan().in_memory().build();
    let (aliases, table) = (site.path().join("aliases"), site.path().join("virtual"));
    let text = fs::read_to_string(site.configuration()).unwrap();
    let key = format!("[paths]\nvirtual = {:?}", table.to_str().unwrap());
    fs::write(site.configuration(), text.replace("[paths]", &key)).unwrap();
    fs::write(&aliases, ALIASES.concat()).unwrap();
    fs::write(&table, VIRTUAL).unwrap();
    let (_server, address) = site.serve("smtpd");
    // One editor writes a file in its place, one moves it away first.
    let first = || fs::write(&aliases, ALIASES[0]).unwrap();
    let last = || {
        let mut file = fs::File::options().append(true).open(&aliases).unwrap();
        file.write_all(ALIASES[1].as_bytes()).unwrap();
    };
    let away = || fs::rename(&table, table.with_extension("old")).unwrap();
    let back = || fs::write(&table, VIRTUAL).unwrap();
    let (mut rounds, mut sent) = (0, 0);
    for _ in 0..10 {
        let over = AtomicBool::new(false);
        let mut wrong = Vec::new();
        let quick = thread::scope(|scope| {
            let one = scope.spawn(|| edit(&over, first, last));
            let two = scope.spawn(|| edit(&over, away, back));
            let hours = Hours(&over);
            let started = Instant::now();
            let mut old = Peer::connect(address);
            old.greet();
            while started.elapsed() < Duration::from_secs(1) {
                let mut new = Peer::connect(address);
                new.greet();
                for peer in [&mut old, &mut new] {
                    for to in ["good@smkwlab.net", "good@v.example"] {
                        let reply = peer.mail("toshi@smkwlab.net", &[to], TEXT.as_bytes());
                        if reply.starts_with("250 ") {
                            sent += 1;
                            continue;
                        }
                        peer.command("RSET");
                        if !reply.starts_with("451 4.3.0 ") {
                            wrong.push(format!("{to}: {reply}"));
                        }
                    }
                }
                run_queue(&site, &NONE);
            }
            drop(hours);
            [one, two].map(|editor| editor.join().unwrap()) == [true, true]
        });
        run_queue(&site, &["--flush"]);
        if quick {
            assert_eq!(wrong, NONE);
            assert_eq!((count(&site, "hunt"), count(&site, "toshi")), (sent, 0));
            assert_eq!(site.queued(), NONE);
            rounds += 1;
        }
        if rounds == 2 {
            return;
        }
        // What came of the others is not known.
        site.fill("hunt", b"");
        site.fill("toshi", b"");
        sent = 0;
    }
    note("nothing is done here within a moment");
}
