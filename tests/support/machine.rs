//! A machine to install on: a copy of this host in namespaces of its own, where root may make
//! accounts and start daemons, also systemd as process 1. Nothing of it ever reaches the host.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::run::{Ran, run, spawn};
use super::site::{HOST, must, program};
use super::{need, need_root, wait_until};

/// A throw-away machine named [`HOST`].
pub struct Machine {
    /// unshare(1): it takes everything in the machine with it. If the tests are killed, it is, too.
    guard: Child,
    /// A process inside, as the host counts.
    inside: u32,
    cgroups: Vec<PathBuf>,
    _directory: TempDir,
}

/// Whether there can be machines here, told like [`need`].
pub fn need_machine() -> bool {
    need_root()
        && ["systemd-nspawn", "nsenter", "unshare", "setpriv", "make"]
            .iter()
            .all(|program| need(program))
}

impl Machine {
    /// A machine whose systemd has come up.
    pub fn boot() -> Self {
        let machine = Self::start("systemd", &["--boot"]);
        wait_until("systemd", || {
            let state = machine.run("systemctl is-system-running --wait").text();
            matches!(state.trim(), "running" | "degraded").then_some(())
        });
        machine
    }

    /// A machine where nothing runs.
    pub fn without_init() -> Self {
        Self::start("sleep", &["--as-pid2", "/bin/sleep", "infinity"])
    }

    fn start(inside: &str, how: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hikyaku-test-{}-{number}", std::process::id());
        // The one tree of cgroup2, or both that systemd uses beside the old ones.
        let cgroups: Vec<PathBuf> = ["", "unified", "systemd"]
            .iter()
            .map(|tree| Path::new("/sys/fs/cgroup").join(tree))
            .filter(|tree| tree.join("cgroup.procs").exists())
            .map(|tree| tree.join(&name))
            .collect();
        let directory = TempDir::new().unwrap();
        let built = Path::new(program("smtpd")).parent().unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"])
            .args(["--kill-child=KILL", "--mount-proc", "sh", "-c"])
            .args([include_str!("machine.sh"), "machine.sh"])
            .args([directory.path(), Path::new(&name), Path::new(HOST)])
            .args([Path::new(env!("CARGO_MANIFEST_DIR")), built])
            .args(&cgroups)
            .arg("--")
            .args(how)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let guard = spawn(&mut command);
        let mut machine = Self { guard, inside: 0, cgroups, _directory: directory };
        machine.inside = wait_until(&format!("{inside} in a new machine"), || {
            let ended = machine.guard.try_wait().unwrap();
            assert!(ended.is_none(), "the machine did not start: {ended:?}");
            descendant(machine.guard.id(), inside)
        });
        machine
    }

    /// A file in the machine.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.inside))
    }

    /// A shell command in the machine, run by its root.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.inside.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .args(["--", "/bin/sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C");
        command
    }

    pub fn run(&self, script: &str) -> Ran {
        run(&mut self.command(script), b"")
    }

    /// The same for what must succeed; what it wrote.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        must(&mut self.command(script))
    }

    /// A connection inside the machine.
    pub fn connect(&self, host: impl Into<IpAddr>, port: u16) -> io::Result<TcpStream> {
        let address = SocketAddr::new(host.into(), port);
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.inside)).unwrap();
        // A socket stays where it was made, and a thread can go there alone.
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpStream::connect(address)
        });
        thread.join().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let deadline = Instant::now() + Duration::from_secs(10);
        for cgroup in &self.cgroups {
            // Its last processes may still be going.
            while let Err(error) = remove(cgroup) {
                if Instant::now() > deadline {
                    super::note(&format!("{}: {error}", cgroup.display()));
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Removes a cgroup and those below it; their files go with them.
fn remove(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// The process of this name below another one, in a pid namespace deeper than that one's children.
fn descendant(process: u32, name: &str) -> Option<u32> {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    children.split_whitespace().find_map(|child| {
        let is_it = fs::read_to_string(format!("/proc/{child}/comm")).ok()?.trim_end() == name;
        let child = child.parse().ok()?;
        if is_it { Some(child) } else { descendant(child, name) }
    })
}
