//! Assertions: JSON Web Tokens of an agent's own identity provider. Pure.
//!
//! Only signatures with public keys count, and only keys that the issuer's own document lists: a header that names a key by URL, or
//! brings one, is not followed. The algorithm must fit the key, so that no key is used for what it was not made for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Longest assertion that is looked at.
pub const ASSERTION_CHARS_MAX: usize = 16 * 1024;
/// How far the issuer's clock and ours may be apart, in seconds.
const SKEW_S: i64 = 30;
/// How far in the future an assertion may end, in seconds: one that holds for years is a password.
const LIFETIME_S_MAX: i64 = 24 * 60 * 60;
/// Keys of an issuer that are tried on one assertion.
const KEYS_TRIED_MAX: usize = 16;
/// Bytes of the smallest RSA modulus: 2048 bits.
const RSA_BYTES_MIN: usize = 256;

/// Why an assertion does not hold. For the log; the caller gets one text for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(&'static str);

/// What an assertion is held against.
pub struct Expected<'a> {
    /// The agent's issuer, to the letter.
    pub issuer: &'a str,
    /// Who it must be meant for.
    pub audience: &'a str,
    /// The agent's client id there.
    pub client_id: &'a str,
    /// Seconds since 1970.
    pub now: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: OneOrMany,
    exp: Seconds,
    #[serde(default)]
    nbf: Option<Seconds>,
    #[serde(default)]
    iat: Option<Seconds>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    azp: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A NumericDate (RFC 7519 §2): a JSON number, possibly with a fraction, never a text.
#[derive(Clone, Copy)]
struct Seconds(i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = number.as_i64().or_else(|| {
            // Within these bounds a fraction is cut off exactly.
            number.as_f64().filter(|at| (0.0..1e12).contains(at)).map(|at| at as i64)
        });
        whole
            .filter(|at| (0..1_000_000_000_000).contains(at))
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no time"))
    }
}

/// An assertion that has been read, and not verified.
pub struct Assertion<'a> {
    text: &'a str,
    alg: Algorithm,
    kid: Option<String>,
    claims: Claims,
}

