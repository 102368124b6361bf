//! Which of the configured servers the pool is on. With a primary and its standbys configured, every daemon finds the primary by itself:
//! once a second all of them are asked what they are, and the pool moves to the primary of the highest timeline.
//!
//! A timeline begins with every promotion (PostgreSQL 15, chapter 26.3.5), so a former primary that comes back, or that nobody stopped, is
//! told from its successor, and is never gone back to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::DbError;
use super::line::{Folder, Line};
use crate::ids::DaemonId;

/// How often the servers are asked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take to connect and to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Session settings of every connection, set by statements: poolers drop or refuse them at a connection's start.
const SETTINGS: &str = "SET statement_timeout = '15s'; SET idle_in_transaction_session_timeout = '20s'; SET synchronous_commit = on; SET jit = off";

/// What a server says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing.
    Silent,
    /// It replays another one's log.
    Standby,
    /// It takes writes.
    Primary {
        /// How many promotions there were, and one.
        timeline: i64,
        /// When its process started, in microseconds: two servers differ in it, two ways to one do not.
        started: i64,
    },
}

struct Server {
    options: PgConnectOptions,
    /// Where it is, without user and password.
    name: String,
    /// What the pool connects through, where there are several servers. Open for the one that the pool is on.
    line: Option<Line>,
}

/// The servers, and what is known of them. One for a pool.
pub struct Primary {
    servers: Vec<Server>,
    current: AtomicUsize,
    /// The highest timeline that was seen.
    timeline: AtomicI64,
    /// Since when it is, if it has risen: connections that are older are to a server that has a successor.
    risen: Mutex<Option<Instant>>,
    wrote: Mutex<Wrote>,
    /// Of the lines.
    _folder: Option<Folder>,
}

/// The last report of this daemon of itself that was stored.
struct Wrote {
    /// When its writing began.
    at: Instant,
    /// Where it is found: the daemon, and the report's time as the database has it.
    row: Option<(DaemonId, OffsetDateTime)>,
}

/// The URLs in a text that lists them with commas. A comma inside of one (a password's) is no end of it: the next begins with a scheme.
fn urls(text: &str) -> Vec<&str> {
    let is_end = |at: &usize| {
        let rest = text[at + 1..].trim_start();
        rest.starts_with("postgres://") || rest.starts_with("postgresql://")
    };
    let mut found = Vec::new();
    let mut from = 0;
    for at in text.match_indices(',').map(|(at, _)| at).filter(is_end) {
        found.push(text[from..at].trim());
        from = at + 1;
    }
    found.push(text[from..].trim());
    found
}

/// Where to move: to the primary of the highest timeline, unless the pool is there, that timeline is behind `highest`, or several servers
/// are it: each of them may lack what the other has.
fn choose(current: usize, highest: i64, answers: &[Answer]) -> Option<(usize, i64)> {
    let primaries = || {
        answers.iter().enumerate().filter_map(|(index, answer)| match answer {
            Answer::Primary { timeline, started } if *timeline >= highest => Some((index, *timeline, *started)),
            _ => None,
        })
    };
    let best = primaries().map(|(_, timeline, _)| timeline).max()?;
    let candidates = || primaries().filter(|(_, timeline, _)| *timeline == best);
    let (index, _, process) = candidates().min_by_key(|(index, ..)| (*index != current, *index))?;
    let is_one = candidates().all(|(.., started)| started == process);
    (is_one && index != current).then_some((index, best))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("does not answer"),
            Self::Standby => f.write_str("is a standby"),
            Self::Primary { timeline, .. } => write!(f, "is the primary of timeline {timeline}"),
        }
    }
}

