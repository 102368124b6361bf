//! Intents with their slot and bytes, as the API shows them.

use alloy::primitives::B256;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};
use time::OffsetDateTime;

use super::super::parse::Kind;
use super::super::state::{Outcome, SlotState};
use super::holds::{held, words};
use super::{NewIntent, SimulationNote, address_from, hash_from, per_gas, unsigned};
use crate::chain::ChainId;
use crate::chain::tx::{Fees, UnsignedTx};
use crate::ids::{AgentId, IntentId, OrgId, SimulationId};
use crate::money::Wei;

/// An intent with its slot and the attempt that counts, as the API shows it.
#[derive(Debug, Clone)]
pub struct IntentRow {
    /// Its id.
    pub id: IntentId,
    /// Whose.
    pub org_id: OrgId,
    /// Which agent's.
    pub agent_id: AgentId,
    /// Which route made it.
    pub sign_only: bool,
    /// The chain's registry name.
    pub chain: String,
    /// What was checked, with the fees of the attempt that counts.
    pub tx: UnsignedTx,
    /// The simulation, if there was one.
    pub simulation: Option<SimulationNote>,
    /// When it was signed (or refused).
    pub created_at: OffsetDateTime,
    /// The slot, unless it was refused by its simulation.
    pub slot: Option<SlotRow>,
}

/// The slot's part of it.
#[derive(Debug, Clone)]
pub struct SlotRow {
    /// The nonce.
    pub nonce: u64,
    /// Where it is.
    pub state: SlotState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The intent's own bytes: those that were mined, or else the latest. `None` while they are not to be given out: something holds them
    /// back, or a no-op of ours is to take the nonce and is not final, and whoever has them could be faster.
    pub raw: Option<Vec<u8>>,
    /// Their hash.
    pub tx_hash: B256,
    /// The hash of the latest no-op that is to take the nonce, if there is one.
    pub noop_tx_hash: Option<B256>,
    /// The hash that was mined.
    pub mined_tx_hash: Option<B256>,
    /// Where.
    pub block_number: Option<u64>,
    /// Where.
    pub block_hash: Option<B256>,
    /// By the receipt.
    pub gas_used: Option<u64>,
    /// By the receipt, wei per gas.
    pub effective_gas_price: Option<Wei>,
    /// Blocks on top, its own included, when it was last looked at.
    pub confirmations: u64,
    /// What the node last said, or why it failed.
    pub error_message: Option<String>,
    /// When a node first took it.
    pub broadcast_at: Option<OffsetDateTime>,
    /// Why it is not sent, while something holds it back.
    pub held: Option<String>,
    /// The nonce of the key that comes before it and is held back: it is not mined before that one.
    pub waits_for: Option<u64>,
}

impl IntentRow {
    /// A row as it was just written.
    pub(in crate::intents) fn new(new: &NewIntent<'_>, at: OffsetDateTime, slot: Option<SlotRow>) -> Self {
        Self {
            id: new.id,
            org_id: new.org_id,
            agent_id: new.agent_id,
            sign_only: new.kind == Kind::SignOnly,
            chain: new.chain.to_owned(),
            tx: new.tx.clone(),
            simulation: new.simulation.clone(),
            created_at: at,
            slot,
        }
    }
}

impl SlotRow {
    /// A slot as T1 makes it.
    pub(in crate::intents) fn new(nonce: u64, state: SlotState, raw: Vec<u8>, tx_hash: B256) -> Self {
        Self {
            nonce,
            state,
            outcome: None,
            raw: Some(raw),
            tx_hash,
            noop_tx_hash: None,
            mined_tx_hash: None,
            block_number: None,
            block_hash: None,
            gas_used: None,
            effective_gas_price: None,
            confirmations: 0,
            error_message: None,
            broadcast_at: None,
            held: None,
            waits_for: None,
        }
    }

    /// What could not be sent is not given out either.
    pub(in crate::intents) fn withhold(&mut self, held: Option<String>) {
        (self.raw, self.held) = (None, held);
    }
}

impl FromRow<'_, PgRow> for IntentRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let simulation_id: Option<SimulationId> = row.try_get("simulation_id")?;
        let state: Option<SlotState> = row.try_get("state")?;
        let sign_only = row.try_get::<&str, _>("kind")? == Kind::SignOnly.as_str();
        let slot = match state {
            None => None,
            Some(state) => Some(SlotRow {
                nonce: unsigned(row.try_get("nonce")?),
                state,
                outcome: row.try_get("outcome")?,
                raw: row.try_get("raw")?,
                tx_hash: hash_from(row.try_get("tx_hash")?)?,
                noop_tx_hash: row.try_get::<Option<&[u8]>, _>("noop_tx_hash")?.map(hash_from).transpose()?,
                mined_tx_hash: row.try_get::<Option<&[u8]>, _>("mined_tx_hash")?.map(hash_from).transpose()?,
                block_number: row.try_get::<Option<i64>, _>("block_number")?.map(unsigned),
                block_hash: row.try_get::<Option<&[u8]>, _>("block_hash")?.map(hash_from).transpose()?,
                gas_used: row.try_get::<Option<i64>, _>("gas_used")?.map(unsigned),
                effective_gas_price: row.try_get("effective_gas_price")?,
                confirmations: row.try_get::<i32, _>("confirmations")?.try_into().unwrap_or(0),
                error_message: row.try_get("error_message")?,
                broadcast_at: row.try_get("broadcast_at")?,
                held: row.try_get::<Option<&str>, _>("held")?.map(|held| words(held, sign_only)),
                waits_for: row.try_get::<Option<i64>, _>("waits_for")?.map(unsigned),
            }),
        };
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            agent_id: row.try_get("agent_id")?,
            sign_only,
            chain: row.try_get("chain")?,
            tx: UnsignedTx { fees: fees_from(row, "live_")?, ..unsigned_tx(row)? },
            simulation: match simulation_id {
                None => None,
                Some(id) => Some(SimulationNote {
                    id,
                    status: row.try_get("simulation_status")?,
                    error: row.try_get("simulation_error")?,
                    url: row.try_get("simulation_url")?,
                }),
            },
            created_at: row.try_get("created_at")?,
            slot,
        })
    }
}

