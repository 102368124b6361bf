//! The kill switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::stack::{Agent, Options, Stack, pay, text, until};

const SOON: Duration = Duration::from_secs(30);

async fn freeze(stack: &Stack, scope: &str, subject: &str) -> String {
    let body = json!({"scope": scope, "subject": subject, "reason": "the key leaked"});
    text(&stack.owner.post("/v1/freezes", &body).await.expect(201), "id")
}

fn on(chain: &str) -> Value {
    json!({"to": crate::harness::stack::TO, "value": "0.001", "chain": chain})
}

/// Refused as frozen, on every daemon, by submit and by sign.
async fn assert_frozen(stack: &Stack, agent: &Agent, chain: &str, what: &str) {
    for daemon in &stack.daemons {
        let agent = agent.at(&daemon.url);
        for reply in [agent.submit(on(chain)).await, agent.sign(on(chain)).await] {
            let detail = reply.refused(403);
            assert!(detail.contains(&format!("this {what} is frozen")), "{what}: {detail}");
        }
    }
}

#[tokio::test]
async fn what_is_frozen_signs_nothing_on_any_daemon_and_nothing_else_is_held_up() {
    let chains = vec![("base", 8453), ("optimism", 10)];
    let stack = Stack::with(Options { daemons: 2, chains, ..Options::default() }).await;
    let (one, two) = (stack.agent(json!({})).await, stack.agent(json!({})).await);
    let signer = one.signer.to_string();
    // Scope, subject, what is frozen by it (the agent and the chain), and whether the other chain and the other agent go on.
    for (scope, subject, other_chain, other_agent) in [
        ("agent", one.id.as_str(), false, true),
        ("key", signer.as_str(), false, true),
        ("chain", "base", true, false),
        ("chain", "8453", true, false),
        ("organisation", stack.org_id.as_str(), false, false),
    ] {
        let id = freeze(&stack, scope, subject).await;
        assert_frozen(&stack, &one, "base", scope).await;
        match other_chain {
            true => drop(one.submit(on("optimism")).await.expect(201)),
            false => assert_frozen(&stack, &one, "optimism", scope).await,
        }
        match other_agent {
            true => drop(two.submit(on("base")).await.expect(201)),
            false => assert_frozen(&stack, &two, "base", scope).await,
        }
        let again = stack.owner.post("/v1/freezes", &json!({"scope": scope, "subject": subject})).await.expect(200);
        assert_eq!((text(&again, "id"), text(&again, "reason")), (id.clone(), "the key leaked".to_owned()), "once");
        let listed = stack.owner.get("/v1/freezes").await.expect(200);
        assert_eq!(listed["freezes"], json!([again]));
        stack.owner.delete(&format!("/v1/freezes/{id}")).await.expect(204);
        stack.owner.delete(&format!("/v1/freezes/{id}")).await.refused(404);
        one.submit(on("base")).await.expect(201);
    }
    assert_eq!(stack.owner.get("/v1/freezes").await.expect(200), json!({"freezes": []}));
    let events = "SELECT count(*) FROM audit_events WHERE action = 'freeze.";
    assert_eq!(stack.count(&format!("{events}create'")).await, 5);
    assert_eq!(stack.count(&format!("{events}lift'")).await, 5);
}

