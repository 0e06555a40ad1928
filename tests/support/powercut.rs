//! What a disk may hold after a power cut.
//!
//! A program is run once under strace, and its file operations in one directory tree are written
//! down. Then the power is cut after each of them, on paper: what fsync(2) has promised is on the
//! disk, and of everything else any part may be. The tree is made again as it would be found, and
//! a checker looks whether it can be lived with.
//!
//! The rules of the model, which are those that a careful program relies on and no more:
//! - The contents of a file are durable as they were at its last fsync or fdatasync. Each write
//!   since then, by blocks of 4 KiB, and each change of size, may have reached the disk or not.
//!   Writes to one block stay in order: the page that the kernel gives to the disk has all of them.
//! - Changes to one inode (its size, its extended attributes) stay in order: none has reached the
//!   disk without the earlier ones. The data of its blocks is not so.
//! - A name is durable when the directory in which it is has been fsynced. Each name made, changed
//!   or removed since then may have reached the disk or not; fsync of the file itself promises
//!   nothing about its name.
//! - A rename happens as a whole or not at all, and is durable by fsync of the directory in which
//!   the new name is.
//! - Operations on one name stay in order: none has reached the disk without the earlier ones.
//!
//! Files that were there before or after the program keep their inode in every state, as they would
//! on a disk: journals tell by it which file they are for.
//!
//! A file without a name (`O_TMPFILE`) is followed until linkat(2) gives it one. What the model
//! does not know (a shared writable mapping, sendfile into the tree) ends the test.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::kill::NO_ATTRIBUTES;
use super::site::behind;
use super::trace::{self, Call, Descriptor, Event};
use super::{Dice, is_root};

const BLOCK: usize = 4096;

/// The calls that are written down.
const CALLS: [&str; 54] = [
    "open",
    "openat",
    "creat",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "lseek",
    "read",
    "readv",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "ftruncate",
    "truncate",
    "fallocate",
    "fsetxattr",
    "fremovexattr",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "fsync",
    "fdatasync",
    "sync",
    "syncfs",
    "sync_file_range",
    "sendto",
    "sendmsg",
    "sendfile",
    "copy_file_range",
    "splice",
    "mmap",
    "fchmod",
    "chmod",
    "fchmodat",
    "exit_group",
];

/// How many random choices of what has reached the disk are tried at each moment, besides all,
/// nothing, and each single one.
const RANDOM: usize = 8;

type Inode = usize;

/// To whom a new file belongs, by its path in the tree; the calls do not tell.
pub type Owner = fn(&Path) -> Option<(u32, u32)>;

/// The tree before the program ran, and where strace writes.
pub struct Recorder {
    root: PathBuf,
    owner: Owner,
    model: Model,
    /// The numbers of the files on the real disk.
    numbers: HashMap<u64, Inode>,
    _directory: TempDir,
    output: PathBuf,
}

impl Recorder {
    pub fn new(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        let mut model = Model::default();
        let numbers = model.scan(&root);
        let (directory, output) = trace::output();
        Self { root, owner: |_| None, model, numbers, _directory: directory, output }
    }

    /// Says whose the new files are; without it they belong to who owns their directory.
    #[must_use]
    pub fn owned_by(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// The command with strace in front of it.
    pub fn wrap(&self, command: &Command) -> Command {
        behind(&trace::arguments(&self.output, &CALLS), command)
    }

    /// The same on a file system that has no extended attributes.
    pub fn wrap_without_attributes(&self, command: &Command) -> Command {
        let mut strace = trace::arguments(&self.output, &CALLS);
        strace.extend(["-e", NO_ATTRIBUTES].map(Into::into));
        behind(&strace, command)
    }

    /// What strace calls the file to which the program wrote this, for [`Recorder::finish`].
    #[track_caller]
    pub fn speaker(&self, text: &[u8]) -> String {
        let events = trace::parse(&fs::read_to_string(&self.output).unwrap());
        let mut writes = trace::calls(&events).filter_map(Call::written);
        let found = writes
            .find(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text))
            .unwrap_or_else(|| panic!("it wrote {} nowhere", text.escape_ascii()));
        found.0.file
    }

