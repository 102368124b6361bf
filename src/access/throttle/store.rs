//! Throttles in the database. Times are the database's.

use std::time::Duration;

use sqlx::PgConnection;

use super::Throttle;
use crate::db::DbError;

/// Takes one, if there is one left: `Ok(None)`. `Ok(Some(wait))`: not before `wait` has passed, and nothing was taken.
///
/// One statement, so that of any number at once, on any number of daemons, exactly as many pass as there are left. Holds the row of the
/// throttle until the transaction ends: take it in a transaction of its own unless the taking is to be undone with the rest.
///
/// # Errors
/// As any statement.
pub async fn take(conn: &mut PgConnection, what: Throttle, key: [u8; 32]) -> Result<Option<Duration>, DbError> {
    let (kind, most, span) = what.rule();
    sqlx::query("DELETE FROM throttles WHERE (kind, key) IN (SELECT kind, key FROM throttles WHERE until < now() LIMIT 16 FOR UPDATE SKIP LOCKED)")
        .execute(&mut *conn)
        .await?;
    let taken = sqlx::query(
        "INSERT INTO throttles AS t (kind, key, taken, until)
         VALUES ($1, $2, ARRAY[clock_timestamp()], clock_timestamp() + $4 * interval '1 second')
         ON CONFLICT (kind, key) DO UPDATE
            SET taken = (SELECT array_agg(at ORDER BY at) FROM unnest(t.taken) AS at
                         WHERE at > clock_timestamp() - $4 * interval '1 second') || clock_timestamp(),
                until = clock_timestamp() + $4 * interval '1 second'
          WHERE (SELECT count(*) FROM unnest(t.taken) AS at WHERE at > clock_timestamp() - $4 * interval '1 second') < $3",
    )
    .bind(kind)
    .bind(key.as_slice())
    .bind(i64::from(most))
    .bind(span.as_secs_f64())
    .execute(&mut *conn)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(None);
    }
    let wait_s: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM taken[cardinality(taken) - $3 + 1] + $4 * interval '1 second' - clock_timestamp())::float8
         FROM throttles WHERE kind = $1 AND key = $2",
    )
    .bind(kind)
    .bind(key.as_slice())
    .bind(i32::from(most))
    .bind(span.as_secs_f64())
    .fetch_optional(conn)
    .await?
    .flatten();
    Ok(Some(Duration::from_secs_f64(wait_s.unwrap_or(1.0).max(0.001))))
}

/// Gives back one: what it was taken for did not count after all.
///
/// # Errors
/// As any statement.
pub async fn give_back(conn: &mut PgConnection, what: Throttle, key: [u8; 32]) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE throttles SET taken = trim_array(taken, 1) WHERE kind = $1 AND key = $2 AND cardinality(taken) > 0",
    )
    .bind(what.rule().0)
    .bind(key.as_slice())
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives back all that was taken: the right password was given, say.
///
/// # Errors
/// As any statement.
pub async fn forget(conn: &mut PgConnection, what: Throttle, key: [u8; 32]) -> Result<(), DbError> {
    sqlx::query("DELETE FROM throttles WHERE kind = $1 AND key = $2")
        .bind(what.rule().0)
        .bind(key.as_slice())
        .execute(conn)
        .await?;
    Ok(())
}
