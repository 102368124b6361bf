//! Certificates, and clients that show them.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::client::{Client, Reply};

/// A self-signed certificate with its key.
pub struct Identity {
    pub pem: String,
    pub der: Vec<u8>,
    key: KeyPair,
}

impl Identity {
    /// For 127.0.0.1 and localhost, valid from yesterday until tomorrow.
    pub fn new() -> Self {
        let day = time::Duration::DAY;
        Self::valid(intentd::clock::now() - day, intentd::clock::now() + day)
    }

    pub fn valid(not_before: OffsetDateTime, not_after: OffsetDateTime) -> Self {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (not_before, not_after);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), key }
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// SHA-256, in hex.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.der))
    }

    /// A client of `server` that shows this certificate.
    pub fn client(&self, server: &Self) -> reqwest::Client {
        let identity = reqwest::Identity::from_pem(format!("{}{}", self.pem, self.key_pem()).as_bytes()).unwrap();
        server.trusting().identity(identity).build().unwrap()
    }

    /// The makings of a client that trusts this server and nobody else.
    pub fn trusting(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root])
    }

    /// What a server that shows this certificate answers to these bytes, up to its end.
    pub async fn exchange(&self, address: &str, request: &[u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.der.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// Whether a server lets a client in that shows `certificate` with this identity's key.
    pub async fn gets_in_as(&self, certificate: &Self, server: &Self, address: &str) -> bool {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        #[derive(Debug)]
        struct Always(Arc<rustls::sign::CertifiedKey>);
        impl rustls::client::ResolvesClientCert for Always {
            fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(self.0.clone())
            }
            fn has_certs(&self) -> bool {
                true
            }
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let chain = vec![CertificateDer::from(certificate.der.clone())];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(server.der.clone())).unwrap();
        let shown = Arc::new(Always(Arc::new(rustls::sign::CertifiedKey::new(chain, key))));
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(shown);
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let Ok(mut stream) = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await else {
            return false;
        };
        // With TLS 1.3 the server's verdict comes after the client's part of the handshake is over.
        let request = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut reply = Vec::new();
        stream.write_all(request).await.is_ok()
            && stream.read_to_end(&mut reply).await.is_ok()
            && reply.starts_with(b"HTTP/1.1 200")
    }
}

/// POSTs by a client of one's own.
pub async fn post(http: &reqwest::Client, url: &str, body: &Value) -> Reply {
    Client::send(http.post(url).json(body)).await
}
