//! Intents with their slot and bytes: written in T1, read as the API shows them.

use alloy::primitives::B256;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgPool, Row as _};
use time::OffsetDateTime;

use super::super::error::IntentError;
use super::super::lanes::Lane;
use super::super::parse::Kind;
use super::super::state::{Outcome, SlotState};
use super::{address_from, hash_from, per_gas, signed, unsigned};
use crate::chain::ChainId;
use crate::chain::tx::{Fees, SignedTx, UnsignedTx};
use crate::freezes::Scope;
use crate::ids::{AgentId, AttemptId, IntentId, KeyId, OrgId, SimulationId};
use crate::money::Wei;
use crate::simulate::{Simulation, SimulationStatus};

/// What T1 writes of an intent.
pub struct NewIntent<'a> {
    /// Its id.
    pub id: IntentId,
    /// Whose.
    pub org_id: OrgId,
    /// Which agent's.
    pub agent_id: AgentId,
    /// Which route.
    pub kind: Kind,
    /// The chain's registry name.
    pub chain: &'a str,
    /// The chain's spend group.
    pub spend_group: &'a str,
    /// The key that signs.
    pub key_id: KeyId,
    /// What is signed, but for the nonce.
    pub tx: &'a UnsignedTx,
    /// The simulation, if there was one.
    pub simulation: Option<SimulationNote>,
}

/// What is kept of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationNote {
    /// Its id.
    pub id: SimulationId,
    /// How it ended: `success`, `reverted` or `error`.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
    /// Where a person looks at it.
    pub url: Option<String>,
}

impl From<&Simulation> for SimulationNote {
    fn from(simulation: &Simulation) -> Self {
        let failed = simulation.status != SimulationStatus::Success;
        Self {
            id: simulation.id,
            status: simulation.status.as_str().to_owned(),
            error: failed.then(|| simulation.reason()),
            url: simulation.dashboard_url.clone(),
        }
    }
}

