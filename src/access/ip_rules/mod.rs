//! From which addresses an organisation's humans and agents may come: asked right after authentication, at every request.
//!
//! A daemon keeps an organisation's rules for less than [`FRESH_FOR`], counted from before they were read: a change holds everywhere
//! within a second, and costs requests nothing but one look-up a second for each organisation. A change made at a daemon holds there
//! at once.

pub mod api;
pub mod http;
pub mod rules;
pub mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::Principal;
use crate::audit::{self, Event, Resource};
use crate::db::DbError;
use crate::ids::OrgId;

pub use rules::{AppliesTo, Refused, RuleSet};

/// How old rules may be when they are used.
const FRESH_FOR: Duration = Duration::from_millis(800);
/// Organisations whose rules are kept.
const ORGANISATIONS_MAX: u64 = 10_000;

/// The rules that were read lately.
pub struct IpRules {
    cache: moka::future::Cache<OrgId, Read>,
}

#[derive(Clone)]
struct Read {
    /// Before the statement was sent: the rules are no older.
    at: Instant,
    rules: Arc<RuleSet>,
}

impl Default for IpRules {
    fn default() -> Self {
        let cache = moka::future::Cache::builder().max_capacity(ORGANISATIONS_MAX).time_to_live(FRESH_FOR).build();
        Self { cache }
    }
}

/// Why a request does not go on.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    /// Refused by a rule (403).
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Could not be checked.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl IpRules {
    /// Lets through who may come from where it comes.
    ///
    /// # Errors
    /// [`IpError`].
    pub async fn check(&self, pool: &PgPool, principal: &Principal) -> Result<(), IpError> {
        let rules = self.of(pool, principal.org_id).await?;
        Ok(rules.check(principal.ip, AppliesTo::of(principal.actor))?)
    }

    async fn of(&self, pool: &PgPool, org_id: OrgId) -> Result<Arc<RuleSet>, DbError> {
        if let Some(read) = self.cache.get(&org_id).await.filter(|read| read.at.elapsed() < FRESH_FOR) {
            return Ok(read.rules);
        }
        let at = Instant::now();
        let rules = Arc::new(store::rule_set(&mut *pool.acquire().await?, org_id).await?);
        self.cache.insert(org_id, Read { at, rules: Arc::clone(&rules) }).await;
        Ok(rules)
    }

    /// The organisation's rules are read anew at its next request. For the daemon that has changed them.
    pub async fn forget(&self, org_id: OrgId) {
        self.cache.invalidate(&org_id).await;
    }
}

/// Ends all rules of an organisation: for the operator's own command line, when nobody gets in any more.
///
/// # Errors
/// As any statement.
pub async fn clear(pool: &PgPool, org_id: OrgId) -> Result<u64, DbError> {
    let mut tx = pool.begin().await?;
    let count = store::delete_all(&mut tx, org_id).await?;
    if count > 0 {
        let event = Event::by_system(org_id, "ip_rule.clear", Resource::kind("ip_rule")).with("count", count);
        audit::record(&mut tx, event).await?;
    }
    tx.commit().await?;
    Ok(count)
}
