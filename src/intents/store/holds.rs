//! What a freeze holds back: signed bytes that no node is known to have. Everything else of a frozen lane is followed as ever.

use alloy::primitives::B256;
use sqlx::{PgPool, Row as _};

/// What freezes the payment of a slot `s` of an intent `i` that no node is known to have, oldest freeze first; NULL when nothing does, or
/// there is nothing to hold: bytes that we never send, a payment that a no-op of ours is to replace. One place for the rule; what sends
/// and what shows both ask it.
macro_rules! held {
    () => {
        "(CASE WHEN s.state = 'signed' AND NOT s.sign_only AND NOT EXISTS (
              SELECT 1 FROM attempts n WHERE n.chain_id = s.chain_id AND n.address = s.address AND n.nonce = s.nonce AND n.kind = 'noop')
          THEN (
              SELECT f.scope || ' is frozen' || coalesce(' (' || nullif(f.reason, '') || ')', '') FROM freezes f
              WHERE f.org_id = i.org_id AND (f.scope, f.subject) IN (('organisation', i.org_id::text), ('agent', i.agent_id::text),
                  ('key', '0x' || encode(s.address, 'hex')), ('chain', s.chain_id::text))
              ORDER BY f.created_at, f.id LIMIT 1)
          END)"
    };
}
pub(crate) use held;

/// For people: why a transaction is not sent, from what [`held!`] says.
pub(super) fn words(held: &str) -> String {
    format!(
        "not broadcast, because its {held}: it is sent when a human lifts the freeze, and until then it can be cancelled"
    )
}

/// What may be done with an attempt's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToSend {
    /// They may be sent.
    Bytes(Vec<u8>),
    /// They may not, while something is frozen; what.
    Held(String),
    /// A later attempt of ours is to take the nonce: who has not sent these sends them no more.
    Superseded,
}

/// The bytes of an attempt, unless a freeze holds them or they are not the slot's latest. They are large, so they are read only to be sent: what is asked here is true when
/// they are.
pub async fn to_send(pool: &PgPool, tx_hash: B256) -> Result<ToSend, sqlx::Error> {
    let row = sqlx::query(concat!(
        "SELECT h.held, CASE WHEN h.held IS NULL AND NOT l.superseded THEN a.raw END AS raw
         FROM attempts a JOIN slots s ON s.chain_id = a.chain_id AND s.address = a.address AND s.nonce = a.nonce
         LEFT JOIN intents i ON i.id = s.intent_id
         CROSS JOIN LATERAL (SELECT EXISTS (
             SELECT 1 FROM attempts n WHERE n.chain_id = a.chain_id AND n.address = a.address AND n.nonce = a.nonce AND n.ordinal > a.ordinal
         ) AS superseded) AS l
         CROSS JOIN LATERAL (SELECT ",
        held!(),
        " AS held) AS h WHERE a.tx_hash = $1"
    ))
    .bind(tx_hash.as_slice())
    .fetch_one(pool)
    .await?;
    Ok(match (row.try_get::<Option<&str>, _>("held")?, row.try_get("raw")?) {
        (Some(held), _) => ToSend::Held(words(held)),
        (None, Some(raw)) => ToSend::Bytes(raw),
        (None, None) => ToSend::Superseded,
    })
}
