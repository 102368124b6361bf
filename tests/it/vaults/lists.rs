//! Vaults and what lists show of them.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::secrets::vault;
use super::{at, stack};
use crate::harness::client::Client;
use crate::harness::stack::fresh_scalar;

/// Every page of a list, with the number of pages.
async fn pages(client: &Client, url: &str, member: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut all, mut count, mut cursor) = (Vec::new(), 0, None::<String>);
    loop {
        let separator = if url.contains('?') { '&' } else { '?' };
        let behind = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let body = client.get(&format!("{url}{separator}limit={limit}{behind}")).await.expect(200);
        let page = body[member].as_array().unwrap();
        count += 1;
        assert!(page.len() <= limit, "{body}");
        all.extend(page.iter().cloned());
        match body.get("next_cursor") {
            Some(next) => cursor = Some(next.as_str().unwrap().to_owned()),
            None => return (all, count),
        }
    }
}

#[tokio::test]
async fn a_vault_has_one_name_one_owner_and_one_end() {
    let stack = stack(2, &[]).await;
    let others = stack.owner.at(&stack.daemons[1].url);
    // Of many at once, one is made.
    let body = json!({"name": "contested", "description": "d"});
    let replies =
        join_all((0..12).map(|n| (if n % 2 == 0 { &stack.owner } else { &others }).post("/v1/vaults", &body))).await;
    let made: Vec<&Value> = replies.iter().filter(|reply| reply.status == 201).map(|reply| &reply.body).collect();
    assert_eq!(made.len(), 1);
    assert!(replies.iter().all(|reply| [201, 409].contains(&reply.status.as_u16())));
    let fields: Vec<&String> = made[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["created_at", "created_by", "created_by_type", "description", "id", "name"]);

    for name in ["__agent-keys", "__", "__x", " __x"] {
        let detail = stack.owner.post("/v1/vaults", &json!({ "name": name })).await.refused(400);
        assert!(detail.contains("reserved"), "{detail}");
    }
    stack.owner.post("/v1/vaults", &json!({"name": "_x__"})).await.expect(201);

    // Its end: nothing in it is read any more, its key signs nothing, its name is free.
    let id = made[0]["id"].as_str().unwrap();
    stack.owner.put(&at(id, "secrets", "a"), &json!({"value": "v"})).await.expect(201);
    stack.owner.put(&at(id, "secrets", "b"), &json!({"value": "v"})).await.expect(201);
    stack.owner.delete(&at(id, "secrets", "b")).await.expect(204);
    let key = json!({"value": fresh_scalar(), "type": "private_key"});
    stack.owner.put(&at(id, "secrets", "keys/base-signer"), &key).await.expect(201);
    assert_eq!(stack.owner.delete(&format!("/v1/vaults/{id}")).await.expect(204), Value::Null);
    for (path, route) in [("a", "secrets"), ("a/1", "secret-version"), ("a", "secret-versions")] {
        others.get(&at(id, route, path)).await.refused(404);
    }
    others.put(&at(id, "secrets", "a"), &json!({"value": "v"})).await.refused(404);
    for (path, route) in [("b", "secret-restore"), ("a", "secret-rotate"), ("a/1", "secret-version-disable")] {
        others.post(&at(id, route, path), &json!({})).await.refused(404);
    }
    let ended = "SELECT count(*) FROM signing_keys WHERE state = 'superseded' AND superseded_at IS NOT NULL";
    assert_eq!(stack.count(ended).await, 1);
    let events = stack.owner.get("/v1/audit/events?action=vault.delete").await.expect(200);
    let details = &events["events"][0]["details"];
    assert_eq!((&details["unreadable_secrets"], &details["superseded_signing_keys"]), (&json!(2), &json!(1)));
    stack.owner.post("/v1/vaults", &body).await.expect(201);
}

