//! Which nonce an intent gets. With the lane locked, in T1; the chain's counts were read before, and are a floor that is believed
//! only so far.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;

use super::check::{Checked, NonceView};
use super::error::IntentError;
use super::frozen;
use super::lanes::Lane;
use super::store;
use crate::app::App;

/// How far above the next free nonce an explicit one may park.
const PARK_MAX: u64 = 16;
/// No chain counts this far; the database could not.
const NONCE_MAX: u64 = i64::MAX as u64 - 1_000_000;

/// Locks the lane and gives out a nonce: the lowest without a slot that is at or above both our count and the chain's.
///
/// Nonces that the chain has and we have not become foreign slots, at most `nonce_gap_max` of them open at a time. Beyond that
/// nothing is signed; and when they are mined, so that no pool can have invented them, the lane waits for an operator.
pub(super) async fn take(
    app: &Arc<App>,
    conn: &mut PgConnection,
    lane: Lane,
    checked: &Checked,
) -> Result<u64, IntentError> {
    let row = store::lock_lane(conn, lane).await?;
    let name = &checked.chain.spec().name;
    if let Some(reason) = row.frozen_reason {
        return Err(IntentError::CouldNotCheck {
            detail: format!("the lane of {} on {name} is frozen: {reason}", lane.address),
            retry_after_s: 60,
        });
    }
    let NonceView { pending, latest, agreed, block } = checked.nonce;
    // A lane that we use for the first time starts at what is mined: what was before is not ours, and what the node has in its pool,
    // or only says to have, is stepped over below like anybody else's, so that no gap stays open.
    let ours = row.next_nonce.unwrap_or(latest);
    let floor = ours.max(pending);
    let bound = app.config.intents.nonce_gap_max;
    let jump = || IntentError::LaneJump {
        chain: name.clone(),
        ours,
        theirs: floor,
        mined: agreed > ours.saturating_add(bound),
    };
    if floor > NONCE_MAX {
        return Err(jump());
    }
    let reach = floor + bound + PARK_MAX + 1;
    let taken: HashSet<u64> = store::slots_between(conn, lane, ours, reach).await?.into_iter().collect();
    if floor - ours > bound + taken.len() as u64 {
        return Err(jump());
    }
    let skipped: Vec<u64> = (ours..floor).filter(|n| !taken.contains(n)).collect();
    if !skipped.is_empty() {
        let open = store::open_foreign(conn, lane).await?;
        if open + skipped.len() as u64 > bound {
            return Err(jump());
        }
        // A key that nobody else has: what is mined is by a copy of it, or our rows are older than the chain.
        if skipped.iter().any(|nonce| *nonce < agreed) && frozen::exclusive_key(app, conn, lane).await?.is_some() {
            return Err(IntentError::LaneJump { chain: name.clone(), ours, theirs: floor, mined: true });
        }
        tracing::warn!(chain = %name, address = %lane.address, ?skipped, "nonces were used, or left out, by somebody else");
    }
    let free_from = |start: u64| (start..=reach).find(|n| !taken.contains(n)).unwrap_or(reach);
    let next = free_from(floor);
    let nonce = match checked.explicit_nonce {
        None => next,
        Some(wanted) => explicit(wanted, next, latest, name, store::slot_exists(conn, lane, wanted).await?)?,
    };
    store::insert_foreign(conn, lane, &skipped, checked.key.id, block).await?;
    // A parked nonce stays above next_nonce, which moves when it is reached: allocation skips it then.
    let new_next = if nonce == next { free_from(next + 1) } else { next };
    if row.next_nonce.is_none() {
        store::set_first_nonce(conn, lane, ours).await?;
    }
    if row.next_nonce != Some(new_next) {
        store::set_next_nonce(conn, lane, new_next).await?;
    }
    Ok(nonce)
}

/// Whether an explicit nonce can be used. A bare replacement by nonce is never made.
fn explicit(wanted: u64, next: u64, latest: u64, chain: &str, has_slot: bool) -> Result<u64, IntentError> {
    let refuse = |occupied: bool, detail: String| Err(IntentError::Nonce { occupied, detail });
    if wanted < latest {
        return refuse(false, format!("nonce {wanted} is used on {chain} already: its next nonce is {latest}"));
    }
    if has_slot || wanted < next {
        return refuse(
            true,
            format!(
                "nonce {wanted} on {chain} belongs to another transaction already; a transaction is replaced by its own speed-up or cancel, not by its nonce. The next free nonce is {next}"
            ),
        );
    }
    if wanted > next + PARK_MAX {
        return refuse(
            false,
            format!("nonce {wanted} is more than {PARK_MAX} above the next free nonce on {chain}, which is {next}"),
        );
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_nonce_is_next_parked_or_refused() {
        // (wanted, has a slot) with the chain at 5 and the next free nonce 7.
        let cases = [
            (4, false, Err(false)),
            (5, true, Err(true)),
            (6, false, Err(true)),
            (7, false, Ok(7)),
            (8, true, Err(true)),
            (9, false, Ok(9)),
            (23, false, Ok(23)),
            (24, false, Err(false)),
            (u64::MAX / 2, false, Err(false)),
        ];
        for (wanted, has_slot, expected) in cases {
            let got = explicit(wanted, 7, 5, "base", has_slot).map_err(|error| match error {
                IntentError::Nonce { occupied, .. } => occupied,
                _ => unreachable!(),
            });
            assert_eq!(got, expected, "{wanted}");
        }
    }
}
