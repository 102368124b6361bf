//! What the database knows, for gauges: one statement.

use std::collections::BTreeMap;

use sqlx::{Connection as _, PgConnection, Row as _};

use crate::intents::store::held;

/// Seconds after which what was broadcast and is not mined counts as stuck.
const STUCK_S: f64 = 300.0;

/// Counts of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ChainCounts {
    /// Nonces that are not final.
    pub open: f64,
    /// Age of the oldest that was broadcast, in seconds. Neither what a freeze holds counts here and below, nor what is others'.
    pub oldest_s: f64,
    /// Broadcast and not mined for long.
    pub stuck: f64,
    /// Signed, and held back by a freeze.
    pub held: f64,
    /// Used or left out by others.
    pub foreign: f64,
    /// Handed out and not mined.
    pub sign_only: f64,
    /// Lanes with such a slot.
    pub stuck_lanes: f64,
    /// Open slots of the lane that has most.
    pub deepest: f64,
    /// Lanes that wait for an operator.
    pub frozen: f64,
}

/// Agents that have used so much of their daily limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct AtLimit {
    pub percent_80: f64,
    pub percent_90: f64,
    pub percent_100: f64,
}

/// What waits to be told, and to be linked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Waiting {
    pub webhooks: f64,
    pub webhooks_dead: f64,
    pub unlinked: f64,
    pub mails: f64,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// By chain id.
    pub chains: BTreeMap<u64, ChainCounts>,
    /// By spend group.
    pub limits: BTreeMap<String, AtLimit>,
    /// By scope.
    pub freezes: BTreeMap<String, f64>,
    pub waiting: Waiting,
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
    // Compiling it takes the server ten times as long as running it; and the server should give it up before we do.
    sqlx::query("SELECT set_config('jit', 'off', true), set_config('statement_timeout', '8s', true)")
        .execute(&mut *read)
        .await?;
    let rows = sqlx::query(concat!(
        "WITH RECURSIVE chain AS (
             SELECT min(chain_id) AS id FROM slots WHERE state <> 'final'
             UNION ALL
             SELECT (SELECT min(chain_id) FROM slots WHERE state <> 'final' AND chain_id > chain.id) FROM chain WHERE chain.id IS NOT NULL
         ), lane AS (
             SELECT chain.id AS chain_id, count(*) AS open,
                    count(*) FILTER (WHERE sign_only AND state IN ('signed', 'broadcast')) AS sign_only,
                    count(*) FILTER (WHERE NOT sign_only AND NOT is_held AND state IN ('signed', 'broadcast')
                                       AND created_at < clock_timestamp() - make_interval(secs => $1)) AS stuck,
                    count(*) FILTER (WHERE is_held) AS held, count(*) FILTER (WHERE state = 'foreign') AS foreigns,
                    min(created_at) FILTER (WHERE NOT sign_only AND NOT is_held AND state <> 'foreign') AS oldest
             FROM chain CROSS JOIN LATERAL (
                 SELECT s.address, s.state, s.sign_only, s.created_at,
                        -- Asked of the few only that no node is known to have.
                        s.state = 'signed' AND NOT s.sign_only AND EXISTS (
                            SELECT 1 FROM intents i WHERE i.id = s.intent_id AND ",
        held!(),
        " IS NOT NULL) AS is_held
                 FROM slots s
                 WHERE s.chain_id = chain.id AND s.state <> 'final' ORDER BY s.chain_id, s.address, s.nonce LIMIT $2) AS open
             GROUP BY chain.id, address
         ), open AS (
             SELECT chain_id::text AS label, sum(open) AS open, max(open) AS deepest, sum(sign_only) AS sign_only, sum(stuck) AS stuck,
                    sum(held) AS held, sum(foreigns) AS foreigns,
                    count(*) FILTER (WHERE stuck > 0) AS stuck_lanes,
                    coalesce(extract(epoch FROM clock_timestamp() - min(oldest)), 0) AS oldest_s
             FROM lane GROUP BY chain_id
         ), limits AS (
             SELECT w.spend_group, count(*) FILTER (WHERE w.value_sum_wei * 5 >= a.tx_daily_limit_wei * 4) AS at_80,
                    count(*) FILTER (WHERE w.value_sum_wei * 10 >= a.tx_daily_limit_wei * 9) AS at_90,
                    count(*) FILTER (WHERE w.value_sum_wei >= a.tx_daily_limit_wei) AS at_100
             FROM (SELECT agent_id, spend_group, value_sum_wei FROM spending_windows LIMIT $4) AS w JOIN agents a ON a.id = w.agent_id
             -- A name with a colon is another unit than a spend group.
             WHERE a.tx_daily_limit_wei > 0 AND w.value_sum_wei > 0 AND strpos(w.spend_group, ':') = 0
             GROUP BY w.spend_group
         )
         SELECT what, label, value::float8 AS value
         FROM open CROSS JOIN LATERAL (VALUES ('open', open), ('deepest', deepest), ('sign_only', sign_only), ('stuck', stuck),
                                              ('stuck_lanes', stuck_lanes), ('oldest_s', oldest_s), ('held', held),
                                              ('foreign', foreigns)) AS v(what, value)
         UNION ALL SELECT 'frozen', chain_id::text, count(*) FROM lanes WHERE frozen_at IS NOT NULL GROUP BY chain_id
         UNION ALL SELECT 'at_80', spend_group, at_80 FROM limits
         UNION ALL SELECT 'at_90', spend_group, at_90 FROM limits
         UNION ALL SELECT 'at_100', spend_group, at_100 FROM limits
         UNION ALL SELECT 'freezes', scope, count(*) FROM (SELECT scope FROM freezes LIMIT $3) AS freezes GROUP BY scope
         UNION ALL SELECT 'webhooks_waiting', '', count(*) FROM (SELECT 1 FROM webhook_deliveries WHERE NOT is_dead LIMIT $3) AS waiting
         -- What is dead is old: each is counted by itself, and neither is hidden behind the other.
         UNION ALL SELECT 'webhooks_dead', '', count(*) FILTER (WHERE is_dead)
             FROM (SELECT is_dead FROM webhook_deliveries ORDER BY created_at LIMIT $3) AS oldest
         UNION ALL SELECT 'unlinked', '', count(*) FROM (SELECT 1 FROM audit_unlinked LIMIT $3) AS unlinked
         UNION ALL SELECT 'mails', '', count(*) FROM (SELECT 1 FROM mail_outbox LIMIT $3) AS mails"
    ))
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
            "held" => sample.chains.entry(chain()).or_default().held = value,
            "foreign" => sample.chains.entry(chain()).or_default().foreign = value,
            "oldest_s" => sample.chains.entry(chain()).or_default().oldest_s = value,
            "stuck_lanes" => sample.chains.entry(chain()).or_default().stuck_lanes = value,
            "deepest" => sample.chains.entry(chain()).or_default().deepest = value,
            "frozen" => sample.chains.entry(chain()).or_default().frozen = value,
            "at_80" => sample.limits.entry(label).or_default().percent_80 = value,
            "at_90" => sample.limits.entry(label).or_default().percent_90 = value,
            "at_100" => sample.limits.entry(label).or_default().percent_100 = value,
            "freezes" => {
                sample.freezes.insert(label, value);
            }
            "webhooks_waiting" => sample.waiting.webhooks = value,
            "webhooks_dead" => sample.waiting.webhooks_dead = value,
            "unlinked" => sample.waiting.unlinked = value,
            _ => sample.waiting.mails = value,
        }
    }
    Ok(sample)
}