impl<'a> Assertion<'a> {
    /// Reads an assertion.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > ASSERTION_CHARS_MAX {
            return Err(Refusal("it is too long"));
        }
        let header = jsonwebtoken::decode_header(text).map_err(|_| Refusal("its header cannot be read"))?;
        if key_type(header.alg).is_none() {
            return Err(Refusal("its algorithm is not one of public keys"));
        }
        let mut parts = text.split('.');
        let (Some(head), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal("it has not three parts"));
        };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let raw: Option<Value> = decoded(head).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        // An extension that must be understood, and is not (RFC 7515 §4.1.11).
        if raw.is_none_or(|header| header.get("crit").is_some()) {
            return Err(Refusal("its header has extensions"));
        }
        let claims = decoded(payload).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let claims = claims.ok_or(Refusal("a claim is missing or of another type"))?;
        Ok(Self { text, alg: header.alg, kid: header.kid, claims })
    }

    /// Whether it says what it must.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        let claims = &self.claims;
        let meant = match &claims.aud {
            OneOrMany::One(aud) => aud == expected.audience,
            OneOrMany::Many(list) => list.iter().any(|aud| aud == expected.audience),
        };
        let checks = [
            (claims.iss == expected.issuer, "iss is another issuer"),
            (meant, "aud names others"),
            (expected.now < claims.exp.0.saturating_add(SKEW_S), "exp has passed"),
            (claims.exp.0 <= expected.now + LIFETIME_S_MAX + SKEW_S, "exp is too far away"),
            (claims.nbf.is_none_or(|nbf| nbf.0 <= expected.now + SKEW_S), "nbf is still to come"),
            (claims.iat.is_none_or(|iat| iat.0 <= expected.now + SKEW_S), "iat is still to come"),
            (claims.jti.as_deref() != Some(""), "jti is empty"),
            (self.is_of(expected.client_id), "it is another client's"),
        ];
        checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(Refusal(reason)))
    }

    /// Whose it is: where the issuer names the client (`client_id`, RFC 9068; `azp`, OpenID Connect), every such claim must agree.
    /// `sub` counts only where it does not: there it may be a human, whose client the agent's is.
    fn is_of(&self, client_id: &str) -> bool {
        let named = [&self.claims.client_id, &self.claims.azp];
        let mut named = named.into_iter().flatten().peekable();
        if named.peek().is_none() {
            return self.claims.sub.as_deref() == Some(client_id);
        }
        named.all(|name| name == client_id)
    }

    /// Its id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.claims.jti.as_deref()
    }

    /// From then on it is refused anyway, in seconds since 1970.
    #[must_use]
    pub fn remembered_until(&self) -> i64 {
        self.claims.exp.0.saturating_add(SKEW_S)
    }

    /// Whether one of the keys could have signed it.
    #[must_use]
    pub fn has_key_in(&self, keys: &JwkSet) -> bool {
        self.candidates(keys).next().is_some()
    }

    /// Whether one of the keys has.
    #[must_use]
    pub fn is_signed_by(&self, keys: &JwkSet) -> bool {
        let mut signature_only = Validation::new(self.alg);
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        self.candidates(keys).take(KEYS_TRIED_MAX).any(|key| {
            let key = DecodingKey::from_jwk(key);
            key.is_ok_and(|key| jsonwebtoken::decode::<Value>(self.text, &key, &signature_only).is_ok())
        })
    }

    /// The keys of its `kid` (or all, without one) that are made for its algorithm.
    fn candidates<'k>(&self, keys: &'k JwkSet) -> impl Iterator<Item = &'k Jwk> {
        let (alg, kid) = (self.alg, self.kid.clone());
        keys.keys.iter().filter(move |key| kid.is_none() || key.common.key_id == kid).filter(move |key| fits(key, alg))
    }
}

/// Kinds of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyType {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// What an algorithm needs; `None`: not one that is taken.
fn key_type(alg: Algorithm) -> Option<KeyType> {
    match alg {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => Some(KeyType::Rsa),
        Algorithm::ES256 => Some(KeyType::P256),
        Algorithm::ES384 => Some(KeyType::P384),
        Algorithm::EdDSA => Some(KeyType::Ed25519),
        _ => None,
    }
}

