//! What the database knows, for gauges: one statement.

use std::collections::BTreeMap;

use sqlx::{Connection as _, PgConnection, Row as _};

/// Seconds after which what was broadcast and is not mined counts as stuck.
const STUCK_S: f64 = 300.0;

/// Counts of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ChainCounts {
    /// Nonces that are not final.
    pub open: f64,
    /// Age of the oldest that was broadcast, in seconds.
    pub oldest_s: f64,
    /// Broadcast and not mined for long.
    pub stuck: f64,
    /// Handed out and not mined.
    pub sign_only: f64,
    /// Lanes with such a slot.
    pub stuck_lanes: f64,
    /// Open slots of the lane that has most.
    pub deepest: f64,
    /// Lanes that wait for an operator.
    pub frozen: f64,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// By chain id.
    pub chains: BTreeMap<u64, ChainCounts>,
    /// By spend group: agents at 80 % and at 100 %.
    pub limits: BTreeMap<String, (f64, f64)>,
    /// By scope.
    pub freezes: BTreeMap<String, f64>,
    pub webhooks_waiting: f64,
    pub webhooks_dead: f64,
    pub unlinked: f64,
    pub mails: f64,
}

/// Open nonces of one chain that are counted.
const SLOTS_MAX: i64 = 20_000;
/// Rows of what waits that are counted.
const ROWS_MAX: i64 = 10_000;
/// Spending windows that are read.
const WINDOWS_MAX: i64 = 100_000;

/// Reads it. Whatever has piled up, no more than some rows of each table are read, and of the slots only open ones: from their partial
/// index, which also tells the chains one by one.
pub(super) async fn sample(conn: &mut PgConnection) -> Result<Sample, sqlx::Error> {
    let mut read = conn.begin().await?;
    // Compiling it takes the server ten times as long as running it.
    sqlx::query("SET LOCAL jit = off").execute(&mut *read).await?;
    let rows = sqlx::query(
        "WITH RECURSIVE chain AS (
             SELECT min(chain_id) AS id FROM slots WHERE state <> 'final'
             UNION ALL
             SELECT (SELECT min(chain_id) FROM slots WHERE state <> 'final' AND chain_id > chain.id) FROM chain WHERE chain.id IS NOT NULL
         ), lane AS (
             SELECT chain.id AS chain_id, count(*) AS open,
                    count(*) FILTER (WHERE sign_only AND state IN ('signed', 'broadcast')) AS sign_only,
                    count(*) FILTER (WHERE NOT sign_only AND state IN ('signed', 'broadcast')
                                       AND created_at < clock_timestamp() - make_interval(secs => $1)) AS stuck,
                    min(created_at) FILTER (WHERE NOT sign_only) AS oldest
             FROM chain CROSS JOIN LATERAL (
                 SELECT address, state, sign_only, created_at FROM slots
                 WHERE chain_id = chain.id AND state <> 'final' ORDER BY chain_id, address, nonce LIMIT $2) AS open
             GROUP BY chain.id, address
         ), open AS (
             SELECT chain_id::text AS label, sum(open) AS open, max(open) AS deepest, sum(sign_only) AS sign_only, sum(stuck) AS stuck,
                    count(*) FILTER (WHERE stuck > 0) AS stuck_lanes,
                    coalesce(extract(epoch FROM clock_timestamp() - min(oldest)), 0) AS oldest_s
             FROM lane GROUP BY chain_id
         ), limits AS (
             SELECT w.spend_group, count(*) FILTER (WHERE w.value_sum_wei * 5 >= a.tx_daily_limit_wei * 4) AS at_80,
                    count(*) FILTER (WHERE w.value_sum_wei >= a.tx_daily_limit_wei) AS at_100
             FROM (SELECT agent_id, spend_group, value_sum_wei FROM spending_windows LIMIT $4) AS w JOIN agents a ON a.id = w.agent_id
             -- A name with a colon is another unit than a spend group.
             WHERE a.tx_daily_limit_wei > 0 AND w.value_sum_wei > 0 AND strpos(w.spend_group, ':') = 0
             GROUP BY w.spend_group
         ), deliveries AS (
             SELECT count(*) FILTER (WHERE is_dead) AS dead, count(*) FILTER (WHERE NOT is_dead) AS waiting
             FROM (SELECT is_dead FROM webhook_deliveries LIMIT $3) AS looked_at
         )
         SELECT what, label, value::float8 AS value
         FROM open CROSS JOIN LATERAL (VALUES ('open', open), ('deepest', deepest), ('sign_only', sign_only), ('stuck', stuck),
                                              ('stuck_lanes', stuck_lanes), ('oldest_s', oldest_s)) AS v(what, value)
         UNION ALL SELECT 'frozen', chain_id::text, count(*) FROM lanes WHERE frozen_at IS NOT NULL GROUP BY chain_id
         UNION ALL SELECT 'at_80', spend_group, at_80 FROM limits
         UNION ALL SELECT 'at_100', spend_group, at_100 FROM limits
         UNION ALL SELECT 'freezes', scope, count(*) FROM (SELECT scope FROM freezes LIMIT $3) AS freezes GROUP BY scope
         UNION ALL SELECT 'webhooks_waiting', '', waiting FROM deliveries
         UNION ALL SELECT 'webhooks_dead', '', dead FROM deliveries
         UNION ALL SELECT 'unlinked', '', count(*) FROM (SELECT 1 FROM audit_unlinked LIMIT $3) AS unlinked
         UNION ALL SELECT 'mails', '', count(*) FROM (SELECT 1 FROM mail_outbox LIMIT $3) AS mails",
    )
    .bind(STUCK_S)
    .bind(SLOTS_MAX)
    .bind(ROWS_MAX)
    .bind(WINDOWS_MAX)
    .fetch_all(&mut *read)
    .await?;
    read.commit().await?;
    let mut sample = Sample::default();
    for row in rows {
        let (label, value) = (row.try_get::<String, _>("label")?, row.try_get::<f64, _>("value")?);
        let chain = || label.parse::<u64>().unwrap_or_default();
        match row.try_get::<&str, _>("what")? {
            "open" => sample.chains.entry(chain()).or_default().open = value,
            "sign_only" => sample.chains.entry(chain()).or_default().sign_only = value,
            "stuck" => sample.chains.entry(chain()).or_default().stuck = value,
            "oldest_s" => sample.chains.entry(chain()).or_default().oldest_s = value,
            "stuck_lanes" => sample.chains.entry(chain()).or_default().stuck_lanes = value,
            "deepest" => sample.chains.entry(chain()).or_default().deepest = value,
            "frozen" => sample.chains.entry(chain()).or_default().frozen = value,
            "at_80" => sample.limits.entry(label).or_default().0 = value,
            "at_100" => sample.limits.entry(label).or_default().1 = value,
            "freezes" => {
                sample.freezes.insert(label, value);
            }
            "webhooks_waiting" => sample.webhooks_waiting = value,
            "unlinked" => sample.unlinked = value,
            "webhooks_dead" => sample.webhooks_dead = value,
            _ => sample.mails = value,
        }
    }
    Ok(sample)
}
