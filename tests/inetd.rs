//! The three ways of starting a server: by an address of its own, by systemd, and by inetd.

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
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use support::peer::{Heard, Peer};
use support::run::Server;
use support::site::{Site, activated, program};
use support::{find, need, need_root, wait_until};

/// One session of a program that has been started in some way.
#[track_caller]
fn session(name: &str, mut peer: Peer) {
    if name == "smtpd" {
        peer.greet();
        let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        assert!(peer.command("QUIT").starts_with("221 "));
    } else if name == "imapd" {
        assert!(peer.line().starts_with("* OK [CAPABILITY "));
        let answer = peer.imap("a LOGIN hunt Watts?Watt?");
        assert!(answer.starts_with("a OK [CAPABILITY "), "{answer}");
        assert!(peer.imap("b NOOP").ends_with("b OK done\n"));
        assert!(peer.imap("c LOGOUT").starts_with("* BYE "));
    } else {
        assert!(peer.line().starts_with("+OK"));
        assert!(peer.pop("USER hunt").starts_with("+OK"));
        let answer = peer.pop("PASS Watts?Watt?");
        assert!(answer.starts_with("+OK"), "{answer}");
        assert!(peer.pop("STAT").starts_with("+OK 2 "));
        assert!(peer.pop("QUIT").starts_with("+OK"));
    }
    assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
}

fn site() -> Site {
    let site = Site::new();
    support::reference::fill(&site, 2);
    site
}

/// Starts something that listens on the address, with its port still free a moment ago.
fn start(make: impl Fn(SocketAddr) -> Command) -> (Server, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut command = make(address);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    (Server::start(&mut command), address)
}

/// The peer of the first session: the starter needs a moment until it listens.
fn first(address: SocketAddr) -> Peer {
    let stream = wait_until("somebody to listen", || TcpStream::connect(address).ok());
    Peer::new(stream)
}

#[test]
fn each_server_serves_an_address_of_its_own() {
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let (server, address) = site.listen(name);
        session(name, Peer::connect(address));
        session(name, Peer::connect(address));
        let (status, log) = server.stop();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn each_server_serves_several_addresses() {
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let second = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let (_server, first_address) = start(|address| {
            let mut command = site.command(name);
            command.args(["--listen", &address.to_string()]);
            command.args(["--listen", &second.to_string()]);
            command
        });
        session(name, first(first_address));
        session(name, first(second));
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_it() {
    let site = site();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["smtpd", "popd", "imapd"] {
        let ran = support::run::run(site.command(name).args(["--listen", &address]), b"");
        assert_eq!(ran.code(), Some(71), "{ran}");
        assert!(ran.stderr.contains(&address), "{ran}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
    }
}

#[test]
fn sigterm_stops_accepting_and_lets_sessions_end() {
    let site = site();
    let (server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("nobody to listen", || TcpStream::connect(address).is_err().then_some(()));
    let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    assert!(peer.command("QUIT").starts_with("221 "));
    let (status, log) = server.join();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn each_server_serves_listening_sockets_of_systemd() {
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let (_server, address) = site.serve(name);
        session(name, Peer::connect(address));
        session(name, Peer::connect(address));
    }
}

/// A session has its walls before it has a client, and sees no file any more.
#[test]
fn a_listeners_sessions_have_the_hosts_time() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = site.command("smtpd");
    let mut command = activated(command.env("TZ", "Asia/Tokyo"));
    let _server = Server::start(command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()));
    let id = Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    let message = fs::read(site.queue().join("incoming").join(id)).unwrap();
    let zone =
        if Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() { " +0900" } else { " +0000" };
    let message = String::from_utf8_lossy(&message);
    assert!(message.contains(zone), "{message}");
}

#[test]
fn each_server_serves_one_connected_socket_of_systemd() {
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut command = activated(&site.command(name));
        command.stdin(OwnedFd::from(accepted)).stdout(Stdio::null());
        let server = Server::start(&mut command);
        // It holds the connection open.
        drop(command);
        session(name, Peer::new(client));
        let (status, log) = server.join();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn sockets_that_are_meant_for_another_process_are_not_taken() {
    let site = site();
    let mut command = site.command("smtpd");
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let (server, peer) = Site::session_of(command);
    session("smtpd", peer);
    server.join();
}

#[test]
fn each_server_speaks_on_stdin_and_stdout() {
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let (server, peer) = site.session(name);
        session(name, peer);
        let (status, log) = server.join();
        assert_eq!(status.code(), Some(0), "{log}");
        let (server, peer) = Site::local_session_of(site.command(name));
        session(name, peer);
        let (status, log) = server.join();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn each_server_is_run_by_inetd() {
    if !need("inetd") || !need_root() {
        return;
    }
    for name in ["smtpd", "popd", "imapd"] {
        let site = site();
        let file = site.path().join("inetd.conf");
        let (_inetd, address) = start(|address| {
            let line = format!(
                "{address} stream tcp nowait root {} {name} -C {}\n",
                program(name),
                site.configuration().display()
            );
            fs::write(&file, line).unwrap();
            let mut command = Command::new(find("inetd").unwrap());
            command.arg("-i").arg(&file);
            command
        });
        session(name, first(address));
        session(name, Peer::connect(address));
    }
}

#[test]
fn each_server_is_started_by_systemd_socket_activate() {
    if !need("systemd-socket-activate") {
        return;
    }
    for (name, word) in [("smtpd", "smtp"), ("popd", "pop3"), ("imapd", "imap")] {
        for how in [&["--fdname", word][..], &["--accept"], &["--inetd", "--accept"]] {
            let site = site();
            let (_systemd, address) = start(|address| {
                let mut command = Command::new(find("systemd-socket-activate").unwrap());
                command.args(["--listen", &address.to_string()]).args(how);
                command.arg(program(name)).arg("-C").arg(site.configuration());
                command
            });
            session(name, first(address));
        }
    }
}
