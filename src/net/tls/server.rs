//! The server's side of TLS: bytes of the network and of the session in, each other's out. It has
//! no socket, and waits for nothing.
//!
//! A client may come back with a ticket (`tickets`). There is no early data: it could be
//! sent again by anybody.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ProtocolVersion, ServerConfig, ServerConnection};

use super::client_certificate::{AnyOrNone, Shown};
use super::identity::{Error, Identity, Pair};
use super::tickets::Keys;
use super::validity::Validity;
use crate::sasl::Binding;

/// Parses certificates and keys, and makes sure that they are pairs. What is wrong is left out, and
/// told; there are no settings where nothing is right.
///
/// `asks`: whether clients are asked for a certificate. One without goes on all the same.
pub fn settings(identity: &Identity, asks: bool) -> (Option<Settings>, Vec<Error>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (mut certified, mut errors) = (Vec::new(), Vec::new());
    for pair in identity.pairs() {
        match certify(pair, &provider) {
            Ok(key) => certified.push(Arc::new(key)),
            Err(error) => errors.push(error),
        }
    }
    let verifier = Arc::new(AnyOrNone(Arc::clone(&provider)));
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let Ok(builder) = builder else {
        return (None, errors);
    };
    if certified.is_empty() {
        return (None, errors);
    }
    let certificates = Arc::new(ByName { certified, chosen: OnceLock::new() });
    let resolver = Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>;
    let builder = if asks {
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    if let Some(ticketer) = identity.tickets().and_then(Keys::ticketer) {
        config.ticketer = Arc::new(ticketer);
        config.send_tls13_tickets = 1;
    }
    (Some(Settings { config: Arc::new(config), certificates }), errors)
}

/// All that is wrong with files that could be read, for an operator: each pair by itself, and each
/// certificate of a chain. `now`: seconds since 1970.
pub fn examine(identity: &Identity, now: u64) -> Vec<Error> {
    let provider = rustls::crypto::ring::default_provider();
    let of_pair = |pair: &Pair| match certify(pair, &provider) {
        Ok(certified) => {
            let numbered = (1..).zip(&certified.cert);
            let not_good = numbered.filter_map(|(number, der)| {
                let validity = Validity::of(der);
                let is_good = validity.is_some_and(|when| when.contains(now));
                let certificate = pair.certificate().0.to_owned();
                (!is_good).then_some(Error::NotGood { certificate, number, validity })
            });
            not_good.collect()
        }
        Err(error) => vec![error],
    };
    identity.pairs().iter().flat_map(of_pair).collect()
}

/// The settings of one session.
pub struct Settings {
    /// The library's.
    pub config: Arc<ServerConfig>,
    certificates: Arc<ByName>,
}

impl Settings {
    /// What names the connection, after the handshake: `exported` by its TLS, and the certificate
    /// that was shown, where that has a binding.
    pub fn bindings(&self, exported: Option<Vec<u8>>) -> Vec<Binding> {
        let exporter = exported.map(|data| Binding { name: "tls-exporter", data });
        let certificate = self.certificates.chosen.get().and_then(|chosen| chosen.cert.first());
        let end_point = certificate.and_then(|der| super::binding::server_end_point(der));
        let end_point = end_point.map(|data| Binding { name: "tls-server-end-point", data });
        exporter.into_iter().chain(end_point).collect()
    }
}

fn certify(pair: &Pair, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let ((certificate, chain), (key, secret)) = (pair.certificate(), pair.key());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::NoCertificate(certificate.to_owned()))?;
    let Some(first) = chain.first().cloned() else {
        return Err(Error::NoCertificate(certificate.to_owned()));
    };
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|_| Error::NoKey(key.to_owned()))?;
    let unusable =
        |error: rustls::Error| Error::Unusable(certificate.to_owned(), error.to_string());
    let certified =
        CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            // What the library says of a key that it does not understand.
            rustls::Error::General(_) => Error::NoKey(key.to_owned()),
            error => unusable(error),
        })?;
    // One that can't be parsed would name nobody.
    ParsedCertificate::try_from(&first).map(drop).map_err(unusable)?;
    Ok(certified)
}

