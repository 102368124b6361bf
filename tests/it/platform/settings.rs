use std::time::Duration;

use serde_json::json;

use crate::harness::stack::{Options, Stack, pay, until};
use crate::orgs::{last_event, platform_admin};

const SETTING: &str = "intents_api.require_simulation";

#[tokio::test]
async fn simulation_is_required_where_the_organisation_or_the_installation_says_so_also_of_what_is_under_way() {
    let stack = Stack::with(Options { daemons: 2, ..Options::default() }).await;
    let agent = stack.agent(json!({})).await;
    let elsewhere = agent.at(&stack.daemons[1].url);
    let path = "/v1/admin/settings";
    stack.owner.get(path).await.refused(403);
    stack.owner.put(path, &json!({"settings": {SETTING: "true"}})).await.refused(403);
    platform_admin(&stack);
    assert_eq!(stack.owner.get(path).await.expect(200), json!({"settings": {SETTING: "false"}}));
    for bad in
        [json!({SETTING: "yes"}), json!({SETTING: 1}), json!({"intents_api.other": "true"}), json!({"settings": []})]
    {
        stack.owner.put(path, &bad).await.refused(400);
    }
    let simulated = async || {
        let body = elsewhere.submit(pay("0.0001")).await.expect(201);
        assert_eq!(body.get("simulation_id").is_some_and(|id| !id.is_null()), body["simulation_status"] == "success");
        body["simulation_status"] == "success"
    };
    let platform = async |on: bool| {
        let text = if on { "true" } else { "false" };
        let now = stack.owner.put(path, &json!({"settings": {SETTING: text}})).await.expect(200);
        assert_eq!(now["settings"][SETTING], text);
        assert_eq!(last_event(&stack, "platform.settings").await["after"][SETTING], text);
    };
    let org = async |on: bool| {
        stack.owner.patch("/v1/org/settings", &json!({"require_simulation": on})).await.expect(200);
    };
    for (by_platform, by_org) in [(false, false), (true, false), (true, true), (false, true)] {
        platform(by_platform).await;
        org(by_org).await;
        assert_eq!(simulated().await, by_platform || by_org, "platform {by_platform}, organisation {by_org}");
    }
    platform(false).await;
    org(false).await;

    // Switched on after an intent was checked and before it is signed: its window is held meanwhile, or a row that it waits for in a statement
    // that reads settings too.
    let of_it = "SELECT count(*) FROM intents WHERE value_wei = 200000000000000";
    for (rows, by_platform) in [("spending_windows", true), ("spending_windows", false), ("agents", true)] {
        let mut held = stack.db.begin().await.unwrap();
        let hold = format!("SELECT 1 FROM {rows} FOR UPDATE");
        sqlx::query(sqlx::AssertSqlSafe(hold)).execute(&mut *held).await.unwrap();
        let under_way = tokio::spawn({
            let agent = elsewhere.clone();
            async move { agent.submit_with_key("under way", pay("0.0002")).await }
        });
        until(Duration::from_secs(20), "the intent waits", async || {
            stack.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await > 0
        })
        .await;
        if by_platform {
            platform(true).await;
        } else {
            org(true).await;
        }
        held.rollback().await.unwrap();
        let reply = under_way.await.unwrap();
        let detail = reply.clone().refused(503);
        assert!(detail.contains("simulated") && reply.headers.contains_key("retry-after"), "{detail}");
        assert_eq!(stack.count(of_it).await, 0, "nothing is signed");
        // Nothing is reserved either: the same key goes on, simulated.
        let body = elsewhere.submit_with_key("under way", pay("0.0002")).await.expect(201);
        assert_eq!((stack.count(of_it).await, &body["simulation_status"]), (1, &json!("success")));
        stack.sql("DELETE FROM idempotency; UPDATE intents SET value_wei = 0 WHERE value_wei = 200000000000000").await;
        platform(false).await;
        org(false).await;
    }
}
