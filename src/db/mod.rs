//! Postgres: the one pool, migrations, and what a database error means.

mod line;
mod numeric;
mod pooled;
mod primary;
mod sealed;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgConnection, PgPool};

use crate::config::Secret;
use crate::telemetry::record;

pub use primary::Primary;
pub use sealed::SealedColumns;

/// The pool of this process.
pub type Pool = PgPool;

/// One connection of it.
pub type Connection = PgConnection;

/// The migrations, with the reasons for tables and columns in their comments.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// Key of the transaction-level advisory lock that migrations and the creation of KEKs run under.
pub const INSTALL_LOCK: i64 = 0x1a7e_47d0;

/// A tracing filter for the server's notices ("relation exists already"): news to nobody. Whoever wants them names the target.
pub const QUIET: &str = "sqlx::postgres::notice=warn";

/// `[database]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbConfig {
    /// `postgres://user:password@host/database`; a primary and its standbys as several of them with commas, in any order. Environment:
    /// `INTENTD_DATABASE_URL`.
    pub url: Option<Secret>,
    /// Most connections of this process.
    pub max_connections: u32,
    /// How long a request waits for a connection before it is answered 503, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// Prepared statements kept per connection.
    pub statement_cache: usize,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self { url: None, max_connections: 32, acquire_timeout_ms: 3_000, statement_cache: 256 }
    }
}

/// What went wrong with the database. The text is safe to show; the cause is for the log.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection, no free one in time, or the server went away: try again.
    #[error("the database is not reachable: try again")]
    Unavailable(#[source] sqlx::Error),
    /// A lock or a statement took too long: try again.
    #[error("the database is too busy: nothing was changed, try again")]
    Busy(#[source] sqlx::Error),
    /// A unique key was already taken.
    #[error("it exists already")]
    Duplicate(#[source] sqlx::Error),
    /// A bug, or a database that does not fit this binary.
    #[error("the database refused a statement")]
    Internal(#[source] sqlx::Error),
    /// What answers is not what this binary can work with; why, and what to do.
    #[error("{0}")]
    Unfit(String),
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let timed_out = matches!(error, sqlx::Error::PoolTimedOut);
        let error = Self::of(error);
        match &error {
            Self::Unavailable(_) if timed_out => record::db_error("pool_timeout"),
            Self::Unavailable(_) => record::db_error("unavailable"),
            Self::Busy(_) => record::db_error("busy"),
            Self::Internal(_) => record::db_error("internal"),
            Self::Duplicate(_) | Self::Unfit(_) => {}
        }
        error
    }
}

impl DbError {
    fn of(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned());
        match (&error, code.as_deref()) {
            (_, Some("23505")) => Self::Duplicate(error),
            // lock_not_available, query_canceled (statement_timeout), deadlock, serialization failure
            (_, Some("55P03" | "57014" | "40P01" | "40001")) => Self::Busy(error),
            // admin shutdown, crash shutdown, cannot connect now, idle-in-transaction, connection exceptions, too many connections, read-only
            (_, Some("57P01" | "57P02" | "57P03" | "25P03" | "53300" | "25006")) => Self::Unavailable(error),
            (_, Some(code)) if code.starts_with("08") => Self::Unavailable(error),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_),
                _,
            ) => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}

/// Opens the pool, on the primary. Connections wait at most `acquire_timeout_ms`; every session has a statement time-out as a backstop (which
/// no longer counts when a COMMIT waits for a standby), and commits only what is stored. Where `url` lists several servers,
/// [`Primary::keep`] moves the pool when another one becomes the primary.
///
/// # Errors
/// When a URL cannot be read, no primary can be reached, or what is reached is a pooler that statements do not work through.
pub async fn connect(config: &DbConfig, url: &str) -> Result<(PgPool, Arc<Primary>), DbError> {
    let prepare = |options: PgConnectOptions| {
        options
            .application_name("intentd")
            .statement_cache_capacity(config.statement_cache)
            // Floats are read as bits; and poolers refuse parameters at the start that they do not know.
            .extra_float_digits(None)
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2))
    };
    let acquire_timeout = Duration::from_millis(config.acquire_timeout_ms);
    let primary = Arc::new(Primary::new(url, prepare)?);
    primary.find(acquire_timeout).await?;
    let (admitting, acquiring) = (Arc::clone(&primary), Arc::clone(&primary));
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(acquire_timeout)
        .test_before_acquire(true)
        .before_acquire(move |_, connection| {
            let is_of_now = acquiring.is_of_now(connection.age);
            Box::pin(async move { Ok(is_of_now) })
        })
        .after_connect(move |conn, _| {
            let primary = Arc::clone(&admitting);
            Box::pin(async move { primary.admit(conn).await })
        })
        .connect_with(primary.options())
        .await;
    match pool {
        Ok(pool) => {
            pooled::check(&primary.options()).await?;
            Ok((pool, primary))
        }
        // The pool tries for as long as it may and does not say what it met: ask once more, for the cause.
        Err(timed_out @ sqlx::Error::PoolTimedOut) => {
            let once = tokio::time::timeout(Duration::from_secs(1), async {
                let mut conn = PgConnection::connect_with(&primary.options()).await?;
                primary.admit(&mut conn).await
            });
            Err(once.await.ok().and_then(Result::err).unwrap_or(timed_out).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Why the database does not have this binary's schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Another version has been here.
    #[error("the database's schema is newer than this binary (it has migration {0}): run the newer intentd")]
    Newer(i64),
    /// A migration did not run.
    #[error("a migration failed")]
    Failed(#[source] MigrateError),
}

impl From<MigrateError> for SchemaError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::Newer(version),
            other => Self::Failed(other),
        }
    }
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(MigrateError::Execute(error))
    }
}

/// Runs the migrations that are missing. Takes the installation lock for one transaction (a transaction's lock, not a session's:
/// it also holds behind pgbouncer), so that daemons that start together run them once.
///
/// # Errors
/// When a migration fails, or the database has migrations that this binary does not know.
pub async fn migrate(pool: &PgPool) -> Result<(), SchemaError> {
    let mut guard = pool.begin().await?;
    lock_install(&mut guard).await?;
    let mut migrator = Migrator { ..Migrator::DEFAULT };
    migrator.migrations = MIGRATIONS.migrations.clone();
    migrator.set_locking(false);
    migrator.run(pool).await?;
    guard.commit().await?;
    Ok(())
}

/// Holds the installation lock until the transaction of `conn` ends.
///
/// # Errors
/// As any statement.
pub async fn lock_install(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(INSTALL_LOCK).execute(conn).await?;
    Ok(())
}

/// One round trip.
///
/// # Errors
/// When the database does not answer.
pub async fn ping(pool: &PgPool) -> Result<(), DbError> {
    sqlx::query("SELECT 1").execute(pool).await?;
    Ok(())
}
