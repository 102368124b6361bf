//! Sending committed bytes. "Already known" is success, and a time-out is not failure: the tracker sends the same bytes again.
//!
//! Whether something holds them back is asked of the database when a node has said that it is of the chain, which may take it seconds, and
//! then they are sent at once: a freeze that was answered before a request to a node has begun holds them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::B256;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex;

use super::calldata;
use super::commit::Committed;
use super::guardrails::{self, Facts, Seen};
use super::lanes::Lane;
use super::state::SlotState;
use super::store::{self, IntentRow, ToSend};
use crate::agents::{self, Agent};
use crate::app::App;
use crate::chain::{Chain, Rpc, SendOutcome, SignedTx, UnsignedTx};
use crate::db::DbError;
use crate::ids::IntentId;
use crate::money::Wei;

/// For how long after T1 has read what is frozen its bytes are sent without another look. A freeze that comes in between finds them gone,
/// as it does a moment later; one that comes afterwards (COMMIT was slow, a node or the daemon stood still) holds them.
const UNASKED: Duration = Duration::from_millis(500);
/// For how long one look counts for the other nodes that the same bytes go to.
const SHARED: Duration = Duration::from_millis(50);

/// What the sending of some bytes means for their slot.
pub(super) enum Sent {
    /// A node has them.
    Taken,
    /// A node does not want them, because the nonce is used or for reasons of its own; what it said. They are sent again.
    Refused(String),
    /// A node has them not, or that is not known; why. They are sent again.
    NotYet(String),
    /// They were not sent: something holds them back; what.
    Held(String),
    /// They were not sent: a later attempt of ours is to take the nonce.
    Superseded,
    /// They were not sent, because it is not known whether something holds them back; why not. They are sent again.
    Unasked(String),
}

/// What a look at the database says of some bytes.
#[derive(Clone)]
enum Look {
    Bytes(Arc<[u8]>),
    Held(String),
    Superseded,
    Unknown(String),
}

/// An attempt on its way to the nodes.
pub(super) struct Outgoing {
    tx_hash: B256,
    /// The last look at what holds it, and until when that counts.
    looked: Mutex<Option<(Instant, Look)>>,
}

impl Outgoing {
    /// One that is stored: it is looked at before it is sent.
    pub(super) fn stored(tx_hash: B256) -> Self {
        Self { tx_hash, looked: Mutex::default() }
    }

    /// One that was committed just now, by a transaction that had looked.
    pub(super) fn signed(tx_hash: B256, raw: &[u8], signed_at: Instant) -> Self {
        let looked = Some((signed_at + UNASKED, Look::Bytes(raw.into())));
        Self { tx_hash, looked: Mutex::new(looked) }
    }

    /// What was seen is too old: a node was waited for.
    async fn forget(&self) {
        *self.looked.lock().await = None;
    }

    async fn look(&self, app: &App, chain: &Chain) -> Look {
        let mut looked = self.looked.lock().await;
        if let Some((_, look)) = looked.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return look.clone();
        }
        let look = match look_anew(app, chain, self.tx_hash).await {
            Ok(look) => look,
            Err(error) => Look::Unknown(format!("not broadcast yet, whether something holds it is not known: {error}")),
        };
        *looked = Some((Instant::now() + SHARED, look.clone()));
        look
    }
}

/// What freezes, agents and rules say now.
async fn look_anew(app: &App, chain: &Chain, tx_hash: B256) -> Result<Look, DbError> {
    let (raw, unsent, rule_hold) = match store::to_send(&app.db, tx_hash).await? {
        ToSend::Held(why) => return Ok(Look::Held(why)),
        ToSend::Superseded => return Ok(Look::Superseded),
        ToSend::Bytes { raw, unsent, rule_hold } => (raw, unsent, rule_hold),
    };
    if let Some(intent) = unsent {
        let forbidden = why_forbidden(app, chain, intent).await?;
        if forbidden.is_some() || rule_hold {
            let held = store::note_rule_hold(&app.db, intent, forbidden.as_deref()).await?;
            if let Some(held) = held.or(forbidden) {
                return Ok(Look::Held(held));
            }
        }
    }
    Ok(Look::Bytes(raw.into()))
}