/// Inserts the intent's own row.
pub async fn insert_intent(
    conn: &mut PgConnection,
    new: &NewIntent<'_>,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    let (gas_price, max_fee, tip) = match new.tx.fees {
        Fees::Legacy { gas_price } => (Some(Wei::from(gas_price)), None, None),
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
            (None, Some(Wei::from(max_fee_per_gas)), Some(Wei::from(max_priority_fee_per_gas)))
        }
    };
    let simulation = new.simulation.as_ref();
    sqlx::query(
        "INSERT INTO intents (id, org_id, agent_id, kind, chain_id, chain, spend_group, key_id, from_address, to_address, value_wei,
             data, gas_limit, gas_price, max_fee_per_gas, max_priority_fee_per_gas, checked_hash, simulation_id, simulation_status,
             simulation_error, simulation_url, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(new.id)
    .bind(new.org_id)
    .bind(new.agent_id)
    .bind(new.kind.as_str())
    .bind(signed(new.tx.chain_id.0))
    .bind(new.chain)
    .bind(new.spend_group)
    .bind(new.key_id)
    .bind(new.tx.from.as_slice())
    .bind(new.tx.to.as_slice())
    .bind(new.tx.value)
    .bind(new.tx.data.as_ref())
    .bind(signed(new.tx.gas_limit))
    .bind(gas_price)
    .bind(max_fee)
    .bind(tip)
    .bind(new.tx.checked_hash().as_slice())
    .bind(simulation.map(|note| note.id))
    .bind(simulation.map(|note| note.status.as_str()))
    .bind(simulation.and_then(|note| note.error.as_deref()))
    .bind(simulation.and_then(|note| note.url.as_deref()))
    .bind(at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts the slot with its first attempt. With the lane locked.
pub async fn insert_slot(
    conn: &mut PgConnection,
    lane: Lane,
    nonce: u64,
    new: &NewIntent<'_>,
    bytes: &SignedTx,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH slot AS (
             INSERT INTO slots (chain_id, address, nonce, intent_id, key_id, sign_only, state)
             VALUES ($1, $2, $3, $4, $5, $6, 'signed')
         )
         INSERT INTO attempts (id, chain_id, address, nonce, kind, tx_hash, raw) VALUES ($7, $1, $2, $3, 'intent', $8, $9)",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(nonce))
    .bind(new.id)
    .bind(new.key_id)
    .bind(new.kind == Kind::SignOnly)
    .bind(AttemptId::random())
    .bind(bytes.hash.as_slice())
    .bind(bytes.raw.as_ref())
    .execute(conn)
    .await?;
    Ok(())
}

/// What the organisation and the installation say of an intent, as it is now.
#[derive(Clone, Debug, FromRow)]
pub struct Standing {
    /// Every intent is simulated before it is signed: the organisation's setting, or the installation's.
    pub simulation_required: bool,
    /// Nothing new is signed for the chain.
    pub chain_disabled: bool,
    /// What of it is frozen: `organisation`, `agent`, `key` or `chain`.
    frozen: Option<String>,
    /// Why, in a human's words.
    frozen_reason: Option<String>,
}

impl Standing {
    /// Nothing new is signed for what is frozen.
    pub fn refuse_frozen(&self) -> Result<(), IntentError> {
        let Some(what) = &self.frozen else { return Ok(()) };
        let reason = self.frozen_reason.as_deref().filter(|reason| !reason.is_empty());
        Err(IntentError::NotAllowed(format!(
            "this {what} is frozen{}: nothing new is signed until a human lifts the freeze, see GET /v1/freezes",
            reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
        )))
    }
}

/// Reads it. In T1 behind the organisation's gate, so that its settings and freezes, once answered, hold.
pub async fn standing(
    conn: &mut PgConnection,
    org: OrgId,
    agent: AgentId,
    lane: Lane,
) -> Result<Standing, sqlx::Error> {
    let scopes = [Scope::Organisation(org), Scope::Agent(agent), Scope::Key(lane.address), Scope::Chain(lane.chain_id)];
    sqlx::query_as(
        "SELECT o.require_simulation
                OR EXISTS (SELECT 1 FROM platform_settings WHERE key = 'intents_api.require_simulation' AND value = 'true')
                AS simulation_required,
                EXISTS (SELECT 1 FROM chains WHERE chain_id = $2 AND NOT is_enabled) AS chain_disabled,
                f.scope AS frozen, f.reason AS frozen_reason
         FROM organisations o LEFT JOIN LATERAL (
             SELECT f.scope, f.reason FROM unnest($3::text[], $4::text[]) AS s (scope, subject)
             JOIN freezes f ON f.org_id = o.id AND f.scope = s.scope AND f.subject = s.subject LIMIT 1) f ON true
         WHERE o.id = $1",
    )
    .bind(org)
    .bind(signed(lane.chain_id.0))
    .bind(scopes.iter().map(Scope::kind).collect::<Vec<_>>())
    .bind(scopes.iter().map(Scope::subject).collect::<Vec<_>>())
    .fetch_one(conn)
    .await
}

/// An intent with its slot and first attempt, as the API shows it.
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
    /// What was checked.
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
    /// The intent's own bytes.
    pub raw: Vec<u8>,
    /// Their hash.
    pub tx_hash: B256,
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
            raw,
            tx_hash,
            mined_tx_hash: None,
            block_number: None,
            block_hash: None,
            gas_used: None,
            effective_gas_price: None,
            confirmations: 0,
            error_message: None,
            broadcast_at: None,
        }
    }
}

impl FromRow<'_, PgRow> for IntentRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let simulation_id: Option<SimulationId> = row.try_get("simulation_id")?;
        let state: Option<SlotState> = row.try_get("state")?;
        let slot = match state {
            None => None,
            Some(state) => Some(SlotRow {
                nonce: unsigned(row.try_get("nonce")?),
                state,
                outcome: row.try_get("outcome")?,
                raw: row.try_get("raw")?,
                tx_hash: hash_from(row.try_get("tx_hash")?)?,
                mined_tx_hash: row.try_get::<Option<&[u8]>, _>("mined_tx_hash")?.map(hash_from).transpose()?,
                block_number: row.try_get::<Option<i64>, _>("block_number")?.map(unsigned),
                block_hash: row.try_get::<Option<&[u8]>, _>("block_hash")?.map(hash_from).transpose()?,
                gas_used: row.try_get::<Option<i64>, _>("gas_used")?.map(unsigned),
                effective_gas_price: row.try_get("effective_gas_price")?,
                confirmations: row.try_get::<i32, _>("confirmations")?.try_into().unwrap_or(0),
                error_message: row.try_get("error_message")?,
                broadcast_at: row.try_get("broadcast_at")?,
            }),
        };
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            agent_id: row.try_get("agent_id")?,
            sign_only: row.try_get::<String, _>("kind")? == Kind::SignOnly.as_str(),
            chain: row.try_get("chain")?,
            tx: unsigned_tx(row)?,
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

