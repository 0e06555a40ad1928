//! The operating system: the only room with unsafe code.
//!
//! Everything here is mechanism (accounts, privilege, processes, signals, descriptors, locks,
//! syslog, exit statuses); no mail, no policy.

pub mod account;
pub mod channel;
pub mod clock;
pub mod exit;
pub mod fd;
pub mod jail;
pub mod lock;
pub mod log;
pub mod pam;
pub mod privilege;
pub mod process;
pub mod signal;
pub mod start;
pub mod terminal;

pub use account::Account;
pub use exit::Exit;
pub use log::Log;
