use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::anvil::{Anvil, AnvilOptions};
use crate::harness::client::Client;
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, TO, fresh_scalar, until};
use crate::orgs::{last_event, platform_admin};

const SOON: Duration = Duration::from_secs(20);
const CHAINS: &str = "/v1/admin/chains";
/// What a provider's URL carries.
const ACCESS_KEY: &str = "hush-hush-access-key";

/// The nodes of these tests are on this machine.
fn loopback() -> Vec<(String, String)> {
    vec![("INTENTD_OUTBOUND_ALLOW_PRIVATE".to_owned(), "127.0.0.0/8".to_owned())]
}

fn definition(anvil: &Anvil) -> Value {
    json!({
        "name": "added", "display_name": "Added", "chain_id": anvil.chain_id, "kind": "ethereum", "spend_group": "eth-added",
        "native_currency": "ADD", "is_testnet": true, "max_fee_per_gas_ceiling_wei": "500000000000", "max_gas_limit": 16_777_216,
        "confirmations": 1, "sign_only_ttl_s": 900, "block_time_ms": 500, "ws_url": "ws://ignored.example",
        "explorer_url": "https://explorer.example", "rpc_url": format!("{}/?key={ACCESS_KEY}", anvil.url()),
    })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).await.status.as_u16()
}

fn pay(chain: &str) -> Value {
    json!({"to": TO, "value": "0.001", "chain": chain})
}