/// The certificate that has the name which the client asks for (RFC 6066 section 3); the first one
/// where none has it, or the client asks for none.
#[derive(Debug)]
struct ByName {
    certified: Vec<Arc<CertifiedKey>>,
    /// What was shown: there is one connection.
    chosen: OnceLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let has = |certified: &&Arc<CertifiedKey>| {
            let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok())?;
            let parsed = ParsedCertificate::try_from(certified.cert.first()?).ok()?;
            verify_server_name(&parsed, &name).ok()
        };
        let named = self.certified.iter().find(|certified| has(certified).is_some());
        let chosen = named.or_else(|| self.certified.first()).cloned()?;
        Some(Arc::clone(self.chosen.get_or_init(|| chosen)))
    }
}

/// So much of the network is read at once, in bytes: a little more than the largest record.
const ROOM: usize = 18 * 1024;

/// And this where not much has come at once yet: memory that nobody has touched costs nothing.
const LITTLE: usize = 2 * 1024;

/// One connection. Memory is bounded: a handshake of 64 KiB, or a few records.
pub struct Stream {
    tls: ServerConnection,
    /// Bytes of the network; those in `left` are not looked at yet.
    network: Vec<u8>,
    left: Range<usize>,
}

impl Stream {
    /// A connection whose client is about to begin.
    pub fn new(settings: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(settings).map_err(io::Error::other)?;
        Ok(Self { tls, network: vec![0; LITTLE], left: 0..0 })
    }

    /// Whether the two sides have not agreed yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The version and the cipher suite that were agreed on.
    pub fn agreed(&self) -> (&'static str, String) {
        let cipher = super::cipher(self.tls.negotiated_cipher_suite());
        (super::version(self.tls.protocol_version()), cipher)
    }

    /// 32 bytes that only the two sides know (RFC 9266 section 2). By TLS 1.3 only: whether those of
    /// an older connection are its alone depends on an extension that the library does not tell of.
    pub fn exported(&self) -> Option<Vec<u8>> {
        self.tls.protocol_version().filter(|version| *version == ProtocolVersion::TLSv1_3)?;
        let label = b"EXPORTER-Channel-Binding";
        self.tls.export_keying_material(vec![0; 32], label, Some(b"")).ok()
    }

    /// The certificate that the client has shown, now or when it got its ticket.
    pub fn client_certificate(&self) -> Option<Shown> {
        Shown::first(self.tls.peer_certificates()?)
    }

    /// Fills the store of bytes of the network; 0 when `read` says so. To be called when
    /// [`Stream::advance`] has used them up.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.left.end == self.network.len() {
            self.network.resize(ROOM, 0);
        }
        self.left = 0..0;
        let filled = read(&mut self.network)?;
        self.left = 0..filled;
        Ok(filled)
    }

    /// Takes some of the bytes of the network; false where none are left. After an error, as after
    /// success, [`Stream::output`] may have something for the client.
    pub fn advance(&mut self) -> io::Result<bool> {
        let mut left = self.network.get(self.left.clone()).unwrap_or_default();
        if left.is_empty() {
            return Ok(false);
        }
        match self.tls.read_tls(&mut left)? {
            // The client has said that it sends no more.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => self.left.start += taken,
        }
        let broken = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.tls.process_new_packets().map_err(broken)?;
        Ok(true)
    }

    /// Text of the client's; 0 when it has said that there is no more. `WouldBlock` where bytes of
    /// the network are wanted first.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.advance()? {
                        return Err(error);
                    }
                }
                read => return read,
            }
        }
    }

    /// Takes some of the text for the client; [`Stream::output`] has it then.
    pub fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self.tls.writer().write(text)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            taken => Ok(taken),
        }
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        self.tls.send_close_notify();
    }

    /// What is to be sent.
    pub fn output(&mut self) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut output)?;
        }
        Ok(output)
    }
}
