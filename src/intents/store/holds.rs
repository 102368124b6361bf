//! What holds signed bytes back that no node is known to have: a freeze, an agent that signs nothing any more, its rules as they are by
//! now. Everything else of the lane is followed as ever.

use alloy::primitives::B256;
use sqlx::{PgPool, Row as _};

use super::super::lanes::Lane;
use super::{signed, unsigned};
use crate::ids::IntentId;

/// What is said before the rules that forbid a payment by now; with the apostrophe as its reader writes it.
macro_rules! rules_forbid {
    ($apostrophe:literal) => {
        concat!("agent", $apostrophe, "s guardrails forbid it by now, until they are changed: ")
    };
}
pub(crate) use rules_forbid;

/// What holds the payment of a slot `s` of an intent `i` that no node is known to have, oldest freeze first; NULL when nothing does, or
/// there is nothing to hold: a payment that a no-op of ours is to replace. One place for the rule; what sends and what shows both ask it.
/// `held!(now)` leaves the agent's rules out, which are applied anew whenever it is sent.
macro_rules! held {
    () => {
        held!(concat!(", '", $crate::intents::store::rules_forbid!("''"), "' || s.rule_hold"))
    };
    (now) => {
        held!("")
    };
    ($rules:expr) => {
        concat!(
            "(CASE WHEN s.state = 'signed' AND NOT EXISTS (
                 SELECT 1 FROM attempts n
                 WHERE n.chain_id = s.chain_id AND n.address = s.address AND n.nonce = s.nonce AND n.kind = 'noop')
             THEN coalesce((
                 SELECT f.scope || ' is frozen' || coalesce(' (' || nullif(f.reason, '') || ')', '') || ', until a human lifts the freeze'
                 FROM freezes f
                 WHERE f.org_id = i.org_id AND (f.scope, f.subject) IN (('organisation', i.org_id::text), ('agent', i.agent_id::text),
                     ('key', '0x' || encode(s.address, 'hex')), ('chain', s.chain_id::text))
                 ORDER BY f.created_at, f.id LIMIT 1), (
                 SELECT CASE WHEN g.deleted_at IS NOT NULL THEN 'agent is deleted'
                             WHEN NOT g.is_active THEN 'agent is deactivated, until a human activates it again'
                             WHEN NOT g.intents_api_enabled THEN 'agent''s Intents API is off, until a human turns it on again' END
                 FROM agents g WHERE g.id = i.agent_id)",
            $rules,
            ") END)"
        )
    };
}
pub(crate) use held;

/// For people: why a transaction is not sent, or its bytes are not given out, from what [`held!`] says.
pub(super) fn words(held: &str, sign_only: bool) -> String {
    let what = if sign_only { "its bytes are not given out" } else { "not broadcast" };
    format!("{what}, because its {held}. A human can cancel it")
}

/// For people: why the agent's rules hold a payment back.
pub fn words_of_rules(why: &str) -> String {
    words(&format!("{}{why}", rules_forbid!("'")), false)
}

/// What may be done with an attempt's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToSend {
    /// They may be sent.
    Bytes {
        /// The bytes.
        raw: Vec<u8>,
        /// The intent whose payment they are, if no node is known to have it: its agent's rules are to be asked first.
        unsent: Option<IntentId>,
        /// The rules forbade it the last time.
        rule_hold: bool,
    },
    /// They may not, while something of it is frozen or its agent signs nothing; what.
    Held(String),
    /// A later attempt of ours is to take the nonce, or the payment was called failed: who has not sent these sends them no more.
    Superseded,
}

/// The bytes of an attempt, unless something holds them or they are not the slot's latest. They are large, so they are read only to be
/// sent: what is asked here is true when they are.
pub async fn to_send(pool: &PgPool, tx_hash: B256) -> Result<ToSend, sqlx::Error> {
    let row = sqlx::query(concat!(
        "SELECT h.held, s.sign_only, s.rule_hold IS NOT NULL AS rule_hold,
                CASE WHEN s.state = 'signed' AND a.kind = 'intent' AND NOT s.sign_only THEN s.intent_id END AS unsent,
                CASE WHEN h.held IS NULL AND NOT l.superseded THEN a.raw END AS raw
         FROM attempts a JOIN slots s ON s.chain_id = a.chain_id AND s.address = a.address AND s.nonce = a.nonce
         LEFT JOIN intents i ON i.id = s.intent_id
         CROSS JOIN LATERAL (SELECT a.kind = 'intent' AND s.outcome IS NOT DISTINCT FROM 'foreign' OR EXISTS (
             SELECT 1 FROM attempts n WHERE n.chain_id = a.chain_id AND n.address = a.address AND n.nonce = a.nonce AND n.ordinal > a.ordinal
         ) AS superseded) AS l
         CROSS JOIN LATERAL (SELECT ",
        held!(now),
        " AS held) AS h WHERE a.tx_hash = $1"
    ))
    .bind(tx_hash.as_slice())
    .fetch_one(pool)
    .await?;
    let sign_only = row.try_get("sign_only")?;
    Ok(match (row.try_get::<Option<&str>, _>("held")?, row.try_get("raw")?) {
        (Some(held), _) => ToSend::Held(words(held, sign_only)),
        (None, Some(raw)) => {
            ToSend::Bytes { raw, unsent: row.try_get("unsent")?, rule_hold: row.try_get("rule_hold")? }
        }
        (None, None) => ToSend::Superseded,
    })
}

/// Notes why the agent's rules forbid to send an intent's payment, or that they do not any more; and says it for people.
pub async fn note_rule_hold(pool: &PgPool, intent: IntentId, why: Option<&str>) -> Result<Option<String>, sqlx::Error> {
    let held: Option<Option<String>> = sqlx::query_scalar(concat!(
        "WITH noted AS (UPDATE slots SET rule_hold = left($2, 1000) WHERE intent_id = $1 AND state = 'signed' RETURNING *)
         SELECT ",
        held!(),
        " FROM noted s JOIN intents i ON i.id = s.intent_id"
    ))
    .bind(intent)
    .bind(why)
    .fetch_optional(pool)
    .await?;
    Ok(held.flatten().map(|held| words(&held, false)))
}

/// The lowest nonce of the lane below `nonce` whose payment is held back: nothing after it can be mined before it.
pub async fn held_before(pool: &PgPool, lane: Lane, nonce: u64) -> Result<Option<u64>, sqlx::Error> {
    let held: Option<i64> = sqlx::query_scalar(concat!(
        "SELECT s.nonce FROM slots s JOIN intents i ON i.id = s.intent_id
         WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce < $3 AND s.state = 'signed' AND NOT s.sign_only AND ",
        held!(),
        " IS NOT NULL ORDER BY s.nonce LIMIT 1"
    ))
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .fetch_optional(pool)
    .await?;
    Ok(held.map(unsigned))
}
