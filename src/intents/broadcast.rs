//! Sending committed bytes. "Already known" is success, and a time-out is not failure: the tracker sends the same bytes again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::B256;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::commit::Committed;
use super::lanes::Lane;
use super::state::SlotState;
use super::store::{self, IntentRow, ToSend};
use crate::app::App;
use crate::chain::{Chain, Rpc, SendOutcome};

/// For how long after T1 has read what is frozen its bytes are sent without another look. A freeze that comes in between finds them gone,
/// as it does a moment later; one that comes afterwards (COMMIT was slow, the daemon stood still) holds them.
const UNASKED: Duration = Duration::from_millis(500);

/// What the sending of some bytes means for their slot.
pub(super) enum Sent {
    /// A node has them.
    Taken,
    /// A node has them not, or that is not known; why. They are sent again.
    NotYet(String),
}

/// Sends the bytes of a submit, and records what came of it. The bytes of a sign-only intent are never sent by us.
pub async fn broadcast(app: &Arc<App>, committed: Committed) -> IntentRow {
    let Committed { chain, lane, mut row, nonce, signed_at } = committed;
    if row.sign_only {
        return row;
    }
    let Some(slot) = row.slot.as_mut() else { return row };
    let sent = match send_new(app, &chain, slot.tx_hash, &slot.raw, signed_at).await {
        Ok(sent) => sent,
        Err(held) => {
            slot.held = Some(held);
            return row;
        }
    };
    match &sent {
        Sent::Taken => {
            slot.state = SlotState::Broadcast;
            slot.broadcast_at = Some(crate::clock::now());
        }
        Sent::NotYet(why) => slot.error_message = Some(why.clone()),
    }
    record(app, lane, nonce, &sent).await;
    app.tracker.nudge(lane);
    row
}

/// Sends bytes that were committed just now; or says what holds them back.
pub(super) async fn send_new(
    app: &App,
    chain: &Chain,
    tx_hash: B256,
    raw: &[u8],
    signed_at: Instant,
) -> Result<Sent, String> {
    if signed_at.elapsed() > UNASKED {
        match store::to_send(&app.db, tx_hash).await {
            Ok(ToSend::Bytes(_)) => {}
            Ok(ToSend::Held(why)) => return Err(why),
            Ok(ToSend::Superseded) => {
                return Ok(Sent::NotYet("not broadcast: a later transaction of ours is to take its nonce".to_owned()));
            }
            Err(error) => {
                return Ok(Sent::NotYet(format!("not broadcast yet, whether it is frozen is not known: {error}")));
            }
        }
    }
    Ok(send(chain, raw).await)
}

/// Sends some bytes to all of the chain's nodes. It is sent when one of them has taken it; the others are not waited for.
pub(super) async fn send(chain: &Chain, raw: &[u8]) -> Sent {
    let nodes = chain.to_send_to();
    let Some(only) = nodes.first().filter(|_| nodes.len() == 1) else { return send_to_all(chain, &nodes, raw).await };
    send_to(only, raw).await
}

async fn send_to_all(chain: &Chain, nodes: &[Arc<Rpc>], raw: &[u8]) -> Sent {
    let raw: Arc<[u8]> = raw.into();
    let mut asked: FuturesUnordered<_> = nodes
        .iter()
        .map(|node| {
            let (node, raw) = (Arc::clone(node), Arc::clone(&raw));
            // In a task of its own: it goes on when another has answered.
            tokio::spawn(async move { send_to(&node, &raw).await })
        })
        .collect();
    let mut why = None;
    while let Some(answered) = asked.next().await {
        match answered {
            Ok(Sent::Taken) => return Sent::Taken,
            Ok(Sent::NotYet(text)) => why = Some(text),
            Err(panicked) => tracing::error!(chain = %chain.spec().name, error = %panicked, "a broadcast fell over"),
        }
    }
    Sent::NotYet(why.unwrap_or_else(|| format!("not broadcast yet: chain {} has no RPC URL", chain.spec().name)))
}

async fn send_to(rpc: &Rpc, raw: &[u8]) -> Sent {
    match rpc.send_raw(raw).await {
        SendOutcome::Accepted | SendOutcome::AlreadyKnown => Sent::Taken,
        // The nonce is used: by these bytes, or by others. Receipts tell.
        SendOutcome::NonceTooLow => {
            Sent::NotYet("the node says that the nonce is used; looking for the receipt".to_owned())
        }
        SendOutcome::Underpriced => Sent::NotYet(
            "the node holds another transaction for this nonce that pays more; looking for its receipt".to_owned(),
        ),
        SendOutcome::InsufficientFunds => {
            Sent::NotYet("the key's balance is too low: it is sent again until there is enough".to_owned())
        }
        SendOutcome::Rejected(message) => {
            Sent::NotYet(format!("the node refused it, it will be sent again: {message}"))
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
        Sent::NotYet(why) => store::mark_not_sent(&app.db, lane, nonce, why).await,
    };
    if let Err(error) = written {
        tracing::warn!(address = %lane.address, nonce, error = %error, "the outcome of a broadcast was not recorded");
    }
}