/// What the agent's rules, as they are now, say against an intent's payment.
async fn why_forbidden(app: &App, chain: &Chain, intent: IntentId) -> Result<Option<String>, DbError> {
    let mut conn = app.db.acquire().await?;
    let Some((agent_id, tx)) = store::signed_tx(&mut conn, intent).await? else { return Ok(None) };
    let Some(agent) = agents::store::any(&mut conn, agent_id).await? else { return Ok(None) };
    Ok(forbids(&agent, &chain.spec().name, &tx))
}

/// What an agent's rules say against a payment that they allowed once: whom it pays, what it calls, how much it moves. Its fees stay as they
/// were allowed, and what it takes of the limits is reserved.
pub(super) fn forbids(agent: &Agent, chain: &str, tx: &UnsignedTx) -> Option<String> {
    let calls = calldata::read(tx.to, tx.value.0, &tx.data);
    let facts = Facts { gas: None, ..Facts::of(chain, tx, Wei::ZERO, &calls, Seen::Later) };
    let broken = guardrails::check(&agent.guardrails, &facts);
    let texts: Vec<String> = broken.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Sends the bytes of a submit, and records what came of it. The bytes of a sign-only intent are never sent by us; they are given out only
/// as they would be sent.
pub async fn broadcast(app: &Arc<App>, committed: Committed) -> IntentRow {
    let Committed { chain, lane, mut row, nonce, signed_at, has_unsent, order } = committed;
    let Some(slot) = row.slot.as_mut() else { return row };
    let outgoing = Outgoing::signed(slot.tx_hash, slot.raw.as_deref().unwrap_or_default(), signed_at);
    let sent = match row.sign_only {
        false => {
            let asked = Instant::now();
            let mut order = order;
            if let Some(order) = &mut order {
                order.come().await;
            }
            if asked.elapsed() > SHARED {
                outgoing.forget().await;
            }
            send(app, &chain, outgoing).await
        }
        true => match outgoing.look(app, &chain).await {
            Look::Bytes(_) => return row,
            other => other.not_sent(),
        },
    };
    match &sent {
        Sent::Taken => {
            slot.state = SlotState::Broadcast;
            slot.broadcast_at = Some(crate::clock::now());
        }
        Sent::Refused(why) | Sent::NotYet(why) => {
            slot.error_message = Some(why.clone());
            // While a node was waited for, a human may have frozen or cancelled it.
            match Outgoing::stored(slot.tx_hash).look(app, &chain).await {
                Look::Bytes(_) => {}
                Look::Held(held) => slot.withhold(Some(held)),
                Look::Superseded | Look::Unknown(_) => slot.withhold(None),
            }
        }
        Sent::Held(why) => {
            tracing::warn!(intent = %row.id, address = %lane.address, nonce, "signed, and held: {why}");
            slot.withhold(Some(why.clone()));
        }
        Sent::Unasked(why) => {
            slot.withhold(None);
            slot.error_message = Some(why.clone());
        }
        Sent::Superseded => {
            slot.withhold(None);
            slot.error_message = Some("not broadcast: a later transaction of ours is to take its nonce".to_owned());
        }
    }
    if row.sign_only {
        return row;
    }
    record(app, lane, nonce, &sent).await;
    app.tracker.sent_on(lane.chain_id);
    if has_unsent {
        match store::held_before(&app.db, lane, nonce).await {
            Ok(Some(held)) => {
                tracing::warn!(intent = %row.id, address = %lane.address, nonce, held, "signed behind a nonce of its key that is held");
                slot.waits_for = Some(held);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "whether a lane's earlier nonces are held is not known"),
        }
    }
    row
}

impl Look {
    /// What it means not to have sent it.
    fn not_sent(self) -> Sent {
        match self {
            Self::Held(why) => Sent::Held(why),
            Self::Superseded => Sent::Superseded,
            Self::Unknown(why) => Sent::Unasked(why),
            Self::Bytes(_) => Sent::NotYet("not broadcast yet".to_owned()),
        }
    }
}

/// Sends an attempt that was committed just now.
pub(super) async fn send_new(app: &Arc<App>, chain: &Arc<Chain>, bytes: &SignedTx, signed_at: Instant) -> Sent {
    send(app, chain, Outgoing::signed(bytes.hash, &bytes.raw, signed_at)).await
}

/// Sends an attempt to all of the chain's nodes, unless something holds it. It is sent when one of them has taken it; the others are not
/// waited for.
pub(super) async fn send(app: &Arc<App>, chain: &Arc<Chain>, outgoing: Outgoing) -> Sent {
    let nodes = chain.to_send_to();
    let Some(only) = nodes.first().filter(|_| nodes.len() == 1) else {
        return send_to_all(app, chain, &nodes, outgoing).await;
    };
    send_to(app, chain, only, &outgoing).await
}

async fn send_to_all(app: &Arc<App>, chain: &Arc<Chain>, nodes: &[Arc<Rpc>], outgoing: Outgoing) -> Sent {
    let outgoing = Arc::new(outgoing);
    let mut asked: FuturesUnordered<_> = nodes
        .iter()
        .map(|node| {
            let (app, chain, node) = (Arc::clone(app), Arc::clone(chain), Arc::clone(node));
            let outgoing = Arc::clone(&outgoing);
            // In a task of its own: it goes on when another has answered.
            tokio::spawn(async move { send_to(&app, &chain, &node, &outgoing).await })
        })
        .collect();
    let mut worst = None;
    while let Some(answered) = asked.next().await {
        match answered {
            Ok(Sent::Taken) => return Sent::Taken,
            // What one of them says that was asked later counts more than that another did not answer.
            Ok(Sent::NotYet(_) | Sent::Refused(_)) if worst.is_some() => {}
            Ok(sent) => worst = Some(sent),
            Err(panicked) => tracing::error!(chain = %chain.spec().name, error = %panicked, "a broadcast fell over"),
        }
    }
    worst.unwrap_or_else(|| Sent::NotYet(format!("not broadcast yet: chain {} has no RPC URL", chain.spec().name)))
}

async fn send_to(app: &App, chain: &Chain, rpc: &Rpc, outgoing: &Outgoing) -> Sent {
    let asked = Instant::now();
    let node = match rpc.ready().await {
        Ok(node) => node,
        Err(error) => return told(SendOutcome::from(error)),
    };
    if asked.elapsed() > SHARED {
        outgoing.forget().await;
    }
    match outgoing.look(app, chain).await {
        Look::Bytes(raw) => told(node.send_raw(&raw).await),
        held => held.not_sent(),
    }
}

fn told(outcome: SendOutcome) -> Sent {
    match outcome {
        SendOutcome::Accepted | SendOutcome::AlreadyKnown => Sent::Taken,
        // The nonce is used: by these bytes, or by others. Receipts tell.
        SendOutcome::NonceTooLow => {
            Sent::Refused("the node says that the nonce is used; looking for the receipt".to_owned())
        }
        SendOutcome::Underpriced => Sent::NotYet(
            "the node holds another transaction for this nonce that pays more; looking for its receipt".to_owned(),
        ),
        SendOutcome::InsufficientFunds => {
            Sent::NotYet("the key's balance is too low: it is sent again until there is enough".to_owned())
        }
        SendOutcome::Rejected(message) => {
            Sent::Refused(format!("the node refused it, it will be sent again: {message}"))
        }
        SendOutcome::Unknown(message) => {
            Sent::NotYet(format!("the node did not answer, the same bytes will be sent again: {message}"))
        }
    }
}

/// Writes the outcome of a sending. Losing this write loses nothing: the tracker sends the bytes again.
pub(super) async fn record(app: &Arc<App>, lane: Lane, nonce: u64, sent: &Sent) {
    let written = match sent {
        Sent::Taken => store::mark_sent(&app.db, lane, nonce).await,
        Sent::Refused(why) | Sent::NotYet(why) | Sent::Unasked(why) => {
            store::mark_not_sent(&app.db, lane, nonce, why).await
        }
        Sent::Held(_) | Sent::Superseded => Ok(()),
    };
    if let Err(error) = written {
        tracing::warn!(address = %lane.address, nonce, error = %error, "the outcome of a broadcast was not recorded");
    }
}
