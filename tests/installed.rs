//! An installed host, as an operator makes one: `make install` as root, nothing configured, and the
//! servers and the runner started by systemd, and by inetd and cron, in the way that hikyaku(7)
//! says. Other people's programs send and fetch the mail.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use hikyaku::config::{PREFIX, SYSCONFDIR};
use support::machine::{Machine, need_machine};
use support::mbox;
use support::peer::Peer;
use support::run::Server;
use support::site::HOST;
use support::{need, note, wait_until};

// What hikyaku(7) tells an operator to type; each is run here.
const POSTMASTER: &str = "useradd -m -s /usr/sbin/nologin postmaster";
const ENABLE: &str = "systemctl enable --now hikyaku-smtpd.socket hikyaku-popd.socket \
                      hikyaku-imapd.socket hikyaku-queue.path hikyaku-queue.timer";
const RESTART: &str = "systemctl daemon-reload\n\
                       systemctl try-restart hikyaku-smtpd.service hikyaku-popd.service \
                       hikyaku-imapd.service";
const RUN_NOW: &str = "systemctl restart --no-block hikyaku-queue.service";
const WATCH: &str = "[Service]\nType=exec\nExecStart=\n\
                     ExecStart=/usr/local/sbin/mta-queue --watch";
const OTHER_QUEUE: &str = "[Path]\nDirectoryNotEmpty=\n\
                           DirectoryNotEmpty=/srv/queue/incoming\n\
                           DirectoryNotEmpty=/srv/queue/drop";
const OTHER_ADDRESS: &str = "[Socket]\nListenStream=\nListenStream=127.0.0.1:25";
const START_WATCH: &str = "systemctl disable --now hikyaku-queue.path hikyaku-queue.timer\n\
                           systemctl add-wants multi-user.target hikyaku-queue.service\n\
                           systemctl start hikyaku-queue.service";
/// For Postfix and its like.
const LMTP: &str = "systemctl enable --now hikyaku-lmtp.socket";
/// For users.
const SUBMISSION: &str = "systemctl stop hikyaku-smtpd.service\n\
                          systemctl enable --now hikyaku-submission.socket \
                          hikyaku-submissions.socket";
/// Likewise.
const ACCESS: &str = "systemctl stop hikyaku-popd.service hikyaku-imapd.service\n\
                      systemctl enable --now hikyaku-pop3s.socket hikyaku-imaps.socket";
const DISABLE: &str = "systemctl disable --now hikyaku-smtpd.socket hikyaku-popd.socket \
                       hikyaku-imapd.socket hikyaku-queue.path hikyaku-queue.timer\n\
                       systemctl stop 'hikyaku-*'";
const CRON: &str = "cp /usr/local/share/hikyaku/crontab /etc/cron.d/hikyaku";

/// From the reply to the end of a message until it is in the mailbox.
const SOON: Duration = Duration::from_secs(2);

/// Installs the suite, and makes the users hunt and toshi and the postmaster that each host has.
fn install(machine: &Machine) {
    machine.must(&format!(
        "make -C /mnt/source install BIN=/mnt/programs PREFIX={PREFIX} SYSCONFDIR={SYSCONFDIR}"
    ));
    machine.must("useradd -m hunt && useradd -m toshi");
    machine.must(POSTMASTER);
    machine.must("printf 'hunt:Watts?Watt?\\ntoshi:tenbin\\n' | chpasswd");
    let shadow = fs::read_to_string(machine.path("/etc/shadow")).unwrap();
    assert!(shadow.contains("\nhunt:$y$"), "chpasswd writes yescrypt on this system");
    assert!(shadow.contains("\nhikyaku:!") && shadow.contains("\nhikyaku-login:!"), "{shadow}");
    let check = machine.must("mailctl check");
    assert!(check.contains("is sound"), "{check}");
}

fn uninstall(machine: &Machine) {
    machine.must(&format!("make -C /mnt/source uninstall PREFIX={PREFIX} SYSCONFDIR={SYSCONFDIR}"));
    for gone in ["sbin/smtpd", "libexec/hikyaku", "lib/systemd/system/hikyaku-queue.path"] {
        assert!(!machine.path(&format!("{PREFIX}/{gone}")).exists(), "{gone}");
    }
    for kept in [&format!("{SYSCONFDIR}/hikyaku/hikyaku.toml"), "/var/spool/hikyaku/drop"] {
        assert!(machine.path(kept).exists(), "{kept}");
    }
    machine.must("getent passwd hikyaku && getent passwd hikyaku-login");
}

