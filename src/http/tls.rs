//! TLS of our own (rustls), and the certificates that clients show in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::http::HeaderName;
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use serde::Deserialize;

use crate::access::agent_token::certificate::Certificate;
use crate::telemetry::record;

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// No.
    #[default]
    Off,
    /// Those that have one may show it.
    Optional,
}

/// `[tls]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate chain, in PEM. Environment: `INTENTD_TLS_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// Its private key, in PEM. Environment: `INTENTD_TLS_KEY_FILE`.
    pub key_file: Option<PathBuf>,
    /// Whether agents may show certificates to us. Environment: `INTENTD_TLS_CLIENT_AUTH`.
    pub client_auth: ClientAuth,
    /// Header in which a listed proxy gives the SHA-256 fingerprint of its client's certificate. The proxy must set or remove it on
    /// every request. Environment: `INTENTD_TLS_CLIENT_FINGERPRINT_HEADER`.
    pub client_fingerprint_header: Option<String>,
    /// Header in which a listed proxy gives its client's certificate as percent-encoded PEM. Likewise. Environment:
    /// `INTENTD_TLS_CLIENT_CERT_HEADER`.
    pub client_cert_header: Option<String>,
}

impl TlsConfig {
    /// The files, when TLS is on.
    #[must_use]
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.cert_file.as_deref().zip(self.key_file.as_deref())
    }

    /// What does not fit together.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Some("`tls.cert_file` and `tls.key_file` go together".to_owned());
        }
        if self.client_auth == ClientAuth::Optional && self.cert_file.is_none() {
            return Some("`tls.client_auth` needs `tls.cert_file` and `tls.key_file`".to_owned());
        }
        let headers = [&self.client_fingerprint_header, &self.client_cert_header];
        let wrong = headers.into_iter().flatten().find(|name| HeaderName::from_bytes(name.as_bytes()).is_err());
        wrong.map(|name| format!("`tls.client_…_header`: \"{}\" is no header's name", name.escape_debug()))
    }
}

/// The daemon's own certificate, which can be replaced while it serves.
#[derive(Debug)]
pub struct OwnCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl OwnCertificate {
    fn load(cert_file: &Path, key_file: &Path) -> anyhow::Result<Arc<Self>> {
        let read = read(cert_file, key_file)?;
        tell_end(&read);
        let current = RwLock::new(Arc::new(read));
        Ok(Arc::new(Self { cert_file: cert_file.to_owned(), key_file: key_file.to_owned(), current }))
    }

    /// Reads the files again, for connections that begin from now on. On an error the old certificate stays.
    ///
    /// # Errors
    /// Names the file.
    pub fn reload(&self) -> anyhow::Result<()> {
        let read = Arc::new(read(&self.cert_file, &self.key_file)?);
        *self.current.write() = Arc::clone(&read);
        tell_end(&read);
        Ok(())
    }
}

/// Shows operators when what is shown to clients runs out. The chain is told apart: some send along what ended long ago and is not needed.
fn tell_end(shown: &CertifiedKey) {
    let end = |der: &CertificateDer<'_>| Some(Certificate::from_der(der)?.validity?.1.unix_timestamp());
    let server = shown.cert.first().and_then(end);
    if server.is_none() {
        tracing::warn!("the dates of the certificate cannot be read: no metric tells when it runs out");
    }
    record::own_certificate(server, shown.cert.iter().skip(1).filter_map(end).min());
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

fn read(cert_file: &Path, key_file: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| format!("cannot read the certificate file {}", cert_file.display()))?;
    if chain.is_empty() {
        bail!("the certificate file {} has no certificate in PEM", cert_file.display());
    }
    let key = PrivateKeyDer::from_pem_file(key_file)
        .with_context(|| format!("cannot read the private key file {}", key_file.display()))?;
    CertifiedKey::from_der(chain, key, &provider())
        .with_context(|| format!("{} and {} do not fit together", cert_file.display(), key_file.display()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a listener needs, and the handle to replace the certificate. `None`: TLS is off.
///
/// # Errors
/// Names the file.
pub fn server_config(config: &TlsConfig) -> anyhow::Result<Option<(Arc<ServerConfig>, Arc<OwnCertificate>)>> {
    let Some((cert_file, key_file)) = config.files() else { return Ok(None) };
    let own = OwnCertificate::load(cert_file, key_file)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match config.client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Optional => builder.with_client_cert_verifier(Arc::new(Possession { provider: provider() })),
    };
    let mut server = builder.with_cert_resolver(own.clone());
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would bring back a certificate without a new proof.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Some((Arc::new(server), own)))
}

/// Takes any certificate whose key the client proves to hold. Who that is, and whether the certificate is valid now, is looked at
/// where it counts, by its fingerprint.
#[derive(Debug)]
struct Possession {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match Certificate::from_der(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