    /// Reads what was written down, after the end of the program.
    ///
    /// `spoken_on` is what strace calls the file on which the program gives its promises, such as
    /// `socket:[12345]`.
    pub fn finish(self, spoken_on: &str) -> Recording {
        let text = fs::read_to_string(&self.output).unwrap();
        let events = trace::parse(&text);
        let (steps, after) = Reader {
            root: &self.root,
            working_directory: self.root.clone(),
            spoken_on,
            model: self.model.clone(),
            files: HashMap::new(),
            open: Vec::new(),
            steps: Vec::new(),
        }
        .read(&events);
        let mut numbers = self.numbers;
        after.find(&self.root, ROOT, &mut numbers);
        let beside = self.root.parent().unwrap();
        let vault = tempfile::tempdir_in(beside).unwrap();
        Recording {
            disk: RealDisk { root: self.root, owner: self.owner, numbers, vault },
            before: self.model,
            steps,
            events,
        }
    }
}

/// What a program did.
pub struct Recording {
    disk: RealDisk,
    before: Model,
    steps: Vec<Step>,
    pub events: Vec<Event>,
}

/// The place where the states of the model are made for the checker.
struct RealDisk {
    root: PathBuf,
    owner: Owner,
    numbers: HashMap<u64, Inode>,
    /// Where files wait that have no name in a state, or are about to get one.
    vault: TempDir,
}

/// One thing that matters to the disk or to those who rely on it.
#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Sync(Inode),
    SyncAll,
    Said(Vec<u8>),
    Ended(i32),
}

#[derive(Clone, Debug)]
enum Change {
    /// A new file or directory, without a name yet.
    Make(Inode, Node),
    Data(Inode, Data),
    Names(Names),
}

/// A change to the contents of a file, or to its inode.
#[derive(Clone, Debug)]
enum Data {
    Write(usize, Vec<u8>),
    Size(usize),
    /// An extended attribute gets this value, or none.
    Attribute(String, Option<Vec<u8>>),
}

/// Names that change together.
#[derive(Clone, Debug)]
struct Names {
    /// Directory, name, and what it leads to afterwards.
    changes: Vec<(Inode, String, Option<Inode>)>,
    /// The directory whose fsync makes it durable.
    directory: Inode,
}

/// A file or a directory, as the disk may have it.
#[derive(Clone, Debug, Default)]
struct Node {
    directory: bool,
    fifo: bool,
    mode: u32,
    /// Known for what was there before; what is new belongs to who owns its directory.
    owner: Option<(u32, u32)>,
    /// The contents; a directory has none.
    bytes: Vec<u8>,
    attributes: BTreeMap<String, Vec<u8>>,
}

/// All files, as programs see them or as the disk has them.
#[derive(Clone, Debug, Default)]
struct Model {
    nodes: Vec<Node>,
    /// Name by name: the directory, and what is in it.
    names: BTreeMap<(Inode, String), Inode>,
}

/// The tree's own directory.
const ROOT: Inode = 0;

impl Model {
    /// Reads a tree; the numbers of its files.
    fn scan(&mut self, path: &Path) -> HashMap<u64, Inode> {
        let mut known = HashMap::new();
        let node = self.add(path);
        assert_eq!(node, ROOT);
        self.scan_below(path, ROOT, &mut known);
        known
    }

