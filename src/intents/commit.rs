//! T1: the one database transaction that takes a nonce. In it, in this order: the idempotency claim is still ours; the spending
//! window is locked and then summed; rules and rights are read again, and the lane is locked with them; the HSM signs; slot, bytes, spend,
//! audit row and completion are written. Then COMMIT. No RPC happens in here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Postgres, Transaction};

use super::authorise::{HeldClaim, why_not_signing};
use super::calldata::{Kind as CallKind, show};
use super::check::Checked;
use super::error::IntentError;
use super::guardrails;
use super::lanes::{Lane, SendOrder};
use super::nonce::{self, Taken};
use super::state::SlotState;
use super::store::{
    self, Aged, Entry, Held, IntentRow, LaneRow, NewIntent, NewSigned, Rights, SimulationNote, SlotRow,
};
use super::together::SIGNING_MAX;
use crate::access::store::{is_token_revoked, still_proven};
use crate::access::{KeyRoot, Principal};
use crate::agents::Agent;
use crate::app::App;
use crate::audit::{Event, Resource};
use crate::chain::Chain;
use crate::db::DbError;
use crate::ids::IntentId;
use crate::simulate::UNMINED_MAX;
use crate::telemetry::story::{Stage, stage};
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
    /// When it was signed: what was frozen by then is not in here.
    pub(super) signed_at: Instant,
    /// Whether one of the lane's transactions should have been sent long ago.
    pub(super) has_unsent: bool,
    /// Its place among the lane's bytes that are to be sent, since it was committed.
    pub(super) order: Option<SendOrder>,
}

/// A checked intent under the id that it will have.
pub(super) struct Ready {
    pub(super) id: IntentId,
    pub(super) checked: Checked,
}

/// T1 for some intents that are alike, none of which wants a certain nonce or was simulated unless it is the only one. All of them, or none.
/// With the lane's turn.
///
/// Locks, in this order: idempotency rows, spending windows, organisation's gate (shared), agent and access rows (shared), lane.
///
/// # Errors
/// The first refusal or failure; then it was rolled back as a whole. After a COMMIT whose answer was lost, the outcome is that of all of them.
pub(super) async fn commit(
    app: &Arc<App>,
    lane: Lane,
    batch: &[Ready],
) -> Result<Vec<Result<Committed, IntentError>>, IntentError> {
    let Some(Ready { checked: first, .. }) = batch.first() else { return Ok(Vec::new()) };
    let units: BTreeSet<&String> = batch.iter().flat_map(|ready| &ready.checked.units).collect();
    let units: Vec<String> = units.into_iter().cloned().collect();
    let mut t1 = begin_and_hold(app, batch, first, &units).await?;
    let committed = match reserve_and_sign(app, &mut t1, lane, batch, first, &units).await {
        Ok(committed) => committed,
        Err(error) => {
            // Where this fails the connection is lost, and the transaction with it.
            let _ = t1.rollback().await;
            return Err(error);
        }
    };
    let in_order = |one: Committed| Committed { order: Some(app.lanes.next_to_send(lane)), ..one };
    // No time-out wraps COMMIT: cancelled half-way, its outcome would be unknown for no reason. It may wait for a standby.
    let Err(cause) = stage(Stage::Commit, t1.commit()).await else {
        return Ok(committed.into_iter().map(|one| Ok(in_order(one))).collect());
    };
    tracing::warn!(error = %cause, "the answer to COMMIT was lost; asking for the outcome");
    // One transaction: what became of one of them became of all.
    let Some(first) = committed.first() else { return Ok(Vec::new()) };
    let outcome = ask_outcome(app, lane, first.row.id).await;
    let told = committed.into_iter().map(|one| match outcome {
        Some(true) => Ok(in_order(one)),
        Some(false) => Err(IntentError::could_not_check("the database lost the commit; nothing is reserved")),
        None => Err(IntentError::OutcomeUnknown(one.row.id)),
    });
    Ok(told.collect())
}

/// Begins T1 and takes what it waits for: the claims (whoever took one over may commit, and we may not), the spending windows, and the
/// organisation's gate. Windows that are used for the first time are made in a transaction of their own, and then it begins again.
async fn begin_and_hold(
    app: &Arc<App>,
    batch: &[Ready],
    first: &Checked,
    units: &[String],
) -> Result<Transaction<'static, Postgres>, IntentError> {
    let claims: Vec<HeldClaim> = batch.iter().filter_map(|ready| ready.checked.claim).collect();
    let whose = (first.org_id, first.agent_id);
    for _ in 0..2 {
        let mut t1 = stage(Stage::Begin, store::begin_t1(&app.db)).await?;
        match stage(Stage::Windows, store::hold(&mut t1, whose, &claims, units)).await {
            Ok(Held::All) => return Ok(t1),
            held => {
                let _ = t1.rollback().await;
                match held? {
                    Held::ClaimLost => return Err(IntentError::ClaimLost),
                    _ => store::make_windows(&app.db, first.agent_id, units).await?,
                }
            }
        }
    }
    Err(IntentError::could_not_check("a spending window could not be made: try again"))
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

