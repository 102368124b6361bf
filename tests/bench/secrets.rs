//! Secrets read and written per second.

use std::sync::Arc;

use hyper::Method;
use serde_json::json;

use crate::Plan;
use crate::load::Caller;
use crate::report::Report;
use crate::world::World;

/// How many secrets are read in turn.
const READ: u64 = 100;

/// 1 KiB each, opened and sealed by the HSM's KEK.
pub async fn measure(plan: &Plan, report: &mut Report) {
    report.part("secrets of 1 KiB");
    report.columns();
    let world = World::with(Vec::new(), &[]).await;
    let owner = &world.stack.owner;
    let vault = owner.post("/v1/vaults", &json!({"name": "bench"})).await.expect(201);
    let vault = vault["id"].as_str().unwrap().to_owned();
    let body = json!({"value": "s".repeat(1024), "type": "password"}).to_string();
    let bearer = owner.bearer.clone().unwrap();
    // What is read is written first, once.
    for n in 0..READ {
        let secret = json!({"value": "s".repeat(1024), "type": "password"});
        owner.put(&format!("/v1/vaults/{vault}/secrets/bench/r-{n}"), &secret).await.expect(201);
    }
    let at = {
        let vault = vault.clone();
        move |n: u64| format!("/v1/vaults/{vault}/secrets/bench/r-{}", n % READ)
    };
    let write = {
        let (vault, body) = (vault.clone(), body.clone());
        Caller {
            method: Method::PUT,
            bearer: bearer.clone(),
            path: Arc::new(move |n| format!("/v1/vaults/{vault}/secrets/bench/s-{n}")),
            body: Arc::new(move |_| body.clone()),
        }
    };
    let read = Caller { method: Method::GET, bearer, path: Arc::new(at), body: Arc::new(|_| String::new()) };
    for &connections in &plan.concurrency {
        world
            .measure(
                plan,
                report,
                &format!("write, {connections} at once"),
                std::slice::from_ref(&write),
                connections,
                None,
            )
            .await;
    }
    for &connections in &plan.concurrency {
        world
            .measure(
                plan,
                report,
                &format!("read, {connections} at once"),
                std::slice::from_ref(&read),
                connections,
                None,
            )
            .await;
    }
}
