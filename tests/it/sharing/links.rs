use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{ask, daemons, in_days, link, listed, open, open_with, share, store, vault};
use crate::harness::client::Client;
use crate::harness::stack::until;

fn members(body: &Value) -> BTreeSet<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_link_opens_to_the_latest_version_until_it_is_revoked() {
    let stack = daemons(2).await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None));
    let elsewhere = nobody.at(&stack.daemons[1].url);
    let vault = vault(owner).await;
    let secret = store(owner, &vault, "api/stripe", json!({"value": "v1", "type": "api_key"})).await;

    let made =
        ask(owner, &secret, &link(json!({"max_access_count": 5, "note": "x", "passphrase": null}))).await.expect(201);
    assert_eq!(members(&made), BTreeSet::from(["id", "share_url", "recipient_type", "expires_at", "max_access_count"]));
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["share_url"], format!("https://intents.example/base/v1/share/{id}"));
    assert_eq!((&made["recipient_type"], &made["max_access_count"]), (&json!("anyone_with_link"), &json!(5)));

    let reply = open(&elsewhere, id).await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let opened = json!({"id": id, "path": "api/stripe", "type": "api_key", "value": "v1", "access_count": 1, "max_access_count": 5});
    assert_eq!(reply.expect(200), opened);
    // A credential that does not hold is no matter where none is needed; nor are bodies.
    assert_eq!(
        open_with(&nobody.by(Some("ocv_stale")), id, &json!({"passphrase": "not asked for"})).await.expect(200)["access_count"],
        2
    );
    store(owner, &vault, "api/stripe", json!({"value": "v2"})).await;
    assert_eq!(open(&nobody, id).await.expect(200)["value"], "v2");

    let shares = listed(owner, "outbound").await;
    let expected = [
        "id",
        "secret_path",
        "recipient_type",
        "access_count",
        "max_access_count",
        "expires_at",
        "created_at",
        "is_expired",
        "is_accepted",
    ];
    assert_eq!(members(&shares[0]), expected.into());
    let shown = ["id", "secret_path", "access_count", "is_expired", "is_accepted"].map(|name| &shares[0][name]);
    assert_eq!(shown, [&json!(id), &json!("api/stripe"), &json!(3), &json!(false), &json!(false)]);
    assert!(listed(owner, "inbound").await.is_empty());

    // HEAD has no reply that is worth a count, of the share or of a secret; nor is a body read that holds no passphrase.
    let once = store(owner, &vault, "once", json!({"value": "v", "max_access_count": 1})).await;
    assert!(!once.is_empty());
    let once = format!("/v1/vaults/{vault}/secrets/once");
    for (client, path) in [(&nobody, format!("/v1/share/{id}")), (owner, once.clone())] {
        let reply = Client::send(client.request(Method::HEAD, &path)).await;
        assert_eq!(reply.status, 405, "{path}");
    }
    owner.get(&once).await.expect(200);
    open_with(&nobody, id, &json!({"passphrase": "x".repeat(9_000)})).await.refused(413);
    assert_eq!(listed(owner, "outbound").await[0]["access_count"], 3);
    for path in ["/device", "/v1/health"] {
        assert_eq!(Client::send(nobody.request(Method::HEAD, path)).await.status, 200, "{path}");
    }

    // Who may read the secret, or nothing at all, revokes nothing; who manages the vault may.
    let member = stack.human(&stack.org_id, "member").await.client;
    let path = format!("/v1/share/{id}");
    nobody.delete(&path).await.refused(401);
    member.delete(&path).await.refused(403);
    open(&nobody, id).await.expect(200);
    let admin = stack.human(&stack.org_id, "admin").await.client.at(&stack.daemons[1].url);
    assert_eq!(admin.delete(&path).await.expect(204), Value::Null);
    open(&nobody, id).await.refused(404);
    owner.delete(&path).await.refused(404);
    assert!(listed(owner, "outbound").await.is_empty());

    let mail = json!({"recipient_type": "external_email", "email": "Friend@Example.com", "expires_at": in_days(1), "max_access_count": 0});
    let made = ask(owner, &secret, &mail).await.expect(201);
    assert_eq!((&made["recipient_email"], &made["max_access_count"]), (&json!("friend@example.com"), &json!(0)));
    assert_eq!(open(&nobody, made["id"].as_str().unwrap()).await.expect(200)["max_access_count"], 0);
    let letters = || stack.letters("friend@example.com", "A secret is lent to you");
    until(Duration::from_secs(20), "the letter", async || letters().len() == 1).await;
    let letter = letters().remove(0);
    assert!(letter.contains(&format!("/v1/share/{}", made["id"].as_str().unwrap())), "{letter}");
    assert_eq!(listed(owner, "outbound").await[0]["recipient_email"], "friend@example.com");
}

