//! T1's first two statements: what it waits for, and what it is held to.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{Decode, FromRow as _, PgConnection, Postgres, Row as _, Type};
use time::OffsetDateTime;

use super::super::authorise::HeldClaim;
use super::super::guardrails::Window;
use super::super::lanes::Lane;
use super::claims::locked_claims;
use super::lanes::locked_lane;
use super::standing::{freezes_of, standing_of};
use super::windows::locked_windows;
use super::{Aged, LaneRow, Standing, signed, unsigned};
use crate::access::store::{AgentLimits, RuleRow, rules};
use crate::agents::{self, Agent};
use crate::db::DbError;
use crate::freezes::store::{GATE, the_gate};
use crate::ids::{AgentId, KeyId, OrgId};
use crate::money::Wei;
use crate::vaults::keys::store::{HeldKey, held_key};

/// What T1 has come to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::intents) enum Held {
    /// The claims, the windows and the organisation's gate.
    All,
    /// A claim is another's by now.
    ClaimLost,
    /// A window has no row yet: to be made before T1, because they are locked in one order.
    WindowMissing,
}

/// The first statement of T1: the claims are still ours, and stay so until it ends; the spending windows, which are summed in a later
/// statement, because this one takes its snapshot before it waits; then the organisation's gate.
///
/// Locks: the claims' rows in the order of their keys, the windows in the order of their units' bytes, the gate, shared.
pub(in crate::intents) async fn hold(
    conn: &mut PgConnection,
    (org, agent): (OrgId, AgentId),
    claims: &[HeldClaim],
    units: &[String],
) -> Result<Held, DbError> {
    // Each refers to the one before, so that they are taken in this order.
    let row = sqlx::query(concat!(
        "SELECT c.held AS claims, w.held AS windows, CASE WHEN w.held = $6 THEN ",
        the_gate!("$7", "$8"),
        " IS NULL END AS gate
         FROM (
             SELECT count(*) AS held FROM (
                 ",
        locked_claims!("$1", "$2", "$3"),
        ") AS locked
         ) AS c CROSS JOIN LATERAL (
             SELECT count(*) AS held FROM (
                 ",
        locked_windows!("$1", "$4", "AND c.held = $5"),
        ") AS locked
         ) AS w"
    ))
    .bind(agent)
    .bind(claims.iter().map(|claim| claim.key_hash.to_vec()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.token).collect::<Vec<_>>())
    .bind(units)
    .bind(claims.len() as i64)
    .bind(units.len() as i64)
    .bind(org)
    .bind(GATE)
    .fetch_one(conn)
    .await?;
    Ok(if row.try_get::<i64, _>("claims")? != claims.len() as i64 {
        Held::ClaimLost
    } else if row.try_get::<i64, _>("windows")? != units.len() as i64 {
        Held::WindowMissing
    } else {
        Held::All
    })
}

/// What an intent is held to, as it is behind the locks.
pub(in crate::intents) struct Rights {
    /// The agent with its guardrails, also when it is deleted or inactive: the caller looks.
    pub agent: Agent,
    /// What its vaults and scopes limit it to.
    pub limits: AgentLimits,
    /// The key, while it may sign.
    pub key: Option<HeldKey>,
    /// The agent's policies on the key's vault.
    pub rules: Vec<RuleRow>,
    /// What the organisation and the installation say; the latter as of when the statement began.
    pub standing: Standing,
    /// The lane, unless it is new, or the key may not sign.
    pub lane: Option<LaneRow>,
    /// The windows' sums. What has come of age meanwhile is in them still: they are too high, never too low.
    pub windows: BTreeMap<String, Aged>,
}

/// The second statement of T1. A revocation, a freeze or a stricter setting of the organisation that has been answered is seen here, and one
/// that comes now waits. What the installation says (simulation for all, a disabled chain) is not held by anything and is read before the rows
/// are waited for: the lane's look reads it again. `None`: there is no such agent.
///
/// Locks: `FOR SHARE` the agent, the key's vault, its secret, the key, and the agent's policies there; `FOR UPDATE` the lane, after the key. The
/// windows are locked already.
pub(in crate::intents) async fn hold_rights(
    conn: &mut PgConnection,
    lane: Lane,
    org: OrgId,
    (agent, key): (AgentId, KeyId),
    units: &[String],
) -> Result<Option<Rights>, DbError> {
    let (kinds, subjects) = freezes_of(org, agent, lane);
    // The key refers to the agent, and policies and lane to the key, so that their rows are taken in this order; of these two either may come
    // first, for nobody waits for a lane who holds a policy against others. A row for each policy.
    let rows = sqlx::query(concat!(
        "SELECT a.*, key.*, standing.*, lane.next_nonce AS lane_next, lane.frozen_reason AS lane_frozen, w.*, policy.*
         FROM (SELECT ",
        agents::store::columns!(),
        " FROM agents WHERE id = $1 FOR SHARE) AS a
         LEFT JOIN LATERAL (",
        held_key!("$2", "a.org_id"),
        ") AS key ON true
         LEFT JOIN LATERAL (",
        standing_of!("a.org_id", "$3", "$4", "$5"),
        ") AS standing ON true
         CROSS JOIN LATERAL (
             SELECT array_agg(spend_group) AS units, array_agg(value_sum_wei) AS value_sums, array_agg(fee_sum_wei) AS fee_sums,
                    array_agg(greatest(last_stamp, clock_timestamp())) AS stamps
             FROM spending_windows WHERE agent_id = a.id AND spend_group = ANY($6)) AS w
         LEFT JOIN LATERAL (",
        rules!("agent", "a.id", "a.org_id", "key.vault_id", " ORDER BY id FOR SHARE"),
        ") AS policy ON true
         LEFT JOIN LATERAL (",
        locked_lane!("$3", "$7", " AND key.vault_id IS NOT NULL"),
        ") AS lane ON true"
    ))
    .bind(agent)
    .bind(key)
    .bind(signed(lane.chain_id.0))
    .bind(kinds)
    .bind(subjects)
    .bind(units)
    .bind(lane.address.as_slice())
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let next: Option<i64> = first.try_get("lane_next")?;
    let lane = next.map(|next| {
        let frozen_reason = first.try_get("lane_frozen")?;
        Ok::<_, sqlx::Error>(LaneRow { next_nonce: Some(unsigned(next)), frozen_reason })
    });
    Ok(Some(Rights {
        agent: agents::store::Row::from_row(first)?.agent()?,
        limits: AgentLimits::from_row(first)?,
        key: HeldKey::of(first)?,
        rules: rows.iter().filter_map(|row| RuleRow::beside(row).transpose()).collect::<Result<_, _>>()?,
        standing: Standing::from_row(first)?,
        lane: lane.transpose()?,
        windows: windows_of(first)?,
    }))
}

/// The windows in a row, as four arrays.
fn windows_of(row: &PgRow) -> Result<BTreeMap<String, Aged>, sqlx::Error> {
    fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<Vec<T>, sqlx::Error>
    where
        Option<Vec<T>>: Decode<'r, Postgres> + Type<Postgres>,
    {
        Ok(row.try_get::<Option<Vec<T>>, _>(name)?.unwrap_or_default())
    }
    let sums = column::<Wei>(row, "value_sums")?.into_iter().zip(column::<Wei>(row, "fee_sums")?);
    let stamps = column::<OffsetDateTime>(row, "stamps")?;
    Ok(column::<String>(row, "units")?
        .into_iter()
        .zip(sums)
        .zip(stamps)
        .map(|((unit, (value_sum, fee_sum)), at)| {
            (unit, Aged { window: Window { value_sum, fee_sum }, at, more: true })
        })
        .collect())
}
