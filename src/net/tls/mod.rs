//! TLS, by rustls with ring.

pub mod binding;
pub mod client;
pub mod client_certificate;
mod der;
pub mod identity;
pub mod server;
mod tickets;
pub mod validity;

use rustls::{ProtocolVersion, SupportedCipherSuite};

/// The versions, as OpenSSL calls them; the last word is for any other.
pub const VERSIONS: [&str; 3] = ["TLSv1.3", "TLSv1.2", "TLS"];

/// The version that was agreed on, by one of these words.
pub fn version(agreed: Option<ProtocolVersion>) -> &'static str {
    let [three, two, other] = VERSIONS;
    match agreed {
        Some(ProtocolVersion::TLSv1_3) => three,
        Some(ProtocolVersion::TLSv1_2) => two,
        _ => other,
    }
}

/// The cipher suite that was agreed on, as IANA calls it.
pub fn cipher(agreed: Option<SupportedCipherSuite>) -> String {
    let name = agreed.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
    // The library has a word of its own for those of TLS 1.3.
    name.replacen("TLS13_", "TLS_", 1)
}
