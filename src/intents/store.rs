//! The pipeline's statements, by what they are about. Locks are named at each function; their order everywhere is
//! claim → spending window → agent and access rows → lane → slots.

/// What a lane's slots of ours from nonce `$3` on can still cost, how many there are, and whether any of them should have been sent long ago.
macro_rules! open_cost {
    () => {
        "SELECT coalesce(sum(i.value_wei + i.gas_limit * greatest(coalesce(i.gas_price, i.max_fee_per_gas), s.max_per_gas_wei))
                             FILTER (WHERE NOT s.sign_only), 0)::numeric(78, 0) AS cost, count(*) AS open,
                coalesce(bool_or(s.state = 'signed' AND NOT s.sign_only AND s.created_at < clock_timestamp() - interval '3 seconds'), false)
                    AS has_unsent
         FROM slots s JOIN intents i ON i.id = s.intent_id
         WHERE s.chain_id = $1 AND s.address = $2 AND s.nonce >= $3 AND s.state IN ('signed', 'broadcast')"
    };
}

mod claims;
mod holds;
mod intents;
mod lanes;
mod peek;
mod rights;
mod slots;
mod standing;
mod windows;
mod writing;

use alloy::primitives::{Address, B256};
use sqlx::{PgPool, Postgres, Transaction};

pub use claims::*;
pub use holds::{ToSend, held_before, note_rule_hold, to_send, words_of_rules};
pub(crate) use holds::{held, rules_forbid};
pub use intents::*;
pub use lanes::*;
pub use peek::*;
pub(in crate::intents) use rights::*;
pub use slots::*;
pub use standing::*;
pub use windows::*;
pub use writing::*;

use crate::money::Wei;

/// Database integers are signed; ids and nonces above 2^63 − 1 are refused when they are read.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn address_from(bytes: &[u8]) -> Result<Address, sqlx::Error> {
    Address::try_from(bytes).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

pub(super) fn hash_from(bytes: &[u8]) -> Result<B256, sqlx::Error> {
    B256::try_from(bytes).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

pub(super) fn per_gas(wei: Wei) -> Result<u128, sqlx::Error> {
    u128::try_from(wei.0).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Begins T1, and the tracker's transactions that settle or sign. With settings of this transaction only: durable, and no wait for a lock
/// or a statement without end; and each statement planned once per connection: all of them find their rows by an index, whatever the
/// values, and to plan one anew costs more than to run it.
pub async fn begin_t1(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    pool.begin_with(
        "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s';
         SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL plan_cache_mode = force_generic_plan",
    )
    .await
}
