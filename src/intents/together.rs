//! Intents that wait for the turn of one lane and differ in nothing that T1 decides by are committed together: whoever gets the turn takes
//! those alike along, so that a key that is asked for much pays for one transaction where it would pay for many. Whatever refuses such a
//! transaction rolls all of it back, and then each of them goes by itself, in the same turn, as if there were no others.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::check::{self, Checked};
use super::commit::{self, Committed, Ready};
use super::error::IntentError;
use super::lanes::{Lane, Turn};
use super::store;
use crate::app::App;
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::IntentId;
use crate::telemetry::story::{self, Stage, stage};

/// Most intents of one transaction.
const TOGETHER_MAX: usize = 16;
/// For how long the HSM signs with the locks of one transaction held: there go as many together as it signs meanwhile, by what the last ones
/// took.
const SIGNING: Duration = Duration::from_millis(100);
/// Whoever is not signed by then goes by itself: the HSM has become slow, or this key is slower than the last one.
pub(super) const SIGNING_MAX: Duration = Duration::from_millis(300);

/// Tells an intent that was taken along what came of it.
type Teller = oneshot::Sender<Result<Committed, IntentError>>;

struct Waiting {
    ready: Ready,
    teller: Teller,
}

/// Who waits for which lane's turn, first come first.
pub struct Together {
    lanes: Mutex<HashMap<Lane, Vec<Waiting>>>,
    /// How many go together.
    most: AtomicUsize,
}

impl Default for Together {
    fn default() -> Self {
        Self { lanes: Mutex::default(), most: AtomicUsize::new(1) }
    }
}

impl Together {
    /// Joins those who wait for the lane. Whoever takes it along tells.
    fn join(&self, lane: Lane, ready: Ready) -> oneshot::Receiver<Result<Committed, IntentError>> {
        let (teller, told) = oneshot::channel();
        self.lanes.lock().entry(lane).or_default().push(Waiting { ready, teller });
        told
    }

    /// With the lane's turn: the intent, and those alike that wait with it. `None`: another has taken it along.
    fn take(&self, lane: Lane, id: IntentId) -> Option<(Ready, Vec<(Ready, Teller)>)> {
        let mut lanes = self.lanes.lock();
        let Entry::Occupied(mut entry) = lanes.entry(lane) else { return None };
        let waiting = entry.get_mut();
        let own = waiting.iter().position(|waiting| waiting.ready.id == id)?;
        let first = waiting.remove(own).ready;
        // Nobody waits any more for what has fallen over.
        waiting.retain(|waiting| !waiting.teller.is_closed());
        let most = self.most.load(Ordering::Relaxed);
        let mut along = Vec::new();
        let mut left = Vec::with_capacity(waiting.len());
        for Waiting { ready, teller } in waiting.drain(..) {
            if along.len() + 1 < most && are_alike(&first.checked, &ready.checked) {
                along.push((ready, teller));
            } else {
                left.push(Waiting { ready, teller });
            }
        }
        *waiting = left;
        if waiting.is_empty() {
            entry.remove();
        }
        Some((first, along))
    }

    /// Gives up waiting. `false`: another has taken it along, and will tell.
    fn leave(&self, lane: Lane, id: IntentId) -> bool {
        let mut lanes = self.lanes.lock();
        let Entry::Occupied(mut entry) = lanes.entry(lane) else { return false };
        let waiting = entry.get_mut();
        let before = waiting.len();
        waiting.retain(|waiting| waiting.ready.id != id);
        let was_there = waiting.len() < before;
        if waiting.is_empty() {
            entry.remove();
        }
        was_there
    }

    /// What the HSM took for so many signatures of one transaction, its queue included; 0 when it failed.
    pub(super) fn signed(&self, signatures: usize, took: Duration) {
        self.most.store(most(signatures, took), Ordering::Relaxed);
    }
}

