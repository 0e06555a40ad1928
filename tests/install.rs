//! `make install` into a directory that stands in for `/`, as a package is made: which files there
//! are, with what modes, whose; and what a second install, another prefix and `make uninstall` do.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hikyaku::config::{PREFIX, SYSCONFDIR};
use tempfile::TempDir;

use support::peer::Peer;
use support::run::{Ran, Server, run};
use support::site::{Site, behind, program};
use support::{is_root, need, need_root, wait_until};

/// Everything, where the accounts are there: mode, owner and group, path. Directories that other
/// software has as well are not listed.
const INSTALLED: &str = "\
0777 root:root PREFIX/bin/local-deliver -> ../libexec/hikyaku/local-deliver
0644 root:root PREFIX/lib/systemd/system/hikyaku-imapd.service
0644 root:root PREFIX/lib/systemd/system/hikyaku-imapd.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-imaps.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-lmtp.service
0644 root:root PREFIX/lib/systemd/system/hikyaku-lmtp.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-pop3s.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-popd.service
0644 root:root PREFIX/lib/systemd/system/hikyaku-popd.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-queue.path
0644 root:root PREFIX/lib/systemd/system/hikyaku-queue.service
0644 root:root PREFIX/lib/systemd/system/hikyaku-queue.timer
0644 root:root PREFIX/lib/systemd/system/hikyaku-smtpd.service
0644 root:root PREFIX/lib/systemd/system/hikyaku-smtpd.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-submission.socket
0644 root:root PREFIX/lib/systemd/system/hikyaku-submissions.socket
0755 root:root PREFIX/libexec/hikyaku/
2755 root:mail PREFIX/libexec/hikyaku/dotlock
0755 root:root PREFIX/libexec/hikyaku/local-deliver
0755 root:root PREFIX/sbin/imapd
0755 root:root PREFIX/sbin/mailctl
0777 root:root PREFIX/sbin/mailq -> sendmail
0755 root:root PREFIX/sbin/mta-queue
0777 root:root PREFIX/sbin/newaliases -> sendmail
0755 root:root PREFIX/sbin/popd
2755 root:hikyaku PREFIX/sbin/sendmail
0755 root:root PREFIX/sbin/smtpd
0755 root:root PREFIX/share/hikyaku/
0644 root:root PREFIX/share/hikyaku/crontab
0644 root:root PREFIX/share/hikyaku/hikyaku.toml
0644 root:root PREFIX/share/hikyaku/fail2ban.conf
0644 root:root PREFIX/share/hikyaku/inetd.conf
0644 root:root PREFIX/share/hikyaku/pam
0644 root:root PREFIX/share/hikyaku/users
0644 root:root PREFIX/share/hikyaku/xinetd.conf
0644 root:root PREFIX/share/man/man5/hikyaku-aliases.5
0644 root:root PREFIX/share/man/man5/hikyaku-folders.5
0644 root:root PREFIX/share/man/man5/hikyaku-forward.5
0644 root:root PREFIX/share/man/man5/hikyaku-index.5
0644 root:root PREFIX/share/man/man5/hikyaku-mbox.5
0644 root:root PREFIX/share/man/man5/hikyaku-queue.5
0644 root:root PREFIX/share/man/man5/hikyaku.toml.5
0644 root:root PREFIX/share/man/man7/hikyaku.7
0644 root:root PREFIX/share/man/man8/dotlock.8
0644 root:root PREFIX/share/man/man8/imapd.8
0644 root:root PREFIX/share/man/man8/local-deliver.8
0644 root:root PREFIX/share/man/man8/mailctl.8
0777 root:root PREFIX/share/man/man8/mailq.8 -> sendmail.8
0644 root:root PREFIX/share/man/man8/mta-queue.8
0777 root:root PREFIX/share/man/man8/newaliases.8 -> sendmail.8
0644 root:root PREFIX/share/man/man8/popd.8
0644 root:root PREFIX/share/man/man8/sendmail.8
0644 root:root PREFIX/share/man/man8/smtpd.8
";