impl Primary {
    /// From the text of `database.url`, with `prepare` applied to each of them. Runs in the runtime that the pool will be in.
    ///
    /// # Errors
    /// When one is no URL of a Postgres, or there is no place for the sockets of several.
    pub fn new(text: &str, prepare: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Result<Self, sqlx::Error> {
        let urls = urls(text);
        let folder = if urls.len() > 1 { Some(Folder::new()?) } else { None };
        let server = |(index, url): (u16, &str)| {
            let options = prepare(url.parse()?);
            let name = match options.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", options.get_host(), options.get_port()),
            };
            let line = folder.as_ref().map(|folder| Line::new(folder, index, &options)).transpose()?;
            Ok(Server { options, name, line })
        };
        Ok(Self {
            servers: (0..).zip(urls).map(server).collect::<Result<_, sqlx::Error>>()?,
            current: AtomicUsize::new(0),
            timeline: AtomicI64::new(0),
            risen: Mutex::new(None),
            wrote: Mutex::new(Wrote { at: Instant::now(), row: None }),
            _folder: folder,
        })
    }

    /// How the pool connects to the server that it is on.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        let Server { options, line, .. } = &self.servers[self.current.load(Ordering::Relaxed)];
        line.as_ref().map_or(options, Line::options).clone()
    }

    /// The daemon's report of itself that it began to write `at` was stored, on a standby too where commits wait for one; with the time that
    /// is in its row.
    pub fn wrote(&self, at: Instant, daemon: DaemonId, seen_at: OffsetDateTime) {
        *self.wrote.lock() = Wrote { at, row: Some((daemon, seen_at)) };
    }

    /// Whether a write that began so long ago was stored: a server that answers, and whose commits wait for a standby that is gone, can store
    /// nothing.
    #[must_use]
    pub fn wrote_within(&self, time: Duration) -> bool {
        self.wrote.lock().at.elapsed() < time
    }

    /// Makes a new connection ready, or refuses it: nothing is asked of a standby or of a primary that has a successor.
    ///
    /// # Errors
    /// When it is either of these, or does not answer.
    pub(super) async fn admit(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        (&mut *conn).execute(SETTINGS).await?;
        match self.ask(conn).await? {
            Answer::Primary { timeline, .. } => {
                let highest = self.timeline.fetch_max(timeline, Ordering::Relaxed);
                if timeline < highest {
                    return Err(refused(
                        "the database's server has a successor (or, after pg_upgrade, this daemon has to be started again)",
                    ));
                }
                // Behind one address: what it leads to has changed.
                if highest > 0 && timeline > highest {
                    *self.risen.lock() = Some(Instant::now());
                    tracing::warn!(timeline, "the database's primary is another server");
                }
                Ok(())
            }
            _ => Err(refused("the database's server is a standby: it takes no writes")),
        }
    }

    /// Whether a connection of this age was made since the timeline rose: an older one is to a former primary, which may still answer.
    pub(super) fn is_of_now(&self, age: Duration) -> bool {
        self.risen.lock().is_none_or(|risen| age <= risen.elapsed())
    }

    /// What the server at the other end is. With one server, what speaks like Postgres and cannot tell its timeline has none.
    async fn ask(&self, conn: &mut PgConnection) -> Result<Answer, sqlx::Error> {
        let sql = "SELECT pg_is_in_recovery() AS standby, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started,
                          CASE WHEN pg_is_in_recovery() THEN 0
                               ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END AS timeline";
        let row = match conn.fetch_one(sql).await {
            Err(sqlx::Error::Database(_)) if self.servers.len() < 2 => {
                conn.fetch_one("SELECT pg_is_in_recovery() AS standby, 0::bigint AS started, 0::bigint AS timeline")
                    .await?
            }
            asked => asked?,
        };
        if row.try_get("standby")? {
            return Ok(Answer::Standby);
        }
        Ok(Answer::Primary { timeline: row.try_get("timeline")?, started: row.try_get("started")? })
    }

    /// Whether the last report of this daemon that was stored is there. A server without it lacks what was acknowledged.
    async fn has_what_was_told(&self, probe: &mut PgConnection) -> bool {
        let Some((daemon, seen_at)) = self.wrote.lock().row else { return true };
        let sql = "SELECT EXISTS (SELECT FROM daemons WHERE id = $1 AND seen_at >= $2)";
        let asked = sqlx::query_scalar(sql).bind(daemon).bind(seen_at).fetch_one(probe);
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(true)))
    }

    /// Asks all of them, each on the connection that it left in `probes`.
    async fn ask_all(&self, probes: &mut [Option<PgConnection>]) -> Vec<Answer> {
        let asked = self.servers.iter().zip(probes).map(|(server, probe)| async move {
            let answer = tokio::time::timeout(PATIENCE, async {
                let mut conn = match probe.take() {
                    Some(conn) => conn,
                    None => PgConnection::connect_with(&server.options).await?,
                };
                let answer = self.ask(&mut conn).await?;
                *probe = Some(conn);
                Ok::<_, sqlx::Error>(answer)
            });
            match answer.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    tracing::debug!(server = %server.name, %error, "a database server does not answer");
                    Answer::Silent
                }
                Err(_) => Answer::Silent,
            }
        });
        join_all(asked).await
    }

    /// Before there is a pool: begins at the primary, where there are several to choose from, and waits for `patience` until there is one
    /// and all of them have answered.
    ///
    /// # Errors
    /// When none is one.
    pub(super) async fn find(&self, patience: Duration) -> Result<(), DbError> {
        if self.servers.len() < 2 {
            return Ok(());
        }
        let mut probes: Vec<_> = self.servers.iter().map(|_| None).collect();
        let began = Instant::now();
        loop {
            let answers = self.ask_all(&mut probes).await;
            // One that is silent may be the successor of one that answers.
            let all_answer = !answers.contains(&Answer::Silent);
            if let Some((index, timeline)) =
                choose(usize::MAX, 0, &answers).filter(|_| all_answer || began.elapsed() >= patience)
            {
                self.current.store(index, Ordering::Relaxed);
                self.timeline.store(timeline, Ordering::Relaxed);
                self.open(index);
                return Ok(());
            }
            if began.elapsed() >= patience {
                let told: Vec<_> =
                    self.servers.iter().zip(&answers).map(|(s, answer)| format!("{} {answer}", s.name)).collect();
                return Err(DbError::Unfit(format!(
                    "none of the database's servers is the primary: {}",
                    told.join(", ")
                )));
            }
            tokio::time::sleep(patience / 10).await;
        }
    }

    fn open(&self, index: usize) {
        if let Some(line) = &self.servers[index].line {
            line.open();
        }
    }

    /// Keeps the pool on the primary until `stopping`. A round that panics is a bug; the primary is followed all the same.
    pub async fn keep(self: Arc<Self>, pool: PgPool, stopping: CancellationToken) {
        if self.servers.len() < 2 {
            return;
        }
        loop {
            let (this, pool, until) = (Arc::clone(&self), pool.clone(), stopping.clone());
            match tokio::spawn(async move { this.follow(&pool, &until).await }).await {
                Ok(()) => return,
                Err(panicked) => {
                    tracing::error!(error = %panicked, "the following of the database's primary fell over and is started again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn follow(&self, pool: &PgPool, stopping: &CancellationToken) {
        let mut probes: Vec<_> = self.servers.iter().map(|_| None).collect();
        let (mut lost, mut behind) = (false, false);
        while stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
            let answers = self.ask_all(&mut probes).await;
            let current = self.current.load(Ordering::Relaxed);
            let highest = self.timeline.load(Ordering::Relaxed);
            if let (Some((to, timeline)), true) = (choose(current, highest, &answers), !stopping.is_cancelled()) {
                let has_all = match &mut probes[to] {
                    Some(probe) => self.has_what_was_told(probe).await,
                    None => false,
                };
                if has_all {
                    self.move_to(pool, to, timeline);
                } else if !behind {
                    let server = &self.servers[to].name;
                    tracing::error!(%server, timeline, "the database's new primary does not have what this daemon was told is stored: it is \
                        not followed. Promote the standby that has most; to go on without what is lost, start the \
                        daemons again");
                }
                behind = !has_all;
            }
            let current = self.current.load(Ordering::Relaxed);
            if let Answer::Primary { timeline, .. } = answers[current] {
                self.timeline.fetch_max(timeline, Ordering::Relaxed);
            }
            let highest = self.timeline.load(Ordering::Relaxed);
            for (index, (answer, probe)) in answers.iter().zip(&mut probes).enumerate() {
                if let (Answer::Primary { timeline, .. }, Some(probe)) = (answer, probe)
                    && *timeline < highest
                {
                    self.dismiss(index, probe).await;
                }
            }
            let is_lost = !matches!(answers[current], Answer::Primary { .. });
            if is_lost && !lost {
                let server = &self.servers[current].name;
                tracing::warn!(%server, ?answers, "the database's primary does not answer, and no other server is one");
            }
            lost = is_lost;
        }
    }

    /// Everything that is asked of the former one ends, with an error: nothing else ends a wait for a machine that vanished.
    fn move_to(&self, pool: &PgPool, to: usize, timeline: i64) {
        let from = &self.servers[self.current.swap(to, Ordering::Relaxed)];
        self.timeline.fetch_max(timeline, Ordering::Relaxed);
        self.open(to);
        pool.set_connect_options(self.options());
        if let Some(line) = &from.line {
            line.shut();
        }
        let (from, to) = (&from.name, &self.servers[to].name);
        tracing::warn!(%from, %to, timeline, "the database's primary is another server: moved there");
    }

    /// Ends what this installation still has at a former primary that answers: a COMMIT that waits there for its standby waits for ever.
    async fn dismiss(&self, index: usize, probe: &mut PgConnection) {
        // Not what other daemons look with.
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = 'intentd' AND usename = current_user AND datname = current_database()
                     AND query NOT LIKE '%pg_is_in_recovery%' AND pid <> pg_backend_pid()";
        let done = tokio::time::timeout(PATIENCE, probe.execute(sql)).await;
        if !matches!(done, Ok(Ok(_))) {
            tracing::info!(server = %self.servers[index].name, "what was asked of the former primary could not be ended there");
        }
    }
}

fn refused(why: &str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_separated_by_commas_before_a_scheme_only() {
        assert_eq!(urls("postgres://u:p@h/d"), ["postgres://u:p@h/d"]);
        assert_eq!(
            urls("postgres://u:p,w@h/d, postgresql://u@i/d,postgres://u@j/d"),
            ["postgres://u:p,w@h/d", "postgresql://u@i/d", "postgres://u@j/d"]
        );
        assert_eq!(urls(""), [""]);
    }

    #[test]
    fn threat_38_the_primary_of_the_highest_timeline_is_chosen_and_no_former_one_ever_again() {
        // Where the pool is, the highest timeline so far, what is answered; where it goes.
        type Case<'a> = (usize, i64, &'a [Answer], Option<(usize, i64)>);
        use Answer::{Primary, Silent, Standby};
        let of = |timeline: i64| Primary { timeline, started: 5 };
        let another = |timeline: i64| Primary { timeline, started: 6 };
        let cases: [Case<'_>; 11] = [
            (0, 1, &[of(1), Standby], None),
            (0, 1, &[Silent, Standby], None),
            (0, 1, &[Silent, of(2)], Some((1, 2))),
            // Nobody stopped the former one.
            (0, 1, &[of(1), another(2)], Some((1, 2))),
            // It comes back while its successor does not answer.
            (1, 2, &[of(1), Silent], None),
            (1, 2, &[Standby, of(2)], None),
            (1, 2, &[of(3), Silent], Some((0, 3))),
            // Two ways to one server.
            (1, 1, &[of(1), of(1)], None),
            (1, 1, &[of(1), Silent], Some((0, 1))),
            // Two standbys of one primary were promoted.
            (0, 1, &[Silent, of(2), another(2)], None),
            (1, 2, &[Silent, of(2), another(2)], None),
        ];
        for (current, highest, answers, expected) in cases {
            assert_eq!(choose(current, highest, answers), expected, "at {current} with {answers:?}");
        }
        assert_eq!(choose(usize::MAX, 0, &[Silent, of(1)]), Some((1, 1)), "at the start");
        assert_eq!(choose(usize::MAX, 0, &[another(1), of(1)]), None, "at the start");
    }
}
