//! The simulator is killed, slow, refuses, lies or answers too much: could not check, and nothing is reserved.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::simulator::{Fault, FaultyProxy, KEY, Simulator, variables};
use crate::harness::stack::{Options, Stack, pay, text, until};

fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new(), Vec::new())
}

fn edit(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Fault {
    Fault::Edit(Arc::new(move |mut answer| {
        change(&mut answer);
        answer
    }))
}

#[tokio::test]
async fn threat_38_a_simulator_that_cannot_say_is_could_not_check_and_nothing_is_reserved() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let mut simulator = Simulator::start(&[("base", 8453, stack.chain().url())]).await;
    let proxy = FaultyProxy::start(simulator.url()).await;
    stack.options.env.extend(variables(&proxy.url));
    stack.add_daemon("daemon").await;
    let agent = stack.agent(json!({"tx_daily_limit_eth": "1"})).await;
    let simulated = || {
        let mut body = pay("0.1");
        body["simulate_first"] = json!(true);
        body
    };
    let refusal = |slug: &str, message: &str| {
        let error = json!({"error": {"id": "x", "slug": slug, "message": message}}).to_string();
        error.into_bytes()
    };
    // What breaks, how often it is asked, and the Retry-After.
    let table: Vec<(&str, Fault, usize, Option<&str>)> = vec![
        ("401", Fault::Status(401, vec![], refusal("unauthorized", &format!("the key {KEY} is wrong"))), 1, Some("30")),
        ("403 quota", status(403), 1, Some("30")),
        ("429", Fault::Status(429, vec![("retry-after", "17")], vec![]), 1, Some("17")),
        ("429 for ever", Fault::Status(429, vec![("retry-after", "99999999")], vec![]), 1, Some("300")),
        ("500", status(500), 1, Some("2")),
        ("502", status(502), 2, Some("2")),
        ("503", status(503), 2, Some("2")),
        ("404", status(404), 1, None),
        (
            "400 network",
            Fault::Status(400, vec![], refusal("invalid_network", "network 8453 is not supported")),
            1,
            None,
        ),
        ("redirect", Fault::Status(307, vec![("location", "http://169.254.169.254/")], vec![]), 1, None),
        ("garbage", Fault::Status(200, vec![], b"<html>".to_vec()), 1, None),
        ("empty", Fault::Status(200, vec![], b"{}".to_vec()), 1, None),
        ("null", Fault::Status(200, vec![], b"null".to_vec()), 1, None),
        ("9 MB", Fault::Status(200, vec![], vec![b' '; 9 * 1024 * 1024]), 1, None),
        ("deep", Fault::Status(200, vec![], b"[".repeat(100_000)), 1, None),
        (
            "another recipient",
            edit(|a| a["transaction"]["to"] = json!("0x0000000000000000000000000000000000000001")),
            1,
            None,
        ),
        ("another amount", edit(|a| a["transaction"]["value"] = json!("0x1")), 1, None),
        ("another chain", edit(|a| a["transaction"]["network_id"] = json!("1")), 1, None),
        ("no status", edit(|a| drop(a["transaction"].as_object_mut().unwrap().remove("status"))), 1, None),
    ];
    for (case, fault, asked, retry_after) in table {
        proxy.set(fault);
        proxy.take_count();
        for reply in [agent.submit(simulated()).await, agent.sign(simulated()).await, agent.simulate(pay("0.1")).await]
        {
            assert_eq!(reply.status, 503, "{case}: {}", reply.body);
            let waits = reply.headers["retry-after"].to_str().unwrap();
            assert!(retry_after.is_none_or(|expected| waits == expected), "{case}: {waits}");
            let body = reply.body.to_string();
            assert!(
                !body.contains(KEY) && !body.contains("unauthorized") && !body.contains("127.0.0.1"),
                "{case}: {body}"
            );
        }
        assert_eq!(proxy.take_count(), 3 * asked, "{case}");
    }
    for table in ["intents", "slots", "attempts", "spends"] {
        assert_eq!(stack.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    // A long answer that makes sense is read.
    proxy.set(edit(|answer| answer["contracts"] = json!([{"source": "x".repeat(3 * 1024 * 1024)}])));
    assert_eq!(agent.simulate(pay("0.1")).await.expect(200)["status"], "success");
    // Slower than it may be, and gone.
    proxy.set(Fault::Delay(Duration::from_secs(60)));
    assert_eq!(agent.submit(simulated()).await.status, 503);
    proxy.set(Fault::None);
    simulator.daemon.kill();
    assert_eq!(agent.submit(simulated()).await.status, 503);
    // Whoever does not want it simulated is not held up, and takes the first nonce.
    let sent = agent.submit(pay("0.1")).await.expect(201);
    assert_eq!(sent["nonce"], 0);
    agent.settled(&text(&sent, "id")).await;
    let log = stack.daemons[0].log_text();
    assert!(!log.contains(KEY), "the key is in the log");
    for cause in [
        "HTTP 401 (unauthorized)",
        "HTTP 429",
        "longer than",
        "another transaction",
        "invalid_network",
        "no answer within",
    ] {
        assert!(log.contains(cause), "the log does not say {cause}");
    }
}

/// Whoever is being simulated has the lane's turn: when the simulator hangs, the others of the key do not hang with it.
#[tokio::test]
async fn threat_38_a_simulator_that_hangs_holds_up_nobody_else_of_the_key() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let simulator = Simulator::start(&[("base", 8453, stack.chain().url())]).await;
    let proxy = FaultyProxy::start(simulator.url()).await;
    stack.options.env.extend(variables(&proxy.url));
    stack.add_daemon("daemon").await;
    let agent = stack.agent(json!({})).await;
    let mut simulated = pay("0.1");
    simulated["simulate_first"] = json!(true);
    agent.submit(simulated.clone()).await.expect(201);
    proxy.set(Fault::Delay(Duration::from_secs(600)));
    proxy.take_count();
    let hangs = tokio::spawn({
        let (agent, body) = (agent.clone(), simulated.clone());
        async move { agent.submit(body).await }
    });
    until(Duration::from_secs(30), "it is at the simulator", async || proxy.take_count() > 0).await;
    let others = futures::future::join_all((0..3).map(|_| agent.submit(simulated.clone())));
    let plain = futures::future::join_all((0..3).map(|_| agent.submit(pay("0.1"))));
    let (others, plain) = futures::future::join(others, plain).await;
    assert!(!hangs.is_finished(), "the others waited for it");
    for reply in plain {
        reply.expect(201);
    }
    for reply in others {
        assert_eq!(reply.headers["retry-after"], "1");
        assert!(reply.refused(503).contains("is being simulated, which takes long"));
    }
    hangs.await.unwrap().refused(503);
    proxy.set(Fault::None);
    agent.submit(simulated).await.expect(201);
    stack.assert_settled("base", agent.signer, 0, 5).await;
}
