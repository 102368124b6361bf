//! Lanes: the row whose lock gives out nonces.

use alloy::primitives::Address;
use sqlx::postgres::PgArguments;
use sqlx::query::Query as Statement;
use sqlx::{PgConnection, PgPool, Postgres, Row as _};
use time::OffsetDateTime;

use super::super::lanes::Lane;
use super::holds::{held, words};
use super::standing::{all_are_simulated, is_disabled};
use super::{address_from, begin_t1, signed, unsigned};
use crate::chain::ChainId;
use crate::db::DbError;
use crate::ids::{IntentId, KeyId, OrgId};
use crate::money::Wei;

/// A lane's row, locked.
#[derive(Debug)]
pub struct LaneRow {
    /// The lowest nonce without a slot, parked ones aside; `None` when the lane was made just now.
    pub next_nonce: Option<u64>,
    /// Why it is frozen.
    pub frozen_reason: Option<String>,
}

/// A lane's row, while a further condition is true; locked.
macro_rules! locked_lane {
    ($chain:literal, $address:literal, $and:literal) => {
        concat!(
            "SELECT next_nonce, frozen_reason FROM lanes WHERE chain_id = ",
            $chain,
            " AND address = ",
            $address,
            $and,
            " FOR UPDATE"
        )
    };
}
pub(super) use locked_lane;

/// Makes the lane's row if it is the first, and locks it FOR UPDATE.
pub async fn lock_lane(conn: &mut PgConnection, lane: Lane) -> Result<LaneRow, sqlx::Error> {
    loop {
        let row = sqlx::query(locked_lane!("$1", "$2", ""))
            .bind(signed(lane.chain_id.0))
            .bind(lane.address.as_slice())
            .fetch_optional(&mut *conn)
            .await?;
        if let Some(row) = row {
            let next: i64 = row.try_get("next_nonce")?;
            return Ok(LaneRow { next_nonce: Some(unsigned(next)), frozen_reason: row.try_get("frozen_reason")? });
        }
        // Waits for whoever makes it at the same time; then it is there, and not ours.
        let made = sqlx::query("INSERT INTO lanes (chain_id, address) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(signed(lane.chain_id.0))
            .bind(lane.address.as_slice())
            .execute(&mut *conn)
            .await?
            .rows_affected();
        if made == 1 {
            return Ok(LaneRow { next_nonce: None, frozen_reason: None });
        }
    }
}

/// What a lane has, as of one moment.
#[derive(Debug)]
pub struct LaneLook {
    /// The nonces that have a slot, of those that were asked about.
    pub taken: Vec<u64>,
    /// What its slots of ours can still cost (value + fee; bytes that we do not send ourselves are left out).
    pub open_cost: Wei,
    /// How many those are, the bytes that we do not send included.
    pub open: u64,
    /// Whether one of them should have been sent long ago: it may be held.
    pub has_unsent: bool,
    /// Whether the installation wants every intent simulated.
    pub simulation_required: bool,
    /// Whether nothing new is signed for the chain.
    pub chain_disabled: bool,
}

/// Which of the nonces from `from` to `to` (excluded) have a slot, and what those from `mined` on can still cost; and what the installation
/// says, behind all that T1 waits for. With the lane locked, in a statement of its own.
pub async fn look_at_lane(
    conn: &mut PgConnection,
    lane: Lane,
    (from, to): (u64, u64),
    mined: u64,
) -> Result<LaneLook, sqlx::Error> {
    let row = sqlx::query(concat!(
        "SELECT open.*, ARRAY(SELECT nonce FROM slots WHERE chain_id = $1 AND address = $2 AND nonce >= $4 AND nonce < $5) AS taken, ",
        all_are_simulated!(),
        " AS simulation_required, ",
        is_disabled!("$1"),
        " AS chain_disabled
         FROM (",
        open_cost!(),
        ") AS open"
    ))
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(mined))
    .bind(signed(from))
    .bind(signed(to))
    .fetch_one(conn)
    .await?;
    let taken: Vec<i64> = row.try_get("taken")?;
    Ok(LaneLook {
        taken: taken.into_iter().map(unsigned).collect(),
        open_cost: row.try_get("cost")?,
        open: unsigned(row.try_get("open")?),
        has_unsent: row.try_get("has_unsent")?,
        simulation_required: row.try_get("simulation_required")?,
        chain_disabled: row.try_get("chain_disabled")?,
    })
}

/// The lowest nonce without a slot, parked ones aside; `None` before the lane's first use. Locks nothing.
pub async fn next_nonce(conn: &mut PgConnection, lane: Lane) -> Result<Option<u64>, sqlx::Error> {
    let next: Option<i64> = sqlx::query_scalar("SELECT next_nonce FROM lanes WHERE chain_id = $1 AND address = $2")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .fetch_optional(conn)
        .await?;
    Ok(next.map(unsigned))
}

/// The nonces from `from` to `to` (excluded) that have a slot. With the lane locked.
pub async fn slots_between(conn: &mut PgConnection, lane: Lane, from: u64, to: u64) -> Result<Vec<u64>, sqlx::Error> {
    let rows: Vec<(i64,)> = sqlx::query_as(
        "SELECT nonce FROM slots WHERE chain_id = $1 AND address = $2 AND nonce >= $3 AND nonce < $4 ORDER BY nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(from))
    .bind(signed(to))
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(n,)| unsigned(n)).collect())
}

