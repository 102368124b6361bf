//! What T1 writes of intents.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::query::Query as Statement;
use sqlx::{PgConnection, Postgres};
use time::OffsetDateTime;

use super::super::authorise::HeldClaim;
use super::super::nonce::Taken;
use super::super::parse::Kind;
use super::claims::complete_claims;
use super::{Entry, signed};
use crate::audit::Event;
use crate::audit::store::{bind_events, recorded};
use crate::chain::tx::{Fees, SignedTx, UnsignedTx};
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

/// A signed intent as T1 writes it.
pub(in crate::intents) struct NewSigned<'a> {
    /// The intent.
    pub new: NewIntent<'a>,
    /// When, by its window's clock.
    pub at: OffsetDateTime,
    /// Its nonce.
    pub nonce: u64,
    /// Its bytes.
    pub bytes: &'a SignedTx,
    /// What it takes of each window.
    pub entries: &'a [Entry],
}

macro_rules! intents_of {
    () => {
        "INSERT INTO intents (id, org_id, agent_id, kind, chain_id, chain, spend_group, key_id, from_address, to_address, value_wei,
             data, gas_limit, gas_price, max_fee_per_gas, max_priority_fee_per_gas, checked_hash, simulation_id, simulation_status,
             simulation_error, simulation_url, created_at)
         SELECT i.id, $1, $2, $3, $4, $5, $6, $7, $8, i.to_address, i.value_wei, i.data, i.gas_limit, i.gas_price, i.max_fee, i.tip,
                i.checked_hash, i.simulation_id, i.simulation_status, i.simulation_error, i.simulation_url, i.created_at
         FROM unnest($9::uuid[], $10::bytea[], $11::numeric[], $12::bytea[], $13::bigint[], $14::numeric[], $15::numeric[],
                     $16::numeric[], $17::bytea[], $18::uuid[], $19::text[], $20::text[], $21::text[], $22::timestamptz[])
             AS i (id, to_address, value_wei, data, gas_limit, gas_price, max_fee, tip, checked_hash, simulation_id,
                   simulation_status, simulation_error, simulation_url, created_at)"
    };
}

type PgQuery<'q> = Statement<'q, Postgres, PgArguments>;