#[tokio::test]
async fn every_human_pulls_the_switch_and_only_those_who_manage_reset_it() {
    let stack = Stack::with(Options { chains: vec![("base", 8453)], ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let member = stack.human(&stack.org_id, "member").await.client;
    let admin = stack.human(&stack.org_id, "admin").await.client;
    let other = stack.organisation("Other").await;
    let stranger = stack.human(&other, "owner").await.client;

    let whole = json!({"scope": "organisation"});
    agent.client.post("/v1/freezes", &whole).await.refused(403);
    let frozen = member.post("/v1/freezes", &whole).await.expect(201);
    let one = format!("/v1/freezes/{}", text(&frozen, "id"));
    assert_frozen(&stack, &agent, "base", "organisation").await;
    for client in [&member, &agent.client] {
        client.delete(&one).await.refused(403);
    }
    stranger.delete(&one).await.refused(404);
    assert_eq!(stranger.get("/v1/freezes").await.expect(200), json!({"freezes": []}));
    admin.delete(&one).await.expect(204);
    agent.submit(pay("0.001")).await.expect(201);

    // What is not there, or cannot be read, freezes nothing.
    for (scope, subject) in [("agent", agent.id.as_str()), ("key", &agent.signer.to_string())] {
        stranger.post("/v1/freezes", &json!({"scope": scope, "subject": subject})).await.refused(404);
    }
    stranger.post("/v1/freezes", &json!({"scope": "organisation", "subject": stack.org_id})).await.refused(404);
    let long = "x".repeat(501);
    for bad in [
        json!({}),
        json!({"scope": "world"}),
        json!({"scope": "agent"}),
        json!({"scope": "agent", "subject": "me"}),
        json!({"scope": "key", "subject": "0x12"}),
        json!({"scope": "chain", "subject": "nowhere"}),
        json!({"scope": "organisation", "reason": long}),
    ] {
        member.post("/v1/freezes", &bad).await.refused(400);
    }
    assert_eq!(stack.count("SELECT count(*) FROM freezes").await, 0);
}

/// Many agents sign as fast as they can, on three daemons, until told to stop.
fn storm(stack: &Stack, agents: &[Agent], stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<usize>> {
    let one = |(index, agent): (usize, &Agent)| {
        let (agent, stop) = (agent.at(&stack.daemons[index % stack.daemons.len()].url), Arc::clone(stop));
        tokio::spawn(async move {
            let mut signed = 0;
            while !stop.load(Ordering::Relaxed) {
                let Reply { status, body, .. } = agent.sign(pay("0.0001")).await;
                assert!(status == 200 || status == 403 || status == 503, "{status} {body}");
                signed += usize::from(status == 200);
            }
            signed
        })
    };
    agents.iter().enumerate().map(one).collect()
}

#[tokio::test]
async fn threat_37_nothing_is_signed_after_a_freeze_was_answered_however_busy_the_organisation_is() {
    let stack = Stack::with(Options { daemons: 3, ..Options::default() }).await;
    let mut agents = Vec::new();
    for _ in 0..9 {
        agents.push(stack.agent(json!({})).await);
    }
    let victim = &agents[0];
    let signer = agents[1].signer.to_string();
    for (scope, subject, of) in [
        ("agent", victim.id.clone(), format!("WHERE agent_id = '{}'", victim.id)),
        ("key", signer.clone(), format!("WHERE agent_id = '{}'", agents[1].id)),
        ("chain", "base".to_owned(), String::new()),
        ("organisation", stack.org_id.clone(), String::new()),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let running = storm(&stack, &agents, &stop);
        let sql = format!("SELECT count(*) FROM intents {of}");
        let before = stack.count(&sql).await;
        until(SOON, "they sign", async || stack.count(&sql).await > before + 3).await;
        let id = freeze(&stack, scope, &subject).await;
        let at_answer = stack.count(&sql).await;
        // Long enough for every one of them to try a few times more.
        for _ in 0..3 {
            for agent in &agents {
                agent.sign(pay("0.0001")).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for one in running {
            one.await.unwrap();
        }
        assert_eq!(stack.count(&sql).await, at_answer, "{scope}: signed after the answer");
        stack.owner.delete(&format!("/v1/freezes/{id}")).await.expect(204);
    }
}

#[tokio::test]
async fn what_was_sent_before_a_freeze_is_followed_to_its_end() {
    let stack = Stack::with(Options { anvil: |_, anvil| anvil.no_mining = true, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let sent = agent.submit(pay("0.01")).await.expect(201);
    freeze(&stack, "agent", &agent.id).await;
    freeze(&stack, "organisation", &stack.org_id).await;
    stack.chain().mine(1).await;
    let shown = agent.settled(&text(&sent, "id")).await;
    assert_eq!(shown["receipt_status"], "success", "{shown}");
    assert!(shown["tx_hash"].is_string());
}

#[tokio::test]
async fn threat_09_an_agent_that_keeps_asking_for_what_is_denied_is_suspended_until_a_human_lifts_it() {
    let stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let rules = json!({"tx_max_value_eth": "0.1", "tx_suspend_after_denials": 5});
    let (agent, other) = (stack.agent(rules).await, stack.agent(json!({"tx_max_value_eth": "0.1"})).await);
    for _ in 0..4 {
        assert!(agent.submit(pay("1")).await.refused(403).contains("guardrail"));
        agent.submit(pay("0.001")).await.expect(201);
    }
    // What is no guardrail's denial does not count, and neither does what only asks.
    agent.submit(json!({"to": "0x12"})).await.refused(400);
    agent.simulate(pay("1")).await;
    agent.submit(pay("0.001")).await.expect(201);
    // The fifth does, however many come at once on both daemons.
    let there = agent.at(&stack.daemons[1].url);
    let at_once = futures::future::join_all(
        (0..6).map(|n| if n % 2 == 0 { agent.submit(pay("1")) } else { there.submit(pay("1")) }),
    );
    for reply in at_once.await {
        reply.refused(403);
    }
    assert_frozen(&stack, &agent, "base", "agent").await;
    let listed = stack.owner.get("/v1/freezes").await.expect(200);
    let [frozen] = listed["freezes"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((&frozen["scope"], &frozen["subject"]), (&json!("agent"), &json!(agent.id)));
    assert_eq!((&frozen["created_by_type"], &frozen["created_by"]), (&json!("system"), &Value::Null));
    assert!(text(frozen, "reason").contains("5 transactions were denied"), "{frozen}");
    assert!(stack.owner.get(&format!("/v1/agents/{}", agent.id)).await.expect(200)["frozen_at"].is_string());
    assert_eq!(
        stack.count("SELECT count(*) FROM audit_events WHERE action = 'freeze.create' AND actor_type = 'system'").await,
        1
    );
    for _ in 0..8 {
        other.submit(pay("1")).await.refused(403);
    }
    other.submit(pay("0.001")).await.expect(201);

    let one = format!("/v1/freezes/{}", text(frozen, "id"));
    agent.client.delete(&one).await.refused(403);
    stack.owner.delete(&one).await.expect(204);
    // It starts from nothing.
    agent.submit(pay("1")).await.refused(403);
    agent.submit(pay("0.001")).await.expect(201);
    for bad in [json!(1), json!(0), json!(1_001), json!("5"), json!(2.5)] {
        let change = json!({ "tx_suspend_after_denials": bad });
        stack.owner.patch(&format!("/v1/agents/{}", agent.id), &change).await.refused(400);
    }
}