#[tokio::test]
async fn lists_show_what_may_be_read_in_pages_that_end() {
    let stack = stack(1, &[]).await;
    let vault = vault(&stack).await;
    let base = format!("/v1/vaults/{vault}/secrets");
    // More than one batch of rows, in no order.
    let names: Vec<String> = (0..300).map(|n| format!("s{:03}/x-{}", (n * 7) % 300, n % 3)).collect();
    for chunk in names.chunks(50) {
        let puts = chunk.iter().map(async |name| {
            stack.owner.put(&at(&vault, "secrets", name), &json!({"value": "v"})).await.expect(201);
        });
        join_all(puts).await;
    }
    let expected: Vec<&String> = BTreeSet::from_iter(&names).into_iter().collect();
    let whole = stack.owner.get(&base).await.expect(200);
    let paths = |secrets: &[Value]| secrets.iter().map(|s| s["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert!(whole.get("next_cursor").is_none());
    assert_eq!(paths(whole["secrets"].as_array().unwrap()).iter().collect::<Vec<_>>(), expected);
    for limit in [1000, 300, 299, 100, 7] {
        let (all, count) = pages(&stack.owner, &base, "secrets", limit).await;
        assert_eq!(paths(&all).iter().collect::<Vec<_>>(), expected, "limit {limit}");
        assert_eq!(count, 300_usize.div_ceil(limit), "limit {limit}");
    }
    let (some, _) = pages(&stack.owner, &format!("{base}?prefix=s29"), "secrets", 4).await;
    assert_eq!(some.len(), 10);

    // An agent's pages have its own only, and the last of them is known to be the last.
    let made = stack.owner.post("/v1/agents", &json!({"name": "reader"})).await.expect(201);
    let agent = stack.owner.by(made["api_key"].as_str());
    let grant = json!({
        "secret_path_pattern": "*/x-1", "principal_type": "agent", "principal_id": made["agent"]["id"], "permissions": ["read"],
    });
    stack.owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);
    let (own, count) = pages(&agent, &base, "secrets", 50).await;
    assert!(own.len() == 100 && count == 2 && paths(&own).iter().all(|path| path.ends_with("/x-1")), "{count}");

    for wrong in
        ["limit=0", "limit=-1", "limit=x", "cursor=!", "cursor=Li4", "expiring_within=soon", "expiring_within=0"]
    {
        stack.owner.get(&format!("{base}?{wrong}")).await.refused(400);
    }
    // What ends within a time: neither what has ended nor what ends later.
    for (name, expires_at) in [
        ("ended", "2020-01-01T00:00:00Z".to_owned()),
        ("soon", rfc3339_in(3_600)),
        ("later", rfc3339_in(3 * 86_400)),
        ("never", rfc3339_in(400 * 86_400)),
    ] {
        let body = json!({"value": "v", "expires_at": expires_at});
        stack.owner.put(&at(&vault, "secrets", &format!("z/{name}")), &body).await.expect(201);
    }
    for (within, expected) in
        [("7200", vec!["z/soon"]), ("7d", vec!["z/later", "z/soon"]), ("2h", vec!["z/soon"]), ("60s", vec![])]
    {
        let body = stack.owner.get(&format!("{base}?expiring_within={within}")).await.expect(200);
        assert_eq!(paths(body["secrets"].as_array().unwrap()), expected, "{within}");
    }

    // Vaults too.
    for n in 0..5 {
        agent.post("/v1/vaults", &json!({"name": format!("agent's {n}")})).await.expect(201);
    }
    // The owner's have the vault of agents' keys among them.
    for (client, count, expected) in [(&stack.owner, 7, 4), (&agent, 6, 3)] {
        let whole = client.get("/v1/vaults").await.expect(200);
        assert!(whole.get("next_cursor").is_none());
        let (all, pages) = pages(client, "/v1/vaults", "vaults", 2).await;
        assert_eq!((json!(all), all.len(), pages), (whole["vaults"].clone(), count, expected));
    }
    stack.owner.get("/v1/vaults?cursor=abc").await.refused(400);
    stack.owner.get("/v1/vaults?limit=0").await.refused(400);
}

fn rfc3339_in(seconds: i64) -> String {
    intentd::clock::rfc3339(intentd::clock::now() + time::Duration::seconds(seconds))
}