    /// Finds the numbers of the files that the tree has now.
    fn find(&self, path: &Path, at: Inode, numbers: &mut HashMap<u64, Inode>) {
        for ((_, name), inode) in self.entries(at) {
            let path = path.join(name);
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                numbers.insert(metadata.ino(), *inode);
                if metadata.is_dir() {
                    self.find(&path, *inode, numbers);
                }
            }
        }
    }

    /// What is in a directory.
    fn entries(&self, at: Inode) -> impl Iterator<Item = (&(Inode, String), &Inode)> {
        self.names.range((at, String::new())..(at + 1, String::new()))
    }

    fn scan_below(&mut self, path: &Path, at: Inode, known: &mut HashMap<u64, Inode>) {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let number = entry.metadata().unwrap().ino();
            let name = entry.file_name().into_string().unwrap();
            let inode = match known.get(&number) {
                Some(inode) => *inode,
                None => self.add(&entry.path()),
            };
            known.insert(number, inode);
            self.names.insert((at, name), inode);
            if self.nodes[inode].directory {
                self.scan_below(&entry.path(), inode, known);
            }
        }
    }

    fn add(&mut self, path: &Path) -> Inode {
        let metadata = fs::symlink_metadata(path).unwrap();
        let kind = metadata.file_type();
        self.nodes.push(Node {
            directory: kind.is_dir(),
            fifo: kind.is_fifo(),
            mode: metadata.permissions().mode() & 0o7777,
            owner: Some((metadata.uid(), metadata.gid())),
            bytes: if kind.is_file() { fs::read(path).unwrap() } else { Vec::new() },
            attributes: BTreeMap::new(),
        });
        self.nodes.len() - 1
    }

    fn lookup(&self, at: Inode, name: &str) -> Option<Inode> {
        self.names.get(&(at, name.to_owned())).copied()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Make(inode, node) => {
                assert_eq!(*inode, self.nodes.len());
                self.nodes.push(node.clone());
            }
            Change::Data(inode, data) => data.apply(&mut self.nodes[*inode]),
            Change::Names(names) => {
                for (directory, name, inode) in &names.changes {
                    let key = (*directory, name.clone());
                    match inode {
                        Some(inode) => self.names.insert(key, *inode),
                        None => self.names.remove(&key),
                    };
                }
            }
        }
    }

    /// What can be told apart by somebody who looks at the disk.
    fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for (key, inode) in &self.names {
            (key, inode).hash(&mut hasher);
            self.nodes[*inode].bytes.hash(&mut hasher);
            self.nodes[*inode].attributes.hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl RealDisk {
    /// Makes the tree as the model has it.
    fn restore(&mut self, model: &Model) {
        self.clear(&self.root.clone());
        let mut made = HashMap::new();
        self.make(model, Path::new(""), ROOT, &mut made);
    }

    /// Empties a directory; files that are known go into the vault.
    fn clear(&self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            if metadata.is_dir() {
                self.clear(&path);
                fs::remove_dir(&path).unwrap();
            } else if let Some(inode) = self.numbers.get(&metadata.ino()) {
                fs::rename(&path, self.kept(*inode)).unwrap();
                // A second name of a file that is kept already: rename(2) leaves it.
                let _ = fs::remove_file(&path);
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }

    fn kept(&self, inode: Inode) -> PathBuf {
        self.vault.path().join(inode.to_string())
    }

    fn make(&mut self, model: &Model, below: &Path, at: Inode, made: &mut HashMap<Inode, PathBuf>) {
        for ((_, name), inode) in model.entries(at) {
            let node = &model.nodes[*inode];
            let below = below.join(name);
            let path = self.root.join(&below);
            if node.directory {
                fs::create_dir(&path).unwrap();
            } else if let Some(first) = made.get(inode) {
                fs::hard_link(first, &path).unwrap();
                continue;
            } else if node.fifo {
                let _ = fs::remove_file(self.kept(*inode));
                let mode = nix::sys::stat::Mode::from_bits_truncate(node.mode);
                nix::unistd::mkfifo(&path, mode).unwrap();
            } else {
                // The same file as in the states before, where it is still there.
                let _ = fs::rename(self.kept(*inode), &path);
                fs::write(&path, &node.bytes).unwrap();
                set_attributes(&path, &node.attributes);
                let number = fs::metadata(&path).unwrap().ino();
                self.numbers.insert(number, *inode);
            }
            if is_root() {
                let known = node.owner.or_else(|| (self.owner)(&below));
                let (uid, gid) = known.or(model.nodes[at].owner).unwrap_or((0, 0));
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(node.mode)).unwrap();
            made.insert(*inode, path);
            if node.directory {
                self.make(model, &below, *inode, made);
            }
        }
    }
}

/// Gives a file these attributes of a user's, and no others.
fn set_attributes(path: &Path, attributes: &BTreeMap<String, Vec<u8>>) {
    use rustix::fs::{XattrFlags, listxattr, removexattr, setxattr};
    let mut names = Vec::with_capacity(4096);
    if listxattr(path, rustix::buffer::spare_capacity(&mut names)).is_ok() {
        for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
            removexattr(path, name).unwrap();
        }
    }
    for (name, value) in attributes {
        setxattr(path, name.as_str(), value, XattrFlags::empty()).unwrap();
    }
}

impl Data {
    fn apply(&self, node: &mut Node) {
        let bytes = &mut node.bytes;
        match self {
            Self::Attribute(name, Some(value)) => {
                node.attributes.insert(name.clone(), value.clone());
            }
            Self::Attribute(name, None) => {
                node.attributes.remove(name);
            }
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Size(size) => bytes.resize(*size, 0),
        }
    }
}

/// Turns system calls into steps.
struct Reader<'a> {
    root: &'a Path,
    working_directory: PathBuf,
    spoken_on: &'a str,
    /// The tree as the program sees it.
    model: Model,
    /// Which open file a descriptor of a process is.
    files: HashMap<(u32, i32), usize>,
    open: Vec<Open>,
    steps: Vec<Step>,
}

