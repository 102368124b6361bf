//! Intents per second, and what each costs.

use alloy::primitives::U256;
use serde_json::json;

use crate::Plan;
use crate::ceilings::Ceilings;
use crate::harness::simulator::{self, Simulator};
use crate::harness::stack::{address_of, fresh_scalar};
use crate::load::Caller;
use crate::report::Report;
use crate::world::{World, payers};

/// Signed only: no broadcast, nothing to follow.
pub async fn sign(plan: &Plan, report: &mut Report, ceilings: Option<&Ceilings>) {
    report.part("sign (POST …/transactions/sign)");
    report.columns();
    for &keys in &plan.keys {
        for &connections in &plan.concurrency {
            let world = World::start(&[]).await;
            let callers = payers(&world.agents(keys).await, "/sign", &json!({}));
            let what = format!("{keys} agents with a key each, {connections} at once");
            let top = ceilings.map(|top| (top.raw_signatures, "raw C_Sign"));
            world.measure(plan, report, &what, &callers, connections, top).await;
        }
    }
}

/// To the broadcast, with durable commits.
pub async fn submit(plan: &Plan, report: &mut Report, ceilings: Option<&Ceilings>) {
    report.part("submit (POST …/transactions, broadcast before the reply)");
    report.columns();
    let top = ceilings.map(|top| (top.commits, "raw commits"));
    for &keys in &plan.keys {
        for &connections in &plan.concurrency {
            let world = World::start(&[]).await;
            let callers = payers(&world.agents(keys).await, "", &json!({}));
            let what = format!("{keys} agents with a key each, {connections} at once");
            world.measure(plan, report, &what, &callers, connections, top).await;
            world.settle().await;
        }
    }
    for &connections in plan.concurrency.iter().filter(|n| **n > 1) {
        let world = World::start(&[]).await;
        let callers = one_agent_with_keys(&world, 8).await;
        let what = format!("1 agent with 8 keys, {connections} at once");
        world.measure(plan, report, &what, &callers, connections, top).await;
        world.settle().await;
    }
}

/// An agent with several keys, each named in the request.
async fn one_agent_with_keys(world: &World, keys: usize) -> Vec<Caller> {
    let agent = &world.agents(1).await[0];
    let vault = world.stack.vault_of(agent).await;
    let mut callers = Vec::with_capacity(keys);
    for n in 0..keys {
        let scalar = fresh_scalar();
        let secret = json!({"value": scalar, "type": "private_key"});
        world.stack.owner.put(&format!("/v1/vaults/{vault}/secrets/keys/more-{n}"), &secret).await.expect(201);
        world.stack.chain().set_balance(address_of(&scalar), U256::from(10).pow(U256::from(21))).await;
        callers.extend(payers(std::slice::from_ref(agent), "", &json!({"signing_key_path": format!("keys/more-{n}")})));
    }
    callers
}

/// Simulated by `intentd simulator`, in Tenderly's shape, before each signature.
pub async fn simulated(plan: &Plan, report: &mut Report, ceilings: Option<&Ceilings>) {
    report.part("submit, each simulated first by `intentd simulator`");
    report.columns();
    for &connections in &plan.concurrency {
        let mut world = World::with(vec![("base", 8453)], &[]).await;
        let simulator = Simulator::start(&[("base", 8453, world.stack.chain().url())]).await;
        world.stack.daemons.clear();
        world.stack.options.env.extend(simulator::variables(simulator.url()));
        world.stack.add_daemon("daemon-simulates").await;
        let callers = payers(&world.agents(8).await, "", &json!({"simulate_first": true}));
        let what = format!("8 agents with a key each, {connections} at once");
        let top = ceilings.map(|top| (top.commits, "raw commits"));
        world.measure(plan, report, &what, &callers, connections, top).await;
        world.settle().await;
    }
}
