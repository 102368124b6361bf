use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::issuer::{Issuer, Key};
use crate::harness::stack::{Options, Stack, text, until};
use crate::harness::tls::Identity;
use crate::orgs::{human, last_event, other_org, run};

const PASSWORD: &str = "Correct-Horse-7";
const RULES: &str = "/v1/security/ip-rules";

async fn add(by: &Client, rule: Value) -> String {
    by.post(RULES, &rule).await.expect(201)["id"].as_str().unwrap().to_owned()
}

/// Whatever begins a second after a change was answered goes by it.
async fn within_a_second(client: &Client, path: &str, status: u16) {
    let changed = Instant::now();
    loop {
        let began = Instant::now();
        let reply = client.get(path).await;
        if reply.status.as_u16() == status {
            return;
        }
        assert!(
            began.duration_since(changed) < Duration::from_secs(1),
            "{} after a second: {}",
            reply.status,
            reply.body
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rules_hold_on_every_daemon_within_a_second_for_whom_they_are_meant() {
    let mut stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let me = "/v1/agents/me";
    let (here, there) = (agent.client.clone(), agent.client.at(&stack.daemons[1].url));
    let human_there = stack.owner.at(&stack.daemons[1].url);
    let body = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let token = there.by(body["access_token"].as_str());
    for client in [&here, &there, &token] {
        client.get(me).await.expect(200);
    }

    // `block` and `description` are what older clients send.
    let deny = json!({"rule_type": "block", "cidr": "127.0.0.1", "description": "no agents from here", "applies_to": "agents"});
    let shown = stack.owner.post(RULES, &deny).await.expect(201);
    assert_eq!((&shown["rule_type"], &shown["cidr"]), (&json!("deny"), &json!("127.0.0.1/32")));
    assert_eq!((&shown["label"], &shown["applies_to"]), (&json!("no agents from here"), &json!("agents")));
    assert_eq!(here.get(me).await.refused(403), there_detail(&there, me).await, "at once where it was made");
    within_a_second(&token, me, 403).await;
    human_there.get("/v1/vaults").await.expect(200);
    // A token is not to be had either, and whose key is wrong learns nothing of rules.
    let exchange = async |key: &str| there.by(None).post("/v1/auth/agent-token", &json!({"api_key": key})).await;
    exchange(&agent.api_key).await.refused(403);
    exchange(&format!("ocv_{}", "A".repeat(43))).await.refused(401);
    // Another organisation is not concerned.
    let (_, foreign) = other_org(&stack).await;
    foreign.at(&stack.daemons[1].url).get("/v1/vaults").await.expect(200);
    foreign.delete(&format!("{RULES}/{}", shown["id"].as_str().unwrap())).await.refused(404);

    stack.owner.delete(&format!("{RULES}/{}", shown["id"].as_str().unwrap())).await.expect(204);
    within_a_second(&there, me, 200).await;
    // One allow rule shuts everybody else out; deny wins over it.
    let elsewhere =
        add(&stack.owner, json!({"rule_type": "allow", "cidr": "10.1.2.3/8", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    let loopback =
        add(&stack.owner, json!({"rule_type": "allow", "cidr": "::ffff:127.0.0.0/104", "applies_to": "agents"})).await;
    within_a_second(&there, me, 200).await;
    let deny = add(&stack.owner, json!({"rule_type": "deny", "cidr": "127.0.0.0/16", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    let listed = stack.owner.get(RULES).await.expect(200);
    let networks: Vec<_> =
        listed["rules"].as_array().unwrap().iter().map(|rule| rule["cidr"].as_str().unwrap()).collect();
    assert_eq!(networks, ["10.0.0.0/8", "127.0.0.0/8", "127.0.0.0/16"]);
    for id in [&elsewhere, &loopback, &deny] {
        stack.owner.delete(&format!("{RULES}/{id}")).await.expect(204);
    }
    within_a_second(&there, me, 200).await;

    // However many were refused, the trail has one row for each principal, peer and minute of a daemon.
    add(&stack.owner, json!({"rule_type": "deny", "cidr": "127.0.0.1", "applies_to": "agents"})).await;
    within_a_second(&there, me, 403).await;
    for _ in 0..30 {
        there.get(me).await.refused(403);
    }
    stack.daemons[1].signal(Signal::TERM);
    assert!(stack.daemons[1].ended().await.success());
    let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
        "SELECT (details->>'count')::bigint, host(ip_address) FROM audit_events
         WHERE action = 'access.denied' AND resource_type = 'address' AND actor_type = 'agent'",
    )
    .fetch_all(&stack.db)
    .await
    .unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].0 > 30 && rows[0].1.as_deref() == Some("127.0.0.1"), "{rows:?}");
}

async fn there_detail(client: &Client, path: &str) -> String {
    within_a_second(client, path, 403).await;
    client.get(path).await.refused(403)
}

/// However somebody proves who they are: what they would get is not given to an address outside of their organisation's rules.
#[tokio::test]
async fn threat_28_no_way_in_leads_past_the_rules() {
    let env = [("INTENTD_OUTBOUND_ALLOW_PRIVATE", "127.0.0.1"), ("INTENTD_TRUSTED_PROXIES", "127.0.0.1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut stack = Stack::with(Options { daemons: 0, chains: Vec::new(), env, ..Options::default() }).await;
    let (server, own) = (Identity::new(), Identity::new());
    stack.add_daemon("plain").await;
    for (name, text) in [("tls.pem", server.pem.clone()), ("tls.key", server.key_pem())] {
        std::fs::write(stack.install.root.join(name), text).unwrap();
    }
    let file = |name: &str| stack.install.root.join(name).display().to_string();
    let tls = [
        ("INTENTD_TLS_CERT_FILE".to_owned(), file("tls.pem")),
        ("INTENTD_TLS_KEY_FILE".to_owned(), file("tls.key")),
        ("INTENTD_TLS_CLIENT_AUTH".to_owned(), "optional".to_owned()),
    ];
    // Behind a proxy a certificate would be the proxy's own.
    stack.options.env.retain(|(name, _)| name != "INTENTD_TRUSTED_PROXIES");
    stack.options.env.extend(tls);
    stack.add_daemon("tls").await;
    let tls_url = format!("{}/v1/auth/agent-token", stack.daemons[1].url);
    let signer = Key::ed25519();
    let issuer = Issuer::start(&[signer.jwk("k")]).await;
    let agent_of = async |more: Value| text(&stack.owner.post("/v1/agents", &more).await.expect(201)["agent"], "id");
    let by_certificate =
        agent_of(json!({"name": "c", "auth_method": "mtls", "client_cert_fingerprint": own.fingerprint()})).await;
    let oidc = json!({"name": "o", "auth_method": "oidc_client_credentials", "oidc_issuer": issuer.url, "oidc_client_id": "worker"});
    let by_assertion = agent_of(oidc).await;
    // Two humans with a password, one of them with a second factor as well.
    let mut humans = Vec::new();
    for _ in 0..2 {
        let somebody = human(&stack, "member").await;
        let email: String = sqlx::query_scalar("SELECT email FROM users WHERE id = $1")
            .bind(somebody.id)
            .fetch_one(&stack.db)
            .await
            .unwrap();
        let forgotten = json!({ "email": email });
        stack.owner.by(None).post("/v1/auth/forgot-password", &forgotten).await.expect(200);
        let letters = || stack.letters(&email, "Choose a new password");
        until(Duration::from_secs(20), "the letter", async || !letters().is_empty()).await;
        let link = letters()[0].split_once('#').unwrap().1.split_whitespace().next().unwrap().to_owned();
        let chosen = json!({"token": link, "new_password": PASSWORD});
        stack.owner.by(None).post("/v1/auth/reset-password", &chosen).await.expect(200);
        humans.push((somebody, email));
    }
    let setup = humans[1].0.client.post("/v1/auth/mfa/setup", &json!({})).await.expect(200);
    let code = |steps: i64| {
        let secret = totp_rs::Secret::try_from_base32(text(&setup, "secret")).unwrap();
        let now = intentd::clock::now().unix_timestamp() + 30 * steps;
        let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        totp.generate(now.unsigned_abs()).to_string()
    };
    let on = json!({"code": code(-1)});
    humans[1].0.client.post("/v1/auth/mfa/verify-setup", &on).await.expect(200);

    // Everybody out but the network of these tests' humans and agents.
    let rule = |network: &str| {
        format!(
            "INSERT INTO ip_rules (id, org_id, rule_type, network, applies_to, created_by)
             SELECT gen_random_uuid(), org_id, 'allow', '{network}', 'all', id FROM users WHERE role = 'owner'"
        )
    };
    stack.sql(&rule("198.51.100.0/24")).await;
    within_a_second(&stack.owner, "/v1/vaults", 403).await;
    let nobody = stack.owner.by(None);
    let from = async |address: &str, path: &str, body: &Value| {
        let request = nobody.request(reqwest::Method::POST, path).header("X-Forwarded-For", address);
        Client::send(request.json(body)).await
    };
    let pending = async || {
        stack.sql("DELETE FROM throttles").await;
        let begun = json!({"client_id": "cli", "email": humans[0].1});
        let codes = from("203.0.113.1", "/v1/auth/device/code", &begun).await.expect(200);
        let said = humans[0].0.client.request(reqwest::Method::POST, "/v1/auth/device/approve");
        let said = said.header("X-Forwarded-For", "198.51.100.1").json(&json!({"user_code": codes["user_code"]}));
        assert!(Client::send(said).await.status.is_success());
        json!({"device_code": codes["device_code"], "grant_type": "urn:ietf:params:oauth:grant-type:device_code"})
    };
    for (address, status, step) in [("203.0.113.1", 403, 0), ("198.51.100.1", 200, 1)] {
        let login = async |n: usize| {
            let body = json!({"email": humans[n].1, "password": PASSWORD});
            from(address, "/v1/auth/token", &body).await
        };
        login(0).await.expect(status);
        let challenge = text(&login(1).await.expect(200), "mfa_token");
        let second = json!({"mfa_token": challenge, "code": code(step)});
        from(address, "/v1/auth/mfa/verify", &second).await.expect(status);
        from(address, "/v1/auth/device/token", &pending().await).await.expect(status);
        let assertion = signer.sign(&json!({"alg": "EdDSA", "kid": "k"}), &issuer.claims("worker"));
        let shown = json!({"agent_id": by_assertion, "client_assertion": assertion});
        from(address, "/v1/auth/agent-token", &shown).await.expect(status);
        let certified = || own.client(&server).post(&tls_url).json(&json!({"agent_id": by_certificate})).send();
        if status == 200 {
            stack.sql(&rule("127.0.0.0/8")).await;
        }
        let answered = async || certified().await.unwrap().status().as_u16() == status;
        until(Duration::from_secs(5), "an answer to a certificate", answered).await;
    }
}

#[tokio::test]
async fn nobody_locks_themself_out_and_the_operator_can_let_everybody_in() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let (admin, member) = (human(&stack, "admin").await, human(&stack, "member").await);
    let agent = stack.agent(json!({})).await;
    let rule = |rule_type: &str, cidr: &str| json!({"rule_type": rule_type, "cidr": cidr, "label": null});
    member.client.get(RULES).await.expect(200);
    agent.client.get(RULES).await.refused(403);
    for nobody in [&member.client, &agent.client] {
        nobody.post(RULES, &rule("deny", "192.0.2.0/24")).await.refused(403);
    }
    for bad in [
        json!({}),
        rule("permit", "10.0.0.0/8"),
        rule("deny", "10.0.0.0/33"),
        rule("deny", "example.org"),
        rule("deny", ""),
        json!({"rule_type": "deny"}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "applies_to": "users"}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "label": "x".repeat(256)}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24", "label": "a", "description": "b"}),
    ] {
        admin.client.post(RULES, &bad).await.refused(400);
    }
    for out in
        [rule("deny", "0.0.0.0/0"), rule("block", "127.0.0.1"), rule("allow", "192.0.2.0/24"), rule("allow", "::/0")]
    {
        let detail = admin.client.post(RULES, &out).await.refused(422);
        assert!(detail.contains("lock you out") && detail.contains("127.0.0.1"), "{detail}");
    }
    assert_eq!(last_event(&stack, "access.denied").await["asked"], "ip_rule.create");
    assert_eq!(stack.count("SELECT count(*) FROM ip_rules").await, 0);
    let own = add(&admin.client, rule("allow", "127.0.0.0/8")).await;
    let other = add(&admin.client, rule("allow", "192.0.2.0/24")).await;
    assert_eq!(last_event(&stack, "ip_rule.create").await["rule"]["cidr"], "192.0.2.0/24");
    admin.client.delete(&format!("{RULES}/{own}")).await.refused(422);
    admin.client.delete(&format!("{RULES}/{other}")).await.expect(204);
    admin.client.delete(&format!("{RULES}/{own}")).await.expect(204);
    // Two that are harmless alone, at once: one of them would shut the door.
    for _ in 0..5 {
        let (a, b) = (rule("allow", "127.0.0.1"), rule("deny", "192.0.2.0/24"));
        let ids = [
            add(&admin.client, a).await,
            add(&admin.client, b).await,
            add(&admin.client, rule("allow", "10.0.0.0/8")).await,
        ];
        let paths = ids.map(|id| format!("{RULES}/{id}"));
        futures::future::join_all(paths.iter().map(|path| admin.client.delete(path))).await;
        stack.owner.get(RULES).await.expect(200);
        stack.sql("DELETE FROM ip_rules").await;
    }

    stack
        .sql(&format!(
            "INSERT INTO ip_rules (id, org_id, rule_type, network, applies_to, created_by)
             SELECT gen_random_uuid(), '{}', 'deny', ('192.0.2.' || n)::inet::cidr, 'all', '{}' FROM generate_series(0, 255) AS n",
            stack.org_id, admin.id
        ))
        .await;
    admin.client.post(RULES, &rule("deny", "198.51.100.7")).await.refused(409);

    // Everybody out, as after a move to another office.
    stack.sql("UPDATE ip_rules SET network = '10.0.0.0/8', rule_type = 'allow'").await;
    within_a_second(&stack.owner, "/v1/vaults", 403).await;
    let mut command = stack.command();
    command.args(["admin", "clear-ip-rules", "--organisation-id", &stack.org_id]);
    run(command);
    within_a_second(&stack.owner, "/v1/vaults", 200).await;
    assert_eq!(last_event(&stack, "ip_rule.clear").await["count"], 256);
}