/// Whether a nonce has a slot. With the lane locked.
pub async fn slot_exists(conn: &mut PgConnection, lane: Lane, nonce: u64) -> Result<bool, sqlx::Error> {
    Ok(!slots_between(conn, lane, nonce, nonce.saturating_add(1)).await?.is_empty())
}

/// Notes nonces that others used, or left out.
pub async fn insert_foreign(
    conn: &mut PgConnection,
    lane: Lane,
    nonces: &[u64],
    key: KeyId,
    noticed_block: u64,
) -> Result<(), sqlx::Error> {
    if nonces.is_empty() {
        return Ok(());
    }
    let nonces: Vec<i64> = nonces.iter().map(|n| signed(*n)).collect();
    sqlx::query(
        "INSERT INTO slots (chain_id, address, nonce, key_id, state, noticed_block)
         SELECT $1, $2, nonce, $4, 'foreign', $5 FROM unnest($3::bigint[]) AS nonce",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(nonces)
    .bind(key)
    .bind(signed(noticed_block))
    .execute(conn)
    .await?;
    Ok(())
}

/// Nonces of the lane that others have, or left out, and that are not settled. With the lane locked.
pub async fn open_foreign(conn: &mut PgConnection, lane: Lane) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT count(*) AS n FROM slots WHERE chain_id = $1 AND address = $2 AND state = 'foreign'")
        .bind(signed(lane.chain_id.0))
        .bind(lane.address.as_slice())
        .fetch_one(conn)
        .await?;
    Ok(unsigned(row.try_get("n")?))
}

/// A lane that waits for an operator.
#[derive(Debug)]
pub struct FrozenLane {
    /// Which.
    pub lane: Lane,
    /// The next nonce by our rows.
    pub next_nonce: u64,
    /// Why.
    pub reason: String,
}

/// The frozen lanes.
pub async fn frozen_lanes(pool: &PgPool) -> Result<Vec<FrozenLane>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT chain_id, address, next_nonce, frozen_reason FROM lanes WHERE frozen_reason IS NOT NULL ORDER BY frozen_at",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let chain_id = ChainId(unsigned(row.try_get("chain_id")?));
            Ok(FrozenLane {
                lane: Lane { chain_id, address: address_from(row.try_get("address")?)? },
                next_nonce: unsigned(row.try_get("next_nonce")?),
                reason: row.try_get("frozen_reason")?,
            })
        })
        .collect()
}

/// Lets a frozen lane go on at `next`: what lies between is taken as used by others. Never moves it back. False: not frozen.
pub async fn release_lane(conn: &mut PgConnection, lane: Lane, next: u64) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE lanes SET first_nonce = CASE WHEN $3 > next_nonce THEN $3 ELSE first_nonce END,
                next_nonce = greatest(next_nonce, $3), frozen_reason = NULL, frozen_at = NULL
         WHERE chain_id = $1 AND address = $2 AND frozen_reason IS NOT NULL",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(signed(next))
    .execute(conn)
    .await?
    .rows_affected();
    Ok(rows == 1)
}

/// Stops a lane until a human has looked. One that is new starts at `next` when it is released. One that has moved on
/// from `next` meanwhile, or was released, is left alone.
pub async fn freeze_lane(conn: &mut PgConnection, lane: Lane, next: u64, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO lanes (chain_id, address, frozen_reason, frozen_at, next_nonce) VALUES ($1, $2, $3, clock_timestamp(), $4)
         ON CONFLICT (chain_id, address) DO UPDATE SET frozen_reason = $3, frozen_at = clock_timestamp()
         WHERE lanes.frozen_reason IS NULL AND lanes.next_nonce = $4",
    )
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .bind(reason)
    .bind(signed(next))
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the intent is there.
///
/// # Errors
/// As [`is_stored`]: then the outcome is unknown.
pub async fn settled_outcome(pool: &PgPool, lane: Lane, intent: IntentId) -> Result<bool, DbError> {
    is_stored(pool, lane, sqlx::query("SELECT 1 FROM intents WHERE id = $1").bind(intent)).await
}