/// What stays when the suite is removed.
const KEPT: &str = "\
0755 root:root SYSCONFDIR/hikyaku/
0644 root:root SYSCONFDIR/hikyaku/hikyaku.toml
0600 root:root SYSCONFDIR/hikyaku/users
0755 hikyaku:hikyaku /var/spool/hikyaku/
0700 hikyaku:hikyaku /var/spool/hikyaku/corrupt/
0700 hikyaku:hikyaku /var/spool/hikyaku/deferred/
1730 hikyaku:hikyaku /var/spool/hikyaku/drop/
0700 hikyaku:hikyaku /var/spool/hikyaku/hold/
0700 hikyaku:hikyaku /var/spool/hikyaku/incoming/
0620 hikyaku:hikyaku /var/spool/hikyaku/wake|
0700 hikyaku:hikyaku /var/spool/hikyaku/work/
";

/// The accounts of a host where the suite is installed; numbers that no Debian system gives out.
const ACCOUNTS: [(&str, u32); 3] = [("root", 0), ("mail", 64_002), ("hikyaku", 64_001)];

/// A directory that stands in for `/`, and what the Makefile is told.
struct Stage {
    directory: TempDir,
    prefix: String,
    sysconfdir: String,
    programs: PathBuf,
    /// Whether the host has [`ACCOUNTS`].
    accounts: bool,
}

impl Stage {
    /// With the programs of this build.
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            prefix: PREFIX.into(),
            sysconfdir: SYSCONFDIR.into(),
            programs: Path::new(program("smtpd")).parent().unwrap().to_owned(),
            accounts: false,
        }
    }

    /// With files that say no more than where they belong, as `--version` does.
    fn of_stamps(prefix: &str, sysconfdir: &str) -> Self {
        let mut stage = Self::new();
        (stage.prefix, stage.sysconfdir) = (prefix.into(), sysconfdir.into());
        stage.programs = stage.directory.path().join("programs");
        fs::create_dir(&stage.programs).unwrap();
        for line in INSTALLED.lines().filter(|line| line.contains("755 ") && !line.ends_with('/')) {
            let (_, name) = line.rsplit_once('/').unwrap();
            let stamp = format!("\0text0.1.0 (PREFIX={prefix} SYSCONFDIR={sysconfdir})text\0");
            fs::write(stage.programs.join(name), stamp).unwrap();
        }
        stage
    }

    /// The directory that stands in for `/`.
    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Where a file of the installed host stands.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("{}{}", self.root().display(), self.real(path)))
    }

    fn real(&self, text: &str) -> String {
        text.replace("PREFIX", &self.prefix).replace("SYSCONFDIR", &self.sysconfdir)
    }

    /// `make GOAL`, by somebody whose files nobody else may read.
    fn make(&self, goal: &str) -> Ran {
        let mut make = Command::new("make");
        make.args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), goal])
            .arg(format!("DESTDIR={}", self.root().display()))
            .arg(format!("PREFIX={}", self.prefix))
            .arg(format!("SYSCONFDIR={}", self.sysconfdir))
            .arg(format!("BIN={}", self.programs.display()))
            // What `make check PREFIX=…` would pass on.
            .env_remove("MAKEFLAGS");
        let mut command = behind(&["/bin/sh", "-c", "umask 077; exec \"$@\"", "sh"], &make);
        if self.accounts {
            let at = self.directory.path().display();
            let line = |(name, number)| format!("{name}:x:{number}:{number}::/:/bin/false\n");
            let passwd: String = ACCOUNTS.map(line).concat();
            let line = |(name, number)| format!("{name}:x:{number}:\n");
            let group: String = ACCOUNTS.map(line).concat();
            fs::write(self.directory.path().join("passwd"), passwd).unwrap();
            fs::write(self.directory.path().join("group"), group).unwrap();
            let script = format!(
                "mount --bind '{at}/passwd' /etc/passwd && mount --bind '{at}/group' /etc/group && \
                 exec \"$@\""
            );
            command = behind(&["unshare", "-m", "sh", "-c", &script, "sh"], &command);
        }
        run(&mut command, b"")
    }

    #[track_caller]
    fn install(&self) -> String {
        self.make("install").expect(0).text()
    }

    /// What there is, as in [`INSTALLED`], in order.
    fn list(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.list_below(&self.root(), &mut lines);
        lines.sort();
        lines
    }

    fn list_below(&self, directory: &Path, lines: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            let (mode, kind) = (found.mode() & 0o7777, found.file_type());
            let shown = path.strip_prefix(self.root()).unwrap().display();
            let end = match () {
                () if kind.is_dir() => "/".to_owned(),
                () if kind.is_symlink() => {
                    format!(" -> {}", fs::read_link(&path).unwrap().display())
                }
                () if kind.is_fifo() => "|".to_owned(),
                () => String::new(),
            };
            let (owner, group) = (name(found.uid()), name(found.gid()));
            let line = format!("{mode:04o} {owner}:{group} /{shown}{end}");
            if kind.is_dir() {
                self.list_below(&path, lines);
                if !line.contains("/hikyaku/") {
                    let ours = format!("0755 {}:", name(nix::unistd::geteuid().as_raw()));
                    assert!(line.starts_with(&ours), "{line}");
                    continue;
                }
            }
            lines.push(line);
        }
    }

    /// The lines of a list for whoever installs here.
    fn expected(&self, list: &[&str]) -> Vec<String> {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let mail = nix::unistd::Group::from_name("mail").unwrap().map(|group| group.gid.as_raw());
        let line = |line: &str| {
            let line = self.real(line);
            if self.accounts {
                return line;
            }
            // Root gives dotlock to the host's group, and nobody can give what is hikyaku's.
            let (line, group) = match mail {
                Some(mail) if is_root() && line.contains("root:mail") => (line, mail),
                _ => (line.replace("2755", "0755"), own.1),
            };
            let mut words = line.splitn(3, ' ');
            let (mode, _, rest) = (words.next(), words.next(), words.next());
            let owner = format!("{}:{}", name(own.0), name(group));
            format!("{} {owner} {}", mode.unwrap(), rest.unwrap())
        };
        let mut lines: Vec<String> = list.concat().lines().map(line).collect();
        lines.sort();
        lines
    }
}

