use std::collections::BTreeMap;

use futures::StreamExt as _;
use uuid::Uuid;

use super::{Caller, LIMITED, Scene, World, call, is_for_others, parameters, routes};
use crate::harness::stack::Stack;

/// What is in every table, but for what is written about requests and by the daemon's own rounds.
async fn digest(stack: &Stack) -> BTreeMap<String, String> {
    const ABOUT_REQUESTS: &[&str] = &[
        "audit_events",
        "audit_events_default",
        "throttles",
        "usage_counts",
        "daemons",
        "kek_leases",
        "_sqlx_migrations",
    ];
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'audit\\_%' ORDER BY 1",
    )
    .fetch_all(&stack.db)
    .await
    .unwrap();
    let mut found = BTreeMap::new();
    for table in tables.into_iter().filter(|table| !ABOUT_REQUESTS.contains(&table.as_str())) {
        // When a key was last used is about requests too.
        let sql = format!(
            "SELECT md5(coalesce(string_agg((to_jsonb(t) - 'last_used_at')::text, ' ' ORDER BY t::text), '')) FROM \"{table}\" t"
        );
        let hash: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&stack.db).await.unwrap();
        found.insert(table, hash);
    }
    assert!(found.contains_key("secrets") && found.contains_key("agents"));
    found
}

#[tokio::test]
async fn threat_31_a_swapped_id_is_not_there_and_changes_nothing() {
    let scene = Scene::set().await;
    let ours = World::make(&scene.stack, &scene.stack.org_id, LIMITED).await;
    let theirs = World::make(&scene.stack, &scene.other_org, LIMITED).await;
    // Another of the same organisation: what belongs to one vault or agent is not another's.
    let sibling = World::make(&scene.stack, &scene.stack.org_id, LIMITED).await;
    let owner = scene.client(Caller::Owner, &ours).await;
    let agent = scene.client(Caller::Granted, &ours).await;

    let mut attempts = Vec::new();
    for route in routes() {
        let names: Vec<&str> =
            parameters(route.path).filter(|name| name.ends_with("_id") && *name != "name_or_id").collect();
        for name in &names {
            let (random, long) = (Uuid::new_v4().to_string(), "9".repeat(3_000));
            let mut swaps = vec![theirs.value(name).to_owned(), random, long];
            swaps.extend(["not-an-id", "%00", "..%2f", "00000000-0000-0000-0000-000000000000", "'"].map(str::to_owned));
            let kinds =
                ours.values.iter().filter(|(kind, _)| kind.ends_with("_id") && *kind != name && **kind != "name_or_id");
            swaps.extend(kinds.map(|(_, id)| id.clone()));
            // The last of several belongs to the first.
            if names.len() > 1 && names.last() == Some(name) {
                swaps.push(sibling.value(name).to_owned());
            }
            attempts.extend(swaps.into_iter().map(|swap| (route.clone(), (*name).to_owned(), swap)));
        }
    }
    assert!(attempts.len() > 200, "{}", attempts.len());
    let before = digest(&scene.stack).await;
    let refused = futures::stream::iter(&attempts).map(|(route, name, swap)| {
        let (ours, owner, agent) = (&ours, &owner, &agent);
        async move {
            let path = ours.path(route.path, Some((name, swap)));
            let by_owner = call(owner, route, &path, ours).await.status.as_u16();
            let by_agent = call(agent, route, &path, ours).await.status.as_u16();
            let no = |status: u16| status == 404 || status == 403;
            let fine =
                if is_for_others(&route.method, route.path) { no(by_owner) } else { by_owner == 404 } && no(by_agent);
            (!fine).then(|| format!("{} {path}: {by_owner} to the owner, {by_agent} to the agent", route.method))
        }
    });
    let answered: Vec<String> = refused.buffer_unordered(16).filter_map(std::future::ready).collect().await;
    assert!(answered.is_empty(), "{}", answered.join("\n"));
    assert_eq!(digest(&scene.stack).await, before, "a swapped id changed something");
}
