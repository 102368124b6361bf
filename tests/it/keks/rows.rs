//! Which rows a rotation knows, and what it does with those that do not open.

use std::collections::BTreeSet;

use intentd::keks::sealed::TABLES;
use serde_json::json;

use super::{SOON, admin, admin_fails, all_open, begin, filled, kek, quick, reaches, state_of, uses};
use crate::harness::anvil::{Anvil, AnvilOptions};
use crate::harness::receiver::Receiver;
use crate::harness::stack::{Stack, text, until};
use crate::orgs::platform_admin;
use crate::users::{PASSWORD, app_code, log_in, nobody, second_factor, sign_up};

/// Every column that references `keks`, as Postgres knows them.
async fn references(stack: &Stack) -> BTreeSet<(String, String)> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.conrelid::regclass::text, a.attname::text FROM pg_constraint c
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)
         WHERE c.contype = 'f' AND c.confrelid = 'keks'::regclass AND c.conparentid = 0",
    )
    .fetch_all(&stack.db)
    .await
    .unwrap();
    columns.into_iter().collect()
}

#[tokio::test]
async fn every_column_that_names_a_key_of_the_token_is_known_to_the_rotation_and_guarded() {
    let anvil = Anvil::with(&AnvilOptions { chain_id: 777_002, ..AnvilOptions::default() });
    let mut stack = Stack::with(quick(
        0,
        vec![],
        &[("INTENTD_SIGNUP_ENABLED", "true"), ("INTENTD_OUTBOUND_ALLOW_PRIVATE", "127.0.0.0/8")],
    ))
    .await;
    stack.add_daemon("first").await;
    let columns = references(&stack).await;
    let by_itself = [("secret_versions", "kek_id"), ("signing_keys", "kek_id"), ("signing_keys", "mac_kek_id")];
    let listed = TABLES.iter().map(|table| (table.table.to_owned(), format!("{}kek_id", table.prefix)));
    let known: BTreeSet<_> =
        by_itself.map(|(table, column)| (table.to_owned(), column.to_owned())).into_iter().chain(listed).collect();
    assert_eq!(columns, known, "a table names keys of the token, and `keks` does not know it (or it is gone)");

    // A row in each: secrets and keys, a chain's URL, a webhook's secret, a second factor, a letter that waits.
    let vault = filled(&stack, 3, 2).await;
    platform_admin(&stack);
    let chain = json!({
        "name": "added", "display_name": "Added", "chain_id": anvil.chain_id, "kind": "ethereum", "spend_group": "eth-added",
        "native_currency": "ADD", "is_testnet": true, "max_fee_per_gas_ceiling_wei": "500000000000", "max_gas_limit": 16_777_216,
        "confirmations": 1, "sign_only_ttl_s": 900, "block_time_ms": 500, "rpc_url": anvil.url(),
    });
    stack.owner.post("/v1/admin/chains", &chain).await.expect(201);
    let made = stack.owner.post("/v1/agents", &json!({"name": "a", "intents_api_enabled": true})).await.expect(201);
    let keys = format!("/v1/agents/{}/signing-keys", text(&made["agent"], "id"));
    stack.owner.post(&keys, &json!({"chain": "ethereum"})).await.expect(201);
    let receiver = Receiver::start().await;
    let hook = json!({"url": receiver.url, "events": ["webhook.*"]});
    let hook = text(&stack.owner.post("/v1/webhooks", &hook).await.expect(201), "id");
    let ada = sign_up(&stack, "ada@example.com").await;
    let (secret, _) = second_factor(&stack, &ada).await;
    until(SOON, "letters are out", async || stack.count("SELECT count(*) FROM mail_outbox").await == 0).await;
    let (outbox, aside) = (stack.install.root.join("mail"), stack.install.root.join("mail-aside"));
    std::fs::rename(&outbox, &aside).unwrap();
    std::fs::write(&outbox, "no folder").unwrap();
    let bob = json!({"email": "bob@example.com", "password": PASSWORD});
    nobody(&stack).post("/v1/auth/signup", &bob).await.expect(200);
    until(SOON, "a letter waits", async || stack.count("SELECT count(*) FROM mail_outbox").await == 1).await;
    for (table, column) in &columns {
        assert!(stack.count(&format!("SELECT count({column}) FROM {table}")).await > 0, "no row of {table}.{column}");
    }

    let mut retired = Vec::new();
    for purpose in ["data", "seal", "mac"] {
        let old = begin(&stack, purpose).await;
        reaches(&stack, &old, "retired").await;
        retired.push((purpose, old));
    }
    // Whoever believes that a retired key is in use is refused, in every table, and told to try again.
    for (table, column) in &columns {
        for (_, old) in &retired {
            let sql = format!("UPDATE {table} SET {column} = '{old}' WHERE {column} IS NOT NULL");
            let refused = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&stack.db).await.unwrap_err();
            let code = refused.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
            assert_eq!(code.as_deref(), Some("40001"), "{table}.{column}: {refused}");
        }
    }
    // A new process opens all of it.
    stack.daemons.remove(0).kill();
    std::fs::remove_file(&outbox).unwrap();
    std::fs::rename(&aside, &outbox).unwrap();
    stack.sql("UPDATE mail_outbox SET due_at = now()").await;
    stack.add_daemon("second").await;
    until(SOON, "the letter has come", async || !stack.letters("bob@example.com", "Confirm").is_empty()).await;
    let challenge = log_in(&nobody(&stack), "ada@example.com", PASSWORD).await.expect(200);
    let answer = json!({"mfa_token": challenge["mfa_token"], "code": app_code(&secret, 0)});
    nobody(&stack).post("/v1/auth/mfa/verify", &answer).await.expect(200);
    let balance = stack.owner.get(&format!("{keys}/added/balance")).await.expect(200);
    assert_eq!(balance["balance_wei"], "0");
    let told = receiver.got().len();
    stack.owner.post(&format!("/v1/webhooks/{hook}/test"), &json!({})).await.expect(202);
    until(SOON, "the webhook's secret opens", async || receiver.got().len() > told).await;
    all_open(&stack, &stack.owner, &vault, 3).await;
}

