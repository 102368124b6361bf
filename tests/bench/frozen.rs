//! Whether one chain's node that stands still slows another chain's intents.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::Plan;
use crate::load::{self, Caller};
use crate::report::Report;
use crate::world::{World, payers};

/// Chain B's latency by itself, and while chain A's node is stopped and agents ask for A as well.
pub async fn measure(plan: &Plan, report: &mut Report) {
    report.part("chain B beside chain A, whose node stands still");
    report.columns();
    let world = World::with(vec![("base", 8453), ("frozen", 777)], &[]).await;
    let agents = world.agents(8).await;
    let healthy = payers(&agents, "", &json!({}));
    world.measure(plan, report, "B, 8 agents, 8 at once; A well and unused", &healthy, 8, None).await;
    world.settle().await;
    let node = Pid::from_raw(i32::try_from(world.stack.anvil("frozen").pid()).unwrap()).unwrap();
    let stuck: Vec<Caller> = payers(&world.agents(8).await, "", &json!({"chain": "frozen"}));
    kill_process(node, Signal::STOP).unwrap();
    let url = world.stack.daemons[0].url.clone();
    let time = plan.warm_up + plan.measure;
    let beside = tokio::spawn(async move { load::run(&url, &stuck, 8, time).await });
    world.measure(plan, report, "B, 8 agents, 8 at once; A asked, 8 at once, silent", &healthy, 8, None).await;
    kill_process(node, Signal::CONT).unwrap();
    let beside = beside.await.unwrap();
    for ((status, detail), count) in beside.others {
        report.figure("A meanwhile", &format!("{count} × {status} {detail}"));
    }
}