/// An open file: one for all descriptors that were duplicated from one.
struct Open {
    inode: Inode,
    position: usize,
    append: bool,
    /// What `-y` called it when it was opened.
    label: String,
}

/// Where a path leads.
enum Place {
    /// A name in a directory of the tree; the name may not be there.
    Entry(Inode, String),
    Root,
    Elsewhere,
}

impl Reader<'_> {
    fn read(mut self, events: &[Event]) -> (Vec<Step>, Model) {
        let first = events.iter().find_map(|event| match event {
            Event::Call(call) => Some(call.pid),
            _ => None,
        });
        for event in events {
            match event {
                Event::Call(call) if call.failed() => {}
                Event::Call(call) => self.call(call),
                Event::Exit(pid, status) if Some(*pid) == first => {
                    self.steps.push(Step::Ended(*status));
                }
                Event::Exit(..) | Event::Killed(..) => {}
            }
        }
        (self.steps, self.model)
    }

    fn change(&mut self, change: Change) {
        self.model.apply(&change);
        self.steps.push(Step::Change(change));
    }

    fn call(&mut self, call: &Call) {
        if let Some((descriptor, bytes)) = call.written() {
            if descriptor.file == self.spoken_on {
                self.steps.push(Step::Said(bytes));
                return;
            }
            return self.write(call, &descriptor, &bytes);
        }
        match call.name.as_str() {
            "open" => self.open_at(call, None, &call.text(0), 1),
            "openat" => self.open_at(call, Some(call.descriptor(0)), &call.text(1), 2),
            "creat" => self.open_at(call, None, &call.text(0), 99),
            "close" => {
                self.files.remove(&(call.pid, call.descriptor(0).number));
            }
            "dup" | "dup2" | "dup3" => self.duplicate(call),
            "fcntl" if call.argument(1).starts_with("F_DUPFD") => self.duplicate(call),
            "fork" | "vfork" | "clone" | "clone3" => self.fork(call),
            "lseek" => {
                if let Some(open) = self.open_file(call.pid, &call.descriptor(0)) {
                    self.open[open].position = value(call);
                }
            }
            "read" | "readv" => {
                if let Some(open) = self.open_file(call.pid, &call.descriptor(0)) {
                    self.open[open].position += value(call);
                }
            }
            "ftruncate" => {
                if let Some(inode) = self.inode(call.pid, &call.descriptor(0)) {
                    self.resize(inode, size(call, 1));
                }
            }
            "truncate" => {
                if let Some(inode) = self.existing(None, &call.text(0)) {
                    self.resize(inode, size(call, 1));
                }
            }
            "fallocate" => self.allocate(call),
            "fsetxattr" | "fremovexattr" => {
                if let Some(inode) = self.inode(call.pid, &call.descriptor(0)) {
                    let value = (call.name == "fsetxattr").then(|| call.bytes(2));
                    self.change(Change::Data(inode, Data::Attribute(call.text(1), value)));
                }
            }
            "rename" => self.rename(None, &call.text(0), None, &call.text(1)),
            "renameat" | "renameat2" => {
                assert!(!call.has_flag(4, "RENAME_EXCHANGE"), "the model does not know {call:?}");
                self.rename(
                    Some(call.descriptor(0)),
                    &call.text(1),
                    Some(call.descriptor(2)),
                    &call.text(3),
                );
            }
            "link" => {
                let from = self.existing(None, &call.text(0));
                self.link(from, None, &call.text(1));
            }
            "linkat" => {
                let from = self.linked(call);
                self.link(from, Some(call.descriptor(2)), &call.text(3));
            }
            "unlink" | "rmdir" => self.unlink(None, &call.text(0)),
            "unlinkat" => self.unlink(Some(call.descriptor(0)), &call.text(1)),
            "mkdir" => self.make_directory(None, &call.text(0), mode(call, 1)),
            "mkdirat" => {
                self.make_directory(Some(call.descriptor(0)), &call.text(1), mode(call, 2));
            }
            "fsync" | "fdatasync" => {
                if let Some(inode) = self.inode(call.pid, &call.descriptor(0)) {
                    self.steps.push(Step::Sync(inode));
                }
            }
            "sync" | "syncfs" => self.steps.push(Step::SyncAll),
            "symlink" | "symlinkat" | "mknod" | "mknodat" => {
                let text = call.arguments.join(" ");
                let inside = text.contains(&self.root.display().to_string());
                assert!(!inside, "the model does not know {call:?}");
            }
            "sendfile" | "copy_file_range" | "splice" => {
                let to = if call.name == "sendfile" { 0 } else { 2 };
                let inside = self.inode(call.pid, &call.descriptor(to));
                assert!(inside.is_none(), "the model does not know {call:?}");
            }
            "mmap" if call.has_flag(2, "PROT_WRITE") && call.has_flag(3, "MAP_SHARED") => {
                let inside = self.inode(call.pid, &call.descriptor(4));
                assert!(inside.is_none(), "the model does not know {call:?}");
            }
            _ => {}
        }
    }

    fn write(&mut self, call: &Call, descriptor: &Descriptor, bytes: &[u8]) {
        let Some(open) = self.open_file(call.pid, descriptor) else {
            return;
        };
        let inode = self.open[open].inode;
        if self.model.nodes[inode].fifo || self.model.nodes[inode].directory {
            return;
        }
        let length = self.model.nodes[inode].bytes.len();
        let positioned = matches!(call.name.as_str(), "pwrite64" | "pwritev" | "pwritev2");
        let offset = if positioned {
            size(call, 3)
        } else if self.open[open].append {
            length
        } else {
            self.open[open].position
        };
        if !positioned {
            self.open[open].position = offset + bytes.len();
        }
        let end = offset + bytes.len();
        if end > length {
            self.change(Change::Data(inode, Data::Size(end)));
        }
        let mut at = offset;
        while at < end {
            let next = ((at / BLOCK + 1) * BLOCK).min(end);
            let piece = bytes[at - offset..next - offset].to_vec();
            self.change(Change::Data(inode, Data::Write(at, piece)));
            at = next;
        }
    }

    fn resize(&mut self, inode: Inode, size: usize) {
        if self.model.nodes[inode].bytes.len() != size {
            self.change(Change::Data(inode, Data::Size(size)));
        }
    }

    fn allocate(&mut self, call: &Call) {
        let Some(inode) = self.inode(call.pid, &call.descriptor(0)) else {
            return;
        };
        match call.argument(1) {
            "0" => {
                let end = size(call, 2) + size(call, 3);
                if end > self.model.nodes[inode].bytes.len() {
                    self.resize(inode, end);
                }
            }
            "FALLOC_FL_KEEP_SIZE" => {}
            _ => panic!("the model does not know {call:?}"),
        }
    }

    fn open_at(&mut self, call: &Call, at: Option<Descriptor>, path: &str, flags: usize) {
        let returned = call.returned();
        let creates = flags == 99 || call.has_flag(flags, "O_CREAT");
        let truncates = flags == 99 || call.has_flag(flags, "O_TRUNC");
        let inode = if call.has_flag(flags, "O_TMPFILE") {
            if self.existing(at, path).is_none() {
                return;
            }
            self.make(false, mode(call, flags + 1))
        } else {
            match self.place(at, path) {
                Place::Root => ROOT,
                Place::Elsewhere => return,
                Place::Entry(directory, name) => match self.model.lookup(directory, &name) {
                    Some(inode) => {
                        if truncates {
                            self.resize(inode, 0);
                        }
                        inode
                    }
                    None if creates => {
                        let mode = if flags == 99 { mode(call, 1) } else { mode(call, flags + 1) };
                        let inode = self.make(false, mode);
                        self.name(directory, name, inode);
                        inode
                    }
                    None => panic!("a file that should not be there: {call:?}"),
                },
            }
        };
        self.open.push(Open {
            inode,
            position: 0,
            append: call.has_flag(flags, "O_APPEND"),
            label: returned.file,
        });
        self.files.insert((call.pid, returned.number), self.open.len() - 1);
    }

    fn duplicate(&mut self, call: &Call) {
        let from = self.open_file(call.pid, &call.descriptor(0));
        let to = (call.pid, call.returned().number);
        match from {
            Some(open) => self.files.insert(to, open),
            None => self.files.remove(&to),
        };
    }

    fn fork(&mut self, call: &Call) {
        let Ok(child) = u32::try_from(value(call)) else {
            return;
        };
        let inherited: Vec<_> = self
            .files
            .iter()
            .filter(|((pid, _), _)| *pid == call.pid)
            .map(|((_, number), open)| (*number, *open))
            .collect();
        for (number, open) in inherited {
            // The child may have run before its parent came back from the call.
            self.files.entry((child, number)).or_insert(open);
        }
    }

    fn make(&mut self, directory: bool, mode: u32) -> Inode {
        let inode = self.model.nodes.len();
        let node = Node { directory, mode, ..Node::default() };
        self.change(Change::Make(inode, node));
        inode
    }

    fn name(&mut self, directory: Inode, name: String, inode: Inode) {
        self.change(Change::Names(Names {
            changes: vec![(directory, name, Some(inode))],
            directory,
        }));
    }

    fn make_directory(&mut self, at: Option<Descriptor>, path: &str, mode: u32) {
        if let Place::Entry(directory, name) = self.place(at, path) {
            let inode = self.make(true, mode);
            self.name(directory, name, inode);
        }
    }

    fn unlink(&mut self, at: Option<Descriptor>, path: &str) {
        if let Place::Entry(directory, name) = self.place(at, path) {
            self.change(Change::Names(Names { changes: vec![(directory, name, None)], directory }));
        }
    }

    fn link(&mut self, from: Option<Inode>, at: Option<Descriptor>, path: &str) {
        if let Place::Entry(directory, name) = self.place(at, path) {
            let inode = from.unwrap_or_else(|| panic!("{path} is a link to a file of elsewhere"));
            self.name(directory, name, inode);
        }
    }

    /// The file that linkat gives a name to.
    fn linked(&mut self, call: &Call) -> Option<Inode> {
        let path = call.text(1);
        if path.is_empty() {
            return self.inode(call.pid, &call.descriptor(0));
        }
        if let Some(number) = path.strip_prefix("/proc/").and_then(|rest| {
            let (_, number) = rest.split_once("/fd/")?;
            number.parse().ok()
        }) {
            let descriptor = Descriptor { number, file: String::new() };
            return self.inode(call.pid, &descriptor);
        }
        self.existing(Some(call.descriptor(0)), &path)
    }

    fn rename(
        &mut self,
        from_at: Option<Descriptor>,
        from: &str,
        to_at: Option<Descriptor>,
        to: &str,
    ) {
        match (self.place(from_at, from), self.place(to_at, to)) {
            (Place::Entry(old, old_name), Place::Entry(new, new_name)) => {
                let inode = self.model.lookup(old, &old_name);
                let changes = vec![(old, old_name, None), (new, new_name, inode)];
                self.change(Change::Names(Names { changes, directory: new }));
            }
            (Place::Elsewhere, Place::Elsewhere) => {}
            _ => panic!("the model does not know a rename into or out of the tree: {from} {to}"),
        }
    }

    /// The open file that a descriptor leads to, where it is one of the tree.
    fn open_file(&mut self, pid: u32, descriptor: &Descriptor) -> Option<usize> {
        if let Some(open) = self.files.get(&(pid, descriptor.number)) {
            return Some(*open);
        }
        // It was handed over by another process: the one that was last opened under this label.
        if !Path::new(&descriptor.file).starts_with(self.root) {
            return None;
        }
        let found = self.open.iter().rposition(|open| open.label == descriptor.file);
        let found = found.or_else(|| {
            let inode = self.existing(None, &descriptor.file)?;
            self.open.iter().rposition(|open| open.inode == inode)
        });
        if let Some(open) = found {
            self.files.insert((pid, descriptor.number), open);
        }
        found
    }

    fn inode(&mut self, pid: u32, descriptor: &Descriptor) -> Option<Inode> {
        if let Some(open) = self.open_file(pid, descriptor) {
            return Some(self.open[open].inode);
        }
        self.existing(None, &descriptor.file)
    }

    fn existing(&self, at: Option<Descriptor>, path: &str) -> Option<Inode> {
        match self.place(at, path) {
            Place::Root => Some(ROOT),
            Place::Entry(directory, name) => self.model.lookup(directory, &name),
            Place::Elsewhere => None,
        }
    }

    fn place(&self, at: Option<Descriptor>, path: &str) -> Place {
        let base = at.map_or_else(|| self.working_directory.clone(), |at| at.file.into());
        let path = base.join(path);
        let Ok(inside) = path.strip_prefix(self.root) else {
            return Place::Elsewhere;
        };
        let mut names: Vec<String> = Vec::new();
        for component in inside.components() {
            match component {
                Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
                Component::ParentDir if names.pop().is_none() => return Place::Elsewhere,
                _ => {}
            }
        }
        let Some(last) = names.pop() else {
            return Place::Root;
        };
        let mut directory = ROOT;
        for name in names {
            match self.model.lookup(directory, &name) {
                Some(inode) => directory = inode,
                None => return Place::Elsewhere,
            }
        }
        Place::Entry(directory, last)
    }
}

