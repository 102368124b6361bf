//! Replacements: a further attempt of a slot that is not mined yet. Cancel and speed-up for agents and humans; for the daemon itself,
//! closing a nonce that nobody will mine, and raising a fee that the market has left behind.
//!
//! All attempts of a slot exclude each other on chain, so a replacement takes no nonce and pays nobody twice. Each is held to the rules
//! again, as a new transaction is, by what it is now; and its bytes are committed before they are sent.

mod commit;
mod prepare;
pub mod rules;
pub mod store;

use std::sync::Arc;
use std::time::Instant;

use alloy::primitives::B256;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Submitted;
use super::authorise::HeldClaim;
use super::broadcast;
use super::error::IntentError;
use super::lanes::Lane;
use super::parse;
use super::shown;
use super::store::{self as rows, Claim, IntentRow};
use crate::access::{Actor, Principal};
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::{Chain, FeeRequest};
use crate::db::DbError;
use crate::freezes;
use crate::ids::{AgentId, IntentId};
use crate::telemetry::story::{self, Stage, Told, stage};
pub use rules::Reason;
use rules::Verdict;
use store::Target;

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The agent whose transaction it is, or a human who manages agents.
    Principal(&'a Principal),
    /// The daemon.
    Daemon,
}

impl By<'_> {
    fn is_human(self) -> bool {
        matches!(self, Self::Principal(Principal { actor: Actor::User(_), .. }))
    }
}

/// Takes the nonce of a transaction for a no-op: nothing is to happen. Asked again, it is answered again.
///
/// # Errors
/// [`IntentError::Conflict`] when it is mined; refused by a rule; could not be checked.
pub async fn cancel(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    id: IntentId,
) -> Result<IntentRow, IntentError> {
    let mut wish = Wish::new(principal, agent_id, id, Reason::Cancel);
    let result = replace_intent(app, &mut wish).await;
    tell(&wish, &result);
    result
}

/// The same payment with higher fees. With an idempotency key, once for each key; without one, and without fees, not again before the last
/// raise had its time ([`rules::raise_rests_s`]).
///
/// # Errors
/// As [`cancel`].
pub async fn speed_up(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    id: IntentId,
    body: &Map<String, Value>,
    idempotency_key: Option<&[u8]>,
) -> Result<Submitted, IntentError> {
    let mut wish = Wish::new(principal, agent_id, id, Reason::SpeedUp);
    let result: Result<IntentRow, IntentError> = async {
        wish.fees = parse::fees_only(body)?;
        if let Some(text) = idempotency_key {
            match stage(Stage::Claim, claim(app, &wish, text)).await? {
                Ok(held) => wish.claim = Some(held),
                Err(row) => {
                    wish.found(&row);
                    return Ok(*row);
                }
            }
        }
        replace_intent(app, &mut wish).await
    }
    .await;
    tell(&wish, &result);
    result.map(|row| Submitted { row, replayed: wish.signed.is_none() })
}

/// What somebody asks for.
struct Wish<'a> {
    principal: &'a Principal,
    agent_id: AgentId,
    id: IntentId,
    reason: Reason,
    fees: FeeRequest,
    claim: Option<HeldClaim>,
    /// Chain and nonce of the transaction, once it is found, for the line that tells of it.
    at: Option<(String, Option<u64>)>,
    /// The hash of the further attempt, once it is signed: whatever fails then, it is out. Without one, all was as was asked for already.
    signed: Option<B256>,
}

impl<'a> Wish<'a> {
    fn new(principal: &'a Principal, agent_id: AgentId, id: IntentId, reason: Reason) -> Self {
        story::named(id);
        Self { principal, agent_id, id, reason, fees: FeeRequest::default(), claim: None, at: None, signed: None }
    }

    fn found(&mut self, row: &IntentRow) {
        story::on_chain(&row.chain);
        self.at = Some((row.chain.clone(), row.slot.as_ref().map(|slot| slot.nonce)));
    }
}

