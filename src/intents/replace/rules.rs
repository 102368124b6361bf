//! What may be done to a transaction that is signed, and by what it is replaced. Pure.

use std::time::Duration;

use crate::chain::Fees;
use crate::intents::state::{Outcome, SlotState};

/// Most payments of one slot, whoever asks for them.
pub const ATTEMPTS_MAX: usize = 32;
/// Most no-ops of one slot, beside them: however often a payment was raised, it can be cancelled, and that raised again.
pub const NOOPS_MAX: usize = 32;

/// Why a further attempt is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody wants the same payment sooner.
    SpeedUp,
    /// The same payload with higher fees, by the daemon itself: the market has moved above what it pays.
    Bump,
    /// Somebody wants nothing to happen: a no-op takes the nonce.
    Cancel,
    /// Nobody will mine it: the daemon closes the nonce with a no-op.
    Close,
}

impl Reason {
    /// As the table writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpeedUp => "speed_up",
            Self::Bump => "bump",
            Self::Cancel => "cancel",
            Self::Close => "close",
        }
    }

    /// The action of its audit rows.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::SpeedUp => "transaction.speed_up",
            Self::Bump => "transaction.bump",
            Self::Cancel => "transaction.cancel",
            Self::Close => "transaction.close",
        }
    }
}

/// Where a slot stands, as far as that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: SlotState,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// The daemon never sends the intent's own bytes.
    pub sign_only: bool,
    /// How many attempts it has.
    pub attempts: usize,
    /// How many of them are no-ops.
    pub noops: usize,
    /// Whether the latest is a no-op.
    pub is_noop: bool,
    /// Its nonce.
    pub nonce: u64,
}

/// What comes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A further attempt is signed.
    Replace,
    /// It is as was asked for already.
    Already,
}

/// Whether a slot may be replaced now, for this reason.
///
/// # Errors
/// Why not, for the caller.
pub fn may(reason: Reason, slot: &Standing) -> Result<Verdict, String> {
    let nonce = slot.nonce;
    match (reason, slot.state, slot.outcome) {
        (Reason::Cancel, SlotState::Mined | SlotState::Final, Some(Outcome::Cancelled)) => {
            return Ok(Verdict::Already);
        }
        (_, SlotState::Mined, _) => {
            return Err(format!("nonce {nonce} is mined already: it cannot be replaced any more"));
        }
        (_, SlotState::Final, outcome) => {
            let how = outcome.map_or("", Outcome::as_str);
            return Err(format!("nonce {nonce} is final ({how}): it cannot be replaced any more"));
        }
        // Nobody's transaction: only the daemon closes it.
        (Reason::SpeedUp | Reason::Cancel, SlotState::Foreign, _) => {
            return Err(format!("nonce {nonce} was left to others: there is nothing of ours to replace"));
        }
        (_, SlotState::Signed | SlotState::Broadcast | SlotState::Foreign, _) => {}
    }
    match reason {
        Reason::Cancel | Reason::Close if slot.is_noop => return Ok(Verdict::Already),
        Reason::SpeedUp if slot.is_noop => {
            return Err(format!("nonce {nonce} is being cancelled: its payment cannot be sped up any more"));
        }
        Reason::SpeedUp if slot.sign_only => {
            return Err(
                "these bytes were only signed, and the daemon never sends them: sign a new transaction with other fees, or cancel this one"
                    .to_owned(),
            );
        }
        Reason::Bump if slot.sign_only && !slot.is_noop => {
            return Err("bytes that were only signed are not ours to send".to_owned());
        }
        _ => {}
    }
    match signs_noop(reason, slot) {
        true if slot.noops >= NOOPS_MAX => {
            Err(format!("nonce {nonce} has {NOOPS_MAX} signed no-ops already: one of its attempts will be mined"))
        }
        false if slot.attempts.saturating_sub(slot.noops) >= ATTEMPTS_MAX => Err(format!(
            "nonce {nonce} has {ATTEMPTS_MAX} signed attempts already: one of them will be mined, or it is cancelled"
        )),
        _ => Ok(Verdict::Replace),
    }
}

