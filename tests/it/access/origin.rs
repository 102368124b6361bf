use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack};

async fn behind(proxies: &str, limits: &[(&str, &str)]) -> Stack {
    let mut env = vec![("INTENTD_TRUSTED_PROXIES".to_owned(), proxies.to_owned())];
    env.extend(limits.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await
}

async fn send(client: &Client, method: Method, path: &str, lines: &[&str], body: Value) -> Reply {
    let mut request = client.request(method, path);
    for line in lines {
        request = request.header("X-Forwarded-For", *line);
    }
    Client::send(if body.is_null() { request } else { request.json(&body) }).await
}

#[tokio::test]
async fn threat_28_behind_a_listed_proxy_policies_and_audit_go_by_its_caller() {
    let stack = behind("127.0.0.1/32,10.0.0.0/8", &[]).await;
    let agent = stack.agent(json!({})).await;
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201);
    let vault = vault["id"].as_str().unwrap();
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/a"), &json!({"value": "v"})).await.expect(201);
    let policy = json!({
        "secret_path_pattern": "a", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"],
        "conditions": {"ip_allowlist": ["198.51.100.0/24", "2001:db8::/32"]},
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &policy).await.expect(201);
    let secret = format!("/v1/vaults/{vault}/secrets/a");
    let read = async |lines: &[&str]| send(&agent.client, Method::GET, &secret, lines, Value::Null).await;
    for lines in [
        &["198.51.100.7"][..],
        &["198.51.100.7:4711"],
        &["::ffff:198.51.100.7"],
        &["[2001:db8::1]:443"],
        &["9.9.9.9, 198.51.100.7"],
        &["9.9.9.9", "198.51.100.7, 10.1.1.1"],
    ] {
        read(lines).await.expect(200);
    }
    for lines in [
        &[][..],
        &["9.9.9.9"],
        &["198.51.100.7, 9.9.9.9"],
        &["198.51.100.7", "9.9.9.9"],
        &["198.51.100.7, unknown"],
        &["198.51.100.7,"],
        &["10.1.1.1"],
        &["for=198.51.100.7"],
    ] {
        read(lines).await.refused(403);
    }
    let forwarded = agent.client.request(Method::GET, &secret).header("Forwarded", "for=198.51.100.7");
    Client::send(forwarded.header("X-Real-IP", "198.51.100.7")).await.refused(403);
    let events = stack.owner.get("/v1/audit/events?action=secret.read").await.expect(200);
    let seen: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["ip_address"].as_str().unwrap()).collect();
    assert_eq!(seen.iter().filter(|ip| **ip == "198.51.100.7").count(), 5, "{seen:?}");
    assert_eq!(seen.iter().filter(|ip| **ip == "2001:db8::1").count(), 1, "{seen:?}");
}

#[tokio::test]
async fn threat_46_limits_behind_a_listed_proxy_are_its_callers_own() {
    let limits = [("INTENTD_LIMITS_AUTH_BURST", "3"), ("INTENTD_LIMITS_IP_BURST", "1000")];
    let stack = behind("127.0.0.1", &limits).await;
    let nobody = stack.owner.by(None);
    let guess = async |lines: &[&str]| {
        let body = json!({"api_key": format!("ocv_{}", "A".repeat(43))});
        send(&nobody, Method::POST, "/v1/auth/agent-token", lines, body).await.status.as_u16()
    };
    // One caller, who writes something else into the header each time: the proxy's entry stands to the right of it.
    let mut refused = 0;
    for round in 0..20 {
        let forged = format!("203.0.113.{round}, 198.51.100.7");
        let (own, proxys) = (format!("203.0.113.{round}"), "198.51.100.7");
        let lines: &[&str] = if round % 2 == 0 { &[&forged] } else { &[&own, proxys] };
        refused += usize::from(guess(lines).await == 429);
    }
    assert!(refused >= 12, "{refused} of 20 were refused");
    // Another caller of the same proxy is another caller.
    assert_eq!(guess(&["198.51.100.8"]).await, 401);

    // Not listed: the header is nothing, and everybody on the socket's address shares.
    let stack = behind("10.0.0.0/8", &limits).await;
    let nobody = stack.owner.by(None);
    let mut refused = 0;
    for round in 0..20 {
        let body = json!({"api_key": format!("ocv_{}", "A".repeat(43))});
        let line = format!("198.51.100.{round}");
        let reply = send(&nobody, Method::POST, "/v1/auth/agent-token", &[&line], body).await;
        refused += usize::from(reply.status == 429);
    }
    assert!(refused >= 12, "{refused} of 20 were refused");
}