/// The body of T1, with claims and windows held and the gate passed.
async fn reserve_and_sign(
    app: &Arc<App>,
    conn: &mut PgConnection,
    lane: Lane,
    batch: &[Ready],
    first: &Checked,
    units: &[String],
) -> Result<Vec<Committed>, IntentError> {
    let agent_id = first.agent_id;
    // 1. Rules and rights as they are now, with what the windows hold.
    let (reserved, row) = stage(Stage::Rules, async {
        let (agent, mut aged, row) = recheck(conn, lane, batch, first, units).await?;
        let mut reserved = Vec::with_capacity(batch.len());
        for (index, ready) in batch.iter().enumerate() {
            reserved.push(reserve(conn, &ready.checked, units, &agent, &mut aged, index == 0).await?);
        }
        Ok::<_, IntentError>((reserved, row))
    })
    .await?;
    // 2. The nonces, and whether the balance that was read is enough for what others took meanwhile.
    let intents: Vec<&Checked> = batch.iter().map(|ready| &ready.checked).collect();
    let taken = stage(Stage::Nonce, async {
        let taken = nonce::take(app, conn, lane, row, &intents).await?;
        check_ahead(conn, lane, &taken, first).await?;
        Ok::<_, IntentError>(taken)
    })
    .await?;
    // 3. The signatures, over exactly what was checked and simulated (I7): the hash is compared here.
    let signed_at = Instant::now();
    let key = &first.key;
    let context = key.context();
    let signing = async {
        // One after the other: others' keys have their turns at the HSM in between.
        let mut bytes = Vec::with_capacity(intents.len());
        for (checked, nonce) in intents.iter().zip(&taken.nonces) {
            if !bytes.is_empty() && signed_at.elapsed() > SIGNING_MAX {
                return Err(IntentError::could_not_check("the HSM is too slow to sign several at once"));
            }
            let digest = checked.tx.signing_digest(*nonce)?;
            let signature = app.hsm.sign(&context, &key.key_ref, &key.public_key, digest).await?;
            bytes.push(checked.tx.encode(*nonce, &signature));
        }
        Ok::<_, IntentError>(bytes)
    };
    let bytes = stage(Stage::Sign, signing).await;
    app.together.signed(bytes.as_ref().map_or(0, Vec::len), signed_at.elapsed());
    let bytes = bytes?;
    // 4. Everything, or nothing.
    let group = &first.chain.spec().spend_group;
    let signed: Vec<NewSigned<'_>> = batch
        .iter()
        .zip(&taken.nonces)
        .zip(reserved.iter().zip(&bytes))
        .map(|((Ready { id, checked }, nonce), (entries, bytes))| {
            let at = entries.iter().find(|entry| entry.unit == *group).map_or_else(crate::clock::now, |entry| entry.at);
            let new = NewIntent {
                id: *id,
                org_id: checked.org_id,
                agent_id,
                kind: checked.kind,
                chain: &checked.chain.spec().name,
                spend_group: group,
                key_id: key.id,
                tx: &checked.tx,
                simulation: checked.tx.simulation().map(SimulationNote::from),
            };
            NewSigned { new, at, nonce: *nonce, bytes, entries }
        })
        .collect();
    let mut committed = Vec::with_capacity(batch.len());
    let mut events = Vec::with_capacity(batch.len());
    for (one, checked) in signed.iter().zip(&intents) {
        let slot = SlotRow::new(one.nonce, SlotState::Signed, one.bytes.raw.to_vec(), one.bytes.hash);
        let row = IntentRow::new(&one.new, one.at, Some(slot));
        events.push(signed_event(checked, &row, one.nonce));
        committed.push(Committed {
            chain: Arc::clone(&checked.chain),
            lane,
            row,
            nonce: one.nonce,
            signed_at,
            has_unsent: taken.has_unsent,
            order: None,
        });
    }
    let done: Vec<(HeldClaim, IntentId)> =
        batch.iter().filter_map(|ready| Some((ready.checked.claim?, ready.id))).collect();
    stage(Stage::Write, async {
        let noticed = intents.iter().map(|checked| checked.nonce.block).max().unwrap_or_default();
        store::insert_foreign(conn, lane, &taken.skipped, key.id, noticed).await?;
        if !store::insert_signed(conn, &taken, &signed, (first.kind.action(), &events), &done).await? {
            return Err(IntentError::ClaimLost);
        }
        Ok(committed)
    })
    .await
}