#[tokio::test]
async fn what_is_no_share_is_refused_or_not_there() {
    let stack = daemons(1).await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None));
    let vault = vault(owner).await;
    let secret = store(owner, &vault, "a", json!({"value": "v"})).await;
    for body in [
        json!({}),
        link(json!({"expires_at": null})),
        link(json!({"expires_at": in_days(-1)})),
        link(json!({"expires_at": in_days(367)})),
        link(json!({"recipient_type": "everybody"})),
        link(json!({"recipient_type": "user"})),
        link(json!({"recipient_type": "user", "recipient_id": uuid::Uuid::new_v4()})),
        link(json!({"recipient_type": "agent", "recipient_id": "x"})),
        link(json!({"recipient_type": "creator"})),
        link(json!({"recipient_type": "external_email", "email": "a@b\r\nBcc: c@d"})),
        link(json!({"recipient_id": uuid::Uuid::new_v4()})),
        link(json!({"permissions": ["read", "write"]})),
        link(json!({"max_access_count": -1})),
        link(json!({"passphrase": ""})),
        link(json!({"passphrase": ["p"]})),
        link(json!({"ip_allowlist": ["*"]})),
    ] {
        assert!(!ask(owner, &secret, &body).await.refused(400).is_empty(), "{body}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM shares").await, 0);
    assert_eq!(stack.count("SELECT count(*) FROM throttles").await, 0, "what is refused counts against no limit");

    // Nobody's ids, and another organisation's, are not there.
    let other_org = stack.organisation("Other").await;
    let other = stack.human(&other_org, "owner").await.client;
    let theirs = stack.human(&other_org, "member").await;
    let id = share(&stack, owner, &secret, &link(json!({}))).await;
    ask(&other, &secret, &link(json!({}))).await.refused(404);
    ask(owner, &uuid::Uuid::new_v4().to_string(), &link(json!({}))).await.refused(404);
    ask(owner, &secret, &link(json!({"recipient_type": "user", "recipient_id": theirs.id}))).await.refused(400);
    other.delete(&format!("/v1/share/{id}")).await.refused(404);
    let hostile =
        ["x", "%00", "..%2f..%2fv1", "'; DROP TABLE shares;--", &"9".repeat(4_000), &format!("{id}x"), &secret];
    for id in hostile {
        open(&nobody, id).await.refused(404);
        owner.delete(&format!("/v1/share/{id}")).await.refused(404);
        owner.post(&format!("/v1/shares/{id}/accept"), &json!({})).await.refused(404);
        let made = ask(owner, id, &link(json!({}))).await;
        assert_eq!(made.status, if id == secret { 201 } else { 404 }, "{id}");
    }
    open(&nobody, &id).await.expect(200);

    // Ended by time: the clock of the database decides.
    stack.sql("UPDATE shares SET expires_at = now()").await;
    open(&nobody, &id).await.refused(410);
    assert_eq!(listed(owner, "outbound").await.iter().filter(|share| share["is_expired"] == true).count(), 2);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let stack = daemons(1).await;
    let owner = &stack.owner;
    let secret = store(owner, &vault(owner).await, "a", json!({"value": "v"})).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(share(&stack, owner, &secret, &link(json!({}))).await);
    }
    made.reverse();
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = owner.get(&format!("/v1/shares/outbound{query}")).await.expect(200);
        let ids: Vec<String> =
            page["shares"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
        assert!(ids.len() <= 2);
        seen.extend(ids);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made, "newest first, each once");
    for query in ["?limit=0", "?limit=201", "?limit=x", "?cursor=x", "?cursor=AAAA"] {
        owner.get(&format!("/v1/shares/outbound{query}")).await.refused(400);
        owner.get(&format!("/v1/shares/inbound{query}")).await.refused(400);
    }
}

/// What is known of a share's id outside of the replies that give it out: whoever has it may open the share.
#[tokio::test]
async fn threat_23_neither_a_links_id_nor_its_passphrase_is_in_a_log_line_or_an_audit_row() {
    let mut stack = daemons(0).await;
    stack.options.env.push(("INTENTD_LOG".to_owned(), "debug,tower_http=trace".to_owned()));
    stack.add_daemon("chatty").await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None));
    let secret = store(owner, &vault(owner).await, "a", json!({"value": "the-shared-value"})).await;
    let id =
        share(&stack, owner, &secret, &link(json!({"passphrase": "correct horse", "ip_allowlist": ["127.0.0.1"]})))
            .await;
    open(&nobody, &id).await.refused(403);
    open_with(&nobody, &id, &json!({"passphrase": "battery staple"})).await.refused(403);
    open_with(&nobody, &id, &json!({"passphrase": {"in": "a strange place"}})).await.refused(400);
    open_with(&nobody, &id, &json!({"passphrase": "correct horse"})).await.expect(200);
    stack.sql("UPDATE shares SET ip_allowlist = '{10.0.0.0/8}'").await;
    open(&nobody, &id).await.refused(403);
    owner.delete(&format!("/v1/share/{id}")).await.expect(204);

    let audit: String = sqlx::query_scalar("SELECT string_agg(audit_events::text, ' ') FROM audit_events")
        .fetch_one(&stack.db)
        .await
        .unwrap();
    let log = stack.daemons[0].log_text();
    assert!(log.contains("/v1/share/{share_id}") && audit.contains("share.create") && audit.contains("share.revoke"));
    for secret in [id.as_str(), "correct horse", "battery staple", "a strange place", "the-shared-value"] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!audit.contains(secret), "{secret} is in the audit trail");
    }
    let events = owner.get("/v1/audit/events?limit=1000").await.expect(200);
    let of = |action: &str| {
        events["events"].as_array().unwrap().iter().filter(|e| e["action"] == action).cloned().collect::<Vec<_>>()
    };
    let (reads, refusals) = (of("secret.read"), of("access.denied"));
    assert_eq!((reads.len(), refusals.len()), (1, 3));
    assert_eq!(
        (&reads[0]["actor_type"], &reads[0]["resource_id"], &reads[0]["ip_address"]),
        (&json!("anonymous"), &json!(secret), &json!("127.0.0.1"))
    );
    assert_eq!(reads[0]["details"]["share"], of("share.create")[0]["resource_id"]);
}