fn value(call: &Call) -> usize {
    usize::try_from(call.value().unwrap_or_default()).unwrap()
}

fn size(call: &Call, at: usize) -> usize {
    usize::try_from(call.number(at)).unwrap()
}

fn mode(call: &Call, at: usize) -> u32 {
    u32::try_from(call.number(at)).unwrap() & !0o022
}

/// A moment at which the power was cut, for the checker.
pub struct Moment<'a> {
    /// What the program had said on the promised file.
    pub said: &'a [u8],
    /// Its exit status, where it had ended.
    pub ended: Option<i32>,
}

/// What came of a replay.
pub struct Report {
    pub moments: usize,
    pub states: usize,
    pub failures: Vec<String>,
}

impl Report {
    /// The first few failures, each cut: they are much alike, and may show whole mailboxes.
    fn some(&self) -> String {
        let mut text = String::new();
        for failure in self.failures.iter().take(12) {
            text.extend(failure.chars().take(400));
            text.push('\n');
        }
        text
    }

    /// Fails where a state could not be lived with.
    #[track_caller]
    pub fn expect_none(&self, what: &str) {
        super::note(&format!(
            "{what}: {} moments, {} states of the disk",
            self.moments, self.states
        ));
        assert!(
            self.failures.is_empty(),
            "{what}: {} of {} states:\n{}",
            self.failures.len(),
            self.states,
            self.some()
        );
    }
}

