//! Failed authentications, and requests from addresses that an organisation does not let in, counted: one row per principal, peer and
//! minute, so that neither fills the audit trail.
//!
//! Counts are kept in memory until their minute is over; a crash loses at most that minute's. Nothing depends on them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::PgPool;

use super::{Actor, Event, Resource, store};
use crate::access;
use crate::app::App;
use crate::db::DbError;
use crate::ids::OrgId;
use crate::telemetry::record;

/// How often counts are written.
const MINUTE: Duration = Duration::from_secs(60);
/// Peers that are told apart within a minute; the rest share one row without an address.
const PEERS_MAX: usize = 4_096;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    /// The credential does not hold.
    Credential,
    /// The credential holds, but the organisation's IP rules do not let it in from there.
    Address,
}

/// What happened to whom: a known principal (its key is right, but it may not come in), or nobody in particular.
type Who = (What, Option<(OrgId, access::Actor)>, Option<IpAddr>);

/// The counts of the running minute.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Mutex<HashMap<Who, u64>>,
}

impl Failures {
    /// Counts one failure.
    pub fn count(&self, principal: Option<(OrgId, access::Actor)>, peer: Option<IpAddr>) {
        self.add((What::Credential, principal, peer));
    }

    /// Counts a request from an address that the organisation does not let in.
    pub fn count_refused_address(&self, org_id: OrgId, actor: access::Actor, peer: Option<IpAddr>) {
        self.add((What::Address, Some((org_id, actor)), peer));
    }

    fn add(&self, who: Who) {
        let mut counts = self.counts.lock();
        let who = if counts.len() < PEERS_MAX || counts.contains_key(&who) { who } else { (who.0, None, None) };
        *counts.entry(who).or_default() += 1;
    }

    /// Writes the counts once a minute until the daemon stops, which writes the last ones.
    pub async fn keep_flushing(app: Arc<App>) {
        while !app.stopping.is_cancelled() {
            tokio::select! {
                () = app.stopping.cancelled() => {}
                () = tokio::time::sleep(MINUTE) => {
                    if let Err(error) = app.auth_failures.flush(&app.db).await {
                        tracing::warn!(%error, "the count of failed authentications was not written; it is kept");
                    }
                }
            }
        }
    }

    /// Writes the counts and begins anew. Called once a minute, and at the end. What cannot be written is counted on.
    ///
    /// # Errors
    /// As any statement.
    pub async fn flush(&self, pool: &PgPool) -> Result<(), DbError> {
        let counts = std::mem::take(&mut *self.counts.lock());
        if counts.is_empty() {
            return Ok(());
        }
        let written = write(pool, &counts).await;
        if written.is_err() {
            let mut kept = self.counts.lock();
            for (who, count) in counts {
                *kept.entry(who).or_default() += count;
            }
        }
        written
    }
}

/// All of them in one transaction.
async fn write(pool: &PgPool, counts: &HashMap<Who, u64>) -> Result<(), DbError> {
    let mut tx = pool.begin().await?;
    for ((what, principal, peer), count) in counts {
        let actor = principal.map_or(Actor::Anonymous, |(_, actor)| Actor::Principal(actor));
        let event = match what {
            What::Credential => Event::new(actor, "auth.failure", Resource::kind("credential")),
            What::Address => Event::new(actor, "access.denied", Resource::kind("address"))
                .with("reason", "the organisation's IP rules do not let requests from this address in"),
        };
        let mut event = event.with("count", *count);
        event.org_id = principal.map(|(org_id, _)| org_id);
        event.ip = *peer;
        store::record(&mut tx, event).await?;
    }
    tx.commit().await?;
    for ((what, ..), count) in counts {
        let what = match what {
            What::Credential => "credential",
            What::Address => "address",
        };
        record::auth_failures(what, *count);
    }
    Ok(())
}