/// swaks sends a message to hunt by SMTP.
fn swaks(machine: &Machine, subject: &str) {
    machine.must(&format!(
        "swaks --silent 2 --server 127.0.0.1 --ehlo client.test --from toshi@is.kyusan-u.ac.jp \
         --to hunt@{HOST} --header 'Subject: {subject}' --body 'Hello. This is test.'"
    ));
}

/// We send one.
#[track_caller]
fn send(mut server: Peer, subject: &str) {
    let text = format!("Subject: {subject}\n\nx\n");
    let reply = server.mail("a@example.org", &[&format!("hunt@{HOST}")], text.as_bytes());
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
}

fn smtp(machine: &Machine, host: impl Into<IpAddr>) -> Peer {
    let mut peer = Peer::new(machine.connect(host, 25).unwrap());
    peer.greet();
    peer
}

/// An ordinary user sends hunt a message by the submission command.
fn sendmail(machine: &Machine, subject: &str) {
    machine.must(&format!(
        "printf 'Subject: {subject}\\n\\nx\\n' | runuser -u toshi -- {PREFIX}/sbin/sendmail -i hunt"
    ));
}

/// The subjects of the messages in hunt's inbox.
fn inbox(machine: &Machine) -> Vec<String> {
    let mbox = fs::read(machine.path("/var/mail/hunt")).unwrap_or_default();
    let subject =
        |message: &mbox::Message| message.field("Subject").unwrap_or("").trim().to_owned();
    // The first byte of a message is written last.
    let whole = |message: &&mbox::Message| message.from_line.starts_with("From ");
    mbox::parse(&mbox).iter().filter(whole).map(subject).collect()
}