/// What the disk surely has, and what it may have.
struct Disk {
    durable: Model,
    /// In order; each with whose fsync makes it durable.
    pending: Vec<Change>,
}

impl Disk {
    fn change(&mut self, change: &Change) {
        // That a file is there at all is no promise: it only matters where a name leads to it.
        if matches!(change, Change::Make(..)) {
            self.durable.apply(change);
        } else {
            self.pending.push(change.clone());
        }
    }

    fn sync(&mut self, inode: Option<Inode>) {
        let mut promised: Vec<bool> = self
            .pending
            .iter()
            .map(|change| match (change, inode) {
                (_, None) => true,
                (Change::Data(file, _), Some(inode)) => *file == inode,
                (Change::Names(names), Some(inode)) => names.directory == inode,
                (Change::Make(..), _) => false,
            })
            .collect();
        self.with_earlier(&mut promised);
        let mut promised = promised.into_iter();
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let promised = promised.next().unwrap_or_default();
            if promised {
                durable.apply(change);
            }
            !promised
        });
    }

    /// Chooses what the chosen operations build upon, too: the earlier ones on their names and inodes.
    fn with_earlier(&self, chosen: &mut [bool]) {
        spread(self.pending.iter().zip(chosen).rev());
    }

    /// Chooses what builds upon the chosen operations, too: the later ones on their names and inodes.
    fn with_later(&self, chosen: &mut [bool]) {
        spread(self.pending.iter().zip(chosen));
    }

    /// The disk with those of the pending operations that `reached` chooses.
    fn state(&self, reached: impl Fn(usize) -> bool) -> Model {
        let mut state = self.durable.clone();
        // Sizes of files whose data went further than their size did.
        let mut sizes: HashMap<Inode, usize> = HashMap::new();
        for (at, change) in self.pending.iter().enumerate() {
            if !reached(at) {
                continue;
            }
            if let Change::Data(inode, data) = change {
                let length = state.nodes[*inode].bytes.len();
                let size = sizes.entry(*inode).or_insert(length);
                if let Data::Size(new) = data {
                    *size = *new;
                }
            }
            state.apply(change);
        }
        for (inode, size) in sizes {
            state.nodes[inode].bytes.resize(size, 0);
        }
        state
    }
}