/// One line that tells the story of a replacement. That of its intent's own pipeline stays what is told when the nonce is final.
fn tell(wish: &Wish<'_>, result: &Result<IntentRow, IntentError>) {
    let outcome = match (wish.signed, result) {
        (Some(_), _) => "signed",
        (None, Ok(_)) => "replayed",
        (None, Err(error)) => error.label(),
    };
    let Told { total_ms, stages_ms, simulation } = story::end(outcome);
    let (intent, agent, kind) = (wish.id, wish.agent_id, wish.reason.as_str());
    let chain = wish.at.as_ref().map(|(chain, _)| &**chain);
    let nonce = wish.at.as_ref().and_then(|(_, nonce)| *nonce);
    match result {
        Err(error) if wish.signed.is_none() => tracing::info!(
            %intent, %agent, chain, nonce, kind, why = outcome, simulation, total_ms, stages_ms, "replacement refused: {error}"
        ),
        _ => tracing::info!(
            %intent, %agent, chain, nonce, kind, tx_hash = wish.signed.map(tracing::field::display), simulation, total_ms, stages_ms,
            error = result.as_ref().err().map(tracing::field::display), "replacement {outcome}"
        ),
    }
}

/// The idempotency key, apart from those of the agent's submits and of other humans; or the transaction as an earlier run left it.
async fn claim(app: &App, wish: &Wish<'_>, text: &[u8]) -> Result<Result<HeldClaim, Box<IntentRow>>, IntentError> {
    let key_hash = parse::idempotency_key(text).ok_or(IntentError::BadIdempotencyKey)?;
    let mut own = Sha256::new();
    own.update(b"intentd speed-up\0");
    own.update(wish.principal.actor.uuid());
    own.update(key_hash);
    let mut request = Sha256::new();
    request.update(wish.id.0);
    for fee in [wish.fees.gas_price, wish.fees.max_fee_per_gas, wish.fees.max_priority_fee_per_gas] {
        request.update([u8::from(fee.is_some())]);
        request.update(fee.unwrap_or_default().to_be_bytes());
    }
    let key_hash: [u8; 32] = own.finalize().into();
    let lease_s = app.config.intents.claim_lease_s;
    // The connection is given back here: whoever kept it while the row is read would wait for a second one.
    let claimed =
        rows::claim(&mut *app.db.acquire().await?, wish.agent_id, key_hash, request.finalize().into(), lease_s).await?;
    match claimed {
        Claim::Ours(token) => Ok(Ok(HeldClaim { key_hash, token })),
        Claim::Done(id) => Ok(Err(Box::new(row(app, wish.agent_id, id).await?))),
        Claim::InFlight => Err(IntentError::InFlight),
        Claim::Mismatch => Err(IntentError::IdempotencyMismatch),
    }
}

async fn row(app: &App, agent_id: AgentId, id: IntentId) -> Result<IntentRow, IntentError> {
    let found = shown::intent(&mut *app.db.acquire().await?, agent_id, id).await?;
    found.ok_or_else(|| IntentError::NotFound("no such transaction".to_owned()))
}

async fn replace_intent(app: &Arc<App>, wish: &mut Wish<'_>) -> Result<IntentRow, IntentError> {
    let result = find_and_replace(app, wish).await;
    match &result {
        Err(error) if wish.signed.is_none() => record_refusal(app, wish, error).await,
        _ => {}
    }
    result
}

async fn find_and_replace(app: &Arc<App>, wish: &mut Wish<'_>) -> Result<IntentRow, IntentError> {
    if app.stopping.is_cancelled() {
        return Err(IntentError::Stopping);
    }
    let before = stage(Stage::Authorise, row(app, wish.agent_id, wish.id)).await?;
    wish.found(&before);
    let Some(slot) = &before.slot else {
        return Err(IntentError::Conflict(
            "nothing was signed for this transaction: there is nothing to replace".into(),
        ));
    };
    let lane = Lane { chain_id: before.tx.chain_id, address: before.tx.from };
    let chain = app.chains.tracked(lane.chain_id);
    let chain = chain.ok_or_else(|| IntentError::could_not_check("the chain of this transaction is not known here"))?;
    let by = By::Principal(wish.principal);
    wish.signed = replace(app, by, &chain, lane, slot.nonce, wish.reason, wish.fees, wish.claim).await?;
    row(app, wish.agent_id, wish.id).await
}

