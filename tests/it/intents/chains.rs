//! Several chains at once: each with its own node, lanes and trouble, some with a spending window in common.

use std::time::{Duration, Instant};

use alloy::primitives::Address;
use intentd::money::Wei;
use serde_json::{Value, json};

use super::outside::{decode_reply, proxied};
use crate::harness::anvil::Anvil;
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, TO, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

fn pay_on(chain: &str, value: &str) -> Value {
    json!({"to": TO, "value": value, "chain": chain})
}

#[tokio::test]
async fn one_key_on_three_chains_has_three_lanes() {
    let chains = vec![("base", 8453), ("optimism", 10), ("anvil", 31337)];
    let stack = Stack::with(Options { chains: chains.clone(), daemons: 2, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    // Lanes do not start at one place either.
    stack.anvil("optimism").request("anvil_setNonce", json!([agent.signer, "0x7"])).await;
    let racing: Vec<_> = (0..60)
        .map(|index| {
            let (name, chain_id) = chains[index % 3];
            let spelled = if index % 2 == 0 { name.to_owned() } else { chain_id.to_string() };
            let agent = agent.at(&stack.daemons[index % 2].url);
            tokio::spawn(async move { (chain_id, agent.submit(pay_on(&spelled, "0.001")).await.expect(201)) })
        })
        .collect();
    for reply in racing {
        let (chain_id, sent) = reply.await.unwrap();
        let signed = decode_reply(&sent);
        assert_eq!((signed.tx.chain_id.0, sent["chain_id"].as_u64()), (chain_id, Some(chain_id)));
        assert_eq!((signed.tx.from, signed.tx.to), (agent.signer, TO.parse::<Address>().unwrap()));
        assert_eq!((Some(signed.nonce), signed.hash.to_string()), (sent["nonce"].as_u64(), text(&sent, "tx_hash")));
    }
    for (name, _) in chains {
        let first = if name == "optimism" { 7 } else { 0 };
        stack.assert_settled(name, agent.signer, first, 20).await;
    }
    assert_eq!(stack.count("SELECT count(*) FROM slots WHERE outcome = 'success'").await, 60);
}

#[tokio::test]
async fn chains_of_one_spend_group_share_the_window_and_others_do_not() {
    let options = Options {
        chains: vec![("base", 8453), ("optimism", 10), ("anvil", 31337)],
        spend_groups: [("anvil", "eth-test")].into(),
        ..Options::default()
    };
    let stack = Stack::with(options).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    agent.submit(pay_on("base", "0.6")).await.expect(201);
    let detail = agent.submit(pay_on("optimism", "0.5")).await.refused(403);
    assert!(detail.contains("rolling 24h total 1.1 ETH"), "{detail}");
    agent.submit(pay_on("anvil", "0.9")).await.expect(201);
    agent.submit(pay_on("optimism", "0.4")).await.expect(201);
    agent.submit(pay_on("base", "0.1")).await.refused(403);
    agent.submit(pay_on("anvil", "0.2")).await.refused(403);
    agent.submit(pay_on("anvil", "0.1")).await.expect(201);
    let windows: Vec<(String, Wei)> =
        sqlx::query_as("SELECT spend_group, value_sum_wei FROM spending_windows ORDER BY spend_group")
            .fetch_all(&stack.db)
            .await
            .unwrap();
    let one = Wei::from_units("1").unwrap();
    assert_eq!(windows, [("eth".to_owned(), one), ("eth-test".to_owned(), one)]);
}

#[tokio::test]
async fn threat_04_a_limit_is_exact_over_the_chains_of_a_group() {
    let chains = vec![("base", 8453), ("optimism", 10), ("anvil", 31337)];
    let stack = Stack::with(Options { chains: chains.clone(), ..Options::default() }).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let racing: Vec<_> = (0..30)
        .map(|index| {
            let (agent, chain) = (agent.clone(), chains[index % 3].0);
            tokio::spawn(async move { agent.submit(pay_on(chain, "0.1")).await })
        })
        .collect();
    let mut passed = 0;
    for reply in racing {
        match reply.await.unwrap() {
            reply if reply.status == 201 => passed += 1,
            reply => drop(reply.refused(403)),
        }
    }
    assert_eq!(passed, 10);
}

// ---- a wrong node ---------------------------------------------------------------------------------------------------------------

fn base_and_optimism() -> Options {
    Options { chains: vec![("base", 8453), ("optimism", 10)], ..Options::default() }
}

/// Neither a row nor a nonce came of it.
async fn assert_untouched(stack: &Stack, anvils: &[&Anvil], signer: Address) {
    for table in ["slots WHERE chain_id = 8453", "attempts WHERE chain_id = 8453", "lanes WHERE chain_id = 8453"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(stack.count("SELECT count(*) FROM spends WHERE value_wei > 0").await, 0);
    for anvil in anvils {
        assert_eq!(anvil.nonce(signer).await, 0);
    }
}

#[tokio::test]
async fn threat_11_a_node_of_another_chain_gets_nothing_and_the_right_one_is_taken_without_a_restart() {
    let (stack, proxy) = proxied(base_and_optimism()).await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    proxy.forward_to(&stack.anvil("optimism").url());
    for refused in [agent.submit(pay("0.6")).await, agent.sign(pay("0.6")).await] {
        assert!(refused.headers.contains_key("retry-after"));
        let detail = refused.refused(503);
        for part in ["base", "8453", "10"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert!(!detail.contains("127.0.0.1"), "{detail}");
    }
    assert_untouched(&stack, &[stack.anvil("base"), stack.anvil("optimism")], agent.signer).await;
    let sent = agent.submit(pay_on("optimism", "0.3")).await.expect(201);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");

    proxy.forward_to(&stack.anvil("base").url());
    let sent = agent.submit(pay("0.6")).await.expect(201);
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
    assert_eq!(stack.anvil("base").nonce(agent.signer).await, 1);
    assert_eq!(stack.anvil("optimism").nonce(agent.signer).await, 1);
}

/// Committed bytes do not go to the wrong node either, and are sent when the right one is back.
#[tokio::test]
async fn threat_11_a_node_that_changes_under_way_gets_no_bytes() {
    let (stack, proxy) = proxied(base_and_optimism()).await;
    let agent = stack.agent(json!({})).await;
    proxy.on("eth_sendRawTransaction", Act::DropRequest);
    let sent = agent.submit(pay("0.1")).await.expect(201);
    assert_eq!(sent["status"], "signed");
    proxy.forward_to(&stack.anvil("optimism").url());
    proxy.hang_up();
    proxy.clear();
    let asked = proxy.count("eth_sendRawTransaction");
    proxy.wait_for("eth_chainId", proxy.count("eth_chainId") + 5, SOON).await;
    assert_eq!(proxy.count("eth_sendRawTransaction"), asked, "the bytes stay here");
    proxy.forward_to(&stack.anvil("base").url());
    assert_eq!(agent.settled(&text(&sent, "id")).await["receipt_status"], "success");
    assert_eq!(stack.anvil("optimism").nonce(agent.signer).await, 0);
}

#[tokio::test]
async fn threat_23_an_rpc_url_with_a_key_in_it_is_shown_nowhere() {
    const KEY: &str = "k3y-that-nobody-sees";
    let proxy = RpcProxy::start("http://127.0.0.1:1");
    let url = format!("{}/v2/{KEY}?apikey={KEY}", proxy.url()).replace("http://", &format!("http://user:{KEY}@"));
    let options = Options {
        daemons: 0,
        rpc_urls: [("base", url)].into(),
        env: vec![("INTENTD_LOG".to_owned(), "debug".to_owned())],
        ..base_and_optimism()
    };
    let mut stack = Stack::with(options).await;
    stack.add_daemon("chatty").await;
    let agent = stack.agent(json!({})).await;
    let mut said = String::new();
    let public = stack.owner.by(None);
    for path in ["/v1/chains", "/v1/chains/base", "/v1/chains/8453"] {
        let shown = public.get(path).await.expect(200);
        said += &shown.to_string();
    }
    let listed = public.get("/v1/chains").await.expect(200);
    let ids: Vec<_> = listed["chains"].as_array().unwrap().iter().map(|chain| chain["chain_id"].as_u64()).collect();
    assert_eq!(ids, [Some(8453), Some(10)]);
    assert_eq!(public.get("/v1/chains/base").await.expect(200)["chain_id"], 8453);
    public.get("/v1/chains/nowhere").await.refused(404);

    // Every way a node can fail, and one that repeats what it was asked by.
    let echo = format!("no project {KEY} at /v2/{KEY}");
    for act in [
        Act::Pass,
        Act::DropRequest,
        Act::Http(401),
        Act::Http(500),
        Act::Garbage(b"<html>".to_vec()),
        Act::error(-32000, &echo),
        Act::Answer(json!("0xa")),
    ] {
        proxy.on_everything(act);
        said += &agent.submit(pay("0.1")).await.expect(503).to_string();
    }
    proxy.clear();
    proxy.forward_to(&stack.anvil("base").url());
    proxy.on("eth_sendRawTransaction", Act::error(-32000, &echo));
    let sent = agent.submit(pay("0.1")).await.expect(201);
    until(SOON, "the tracker has tried too", async || proxy.count("eth_sendRawTransaction") > 1).await;
    said += &agent.transaction(&text(&sent, "id")).await.to_string();
    said += &stack.owner.get("/v1/audit").await.body.to_string();
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT row_to_json(e)::text FROM audit_events e").fetch_all(&stack.db).await.unwrap();
    said += &rows.concat();
    said += &stack.daemons[0].log_text();
    assert!(said.contains("base"));
    assert!(!said.contains(KEY), "{}", said.split(KEY).next().unwrap().chars().rev().take(300).collect::<String>());
}

// ---- a frozen node --------------------------------------------------------------------------------------------------------------

async fn median_of(agent: &Agent, count: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        agent.submit(pay_on("optimism", "0.0001")).await.expect(201);
        times.push(started.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn threat_43_a_frozen_node_of_one_chain_slows_no_other() {
    // A node may take longer than a request does: what hangs at base hangs for the whole of the time in which a request reads its chain.
    let options = Options { chain_toml: "rpc_deadline_ms = 60000", ..base_and_optimism() };
    let (stack, proxy) = proxied(options).await;
    let (agent, other) = (stack.agent(json!({"tx_daily_limit_eth": "100"})).await, stack.agent(json!({})).await);
    // Base's node is known by then, and its tracker, which has nothing to follow, asks it for nothing.
    let open = agent.submit(pay("0.1")).await.expect(201);
    agent.settled(&text(&open, "id")).await;
    let before = median_of(&agent, 30).await;

    proxy.freeze();
    // A request's first exchange is one batch, or a look at the chain's id on a connection that is new.
    let asked = |proxy: &RpcProxy| proxy.count("eth_getBalance") + proxy.count("eth_chainId");
    let at = asked(&proxy);
    let hanging: Vec<_> = (0..60)
        .map(|index| {
            let agent = if index % 2 == 0 { agent.clone() } else { other.clone() };
            tokio::spawn(async move { agent.submit(pay("0.1")).await })
        })
        .collect();
    proxy.wait_until(SOON, |proxy| asked(proxy) >= at + 60).await;
    let during = median_of(&agent, 10).await;
    assert!(hanging.iter().all(|request| !request.is_finished()), "base was to hang all the while");
    assert!(during < before * 5 + Duration::from_millis(100), "{before:?} before, {during:?} during");

    // The frozen ones end, with a reason and nothing reserved.
    for request in hanging {
        let detail = request.await.unwrap().refused(503);
        assert!(detail.contains("base"), "{detail}");
    }
    assert_eq!(stack.slots(8453, agent.signer).await.len(), 1);
    proxy.clear();
    let sent = other.submit(pay("0.1")).await.expect(201);
    assert_eq!(other.settled(&text(&sent, "id")).await["receipt_status"], "success");
}
