//! PROXY headers: not a byte more is taken than is theirs, and who is named is who was written.

use std::net::IpAddr;

use hikyaku::net::proxy::{Client, Header, MAX, header};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub fn check(input: &[u8]) {
    let decided = (0..=input.len()).find(|length| header(&input[..*length]) != Header::More);
    let Some(length) = decided else {
        assert!(input.len() < MAX);
        return;
    };
    let found = header(&input[..length]);
    // What comes later changes nothing: the client's own bytes stay its own.
    for more in length..=input.len() {
        assert_eq!(header(&input[..more]), found);
    }
    let Header::Whole(client, size) = found else {
        return;
    };
    assert!(size == length && size <= MAX);
    let own = &input[..size];
    let wanted = if own.starts_with(SIGNATURE) { version2(own) } else { version1(own) };
    assert_eq!(client, wanted);
    if let Client::At(address) = client {
        assert_eq!(address, address.to_canonical());
        for written in written(address) {
            let sent = [&written[..], input].concat();
            assert_eq!(header(&sent), Header::Whole(client, written.len()));
        }
    }
}

/// A line of version 1 that was taken, read a second time.
fn version1(line: &[u8]) -> Client {
    assert!(line.len() <= 107);
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n").unwrap()).unwrap();
    assert!(!line.contains("\r\n"));
    let mut words = line.strip_prefix("PROXY ").unwrap().split(' ');
    if words.next() == Some("UNKNOWN") {
        return Client::Unknown;
    }
    // Nothing but two addresses and two numbers.
    let rest: Vec<&str> = words.collect();
    assert_eq!(rest.len(), 4);
    assert!(rest[2..].iter().all(|port| port.bytes().all(|byte| byte.is_ascii_digit())));
    Client::At(rest[0].parse::<IpAddr>().unwrap().to_canonical())
}

/// A header of version 2 that was taken, read a second time.
fn version2(bytes: &[u8]) -> Client {
    let rest = &bytes[16..];
    assert_eq!(rest.len(), usize::from(bytes[14]) * 256 + usize::from(bytes[15]));
    let four = || <[u8; 4]>::try_from(&rest[..4]).unwrap();
    let sixteen = || <[u8; 16]>::try_from(&rest[..16]).unwrap();
    match (bytes[12], bytes[13]) {
        (0x20, _) => Client::Local,
        (0x21, 0x11) => Client::At(four().into()),
        (0x21, 0x21) => Client::At(IpAddr::from(sixteen()).to_canonical()),
        (0x21, _) => Client::Unknown,
        other => panic!("{other:?} was taken"),
    }
}

/// The headers for a client at this address.
fn written(address: IpAddr) -> [Vec<u8>; 2] {
    let (family, kind, octets) = match address {
        IpAddr::V4(four) => ("TCP4", 0x11, four.octets().to_vec()),
        IpAddr::V6(six) => ("TCP6", 0x21, six.octets().to_vec()),
    };
    let line = format!("PROXY {family} {address} {address} 0 65535\r\n");
    let length = u8::try_from(octets.len() * 2 + 4).unwrap();
    let bytes = [SIGNATURE, &[0x21, kind, 0, length], &octets, &octets, &[0; 4]].concat();
    [line.into_bytes(), bytes]
}