/// Waits for a message in hunt's inbox, but not for longer than `limit`; how long it took.
#[track_caller]
fn arrives(machine: &Machine, subject: &str, limit: Duration) -> Duration {
    let start = Instant::now();
    while !inbox(machine).iter().any(|other| other == subject) {
        assert!(start.elapsed() < limit, "{subject}: not in {:?} after {limit:?}", inbox(machine));
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// fetchmail, run by an ordinary user, gets hunt's mail by POP3 and leaves the inbox empty.
fn fetchmail(machine: &Machine) -> Vec<String> {
    machine.must(
        "umask 077 && printf '%s\\n' 'poll 127.0.0.1 protocol pop3 username \"hunt\" \
         password \"Watts?Watt?\" sslproto \"\" mda \"cat >> /home/toshi/got\"' >/home/toshi/.rc && \
         chown toshi /home/toshi/.rc && rm -f /home/toshi/got && \
         runuser -u toshi -- env HOME=/home/toshi fetchmail --nosyslog -f /home/toshi/.rc",
    );
    assert_eq!(inbox(machine), [""; 0], "what was fetched is deleted");
    let got = fs::read_to_string(machine.path("/home/toshi/got")).unwrap();
    got.lines().filter_map(|line| line.strip_prefix("Subject: ")).map(str::to_owned).collect()
}

fn main_pid(machine: &Machine, unit: &str) -> String {
    machine.must(&format!("systemctl show --value -p MainPID {unit}")).trim().to_owned()
}

#[test]
fn an_installed_host_takes_delivers_and_hands_out_mail_under_systemd() {
    if !need_machine() || !need("swaks") || !need("fetchmail") {
        return;
    }
    let machine = Machine::boot();
    install(&machine);
    let state = machine.run("systemctl is-system-running").text();
    let verify = machine.run(&format!(
        "systemd-analyze verify --man=no {PREFIX}/lib/systemd/system/hikyaku-* 2>&1"
    ));
    assert_eq!((verify.code(), verify.text().as_str()), (Some(0), ""), "systemd-analyze verify");
    machine.must(ENABLE);

    swaks(&machine, "by SMTP");
    let took = arrives(&machine, "by SMTP", SOON);
    sendmail(&machine, "by a user");
    let took_from_user = arrives(&machine, "by a user", SOON);
    note(&format!(
        "delivered {took:?} after the end of swaks, {took_from_user:?} after sendmail's"
    ));
    assert_eq!(machine.run("runuser -u toshi -- ls /var/spool/hikyaku/drop").code(), Some(2));
    wait_until("an empty queue", || machine.must("mailq").contains("is empty").then_some(()));
    assert_eq!(fetchmail(&machine), ["by SMTP", "by a user"]);

    many_in_a_row_are_delivered_at_once(&machine);
    a_users_forward_is_obeyed(&machine);
    lmtp_is_there_for_other_mail_systems(&machine);
    users_hand_mail_in(&machine);
    a_restart_ends_no_session(&machine);
    what_can_not_be_brought_in_stops_nothing_and_does_not_spin(&machine);
    a_server_that_can_not_start_does_when_it_can(&machine);

    assert_eq!(machine.must("systemctl is-active hikyaku-queue.timer").trim(), "active");
    let next =
        machine.must("systemctl show --value -p NextElapseUSecMonotonic hikyaku-queue.timer");
    assert!(!next.trim().is_empty() && next.trim() != "infinity", "{next}");
    let log = machine.must("journalctl --no-pager SYSLOG_FACILITY=2");
    for line in ["status=accepted", "status=sent", "Login: user=<hunt>"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(machine.must("systemctl list-units --failed --no-legend 'hikyaku-*'"), "");
    assert_eq!(machine.run("systemctl is-system-running").text(), state);

    a_runner_can_stay_instead(&machine);
    queue_and_address_can_be_others(&machine);
    machine.must(DISABLE);
    assert_eq!(machine.must("systemctl list-units --no-legend 'hikyaku-*'"), "");
    uninstall(&machine);
}

/// Each of them starts a run: systemd's limit on starts must not count here.
fn many_in_a_row_are_delivered_at_once(machine: &Machine) {
    for number in 0..12 {
        let subject = format!("number {number}");
        send(smtp(machine, Ipv4Addr::LOCALHOST), &subject);
        arrives(machine, &subject, SOON);
    }
    assert_eq!(fetchmail(machine).len(), 12);
}

/// What is sent on goes through the setgid sendmail, as the user.
fn a_users_forward_is_obeyed(machine: &Machine) {
    machine.must(
        "umask 077 && cd /home/toshi && echo 'hunt, \"|cat >/home/toshi/piped\"' >.forward && \
         chown toshi .forward",
    );
    machine.must(&format!(
        "printf 'Subject: sent on\\n\\nx\\n' | runuser -u hunt -- {PREFIX}/sbin/sendmail -i toshi"
    ));
    arrives(machine, "sent on", SOON);
    let piped = fs::read_to_string(machine.path("/home/toshi/piped")).unwrap();
    assert!(piped.starts_with("From hunt@") && piped.contains("\nSubject: sent on\n"), "{piped}");
    let mbox = mbox::parse(&fs::read(machine.path("/var/mail/hunt")).unwrap());
    assert_eq!(mbox[0].field("Return-Path"), Some(format!("<hunt@{HOST}>").as_str()));
    machine.must("rm /home/toshi/.forward");
    assert_eq!(fetchmail(machine), ["sent on"]);
}

/// The socket is root's, and one process serves the mail of all users.
fn lmtp_is_there_for_other_mail_systems(machine: &Machine) {
    machine.must(LMTP);
    let send = format!(
        "python3 -c 'import smtplib; smtplib.LMTP(\"/run/hikyaku/lmtp\").sendmail(\"a@b.org\", \
         [\"hunt@{HOST}\", \"toshi+x@{HOST}\"], \"Subject: by LMTP\\n\\nx\\n\")'"
    );
    machine.must(&send);
    assert_eq!(fetchmail(machine), ["by LMTP"]);
    let toshi = fs::read_to_string(machine.path("/var/mail/toshi")).unwrap();
    assert!(toshi.contains(&format!("\nDelivered-To: toshi+x@{HOST}\n")), "{toshi}");
    assert_ne!(machine.run(&format!("runuser -u toshi -- {send}")).code(), Some(0));
    machine.must("systemctl disable --now hikyaku-lmtp.socket hikyaku-lmtp.service");
}

/// All sockets are of one service, which knows them by their names.
fn users_hand_mail_in(machine: &Machine) {
    machine.must(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={HOST} \
         -keyout /etc/key.pem -out /etc/certificate.pem && chmod 600 /etc/key.pem"
    ));
    let configuration = format!("{SYSCONFDIR}/hikyaku/hikyaku.toml");
    machine.must(&format!(
        "cp {configuration} /tmp/before && sed -i \
         -e 's|^#certificate = \"\"|certificate = \"/etc/certificate.pem\"|' \
         -e 's|^#key = \"\"|key = \"/etc/key.pem\"|' {configuration} && mailctl check"
    ));
    machine.must(SUBMISSION);
    for (class, port, start) in [("SMTP", 587, "s.starttls();"), ("SMTP_SSL", 465, "")] {
        machine.must(&format!(
            "python3 -c 'import smtplib; s = smtplib.{class}(\"127.0.0.1\", {port}); {start} \
             s.login(\"toshi\", \"tenbin\"); \
             s.sendmail(\"toshi@{HOST}\", [\"hunt@{HOST}\"], \"Subject: by {port}\\n\\nx\\n\")'"
        ));
        arrives(machine, &format!("by {port}"), SOON);
    }
    // Port 25 is the same process's.
    send(smtp(machine, Ipv4Addr::LOCALHOST), "by 25");
    arrives(machine, "by 25", SOON);
    machine.must("systemctl disable --now hikyaku-submission.socket hikyaku-submissions.socket");
    machine.must(ACCESS);
    for (class, port, start) in [("POP3", 110, "s.stls();"), ("POP3_SSL", 995, "")] {
        machine.must(&format!(
            "python3 -c 'import poplib; s = poplib.{class}(\"127.0.0.1\", {port}); {start} \
             s.user(\"hunt\"); s.pass_(\"Watts?Watt?\"); assert s.stat()[0] == 3; s.quit()'"
        ));
    }
    for (class, port, start) in [("IMAP4", 143, "s.starttls();"), ("IMAP4_SSL", 993, "")] {
        machine.must(&format!(
            "python3 -c 'import imaplib; s = imaplib.{class}(\"127.0.0.1\", {port}); {start} \
             s.login(\"hunt\", \"Watts?Watt?\"); s.noop(); s.logout()'"
        ));
    }
    machine.must("systemctl disable --now hikyaku-pop3s.socket hikyaku-imaps.socket");
    machine.must(&format!(
        "cp /tmp/before {configuration} && systemctl restart hikyaku-smtpd.service \
         hikyaku-popd.service hikyaku-imapd.service"
    ));
    assert_eq!(fetchmail(machine).len(), 3);
}

fn a_restart_ends_no_session(machine: &Machine) {
    let units = ["hikyaku-smtpd.service", "hikyaku-popd.service"];
    let before = units.map(|unit| main_pid(machine, unit));
    let smtp = smtp(machine, Ipv4Addr::LOCALHOST);
    let mut pop = Peer::new(machine.connect(Ipv4Addr::LOCALHOST, 110).unwrap());
    assert!(pop.line().starts_with("+OK"));
    machine.must(RESTART);
    assert!(units.iter().zip(before).all(|(unit, before)| main_pid(machine, unit) != before));
    send(smtp, "restart");
    arrives(machine, "restart", SOON);
    assert!(pop.pop("USER hunt").starts_with("+OK"));
    assert!(pop.pop("PASS Watts?Watt?").starts_with("+OK"));
    assert!(pop.pop("STAT").starts_with("+OK 1 "));
    assert!(pop.pop("QUIT").starts_with("+OK"));
    // And the new ones serve.
    assert_eq!(fetchmail(machine), ["restart"]);
}

fn what_can_not_be_brought_in_stops_nothing_and_does_not_spin(machine: &Machine) {
    let show = |what: &str| {
        let unit = machine.must(&format!("systemctl show --value -p {what} hikyaku-queue.service"));
        unit.trim().to_owned()
    };
    // Root's, and nobody else may read it.
    machine.must("umask 077 && echo x >/var/spool/hikyaku/drop/1K0Y3110PK6EQEE");
    wait_until("a pause before the next run", || {
        (show("SubState") == "auto-restart").then_some(())
    });
    let runs = || machine.must("journalctl -u hikyaku-queue.service | grep -c Starting");
    let before = runs();
    swaks(machine, "beside it");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(runs(), before, "the pause is one");
    // An operator need not wait.
    machine.must(RUN_NOW);
    arrives(machine, "beside it", SOON);
    assert_eq!(machine.must("systemctl is-active hikyaku-queue.path").trim(), "active");
    machine.must("rm /var/spool/hikyaku/drop/*");
    machine.must(RUN_NOW);
    wait_until("a run that succeeds", || (show("SubState") == "dead").then_some(()));
    swaks(machine, "without it");
    arrives(machine, "without it", SOON);
    assert_eq!(fetchmail(machine), ["beside it", "without it"]);
}

/// A mistake in the configuration costs time and no mail, and wants no more than its mending.
fn a_server_that_can_not_start_does_when_it_can(machine: &Machine) {
    let configuration = format!("{SYSCONFDIR}/hikyaku/hikyaku.toml");
    machine.must(&format!(
        "systemctl stop hikyaku-smtpd.service && cp {configuration} /root && \
         echo 'mistake = 1' >{configuration}"
    ));
    let mut peer = Peer::new(machine.connect(Ipv4Addr::LOCALHOST, 25).unwrap());
    // It pauses, and the client waits in the socket meanwhile.
    wait_until("smtpd to fail", || {
        let state = machine.must("systemctl show --value -p SubState hikyaku-smtpd.service");
        (state.trim() == "auto-restart").then_some(())
    });
    let log = machine.must("journalctl -u hikyaku-smtpd.service SYSLOG_FACILITY=2");
    assert!(log.contains("hikyaku.toml:1:1: "), "{log}");
    machine.must(&format!("cp /root/hikyaku.toml {configuration}"));
    peer.greet();
}

/// What `systemctl edit` would write.
fn edit(machine: &Machine, unit: &str, text: &str) {
    let directory = format!("/etc/systemd/system/{unit}.d");
    machine.must(&format!(
        "mkdir {directory} && echo '{text}' >{directory}/override.conf && systemctl daemon-reload"
    ));
}

fn a_runner_can_stay_instead(machine: &Machine) {
    edit(machine, "hikyaku-queue.service", WATCH);
    machine.must(START_WATCH);
    let runner = main_pid(machine, "hikyaku-queue.service");
    swaks(machine, "to one who stays");
    arrives(machine, "to one who stays", SOON);
    assert_eq!(main_pid(machine, "hikyaku-queue.service"), runner);
}

fn queue_and_address_can_be_others(machine: &Machine) {
    edit(machine, "hikyaku-queue.path", OTHER_QUEUE);
    let paths = machine.must("systemctl show --value -p Paths hikyaku-queue.path");
    let words = paths.split_whitespace();
    let mut paths: Vec<&str> = words.filter(|word| word.starts_with('/')).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/srv/queue/drop", "/srv/queue/incoming"]);
    edit(machine, "hikyaku-smtpd.socket", OTHER_ADDRESS);
    let listen = machine.must("systemctl show --value -p Listen hikyaku-smtpd.socket");
    assert_eq!(listen.trim(), "127.0.0.1:25 (Stream)");
}

#[test]
fn an_installed_host_takes_delivers_and_hands_out_mail_under_inetd_and_cron() {
    let others = ["swaks", "fetchmail", "inetd", "cron"];
    if !need_machine() || !others.iter().all(|program| need(program)) {
        return;
    }
    let machine = Machine::without_init();
    install(&machine);
    machine.must(CRON);
    let _cron = Server::start(&mut machine.command("exec cron -f"));
    let samples = format!("{PREFIX}/share/hikyaku");
    let _inetd =
        Server::start(&mut machine.command(&format!("exec inetd -i {samples}/inetd.conf")));
    wait_until("inetd", || machine.connect(Ipv4Addr::LOCALHOST, 25).ok());
    swaks(&machine, "by SMTP");
    send(smtp(&machine, Ipv6Addr::LOCALHOST), "by SMTP and IPv6");
    sendmail(&machine, "by a user");
    // cron fires on the minute.
    for subject in ["by a user", "by SMTP", "by SMTP and IPv6"] {
        arrives(&machine, subject, Duration::from_secs(75));
    }
    let mut got = fetchmail(&machine);
    got.sort();
    assert_eq!(got, ["by SMTP", "by SMTP and IPv6", "by a user"]);
    uninstall(&machine);
}

#[test]
fn the_manual_says_what_was_run_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_to_string(root.join("man/hikyaku.7")).unwrap();
    let manual = manual.replace("\\e\n    ", "").replace("\\(aq", "'");
    let typed = [
        POSTMASTER,
        ENABLE,
        LMTP,
        SUBMISSION,
        ACCESS,
        RESTART,
        RUN_NOW,
        START_WATCH,
        DISABLE,
        CRON,
    ];
    for lines in typed.into_iter().chain([OTHER_QUEUE, OTHER_ADDRESS, WATCH]) {
        assert!(manual.contains(&format!("\n{lines}\n")), "hikyaku(7) lacks:\n{lines}");
    }
    for sample in ["etc/inetd.conf", "etc/crontab"] {
        let text = fs::read_to_string(root.join(sample)).unwrap();
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let line = line.trim_start_matches('#').replace('\t', " ");
            assert!(manual.contains(&format!("\n{line}\n")), "hikyaku(7) lacks:\n{line}");
        }
    }
}
