//! What the database knows, for gauges: one statement.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};

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
    pub mails: f64,
}

/// Reads it. Of the slots only the open ones are read, by their partial index; of everything that may grow without end, no more than
/// 100,000 rows are counted.
pub(super) async fn sample(conn: &mut PgConnection) -> Result<Sample, sqlx::Error> {
    let rows = sqlx::query(
        "WITH open AS (
             SELECT chain_id, count(*) AS open,
                    count(*) FILTER (WHERE sign_only AND state IN ('signed', 'broadcast')) AS sign_only,
                    count(*) FILTER (WHERE NOT sign_only AND state IN ('signed', 'broadcast')
                                       AND created_at < clock_timestamp() - make_interval(secs => $1)) AS stuck,
                    coalesce(extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE NOT sign_only)), 0) AS oldest_s
             FROM slots WHERE state <> 'final' GROUP BY chain_id
         ), limits AS (
             SELECT w.spend_group, count(*) FILTER (WHERE w.value_sum_wei * 5 >= a.tx_daily_limit_wei * 4) AS at_80,
                    count(*) FILTER (WHERE w.value_sum_wei >= a.tx_daily_limit_wei) AS at_100
             FROM spending_windows w JOIN agents a ON a.id = w.agent_id
             -- A name with a colon is another unit than a spend group.
             WHERE a.tx_daily_limit_wei > 0 AND w.value_sum_wei > 0 AND strpos(w.spend_group, ':') = 0
             GROUP BY w.spend_group
         )
         SELECT 'open' AS what, chain_id::text AS label, open::float8 AS value FROM open
         UNION ALL SELECT 'sign_only', chain_id::text, sign_only FROM open
         UNION ALL SELECT 'stuck', chain_id::text, stuck FROM open
         UNION ALL SELECT 'oldest_s', chain_id::text, oldest_s FROM open
         UNION ALL SELECT 'frozen', chain_id::text, count(*) FROM lanes WHERE frozen_at IS NOT NULL GROUP BY chain_id
         UNION ALL SELECT 'at_80', spend_group, at_80 FROM limits
         UNION ALL SELECT 'at_100', spend_group, at_100 FROM limits
         UNION ALL SELECT 'freezes', scope, count(*) FROM freezes GROUP BY scope
         UNION ALL SELECT 'webhooks_waiting', '', count(*)
             FROM (SELECT 1 FROM webhook_deliveries WHERE NOT is_dead LIMIT 100000) AS waiting
         UNION ALL SELECT 'webhooks_dead', '', count(*)
             FROM (SELECT 1 FROM webhook_deliveries WHERE is_dead LIMIT 100000) AS dead
         UNION ALL SELECT 'mails', '', count(*) FROM (SELECT 1 FROM mail_outbox LIMIT 100000) AS mails",
    )
    .bind(STUCK_S)
    .fetch_all(conn)
    .await?;
    let mut sample = Sample::default();
    for row in rows {
        let (label, value) = (row.try_get::<String, _>("label")?, row.try_get::<f64, _>("value")?);
        let chain = || label.parse::<u64>().unwrap_or_default();
        match row.try_get::<&str, _>("what")? {
            "open" => sample.chains.entry(chain()).or_default().open = value,
            "sign_only" => sample.chains.entry(chain()).or_default().sign_only = value,
            "stuck" => sample.chains.entry(chain()).or_default().stuck = value,
            "oldest_s" => sample.chains.entry(chain()).or_default().oldest_s = value,
            "frozen" => sample.chains.entry(chain()).or_default().frozen = value,
            "at_80" => sample.limits.entry(label).or_default().0 = value,
            "at_100" => sample.limits.entry(label).or_default().1 = value,
            "freezes" => {
                sample.freezes.insert(label, value);
            }
            "webhooks_waiting" => sample.webhooks_waiting = value,
            "webhooks_dead" => sample.webhooks_dead = value,
            _ => sample.mails = value,
        }
    }
    Ok(sample)
}
