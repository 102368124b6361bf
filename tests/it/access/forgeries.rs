use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::issuer::Key;
use crate::harness::stack::{Options, Stack};

fn b64(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn threat_25_nothing_but_what_the_daemon_signed_and_has_not_ended_gets_in() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let (agent, other) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let exchange = async |key: &str| {
        let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await.expect(200);
        body["access_token"].as_str().unwrap().to_owned()
    };
    let token = exchange(&agent.api_key).await;
    let elsewhere = stack.owner.at(&stack.daemons[1].url);
    let tried = async |token: &str| elsewhere.by(Some(token)).get("/v1/agents/me").await;
    assert_eq!(tried(&token).await.expect(200)["id"], json!(agent.id));

    let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let read = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let (header, claims) = (read(&parts[0]), read(&parts[1]));
    let public = stack.owner.by(None).get("/v1/auth/jwt-public-key").await.expect(200);
    let public = STANDARD.decode(public["public_key_base64"].as_str().unwrap()).unwrap();
    let changed = |base: &Value, name: &str, value: Value| {
        let mut changed = base.clone();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let (ed, p256, rsa) = (Key::ed25519(), Key::p256(), Key::rsa());
    let hmac = |header: &Value, secret: &[u8]| {
        let header = jsonwebtoken::Header { kid: header["kid"].as_str().map(str::to_owned), ..Default::default() };
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(secret)).unwrap()
    };
    let mut forged: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| forged.push((what.to_owned(), token));
    for alg in ["none", "NONE", "nOnE", "", "HS256", "ES256", "RS256"] {
        let head = b64(&changed(&header, "alg", json!(alg)));
        add(&format!("alg {alg:?}, unsigned"), format!("{head}.{}.", parts[1]));
        add(&format!("alg {alg:?}, our signature"), format!("{head}.{}.{}", parts[1], parts[2]));
    }
    add("no alg", format!("{}.{}.{}", b64(&json!({"typ": "JWT"})), parts[1], parts[2]));
    add("the public key as a secret", hmac(&header, &public));
    add("the public key's text as a secret", hmac(&header, STANDARD.encode(&public).as_bytes()));
    add("an empty secret", hmac(&header, b""));
    add("another Ed25519 key", ed.sign(&header, &claims));
    add("an ES256 key", p256.sign(&changed(&header, "alg", json!("ES256")), &claims));
    add("an RS256 key", rsa.sign(&changed(&header, "alg", json!("RS256")), &claims));
    for kid in [json!("../../../dev/null"), json!("' OR 1=1 --"), json!(""), json!(null), json!("x".repeat(8_000))] {
        add(&format!("kid {kid:.20}"), ed.sign(&changed(&header, "kid", kid.clone()), &claims));
    }
    let brought = changed(&changed(&header, "jwk", ed.jwk("x")), "jku", json!("http://127.0.0.1:1/jwks"));
    add("its own key in the header", ed.sign(&brought, &claims));
    for name in ["exp", "iat", "iss", "aud", "sub", "jti", "org", "key_prefix"] {
        add(&format!("without {name}"), format!("{}.{}.{}", parts[0], b64(&without(name)), parts[2]));
        add(&format!("without {name}, other key"), ed.sign(&header, &without(name)));
    }
    for (name, value) in [
        ("sub", json!(format!("agent:{}", other.id))),
        ("exp", json!("9999999999")),
        ("exp", json!(9_999_999_999_u64)),
        ("aud", json!("other")),
        ("org", json!(uuid::Uuid::new_v4())),
        ("key_prefix", json!(&other.api_key[..12])),
    ] {
        let claims = changed(&claims, name, value);
        add(&format!("{name} changed"), format!("{}.{}.{}", parts[0], b64(&claims), parts[2]));
        add(&format!("{name} changed, other key"), ed.sign(&header, &claims));
    }
    let mut signature = URL_SAFE_NO_PAD.decode(&parts[2]).unwrap();
    signature[63] ^= 0x80;
    add("a bit of the signature", format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(&signature)));
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("two parts", format!("{}.{}", parts[0], parts[1]));
    add("four parts", format!("{token}.x"));
    add("padded", format!("{token}="));
    add("another one's signature", {
        let other = exchange(&other.api_key).await;
        format!("{}.{}.{}", parts[0], parts[1], other.rsplit_once('.').unwrap().1)
    });
    add("oversized", format!("{}.{}.{}", parts[0], "A".repeat(60_000), parts[2]));
    add("a JSON of rubbish", format!("{}.{}.{}", b64(&json!([])), b64(&json!([])), parts[2]));

    let mut replies = std::collections::BTreeMap::new();
    for (what, token) in &forged {
        let reply = tried(token).await;
        assert_eq!(reply.status, 401, "{what}: {}", reply.body);
        replies.insert(reply.body.to_string(), what.clone());
    }
    assert_eq!(replies.len(), 1, "one text for all: {replies:?}");
    tried(&token).await.expect(200);

    // The same signature is good for nothing once what it says has ended, on the daemon that did not end it.
    let (revoked, second) = (exchange(&agent.api_key).await, exchange(&agent.api_key).await);
    tried(&revoked).await.expect(200);
    assert_eq!(stack.owner.by(Some(&revoked)).delete("/v1/auth/token").await.expect(204), Value::Null);
    tried(&revoked).await.refused(401);
    tried(&second).await.expect(200);
    stack.owner.patch(&format!("/v1/agents/{}", agent.id), &json!({"is_active": false})).await.expect(200);
    for token in [&token, &second] {
        tried(token).await.refused(401);
    }
    stack.owner.delete(&format!("/v1/agents/{}", other.id)).await.expect(204);
    other.client.at(&elsewhere.base).get("/v1/agents/me").await.refused(401);
}
