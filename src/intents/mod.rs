//! The transaction pipeline. [`submit`] is all of it; every stage consumes the one before and returns a type that only its own
//! module can build, and no stage calls back into an earlier one.

pub mod api;
pub mod authorise;
pub mod bound;
pub mod broadcast;
pub mod calldata;
pub mod check;
pub mod commit;
pub mod effects;
mod error;
pub mod frozen;
pub mod guardrails;
pub mod http;
pub mod lanes;
mod nonce;
pub mod parse;
mod proposed;
mod refuse;
pub mod replace;
mod shown;
pub mod simulation;
pub mod state;
pub mod store;
pub mod together;
pub mod tracker;
pub mod verdict;
pub mod view;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use error::IntentError;
use parse::Kind;
use store::IntentRow;

use crate::access::Principal;
use crate::app::App;
use crate::ids::AgentId;
use crate::telemetry::story::{self, Stage, Told, stage};

/// What came of a submit.
#[derive(Debug)]
pub struct Submitted {
    /// The transaction as its row is now.
    pub row: IntentRow,
    /// True when an earlier request with the same idempotency key made it.
    pub replayed: bool,
}

/// One intent, from a JSON body to a broadcast transaction (or, by `kind`, to signed bytes).
///
/// Runs in its own task: a client that goes away stops nothing. No lock is held before [`commit`], which is one database
/// transaction, and nothing leaves the process before that has committed.
///
/// # Errors
/// [`IntentError`]. Unless it says that the outcome is unknown, nothing was signed and nothing is reserved.
pub async fn submit(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    kind: Kind,
    body: &Map<String, Value>,
    idempotency_key: Option<&[u8]>,
) -> Result<Submitted, IntentError> {
    let mut claim = None;
    let result: Result<Submitted, IntentError> = async {
        let request = parse::parse(kind, body, |text| app.chains.get(text).map(|chain| chain.spec().chain_id))?;
        let asker = authorise::admit(app, principal, agent_id)?;
        // One connection for all that is looked up, given back before a node is asked.
        let mut conn = app.db.acquire().await?;
        let authorised = authorise::authorise(app, &mut conn, &asker, request);
        let authorised = stage(Stage::Authorise, authorised).await?;
        story::on_chain(&authorised.chain().spec().name);
        let claimed = match stage(Stage::Claim, authorise::claim(app, &mut conn, authorised, idempotency_key)).await? {
            authorise::Claimed::Ours(claimed) => claimed,
            authorise::Claimed::Replay(row) => return Ok(Submitted { row: *row, replayed: true }),
        };
        claim = claimed.claim();
        let keyed = stage(Stage::Key, authorise::resolve_key(&mut conn, claimed)).await?;
        drop(conn);
        let checked = stage(Stage::Check, check::check(app, keyed)).await?;
        let committed = together::commit(app, checked).await?;
        app.meter.count(principal.org_id, crate::metering::Kind::Signatures);
        story::keep_so_far();
        let row = stage(Stage::Broadcast, broadcast::broadcast(app, committed)).await;
        Ok(Submitted { row, replayed: false })
    }
    .await;
    match result {
        Ok(submitted) => {
            tell(&submitted);
            Ok(submitted)
        }
        Err(error) => {
            let Told { total_ms, stages_ms, simulation } = story::end(error.label());
            tracing::info!(agent = %agent_id, why = error.label(), simulation, total_ms, stages_ms, "intent refused: {error}");
            refuse::record(app, principal, agent_id, kind, claim, &error).await;
            Err(error)
        }
    }
}

/// One line that tells the story of an intent.
fn tell(submitted: &Submitted) {
    let row = &submitted.row;
    let told = story::end(if submitted.replayed { "replayed" } else { "signed" });
    let Some(slot) = &row.slot else { return };
    let Told { total_ms, stages_ms, simulation } = &told;
    tracing::info!(
        intent = %row.id, agent = %row.agent_id, chain = %row.chain, nonce = slot.nonce, to = %row.tx.to,
        value_wei = %row.tx.value, tx_hash = %slot.tx_hash, state = ?slot.state, replayed = submitted.replayed,
        simulation, total_ms, stages_ms,
        "intent {}", if submitted.replayed { "replayed" } else { "signed" },
    );
    if !submitted.replayed {
        story::complete(row.id, told);
    }
}
