use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::other_org;
use crate::harness::stack::{Options, Stack, pay, until};

#[tokio::test]
async fn what_is_used_is_counted_exactly_and_shown_as_clients_read_it() {
    let mut stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let (other_id, other) = other_org(&stack).await;
    let other_elsewhere = other.at(&stack.daemons[1].url);
    for client in [&other, &other_elsewhere] {
        let racing = (0..25).map(|_| async { client.get("/v1/vaults").await.expect(200) });
        futures::future::join_all(racing).await;
    }
    other.post("/v1/vaults", &json!({"name": "v"})).await.expect(201);
    // What is refused for who it is counts; what is nobody's does not.
    other.get("/v1/admin/settings").await.refused(403);
    other.by(Some("1ck_nobody")).get("/v1/vaults").await.refused(401);
    let first = agent.submit_with_key("once", pay("0.001")).await.expect(201);
    agent.submit_with_key("once", pay("0.001")).await.expect(200);
    agent.submit(pay("100000")).await.refused(422);
    agent.settled(first["id"].as_str().unwrap()).await;

    let mut sent = 52;
    until(Duration::from_secs(30), "the counts are there", async || {
        let month = stack.owner.get("/v1/billing/usage").await.expect(200)["current_month"].clone();
        assert_eq!(month["paid_requests"], 0);
        month["total_requests"].as_u64().unwrap() > 0 && month["signatures"] == 1
    })
    .await;
    let usage = other.get("/v1/billing/usage").await.expect(200);
    assert_eq!((&usage["billing_tier"], &usage["resources"]["vaults"]), (&json!("self_hosted"), &json!(1)));
    assert_eq!(usage["resources"]["members"], 1);
    let subscription = other.get("/v1/billing/subscription").await.expect(200);
    assert_eq!((&subscription["tier"], &subscription["status"]), (&json!("self_hosted"), &json!("active")));
    assert_eq!(other.get("/v1/billing/credits/balance").await.expect(200)["balance_cents"], 0);
    assert_eq!(other.get("/v1/billing/credits/transactions").await.expect(200), json!({"transactions": []}));
    assert!(other.get("/v1/billing/history").await.expect(200)["events"].is_array());
    sent += 5;
    let overage = "/v1/billing/overage-method";
    for body in [json!({"method": "x402"}), json!({"overage_method": "credits"})] {
        other.patch(overage, &body).await.expect(200);
    }
    for body in [json!({}), json!({"method": "cash"}), json!({"method": "x402", "overage_method": "credits"})] {
        other.patch(overage, &body).await.refused(400);
    }
    sent += 5;
    agent.client.get("/v1/billing/usage").await.refused(403);

    // What is in memory is written when a daemon stops.
    for daemon in &mut stack.daemons {
        daemon.signal(Signal::TERM);
        assert!(daemon.ended().await.success());
    }
    let of = |kind: &str, org: &str| {
        format!("SELECT sum(count)::bigint FROM usage_counts WHERE kind = '{kind}' AND org_id = '{org}'")
    };
    assert_eq!(stack.count(&of("requests", &other_id)).await, sent);
    assert_eq!(stack.count(&of("signatures", &stack.org_id)).await, 1, "once, replayed or not");
}