/// An agent with a key on `base` and on the chain that is added.
async fn agent_on_added(stack: &Stack, anvil: &Anvil) -> Agent {
    let scalar = fresh_scalar();
    let agent = stack.agent_with_key(json!({}), &scalar).await;
    let vaults = stack.owner.get("/v1/vaults").await.expect(200);
    let vault = vaults["vaults"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let secret = json!({"value": scalar, "type": "private_key"});
    stack.owner.put(&format!("/v1/vaults/{vault}/secrets/keys/added-signer"), &secret).await.expect(201);
    anvil.set_balance(agent.signer, "1000000000000000000000".parse().unwrap()).await;
    agent
}

#[tokio::test]
async fn a_chain_is_added_used_disabled_and_withdrawn_while_daemons_run() {
    let stack = Stack::with(Options { daemons: 2, env: loopback(), ..Options::default() }).await;
    let anvil = Anvil::with(&AnvilOptions { chain_id: 777_001, ..AnvilOptions::default() });
    let agent = agent_on_added(&stack, &anvil).await;
    let (here, there) = (agent.clone(), agent.at(&stack.daemons[1].url));
    // 21: only platform admins, whom no role makes.
    for nobody in [&stack.owner, &agent.client] {
        nobody.get(CHAINS).await.refused(403);
        nobody.post(CHAINS, &definition(&anvil)).await.refused(403);
        nobody.put(&format!("{CHAINS}/8453"), &json!({"is_enabled": false})).await.refused(403);
        nobody.delete(&format!("{CHAINS}/8453")).await.refused(403);
    }
    platform_admin(&stack);

    // Everything that keeps its users safe must be there and make sense.
    let needed = [
        "name",
        "display_name",
        "chain_id",
        "kind",
        "spend_group",
        "native_currency",
        "is_testnet",
        "max_fee_per_gas_ceiling_wei",
        "max_gas_limit",
        "confirmations",
        "sign_only_ttl_s",
        "block_time_ms",
    ];
    for field in needed {
        let detail = stack.owner.post(CHAINS, &with(definition(&anvil), json!({ field: null }))).await.refused(400);
        assert!(detail.starts_with(field), "{detail}");
    }
    for wrong in [
        json!({"chain_id": 0}),
        json!({"chain_id": u64::MAX}),
        json!({"name": "No Name"}),
        json!({"kind": "bitcoin"}),
        json!({"max_fee_per_gas_ceiling_wei": "-1"}),
        json!({"max_fee_per_gas_ceiling_wei": "1e9"}),
        json!({"max_fee_per_gas_ceiling_wei": 0}),
        json!({"confirmations": 0}),
        json!({"explorer_url": "javascript:alert(1)"}),
        json!({"rpc_url": "ftp://127.0.0.1"}),
        json!({"rpc_url": "http://169.254.169.254/latest"}),
        json!({"rpc_url": "http://[::ffff:169.254.169.254]/"}),
        json!({"rpc_url": "http://2852039166/"}),
    ] {
        let reply = stack.owner.post(CHAINS, &with(definition(&anvil), wrong.clone())).await;
        assert_eq!(reply.status.as_u16(), 400, "{wrong}: {}", reply.body);
    }
    // 11: its node is asked before anything is stored.
    let others = stack.anvil("base").url();
    // 22: and the reply does not tell what is there instead.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let mut details = Vec::new();
    for url in [&others, "http://127.0.0.1:1/", &format!("{}/v1/health", stack.owner.base), &silent] {
        let elsewhere = with(definition(&anvil), json!({"rpc_url": url}));
        details.push(stack.owner.post(CHAINS, &elsewhere).await.refused(422));
    }
    details.dedup();
    assert!(details.len() == 1 && details[0].contains("777001"), "{details:?}");
    for taken in [json!({"name": "base"}), json!({"chain_id": 8453})] {
        stack.owner.post(CHAINS, &with(definition(&anvil), taken)).await.refused(409);
    }
    assert_eq!(stack.count("SELECT count(*) FROM chains").await, 0);

    let made = stack.owner.post(CHAINS, &definition(&anvil)).await.expect(201);
    assert_eq!(
        (&made["source"], &made["has_rpc_url"], &made["is_enabled"]),
        (&json!("database"), &json!(true), &json!(true))
    );
    stack.owner.post(CHAINS, &definition(&anvil)).await.refused(409);
    until(SOON, "the other daemon knows it", async || status(&there.client, "/v1/chains/added").await == 200).await;
    let public = there.client.get("/v1/chains/777001").await.expect(200);
    assert_eq!((&public["name"], &public["explorer_url"]), (&json!("added"), &json!("https://explorer.example/")));
    let sent = there.submit(pay("added")).await.expect(201);
    assert_eq!(there.settled(sent["id"].as_str().unwrap()).await["receipt_status"], "success");

    // What is under way when it is disabled is followed to its end; nothing new is signed from the moment it is answered, anywhere.
    anvil.request("evm_setAutomine", json!([false])).await;
    let under_way = here.submit(pay("added")).await.expect(201);
    let chain = format!("{CHAINS}/{}", made["id"].as_str().unwrap());
    assert_eq!(stack.owner.put(&chain, &json!({"is_enabled": false})).await.expect(200)["is_enabled"], false);
    assert_eq!(last_event(&stack, "chain.update").await["after"]["is_enabled"], false);
    for agent in [&there, &here] {
        let detail = agent.submit(pay("added")).await.refused(403);
        assert!(detail.contains("disabled"), "{detail}");
        agent.sign(pay("added")).await.refused(403);
    }
    anvil.request("evm_setAutomine", json!([true])).await;
    anvil.mine(1).await;
    assert_eq!(here.settled(under_way["id"].as_str().unwrap()).await["receipt_status"], "success");
    stack.owner.put(&chain, &json!({"is_enabled": true, "max_gas_limit": 21_000})).await.expect(200);
    until(SOON, "the other daemon signs for it again", async || there.submit(pay("added")).await.status == 201).await;

    // What makes it this chain stays; the rest may change.
    for fixed in
        [json!({"name": "other"}), json!({"chain_id": 5}), json!({"spend_group": "eth"}), json!({"kind": "op"})]
    {
        stack.owner.put(&chain, &fixed).await.refused(422);
    }
    stack.owner.put(&chain, &json!({"rpc_url": others})).await.refused(422);
    assert_eq!(
        stack.owner.put(&chain, &json!({"confirmations": 2, "name": "added"})).await.expect(200)["confirmations"],
        2
    );

    // Withdrawn: gone for everybody, its name and id kept for it, and what was signed is still followed.
    anvil.request("evm_setAutomine", json!([false])).await;
    let under_way = here.submit(pay("added")).await.expect(201);
    stack.owner.delete(&chain).await.expect(204);
    assert_eq!(status(&here.client, "/v1/chains/added").await, 404);
    until(SOON, "it is gone there too", async || status(&there.client, "/v1/chains/added").await == 404).await;
    here.submit(pay("added")).await.refused(400);
    stack.owner.delete(&chain).await.refused(404);
    anvil.request("evm_setAutomine", json!([true])).await;
    anvil.mine(3).await;
    here.settled(under_way["id"].as_str().unwrap()).await;
    let reused = with(definition(&anvil), json!({"chain_id": 777_002, "rpc_url": null}));
    stack.owner.post(CHAINS, &reused).await.refused(409);
    stack.owner.post(CHAINS, &with(definition(&anvil), json!({"spend_group": "eth"}))).await.refused(422);
    stack.owner.post(CHAINS, &definition(&anvil)).await.expect(201);
    here.submit(pay("added")).await.expect(201);

    // 23: the provider's key is nowhere: not in a reply, the trail, the log or the table.
    let mut seen = stack.owner.get(CHAINS).await.expect(200).to_string();
    seen += &stack.owner.get("/v1/audit/events?limit=1000").await.expect(200).to_string();
    seen += &here.client.get("/v1/chains").await.expect(200).to_string();
    for daemon in &stack.daemons {
        seen += &daemon.log_text();
    }
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT row_to_json(c)::text || encode(c.rpc_ciphertext, 'escape') FROM chains c")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    assert_eq!(rows.len(), 1);
    seen += &rows[0];
    assert!(!seen.contains("hush-hush") && !seen.contains("rpc_url\":\""));
}

#[tokio::test]
async fn chains_toml_wins_over_the_table_for_id_name_and_ceilings() {
    let stack = Stack::with(Options {
        daemons: 2,
        chains: vec![("base", 8453), ("polygon", 137)],
        // The further node of both, by the file: of none of them, if it is asked.
        chain_toml: "rpc_urls = [\"http://127.0.0.1:1/\"]",
        env: loopback(),
        ..Options::default()
    })
    .await;
    let agent = stack.agent(json!({})).await;
    let there = agent.at(&stack.daemons[1].url);
    platform_admin(&stack);
    let base = format!("{CHAINS}/base");
    for fixed in [
        json!({"name": "evil"}),
        json!({"chain_id": 1}),
        json!({"spend_group": "eth-test"}),
        json!({"max_fee_per_gas_ceiling_wei": "900000000000000"}),
        json!({"max_gas_limit": 100_000_000}),
        json!({"confirmations": 5}),
        json!({"sign_only_ttl_s": 1}),
    ] {
        let reply = stack.owner.put(&base, &fixed).await;
        assert_eq!(reply.status.as_u16(), 422, "{fixed}: {}", reply.body);
    }
    // A row written past the API raises nothing either.
    stack
        .sql(
            "INSERT INTO chains (chain_id, name, display_name, kind, spend_group, native_currency, is_testnet, max_fee_per_gas_ceiling_wei,
                                 max_gas_limit, confirmations, sign_only_ttl_s, block_time_ms, rpc_deadline_ms)
             VALUES (8453, 'base', 'Ours', 'op', 'other', 'X', true, 9000000000000000000, 90000000, 1, 1, 1, 1),
                    (10, 'polygon', 'Not', 'op', 'other', 'X', true, 1, 21000, 1, 1, 1, 1)",
        )
        .await;
    until(SOON, "the row is read", async || {
        there.client.get("/v1/chains/base").await.expect(200)["display_name"] == "Ours"
    })
    .await;
    let shown = stack.owner.at(&stack.daemons[1].url).get(CHAINS).await.expect(200);
    let base_shown =
        shown["chains"].as_array().unwrap().iter().find(|chain| chain["chain_id"] == 8453).unwrap().clone();
    assert_eq!(
        (&base_shown["spend_group"], &base_shown["max_fee_per_gas_ceiling_wei"], &base_shown["source"]),
        (&json!("eth"), &json!("500000000000"), &json!("file"))
    );
    assert_eq!(there.client.get("/v1/chains/polygon").await.expect(200)["chain_id"], 137, "the name is the file's");
    assert_eq!(status(&there.client, "/v1/chains/10").await, 404);
    stack.sql("DELETE FROM chains").await;

    // What is not the file's may be said, and switched.
    let polygon_url = stack.anvil("polygon").url();
    stack.owner.put(&base, &json!({"rpc_url": polygon_url})).await.refused(422);
    let body = json!({"display_name": "Ours", "explorer_url": "https://e.example/x", "rpc_url": stack.anvil("base").url(), "chain_id": 8453});
    let shown = stack.owner.put(&base, &body).await.expect(200);
    assert_eq!((&shown["display_name"], &shown["explorer_url"]), (&json!("Ours"), &json!("https://e.example/x")));
    assert_eq!(shown["rpc_url_count"], 1, "what is named takes the place of all the file's");
    agent.submit(pay("base")).await.expect(201);
    stack.owner.put(&base, &json!({"is_enabled": false})).await.expect(200);
    there.submit(pay("base")).await.refused(403);
    there.submit(json!({"to": TO, "value": "0.001", "chain": "polygon"})).await.expect(201);
    stack.owner.delete(&base).await.refused(409);
    there.submit(pay("base")).await.refused(403);
    let shown = stack.owner.put(&base, &json!({"is_enabled": true, "rpc_url": ""})).await.expect(200);
    assert_eq!(shown["rpc_url_count"], 2, "the file's again");
    until(SOON, "it signs again there", async || there.submit(pay("base")).await.status == 201).await;
    assert_eq!(status(&stack.owner, &format!("{CHAINS}/nothing")).await, 405, "chains are read from the list");
    stack.owner.put(&format!("{CHAINS}/nothing"), &json!({})).await.refused(404);
}

