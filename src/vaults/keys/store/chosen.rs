//! Which key an agent's intent is signed with.

use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgConnection, Row as _};

use super::super::{ResolveError, SigningKey, Tier, choose, provision};
use super::Row;
use crate::access::store::{AgentLimits, RuleRow, rules};
use crate::access::{self, Lock, Permission, Principal, SecretPath};
use crate::db::DbError;
use crate::ids::KeyId;
use crate::vaults::store::{JoinedVault, joined_vault};
use crate::vaults::{self, AGENT_KEYS};

/// Most vaults of one agent that are looked at for one path.
const VAULTS_MAX: i64 = 200;

/// The key that an agent's intent on an EVM chain is signed with: the one at the path that it names, or else its own provisioned one, or
/// else the one at `keys/{chain}-signer`. Of the keys at a path that it may read, those of the nearest tier (bound human-owned vaults, other
/// human-owned vaults, agent-owned vaults), if they have one address.
///
/// # Errors
/// [`ResolveError`]. An agent without read access to the path anywhere is refused alike whether or not there is a key.
pub async fn for_intent(
    conn: &mut PgConnection,
    principal: &Principal,
    named: Option<SecretPath>,
    chain: &str,
) -> Result<SigningKey, ResolveError> {
    let Some(agent) = principal.agent_id() else { return Err(ResolveError::NotActive) };
    if let Some(path) = &named
        && path.is_anothers(agent)
    {
        return Err(ResolveError::Anothers(path.clone()));
    }
    let own = Some(provision::path_text(agent));
    let own = own.filter(|own| named.as_ref().is_none_or(|path| path.as_str() == own));
    let path = match named {
        Some(path) => Ok(path),
        None => SecretPath::parse(&format!("keys/{chain}-signer")).map_err(|_| ResolveError::NoPath(chain.to_owned())),
    };
    let mut candidates = candidates(conn, principal, path.as_ref().ok(), own.as_deref()).await?;
    // The agent's own key needs no policy.
    if let Some(own) = candidates.pop_if(|candidate| candidate.own) {
        return Ok(own.row.key()?);
    }
    let path = path?;
    let mut usable = Vec::new();
    for Candidate { tier, limits, row, vault, rules, .. } in candidates {
        let grants = access::store::grants_beside(principal, &vault.vault()?, &limits, rules);
        if grants.check(&path, Permission::Read).is_ok() {
            usable.push((tier, row.key()?));
        }
    }
    match choose(&path, usable)? {
        Some(key) => Ok(key),
        None => Err(why_none(conn, principal, &path).await?),
    }
}

/// A key that may be the one, with what decides whether the agent may read it.
struct Candidate {
    /// The agent's own provisioned one.
    own: bool,
    tier: Tier,
    vault: JoinedVault,
    row: Row,
    limits: AgentLimits,
    rules: Vec<RuleRow>,
}

impl Candidate {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let tier = match (row.try_get("human_owned")?, row.try_get("bound")?) {
            (true, true) => Tier::Bound,
            (true, false) => Tier::Readable,
            (false, _) => Tier::AgentOwned,
        };
        Ok(Self {
            own: row.try_get("own")?,
            tier,
            vault: JoinedVault::from_row(row)?,
            row: Row::from_row(row)?,
            limits: AgentLimits::from_row(row)?,
            rules: Vec::new(),
        })
    }
}

/// The secret at a path of a vault, unless it is deleted or has ended.
macro_rules! living {
    ($vault:literal, $path:literal) => {
        concat!(
            "SELECT id FROM secrets WHERE vault_id = ",
            $vault,
            " AND path = ",
            $path,
            " AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now()) OFFSET 0"
        )
    };
}

