//! T1: the one database transaction that takes a nonce. In it, in this order: the idempotency claim is still ours; the spending
//! window is locked and then summed; the rules and rights are read again; the lane is locked; the HSM signs; slot, bytes, spend,
//! audit row and completion are written. Then COMMIT. No RPC happens in here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Acquire, PgConnection};

use super::authorise::why_not_signing;
use super::calldata::{Kind as CallKind, show};
use super::check::{self, Checked};
use super::error::IntentError;
use super::guardrails::{self, Charge, Window};
use super::lanes::Lane;
use super::nonce;
use super::parse::Kind;
use super::refuse;
use super::state::SlotState;
use super::store::{self, Aged, Entry, IntentRow, NewIntent, SimulationNote, SlotRow};
use crate::access::store::still_proven;
use crate::agents::{self, Agent};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::Chain;
use crate::db::DbError;
use crate::freezes;
use crate::ids::IntentId;
use crate::simulate::UNMINED_MAX;
use crate::vaults::keys;

/// How often the outcome of a COMMIT is asked for.
const OUTCOME_TRIES: u32 = 5;
/// Effects and calls that an audit row names.
const AUDITED_MAX: usize = 8;
/// Batches of entries that T1 ages out of a window before it says that it cannot tell yet.
const AGEINGS_MAX: u32 = 20;

/// A transaction whose signed bytes are committed: they may leave the process now.
pub struct Committed {
    pub(super) chain: Arc<Chain>,
    pub(super) lane: Lane,
    pub(super) row: IntentRow,
    pub(super) nonce: u64,
}

/// An intent that was stopped, and whether its audit row is written and its claim released already.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub error: IntentError,
    /// Whether the refusal was recorded with it.
    pub recorded: bool,
}

impl<E: Into<IntentError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self { error: error.into(), recorded: false }
    }
}

/// Takes the lane's turn in this daemon and commits one intent.
///
/// # Errors
/// [`Stopped`]. Unless the outcome is unknown, nothing was signed that anybody saw, and nothing is reserved.
pub async fn commit(app: &Arc<App>, mut checked: Checked) -> Result<Committed, Stopped> {
    let lane = checked.lane();
    let _turn = match checked.turn.take() {
        Some(turn) => turn,
        None => check::take_turn(app, lane).await?,
    };
    let mut results = commit_batch(app, lane, vec![checked]).await;
    results.pop().unwrap_or_else(|| Err(IntentError::could_not_check("nothing was committed").into()))
}

/// T1 for some intents of one lane, in order; today always one. Each has a savepoint: a refusal rolls back to it and writes its
/// own audit row and the release of its claim, which commit with the others.
///
/// Locks, in this order: idempotency row, spending window, agent and access rows (shared), lane.
pub async fn commit_batch(app: &Arc<App>, lane: Lane, batch: Vec<Checked>) -> Vec<Result<Committed, Stopped>> {
    let count = batch.len();
    match run_t1(app, lane, batch).await {
        Ok(results) => results,
        Err(error) => {
            let mut results: Vec<Result<Committed, Stopped>> = (1..count)
                .map(|_| Err(IntentError::could_not_check("the database failed; nothing was signed").into()))
                .collect();
            results.push(Err(error.into()));
            results
        }
    }
}

async fn run_t1(app: &Arc<App>, lane: Lane, batch: Vec<Checked>) -> Result<Vec<Result<Committed, Stopped>>, DbError> {
    let mut t1 = app.db.begin().await?;
    store::begin_t1(&mut t1).await?;
    let mut results = Vec::with_capacity(batch.len());
    for checked in batch {
        let mut savepoint = t1.begin().await?;
        let outcome = reserve_and_sign(app, &mut savepoint, lane, &checked).await;
        match outcome {
            Ok(committed) => {
                savepoint.commit().await?;
                results.push(Ok(committed));
            }
            // The connection is in doubt: nothing can be written in this transaction any more.
            Err(IntentError::Db(error)) => {
                results.push(Err(IntentError::Db(error).into()));
                return Ok(results);
            }
            Err(error) => {
                savepoint.rollback().await?;
                let recorded = !matches!(error, IntentError::ClaimLost);
                if recorded {
                    if let IntentError::LaneJump { ours, mined: true, .. } = &error {
                        store::freeze_lane(&mut t1, lane, *ours, &error.to_string()).await?;
                    }
                    let Checked { principal, agent_id, kind, claim, .. } = &checked;
                    refuse::write(&mut t1, principal, *agent_id, *kind, *claim, &error).await?;
                }
                results.push(Err(Stopped { error, recorded }));
            }
        }
    }
    // No time-out wraps COMMIT: cancelled half-way, its outcome would be unknown for no reason. It may wait for a standby.
    if let Err(cause) = t1.commit().await {
        tracing::warn!(error = %cause, "the answer to COMMIT was lost; asking for the outcome");
        results = ask_outcomes(app, lane, results).await;
    }
    Ok(results)
}

