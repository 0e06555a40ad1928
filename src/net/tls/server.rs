//! The server's side of TLS: bytes of the network and of the session in, each other's out. It has
//! no socket, and waits for nothing.
//!
//! There is neither resumption nor early data: a session is a process, and no two know each other.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, ProtocolVersion, ServerConfig, ServerConnection};

use super::identity::{Error, Identity};
use crate::sasl::Binding;

/// Parses certificate and key, and makes sure that they are a pair.
pub fn settings(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let ((certificate, chain), (key, secret)) = (identity.certificate(), identity.key());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::NoCertificate(certificate.to_owned()))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(certificate.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|_| Error::NoKey(key.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
            }
            // What the library says of a key that it does not understand.
            rustls::Error::General(_) => Error::NoKey(key.to_owned()),
            error => Error::Unusable(certificate.to_owned(), error.to_string()),
        })?;
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    settings.send_tls13_tickets = 0;
    Ok(Arc::new(settings))
}

/// The certificate's binding, where it has one.
fn end_point(identity: &Identity) -> Option<Binding> {
    let (_, chain) = identity.certificate();
    let certificate = CertificateDer::pem_slice_iter(chain).next()?.ok()?;
    let data = super::binding::server_end_point(&certificate)?;
    Some(Binding { name: "tls-server-end-point", data })
}

/// What names a connection: `exported` by its TLS, and its certificate.
pub fn bindings(exported: Option<Vec<u8>>, identity: &Identity) -> Vec<Binding> {
    let exporter = exported.map(|data| Binding { name: "tls-exporter", data });
    exporter.into_iter().chain(end_point(identity)).collect()
}

/// So much of the network is read at once, in bytes: a little more than the largest record.
const ROOM: usize = 18 * 1024;

/// One connection. Memory is bounded: a handshake of 64 KiB, or a few records.
pub struct Stream {
    tls: ServerConnection,
    /// Bytes of the network that are not looked at yet: those from `taken` on.
    network: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// A connection whose client is about to begin.
    pub fn new(settings: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(settings).map_err(io::Error::other)?;
        Ok(Self { tls, network: Vec::new(), taken: 0 })
    }

    /// Whether the two sides have not agreed yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The version that was agreed on.
    pub fn version(&self) -> &'static str {
        super::version(self.tls.protocol_version())
    }

    /// 32 bytes that only the two sides know (RFC 9266 section 2). By TLS 1.3 only: whether those of
    /// an older connection are its alone depends on an extension that the library does not tell of.
    pub fn exported(&self) -> Option<Vec<u8>> {
        self.tls.protocol_version().filter(|version| *version == ProtocolVersion::TLSv1_3)?;
        let label = b"EXPORTER-Channel-Binding";
        self.tls.export_keying_material(vec![0; 32], label, Some(b"")).ok()
    }

    /// Fills the store of bytes of the network; 0 when `read` says so. To be called when
    /// [`Stream::advance`] has used them up.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.network.resize(ROOM, 0);
        self.taken = 0;
        let filled = read(&mut self.network);
        self.network.truncate(*filled.as_ref().unwrap_or(&0));
        filled
    }

    /// Takes some of the bytes of the network; false where none are left. After an error, as after
    /// success, [`Stream::output`] may have something for the client.
    pub fn advance(&mut self) -> io::Result<bool> {
        let mut left = self.network.get(self.taken..).unwrap_or_default();
        if left.is_empty() {
            return Ok(false);
        }
        match self.tls.read_tls(&mut left)? {
            // The client has said that it sends no more.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => self.taken += taken,
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
