//! Intents as they are read to be shown. Rules that forbid a payment by now hold its bytes back as a freeze does; the tracker notes that when it
//! tries to send it, and here it is asked at once, for whoever reads the bytes can have them mined.

use time::OffsetDateTime;

use super::broadcast::forbids;
use super::state::SlotState;
use super::store::{self, IntentRow, words_of_rules};
use crate::agents;
use crate::db::{Connection, DbError};
use crate::ids::{AgentId, IntentId};

/// One intent of an agent.
///
/// # Errors
/// As any statement.
pub async fn intent(conn: &mut Connection, agent: AgentId, id: IntentId) -> Result<Option<IntentRow>, DbError> {
    let mut row = store::intent(conn, agent, id).await?;
    if let Some(row) = row.as_mut() {
        withhold_forbidden(conn, agent, std::slice::from_mut(row)).await?;
    }
    Ok(row)
}

/// An agent's intents, newest first, after a keyset position.
///
/// # Errors
/// As any statement.
pub async fn intents(
    conn: &mut Connection,
    agent: AgentId,
    after: Option<(OffsetDateTime, IntentId)>,
    limit: i64,
) -> Result<Vec<IntentRow>, DbError> {
    let mut rows = store::intents(conn, agent, after, limit).await?;
    withhold_forbidden(conn, agent, &mut rows).await?;
    Ok(rows)
}

/// Takes out the bytes of payments that no node is known to have and that their agent's rules forbid by now. The rules are read after the rows:
/// a change that was answered is seen.
async fn withhold_forbidden(conn: &mut Connection, agent: AgentId, rows: &mut [IntentRow]) -> Result<(), DbError> {
    if !rows.iter().any(is_unsent) {
        return Ok(());
    }
    let Some(agent) = agents::store::any(conn, agent).await? else { return Ok(()) };
    for row in rows.iter_mut().filter(|row| is_unsent(row)) {
        if let (Some(why), Some(slot)) = (forbids(&agent, &row.chain, &row.tx), row.slot.as_mut()) {
            slot.withhold(Some(words_of_rules(&why)));
        }
    }
    Ok(())
}

/// Whether its bytes would be sent by us, and no node is known to have them.
fn is_unsent(row: &IntentRow) -> bool {
    let unsent = |slot: &store::SlotRow| slot.state == SlotState::Signed && slot.raw.is_some();
    !row.sign_only && row.slot.as_ref().is_some_and(unsent)
}
