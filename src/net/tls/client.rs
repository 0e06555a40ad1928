//! TLS towards other hosts: opportunistic (RFC 7435), or with a certificate that must be right.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// What a client needs for TLS; made before the process enters its cell, as it reads the host's
/// certificate authorities.
pub struct Client {
    /// Takes any certificate: against eavesdroppers, some secrecy is better than none, and a
    /// stranger's mail exchange can't be told from its impostor anyway.
    opportunistic: Arc<ClientConfig>,
    /// Takes only what the host's authorities vouch for; `None` where it has none.
    strict: Option<Arc<ClientConfig>>,
    roots: Option<Arc<WebPkiServerVerifier>>,
}

impl Client {
    /// Reads the host's certificate authorities.
    pub fn load() -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
        };
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .ok();
        let strict = match &roots {
            Some(roots) => {
                let config = builder()?.with_webpki_verifier(roots.clone());
                Some(Arc::new(config.with_no_client_auth()))
            }
            None => None,
        };
        let anybody = Arc::new(Anybody(provider.clone()));
        let opportunistic =
            builder()?.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
        Ok(Self { opportunistic: Arc::new(opportunistic), strict, roots })
    }

    /// The settings of a connection; `None` where a right certificate is asked for and no
    /// authority is known.
    pub fn config(&self, must_verify: bool) -> Option<Arc<ClientConfig>> {
        if must_verify { self.strict.clone() } else { Some(self.opportunistic.clone()) }
    }

    /// Whether the host's authorities vouch for these certificates of `name`, for the log.
    pub fn is_verified(&self, certificates: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
        let (Some(roots), Some((end, others))) = (&self.roots, certificates.split_first()) else {
            return false;
        };
        roots.verify_server_cert(end, others, name, &[], UnixTime::now()).is_ok()
    }
}

/// A host as TLS names it.
pub fn server_name(name: &str, address: IpAddr) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::from(address))
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
