//! Rows changed, moved and exchanged beneath the daemon: what does not belong together does not open, and opens to nothing else.

use serde_json::{Value, json};

use super::secrets::vault;
use super::{at, stack};
use crate::access::tenants::other_owner;
use crate::harness::client::Client;
use crate::harness::stack::{Agent, Stack, pay};

/// The value is refused as not intact, and nothing that was ever stored is in the reply.
async fn assert_closed(client: &Client, url: &str, what: &str) {
    let reply = client.get(url).await;
    assert_eq!(reply.status, 500, "{what}: {}", reply.body);
    assert!(!format!("{:?} {}", reply.headers, reply.body).contains("plaintext"), "{what}: {}", reply.body);
}

#[tokio::test]
async fn no_changed_column_of_a_secret_opens() {
    let stack = stack(1, &[]).await;
    let (here, there) = (vault(&stack).await, vault(&stack).await);
    let put = async |vault: &str, path: &str, value: &str| {
        stack.owner.put(&at(vault, "secrets", path), &json!({ "value": value })).await.expect(201);
    };
    put(&here, "a", "plaintext a1").await;
    put(&here, "a", "plaintext a2").await;
    put(&here, "b", "plaintext b").await;
    put(&there, "c", "plaintext c").await;
    let (a, old) = (at(&here, "secrets", "a"), at(&here, "secret-version", "a/1"));
    assert_eq!(stack.owner.get(&old).await.expect(200)["value"], "plaintext a1");

    // Every byte of every sealed column, and one more or less.
    let this = "WHERE version = 2 AND secret_id = (SELECT id FROM secrets WHERE path = 'a')";
    for column in ["dek_iv", "dek_sealed", "nonce", "ciphertext"] {
        let length = stack.count(&format!("SELECT octet_length({column})::bigint FROM secret_versions {this}")).await;
        assert!(length >= 12);
        for n in 0..length {
            let flip = format!(
                "UPDATE secret_versions SET {column} = set_byte({column}, {n}, get_byte({column}, {n}) # {}) {this}",
                1 << (n % 8)
            );
            stack.sql(&flip).await;
            assert_closed(&stack.owner, &a, &format!("{column} {n}")).await;
            stack.sql(&flip).await;
        }
    }
    for column in ["dek_sealed", "ciphertext"] {
        let kept: Vec<u8> = bytes(&stack, &format!("SELECT {column} FROM secret_versions {this}")).await;
        for other in [format!("substr({column}, 2)"), format!("{column} || '\\x00'::bytea"), "''::bytea".to_owned()] {
            stack.sql(&format!("UPDATE secret_versions SET {column} = {other} {this}")).await;
            assert_closed(&stack.owner, &a, &other).await;
            stack
                .sql(&format!("UPDATE secret_versions SET {column} = '\\x{}'::bytea {this}", hex::encode(&kept)))
                .await;
        }
    }
    assert_eq!(stack.owner.get(&a).await.expect(200)["value"], "plaintext a2");

    // Under another key of the token, and as another type.
    stack.sql("CREATE TABLE kept AS SELECT * FROM secret_versions").await;
    let restore = "UPDATE secret_versions v SET kek_id = k.kek_id, dek_iv = k.dek_iv, dek_sealed = k.dek_sealed, nonce = k.nonce,
                       ciphertext = k.ciphertext, type = k.type FROM kept k WHERE k.secret_id = v.secret_id AND k.version = v.version";
    for purpose in ["mac", "seal", "jwt"] {
        stack
            .sql(&format!(
                "UPDATE secret_versions SET kek_id = (SELECT id FROM keks WHERE purpose = '{purpose}') {this}"
            ))
            .await;
        assert_closed(&stack.owner, &a, purpose).await;
    }
    stack.sql(restore).await;
    stack.sql(&format!("UPDATE secret_versions SET type = 'password' {this}")).await;
    assert_closed(&stack.owner, &a, "type").await;
    stack.sql(restore).await;

    // The body, or its key, or both, of the version before, of the neighbour, and of another vault.
    let other = |path: &str, version: i32| {
        format!(
            "FROM kept o JOIN secrets os ON os.id = o.secret_id WHERE os.path = '{path}' AND o.version = {version}
                 AND v.version = 2 AND v.secret_id = (SELECT id FROM secrets WHERE path = 'a')"
        )
    };
    for (path, version) in [("a", 1), ("b", 1), ("c", 1)] {
        for columns in [
            "kek_id = o.kek_id, dek_iv = o.dek_iv, dek_sealed = o.dek_sealed, nonce = o.nonce, ciphertext = o.ciphertext",
            "dek_iv = o.dek_iv, dek_sealed = o.dek_sealed",
            "nonce = o.nonce, ciphertext = o.ciphertext",
            "dek_iv = o.dek_iv",
            "nonce = o.nonce",
        ] {
            stack.sql(&format!("UPDATE secret_versions v SET {columns} {}", other(path, version))).await;
            assert_closed(&stack.owner, &a, &format!("{columns} of {path} {version}")).await;
            stack.sql(restore).await;
        }
    }

    // The whole secret elsewhere: another path, vault, version, organisation.
    let foreign = other_owner(&stack).await;
    let theirs = foreign.post("/v1/vaults", &json!({"name": "theirs"})).await.expect(201);
    let theirs = theirs["id"].as_str().unwrap();
    let moves = [
        ("path = 'z'".to_owned(), &stack.owner, at(&here, "secrets", "z"), "path = 'a'".to_owned()),
        (format!("vault_id = '{there}'"), &stack.owner, at(&there, "secrets", "a"), format!("vault_id = '{here}'")),
        ("version = 1".to_owned(), &stack.owner, a.clone(), "version = 2".to_owned()),
        (
            format!("vault_id = '{theirs}', org_id = (SELECT org_id FROM vaults WHERE id = '{theirs}')"),
            &foreign,
            at(theirs, "secrets", "a"),
            format!("vault_id = '{here}', org_id = '{}'", stack.org_id),
        ),
    ];
    let id = stack.owner.get("/v1/vaults").await.expect(200);
    assert!(id["vaults"].to_string().contains(&here));
    for (there, client, url, back) in moves {
        // A version is a number of its row too: there it is exchanged with the other one's.
        let exchange = "UPDATE secret_versions SET version = version + 10 WHERE secret_id = (SELECT id FROM secrets WHERE path = 'a');
                        UPDATE secret_versions SET version = 13 - version WHERE version > 10";
        let is_version = there.starts_with("version");
        let row = stack.owner.get(&a).await.expect(200)["id"].as_str().unwrap().to_owned();
        if is_version {
            stack.sql(exchange).await;
        }
        stack.sql(&format!("UPDATE secrets SET {there} WHERE id = '{row}'")).await;
        assert_closed(client, &url, &there).await;
        stack.sql(&format!("UPDATE secrets SET {back} WHERE id = '{row}'")).await;
        if is_version {
            stack.sql(exchange).await;
        }
        assert_eq!(stack.owner.get(&a).await.expect(200)["value"], "plaintext a2", "put back: {there}");
    }
    // The vault itself in another organisation, with all that is in it.
    stack
        .sql(&format!(
            "UPDATE secrets SET org_id = (SELECT org_id FROM vaults WHERE id = '{theirs}') WHERE vault_id = '{here}'"
        ))
        .await;
    stack
        .sql(&format!(
            "UPDATE vaults SET org_id = (SELECT org_id FROM vaults WHERE id = '{theirs}') WHERE id = '{here}'"
        ))
        .await;
    assert_closed(&foreign, &a, "the vault's organisation").await;
    assert_closed(&foreign, &old, "the vault's organisation, by number").await;
}

