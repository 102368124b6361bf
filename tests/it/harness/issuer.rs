//! A real OpenID provider on loopback: discovery, keys and the assertions that it signs. It can lie, move and fall silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the provider.
pub enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// As the provider lists it (RFC 7517).
    pub fn jwk(&self, kid: &str) -> Value {
        let point = |bytes: &[u8], crv: &str| {
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y), "kid": kid, "use": "sig"})
        };
        match self {
            Self::Rsa(key) => {
                // RSAPublicKey of a 2048-bit key: both headers, then the modulus behind a zero, then 65537.
                let der = key.public_key().as_ref();
                assert_eq!((der.len(), &der[..9]), (270, &[0x30, 0x82, 1, 10, 2, 0x82, 1, 1, 0][..]));
                json!({"kty": "RSA", "n": b64(&der[9..265]), "e": b64(&der[267..]), "kid": kid, "use": "sig"})
            }
            Self::P256(key) => point(key.public_key().as_ref(), "P-256"),
            Self::P384(key) => point(key.public_key().as_ref(), "P-384"),
            Self::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key()), "kid": kid}),
        }
    }

    /// Signs, by its own algorithm unless `alg` is another that it can do.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let (random, message) = (SystemRandom::new(), input.as_bytes());
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding = if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(padding as &dyn aws_lc_rs::signature::RsaEncoding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        };
        format!("{input}.{}", b64(signature))
    }
}

/// What the provider answers where.
#[derive(Default)]
pub struct Answers {
    /// Status and body, or location for a redirect, by path.
    pub by_path: BTreeMap<String, (u16, String)>,
    /// Every path that was asked for.
    pub asked: Vec<String>,
}

pub struct Issuer {
    pub url: String,
    pub answers: Arc<Mutex<Answers>>,
}

pub const DISCOVERY: &str = "/.well-known/openid-configuration";

impl Issuer {
    pub async fn start(keys: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<Answers>> = Arc::default();
        let router = Router::new().fallback(answer).with_state(answers.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Self { url, answers };
        issuer.discovery(&json!({"issuer": issuer.url, "jwks_uri": format!("{}/jwks", issuer.url)}));
        issuer.list(keys);
        issuer
    }

    pub fn set(&self, path: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().by_path.insert(path.to_owned(), (status, body.to_owned()));
    }

    pub fn discovery(&self, document: &Value) {
        self.set(DISCOVERY, 200, &document.to_string());
    }

    pub fn list(&self, keys: &[Value]) {
        self.set("/jwks", 200, &json!({ "keys": keys }).to_string());
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.answers.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    /// What a client of this provider is known by, for a minute.
    pub fn claims(&self, client: &str) -> Value {
        let now = intentd::clock::now().unix_timestamp();
        let jti = uuid::Uuid::new_v4();
        json!({"iss": self.url, "aud": "intentd", "sub": client, "iat": now, "exp": now + 60, "jti": jti})
    }
}

async fn answer(State(answers): State<Arc<Mutex<Answers>>>, uri: Uri) -> Response {
    let mut answers = answers.lock().unwrap();
    answers.asked.push(uri.path().to_owned());
    match answers.by_path.get(uri.path()) {
        Some((status, location)) if (300..400).contains(status) => {
            (StatusCode::from_u16(*status).unwrap(), [("location", location.clone())]).into_response()
        }
        Some((status, body)) => (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