/// Takes the lane's turn in this daemon and commits the intent, or is taken along by another that has the turn.
///
/// # Errors
/// [`IntentError`]. Unless the outcome is unknown, T1 was rolled back: nothing was signed that anybody saw, and nothing is reserved.
pub async fn commit(app: &Arc<App>, mut checked: Checked) -> Result<Committed, IntentError> {
    let (lane, id) = (checked.lane(), IntentId::random());
    story::named(id);
    if !may_be_taken_along(&checked) {
        let _turn = match checked.turn.take() {
            Some(turn) => turn,
            None => check::take_turn(app, lane).await?,
        };
        return alone(app, lane, Ready { id, checked }).await;
    }
    let mut told = app.together.join(lane, Ready { id, checked });
    // For whoever is taken along, the T1 of another is part of it.
    let turn = stage(Stage::Turn, async {
        tokio::select! {
            biased;
            outcome = &mut told => Err(outcome),
            turn = check::turn(app, lane) => Ok(turn),
        }
    });
    let outcome = match turn.await {
        Ok(Ok(turn)) => match app.together.take(lane, id) {
            Some((ready, along)) if along.is_empty() => return alone(app, lane, ready).await,
            Some((ready, along)) => return commit_with(app, lane, turn, ready, along).await,
            None => told.await,
        },
        Ok(Err(too_many)) if app.together.leave(lane, id) => return Err(too_many),
        Ok(Err(_)) => told.await,
        Err(outcome) => outcome,
    };
    // Who tells nothing fell over, at a moment that nobody knows.
    outcome.unwrap_or(Err(IntentError::OutcomeUnknown(id)))
}

/// The intent and those alike, in one T1. Where that is refused, each goes by itself, in this turn: the intent first, and then those who were
/// taken along, for whom it does not wait.
async fn commit_with(
    app: &Arc<App>,
    lane: Lane,
    turn: Turn,
    ready: Ready,
    along: Vec<(Ready, Teller)>,
) -> Result<Committed, IntentError> {
    let (others, tellers): (Vec<Ready>, Vec<Teller>) = along.into_iter().unzip();
    let mut batch = vec![ready];
    batch.extend(others);
    let error = match commit::commit(app, lane, &batch).await {
        Ok(results) => {
            let mut results = results.into_iter();
            let own = results.next();
            for (teller, outcome) in tellers.into_iter().zip(results) {
                // Who does not listen any more has fallen over; the tracker sends what was committed.
                let _ = teller.send(outcome);
            }
            return own.unwrap_or_else(|| Err(IntentError::could_not_check("there is nothing to sign")));
        }
        Err(error) => error,
    };
    tracing::debug!(address = %lane.address, intents = batch.len(), "not together: {error}");
    let mut along: VecDeque<(Ready, Teller)> = batch.drain(1..).zip(tellers).collect();
    // What one of them waits for in vain, others may not.
    if !matches!(error, IntentError::Db(DbError::Busy(_))) && tell_if_theirs(&error, &mut along) {
        return Err(error);
    }
    let Some(own) = batch.pop() else { return Err(error) };
    let outcome = alone(app, lane, own).await;
    if let Err(error) = &outcome {
        tell_if_theirs(error, &mut along);
    }
    let its_app = Arc::clone(app);
    let one_by_one = async move {
        while let Some((ready, teller)) = along.pop_front() {
            let outcome = alone(&its_app, lane, ready).await;
            if let Err(error) = &outcome {
                tell_if_theirs(error, &mut along);
            }
            let _ = teller.send(outcome);
        }
        drop(turn);
    };
    app.tasks.spawn(one_by_one.in_current_span());
    outcome
}

