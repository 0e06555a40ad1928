//! Hosts in network namespaces, with addresses and names of their own, and dnsmasq as their name
//! server: nothing of it is seen outside, and all of it ends with the process that keeps it.
//!
//! A namespace is kept by a process that does nothing else; it has no name in the file system, so
//! that a test which is killed leaves nothing behind. Every host reads a resolv.conf of its own,
//! which lies over that of the machine in a mount namespace.

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::run::Server;
use super::site::{behind, must};
use super::{need, need_root, wait_until};

/// Where the name server is.
const NAME_SERVER: &str = "192.0.2.53";

/// Hosts that reach each other, whatever their addresses are.
pub struct Lan {
    directory: TempDir,
    /// Has the name server, and the bridge that connects all others.
    hub: Host,
    name_server: Option<Server>,
}

/// A host; the processes that were started on it end by themselves.
pub struct Host {
    keeper: Server,
}

impl Lan {
    /// Whether there can be one here; says why not.
    pub fn possible() -> bool {
        need_root() && need("ip") && need("dnsmasq") && need("unshare") && need("nsenter")
    }

    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("resolv.conf"), format!("nameserver {NAME_SERVER}\n"))
            .unwrap();
        let hub = Host::new(directory.path());
        hub.ip("link add hub type bridge");
        hub.ip("link set hub up");
        hub.ip(&format!("addr add {NAME_SERVER}/32 dev hub"));
        hub.ip("route add default dev hub");
        Self { directory, hub, name_server: None }
    }

    /// A further host at this address.
    pub fn host(&self, address: &str) -> Host {
        let host = Host::new(self.directory.path());
        let port = format!("port{}", host.keeper.pid());
        let pid = host.keeper.pid();
        self.hub.ip(&format!("link add {port} type veth peer name eth0 netns {pid}"));
        self.hub.ip(&format!("link set {port} master hub up"));
        host.ip(&format!("addr add {address}/32 dev eth0"));
        host.ip("link set eth0 up");
        // All hosts are on this one wire.
        host.ip("route add default dev eth0");
        host
    }

    /// Starts dnsmasq with these options, in place of an older one. For the domains below `net`
    /// and for addresses it knows all there is.
    pub fn name<S: AsRef<OsStr>>(&mut self, options: &[S]) {
        self.stop_naming();
        let mut command = Command::new(super::find("dnsmasq").unwrap());
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root"])
            .args(["--no-resolv", "--no-hosts", "--local=/net/in-addr.arpa/", "--bind-interfaces"])
            .args(["--log-facility=-", &format!("--listen-address={NAME_SERVER}")])
            .args(options);
        let mut command = self.hub.command(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.name_server = Some(Server::start(&mut command));
        let address = format!("{NAME_SERVER}:53").parse().unwrap();
        wait_until("dnsmasq", || self.hub.try_connect(address));
    }

    /// Nobody answers any more.
    pub fn stop_naming(&mut self) {
        self.name_server = None;
    }
}

impl Host {
    /// Whether there can be one that is alone; says why not.
    pub fn possible_alone() -> bool {
        need_root() && need("ip") && need("unshare") && need("nsenter")
    }

    /// A host that reaches nobody but itself. Its resolv.conf is kept in `directory`.
    pub fn alone(directory: &Path) -> Self {
        fs::write(directory.join("resolv.conf"), "").unwrap();
        Self::new(directory)
    }

    fn new(directory: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c"]);
        // Ends with us, however we end: stdin is a pipe that nobody writes to.
        command.arg(
            "mount --bind \"$1/resolv.conf\" /etc/resolv.conf && ip link set lo up \
             && echo up >&2 && exec cat",
        );
        command.arg("sh").arg(directory).stdin(Stdio::piped()).stdout(Stdio::null());
        let keeper = Server::start(&mut command);
        keeper.wait_for_log("up");
        Self { keeper }
    }

    /// The same command, run on this host.
    pub fn command(&self, command: &Command) -> Command {
        let pid = self.keeper.pid().to_string();
        behind(&["nsenter", "--net", "--mount", "--target", &pid, "--"], command)
    }

    /// Starts a server here, and waits until it listens.
    pub fn serve(&self, command: &Command, address: SocketAddr) -> Server {
        let mut command = self.command(command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Server::start(&mut command);
        wait_until(&format!("a server on {address}"), || {
            if let Some(status) = server.ended() {
                panic!("{command:?}: {status}: {}", server.log());
            }
            self.try_connect(address)
        });
        server
    }

    /// Connects from this host.
    #[track_caller]
    pub fn connect(&self, address: SocketAddr) -> TcpStream {
        self.try_connect(address).unwrap_or_else(|| panic!("{address} is not reached"))
    }

    fn try_connect(&self, address: SocketAddr) -> Option<TcpStream> {
        self.here(move || TcpStream::connect(address).ok())
    }

    /// A listening socket of this host's, for a server that runs anywhere.
    pub fn listen(&self) -> TcpListener {
        self.here(|| TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// A socket stays in the namespace of the thread that made it.
    fn here<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.keeper.pid())).unwrap();
        let thread = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            make()
        });
        thread.join().unwrap()
    }

    fn ip(&self, arguments: &str) {
        let mut command = Command::new(super::find("ip").unwrap());
        command.args(arguments.split(' '));
        must(&mut self.command(&command));
    }
}