#[tokio::test]
async fn a_chain_of_the_api_has_several_nodes_and_each_is_held_to_the_rules_of_one() {
    let stack = Stack::with(Options { env: loopback(), ..Options::default() }).await;
    platform_admin(&stack);
    let anvil = Anvil::with(&AnvilOptions { chain_id: 777_004, ..AnvilOptions::default() });
    let (first, second) = (RpcProxy::start(&anvil.url()), RpcProxy::start(&anvil.url()));
    let agent = agent_on_added(&stack, &anvil).await;
    let node = with(definition(&anvil), json!({"rpc_url": format!("{}/?key={ACCESS_KEY}", first.url())}));
    let further = |urls: Value| with(node.clone(), json!({ "rpc_urls": urls }));
    for wrong in [
        json!([second.url(), "ftp://127.0.0.1"]),
        json!(["http://169.254.169.254/latest"]),
        json!([second.url(), "http://[::ffff:169.254.169.254]/"]),
        json!([second.url(), "http://10.0.0.1:8545"]),
        json!([""]),
        json!([5]),
        json!(second.url()),
        json!(vec![second.url(); 8]),
        json!([format!("{}/{}", second.url(), "x".repeat(2_048))]),
    ] {
        let reply = stack.owner.post(CHAINS, &further(wrong.clone())).await;
        assert_eq!(reply.status.as_u16(), 400, "{wrong}: {}", reply.body);
    }
    // Each of them is asked; the reply does not tell which it was.
    let elsewhere = stack.anvil("base").url();
    let mut details = Vec::new();
    for urls in [json!([elsewhere]), json!([second.url(), "http://127.0.0.1:1/"])] {
        details.push(stack.owner.post(CHAINS, &further(urls)).await.refused(422));
    }
    assert_eq!(details[0], details[1]);
    assert_eq!(stack.count("SELECT count(*) FROM chains").await, 0);

    let made = stack.owner.post(CHAINS, &further(json!([second.url()]))).await.expect(201);
    assert_eq!((&made["has_rpc_url"], made.get("rpc_urls")), (&json!(true), None));
    assert_eq!(
        (&made["rpc_url_count"], &last_event(&stack, "chain.create").await["rpc_url_count"]),
        (&json!(2), &json!(2))
    );
    let chain = format!("{CHAINS}/{}", made["id"].as_str().unwrap());
    agent.submit(pay("added")).await.expect(201);
    // The first goes away: the second is asked.
    first.on_everything(Act::DropRequest);
    let sent = async || agent.submit(pay("added")).await.status == 201;
    until(SOON, "the second node is asked", sent).await;
    // Who names nodes names all of them; who names none changes none.
    stack.owner.put(&chain, &json!({"confirmations": 2, "rpc_urls": null})).await.expect(200);
    until(SOON, "both are there still", sent).await;
    stack.owner.put(&chain, &json!({"rpc_url": first.url()})).await.refused(422);
    // A list without any is not taken for "none".
    let detail = stack.owner.put(&chain, &json!({"rpc_urls": []})).await.refused(400);
    assert!(detail.contains("leave it out to change none"), "{detail}");
    assert_eq!(stack.owner.put(&chain, &json!({"rpc_urls": [second.url()]})).await.expect(200)["rpc_url_count"], 1);
    assert_eq!(last_event(&stack, "chain.update").await["rpc_url_count"], 1);
    first.clear();
    let before = first.total();
    agent.submit(pay("added")).await.expect(201);
    assert_eq!(first.total(), before, "what is no longer named is not asked");
    assert_eq!(stack.owner.put(&chain, &json!({"rpc_url": ""})).await.expect(200)["has_rpc_url"], false);
    agent.submit(pay("added")).await.refused(503);

    let mut seen = stack.owner.get("/v1/audit/events?limit=1000").await.expect(200).to_string();
    seen += &stack.daemons[0].log_text();
    assert!(!seen.contains("hush-hush") && !seen.contains(&second.url()));
}

#[tokio::test]
async fn threat_22_no_url_of_the_api_leads_inside_unless_its_network_is_listed() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    platform_admin(&stack);
    let anvil = Anvil::with(&AnvilOptions { chain_id: 777_003, ..AnvilOptions::default() });
    let node = definition(&anvil);
    for url in [anvil.url(), "http://10.0.0.1:8545".to_owned(), "http://[::1]:8545".to_owned()] {
        let detail = stack.owner.post(CHAINS, &with(node.clone(), json!({"rpc_url": url}))).await.refused(400);
        assert!(detail.contains("outbound.allow_private"), "{detail}");
    }
    // A name is looked at when it is resolved.
    let by_name = anvil.url().replace("127.0.0.1", "localhost");
    stack.owner.post(CHAINS, &with(node, json!({"rpc_url": by_name}))).await.refused(422);
    assert_eq!(stack.count("SELECT count(*) FROM chains").await, 0);
}