#[tokio::test]
async fn a_row_that_does_not_open_is_named_and_keeps_its_key_and_no_other_row_waits_for_it() {
    let stack = Stack::with(quick(1, vec![], &[])).await;
    let vault = filled(&stack, 8, 8).await;
    let flip = |table: &str, column: &str, id: &str, which: &str| {
        format!(
            "UPDATE {table} SET {column} = set_byte({column}, 5, get_byte({column}, 5) # 1) WHERE {id}::text = '{which}'"
        )
    };
    // One that was tampered with, and one whose columns contradict each other: its address is another key's.
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id::text FROM signing_keys ORDER BY id").fetch_all(&stack.db).await.unwrap();
    let secrets: Vec<String> =
        sqlx::query_scalar("SELECT secret_id::text FROM secret_versions WHERE kek_id IS NOT NULL ORDER BY secret_id")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    for (purpose, damage, named) in [
        (
            "seal",
            vec![flip("signing_keys", "blob", "id", &ids[1]), flip("signing_keys", "address", "id", &ids[3])],
            [&ids[1], &ids[3]],
        ),
        (
            "mac",
            vec![flip("signing_keys", "mac", "id", &ids[0]), flip("signing_keys", "address", "id", &ids[2])],
            [&ids[0], &ids[2]],
        ),
        (
            "data",
            [0, 4].map(|n| flip("secret_versions", "dek_sealed", "secret_id", &secrets[n])).to_vec(),
            [&secrets[0], &secrets[4]],
        ),
    ] {
        for sql in &damage {
            stack.sql(sql).await;
        }
        let said = admin_fails(&stack, &["check", "--sample", "1000"]);
        assert!(said.contains("2 of 8 do not open") && named.iter().all(|id| said.contains(id.as_str())), "{said}");
        let old = begin(&stack, purpose).await;
        let stuck = format!("SELECT stuck_rows FROM keks WHERE id = '{old}'");
        until(SOON, "both are found", async || stack.count(&stuck).await == 2).await;
        until(SOON, "the others are done", async || uses(&stack, &old).await == 2).await;
        let said = admin(&stack, &["hsm", "keks"]);
        let line = said.lines().find(|line| line.contains("WRONG")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("2 rows") && named.iter().any(|id| line.contains(id.as_str())), "{said}");
        assert_eq!(state_of(&stack, &old).await, "retiring");
        let refused = admin_fails(&stack, &["hsm", "destroy-kek", &old, "--confirm", &old]);
        assert!(refused.contains("only a retired key"), "{refused}");
        let underway = admin_fails(&stack, &["hsm", "rotate", purpose]);
        assert!(underway.contains("is being rotated already"), "{underway}");
        // Mended, as from a backup: the rotation ends by itself.
        for sql in &damage {
            stack.sql(sql).await;
        }
        reaches(&stack, &old, "retired").await;
        assert!(kek(&stack, purpose, "retiring").await.is_none());
        all_open(&stack, &stack.owner, &vault, 8).await;
    }
}
