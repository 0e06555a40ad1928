//! What `make all` stamps into the programs: where they are going to stand.
//!
//! `make install` looks for [`VERSION`] in a program's file, without running it, and refuses what
//! was built for another place: it would not find its configuration there.

/// The prefix under which the programs stand.
pub const PREFIX: &str = match option_env!("HIKYAKU_PREFIX") {
    Some(directory) => directory,
    None => "/usr/local",
};

/// The directory of the configuration files.
pub const SYSCONFDIR: &str = match option_env!("HIKYAKU_SYSCONFDIR") {
    Some(directory) => directory,
    None => "/usr/local/etc",
};

/// What `--version` says behind a program's name, in one piece:
/// `0.1.0 (PREFIX=/usr/local SYSCONFDIR=/usr/local/etc)`.
pub const VERSION: &str = match std::str::from_utf8(&joined::<LENGTH>()) {
    Ok(version) => version,
    Err(_) => PARTS[0],
};

const PARTS: [&str; 6] =
    [env!("CARGO_PKG_VERSION"), " (PREFIX=", PREFIX, " SYSCONFDIR=", SYSCONFDIR, ")"];

const LENGTH: usize = {
    let (mut length, mut parts): (usize, &[&str]) = (0, &PARTS);
    while let [part, others @ ..] = parts {
        length += part.len();
        parts = others;
    }
    length
};

/// The parts behind each other. (`concat!` takes literals only.)
const fn joined<const N: usize>() -> [u8; N] {
    let mut whole = [0; N];
    let (mut left, mut parts): (&mut [u8], &[&str]) = (&mut whole, &PARTS);
    while let [part, others @ ..] = parts {
        let (place, rest) = left.split_at_mut(part.len());
        place.copy_from_slice(part.as_bytes());
        (left, parts) = (rest, others);
    }
    whole
}
