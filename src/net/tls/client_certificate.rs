//! The certificate of a client: asked for, never demanded, and known by its fingerprint.
//!
//! No authority is asked who the client is: a file of the administrator's names each certificate. The
//! handshake proves only that the client has the key.

use std::sync::Arc;

use ring::digest::{self, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::validity::Validity;
use crate::auth::certificates::Fingerprint;

/// The most bytes that a client's chain may have: it goes into the session ticket.
const MAX_CHAIN: usize = 16 * 1024;

/// What a client has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// By which it is known.
    pub fingerprint: Fingerprint,
    /// When it is good; `None` where that can't be read.
    pub validity: Option<Validity>,
}

impl Shown {
    /// The first of the certificates of a connection that stands, whose key the client has proven to
    /// have. `None` where it has shown none, or one that is of no use (see [`is_readable`]).
    pub(super) fn first(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let der = certificates.first().filter(|der| is_readable(der))?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(digest::digest(&SHA256, der).as_ref());
        Some(Self { fingerprint, validity: Validity::of(der) })
    }
}

/// Whether the library finds the key in it. It refuses the certificates of version 1 that some mail
/// servers have had for decades: nobody is known by such a one, and its signature is not looked at,
/// as ending the handshake for it would cost mail.
fn is_readable(certificate: &CertificateDer<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_ok()
}

/// Asks for a certificate, and takes any whose key the client has.
#[derive(Debug)]
pub(super) struct AnyOrNone(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyOrNone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let length = others.iter().fold(own.len(), |length, other| length + other.len());
        if length > MAX_CHAIN {
            return Err(Error::General(format!(
                "the client's certificates have {length} bytes; {MAX_CHAIN} are taken"
            )));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !is_readable(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !is_readable(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