/// A database or an HSM that fails one of them fails the others too: they are told so at once, instead of waiting for it one after the other.
fn tell_if_theirs(error: &IntentError, along: &mut VecDeque<(Ready, Teller)>) -> bool {
    let concerns_all = matches!(
        error,
        IntentError::Db(DbError::Unavailable(_) | DbError::Busy(_))
            | IntentError::Hsm(
                HsmError::Fatal { .. } | HsmError::Unavailable { .. } | HsmError::Busy { .. } | HsmError::Timeout
            )
    );
    if concerns_all {
        let again = || match error {
            IntentError::Hsm(error) => IntentError::Hsm(error.clone()),
            error => IntentError::could_not_check(error.to_string()),
        };
        for (_, teller) in along.drain(..) {
            let _ = teller.send(Err(again()));
        }
    }
    concerns_all
}

/// With the lane's turn: the intent by itself.
async fn alone(app: &Arc<App>, lane: Lane, ready: Ready) -> Result<Committed, IntentError> {
    let id = ready.id;
    match commit::commit(app, lane, &[ready]).await {
        Ok(mut results) => results.pop().unwrap_or(Err(IntentError::OutcomeUnknown(id))),
        Err(error) => {
            if let IntentError::LaneJump { ours, mined: true, .. } = &error {
                let frozen =
                    async { store::freeze_lane(&mut *app.db.acquire().await?, lane, *ours, &error.to_string()).await };
                // The next intent of the lane finds the same and freezes it then.
                if let Err(cause) = frozen.await {
                    tracing::error!(address = %lane.address, error = %cause, "a lane could not be frozen: {error}");
                }
            }
            Err(error)
        }
    }
}

/// How many go together where so many signatures took so long.
fn most(signatures: usize, took: Duration) -> usize {
    if signatures == 0 {
        return 1;
    }
    let each = (took.as_micros() / signatures as u128).max(1);
    usize::try_from(SIGNING.as_micros() / each).unwrap_or(TOGETHER_MAX).clamp(1, TOGETHER_MAX)
}

/// Whether an intent can be committed with others: its place among them decides nothing. What was simulated ran behind certain others, and who
/// wants a certain nonce wants no other.
fn may_be_taken_along(checked: &Checked) -> bool {
    checked.turn.is_none() && checked.explicit_nonce.is_none() && checked.tx.simulation().is_none()
}

/// Of one agent, by one credential and from one address, which its policies may ask for; to be signed with one key, for one chain, in one way.
fn are_alike(one: &Checked, other: &Checked) -> bool {
    let of = |checked: &Checked| {
        let asker = (checked.org_id, checked.agent_id, checked.principal.credential, checked.principal.ip);
        (asker, checked.key.id, checked.lane(), checked.kind)
    };
    // The same definition of the chain, too: its spend group may have been changed in between.
    of(one) == of(other) && Arc::ptr_eq(&one.chain, &other.chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_go_together_as_the_hsm_signs_in_a_tenth_of_a_second() {
        let ms = Duration::from_millis;
        let cases =
            [(16, 8, 16), (1, 6, 16), (1, 7, 14), (4, 100, 4), (1, 63, 1), (1, 1_000, 1), (16, 1_000, 1), (16, 0, 16)];
        for (signatures, took, expected) in cases {
            assert_eq!(most(signatures, ms(took)), expected, "{signatures} in {took} ms");
        }
        assert_eq!(most(0, Duration::ZERO), 1, "an HSM that fails at once is not a fast one");
    }

    #[test]
    fn an_hsm_that_fails_is_told_to_all_and_what_is_wrong_with_one_is_not() {
        let all = [IntentError::Hsm(HsmError::Timeout), IntentError::Hsm(HsmError::Busy { retry_after_s: 1 })];
        let one = [
            IntentError::ClaimLost,
            IntentError::Guardrail(Vec::new()),
            IntentError::could_not_check("the HSM is too slow to sign several at once"),
            IntentError::Hsm(HsmError::NotFound),
            IntentError::Db(DbError::Unfit(String::new())),
        ];
        for error in all {
            assert!(tell_if_theirs(&error, &mut VecDeque::new()), "{error}");
        }
        for error in one {
            assert!(!tell_if_theirs(&error, &mut VecDeque::new()), "{error}");
        }
    }
}
