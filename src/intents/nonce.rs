//! Which nonce an intent gets. With the lane locked, in T1; the chain's counts were read before, and are a floor that is believed
//! only so far.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;

use super::check::{self, Checked, NonceView};
use super::error::IntentError;
use super::frozen;
use super::lanes::Lane;
use super::parse::Kind;
use super::store::{self, LaneRow};
use crate::app::App;

/// How far above the next free nonce an explicit one may park.
const PARK_MAX: u64 = 16;
/// No chain counts this far; the database could not.
const NONCE_MAX: u64 = i64::MAX as u64 - 1_000_000;

/// Nonces, and what is written of the lane together with their slots.
#[derive(Debug)]
pub(super) struct Taken {
    /// One for each intent, in order.
    pub(super) nonces: Vec<u64>,
    /// The lane's next one.
    pub(super) next: u64,
    /// Where the lane begins, if this is its first.
    pub(super) first: Option<u64>,
    /// Nonces that others have, or left out: they become foreign slots.
    pub(super) skipped: Vec<u64>,
    /// Whether one of the lane's transactions should have been sent long ago: it may be held, and these behind it.
    pub(super) has_unsent: bool,
}

/// Gives out nonces of a lane whose locked row is `row`, or which is made and locked here if it is new: the lowest without a slot that are
/// at or above both our count and the chain's. Nothing is written but the row of a lane that is new, which goes with a refusal. The lane must
/// hold these too: its depth and the balance are looked at here, behind the lock, so that parallel ones see each other; and so are the
/// installation's brakes. Only a single intent may want a certain nonce.
///
/// Nonces that the chain has and we have not become foreign slots, at most `nonce_gap_max` of them open at a time. Beyond that
/// nothing is signed; and when they are mined, so that no pool can have invented them, the lane waits for an operator.
pub(super) async fn take(
    app: &Arc<App>,
    conn: &mut PgConnection,
    lane: Lane,
    row: Option<LaneRow>,
    intents: &[&Checked],
) -> Result<Taken, IntentError> {
    let Some(checked) = intents.first() else { return Err(IntentError::could_not_check("there is nothing to sign")) };
    let row = match row {
        Some(row) => row,
        None => store::lock_lane(conn, lane).await?,
    };
    let name = &checked.chain.spec().name;
    if let Some(reason) = row.frozen_reason {
        return Err(IntentError::CouldNotCheck {
            detail: format!("the lane of {} on {name} is frozen: {reason}", lane.address),
            retry_after_s: 60,
        });
    }
    // Each was read by itself: the highest counts are the floor, and what can still cost something begins at the lowest.
    let views = || intents.iter().map(|checked| checked.nonce);
    let highest = |count: fn(NonceView) -> u64| views().map(count).max().unwrap_or_default();
    let (pending, latest, agreed) =
        (highest(|view| view.pending), highest(|view| view.latest), highest(|view| view.agreed));
    let mined = views().map(|view| view.latest).min().unwrap_or_default();
    // A lane that we use for the first time starts at what is mined: what was before is not ours, and what the node has in its pool,
    // or only says to have, is stepped over below like anybody else's, so that no gap stays open.
    let ours = row.next_nonce.unwrap_or(agreed);
    // A pool may be behind the blocks of its own node.
    let floor = ours.max(pending).max(latest);
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
    let reach = floor + bound + PARK_MAX + intents.len() as u64;
    let look = store::look_at_lane(conn, lane, (ours, reach), mined).await?;
    refuse_braked(&look, intents)?;
    let taken: HashSet<u64> = look.taken.into_iter().collect();
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
    let (mut nonces, mut after) = (Vec::with_capacity(intents.len()), next);
    match checked.explicit_nonce.filter(|wanted| *wanted != next) {
        // A parked nonce stays above next_nonce, which moves when it is reached: allocation skips it then.
        Some(wanted) => {
            nonces.push(explicit(wanted, next, latest, name, store::slot_exists(conn, lane, wanted).await?)?);
        }
        None => {
            for _ in intents {
                nonces.push(after);
                after = free_from(after + 1);
            }
        }
    }
    let mut cost = look.open_cost;
    for (checked, open) in intents.iter().zip(look.open..) {
        check::check_depth(app, open, name)?;
        if checked.kind == Kind::Submit {
            cost = checked.funds.check(checked.key.address, cost)?;
        }
    }
    Ok(Taken {
        nonces,
        next: after,
        first: row.next_nonce.is_none().then_some(ours),
        skipped,
        has_unsent: look.has_unsent,
    })
}

/// The installation's brakes, as they are once nothing is waited for any more.
fn refuse_braked(look: &store::LaneLook, intents: &[&Checked]) -> Result<(), IntentError> {
    for checked in intents {
        if look.chain_disabled {
            return Err(IntentError::ChainDisabled(checked.chain.spec().name.clone()));
        }
        if look.simulation_required && checked.tx.simulation().is_none() {
            return Err(IntentError::simulation_came_to_be_required());
        }
    }
    Ok(())
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