/// The entries of this intent with the sums that they make, which go into `aged` for the next one, or the rules that say no. What has come
/// of age is taken out of the windows as far as that decides, unless there are sums in `aged` that the rows do not have.
async fn reserve(
    conn: &mut PgConnection,
    checked: &Checked,
    units: &[String],
    agent: &Agent,
    aged: &mut BTreeMap<String, Aged>,
    may_age: bool,
) -> Result<Vec<Entry>, IntentError> {
    let group = &checked.chain.spec().spend_group;
    for _ in 0..AGEINGS_MAX {
        let sums = |unit: &str| aged.get(unit).map(|aged| aged.window);
        let judged = guardrails::judge(&agent.guardrails, group, &checked.facts(), sums);
        if judged.allows() {
            let mut entries = Vec::with_capacity(judged.charges.len());
            for (charge, sums) in judged.charges {
                let at = aged.get_mut(&charge.unit).map_or_else(crate::clock::now, |aged| {
                    aged.window = sums;
                    aged.at
                });
                entries.push(Entry { unit: charge.unit, value: charge.value, fee: charge.fee, sums, at });
            }
            return Ok(entries);
        }
        // By itself: what the sums exceed beside that is not told, because they may be too high still.
        if !judged.broken.is_empty() {
            return Err(IntentError::Guardrail(judged.broken));
        }
        // A rule that came after the windows were chosen has one that is not locked, and their order forbids to lock it now.
        if judged.unknown {
            return Err(IntentError::changed_meanwhile("the guardrails were changed"));
        }
        if !may_age || !aged.values().any(|window| window.more) {
            return Err(IntentError::Guardrail(judged.exceeded));
        }
        *aged = store::age_windows(conn, checked.agent_id, units).await?;
    }
    Err(IntentError::could_not_check("very many entries leave the 24-hour window just now: try again in a minute"))
}

/// What was simulated ran after exactly our own transactions that come before it now. With the lane locked.
async fn check_ahead(conn: &mut PgConnection, lane: Lane, taken: &Taken, checked: &Checked) -> Result<(), IntentError> {
    let (Some(ahead), [nonce]) = (checked.tx.ahead(), taken.nonces.as_slice()) else { return Ok(()) };
    let now = store::ahead_of(conn, lane, ahead.mined, *nonce, UNMINED_MAX as u64 + 1).await?;
    let same = now.iter().map(|one| (one.nonce, one.tx_hash)).eq(ahead.list.iter().copied());
    if same { Ok(()) } else { Err(IntentError::changed_meanwhile("other transactions of this key came or went")) }
}

/// Reads again, on this connection, behind the organisation's gate and with shared locks: the agent with its guardrails, which [`reserve`]
/// applies, the credential, the key and the right to it, and whether a simulation is required; of windows that are locked, the sums; and the
/// lane, which is locked by then unless it is new. A revocation, a freeze or a stricter setting that has been answered holds here, however long
/// the checks took.
async fn recheck(
    conn: &mut PgConnection,
    lane: Lane,
    batch: &[Ready],
    first: &Checked,
    units: &[String],
) -> Result<(Agent, BTreeMap<String, Aged>, Option<LaneRow>), IntentError> {
    let whose = (first.agent_id, first.key.id);
    let rights = store::hold_rights(conn, lane, first.org_id, whose, units).await?;
    let rights = rights.ok_or_else(|| IntentError::NotFound("no such agent".to_owned()))?;
    let Rights { agent, limits, key, rules, standing, lane, windows } = rights;
    if let Some(why) = why_not_signing(&agent, crate::clock::now()) {
        return Err(IntentError::NotAllowed(why.to_owned()));
    }
    if !is_proven(conn, &first.principal, &agent).await? {
        return Err(IntentError::NotAllowed("the credential was rotated or revoked meanwhile".to_owned()));
    }
    keys::store::may_sign(&first.principal, key, &limits, rules)?;
    let spec = first.chain.spec();
    standing.refuse_frozen()?;
    if standing.chain_disabled {
        return Err(IntentError::ChainDisabled(spec.name.clone()));
    }
    for Ready { checked, .. } in batch.iter().filter(|ready| ready.checked.tx.simulation().is_none()) {
        if standing.simulation_required {
            return Err(IntentError::simulation_came_to_be_required());
        }
        if guardrails::needs_effects(&agent.guardrails, &spec.name, &checked.calls) {
            return Err(IntentError::changed_meanwhile("the guardrails came to need a simulation"));
        }
    }
    Ok((agent, windows, lane))
}

/// Whether the credential still holds. An agent's key is in the row that is held already.
async fn is_proven(conn: &mut PgConnection, principal: &Principal, agent: &Agent) -> Result<bool, DbError> {
    match principal.credential.root() {
        // Whether it has expired by now is the database's to say.
        KeyRoot::Agent(hash) if principal.agent_id() == Some(agent.id) && agent.expires_at.is_none() => {
            Ok(agent.key_hash == Some(hash) && !is_token_revoked(conn, principal).await?)
        }
        _ => still_proven(conn, principal).await,
    }
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