async fn bytes(stack: &Stack, sql: &str) -> Vec<u8> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&stack.db).await.unwrap()
}

/// A daemon that has none of the keys in its cache is shown keys whose rows were changed, one column each.
#[tokio::test]
async fn no_changed_column_of_a_signing_key_signs() {
    const CHANGES: [&str; 12] = [
        "address = set_byte(address, 0, get_byte(address, 0) # 1)",
        "public_key = set_byte(public_key, 40, get_byte(public_key, 40) # 1)",
        "public_key = (SELECT public_key FROM kept WHERE id <> k.id LIMIT 1), address = (SELECT address FROM kept WHERE id <> k.id LIMIT 1)",
        "blob = set_byte(blob, 0, get_byte(blob, 0) # 1)",
        "blob = set_byte(blob, octet_length(blob) - 1, get_byte(blob, octet_length(blob) - 1) # 128)",
        "blob = (SELECT blob FROM kept WHERE id <> k.id LIMIT 1)",
        "(blob, mac) = (SELECT blob, mac FROM kept WHERE id <> k.id LIMIT 1)",
        "(blob, mac, public_key, address) = (SELECT blob, mac, public_key, address FROM kept WHERE id <> k.id LIMIT 1)",
        "mac = set_byte(mac, 31, get_byte(mac, 31) # 1)",
        "mechanism = mechanism + 1",
        "kek_id = (SELECT id FROM keks WHERE purpose = 'data')",
        "mac_kek_id = (SELECT id FROM keks WHERE purpose = 'data')",
    ];
    let stack = Stack::start().await;
    let mut agents: Vec<Agent> = Vec::new();
    for _ in 0..=CHANGES.len() {
        agents.push(stack.agent(json!({})).await);
    }
    stack.sql("CREATE TABLE kept AS SELECT * FROM signing_keys").await;
    for (agent, change) in agents.iter().zip(CHANGES) {
        let address = hex::encode(agent.signer);
        stack.sql(&format!("UPDATE signing_keys k SET {change} WHERE address = '\\x{address}'")).await;
    }
    let fresh = stack.start_daemon("fresh").await;
    for (agent, change) in agents.iter().zip(CHANGES) {
        let reply = agent.at(&fresh.url).sign(pay("0.001")).await;
        assert_eq!(reply.status, 500, "{change}: {}", reply.body);
        assert!(reply.body.get("signed_tx").is_none_or(Value::is_null), "{change}");
    }
    let whole = agents.last().unwrap();
    assert_eq!(whole.at(&fresh.url).sign(pay("0.001")).await.expect(200)["from"], whole.signer.to_string());
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 1);
    // Where it stands is under the MAC too.
    stack.sql("UPDATE signing_keys k SET version = o.version + 1 FROM kept o WHERE o.id = k.id").await;
    let other = stack.start_daemon("other").await;
    assert_eq!(whole.at(&other.url).sign(pay("0.001")).await.status, 500);
}