const INTENT_COLUMNS: &str = concat!(
    "SELECT i.*, s.nonce, s.state, s.outcome, s.mined_tx_hash, s.block_number, s.block_hash, s.gas_used, s.effective_gas_price,
            s.confirmations, s.error_message, s.broadcast_at, h.held, w.waits_for, a.tx_hash, n.tx_hash AS noop_tx_hash,
            coalesce(a.gas_price, i.gas_price) AS live_gas_price, coalesce(a.max_fee_per_gas, i.max_fee_per_gas) AS live_max_fee_per_gas,
            coalesce(a.max_priority_fee_per_gas, i.max_priority_fee_per_gas) AS live_max_priority_fee_per_gas,
            CASE WHEN h.held IS NULL AND (n.tx_hash IS NULL OR s.state = 'final') AND s.outcome IS DISTINCT FROM 'foreign'
                  -- Held bytes of which one node says that they are in a block.
                  AND (s.state <> 'mined' OR s.broadcast_at IS NOT NULL) THEN a.raw END AS raw
     FROM intents i
     LEFT JOIN slots s ON s.intent_id = i.id
     LEFT JOIN LATERAL (
         SELECT * FROM attempts a WHERE a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce AND a.kind = 'intent'
         ORDER BY a.tx_hash = s.mined_tx_hash DESC NULLS LAST, a.ordinal DESC LIMIT 1) AS a ON true
     LEFT JOIN LATERAL (
         SELECT tx_hash FROM attempts n WHERE n.chain_id = s.chain_id AND n.address = s.address AND n.nonce = s.nonce AND n.kind = 'noop'
         ORDER BY n.ordinal DESC LIMIT 1) AS n ON true
     CROSS JOIN LATERAL (SELECT ",
    held!(),
    " AS held) AS h
     LEFT JOIN LATERAL (SELECT s.chain_id AS its_chain, s.address AS its_address, s.nonce AS its_nonce
                        WHERE s.state IN ('signed', 'broadcast')) AS own ON true
     LEFT JOIN LATERAL (
         SELECT s.nonce AS waits_for FROM slots s JOIN intents i ON i.id = s.intent_id
         WHERE s.chain_id = its_chain AND s.address = its_address AND s.nonce < its_nonce AND s.state = 'signed' AND NOT s.sign_only AND ",
    held!(),
    " IS NOT NULL ORDER BY s.nonce LIMIT 1) AS w ON true"
);

/// One intent of an agent.
pub async fn intent(conn: &mut PgConnection, agent: AgentId, id: IntentId) -> Result<Option<IntentRow>, sqlx::Error> {
    let sql = format!("{INTENT_COLUMNS} WHERE i.id = $1 AND i.agent_id = $2");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(agent).fetch_optional(conn).await
}

/// An agent's intents, newest first, after a keyset position.
pub async fn intents(
    conn: &mut PgConnection,
    agent: AgentId,
    after: Option<(OffsetDateTime, IntentId)>,
    limit: i64,
) -> Result<Vec<IntentRow>, sqlx::Error> {
    let (at, id) = after.map_or((None, None), |(at, id)| (Some(at), Some(id)));
    let sql = format!(
        "{INTENT_COLUMNS} WHERE i.agent_id = $1 AND ($2::timestamptz IS NULL OR (i.created_at, i.id) < ($2, $3))
         ORDER BY i.created_at DESC, i.id DESC LIMIT $4"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(agent).bind(at).bind(id).bind(limit).fetch_all(conn).await
}

/// Whose an intent is, and what was signed for it.
pub async fn signed_tx(conn: &mut PgConnection, id: IntentId) -> Result<Option<(AgentId, UnsignedTx)>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM intents WHERE id = $1").bind(id).fetch_optional(conn).await?;
    row.map(|row| Ok((row.try_get("agent_id")?, unsigned_tx(&row)?))).transpose()
}

pub(in crate::intents) fn unsigned_tx(row: &PgRow) -> Result<UnsignedTx, sqlx::Error> {
    Ok(UnsignedTx {
        chain_id: ChainId(unsigned(row.try_get("chain_id")?)),
        from: address_from(row.try_get("from_address")?)?,
        to: address_from(row.try_get("to_address")?)?,
        value: row.try_get("value_wei")?,
        data: row.try_get::<Vec<u8>, _>("data")?.into(),
        gas_limit: unsigned(row.try_get("gas_limit")?),
        fees: fees_from(row, "")?,
    })
}

/// The fees in three columns whose names begin with `prefix`.
pub(in crate::intents) fn fees_from(row: &PgRow, prefix: &str) -> Result<Fees, sqlx::Error> {
    let column = |name: &str| format!("{prefix}{name}");
    let legacy: Option<Wei> = row.try_get(column("gas_price").as_str())?;
    match legacy {
        Some(gas_price) => Ok(Fees::Legacy { gas_price: per_gas(gas_price)? }),
        None => Ok(Fees::Eip1559 {
            max_fee_per_gas: per_gas(row.try_get(column("max_fee_per_gas").as_str())?)?,
            max_priority_fee_per_gas: per_gas(row.try_get(column("max_priority_fee_per_gas").as_str())?)?,
        }),
    }
}