/// The answer to COMMIT was lost. Each intent is looked up by id on a fresh connection, behind the lane's lock.
async fn ask_outcomes(
    app: &Arc<App>,
    lane: Lane,
    results: Vec<Result<Committed, Stopped>>,
) -> Vec<Result<Committed, Stopped>> {
    let mut told = Vec::with_capacity(results.len());
    for result in results {
        told.push(match result {
            Err(mut stopped) => {
                // Its audit row may be lost with the COMMIT.
                stopped.recorded = false;
                Err(stopped)
            }
            Ok(committed) => match ask_outcome(app, lane, committed.row.id).await {
                Some(true) => Ok(committed),
                Some(false) => {
                    Err(IntentError::could_not_check("the database lost the commit; nothing is reserved").into())
                }
                None => Err(IntentError::OutcomeUnknown(committed.row.id).into()),
            },
        });
    }
    told
}

/// Whether the intent committed; `None` when that cannot be told.
async fn ask_outcome(app: &Arc<App>, lane: Lane, id: IntentId) -> Option<bool> {
    for attempt in 0..OUTCOME_TRIES {
        match store::settled_outcome(&app.db, lane, id).await {
            Ok(found) => return Some(found),
            Err(error) => tracing::warn!(intent = %id, attempt, error = %error, "the outcome cannot be read yet"),
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
    }
    None
}

/// The body of T1 for one intent.
async fn reserve_and_sign(
    app: &Arc<App>,
    conn: &mut PgConnection,
    lane: Lane,
    checked: &Checked,
) -> Result<Committed, IntentError> {
    // 1. The claim: whoever took it over may commit, and we may not.
    if let Some(claim) = checked.claim
        && !store::hold_claim(conn, checked.agent_id, claim.key_hash, claim.token).await?
    {
        return Err(IntentError::ClaimLost);
    }
    // 2. The spending windows: locked, and summed in a later statement.
    let group = &checked.chain.spec().spend_group;
    store::lock_windows(conn, checked.agent_id, &checked.units).await?;
    let aged = store::age_windows(conn, checked.agent_id, &checked.units).await?;
    // 3. Rules and rights as they are now.
    let agent = recheck(conn, checked).await?;
    let entries = reserve(conn, checked, &agent, aged).await?;
    let at = entries.iter().find(|entry| entry.unit == *group).map_or_else(crate::clock::now, |entry| entry.at);
    // 4. The nonce, and whether the balance that was read is enough for what others took meanwhile.
    let nonce = nonce::take(app, conn, lane, checked).await?;
    check_funds(app, conn, lane, checked).await?;
    check_ahead(conn, lane, nonce, checked).await?;
    // 5. The signature, over exactly what was checked and simulated (I7): the hash is compared here.
    let digest = checked.tx.signing_digest(nonce)?;
    let key = &checked.key;
    let signature = app.hsm.sign(&key.context(), &key.key_ref, &key.public_key, digest).await?;
    let bytes = checked.tx.encode(nonce, &signature);
    // 6. Everything, or nothing.
    let new = NewIntent {
        id: IntentId::random(),
        org_id: checked.org_id,
        agent_id: checked.agent_id,
        kind: checked.kind,
        chain: &checked.chain.spec().name,
        spend_group: group,
        key_id: key.id,
        tx: &checked.tx,
        simulation: checked.tx.simulation().map(SimulationNote::from),
    };
    store::insert_intent(conn, &new, at).await?;
    store::insert_slot(conn, lane, nonce, &new, &bytes).await?;
    store::record_spends(conn, &new, &entries).await?;
    let row = IntentRow::new(&new, at, Some(SlotRow::new(nonce, SlotState::Signed, bytes.raw.to_vec(), bytes.hash)));
    audit::record(conn, signed_event(checked, &row, nonce)).await?;
    if let Some(claim) = checked.claim
        && !store::finish_claim(conn, checked.agent_id, claim.key_hash, claim.token, new.id).await?
    {
        return Err(IntentError::ClaimLost);
    }
    Ok(Committed { chain: Arc::clone(&checked.chain), lane, row, nonce })
}

/// The entries of this intent with the sums that they make, or the rules that say no. What has come of age is taken out of the windows as
/// far as that decides.
async fn reserve(
    conn: &mut PgConnection,
    checked: &Checked,
    agent: &Agent,
    mut aged: BTreeMap<String, Aged>,
) -> Result<Vec<Entry>, IntentError> {
    let group = &checked.chain.spec().spend_group;
    for _ in 0..AGEINGS_MAX {
        let sums = |unit: &str| aged.get(unit).map(|aged| aged.window);
        let judged = guardrails::judge(&agent.guardrails, group, &checked.facts(), sums);
        if judged.allows() {
            let at = |unit: &str| aged.get(unit).map_or_else(crate::clock::now, |aged| aged.at);
            let entry = |(charge, sums): (Charge, Window)| {
                let at = at(&charge.unit);
                Entry { unit: charge.unit, value: charge.value, fee: charge.fee, sums, at }
            };
            return Ok(judged.charges.into_iter().map(entry).collect());
        }
        // A rule that came after the windows were chosen has one that is not locked, and their order forbids to lock it now.
        if judged.broken.is_empty() && judged.unknown {
            return Err(changed_meanwhile("the guardrails were changed"));
        }
        if !judged.broken.is_empty() || !aged.values().any(|window| window.more) {
            return Err(IntentError::Guardrail(judged.violations()));
        }
        aged = store::age_windows(conn, checked.agent_id, &checked.units).await?;
    }
    Err(IntentError::could_not_check("very many entries leave the 24-hour window just now: try again in a minute"))
}

fn changed_meanwhile(what: &str) -> IntentError {
    IntentError::could_not_check(format!("{what} while this was checked: nothing was signed; try again"))
}

/// The lane has room, and, for submits only, the bytes will be payable when it is their turn. With the lane locked, so that parallel
/// ones see each other.
async fn check_funds(app: &App, conn: &mut PgConnection, lane: Lane, checked: &Checked) -> Result<(), IntentError> {
    let (open_cost, open) = store::open_cost(conn, lane, checked.nonce.latest).await?;
    check::check_depth(app, open, &checked.chain.spec().name)?;
    if checked.kind == Kind::SignOnly {
        return Ok(());
    }
    checked.funds.check(checked.key.address, open_cost)
}

/// What was simulated ran after exactly our own transactions that come before it now. With the lane locked.
async fn check_ahead(conn: &mut PgConnection, lane: Lane, nonce: u64, checked: &Checked) -> Result<(), IntentError> {
    let Some(ahead) = checked.tx.ahead() else { return Ok(()) };
    let now = store::ahead_of(conn, lane, ahead.mined, nonce, UNMINED_MAX as u64 + 1).await?;
    let same = now.iter().map(|one| (one.nonce, one.tx_hash)).eq(ahead.list.iter().copied());
    if same { Ok(()) } else { Err(changed_meanwhile("other transactions of this key came or went")) }
}

/// Reads again, on this connection, behind the organisation's gate and with shared locks: the agent with its guardrails, which [`reserve`] applies, the credential, the
/// key and the right to it, and whether a simulation is required. A revocation, a freeze or a stricter setting that has been answered
/// holds here, however long the checks took.
async fn recheck(conn: &mut PgConnection, checked: &Checked) -> Result<Agent, IntentError> {
    freezes::store::pass_gate(conn, checked.org_id).await?;
    let agent = agents::store::get_for_share(conn, checked.agent_id)
        .await?
        .ok_or_else(|| IntentError::NotFound("no such agent".to_owned()))?;
    if let Some(why) = why_not_signing(&agent, crate::clock::now()) {
        return Err(IntentError::NotAllowed(why.to_owned()));
    }
    if !still_proven(conn, &checked.principal).await? {
        return Err(IntentError::NotAllowed("the credential was rotated or revoked meanwhile".to_owned()));
    }
    keys::recheck(conn, &checked.principal, checked.key.id).await?;
    let spec = checked.chain.spec();
    let standing = store::standing(conn, checked.org_id, checked.agent_id, checked.lane()).await?;
    standing.refuse_frozen()?;
    if standing.chain_disabled {
        return Err(IntentError::ChainDisabled(spec.name.clone()));
    }
    if checked.tx.simulation().is_none() {
        if standing.simulation_required {
            return Err(changed_meanwhile("it came to be required that every intent is simulated"));
        }
        if guardrails::needs_effects(&agent.guardrails, &spec.name, &checked.calls) {
            return Err(changed_meanwhile("the guardrails came to need a simulation"));
        }
    }
    Ok(agent)
}

fn signed_event(checked: &Checked, row: &IntentRow, nonce: u64) -> Event {
    Event::by(&checked.principal, checked.kind.action(), Resource::new("transaction", row.id))
        .with("outcome", "signed")
        .with("chain", row.chain.as_str())
        .with("chain_id", row.tx.chain_id.0)
        .with("from", row.tx.from.to_string())
        .with("to", row.tx.to.to_string())
        .with("value_wei", row.tx.value.to_string())
        .with("nonce", nonce)
        .with("gas_limit", row.tx.gas_limit)
        .with("max_fee_wei", checked.max_fee.to_string())
        .with("tx_hash", row.slot.as_ref().map(|slot| slot.tx_hash.to_string()))
        .with_some("does", in_short(checked))
}

/// What the calldata says that it does, and what the simulation showed beside that; `None` for a payment.
fn in_short(checked: &Checked) -> Option<Vec<String>> {
    let said = checked.calls.tokens.iter().map(ToString::to_string);
    let unknown =
        checked.calls.calls.iter().filter(|call| !matches!(call.kind, CallKind::Plain | CallKind::Understood));
    let unknown = unknown.map(|call| format!("call {} of {}", show(call.selector), call.target));
    let seen = checked.effects.iter().flat_map(|effects| &effects.tokens).map(|effect| format!("simulated: {effect}"));
    let mut lines: Vec<String> = said.chain(unknown).chain(seen).collect();
    if lines.len() > AUDITED_MAX {
        let more = lines.len() - AUDITED_MAX;
        lines.truncate(AUDITED_MAX);
        lines.push(format!("and {more} more"));
    }
    (!lines.is_empty()).then_some(lines)
}
