//! Whether statements work through what is between this process and Postgres. They are prepared by name in one exchange and run in the
//! next: a pooler that gives each transaction another server connection must follow the names, or cannot be used.

use std::time::Duration;

use futures::future::join;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::error::Elapsed;

use super::DbError;

/// How long each step may take. One that takes longer shows nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried to be shown something.
const TRIES: usize = 5;

/// Prepares a statement, lets another client take the server connection that it was prepared on, and runs it again.
///
/// # Errors
/// [`DbError::Unfit`], which says what to do; [`DbError::Unavailable`] where nothing could be shown: another's statement might run under the
/// name of ours.
pub(super) async fn check(options: &PgConnectOptions) -> Result<(), DbError> {
    let options = options.clone().statement_cache_capacity(1);
    for _ in 0..TRIES {
        match once(&options).await {
            Ok(shown) => return shown,
            Err(_) => {
                tracing::warn!("what is between this daemon and its database is too slow to be looked at: trying again")
            }
        }
    }
    Err(DbError::Unavailable(sqlx::Error::PoolTimedOut))
}

/// `Err` when it shows nothing.
async fn once(options: &PgConnectOptions) -> Result<Result<(), DbError>, Elapsed> {
    let connect = || tokio::time::timeout(PATIENCE, PgConnection::connect_with(options));
    let (mut ours, mut other) = match (connect().await?, connect().await?) {
        (Ok(ours), Ok(other)) => (ours, other),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error.into())),
    };
    let done = tokio::time::timeout(PATIENCE, async {
        run(&mut ours).await?;
        // What was given back last is given out first.
        other.execute("BEGIN").await?;
        run(&mut ours).await
    });
    let done = done.await;
    let _ = tokio::time::timeout(PATIENCE, join(ours.close(), other.close())).await;
    done
}

async fn run(conn: &mut PgConnection) -> Result<(), DbError> {
    match sqlx::query("SELECT $1::int4").bind(1_i32).execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // invalid_sql_statement_name, duplicate_prepared_statement
            let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            Err(match code.as_deref() {
                Some("26000" | "42P05") => DbError::Unfit(format!(
                    "a pooler before the database gives each transaction another connection and does not follow prepared statements \
                     ({error}): set `pool_mode = session`, or use pgbouncer 1.21 or later with `max_prepared_statements` above 0"
                )),
                _ => error.into(),
            })
        }
    }
}
