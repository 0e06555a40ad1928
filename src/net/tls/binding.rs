//! What names a TLS connection for an authentication that is bound to it (RFC 5056).

use ring::digest::{self, Algorithm};

use super::der::element;

/// The part of the certificate's algorithm that decides, and the hash function to use: that of the
/// signature, and SHA-256 in the place of what is weaker (RFC 5929 section 4.1). Others, such as
/// Ed25519, name none.
const ALGORITHMS: [(&[u8], &Algorithm); 9] = [
    // 1.2.840.113549.1.1: RSA with MD5, SHA-1, SHA-256, SHA-384 and SHA-512.
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", &digest::SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", &digest::SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", &digest::SHA256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", &digest::SHA384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", &digest::SHA512),
    // 1.2.840.10045.4: ECDSA with SHA-1, SHA-256, SHA-384 and SHA-512.
    (b"\x2a\x86\x48\xce\x3d\x04\x01", &digest::SHA256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", &digest::SHA256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", &digest::SHA384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", &digest::SHA512),
];

/// `tls-server-end-point`: the hash of the server's certificate, given as DER.
///
/// ```text
/// Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue } ; RFC 5280 section 4.1
/// AlgorithmIdentifier ::= SEQUENCE { algorithm OBJECT IDENTIFIER, parameters }
/// ```
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (0x30, inside, _) = element(certificate)? else {
        return None;
    };
    let (_, _, rest) = element(inside)?;
    let (0x30, identifier, _) = element(rest)? else {
        return None;
    };
    let (0x06, oid, _) = element(identifier)? else {
        return None;
    };
    let (_, algorithm) = ALGORITHMS.iter().find(|(known, _)| *known == oid)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_hashed_by_the_function_of_its_signature() {
        for (algorithm, wanted) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let names = rcgen::CertificateParams::new(vec!["mx.example".into()]).unwrap();
            let made = names.self_signed(&key).unwrap();
            let der: &[u8] = made.der();
            let wanted = wanted.map(|wanted| digest::digest(wanted, der).as_ref().to_vec());
            assert_eq!(server_end_point(der), wanted);
            for end in 0..der.len() {
                assert_eq!(server_end_point(&der[..end]), None);
            }
        }
    }
}