/// Chooses each operation that shares a name or an inode with a chosen one in front of it.
fn spread<'a>(operations: impl Iterator<Item = (&'a Change, &'a mut bool)>) {
    // An inode, or a name in a directory.
    let mut touched: BTreeSet<(Inode, Option<String>)> = BTreeSet::new();
    for (change, chosen) in operations {
        let keys: Vec<_> = match change {
            Change::Names(names) => {
                let changes = names.changes.iter();
                changes.map(|(directory, name, _)| (*directory, Some(name.clone()))).collect()
            }
            Change::Data(inode, Data::Size(_) | Data::Attribute(..)) => vec![(*inode, None)],
            Change::Data(inode, Data::Write(at, _)) => {
                vec![(*inode, Some(format!("block {}", at / BLOCK)))]
            }
            Change::Make(..) => continue,
        };
        *chosen |= keys.iter().any(|key| touched.contains(key));
        if *chosen {
            touched.extend(keys);
        }
    }
}

impl Recording {
    /// Cuts the power after each step, and lets `check` look at each state of the disk. The tree
    /// is made anew in its own place for each.
    pub fn replay(mut self, check: &mut dyn FnMut(&Moment<'_>) -> Result<(), String>) -> Report {
        let mut disk = Disk { durable: self.before.clone(), pending: Vec::new() };
        let mut said = Vec::new();
        let mut ended = None;
        let mut seen = BTreeSet::new();
        let mut dice = Dice::new(1);
        let mut report = Report { moments: 0, states: 0, failures: Vec::new() };
        for number in 0..=self.steps.len() {
            if number > 0 {
                match &self.steps[number - 1] {
                    Step::Change(change) => disk.change(change),
                    Step::Sync(inode) => disk.sync(Some(*inode)),
                    Step::SyncAll => disk.sync(None),
                    Step::Said(bytes) => said.extend_from_slice(bytes),
                    Step::Ended(status) => ended = Some(*status),
                }
            }
            report.moments += 1;
            let count = disk.pending.len();
            let mut choices: Vec<(String, Vec<bool>)> = vec![
                ("everything pending reached the disk".into(), vec![true; count]),
                ("nothing pending reached the disk".into(), vec![false; count]),
            ];
            for at in 0..count {
                let one: Vec<bool> = (0..count).map(|other| other == at).collect();
                let (mut only, mut lost) = (one.clone(), one);
                disk.with_earlier(&mut only);
                disk.with_later(&mut lost);
                let but = lost.iter().map(|lost| !lost).collect();
                choices.push((format!("only {:?} reached the disk", Short(&disk, at)), only));
                choices.push((format!("all but {:?} reached the disk", Short(&disk, at)), but));
            }
            for _ in 0..if count > 2 { RANDOM } else { 0 } {
                let mut some: Vec<bool> = (0..count).map(|_| dice.below(2) == 0).collect();
                disk.with_earlier(&mut some);
                choices.push(("a part of it reached the disk".into(), some));
            }
            for (what, choice) in choices {
                let state = disk.state(|at| choice[at]);
                if !seen.insert((state.fingerprint(), said.clone(), ended)) {
                    continue;
                }
                report.states += 1;
                self.disk.restore(&state);
                let moment = Moment { said: &said, ended };
                if let Err(wrong) = check(&moment) {
                    report.failures.push(format!(
                        "after step {number} ({}): {what}: {wrong}",
                        self.describe(number)
                    ));
                }
            }
        }
        report
    }

    fn describe(&self, number: usize) -> String {
        let Some(step) = number.checked_sub(1).and_then(|at| self.steps.get(at)) else {
            return "the beginning".into();
        };
        match step {
            Step::Change(change) => describe(change),
            Step::Sync(inode) => format!("fsync of {inode}"),
            Step::SyncAll => "sync".into(),
            Step::Said(bytes) => format!("said {:?}", String::from_utf8_lossy(bytes)),
            Step::Ended(status) => format!("ended with {status}"),
        }
    }
}

/// A pending operation in a few words.
struct Short<'a>(&'a Disk, usize);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(&self.0.pending[self.1]))
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Make(inode, _) => format!("new file {inode}"),
        Change::Data(inode, Data::Write(offset, bytes)) => {
            format!("{} bytes at {offset} of {inode}", bytes.len())
        }
        Change::Data(inode, Data::Size(size)) => format!("size {size} of {inode}"),
        Change::Data(inode, Data::Attribute(name, value)) => {
            let what = if value.is_some() { "is set" } else { "is removed" };
            format!("{name} of {inode} {what}")
        }
        Change::Names(names) => {
            let names: Vec<String> = names
                .changes
                .iter()
                .map(|(directory, name, inode)| match inode {
                    Some(inode) => format!("{directory}/{name} is {inode}"),
                    None => format!("{directory}/{name} is gone"),
                })
                .collect();
            names.join(", ")
        }
    }
}
