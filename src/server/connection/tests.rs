use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::Connection;
use crate::net::activation::Socket;
use crate::net::tls::identity::Identity;
use crate::net::tls::server::settings;

const TIMEOUT: u32 = 10_000;

/// A server's settings, and a client that trusts it.
fn pair() -> (Arc<ServerConfig>, ClientConnection) {
    let place = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["mx.example".into()]).unwrap();
    let (chain, key) = (place.path().join("chain"), place.path().join("key"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut identity = Identity::of(&chain.into(), &key.into()).unwrap();
    identity.refresh().unwrap();
    let settings = settings(&identity, false).0.unwrap().config;
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("mx.example").unwrap();
    (settings, ClientConnection::new(Arc::new(client), name).unwrap())
}

fn connection() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::new(ours.try_clone().unwrap().into(), ours.into()), theirs)
}

#[test]
fn a_handshake_that_stops_half_way_is_given_up() {
    let (settings, mut client) = pair();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    for part in [0, 1, hello.len() / 2, hello.len()] {
        let (mut connection, mut peer) = connection();
        peer.write_all(&hello[..part]).unwrap();
        let error = connection.start_tls(Arc::clone(&settings), 50).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{part}");
        assert_eq!(connection.tls_agreed(), None);
    }
    let (mut connection, mut peer) = connection();
    peer.write_all(&hello[..50]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let error = connection.start_tls(settings, TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_is_no_handshake_is_an_error_and_the_client_is_told() {
    let (settings, _) = pair();
    let text = &b"EHLO client.example\r\nMAIL FROM:<a@b>\r\n"[..];
    let short_hello = &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    for noise in [text, short_hello] {
        let (mut connection, mut peer) = connection();
        peer.write_all(noise).unwrap();
        let error = connection.start_tls(Arc::clone(&settings), TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        drop(connection);
        let mut heard = Vec::new();
        let _ = peer.read_to_end(&mut heard);
        // An alert, and a fatal one.
        assert_eq!((heard.first(), heard.get(5)), (Some(&21), Some(&2)), "{heard:?}");
    }
}

#[test]
fn bytes_go_both_ways_whatever_the_two_sides_take_at_once() {
    let (settings, mut client) = pair();
    let (mut connection, mut peer) = connection();
    let text: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    let sent = text.clone();
    let other = std::thread::spawn(move || {
        let mut stream = rustls::Stream::new(&mut client, &mut peer);
        stream.write_all(&sent).unwrap();
        stream.flush().unwrap();
        // The server writes while nobody reads: its sends are partial ones.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard).unwrap();
        // The end is said in TLS, and not by a connection that breaks off.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        heard
    });
    connection.start_tls(settings, TIMEOUT).unwrap();
    let (version, cipher) = connection.tls_agreed().unwrap();
    assert_eq!((version, cipher.as_str()), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"));
    let (mut heard, mut buffer) = (Vec::new(), [0; 1000]);
    while heard.len() < text.len() {
        let length = connection.receive(&mut buffer, TIMEOUT).unwrap();
        assert!(length > 0);
        heard.extend_from_slice(&buffer[..length]);
    }
    assert!(heard == text);
    connection.send(&text, TIMEOUT).unwrap();
    connection.finish();
    assert!(other.join().unwrap() == text);
}

#[test]
fn a_client_that_came_before_the_listener_was_ready_is_no_more_patiently_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _early = TcpStream::connect(address).unwrap();
    let socket = Socket::Tcp(listener);
    socket.prepare().unwrap();
    let _late = TcpStream::connect(address).unwrap();
    for gives_up in [false, true] {
        let (client, from) = socket.accept().unwrap();
        assert_eq!(Connection::accepted(client, from).wire.gives_up, gives_up);
    }
}

#[test]
fn who_takes_all_of_it_too_slowly_is_given_up_whatever_it_takes() {
    let (mut connection, mut peer) = connection();
    let other = std::thread::spawn(move || {
        let (mut heard, mut buffer) = (0, vec![0; 32 * 1024]);
        while let Ok(length @ 1..) = peer.read(&mut buffer) {
            heard += length;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        heard
    });
    // It would take more than a second, of which it never misses much.
    let error = connection.send(&vec![0; 10_000_000], 300).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(connection);
    assert!(other.join().unwrap() > 0);
}

#[test]
fn a_client_ends_with_a_word_of_tls_or_without() {
    for polite in [true, false] {
        let (settings, mut client) = pair();
        let (mut connection, mut peer) = connection();
        let other = std::thread::spawn(move || {
            let mut stream = rustls::Stream::new(&mut client, &mut peer);
            stream.write_all(b"QUIT").unwrap();
            if polite {
                client.send_close_notify();
                client.write_tls(&mut peer).unwrap();
            }
            peer.shutdown(Shutdown::Write).unwrap();
            peer
        });
        connection.start_tls(settings, TIMEOUT).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(connection.receive(&mut buffer, TIMEOUT).unwrap(), 4);
        assert_eq!(connection.receive(&mut buffer, TIMEOUT).unwrap(), 0);
        drop(other.join());
    }
}
