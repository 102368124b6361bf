use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::issuer::{DISCOVERY, Issuer, Key};
use crate::harness::stack::{Options, Stack};

async fn stack(daemons: usize) -> Stack {
    let env = vec![("INTENTD_OUTBOUND_ALLOW_PRIVATE".to_owned(), "127.0.0.1".to_owned())];
    Stack::with(Options { daemons, chains: Vec::new(), env, ..Options::default() }).await
}

async fn agent_of(stack: &Stack, issuer: &str, client_id: &str) -> String {
    let body = json!({
        "name": "o", "auth_method": "oidc_client_credentials", "oidc_issuer": issuer, "oidc_client_id": client_id,
    });
    stack.owner.post("/v1/agents", &body).await.expect(201)["agent"]["id"].as_str().unwrap().to_owned()
}

async fn exchange(stack: &Stack, daemon: usize, id: &str, assertion: &str) -> Reply {
    let body = json!({"agent_id": id, "client_assertion": assertion});
    stack.owner.at(&stack.daemons[daemon].url).by(None).post("/v1/auth/agent-token", &body).await
}

#[tokio::test]
async fn threat_25_an_assertion_holds_once_and_only_for_the_agent_its_issuer_names() {
    let stack = stack(2).await;
    let (rsa, p256, p384, ed, unlisted) = (Key::rsa(), Key::p256(), Key::p384(), Key::ed25519(), Key::ed25519());
    let listed = [rsa.jwk("rsa"), p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed")];
    let issuer = Issuer::start(&listed).await;
    let id = agent_of(&stack, &issuer.url, "worker").await;
    let other = agent_of(&stack, &issuer.url, "other").await;

    let kinds: [(&Key, &str, &str); 5] = [
        (&rsa, "RS256", "rsa"),
        (&rsa, "PS256", "rsa"),
        (&p256, "ES256", "p256"),
        (&p384, "ES384", "p384"),
        (&ed, "EdDSA", "ed"),
    ];
    for (key, alg, kid) in kinds {
        let header = json!({"alg": alg, "kid": kid});
        let assertion = key.sign(&header, &issuer.claims("worker"));
        exchange(&stack, 0, &other, &assertion).await.refused(401);
        let body = exchange(&stack, 0, &id, &assertion).await.expect(200);
        assert_eq!((body.as_object().unwrap().len(), &body["agent_id"]), (5, &json!(id)), "{alg}");
        let by_token = stack.owner.at(&stack.daemons[1].url).by(body["access_token"].as_str());
        by_token.get("/v1/agents/me").await.expect(200);
        // Used up, on both daemons.
        exchange(&stack, 0, &id, &assertion).await.refused(401);
        exchange(&stack, 1, &id, &assertion).await.refused(401);
    }
    assert_eq!(issuer.asked("/jwks"), 2, "once by each daemon");
    // Of several at once, one is taken.
    let assertion = ed.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &issuer.claims("worker"));
    let replies = futures::future::join_all((0..8).map(|n| exchange(&stack, n % 2, &id, &assertion))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
    // Without an id it may be shown again.
    let mut claims = issuer.claims("worker");
    claims.as_object_mut().unwrap().remove("jti");
    let reusable = ed.sign(&json!({"alg": "EdDSA"}), &claims);
    for _ in 0..2 {
        exchange(&stack, 0, &id, &reusable).await.expect(200);
    }

    let header = json!({"alg": "EdDSA", "kid": "ed"});
    let changed = |name: &str, value: Value| {
        let mut claims = issuer.claims("worker");
        claims[name] = value;
        ed.sign(&header, &claims)
    };
    let now = intentd::clock::now().unix_timestamp();
    let forged = [
        ("another key", unlisted.sign(&header, &issuer.claims("worker"))),
        ("a key for another algorithm", ed.sign(&json!({"alg": "EdDSA", "kid": "p256"}), &issuer.claims("worker"))),
        ("another issuer", changed("iss", json!("https://issuer.example"))),
        ("for others", changed("aud", json!("https://other.example"))),
        ("ended", changed("exp", json!(now - 60))),
        ("a text for a time", changed("exp", json!((now + 60).to_string()))),
        ("another client", changed("sub", json!("other"))),
        ("another client, by azp", changed("azp", json!("other"))),
        ("not yet", changed("nbf", json!(now + 600))),
        ("unsigned", ed.sign(&header, &issuer.claims("worker")).rsplit_once('.').unwrap().0.to_owned() + "."),
        ("rubbish", "a.b.c".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, assertion) in forged {
        let detail = exchange(&stack, 0, &id, &assertion).await.refused(401);
        assert!(detail.starts_with("the credentials are not valid"), "{what}: {detail}");
    }
    let key = stack.owner.post("/v1/agents", &json!({"name": "k"})).await.expect(201);
    let both = json!({"agent_id": id, "api_key": key["api_key"], "client_assertion": reusable});
    stack.owner.by(None).post("/v1/auth/agent-token", &both).await.refused(400);
    let nobody = json!({"client_assertion": reusable});
    stack.owner.by(None).post("/v1/auth/agent-token", &nobody).await.refused(400);
    exchange(&stack, 0, key["agent"]["id"].as_str().unwrap(), &reusable).await.refused(401);

    // Another client id, and what rested on the old one ends.
    let body = exchange(&stack, 0, &id, &reusable).await.expect(200);
    let by_token = stack.owner.at(&stack.daemons[1].url).by(body["access_token"].as_str());
    by_token.get("/v1/agents/me").await.expect(200);
    stack.owner.patch(&format!("/v1/agents/{id}"), &json!({"oidc_client_id": "renamed"})).await.expect(200);
    by_token.get("/v1/agents/me").await.refused(401);
    exchange(&stack, 0, &id, &reusable).await.refused(401);
}

#[tokio::test]
async fn threat_38_an_issuer_that_cannot_be_asked_is_no_refusal_and_keys_change_within_bounds() {
    let stack = stack(1).await;
    let (first, second) = (Key::ed25519(), Key::ed25519());
    let issuer = Issuer::start(&[first.jwk("first")]).await;
    let id = agent_of(&stack, &issuer.url, "worker").await;
    let by = |key: &Key, kid: &str| key.sign(&json!({"alg": "EdDSA", "kid": kid}), &issuer.claims("worker"));

    issuer.set(DISCOVERY, 500, "");
    let reply = exchange(&stack, 0, &id, &by(&first, "first")).await;
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
    reply.refused(503);
    // It is not asked again at once, whoever comes.
    exchange(&stack, 0, &id, &by(&first, "first")).await.refused(503);
    assert_eq!((issuer.asked(DISCOVERY), issuer.asked("/jwks")), (1, 0));
    // What is refused anyway asks nobody, and is a refusal.
    exchange(&stack, 0, &id, &first.sign(&json!({"alg": "EdDSA"}), &issuer.claims("other"))).await.refused(401);
    assert_eq!(issuer.asked(DISCOVERY), 1);

    // Each other way of giving no usable answer, with an issuer of its own.
    let documents = [
        (DISCOVERY, 200, "not json".to_owned()),
        (DISCOVERY, 200, json!({"issuer": "https://other.example", "jwks_uri": "http://127.0.0.1/jwks"}).to_string()),
        (DISCOVERY, 302, "/elsewhere".to_owned()),
        (DISCOVERY, 200, "x".repeat(600 * 1024)),
        ("/jwks", 200, "[]".to_owned()),
        ("/jwks", 302, "/moved".to_owned()),
        ("/jwks", 404, String::new()),
    ];
    for (path, status, body) in documents {
        let broken = Issuer::start(&[first.jwk("first")]).await;
        broken.set(path, status, &body);
        let id = agent_of(&stack, &broken.url, "worker").await;
        let assertion = first.sign(&json!({"alg": "EdDSA", "kid": "first"}), &broken.claims("worker"));
        exchange(&stack, 0, &id, &assertion).await.refused(503);
        assert_eq!((broken.asked("/elsewhere"), broken.asked("/moved")), (0, 0), "no redirect is followed");
    }

    let steady = Issuer::start(&[first.jwk("first")]).await;
    let id = agent_of(&stack, &steady.url, "worker").await;
    let by = |key: &Key, kid: &str| key.sign(&json!({"alg": "EdDSA", "kid": kid}), &steady.claims("worker"));
    exchange(&stack, 0, &id, &by(&first, "first")).await.expect(200);
    // A key that is not listed does not make us ask without end.
    steady.list(&[first.jwk("first"), second.jwk("second")]);
    for _ in 0..20 {
        exchange(&stack, 0, &id, &by(&second, "second")).await.refused(401);
    }
    assert_eq!(steady.asked("/jwks"), 1);
    // What is known serves on while the issuer is silent.
    steady.set(DISCOVERY, 500, "");
    exchange(&stack, 0, &id, &by(&first, "first")).await.expect(200);
}

#[tokio::test]
async fn threat_22_an_issuer_is_only_asked_where_anybody_could_be() {
    // Nothing private is allowed here.
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let key = Key::ed25519();
    let issuer = Issuer::start(&[key.jwk("k")]).await;
    let port = issuer.url.rsplit_once(':').unwrap().1;
    for url in [
        issuer.url.clone(),
        format!("https://127.0.0.1:{port}"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://0x7f000001:{port}"),
        "http://issuer.example@127.0.0.1".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let body = json!({
            "name": "o", "auth_method": "oidc_client_credentials", "oidc_issuer": url, "oidc_client_id": "c",
        });
        let detail = stack.owner.post("/v1/agents", &body).await.refused(400);
        assert!(detail.contains("oidc_issuer"), "{url}: {detail}");
    }
    // A name that leads here can only be noticed when it is asked: that is a refusal, and nobody was asked.
    for scheme in ["http", "https"] {
        let named = format!("{scheme}://localhost:{port}");
        let id = agent_of(&stack, &named, "worker").await;
        let mut claims = issuer.claims("worker");
        claims["iss"] = json!(named);
        exchange(&stack, 0, &id, &key.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims)).await.refused(401);
    }
    assert_eq!(issuer.answers.lock().unwrap().asked.len(), 0);

    // The address of the keys comes from the issuer: the same rules.
    let env = vec![("INTENTD_OUTBOUND_ALLOW_PRIVATE".to_owned(), "127.0.0.1".to_owned())];
    let stack = Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await;
    let other = Issuer::start(&[key.jwk("k")]).await;
    let other_port = other.url.rsplit_once(':').unwrap().1;
    for jwks in [
        "http://169.254.169.254/jwks".to_owned(),
        format!("http://127.0.0.2:{other_port}/jwks"),
        "https://10.0.0.1/jwks".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let issuer = Issuer::start(&[]).await;
        issuer.discovery(&json!({"issuer": issuer.url, "jwks_uri": jwks}));
        let id = agent_of(&stack, &issuer.url, "worker").await;
        let assertion = key.sign(&json!({"alg": "EdDSA", "kid": "k"}), &issuer.claims("worker"));
        exchange(&stack, 0, &id, &assertion).await.refused(401);
        assert_eq!(issuer.asked(DISCOVERY), 1, "{jwks}");
    }
    assert_eq!(other.answers.lock().unwrap().asked.len(), 0);
}
