//! An organisation's own account at the service, and its contract ABIs.

use serde_json::{Value, json};

use crate::harness::simulator::{KEY, Simulator};
use crate::harness::stack::{Options, Stack, pay, text};

const SETTINGS: &str = "/v1/org/simulation";
const ABIS: &str = "/v1/org/contract-abis";

#[tokio::test]
async fn an_organisation_is_simulated_by_its_own_account_with_a_key_from_its_vault() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let own = Simulator::with(&[("base", 8453, stack.chain().url())], |command| {
        command.env("INTENTD_SIMULATOR_ACCOUNT", "acme").env("INTENTD_SIMULATOR_PROJECT", "treasury");
    })
    .await;
    let config = stack.install.root.join("daemon.toml");
    std::fs::write(&config, format!("[simulation]\norganisations_base_url = {:?}\nsave = true\n", own.url())).unwrap();
    stack.options.env.push(("INTENTD_CONFIG".to_owned(), config.display().to_string()));
    stack.add_daemon("daemon").await;
    let agent = stack.agent(json!({})).await;
    let owner = &stack.owner;
    assert_eq!(owner.get(SETTINGS).await.expect(200), json!({"backend": "rpc", "source": "daemon"}));
    assert!(agent.simulate(pay("0.1")).await.expect(200).get("tenderly_dashboard_url").is_none());

    let vault = owner.post("/v1/vaults", &json!({"name": "services"})).await.expect(201);
    let vault_id = text(&vault, "id");
    let secret = format!("/v1/vaults/{vault_id}/secrets");
    owner.put(&format!("{secret}/tenderly/key"), &json!({"value": format!("{KEY}\n")})).await.expect(201);
    owner
        .put(
            &format!("{secret}/keys/other"),
            &json!({"value": crate::harness::stack::fresh_scalar(), "type": "private_key"}),
        )
        .await
        .expect(201);
    let good = json!({"backend": "tenderly", "account": "acme", "project": "treasury", "vault_id": vault_id, "secret_path": "tenderly/key"});
    let with = |changes: Value| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    for (body, status) in [
        (json!({}), 400),
        (json!({"backend": "http"}), 400),
        (with(json!({"account": "../.."})), 400),
        (with(json!({"project": "a/b"})), 400),
        (with(json!({"secret_path": "a//b"})), 400),
        (with(json!({"base_url": "http://169.254.169.254"})), 400),
        (with(json!({"access_key": "plain"})), 400),
        (with(json!({"vault_id": uuid::Uuid::new_v4()})), 404),
        (with(json!({"secret_path": "no/such"})), 422),
        (with(json!({"secret_path": "keys/other"})), 422),
    ] {
        let reply = owner.put(SETTINGS, &body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
    }
    for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
        let request = agent.client.request(method, SETTINGS).json(&good);
        assert_eq!(crate::harness::client::Client::send(request).await.status, 403);
    }
    assert_eq!(stack.count("SELECT count(*) FROM simulation_settings").await, 0);

    let shown = owner.put(SETTINGS, &good).await.expect(200);
    assert_eq!((&shown["source"], &shown["account"]), (&json!("organisation"), &json!("acme")));
    let body = agent.simulate(pay("0.1")).await.expect(200);
    assert!(
        text(&body, "tenderly_dashboard_url").starts_with(&format!("{}/acme/treasury/simulator/", own.url())),
        "{body}"
    );
    let opened = "SELECT count(*) FROM audit_events WHERE action = 'secret.read' AND actor_type = 'system' AND details->>'used_for' = 'simulation'";
    assert_eq!(stack.count(opened).await, 1);
    // A wrong key, and none: could not check, and nobody else is asked in its place.
    owner.put(&format!("{secret}/tenderly/key"), &json!({"value": "another"})).await.expect(201);
    assert_eq!(agent.simulate(pay("0.1")).await.status, 503);
    owner.delete(&format!("{secret}/tenderly/key")).await.expect(204);
    let reply = agent.simulate(pay("0.1")).await;
    assert!(reply.refused(503).contains("/v1/org/simulation"));
    // The node, and back to the daemon's.
    owner.put(SETTINGS, &json!({"backend": "rpc"})).await.expect(200);
    agent.simulate(pay("0.1")).await.expect(200);
    owner.delete(SETTINGS).await.expect(204);
    assert_eq!(owner.get(SETTINGS).await.expect(200)["source"], "daemon");
    let changes = "SELECT count(*) FROM audit_events WHERE action = 'org.simulation_update'";
    assert_eq!(stack.count(changes).await, 3);
    assert!(!stack.daemons[0].log_text().contains(KEY));
}

#[tokio::test]
async fn contract_abis_are_registered_listed_and_removed_within_bounds() {
    let stack = Stack::with(Options { chains: vec![], ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let owner = &stack.owner;
    let error = |name: &str| json!({"type": "error", "name": name, "inputs": [{"name": "amount", "type": "uint256"}]});
    let function =
        json!({"type": "function", "name": "buy", "inputs": [], "outputs": [], "stateMutability": "payable"});
    let abi = json!([error("A"), error("B"), function]);
    let made = owner.post(ABIS, &json!({"name": "shop", "abi": abi, "address": null})).await.expect(201);
    assert_eq!((&made["functions"], &made["errors"], &made["address"]), (&json!(1), &json!(2), &Value::Null));
    assert_eq!(owner.get(ABIS).await.expect(200), json!({"contract_abis": [made]}));
    assert_eq!(owner.post(ABIS, &json!({"name": "shop", "abi": abi})).await.status, 409);
    let many: Vec<Value> = (0..2_001).map(|n| error(&format!("E{n}"))).collect();
    for (body, field) in [
        (json!({"abi": abi}), "name"),
        (json!({"name": "x"}), "abi"),
        (json!({"name": "x", "abi": "not an abi"}), "abi"),
        (json!({"name": "x", "abi": []}), "abi"),
        (json!({"name": "x", "abi": many}), "abi"),
        (json!({"name": "x", "abi": "[".to_owned() + &" ".repeat(300_000) + "]"}), "abi"),
        (json!({"name": "x", "abi": abi, "address": "0x12"}), "address"),
    ] {
        let detail = owner.post(ABIS, &body).await.refused(400);
        assert!(detail.starts_with(field), "{detail}");
    }
    for reply in [agent.client.get(ABIS).await, agent.client.post(ABIS, &json!({"name": "x", "abi": abi})).await] {
        assert_eq!(reply.status, 403);
    }
    let path = format!("{ABIS}/{}", text(&made, "id"));
    assert_eq!(agent.client.delete(&path).await.status, 403);
    owner.delete(&path).await.expect(204);
    assert_eq!(owner.delete(&path).await.status, 404);
    assert_eq!(stack.count("SELECT count(*) FROM contract_abi_items").await, 0);
    let rows = "SELECT count(*) FROM audit_events WHERE action LIKE 'contract_abi.%'";
    assert_eq!(stack.count(rows).await, 2);
}
