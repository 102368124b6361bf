//! Claims of idempotency keys.

use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

use super::super::authorise::HeldClaim;
use crate::ids::{AgentId, ClaimToken, IntentId};

/// What a claim of an idempotency key found.
#[derive(Debug)]
pub enum Claim {
    /// It is ours; the token is what may commit.
    Ours(ClaimToken),
    /// It was completed with this intent.
    Done(IntentId),
    /// Somebody else is at it.
    InFlight,
    /// It belongs to another request.
    Mismatch,
}

/// Claims a key, or says who has it. A dead claim (lease over) of the same request is taken over, and so is any key past its 24
/// hours, unless its transaction is not final yet. Short transaction; locks the key's row.
pub async fn claim(
    conn: &mut PgConnection,
    agent: AgentId,
    key_hash: [u8; 32],
    request_hash: [u8; 32],
    lease_s: u64,
) -> Result<Claim, sqlx::Error> {
    let token = ClaimToken::random();
    // Does not wait for the disk: a T1 whose claim is lost commits nothing, and one that has committed has it on the disk too.
    let inserted = sqlx::query(
        "WITH light AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
         INSERT INTO idempotency (agent_id, key_hash, request_hash, state, claim, lease_until, expires_at)
         SELECT $1, $2, $3, 'in_flight', $4, clock_timestamp() + make_interval(secs => $5), clock_timestamp() + interval '24 hours'
         FROM light ON CONFLICT DO NOTHING",
    )
    .bind(agent)
    .bind(key_hash.as_slice())
    .bind(request_hash.as_slice())
    .bind(token)
    .bind(lease_s as f64)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if inserted == 1 {
        return Ok(Claim::Ours(token));
    }
    let mut tx = conn.begin().await?;
    let row = sqlx::query(
        "SELECT request_hash, intent_id, lease_until <= clock_timestamp() AS dead, expires_at <= clock_timestamp() AS expired
         FROM idempotency WHERE agent_id = $1 AND key_hash = $2 FOR UPDATE",
    )
    .bind(agent)
    .bind(key_hash.as_slice())
    .fetch_optional(&mut *tx)
    .await?;
    // Released between the two statements: whoever held it signed nothing.
    let Some(row) = row else { return Ok(Claim::InFlight) };
    let same = row.get::<Vec<u8>, _>("request_hash") == request_hash;
    let (dead, expired) = (row.get::<bool, _>("dead"), row.get::<bool, _>("expired"));
    let completed: Option<IntentId> = row.get("intent_id");
    let take_over = match completed {
        // Asked in a statement of its own: the one above took its snapshot before it waited for the row.
        Some(intent) => expired && is_settled(&mut tx, intent).await?,
        None => dead && (same || expired),
    };
    if !take_over {
        // The lock of the row is a write, which this commit stores behind whatever completed the claim: a server that recovered shows what its
        // standby may not have, and a replay is an acknowledgement.
        tx.commit().await?;
        return Ok(match completed {
            Some(_) | None if !same => Claim::Mismatch,
            Some(intent) => Claim::Done(intent),
            None => Claim::InFlight,
        });
    }
    sqlx::query(
        "UPDATE idempotency SET request_hash = $3, state = 'in_flight', claim = $4, intent_id = NULL,
                lease_until = clock_timestamp() + make_interval(secs => $5), expires_at = clock_timestamp() + interval '24 hours',
                created_at = clock_timestamp()
         WHERE agent_id = $1 AND key_hash = $2",
    )
    .bind(agent)
    .bind(key_hash.as_slice())
    .bind(request_hash.as_slice())
    .bind(token)
    .bind(lease_s as f64)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Claim::Ours(token))
}

async fn is_settled(conn: &mut PgConnection, intent: IntentId) -> Result<bool, sqlx::Error> {
    let row =
        sqlx::query("SELECT NOT EXISTS (SELECT 1 FROM slots WHERE intent_id = $1 AND state <> 'final') AS settled")
            .bind(intent)
            .fetch_one(conn)
            .await?;
    row.try_get("settled")
}