/// A further attempt by the daemon itself. `None`: there was nothing to do.
pub(super) async fn by_daemon(
    app: &Arc<App>,
    chain: &Arc<Chain>,
    lane: Lane,
    nonce: u64,
    reason: Reason,
) -> Result<Option<B256>, IntentError> {
    replace(app, By::Daemon, chain, lane, nonce, reason, FeeRequest::default(), None).await
}

#[expect(clippy::too_many_arguments, reason = "the one place where all of it comes together")]
async fn replace(
    app: &Arc<App>,
    by: By<'_>,
    chain: &Arc<Chain>,
    lane: Lane,
    nonce: u64,
    reason: Reason,
    wanted: FeeRequest,
    claim: Option<HeldClaim>,
) -> Result<Option<B256>, IntentError> {
    let target = stage(Stage::Authorise, async {
        let mut conn = app.db.acquire().await?;
        store::target(&mut conn, lane, nonce).await
    });
    let target = target.await?;
    let target: Target = target.ok_or_else(|| IntentError::NotFound("no such transaction".to_owned()))?;
    match rules::may(reason, &target.standing).map_err(IntentError::Conflict)? {
        Verdict::Already => {
            store::stands(&app.db, lane).await?;
            return Ok(None);
        }
        Verdict::Replace => {}
    }
    // "Sooner", said again before the last time could show: the answer is the same.
    let rests = rules::raise_rests_s(chain.spec().block_time_ms);
    let says_no_more = reason == Reason::SpeedUp && wanted == FeeRequest::default() && claim.is_none();
    if says_no_more && target.raised_s_ago.is_some_and(|ago| ago < rests) {
        store::stands(&app.db, lane).await?;
        return Ok(None);
    }
    let replacement = prepare::prepare(app, by, chain, target, reason, wanted, claim);
    let replacement = stage(Stage::Check, replacement).await?;
    let signed_at = Instant::now();
    let bytes = commit::commit(app, by, &replacement).await?;
    if let By::Daemon = by {
        let intent = replacement.target.owner.as_ref().map(|owner| tracing::field::display(owner.intent));
        tracing::info!(intent, chain = %chain.spec().name, address = %lane.address, nonce, tx_hash = %bytes.hash, kind = reason.as_str(),
            "a further attempt of the nonce is signed");
    }
    stage(Stage::Broadcast, async {
        let sent = broadcast::send_new(app, chain, &bytes, signed_at).await;
        broadcast::record(app, lane, nonce, &sent).await;
    })
    .await;
    app.tracker.sent_on(lane.chain_id);
    Ok(Some(bytes.hash))
}

/// Writes a refusal down, and gives the claim back, unless something may have been signed under it.
async fn record_refusal(app: &App, wish: &Wish<'_>, error: &IntentError) {
    let resource = Resource::new("transaction", wish.id);
    let event = Event::by(wish.principal, wish.reason.action(), resource)
        .with("outcome", "refused")
        .with("why", error.label())
        .with("detail", error.to_string());
    let written = async {
        let mut tx = app.db.begin().await?;
        audit::record(&mut tx, event).await?;
        if matches!(error, IntentError::Guardrail(_)) && !By::Principal(wish.principal).is_human() {
            freezes::count_denial(&mut tx, wish.principal.org_id, wish.agent_id).await?;
        }
        if let Some(claim) = wish.claim.filter(|_| !error.keeps_claim()) {
            rows::release_claim(&mut tx, wish.agent_id, claim.key_hash, claim.token).await?;
        }
        tx.commit().await?;
        Ok::<(), DbError>(())
    };
    if let Err(cause) = written.await {
        tracing::error!(intent = %wish.id, error = %cause, refused = %error, "a refusal could not be recorded");
    }
}