/// The values of `intents_of!`, in its order. All of them are of one agent, key and chain.
fn bind_intents<'q>(
    query: PgQuery<'q>,
    first: &NewIntent<'_>,
    each: &[(&NewIntent<'_>, OffsetDateTime)],
) -> PgQuery<'q> {
    fn column<T>(each: &[(&NewIntent<'_>, OffsetDateTime)], of: impl Fn(&NewIntent<'_>) -> T) -> Vec<T> {
        each.iter().map(|(new, _)| of(new)).collect()
    }
    fn note<T>(new: &NewIntent<'_>, of: impl Fn(&SimulationNote) -> Option<T>) -> Option<T> {
        new.simulation.as_ref().and_then(of)
    }
    query
        .bind(first.org_id)
        .bind(first.agent_id)
        .bind(first.kind.as_str())
        .bind(signed(first.tx.chain_id.0))
        .bind(first.chain.to_owned())
        .bind(first.spend_group.to_owned())
        .bind(first.key_id)
        .bind(first.tx.from.to_vec())
        .bind(column(each, |new| new.id))
        .bind(column(each, |new| new.tx.to.to_vec()))
        .bind(column(each, |new| new.tx.value))
        .bind(column(each, |new| new.tx.data.to_vec()))
        .bind(column(each, |new| signed(new.tx.gas_limit)))
        .bind(column(each, |new| fee_columns(new.tx.fees).0))
        .bind(column(each, |new| fee_columns(new.tx.fees).1))
        .bind(column(each, |new| fee_columns(new.tx.fees).2))
        .bind(column(each, |new| new.tx.checked_hash().to_vec()))
        .bind(column(each, |new| note(new, |note| Some(note.id))))
        .bind(column(each, |new| note(new, |note| Some(note.status.clone()))))
        .bind(column(each, |new| note(new, |note| note.error.clone())))
        .bind(column(each, |new| note(new, |note| note.url.clone())))
        .bind(each.iter().map(|(_, at)| *at).collect::<Vec<_>>())
}

/// Inserts an intent without a slot: what its simulation refused.
pub async fn insert_intent(
    conn: &mut PgConnection,
    new: &NewIntent<'_>,
    at: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    bind_intents(sqlx::query(intents_of!()), new, &[(new, at)]).execute(conn).await?;
    Ok(())
}

/// Everything that T1 writes of signed intents, in one statement: the intents, their slots with the first attempts, the lane's next nonce,
/// what they take of each window with the new sums, their audit events, and the claims' completion. All of one agent and key, in the order of
/// their nonces. With claims, windows and lane locked. False: a claim is lost, and nothing of this may be committed.
pub(in crate::intents) async fn insert_signed(
    conn: &mut PgConnection,
    taken: &Taken,
    all: &[NewSigned<'_>],
    (action, events): (&'static str, &[Event]),
    claims: &[(HeldClaim, IntentId)],
) -> Result<bool, sqlx::Error> {
    let Some(first) = all.first() else { return Ok(true) };
    let entries: Vec<(IntentId, &Entry)> =
        all.iter().flat_map(|one| one.entries.iter().map(|entry| (one.new.id, entry))).collect();
    // Each window's sums after the last of them.
    let sums: BTreeMap<&str, &Entry> = entries.iter().map(|(_, entry)| (entry.unit.as_str(), *entry)).collect();
    let intents: Vec<(&NewIntent<'_>, OffsetDateTime)> = all.iter().map(|one| (&one.new, one.at)).collect();
    let query = sqlx::query(concat!(
        "WITH intent AS (",
        intents_of!(),
        "), signed AS (
             SELECT * FROM unnest($9::uuid[], $23::bigint[], $24::uuid[], $25::bytea[], $26::bytea[], $13::bigint[], $14::numeric[],
                                  $15::numeric[], $16::numeric[])
                 AS s (intent_id, nonce, id, tx_hash, raw, gas_limit, gas_price, max_fee, tip)
         ), slot AS (
             INSERT INTO slots (chain_id, address, nonce, intent_id, key_id, sign_only, state)
             SELECT $4, $8, nonce, intent_id, $7, $27, 'signed' FROM signed
         ), attempt AS (
             INSERT INTO attempts (id, chain_id, address, nonce, kind, tx_hash, raw, reason, gas_limit, gas_price, max_fee_per_gas,
                 max_priority_fee_per_gas)
             SELECT id, $4, $8, nonce, 'intent', tx_hash, raw, 'submit', gas_limit, gas_price, max_fee, tip FROM signed
         ), lane AS (
             UPDATE lanes SET next_nonce = $28, first_nonce = coalesce($29, first_nonce) WHERE chain_id = $4 AND address = $8
         ), spent AS (
             INSERT INTO spends (intent_id, agent_id, spend_group, value_wei, fee_wei, signed_at)
             SELECT e.intent_id, $2, e.unit, e.value_wei, e.fee_wei, e.signed_at
             FROM unnest($30::uuid[], $31::text[], $32::numeric[], $33::numeric[], $34::timestamptz[])
                 AS e (intent_id, unit, value_wei, fee_wei, signed_at)
         ), summed AS (
             UPDATE spending_windows w SET value_sum_wei = s.value_sum_wei, fee_sum_wei = s.fee_sum_wei,
                    last_stamp = greatest(w.last_stamp, s.stamp)
             FROM unnest($35::text[], $36::numeric[], $37::numeric[], $38::timestamptz[]) AS s (unit, value_sum_wei, fee_sum_wei, stamp)
             WHERE w.agent_id = $2 AND w.spend_group = s.unit
         ), ",
        recorded!("$42", "$43", "$44", "$45", "$46", "$47", "$48", "$49", "$50", "$51", "$52", "$53"),
        complete_claims!("$2", "$39", "$40", "$41")
    ));
    let query = bind_intents(query, &first.new, &intents)
        .bind(all.iter().map(|one| signed(one.nonce)).collect::<Vec<_>>())
        .bind(all.iter().map(|_| AttemptId::random()).collect::<Vec<_>>())
        .bind(all.iter().map(|one| one.bytes.hash.to_vec()).collect::<Vec<_>>())
        .bind(all.iter().map(|one| one.bytes.raw.to_vec()).collect::<Vec<_>>())
        .bind(first.new.kind == Kind::SignOnly)
        .bind(signed(taken.next))
        .bind(taken.first.map(signed))
        .bind(entries.iter().map(|(intent, _)| *intent).collect::<Vec<_>>())
        .bind(entries.iter().map(|(_, entry)| entry.unit.clone()).collect::<Vec<_>>())
        .bind(entries.iter().map(|(_, entry)| entry.value).collect::<Vec<_>>())
        .bind(entries.iter().map(|(_, entry)| entry.fee).collect::<Vec<_>>())
        .bind(entries.iter().map(|(_, entry)| entry.at).collect::<Vec<_>>())
        .bind(sums.keys().map(|unit| (*unit).to_owned()).collect::<Vec<_>>())
        .bind(sums.values().map(|last| last.sums.value_sum).collect::<Vec<_>>())
        .bind(sums.values().map(|last| last.sums.fee_sum).collect::<Vec<_>>())
        .bind(sums.values().map(|last| last.at).collect::<Vec<_>>())
        .bind(claims.iter().map(|(claim, _)| claim.key_hash.to_vec()).collect::<Vec<_>>())
        .bind(claims.iter().map(|(claim, _)| claim.token).collect::<Vec<_>>())
        .bind(claims.iter().map(|(_, intent)| *intent).collect::<Vec<_>>());
    let completed = bind_events(query, action, events).execute(conn).await?;
    Ok(completed.rows_affected() == claims.len() as u64)
}

/// The three columns of fees: the gas price, or the cap and the tip.
pub(in crate::intents) fn fee_columns(fees: Fees) -> (Option<Wei>, Option<Wei>, Option<Wei>) {
    match fees {
        Fees::Legacy { gas_price } => (Some(Wei::from(gas_price)), None, None),
        Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
            (None, Some(Wei::from(max_fee_per_gas)), Some(Wei::from(max_priority_fee_per_gas)))
        }
    }
}
