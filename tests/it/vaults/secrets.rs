use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::Stack;

pub async fn vault(stack: &Stack) -> String {
    let name = format!("vault-{}", uuid::Uuid::new_v4());
    let vault = stack.owner.post("/v1/vaults", &json!({"name": name})).await.expect(201);
    vault["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn vaults_have_unique_names_and_an_end() {
    let stack = Stack::start().await;
    let made =
        stack.owner.post("/v1/vaults", &json!({"name": "one", "description": "d", "unknown": 1})).await.expect(201);
    assert_eq!(made["created_by_type"], "user");
    assert!(made.get("org_id").is_none() && made.get("updated_at").is_none(), "strict decoders: {made}");
    stack.owner.post("/v1/vaults", &json!({"name": "one"})).await.refused(409);
    for name in [json!(""), json!("x".repeat(256)), json!("a\0b"), json!(null)] {
        stack.owner.post("/v1/vaults", &json!({ "name": name })).await.refused(400);
    }
    let path = format!("/v1/vaults/{}", made["id"].as_str().unwrap());
    assert_eq!(stack.owner.get(&path).await.expect(200), made);
    stack.owner.delete(&path).await.expect(204);
    stack.owner.get(&path).await.refused(404);
    stack.owner.delete(&path).await.refused(404);
    stack.owner.get("/v1/vaults/not-an-id").await.refused(404);
    stack.owner.post("/v1/vaults", &json!({"name": "one"})).await.expect(201);
}

#[tokio::test]
async fn a_secret_lives_in_versions_under_one_id() {
    let stack = Stack::start().await;
    let base = format!("/v1/vaults/{}/secrets", vault(&stack).await);
    let path = format!("{base}/api/stripe");
    stack.owner.get(&path).await.refused(404);
    let body =
        json!({"value": "v1", "metadata": {"a": [1]}, "expires_at": null, "rotation_policy": null, "description": "x"});
    let first = stack.owner.put(&path, &body).await.expect(201);
    assert_eq!(
        (&first["version"], &first["type"], &first["path"]),
        (&json!(1), &json!("generic"), &json!("api/stripe"))
    );
    assert!(first.get("value").is_none());
    let second = stack.owner.put(&path, &json!({"value": "v2", "type": "api_key"})).await.expect(201);
    assert_eq!((&second["version"], &second["id"], &second["metadata"]), (&json!(2), &first["id"], &json!({})));

    // Clients send the header with no body, and a body with GET.
    let request =
        stack.owner.request(Method::GET, &path).header("Content-Type", "application/json").body("{\"passphrase\":1}");
    let read = Client::send(request).await.expect(200);
    assert_eq!((&read["value"], &read["version"], &read["type"]), (&json!("v2"), &json!(2), &json!("api_key")));
    assert!(read["created_by"].as_str().unwrap().starts_with("user:"));

    stack.owner.put(&format!("{base}/api/other"), &json!({"value": ""})).await.expect(201);
    stack.owner.put(&format!("{base}/db/x"), &json!({"value": "x"})).await.expect(201);
    let paths = async |query: &str| {
        let body = stack.owner.get(&format!("{base}{query}")).await.expect(200);
        assert!(!body.to_string().contains("\"value\""));
        body["secrets"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("").await, ["api/other", "api/stripe", "db/x"]);
    assert_eq!(paths("?prefix=api/").await, ["api/other", "api/stripe"]);
    assert_eq!(paths("?prefix=api%2Fs").await, ["api/stripe"]);
    assert_eq!(paths("?prefix=_").await, Vec::<String>::new());

    assert_eq!(stack.owner.delete(&path).await.expect(204), Value::Null);
    stack.owner.get(&path).await.refused(410);
    stack.owner.delete(&path).await.refused(410);
    stack.owner.delete(&format!("{base}/never")).await.refused(404);
    assert_eq!(paths("?prefix=api").await, ["api/other"]);
    let third = stack.owner.put(&path, &json!({"value": "v3"})).await.expect(201);
    assert_eq!((&third["version"], &third["id"]), (&json!(3), &first["id"]));
    assert_eq!(stack.owner.get(&path).await.expect(200)["value"], "v3");
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused() {
    let stack = Stack::start().await;
    let path = format!("/v1/vaults/{}/secrets/a", vault(&stack).await);
    for body in [
        json!({}),
        json!({"value": null}),
        json!({"value": 1}),
        json!({"value": "v", "type": "admin"}),
        json!({"value": "v", "metadata": []}),
        json!({"value": "v", "metadata": {"a": "\0"}}),
        json!({"value": "v", "max_access_count": -1}),
        json!({"value": "v", "max_access_count": 3_000_000_000_i64}),
        json!({"value": "v", "expires_at": "soon"}),
    ] {
        let detail = stack.owner.put(&path, &body).await.refused(400);
        assert!(!detail.is_empty(), "{body}");
    }
    stack.owner.get(&path).await.refused(404);
    // Values are bytes to us: any text comes back as it was.
    for value in ["", "\0", "é\n\u{1F600}", &"x".repeat(1_000_000)] {
        stack.owner.put(&path, &json!({ "value": value })).await.expect(201);
        assert_eq!(stack.owner.get(&path).await.expect(200)["value"], *value);
    }
}

#[tokio::test]
async fn an_access_count_is_exact_and_an_expiry_is_kept() {
    let stack = Stack::start().await;
    let base = format!("/v1/vaults/{}/secrets", vault(&stack).await);
    let path = format!("{base}/counted");
    stack.owner.put(&path, &json!({"value": "v", "max_access_count": 5})).await.expect(201);
    stack.owner.get(&base).await.expect(200);
    let replies = join_all((0..20).map(|_| stack.owner.get(&path))).await;
    let with = |status: u16| replies.iter().filter(|r| r.status.as_u16() == status).count();
    assert_eq!((with(200), with(410)), (5, 15));
    stack.owner.put(&path, &json!({"value": "w", "max_access_count": 0})).await.expect(201);
    for _ in 0..6 {
        stack.owner.get(&path).await.expect(200);
    }
    stack.owner.put(&path, &json!({"value": "w", "expires_at": "2020-01-01T00:00:00Z"})).await.expect(201);
    stack.owner.get(&path).await.refused(410);
}

#[tokio::test]
async fn versions_stored_at_once_are_all_kept_in_order() {
    let stack = Stack::start().await;
    let path = format!("/v1/vaults/{}/secrets/hot", vault(&stack).await);
    let bodies: Vec<Value> = (0..8).map(|n| json!({"value": format!("v{n}")})).collect();
    // Each client stores one after the other, so the same ones are late again and again.
    let clients = bodies.iter().map(async |body| {
        let mut versions = Vec::new();
        for _ in 0..6 {
            versions.push(stack.owner.put(&path, body).await.expect(201)["version"].as_i64().unwrap());
        }
        versions
    });
    let mut versions = join_all(clients).await.concat();
    versions.sort_unstable();
    assert_eq!(versions, (1..=48).collect::<Vec<_>>());
    stack.owner.get(&path).await.expect(200);
}

#[tokio::test]
async fn a_sealed_row_opens_only_in_its_own_place() {
    let stack = Stack::start().await;
    let base = format!("/v1/vaults/{}/secrets", vault(&stack).await);
    for name in ["a", "b"] {
        stack.owner.put(&format!("{base}/{name}"), &json!({"value": format!("value of {name}")})).await.expect(201);
    }
    stack
        .sql(
            "UPDATE secret_versions v SET kek_id = o.kek_id, dek_iv = o.dek_iv, dek_sealed = o.dek_sealed, nonce = o.nonce,
                    ciphertext = o.ciphertext
             FROM secret_versions o JOIN secrets so ON so.id = o.secret_id, secrets s
             WHERE s.id = v.secret_id AND s.path = 'a' AND so.path = 'b'",
        )
        .await;
    let reply = stack.owner.get(&format!("{base}/a")).await;
    assert!(!reply.body.to_string().contains("value of"), "{}", reply.body);
    reply.refused(500);
    assert_eq!(stack.owner.get(&format!("{base}/b")).await.expect(200)["value"], "value of b");
}