/// One row for each claim, by hash and token, that is an agent's still; locked in the order of their keys.
macro_rules! locked_claims {
    ($agent:literal, $hashes:literal, $tokens:literal) => {
        concat!(
            "SELECT 1 FROM idempotency JOIN unnest(",
            $hashes,
            "::bytea[], ",
            $tokens,
            "::uuid[]) AS c (hash, token) ON key_hash = c.hash AND claim = c.token
             WHERE agent_id = ",
            $agent,
            " AND key_hash = ANY(",
            $hashes,
            ") AND state = 'in_flight' ORDER BY key_hash FOR UPDATE OF idempotency"
        )
    };
}
pub(super) use locked_claims;

/// Ties claims, by hash and token, to their intents, as far as they are an agent's still.
macro_rules! complete_claims {
    ($agent:literal, $hashes:literal, $tokens:literal, $intents:literal) => {
        concat!(
            "UPDATE idempotency i SET state = 'completed', intent_id = c.intent
             FROM unnest(",
            $hashes,
            "::bytea[], ",
            $tokens,
            "::uuid[], ",
            $intents,
            "::uuid[]) AS c (hash, token, intent)
             WHERE i.agent_id = ",
            $agent,
            " AND i.key_hash = ANY(",
            $hashes,
            ") AND i.key_hash = c.hash AND i.claim = c.token AND i.state = 'in_flight'"
        )
    };
}
pub(super) use complete_claims;

/// The claims are still ours, and stay so until this transaction ends. Locks the keys' rows, in their order.
pub(in crate::intents) async fn hold_claims(
    conn: &mut PgConnection,
    agent: AgentId,
    claims: &[HeldClaim],
) -> Result<bool, sqlx::Error> {
    if claims.is_empty() {
        return Ok(true);
    }
    let held = sqlx::query(locked_claims!("$1", "$2", "$3"))
        .bind(agent)
        .bind(claims.iter().map(|claim| claim.key_hash.to_vec()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.token).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(held.rows_affected() == claims.len() as u64)
}

/// Ties the completed claims to their intents, at the end of a replacement's transaction. T1 does so in the statement that writes the intent.
pub(in crate::intents) async fn finish_claims(
    conn: &mut PgConnection,
    agent: AgentId,
    claims: &[(HeldClaim, IntentId)],
) -> Result<bool, sqlx::Error> {
    if claims.is_empty() {
        return Ok(true);
    }
    let done = sqlx::query(complete_claims!("$1", "$2", "$3", "$4"))
        .bind(agent)
        .bind(claims.iter().map(|(claim, _)| claim.key_hash.to_vec()).collect::<Vec<_>>())
        .bind(claims.iter().map(|(claim, _)| claim.token).collect::<Vec<_>>())
        .bind(claims.iter().map(|(_, intent)| *intent).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == claims.len() as u64)
}

/// Gives the claim back after a refusal that signed nothing. Only the holder's token can.
pub async fn release_claim(
    conn: &mut PgConnection,
    agent: AgentId,
    key_hash: [u8; 32],
    token: ClaimToken,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM idempotency WHERE agent_id = $1 AND key_hash = $2 AND claim = $3 AND state = 'in_flight'")
        .bind(agent)
        .bind(key_hash.as_slice())
        .bind(token)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets keys whose 24 hours passed a day ago and whose transaction is final, some thousand at a time. Returns how many.
pub async fn forget_expired_claims(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut forgotten = 0;
    loop {
        let done = sqlx::query(
            "DELETE FROM idempotency WHERE (agent_id, key_hash) IN (
                 SELECT i.agent_id, i.key_hash FROM idempotency i WHERE i.expires_at < clock_timestamp() - interval '24 hours'
                   AND NOT EXISTS (SELECT 1 FROM slots s WHERE s.intent_id = i.intent_id AND s.state <> 'final')
                 ORDER BY i.expires_at LIMIT 2000)",
        )
        .execute(pool)
        .await?
        .rows_affected();
        forgotten += done;
        if done < 2_000 {
            return Ok(forgotten);
        }
    }
}