/// Whether it is a no-op that is signed.
#[must_use]
pub fn signs_noop(reason: Reason, slot: &Standing) -> bool {
    match reason {
        Reason::Cancel | Reason::Close => true,
        // Nobody's nonce has no payment, and one that was called failed is not made any more.
        Reason::Bump => slot.is_noop || slot.state == SlotState::Foreign,
        Reason::SpeedUp => false,
    }
}

/// How long a raise is left alone, in seconds: two blocks in which it may be mined, and what a client takes to ask again.
#[must_use]
pub fn raise_rests_s(block_time_ms: u64) -> f64 {
    Duration::from_millis(block_time_ms.saturating_mul(2)).as_secs_f64().clamp(5.0, 60.0)
}

/// An attempt, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// What it pays; `None` in no-ops of old.
    pub fees: Option<Fees>,
    /// Whether it is a no-op.
    pub is_noop: bool,
}

/// What must be outbid: any attempt may be in a pool.
#[must_use]
pub fn to_outbid(attempts: &[Before]) -> Option<Fees> {
    crate::chain::fees::highest(attempts.iter().filter_map(|attempt| attempt.fees))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Standing = Standing {
        state: SlotState::Broadcast,
        outcome: None,
        sign_only: false,
        attempts: 1,
        noops: 0,
        is_noop: false,
        nonce: 7,
    };

    #[test]
    fn what_is_in_a_block_is_not_replaced() {
        for reason in [Reason::SpeedUp, Reason::Bump, Reason::Cancel, Reason::Close] {
            for state in [SlotState::Mined, SlotState::Final] {
                for outcome in [Outcome::Success, Outcome::Reverted, Outcome::Cancelled, Outcome::Foreign] {
                    let slot = Standing { state, outcome: Some(outcome), ..OPEN };
                    let done = reason == Reason::Cancel && outcome == Outcome::Cancelled;
                    assert_eq!(may(reason, &slot).ok(), done.then_some(Verdict::Already), "{reason:?} {slot:?}");
                }
            }
        }
    }

    #[test]
    fn open_slots_are_replaced_by_what_makes_sense() {
        use Verdict::{Already, Replace};
        let noop = Standing { is_noop: true, attempts: 2, noops: 1, ..OPEN };
        let given_out = Standing { sign_only: true, state: SlotState::Signed, ..OPEN };
        let closed = Standing { is_noop: true, attempts: 2, noops: 1, ..given_out };
        let others = Standing { state: SlotState::Foreign, attempts: 0, ..OPEN };
        let full = Standing { attempts: ATTEMPTS_MAX, ..OPEN };
        let cancelled = Standing { attempts: ATTEMPTS_MAX + 1, noops: 1, is_noop: true, ..OPEN };
        let exhausted = Standing { attempts: ATTEMPTS_MAX + NOOPS_MAX, noops: NOOPS_MAX, is_noop: true, ..OPEN };
        let cases = [
            // Speed-up, bump, cancel, close.
            (OPEN, [Some(Replace), Some(Replace), Some(Replace), Some(Replace)]),
            (noop, [None, Some(Replace), Some(Already), Some(Already)]),
            (given_out, [None, None, Some(Replace), Some(Replace)]),
            (closed, [None, Some(Replace), Some(Already), Some(Already)]),
            (others, [None, Some(Replace), None, Some(Replace)]),
            // Whatever was raised before: it can be cancelled, and that can be raised.
            (full, [None, None, Some(Replace), Some(Replace)]),
            (cancelled, [None, Some(Replace), Some(Already), Some(Already)]),
            (exhausted, [None, None, Some(Already), Some(Already)]),
        ];
        for (slot, expected) in cases {
            let reasons = [Reason::SpeedUp, Reason::Bump, Reason::Cancel, Reason::Close];
            assert_eq!(reasons.map(|reason| may(reason, &slot).ok()), expected, "{slot:?}");
        }
    }
}
