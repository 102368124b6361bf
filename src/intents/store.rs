//! The pipeline's statements, by what they are about. Locks are named at each function; their order everywhere is
//! claim → spending window → agent and access rows → lane → slots.

mod claims;
mod holds;
mod intents;
mod lanes;
mod peek;
mod slots;
mod standing;
mod windows;

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;

pub use claims::*;
pub use holds::{ToSend, to_send};
pub use intents::*;
pub use lanes::*;
pub use peek::*;
pub use slots::*;
pub use standing::*;
pub use windows::*;

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

/// The settings of T1, and of the tracker's transactions that settle or sign, for this transaction only: durable, and no wait for a
/// lock or a statement without end.
pub async fn begin_t1(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '2s', true),
                set_config('statement_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '5s', true)",
    )
    .execute(conn)
    .await?;
    Ok(())
}