fn fits(key: &Jwk, alg: Algorithm) -> bool {
    let kind = match &key.algorithm {
        AlgorithmParameters::RSA(rsa) if is_large_enough(&rsa.n) => Some(KeyType::Rsa),
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => Some(KeyType::P256),
            EllipticCurve::P384 => Some(KeyType::P384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Some(KeyType::Ed25519),
        _ => None,
    };
    let common = &key.common;
    let for_signing = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let same_alg = common.key_algorithm.is_none_or(|own| own.to_string() == format!("{alg:?}"));
    kind.is_some() && kind == key_type(alg) && for_signing && same_alg
}

fn is_large_enough(modulus: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    bytes.iter().skip_while(|byte| **byte == 0).count() >= RSA_BYTES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const EXPECTED: Expected<'_> =
        Expected { issuer: "https://issuer.example", audience: "intentd", client_id: "worker", now: NOW };

    /// RFC 8032 §7.1, tests 1 and 2.
    const SEEDS: [(&str, &str); 2] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        ),
    ];

    fn encode(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn signed(header: &Value, claims: &Value) -> String {
        let pkcs8 = hex::decode(format!("302e020100300506032b657004220420{}", SEEDS[0].0)).unwrap();
        let input = format!("{}.{}", encode(header), encode(claims));
        let key = EncodingKey::from_ed_der(&pkcs8);
        let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{input}.{signature}")
    }

    fn claims() -> Value {
        json!({"iss": EXPECTED.issuer, "aud": "intentd", "exp": NOW + 300, "iat": NOW, "sub": "worker", "jti": "1"})
    }

    fn checked(claims: &Value) -> Result<(), Refusal> {
        let text = signed(&json!({"alg": "EdDSA"}), claims);
        Assertion::read(&text).and_then(|assertion| assertion.check(&EXPECTED))
    }

    #[test]
    fn threat_25_every_claim_of_an_assertion_is_typed_and_held_against_the_agent() {
        assert_eq!(checked(&claims()), Ok(()));
        for (name, value) in [
            ("aud", json!(["other", "intentd"])),
            ("exp", json!(NOW as f64 + 0.5)),
            ("exp", json!(NOW - SKEW_S + 1)),
            ("exp", json!(NOW + LIFETIME_S_MAX)),
            ("nbf", json!(NOW + SKEW_S)),
            ("nbf", json!(null)),
            ("iat", json!(null)),
            ("jti", json!(null)),
            ("azp", json!("worker")),
            ("client_id", json!("worker")),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            assert_eq!(checked(&claims), Ok(()), "{name} = {value}");
        }
        for (name, value) in [
            ("iss", json!("https://issuer.example/")),
            ("iss", json!("https://other.example")),
            ("iss", json!(["https://issuer.example"])),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("aud", json!("intentd ")),
            ("aud", json!(null)),
            ("exp", json!((NOW + 300).to_string())),
            ("exp", json!(null)),
            ("exp", json!(-1)),
            ("exp", json!(1e300)),
            ("exp", json!([NOW + 300])),
            ("exp", json!(NOW - SKEW_S)),
            ("exp", json!(NOW + LIFETIME_S_MAX + SKEW_S + 1)),
            ("nbf", json!(NOW + SKEW_S + 1)),
            ("nbf", json!("0")),
            ("iat", json!(NOW + SKEW_S + 1)),
            ("jti", json!("")),
            ("jti", json!(7)),
            ("sub", json!("other")),
            ("sub", json!(null)),
            ("azp", json!("other")),
            ("client_id", json!("other")),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            assert!(checked(&claims).is_err(), "{name} = {value}");
        }
        for missing in ["iss", "aud", "exp", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(missing);
            assert!(checked(&claims).is_err(), "without {missing}");
        }
        // A human who uses the agent's client, and a client that names itself like the agent's subject.
        let mut human = claims();
        human["sub"] = json!("human");
        human["azp"] = json!("worker");
        assert_eq!(checked(&human), Ok(()), "the issuer says that it is this client");
        human["client_id"] = json!("other");
        assert!(checked(&human).is_err());
        // One claim twice: of two readers each could see another one.
        let twice = claims().to_string().replacen('{', "{\"exp\":1,", 1);
        let text = format!("{}.{}.AA", encode(&json!({"alg": "EdDSA"})), URL_SAFE_NO_PAD.encode(twice));
        assert!(Assertion::read(&text).is_err());
    }

    fn ed_key(index: usize, kid: &str) -> Value {
        let x = URL_SAFE_NO_PAD.encode(hex::decode(SEEDS[index].1).unwrap());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid})
    }

    fn set(keys: &[Value]) -> JwkSet {
        serde_json::from_value(json!({ "keys": keys })).unwrap()
    }

    #[test]
    fn threat_25_only_a_listed_key_that_is_made_for_it_counts() {
        let with_kid = signed(&json!({"alg": "EdDSA", "kid": "a"}), &claims());
        let without = signed(&json!({"alg": "EdDSA"}), &claims());
        let holds = |text: &str, keys: &[Value]| {
            let assertion = Assertion::read(text).unwrap();
            let keys = set(keys);
            assert!(assertion.has_key_in(&keys) || !assertion.is_signed_by(&keys));
            assertion.is_signed_by(&keys)
        };
        let changed = |member: &str, value: Value| {
            let mut key = ed_key(0, "a");
            key[member] = value;
            key
        };
        assert!(holds(&with_kid, &[ed_key(0, "a")]));
        assert!(holds(&with_kid, &[ed_key(1, "b"), ed_key(1, "a"), ed_key(0, "a")]), "two keys of one kid");
        assert!(holds(&without, &[ed_key(1, "b"), ed_key(0, "a")]));
        assert!(holds(&with_kid, &[changed("use", json!("sig"))]));
        assert!(holds(&with_kid, &[changed("alg", json!("EdDSA"))]));
        assert!(holds(&with_kid, &[changed("key_ops", json!(["verify"]))]));
        assert!(!holds(&with_kid, &[]));
        assert!(!holds(&with_kid, &[ed_key(0, "b")]), "another kid");
        assert!(!holds(&with_kid, &[ed_key(1, "a")]), "another key");
        assert!(!holds(&with_kid, &[changed("use", json!("enc"))]));
        assert!(!holds(&with_kid, &[changed("alg", json!("ES256"))]));
        assert!(!holds(&with_kid, &[changed("key_ops", json!(["sign"]))]));
        // A secret in the list is no key of ours, whoever put it there.
        let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("secret"), "kid": "a"});
        assert!(!holds(&with_kid, std::slice::from_ref(&secret)));
        // Changed after it was signed.
        let (head, signature) = with_kid.rsplit_once('.').unwrap();
        let mut other = claims();
        other["sub"] = json!("admin");
        let other = format!("{}.{}.{signature}", head.split('.').next().unwrap(), encode(&other));
        assert!(!holds(&other, &[ed_key(0, "a")]));
    }

    #[test]
    fn threat_25_no_algorithm_of_shared_secrets_and_no_header_that_brings_its_key() {
        let key = EncodingKey::from_secret(b"secret");
        for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let text = jsonwebtoken::encode(&Header::new(alg), &claims(), &key).unwrap();
            assert!(Assertion::read(&text).is_err(), "{alg:?}");
        }
        for alg in ["none", "None", "NONE", "", "ES512", "ES256K", "EdDSA "] {
            let text = format!("{}.{}.", encode(&json!({"alg": alg})), encode(&claims()));
            assert!(Assertion::read(&text).is_err(), "{alg:?}");
        }
        let brings =
            signed(&json!({"alg": "EdDSA", "jwk": ed_key(0, "a"), "jku": "https://evil.example/jwks"}), &claims());
        let assertion = Assertion::read(&brings).unwrap();
        assert!(!assertion.is_signed_by(&set(&[])) && !assertion.is_signed_by(&set(&[ed_key(1, "a")])));
        let extended = signed(&json!({"alg": "EdDSA", "crit": ["x"], "x": 1}), &claims());
        assert!(Assertion::read(&extended).is_err());
        let good = signed(&json!({"alg": "EdDSA"}), &claims());
        for text in ["", ".", "..", "a.b.c", &format!("{good}."), &format!("{good}.x"), &"a".repeat(20_000)] {
            assert!(Assertion::read(text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn threat_25_a_small_rsa_key_is_none() {
        let modulus = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        let key = |n: String| set(&[json!({"kty": "RSA", "n": n, "e": "AQAB"})]).keys.remove(0);
        assert!(fits(&key(modulus(256)), Algorithm::RS256) && fits(&key(modulus(512)), Algorithm::PS512));
        assert!(!fits(&key(modulus(255)), Algorithm::RS256) && !fits(&key(modulus(128)), Algorithm::PS256));
        let padded = URL_SAFE_NO_PAD.encode([vec![0; 128], vec![0xff; 128]].concat());
        assert!(!fits(&key(padded), Algorithm::RS256));
        for alg in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
            assert!(!fits(&key(modulus(256)), alg), "{alg:?}");
        }
    }
}