/// Whether `query` finds a row, asked in a way that waits for a commit still under way: that transaction holds the lane's row, or, for a
/// lane's first nonce, has inserted it (which is not visible yet, but an insert of the same key waits for it). What is there is said to be
/// once this transaction, which has written the lane's lock, has committed behind it: a server that recovered, or whose wait for a standby
/// was ended, shows what no standby has.
///
/// # Errors
/// When the lane cannot be locked in time.
pub async fn is_stored(
    pool: &PgPool,
    lane: Lane,
    query: Statement<'_, Postgres, PgArguments>,
) -> Result<bool, DbError> {
    let mut tx = begin_t1(pool).await?;
    lock_lane(&mut tx, lane).await?;
    if query.fetch_optional(&mut *tx).await?.is_none() {
        tx.rollback().await?;
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}

/// A lane as the API shows it.
#[derive(Debug)]
pub struct LaneState {
    /// Which.
    pub lane: Lane,
    /// The next nonce by our rows.
    pub next_nonce: u64,
    /// Transactions of it that are not mined.
    pub depth: u64,
    /// Why and since when it waits for a human, if it does.
    pub frozen: Option<(String, OffsetDateTime)>,
    /// Why its first transaction that is held back is not sent, if there is one.
    pub held: Option<String>,
}

/// A key may be in two organisations: what holds the other's payment is not told, but that it does.
const HELD_ELSEWHERE: &str =
    "a payment of another organisation that has this key too is held back: only they can send or cancel it";

/// The lanes of an organisation's keys, whatever became of those, in the order of chain and address, after a position.
pub async fn lanes_of(
    pool: &PgPool,
    org: OrgId,
    after: Option<Lane>,
    limit: i64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "SELECT l.chain_id, l.address, l.next_nonce, l.frozen_reason, l.frozen_at,
                (SELECT count(*) FROM slots s WHERE s.chain_id = l.chain_id AND s.address = l.address
                   AND s.state IN ('signed', 'broadcast')) AS depth,
                (SELECT CASE WHEN i.org_id = $1 THEN h.held ELSE '' END FROM slots s JOIN intents i ON i.id = s.intent_id CROSS JOIN LATERAL (SELECT ",
        held!(),
        " AS held) AS h WHERE s.chain_id = l.chain_id AND s.address = l.address AND s.state = 'signed' AND NOT s.sign_only
                   AND h.held IS NOT NULL ORDER BY s.nonce LIMIT 1) AS held
         FROM lanes l
         WHERE EXISTS (SELECT 1 FROM signing_keys k WHERE k.org_id = $1 AND k.address = l.address)
           AND ($2::bigint IS NULL OR (l.chain_id, l.address) > ($2, $3))
         ORDER BY l.chain_id, l.address LIMIT $4"
    ))
    .bind(org)
    .bind(after.map(|lane| signed(lane.chain_id.0)))
    .bind(after.map(|lane| lane.address.to_vec()))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let reason: Option<String> = row.try_get("frozen_reason")?;
            let at: Option<OffsetDateTime> = row.try_get("frozen_at")?;
            let chain_id = ChainId(unsigned(row.try_get("chain_id")?));
            Ok(LaneState {
                lane: Lane { chain_id, address: address_from(row.try_get("address")?)? },
                next_nonce: unsigned(row.try_get("next_nonce")?),
                depth: unsigned(row.try_get("depth")?),
                frozen: reason.zip(at),
                held: row.try_get::<Option<&str>, _>("held")?.map(|held| match held {
                    "" => HELD_ELSEWHERE.to_owned(),
                    held => words(held, false),
                }),
            })
        })
        .collect()
}

/// One lane of an organisation's keys.
pub async fn lane_of(pool: &PgPool, org: OrgId, lane: Lane) -> Result<Option<(u64, bool)>, sqlx::Error> {
    let row: Option<(i64, bool)> = sqlx::query_as(
        "SELECT next_nonce, frozen_reason IS NOT NULL FROM lanes l WHERE chain_id = $2 AND address = $3
           AND EXISTS (SELECT 1 FROM signing_keys k WHERE k.org_id = $1 AND k.address = l.address)",
    )
    .bind(org)
    .bind(signed(lane.chain_id.0))
    .bind(lane.address.as_slice())
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(next, frozen)| (unsigned(next), frozen)))
}

/// The addresses of a chain's lanes that are not frozen, in order, after one.
pub async fn addresses_after(
    pool: &PgPool,
    chain_id: ChainId,
    after: Option<Address>,
    limit: i64,
) -> Result<Vec<Address>, sqlx::Error> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT address FROM lanes WHERE chain_id = $1 AND frozen_reason IS NULL AND ($2::bytea IS NULL OR address > $2)
         ORDER BY address LIMIT $3",
    )
    .bind(signed(chain_id.0))
    .bind(after.map(|address| address.to_vec()))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|address| address_from(address)).collect()
}

/// A key of the lane that nobody else should have, or any if all are such.
pub async fn exclusive_key_of(
    conn: &mut PgConnection,
    address: Address,
    all: bool,
    vault: &str,
) -> Result<Option<(KeyId, OrgId)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT k.id, k.org_id FROM signing_keys k JOIN vaults v ON v.id = k.vault_id
         WHERE k.address = $1 AND ($2 OR (v.name = $3 AND v.created_by_type = 'user' AND k.path LIKE 'agents/%'))
         ORDER BY k.created_at LIMIT 1",
    )
    .bind(address.as_slice())
    .bind(all)
    .bind(vault)
    .fetch_optional(conn)
    .await
}
