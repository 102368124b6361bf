//! Tokens: JSON Web Tokens (RFC 7519) with Ed25519 (RFC 8037), signed in the HSM.
//!
//! A token says who; what that may do is read from the database at every request. One algorithm is accepted, and every
//! claim below is required and typed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::principal::Actor;
use crate::hsm::{Hsm, HsmError};
use crate::ids::{AgentId, OrgId, UserId};

/// Longest token that is looked at.
pub const TOKEN_CHARS_MAX: usize = 16 * 1024;
/// Lifetime of a human's token, in seconds.
pub const USER_TTL_S: u32 = 900;
/// Lifetime of a token that a human gave to a device, in seconds.
pub const DEVICE_TTL_S: u32 = 86_400;
/// Lifetime of an agent's token unless the agent has its own, in seconds.
pub const AGENT_TTL_S: u32 = 3600;

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// `agent:<uuid>`, or a human's uuid.
    pub sub: String,
    /// The organisation.
    pub org: OrgId,
    /// Informational: what it could reach when it was issued.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Informational, likewise.
    #[serde(default)]
    pub vault_ids: Vec<Uuid>,
    /// Seconds since 1970.
    pub iat: i64,
    /// Seconds since 1970.
    pub exp: i64,
    /// The configured issuer.
    pub iss: String,
    /// The same: the daemons of one installation.
    pub aud: String,
    /// Its id, for revocation.
    pub jti: Uuid,
    /// What it was exchanged for, which it does not outlive.
    #[serde(flatten)]
    pub root: Root,
    /// Informational, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intents_api_enabled: Option<bool>,
}

/// What a token rests on, as one claim: `key_prefix` or `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The public prefix of an API key.
    KeyPrefix(String),
    /// The epoch of the human's or agent's row: no key.
    Epoch(i32),
}

impl Claims {
    /// Who it names.
    #[must_use]
    pub fn actor(&self) -> Option<Actor> {
        match self.sub.strip_prefix("agent:") {
            Some(id) => id.parse().ok().map(|id| Actor::Agent(AgentId(id))),
            None => self.sub.parse().ok().map(|id| Actor::User(UserId(id))),
        }
    }
}

/// The subject of a token.
#[must_use]
pub fn subject(actor: Actor) -> String {
    match actor {
        Actor::Agent(id) => format!("agent:{id}"),
        Actor::User(id) => id.to_string(),
    }
}

/// A token that is not one of ours, or not any more. One error: the caller learns nothing from it.
#[derive(Debug, thiserror::Error)]
#[error("the token is not valid")]
pub struct TokenError(#[source] Option<jsonwebtoken::errors::Error>);

/// Signs a token in the HSM.
///
/// # Errors
/// As [`Hsm::sign_jwt`].
pub async fn sign(hsm: &Hsm, claims: &Claims) -> Result<String, HsmError> {
    let kid = hsm.jwt_kid();
    let header = serde_json::json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid });
    let claims = serde_json::json!(claims);
    let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let input = format!("{}.{}", encode(&header), encode(&claims));
    let signature = match kid {
        Some(kid) => hsm.sign_jwt_as(kid, input.as_bytes()).await?,
        None => hsm.sign_jwt(input.as_bytes()).await?,
    };
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Checks a token's signature with the key, its issuer, its form and its times (no leeway: one installation, one clock).
///
/// # Errors
/// [`TokenError`].
pub fn verify(public_key: &[u8; 32], issuer: &str, token: &str) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_CHARS_MAX {
        return Err(TokenError(None));
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(public_key), &validation)
        .map(|token| token.claims)
        .map_err(|error| TokenError(Some(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::EncodingKey;
    use serde_json::{Value, json};

    const ISSUER: &str = "https://intentd.example";

    /// Key pairs of RFC 8032 §7.1, tests 1 and 2: seed and public key.
    const PAIRS: [(&str, &str); 2] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ];

    fn public(pair: usize) -> [u8; 32] {
        hex::decode(PAIRS[pair].1).unwrap().try_into().unwrap()
    }

    /// Signed by the first pair.
    fn token(header: &Value, claims: &Value) -> String {
        let pkcs8 = hex::decode(format!("302e020100300506032b657004220420{}", PAIRS[0].0)).unwrap();
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(input.as_bytes(), &EncodingKey::from_ed_der(&pkcs8), Algorithm::EdDSA);
        format!("{input}.{}", signature.unwrap())
    }

    fn claims() -> Value {
        let now = crate::clock::now().unix_timestamp();
        json!({
            "sub": format!("agent:{}", Uuid::new_v4()), "org": Uuid::new_v4(), "iat": now, "exp": now + 60, "iss": ISSUER,
            "aud": ISSUER, "jti": Uuid::new_v4(), "key_prefix": "ocv_abcdefgh"
        })
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "JWT"})
    }

    #[test]
    fn threat_25_every_claim_is_required_and_typed() {
        let check = |claims: &Value| verify(&public(0), ISSUER, &token(&header(), claims));
        assert!(check(&claims()).unwrap().actor().is_some());
        for missing in ["exp", "iat", "iss", "aud", "sub", "jti", "org", "key_prefix"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(missing);
            assert!(check(&claims).is_err(), "without {missing}");
        }
        let now = crate::clock::now().unix_timestamp();
        let table = [
            ("exp", json!((now + 60).to_string())),
            ("exp", json!(now - 1)),
            ("exp", json!(null)),
            ("exp", json!([now + 60])),
            ("iat", json!("now")),
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("sub", json!(1)),
            ("jti", json!("x")),
        ];
        for (name, value) in table {
            let mut claims = claims();
            claims[name] = value.clone();
            assert!(check(&claims).is_err(), "{name} = {value}");
        }
    }

    #[test]
    fn threat_25_no_other_algorithm_and_no_other_key() {
        for alg in ["none", "None", "HS256", "ES256", "RS256", "PS256", ""] {
            let signed = token(&json!({"alg": alg, "typ": "JWT"}), &claims());
            assert!(verify(&public(0), ISSUER, &signed).is_err(), "{alg}");
            let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
            assert!(verify(&public(0), ISSUER, &unsigned).is_err(), "{alg} unsigned");
        }
        // The public key as an HMAC secret.
        let secret = EncodingKey::from_secret(&public(0));
        let hs = jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims(), &secret).unwrap();
        assert!(verify(&public(0), ISSUER, &hs).is_err());

        let (good, other) = (token(&header(), &claims()), token(&header(), &claims()));
        assert!(verify(&public(0), ISSUER, &good).is_ok());
        assert!(verify(&public(1), ISSUER, &good).is_err(), "another key");
        assert!(verify(&public(0), "https://other.example", &good).is_err(), "another issuer");
        let (head, signature) = good.rsplit_once('.').unwrap();
        let other = other.rsplit_once('.').unwrap().0;
        assert!(verify(&public(0), ISSUER, &format!("{other}.{signature}")).is_err(), "another payload");
        for text in ["", ".", "..", "a.b.c", head, &format!("{good}."), &format!("{good} ")] {
            assert!(verify(&public(0), ISSUER, text).is_err(), "{text}");
        }
    }
}
