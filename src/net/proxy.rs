//! The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the
//! client's own bytes (haproxy's proxy-protocol.txt). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Begins version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// The longest header that is taken: addresses, and what may stand behind them.
pub const MAX: usize = 16 + 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The balancer itself: it looks whether we live.
    Local,
    /// Somebody at this address.
    At(IpAddr),
    /// Somebody else, or somewhere that is no internet address.
    Unknown,
}

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// No header: the balancer is none, or does not speak this.
    None,
    /// More bytes are wanted.
    More,
    /// A header of so many bytes.
    Whole(Client, usize),
}

/// Reads a header off the beginning of what was received.
pub fn header(bytes: &[u8]) -> Header {
    if bytes.len() >= SIGNATURE.len() && bytes.starts_with(&SIGNATURE) {
        return version2(bytes);
    }
    let is_begun = |whole: &[u8]| {
        let both = whole.iter().zip(bytes);
        both.clone().count() > 0 && both.clone().all(|(a, b)| a == b)
    };
    if is_begun(&SIGNATURE) {
        return Header::More;
    }
    if is_begun(b"PROXY ") {
        return version1(bytes);
    }
    if bytes.is_empty() { Header::More } else { Header::None }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 25` and CRLF.
fn version1(bytes: &[u8]) -> Header {
    let line = bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE { Header::More } else { Header::None };
    };
    let Some(Ok(line)) = line.get(..end).map(std::str::from_utf8) else {
        return Header::None;
    };
    let words: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let ports = |from, to| port(from) && port(to);
    let client = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Some(Client::Unknown),
        ["PROXY", "TCP4", from, to, a, b] if ports(a, b) && to.parse::<Ipv4Addr>().is_ok() => {
            from.parse::<Ipv4Addr>().ok().map(|from| Client::At(from.into()))
        }
        ["PROXY", "TCP6", from, to, a, b] if ports(a, b) && to.parse::<Ipv6Addr>().is_ok() => {
            from.parse::<Ipv6Addr>().ok().map(|from| Client::At(IpAddr::from(from).to_canonical()))
        }
        _ => None,
    };
    client.map_or(Header::None, |client| Header::Whole(client, end + 2))
}

/// Signature, version and command, family, length of what follows: two addresses, two ports, more.
fn version2(bytes: &[u8]) -> Header {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Header::More;
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0xf > 1 || length > MAX - 16 {
        return Header::None;
    }
    let Some(rest) = rest.get(..length) else {
        return Header::More;
    };
    let client = match (command & 0xf, family) {
        (0, _) => Client::Local,
        // TCP over IPv4: four and four bytes, and the ports.
        (_, 0x11) => match (rest.first_chunk::<4>(), length >= 12) {
            (Some(from), true) => Client::At(Ipv4Addr::from(*from).into()),
            _ => return Header::None,
        },
        (_, 0x21) => match (rest.first_chunk::<16>(), length >= 36) {
            (Some(from), true) => Client::At(IpAddr::from(Ipv6Addr::from(*from)).to_canonical()),
            _ => return Header::None,
        },
        _ => Client::Unknown,
    };
    Header::Whole(client, 16 + length)
}

#[cfg(test)]
mod tests {
    use super::{Client, Header, MAX, SIGNATURE, header};

    fn at(address: &str) -> Client {
        Client::At(address.parse().unwrap())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn a_header_of_either_version_names_the_client_and_leaves_its_bytes() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 219, 4, 0, 25];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n".to_vec(), at("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n".to_vec(), at("2001:db8::1")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 25\r\n".to_vec(), at("192.0.2.1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Client::Unknown),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), Client::Unknown),
            (v2(0x21, 0x11, &four), at("192.0.2.1")),
            (v2(0x21, 0x11, &[&four[..], b"\x04\0\x01x"].concat()), at("192.0.2.1")),
            (v2(0x21, 0x21, &six), at("2001:db8::1")),
            (v2(0x20, 0, b""), Client::Local),
            (v2(0x21, 0x31, &[0; 216]), Client::Unknown),
        ] {
            let sent = [&bytes[..], b"EHLO x\r\n"].concat();
            let shown = bytes.escape_ascii();
            assert_eq!(header(&sent), Header::Whole(client, bytes.len()), "{shown}");
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]), Header::More, "{shown}, {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_none() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        for bytes in [
            &b"EHLO x\r\n"[..],
            b"\r\nEHLO x\r\n",
            b"PROXY\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 99999\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +56324 25\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.1 5 6\r\n",
            b"PROXY TCP4 ::1 ::1 5 6\r\n",
            b"PROXY TCP4 192.0.2.1\0 198.51.100.1 5 6\r\n",
            b"PROXY \xff\r\n",
            &long,
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; MAX]),
        ] {
            assert_eq!(header(bytes), Header::None, "{}", bytes.escape_ascii());
        }
    }
}
