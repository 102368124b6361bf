//! Where the database's time goes: the statements of a submitted intent, by pg_stat_statements.

use serde_json::json;
use sqlx::Row as _;

use crate::Plan;
use crate::report::Report;
use crate::world::{World, payers};

/// Statements that are printed, the dearest first.
const SHOWN: i64 = 24;

/// Submits over eight agents with a key each, 16 at once, and prints what each statement cost, divided by the intents. Counting costs
/// something itself: the throughput of this part is below that of `submit`.
pub async fn measure(plan: &Plan, report: &mut Report) {
    report.part("statements of a submitted intent (pg_stat_statements, planning too)");
    report.columns();
    let settings =
        ["shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_planning=on", "track_io_timing=on"];
    let world = World::on(&settings, vec![("base", 8453)], &[]).await;
    world.stack.sql("CREATE EXTENSION pg_stat_statements").await;
    let callers = payers(&world.agents(8).await, "", &json!({}));
    let before = world.stack.count("SELECT count(*) FROM intents").await;
    world.stack.sql("SELECT pg_stat_statements_reset()").await;
    world.measure(plan, report, "8 agents with a key each, 16 at once", &callers, 16, None).await;
    // With those of the time to warm up, which are counted too, and with what follows them to their end.
    let intents = (world.stack.count("SELECT count(*) FROM intents").await - before).max(1) as f64;
    let rows = sqlx::query(
        "SELECT calls::float8 AS calls, total_exec_time AS exec, total_plan_time AS plan, wal_bytes::float8 AS wal, rows::float8 AS rows,
                regexp_replace(query, '\\s+', ' ', 'g') AS query,
                sum(total_exec_time + total_plan_time) OVER () AS whole, sum(calls::float8) OVER () AS all_calls
         FROM pg_stat_statements ORDER BY total_exec_time + total_plan_time DESC LIMIT $1",
    )
    .bind(SHOWN)
    .fetch_all(&world.stack.db)
    .await
    .unwrap();
    let each = |row: &sqlx::postgres::PgRow, column: &str| row.get::<f64, _>(column) / intents;
    if let Some(row) = rows.first() {
        let all = format!("{:.2} calls, {:.3} ms an intent", each(row, "all_calls"), each(row, "whole"));
        report.figure("all statements", &all);
    }
    for row in &rows {
        let query: String = row.get::<String, _>("query").chars().take(150).collect();
        println!(
            "  {:6.2} calls {:7.3} ms ({:6.3} to plan) {:6.0} B of WAL  {query}",
            each(row, "calls"),
            each(row, "exec") + each(row, "plan"),
            each(row, "plan"),
            each(row, "wal"),
        );
    }
}