const INTENT_COLUMNS: &str =
    "SELECT i.*, s.nonce, s.state, s.outcome, s.mined_tx_hash, s.block_number, s.block_hash, s.gas_used, s.effective_gas_price,
            s.confirmations, s.error_message, s.broadcast_at, a.raw, a.tx_hash
     FROM intents i
     LEFT JOIN slots s ON s.intent_id = i.id
     LEFT JOIN attempts a ON a.chain_id = s.chain_id AND a.address = s.address AND a.nonce = s.nonce AND a.kind = 'intent'";

/// One intent of an agent.
pub async fn intent(pool: &PgPool, agent: AgentId, id: IntentId) -> Result<Option<IntentRow>, sqlx::Error> {
    let sql = format!("{INTENT_COLUMNS} WHERE i.id = $1 AND i.agent_id = $2");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).bind(agent).fetch_optional(pool).await
}

/// An agent's intents, newest first, after a keyset position.
pub async fn intents(
    pool: &PgPool,
    agent: AgentId,
    after: Option<(OffsetDateTime, IntentId)>,
    limit: i64,
) -> Result<Vec<IntentRow>, sqlx::Error> {
    let (at, id) = after.map_or((None, None), |(at, id)| (Some(at), Some(id)));
    let sql = format!(
        "{INTENT_COLUMNS} WHERE i.agent_id = $1 AND ($2::timestamptz IS NULL OR (i.created_at, i.id) < ($2, $3))
         ORDER BY i.created_at DESC, i.id DESC LIMIT $4"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(agent).bind(at).bind(id).bind(limit).fetch_all(pool).await
}

/// Whose an intent is, and what was signed for it.
pub async fn signed_tx(conn: &mut PgConnection, id: IntentId) -> Result<Option<(AgentId, UnsignedTx)>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM intents WHERE id = $1").bind(id).fetch_optional(conn).await?;
    row.map(|row| Ok((row.try_get("agent_id")?, unsigned_tx(&row)?))).transpose()
}

/// The fees an intent was signed with.
pub async fn fees_of(pool: &PgPool, intent: IntentId) -> Result<Option<Fees>, sqlx::Error> {
    let row = sqlx::query("SELECT gas_price, max_fee_per_gas, max_priority_fee_per_gas FROM intents WHERE id = $1")
        .bind(intent)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(fees_from).transpose()
}

pub(super) fn unsigned_tx(row: &PgRow) -> Result<UnsignedTx, sqlx::Error> {
    Ok(UnsignedTx {
        chain_id: ChainId(unsigned(row.try_get("chain_id")?)),
        from: address_from(row.try_get("from_address")?)?,
        to: address_from(row.try_get("to_address")?)?,
        value: row.try_get("value_wei")?,
        data: row.try_get::<Vec<u8>, _>("data")?.into(),
        gas_limit: unsigned(row.try_get("gas_limit")?),
        fees: fees_from(row)?,
    })
}

fn fees_from(row: &PgRow) -> Result<Fees, sqlx::Error> {
    let legacy: Option<Wei> = row.try_get("gas_price")?;
    match legacy {
        Some(gas_price) => Ok(Fees::Legacy { gas_price: per_gas(gas_price)? }),
        None => Ok(Fees::Eip1559 {
            max_fee_per_gas: per_gas(row.try_get("max_fee_per_gas")?)?,
            max_priority_fee_per_gas: per_gas(row.try_get("max_priority_fee_per_gas")?)?,
        }),
    }
}