fn name(number: u32) -> String {
    let account = ACCOUNTS.iter().find(|(_, other)| *other == number);
    account.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

#[test]
fn a_staged_install_has_these_files_with_these_modes_whatever_the_umask_is() {
    if !need("make") {
        return;
    }
    let stage = Stage::new();
    let said = stage.install();
    assert_eq!(stage.list(), stage.expected(&[INSTALLED, KEPT]));
    // What a package has to do itself.
    for line in
        ["chgrp hikyaku PREFIX/sbin/sendmail", "chown -R hikyaku:hikyaku /var/spool/hikyaku"]
    {
        assert!(said.contains(&stage.real(line)), "{said}");
    }
}

#[test]
fn with_root_files_go_to_the_accounts_that_are_there() {
    if !need("make") || !need_root() || !need("unshare") {
        return;
    }
    let stage = Stage { accounts: true, ..Stage::new() };
    let said = stage.install();
    assert!(!said.contains("left to do"), "{said}");
    assert_eq!(stage.list(), stage.expected(&[INSTALLED, KEPT]));
}

#[test]
fn a_second_install_changes_neither_configuration_nor_queue() {
    if !need("make") {
        return;
    }
    let stage = Stage::of_stamps("/usr", "/etc");
    stage.install();
    let entry = stage.path("/var/spool/hikyaku/incoming/1K0Y3110PK6EQEE");
    let mine = [stage.path("/etc/hikyaku/hikyaku.toml"), stage.path("/etc/hikyaku/users"), entry];
    for file in &mine {
        fs::write(file, "mine").unwrap();
    }
    let drop = stage.path("/var/spool/hikyaku/drop");
    fs::set_permissions(&drop, fs::Permissions::from_mode(0o1700)).unwrap();
    let before = stage.list();
    stage.install();
    assert_eq!(stage.list(), before);
    for file in &mine {
        assert_eq!(fs::read(file).unwrap(), b"mine", "{}", file.display());
    }
}

#[test]
fn a_program_that_runs_is_replaced_and_goes_on() {
    if !need("make") {
        return;
    }
    let (stage, site) = (Stage::new(), Site::new());
    stage.install();
    let smtpd = stage.path("PREFIX/sbin/smtpd");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let mut command = Command::new(&smtpd);
    command.arg("-C").arg(site.configuration()).args(["--listen", &address.to_string()]);
    let server = Server::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    wait_until("smtpd to listen", || TcpStream::connect(address).ok());
    let before = fs::metadata(&smtpd).unwrap().ino();
    stage.install();
    assert_ne!(fs::metadata(&smtpd).unwrap().ino(), before, "written over, and not renamed");
    Peer::connect(address).greet();
    let (status, log) = server.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn programs_that_were_built_for_another_place_are_refused() {
    if !need("make") {
        return;
    }
    let elsewhere = [
        ("/opt/mail", SYSCONFDIR),
        (PREFIX, "/etc"),
        // Each begins with the other.
        ("/usr", SYSCONFDIR),
        (PREFIX, "/usr/local/etc/mail"),
    ];
    for (prefix, sysconfdir) in elsewhere {
        let stage = Stage { prefix: prefix.into(), sysconfdir: sysconfdir.into(), ..Stage::new() };
        let ran = stage.make("install");
        assert_ne!(ran.code(), Some(0), "{ran}");
        let line = ran.stderr.lines().next().unwrap_or_default();
        let built = format!("was built for (PREFIX={PREFIX} SYSCONFDIR={SYSCONFDIR})");
        let wanted = format!("run make all PREFIX={prefix} SYSCONFDIR={sysconfdir} first");
        assert!(line.contains(&built) && line.contains(&wanted), "{ran}");
        assert!(!stage.root().exists());
    }
}

#[test]
fn programs_that_were_not_built_are_missed_before_anything_is_installed() {
    if !need("make") {
        return;
    }
    let stage = Stage::of_stamps("/usr", "/etc");
    fs::remove_file(stage.programs.join("dotlock")).unwrap();
    let ran = stage.make("install");
    assert_ne!(ran.code(), Some(0), "{ran}");
    assert!(ran.stderr.contains("dotlock is not there: run make all first"), "{ran}");
    assert!(!stage.root().exists());
}

#[test]
fn what_is_installed_names_the_places_that_it_is_installed_for() {
    if !need("make") {
        return;
    }
    let stage = Stage::of_stamps("/opt/mail", "/etc/opt");
    stage.install();
    assert_eq!(stage.list(), stage.expected(&[INSTALLED, KEPT]));
    for line in stage.list() {
        let path = line.splitn(3, ' ').nth(2).unwrap();
        if line.starts_with("0644") {
            let text = fs::read_to_string(stage.path(path)).unwrap();
            assert!(!text.contains("/usr/local"), "{path}");
        }
    }
    let contains = |path: &str, text: &str| {
        let found = fs::read_to_string(stage.path(path)).unwrap();
        assert!(found.contains(text), "{path}: {found}");
    };
    contains("PREFIX/lib/systemd/system/hikyaku-smtpd.service", "ExecStart=/opt/mail/sbin/smtpd\n");
    contains("PREFIX/share/hikyaku/crontab", "\troot\t/opt/mail/sbin/mta-queue\n");
    contains("PREFIX/share/man/man8/smtpd.8", "/etc/opt/hikyaku/hikyaku.toml\n");
    contains("SYSCONFDIR/hikyaku/hikyaku.toml", "\"/opt/mail/libexec/hikyaku\"\n");
}

#[test]
fn a_prefix_that_is_no_plain_path_is_refused() {
    if !need("make") {
        return;
    }
    for prefix in ["/opt/a b", "/opt/a|b", "opt"] {
        let ran =
            Stage { prefix: prefix.into(), ..Stage::of_stamps("/usr", "/etc") }.make("install");
        assert_ne!(ran.code(), Some(0), "{prefix}: {ran}");
        assert_eq!(ran.text(), "", "{prefix}");
    }
}

#[test]
fn uninstall_removes_what_install_made_and_nothing_else() {
    if !need("make") {
        return;
    }
    let stage = Stage::of_stamps("/usr", "/etc");
    stage.install();
    let theirs = stage.path("/usr/sbin/theirs");
    fs::write(&theirs, "").unwrap();
    let said = stage.make("uninstall").expect(0).text();
    assert!(said.contains("kept") && said.contains("/var/spool/hikyaku"), "{said}");
    assert!(theirs.exists());
    fs::remove_file(&theirs).unwrap();
    assert_eq!(stage.list(), stage.expected(&[KEPT]));
    // Once more does no harm.
    stage.make("uninstall").expect(0);
}
