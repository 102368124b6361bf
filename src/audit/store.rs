//! Audit rows.

pub mod links;
pub mod trail;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::postgres::PgArguments;
use sqlx::query::Query as Statement;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use super::hash::Hash;
use super::lines::hexed;
use super::rules::Trail;
use super::{Event, hash};
use crate::db::DbError;
use crate::ids::{EventId, OrgId};
use crate::webhooks::rules::fitting;

/// Writes an event, in the transaction of what it records, and with it what is to be told to the organisation's webhooks. A trigger queues
/// it for its link.
///
/// # Errors
/// As any statement; the effect must then not happen either.
pub async fn record(conn: &mut PgConnection, event: Event) -> Result<(), DbError> {
    record_alike(conn, event.action, &[event]).await
}

/// The parts of a `WITH` that write events of one action, bound by [`bind_events`] from the first of these parameters on.
macro_rules! recorded {
    ($id:literal, $org:literal, $actor_type:literal, $actor:literal, $kind:literal, $resource:literal, $details:literal, $ip:literal,
     $at:literal, $hash:literal, $action:literal, $fitting:literal) => {
        concat!(
            "event AS MATERIALIZED (
                 SELECT * FROM unnest(",
            $id, "::uuid[], ", $org, "::uuid[], ", $actor_type, "::text[], ", $actor, "::uuid[], ", $kind, "::text[], ",
            $resource, "::text[], ", $details, "::jsonb[], ", $ip, "::text[], ", $at, "::timestamptz[], ", $hash, "::bytea[])
                     AS e (id, org_id, actor_type, actor_id, resource_type, resource_id, details, ip, created_at, hash)
             ), told AS (
                 INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_created_at, action)
                 SELECT gen_random_uuid(), w.id, e.id, e.created_at, ", $action, " FROM event e
                 JOIN webhooks w ON w.org_id = e.org_id AND w.is_active AND w.events && ", $fitting, "::text[]
             ), recorded AS (
                 INSERT INTO audit_events (id, org_id, action, actor_type, actor_id, resource_type, resource_id, details, ip_address,
                                           created_at, hash)
                 SELECT id, org_id, ", $action, ", actor_type, actor_id, resource_type, resource_id, details, ip::inet, created_at, hash
                 FROM event
             )"
        )
    };
}
pub(crate) use recorded;

/// The values of [`recorded`](macro@recorded), in its order.
pub(crate) fn bind_events<'q>(
    query: Statement<'q, Postgres, PgArguments>,
    action: &'static str,
    events: &'q [Event],
) -> Statement<'q, Postgres, PgArguments> {
    fn each<'e, T>(events: &'e [Event], of: impl Fn(&'e Event) -> T) -> Vec<T> {
        events.iter().map(of).collect()
    }
    query
        .bind(each(events, |event| event.id))
        .bind(each(events, |event| event.org_id))
        .bind(each(events, |event| event.actor.kind()))
        .bind(each(events, |event| event.actor.id()))
        .bind(each(events, |event| event.resource.kind))
        .bind(each(events, |event| event.resource.id.as_deref()))
        .bind(each(events, |event| Json(&event.details)))
        .bind(each(events, |event| event.ip.map(|ip| ip.to_string())))
        .bind(each(events, |event| event.created_at))
        .bind(each(events, |event| hash::of(&event.fields()).to_vec()))
        .bind(action)
        .bind(fitting(action))
}

/// As [`record`], for several events of one action, in one statement.
///
/// # Errors
/// As any statement; the effects must then not happen either.
pub async fn record_alike(conn: &mut PgConnection, action: &'static str, events: &[Event]) -> Result<(), DbError> {
    let query = sqlx::query(concat!(
        "WITH ",
        recorded!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10", "$11", "$12"),
        " SELECT"
    ));
    bind_events(query, action, events).execute(conn).await?;
    Ok(())
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// About this resource.
    pub resource_id: Option<String>,
    /// By this actor.
    pub actor_id: Option<Uuid>,
    /// This action.
    pub action: Option<String>,
    /// Not before.
    pub from: Option<OffsetDateTime>,
    /// Not after.
    pub to: Option<OffsetDateTime>,
    /// Older than this event: where the last page ended.
    pub before: Option<(OffsetDateTime, EventId)>,
    /// At most so many.
    pub limit: i64,
    /// Leaving out so many.
    pub offset: i64,
}

/// A row, also as a line of an export has it.
#[derive(Clone, Debug, FromRow, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: EventId,
    /// What.
    pub action: String,
    /// `user`, `agent`, `system` or `anonymous`.
    pub actor_type: String,
    /// Who.
    pub actor_id: Option<Uuid>,
    /// What kind of thing it is about.
    pub resource_type: String,
    /// Which.
    pub resource_id: Option<String>,
    /// The rest.
    pub details: Json<Map<String, Value>>,
    /// From where.
    pub ip_address: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The organisation.
    org_id: Option<OrgId>,
    /// The hash that was stored with it.
    #[serde(with = "hexed")]
    hash: Vec<u8>,
}

impl Row {
    /// Whether the stored hash is the hash of what is stored.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.hash_of_fields().is_some_and(|hash| hash.as_slice() == self.hash)
    }

    /// The hash of its fields, if it is the stored one and the event is one of this trail.
    #[must_use]
    pub fn hash_in(&self, trail: Trail) -> Option<Hash> {
        let hash = self.hash_of_fields()?;
        (hash.as_slice() == self.hash && self.org_id == trail.0).then_some(hash)
    }

    fn hash_of_fields(&self) -> Option<Hash> {
        let ip = self.ip_address.as_deref().map(str::parse).transpose().ok()?;
        let fields = hash::Fields {
            id: self.id.0,
            org_id: self.org_id.map(|id| id.0),
            action: &self.action,
            actor_type: &self.actor_type,
            actor_id: self.actor_id,
            resource_type: &self.resource_type,
            resource_id: self.resource_id.as_deref(),
            details: &self.details.0,
            ip,
            created_at: self.created_at,
        };
        Some(hash::of(&fields))
    }
}

/// Events of an organisation, newest first.
///
/// # Errors
/// As any statement.
pub async fn list(conn: &mut PgConnection, org_id: OrgId, filter: &Filter) -> Result<Vec<Row>, DbError> {
    let (before_at, before_id) = filter.before.unzip();
    let rows = sqlx::query_as(
        "SELECT id, action, actor_type, actor_id, resource_type, resource_id, details, host(ip_address) AS ip_address, created_at,
                org_id, hash
         FROM audit_events
         WHERE org_id = $1
           AND ($2::text IS NULL OR resource_id = $2)
           AND ($3::uuid IS NULL OR actor_id = $3)
           AND ($4::text IS NULL OR action = $4)
           AND ($5::timestamptz IS NULL OR created_at >= $5)
           AND ($6::timestamptz IS NULL OR created_at <= $6)
           AND ($7::timestamptz IS NULL OR (created_at, id) < ($7, $8::uuid))
         ORDER BY created_at DESC, id DESC
         LIMIT $9 OFFSET $10",
    )
    .bind(org_id)
    .bind(filter.resource_id.as_deref())
    .bind(filter.actor_id)
    .bind(filter.action.as_deref())
    .bind(filter.from)
    .bind(filter.to)
    .bind(before_at)
    .bind(before_id)
    .bind(filter.limit)
    .bind(filter.offset)
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