/// The active keys at a path in vaults that the agent has made or has a policy on, and its own provisioned one, which comes last.
async fn candidates(
    conn: &mut PgConnection,
    principal: &Principal,
    path: Option<&SecretPath>,
    own: Option<&str>,
) -> Result<Vec<Candidate>, DbError> {
    // From the agent to its vaults to the path: thousands of agents may each have a key at one path, in vaults of their own. `OFFSET 0` keeps
    // that order also where Postgres has not counted the rows yet; it would begin with all keys of the organisation.
    let rows = sqlx::query(concat!(
        "SELECT c.*, p.* FROM (",
        select!(
            ", k.created_at AS key_created_at, v.id AS in_vault, a.id AS for_agent, a.vault_ids, a.scopes,
             v.id = ANY(a.vault_ids) AS bound, v.created_by_type = 'user' AS human_owned, place.own, "
        ),
        joined_vault!(),
        " FROM agents a
         CROSS JOIN LATERAL (
             SELECT s.id, false AS own FROM (
                 SELECT vault_id FROM policies WHERE principal_type = 'agent' AND principal_id = a.id
                 UNION
                 SELECT id FROM vaults WHERE created_by = a.id AND created_by_type = 'agent' AND deleted_at IS NULL
             ) AS reach CROSS JOIN LATERAL (",
        living!("reach.vault_id", "$2"),
        ") AS s
             UNION ALL
             SELECT s.id, true FROM vaults v CROSS JOIN LATERAL (",
        living!("v.id", "$4"),
        ") AS s WHERE v.org_id = a.org_id AND v.name = $5 AND v.created_by_type = 'user' AND v.deleted_at IS NULL
             OFFSET 0
         ) AS place
         CROSS JOIN LATERAL (SELECT * FROM signing_keys WHERE secret_id = place.id AND state = 'active' OFFSET 0) AS k
         CROSS JOIN LATERAL (SELECT * FROM vaults WHERE id = k.vault_id AND deleted_at IS NULL OFFSET 0) AS v
         WHERE a.id = $3 AND a.org_id = $1 AND k.org_id = a.org_id
         ORDER BY own DESC, human_owned DESC, bound DESC, k.created_at DESC, k.id LIMIT $6) AS c LEFT JOIN LATERAL (",
        rules!("agent", "c.for_agent", "$1", "c.in_vault", ""),
        ") AS p ON true ORDER BY c.own, c.human_owned DESC, c.bound DESC, c.key_created_at DESC, c.id"
    ))
    .bind(principal.org_id)
    .bind(path.map(SecretPath::as_str))
    .bind(principal.agent_id())
    .bind(own)
    .bind(AGENT_KEYS)
    .bind(VAULTS_MAX)
    .fetch_all(conn)
    .await?;
    // A key has a row for each policy, and at least one; and again where it is the agent's own and has been asked for by its path.
    let mut found: Vec<Candidate> = Vec::new();
    for row in &rows {
        let (id, own): (KeyId, bool) = (row.try_get("id")?, row.try_get("own")?);
        if found.last().is_none_or(|last| (last.row.id, last.own) != (id, own)) {
            found.push(Candidate::of(row)?);
        }
        if let (Some(last), Some(rule)) = (found.last_mut(), RuleRow::beside(row)?) {
            last.rules.push(rule);
        }
    }
    Ok(found)
}

/// Why no key was found: not allowed anywhere, or nothing there that signs.
async fn why_none(conn: &mut PgConnection, principal: &Principal, path: &SecretPath) -> Result<ResolveError, DbError> {
    let mut allowed = Vec::new();
    for vault in vaults::store::list(conn, principal, None, VAULTS_MAX).await? {
        let grants = access::store::grants(conn, principal, &vault, Lock::None).await?;
        if grants.check(path, Permission::Read).is_ok() {
            allowed.push(vault.id);
        }
    }
    if allowed.is_empty() {
        return Ok(ResolveError::Forbidden(path.clone()));
    }
    // Of several, one that a client has encrypted says most.
    let something: Option<bool> = sqlx::query_scalar(
        "SELECT v.cmek_fingerprint IS NOT NULL FROM secrets s
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version
         WHERE s.vault_id = ANY($1) AND s.org_id = $2 AND s.path = $3 AND s.deleted_at IS NULL ORDER BY 1 DESC LIMIT 1",
    )
    .bind(&allowed)
    .bind(principal.org_id)
    .bind(path.as_str())
    .fetch_optional(conn)
    .await?;
    Ok(match something {
        None => ResolveError::NoKey(path.clone()),
        Some(true) => ResolveError::Cmek(path.clone()),
        Some(false) => ResolveError::NotASigningKey(path.clone()),
    })
}
