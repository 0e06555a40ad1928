//! A certificate of a test's own, and a client that trusts this one and no other.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::site::{HOST, Plan};

/// Both versions that are spoken.
pub const VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Certificate and key of the host, in two files.
pub struct Pair {
    directory: TempDir,
    name: &'static str,
}

impl Pair {
    pub fn new() -> Self {
        Self::of(HOST)
    }

    /// Of a host of another name.
    pub fn of(name: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("hikyaku-tls-").tempdir().unwrap();
        let pair = Self { directory, name };
        pair.renew();
        pair
    }

    /// One from an authority of its own, and the authority's certificate, for a client that trusts
    /// nothing less.
    pub fn issued(name: &'static str) -> (Self, String) {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "an authority");
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let (pair, key) = (Self::of(name), KeyPair::generate().unwrap());
        let made = CertificateParams::new([name.to_owned()]).unwrap();
        fs::write(pair.certificate(), made.signed_by(&key, &authority).unwrap().pem()).unwrap();
        fs::write(pair.key(), key.serialize_pem()).unwrap();
        (pair, authority.pem())
    }

    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// Makes another pair, whose files take the names of the old ones.
    pub fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(vec![self.name.to_owned()]).unwrap();
        for (path, text) in
            [(self.certificate(), made.cert.pem()), (self.key(), made.signing_key.serialize_pem())]
        {
            let new = self.directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        }
    }

    /// The site that offers TLS with this pair.
    pub fn plan(&self, plan: Plan) -> Plan {
        self.plan_for("smtp.tls", plan)
    }

    /// The same for a server with this section.
    pub fn plan_for(&self, section: &str, plan: Plan) -> Plan {
        let path = |path: PathBuf| format!("{:?}", path.to_str().unwrap());
        plan.set(section, "certificate", &path(self.certificate())).set(
            section,
            "key",
            &path(self.key()),
        )
    }

    /// A client that takes this certificate only, as it is now.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConnection {
        self.comes(&self.settings(versions))
    }

    /// A client that does not say whom it wants to speak to.
    pub fn unnamed_client(&self) -> ClientConnection {
        let mut settings = ClientConfig::clone(&self.settings(VERSIONS));
        settings.enable_sni = false;
        self.comes(&Arc::new(settings))
    }

    /// A client with these settings, and with what they remember.
    pub fn comes(&self, settings: &Arc<ClientConfig>) -> ClientConnection {
        let name = ServerName::try_from(self.name).unwrap();
        ClientConnection::new(Arc::clone(settings), name).unwrap()
    }

    /// A client's settings, which remember the tickets that it gets.
    pub fn settings(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        Arc::new(self.builder(versions).with_no_client_auth())
    }

    /// The same of a client that has a certificate, if this says so when it is asked.
    pub fn settings_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Arc<dyn ResolvesClientCert>,
    ) -> Arc<ClientConfig> {
        Arc::new(self.builder(versions).with_client_cert_resolver(own))
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }
}
