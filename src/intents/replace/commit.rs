//! The one database transaction of a replacement, in the order of T1: the claim; the spending windows; rules and rights as they are now;
//! the lane and the slot, still as they were read; the signature; the attempt, what it can cost, and the audit row. No RPC in here.

use std::time::Duration;

use sqlx::PgConnection;

use super::super::authorise::why_not_signing;
use super::super::check;
use super::super::error::IntentError;
use super::super::guardrails::{self, chain_unit};
use super::super::store as rows;
use super::By;
use super::prepare::Replacement;
use super::rules::Reason;
use super::store::{self, Owner, Raised};
use crate::access::store::still_proven;
use crate::agents::{self, Agent};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::SignedTx;
use crate::freezes;
use crate::money::Wei;
use crate::simulate::UNMINED_MAX;
use crate::telemetry::story::{Stage, stage};
use crate::vaults::keys;

/// How often the outcome of a COMMIT is asked for.
const OUTCOME_TRIES: u32 = 5;

/// Signs the replacement and stores its bytes; they may be sent when this has returned.
pub(super) async fn commit(app: &App, by: By<'_>, replacement: &Replacement) -> Result<SignedTx, IntentError> {
    let lane = replacement.target.lane;
    let _turn = check::take_turn(app, lane).await?;
    let mut t1 = stage(Stage::Begin, rows::begin_t1(&app.db)).await?;
    let bytes = sign(app, &mut t1, by, replacement).await?;
    // No time-out wraps COMMIT.
    let Err(cause) = stage(Stage::Commit, t1.commit()).await else { return Ok(bytes) };
    tracing::warn!(error = %cause, "the answer to COMMIT was lost; asking for the outcome");
    for attempt in 0..OUTCOME_TRIES {
        match store::settled_outcome(&app.db, lane, bytes.hash).await {
            Ok(true) => return Ok(bytes),
            Ok(false) => return Err(IntentError::could_not_check("the database lost the commit; nothing was signed")),
            Err(error) => tracing::warn!(attempt, error = %error, "the outcome cannot be read yet"),
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
    }
    match &replacement.target.owner {
        Some(owner) => Err(IntentError::OutcomeUnknown(owner.intent)),
        None => Err(IntentError::could_not_check("the outcome of the commit is not known yet")),
    }
}

async fn sign(
    app: &App,
    conn: &mut PgConnection,
    by: By<'_>,
    replacement: &Replacement,
) -> Result<SignedTx, IntentError> {
    let target = &replacement.target;
    stage(Stage::Windows, hold(conn, replacement)).await?;
    let raised = stage(Stage::Rules, async {
        let agent = recheck(conn, by, replacement).await?;
        match &target.owner {
            Some(owner) => charge(conn, replacement, owner, agent.as_ref()).await,
            None => Ok(Vec::new()),
        }
    })
    .await?;
    stage(Stage::Nonce, async {
        if !store::lock_unchanged(conn, target).await? {
            return Err(IntentError::could_not_check(
                "the transaction was mined or replaced meanwhile: nothing was signed; look at it again",
            ));
        }
        check_funds(conn, replacement).await?;
        check_ahead(conn, replacement).await
    })
    .await?;
    let nonce = target.standing.nonce;
    let key = &replacement.key;
    let digest = replacement.tx.signing_digest(nonce)?;
    let context = key.context();
    let signature = stage(Stage::Sign, app.hsm.sign(&context, &key.key_ref, &key.public_key, digest)).await?;
    let bytes = replacement.tx.encode(nonce, &signature);
    stage(Stage::Write, write(conn, by, replacement, &bytes, &raised)).await?;
    Ok(bytes)
}

/// The claim, still ours, and the windows' locks.
async fn hold(conn: &mut PgConnection, replacement: &Replacement) -> Result<(), IntentError> {
    let Some(owner) = &replacement.target.owner else { return Ok(()) };
    if let Some(claim) = &replacement.claim
        && !rows::hold_claims(conn, owner.agent_id, std::slice::from_ref(claim)).await?
    {
        return Err(IntentError::ClaimLost);
    }
    Ok(rows::lock_windows(conn, owner.agent_id, &replacement.units).await?)
}

/// The attempt, what it can cost, the audit row, and the claim's completion.
async fn write(
    conn: &mut PgConnection,
    by: By<'_>,
    replacement: &Replacement,
    bytes: &SignedTx,
    raised: &[Raised],
) -> Result<(), IntentError> {
    let Replacement { target, reason, claim, .. } = replacement;
    store::insert_attempt(conn, target, *reason, replacement.is_noop, &replacement.tx, bytes).await?;
    if let Some(owner) = &target.owner {
        store::raise_entries(conn, owner, raised).await?;
    }
    audit::record(conn, signed_event(by, replacement, bytes)).await?;
    if let (Some(claim), Some(owner)) = (claim, &target.owner)
        && !rows::finish_claims(conn, owner.agent_id, &[(*claim, owner.intent)]).await?
    {
        return Err(IntentError::ClaimLost);
    }
    Ok(())
}

/// Rules and rights as they are now, with their rows held. What settles a nonce without paying anybody needs few of them: a human's
/// cancel and the daemon's no-ops pass whatever is frozen, deactivated or superseded.
async fn recheck(conn: &mut PgConnection, by: By<'_>, replacement: &Replacement) -> Result<Option<Agent>, IntentError> {
    let Replacement { target, governed, is_noop, .. } = replacement;
    let key = &replacement.key;
    if *governed {
        freezes::store::pass_gate(conn, key.org_id).await?;
    }
    let agent = match &target.owner {
        Some(owner) if *governed => agents::store::get_for_share(conn, owner.agent_id).await?,
        _ => None,
    };
    if let Some(why) = agent.as_ref().and_then(|agent| why_not_signing(agent, crate::clock::now())) {
        return Err(IntentError::NotAllowed(why.to_owned()));
    }
    if let By::Principal(principal) = by
        && !still_proven(conn, principal).await?
    {
        return Err(IntentError::NotAllowed("the credential was rotated or revoked meanwhile".to_owned()));
    }
    match by {
        // The agent's own right to the key. A no-op may be signed with a key that was replaced.
        By::Principal(principal) if !by.is_human() && !is_noop => keys::recheck(conn, principal, key.id).await?,
        By::Principal(_) if !is_noop => keys::store::hold_active(conn, key.org_id, key.id).await?,
        _ => {}
    }
    let Some(agent) = agent else {
        return if *governed { Err(IntentError::NotFound("no such agent".to_owned())) } else { Ok(None) };
    };
    let spec = replacement.chain.spec();
    let standing = rows::standing(conn, agent.org_id, agent.id, target.lane).await?;
    standing.refuse_frozen()?;
    if *is_noop {
        return Ok(Some(agent));
    }
    if standing.chain_disabled {
        return Err(IntentError::ChainDisabled(spec.name.clone()));
    }
    let needed = guardrails::needs_effects(&agent.guardrails, &spec.name, &replacement.calls);
    if replacement.tx.simulation().is_none() && (standing.simulation_required || needed) {
        return Err(IntentError::changed_meanwhile("it came to be required that this is simulated"));
    }
    Ok(Some(agent))
}

/// What the intent takes of each window from now on: its value once, and the most that any of its attempts can cost. Held to the limits
/// where rules decide.
async fn charge(
    conn: &mut PgConnection,
    replacement: &Replacement,
    owner: &Owner,
    agent: Option<&Agent>,
) -> Result<Vec<Raised>, IntentError> {
    let aged = rows::age_windows(conn, owner.agent_id, &replacement.units).await?;
    let own = store::entries(conn, owner.intent).await?;
    let at = |unit: &str| aged.get(unit).map_or_else(crate::clock::now, |aged| aged.at);
    let (group, chain) = (&owner.spend_group, chain_unit(owner.tx.chain_id));
    let mut raised: Vec<Raised> = Vec::new();
    if let Some(agent) = agent {
        // The other attempts exclude this one: its own entries are not counted beside it.
        let sums = |unit: &str| {
            let mut window = aged.get(unit)?.window;
            if let Some((value, fee)) = own.get(unit) {
                window.value_sum = window.value_sum.checked_sub(*value)?;
                window.fee_sum = window.fee_sum.checked_sub(*fee)?;
            }
            Some(window)
        };
        let judged = guardrails::judge(&agent.guardrails, group, &replacement.facts(), sums);
        if judged.broken.is_empty() && judged.exceeded.is_empty() && judged.unknown {
            return Err(IntentError::changed_meanwhile("the guardrails were changed"));
        }
        if !judged.allows() {
            return Err(IntentError::Guardrail(judged.violations()));
        }
        for (charge, _) in judged.charges {
            let (value, fee) = own.get(&charge.unit).copied().unwrap_or((Wei::ZERO, Wei::ZERO));
            let at = at(&charge.unit);
            raised.push(Raised { value: charge.value.max(value), fee: charge.fee.max(fee), unit: charge.unit, at });
        }
        return Ok(raised);
    }
    for (unit, (value, fee)) in own.into_iter().filter(|(unit, _)| unit == group || *unit == chain) {
        let at = at(&unit);
        raised.push(Raised { value, fee: fee.max(replacement.max_fee), unit, at });
    }
    Ok(raised)
}

/// A payment must be payable with its new fee, beside the key's other unmined transactions.
async fn check_funds(conn: &mut PgConnection, replacement: &Replacement) -> Result<(), IntentError> {
    if replacement.is_noop {
        return Ok(());
    }
    let target = &replacement.target;
    let (open_cost, _) = rows::open_cost(conn, target.lane, replacement.latest).await?;
    let before = super::rules::to_outbid(&target.attempts).map_or(0, crate::chain::Fees::max_per_gas);
    let gas = alloy::primitives::U256::from(replacement.tx.gas_limit);
    let more = replacement.max_fee.checked_sub(Wei(gas * alloy::primitives::U256::from(before))).unwrap_or(Wei::ZERO);
    match open_cost.checked_add(more) {
        Some(cost) if cost <= replacement.balance => Ok(()),
        _ => Err(IntentError::Doomed(format!(
            "insufficient funds: {} has {} {}, which is less than its unmined transactions could cost with this fee",
            target.lane.address,
            replacement.balance.to_units(),
            replacement.chain.spec().native_currency,
        ))),
    }
}

/// What was simulated ran after exactly our own transactions that come before it now. With the lane locked.
async fn check_ahead(conn: &mut PgConnection, replacement: &Replacement) -> Result<(), IntentError> {
    let Some(ahead) = replacement.tx.ahead() else { return Ok(()) };
    let target = &replacement.target;
    let most = UNMINED_MAX as u64 + 1;
    let now = rows::ahead_of(conn, target.lane, ahead.mined, target.standing.nonce, most).await?;
    let same = now.iter().map(|one| (one.nonce, one.tx_hash)).eq(ahead.list.iter().copied());
    if same { Ok(()) } else { Err(IntentError::changed_meanwhile("other transactions of this key came or went")) }
}

fn signed_event(by: By<'_>, replacement: &Replacement, bytes: &SignedTx) -> Event {
    let Replacement { target, reason, .. } = replacement;
    let key = &replacement.key;
    let resource = match &target.owner {
        Some(owner) => Resource::new("transaction", owner.intent),
        None => Resource::new("key", key.id),
    };
    let action = reason.action();
    let event = match by {
        By::Principal(principal) => Event::by(principal, action, resource),
        By::Daemon => Event::by_system(key.org_id, action, resource),
    };
    let agent = target.owner.as_ref().filter(|_| *reason != Reason::Close).map(|owner| owner.agent_id.to_string());
    event
        .with("outcome", "signed")
        .with_some("agent_id", agent)
        .with("chain_id", target.lane.chain_id.0)
        .with("address", target.lane.address.to_string())
        .with("nonce", target.standing.nonce)
        .with("max_fee_wei", replacement.max_fee.to_string())
        .with("tx_hash", bytes.hash.to_string())
}
