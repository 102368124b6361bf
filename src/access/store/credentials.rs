//! Who a credential proves, and whether it still holds.

use std::sync::Arc;

use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::is_revoked;
use crate::access::glob::Glob;
use crate::access::grants;
use crate::access::jwt::{Claims, Root};
use crate::access::principal::Proof;
use crate::access::tokens::{KeyHash, PlainKey};
use crate::access::{Actor, Credential, KeyRoot, Principal, Role};
use crate::db::DbError;
use crate::ids::{AgentId, ApiKeyId, OrgId, UserId, VaultId};

/// What authentication needs to know of an agent.
#[derive(Clone, Debug, FromRow)]
pub struct AgentIdentity {
    /// Its id.
    pub id: AgentId,
    /// Its organisation.
    pub org_id: OrgId,
    #[sqlx(try_from = "Vec<u8>")]
    key_hash: StoredHash,
    /// Whether it may come in now: active, not deleted, not expired.
    pub admitted: bool,
    /// Its scopes, as given.
    pub scopes: Vec<String>,
    /// The vaults it is bound to.
    pub vault_ids: Vec<VaultId>,
    /// Whether it may send intents.
    pub intents_api_enabled: bool,
    /// Lifetime of its tokens.
    pub token_ttl_seconds: Option<i32>,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// It enrolled itself, and nobody has used its key yet.
    unclaimed: bool,
}

impl AgentIdentity {
    /// The hash of its key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash.0
    }
}

/// What authentication needs to know of a human's key.
#[derive(Clone, Debug, FromRow)]
pub struct UserKeyIdentity {
    /// The key.
    pub key_id: ApiKeyId,
    /// The human.
    pub user_id: UserId,
    /// The organisation.
    pub org_id: OrgId,
    /// The role.
    pub role: Role,
    /// Whether the human runs the installation.
    pub platform_admin: bool,
    #[sqlx(try_from = "Vec<u8>")]
    key_hash: StoredHash,
    /// The key's scopes, as given.
    pub scopes: Vec<String>,
    /// Whether it may come in now: key and human active, key not expired.
    pub admitted: bool,
}

impl UserKeyIdentity {
    /// The hash of the key.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash.0
    }

    /// What the human may be through this key.
    fn human(&self) -> Human {
        Some((self.role, self.platform_admin, grants::ceiling(&self.scopes).map(Into::into)))
    }
}

/// A hash column, whose length a CHECK keeps at 32.
#[derive(Clone, Copy, Debug)]
struct StoredHash(KeyHash);

impl TryFrom<Vec<u8>> for StoredHash {
    type Error = String;
    fn try_from(bytes: Vec<u8>) -> Result<Self, String> {
        bytes.try_into().map(|hash| Self(KeyHash(hash))).map_err(|_| "a stored hash has not 32 bytes".to_owned())
    }
}

/// A further condition: a token is not revoked. A statement without it is for keys: asked of both with NULL for a key, one plan does not suit
/// both, and Postgres plans it anew each time, which costs five times what it costs to run it.
macro_rules! not_revoked {
    ($jti:literal) => {
        concat!(" AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = ", $jti, ")")
    };
}

/// The agent whose key begins like this one. Unverified: compare the hash. With a token's id, a revoked one is not admitted.
///
/// # Errors
/// As any statement.
pub async fn agent_by_prefix(
    conn: &mut PgConnection,
    prefix: &str,
    jti: Option<Uuid>,
) -> Result<Option<AgentIdentity>, DbError> {
    macro_rules! identity {
        ($and:expr) => {
            concat!(
                "SELECT id, org_id, key_hash, scopes, vault_ids, intents_api_enabled, token_ttl_seconds, expires_at, unclaimed,
                        is_active AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
                $and,
                " AS admitted FROM agents WHERE key_prefix = $1 AND key_hash IS NOT NULL"
            )
        };
    }
    let query = match jti {
        None => sqlx::query_as(identity!("")).bind(prefix),
        Some(jti) => sqlx::query_as(identity!(not_revoked!("$2"))).bind(prefix).bind(jti),
    };
    Ok(query.fetch_optional(conn).await?)
}

/// The human's key that begins like this one. Unverified: compare the hash. With a token's id, a revoked one is not admitted.
///
/// # Errors
/// As any statement.
pub async fn user_key_by_prefix(
    conn: &mut PgConnection,
    prefix: &str,
    jti: Option<Uuid>,
) -> Result<Option<UserKeyIdentity>, DbError> {
    macro_rules! identity {
        ($and:expr) => {
            concat!(
                "SELECT k.id AS key_id, u.id AS user_id, u.org_id, u.role, u.platform_admin, k.key_hash, k.scopes,
                        k.is_active AND u.is_active AND (k.expires_at IS NULL OR k.expires_at > now())",
                $and,
                " AS admitted FROM user_api_keys k JOIN users u ON u.id = k.user_id AND u.org_id = k.org_id WHERE k.key_prefix = $1"
            )
        };
    }
    let query = match jti {
        None => sqlx::query_as(identity!("")).bind(prefix),
        Some(jti) => sqlx::query_as(identity!(not_revoked!("$2"))).bind(prefix).bind(jti),
    };
    Ok(query.fetch_optional(conn).await?)
}

/// Notes when humans' keys were last used. A time that is behind the stored one changes nothing.
///
/// # Errors
/// As any statement.
pub async fn stamp_user_keys(pool: &PgPool, ids: &[ApiKeyId], at: &[OffsetDateTime]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    // Rows are taken in one order, so that two daemons that write at once do not block each other.
    sqlx::query(
        "WITH used AS (SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at)),
              held AS MATERIALIZED (SELECT k.id FROM user_api_keys k WHERE k.id IN (SELECT id FROM used) ORDER BY k.id FOR NO KEY UPDATE)
         UPDATE user_api_keys k SET last_used_at = greatest(k.last_used_at, used.at) FROM held JOIN used USING (id) WHERE k.id = held.id",
    )
    .bind(ids)
    .bind(at)
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether what a principal proved itself with still holds. Holds the row of the agent (or the human and the key) `FOR SHARE`: for a
/// transaction whose effect must not outlast a revocation, such as a signature or a new key. A revocation of the token holds once its row
/// is committed.
///
/// # Errors
/// As any statement. `Ok(false)`: rotated, revoked, deactivated, deleted or expired.
pub async fn still_proven(conn: &mut PgConnection, principal: &Principal) -> Result<bool, DbError> {
    if !root_still_valid(conn, principal).await? {
        return Ok(false);
    }
    Ok(!is_token_revoked(conn, principal).await?)
}

/// Whether the token that a principal came with, if it came with one, is revoked. With the row held of whom it rests on, in a statement of its
/// own: a revocation holds the same row while it is written.
///
/// # Errors
/// As any statement.
pub async fn is_token_revoked(conn: &mut PgConnection, principal: &Principal) -> Result<bool, DbError> {
    match principal.credential {
        Credential::Token { jti, .. } => is_revoked(conn, jti).await,
        Credential::Key(_) => Ok(false),
    }
}

/// The key behind the credential, with its row held.
async fn root_still_valid(conn: &mut PgConnection, principal: &Principal) -> Result<bool, DbError> {
    let row = match principal.credential.root() {
        KeyRoot::Agent(hash) => sqlx::query(
            "SELECT 1 FROM agents WHERE id = $1 AND org_id = $2 AND key_hash = $3 AND is_active AND deleted_at IS NULL
                   AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE",
        )
        .bind(principal.actor.uuid())
        .bind(principal.org_id)
        .bind(hash.0.as_slice())
        .fetch_optional(conn)
        .await?,
        KeyRoot::User(key_id) => {
            sqlx::query(
                "SELECT 1 FROM user_api_keys k JOIN users u ON u.id = k.user_id
                 WHERE k.id = $1 AND u.id = $2 AND u.org_id = $3 AND k.is_active AND u.is_active
                   AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) FOR SHARE OF k, u",
            )
            .bind(key_id)
            .bind(principal.actor.uuid())
            .bind(principal.org_id)
            .fetch_optional(conn)
            .await?
        }
        KeyRoot::Epoch(epoch) => {
            let sql = match principal.actor {
                Actor::Agent(_) => {
                    "SELECT 1 FROM agents WHERE id = $1 AND org_id = $2 AND auth_epoch = $3 AND key_hash IS NULL AND is_active
                       AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE"
                }
                Actor::User(_) => {
                    "SELECT 1 FROM users WHERE id = $1 AND org_id = $2 AND auth_epoch = $3 AND is_active FOR SHARE"
                }
            };
            sqlx::query(sql)
                .bind(principal.actor.uuid())
                .bind(principal.org_id)
                .bind(epoch)
                .fetch_optional(conn)
                .await?
        }
    };
    Ok(row.is_some())
}

/// The principal that a key proves, if it does: the hash is compared in constant time, with a dummy when the prefix is unknown.
///
/// # Errors
/// As any statement. `Ok(Err(who))`: not proven, or proven and not admitted (then with who it is).
pub async fn principal_by_agent_key(
    conn: &mut PgConnection,
    key: &PlainKey,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<(Principal, AgentIdentity), Option<(OrgId, Actor)>>, DbError> {
    let agent = agent_by_prefix(conn, key.prefix(), None).await?;
    let proven = agent.as_ref().map_or(KeyHash::DUMMY, AgentIdentity::key_hash).matches(key);
    Ok(match agent {
        Some(agent) if proven && agent.admitted => {
            if agent.unclaimed {
                sqlx::query("UPDATE agents SET unclaimed = false WHERE id = $1").bind(agent.id).execute(conn).await?;
            }
            let credential = Credential::Key(KeyRoot::Agent(agent.key_hash()));
            Ok((principal(agent.org_id, Actor::Agent(agent.id), None, credential, ip), agent))
        }
        Some(agent) if proven => Err(Some((agent.org_id, Actor::Agent(agent.id)))),
        _ => Err(None),
    })
}

/// As [`principal_by_agent_key`], for a human's key.
///
/// # Errors
/// As any statement.
pub async fn principal_by_user_key(
    conn: &mut PgConnection,
    key: &PlainKey,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<Principal, Option<(OrgId, Actor)>>, DbError> {
    let user = user_key_by_prefix(conn, key.prefix(), None).await?;
    let proven = user.as_ref().map_or(KeyHash::DUMMY, UserKeyIdentity::key_hash).matches(key);
    Ok(match user {
        Some(user) if proven && user.admitted => {
            let credential = Credential::Key(KeyRoot::User(user.key_id));
            Ok(principal(user.org_id, Actor::User(user.user_id), user.human(), credential, ip))
        }
        Some(user) if proven => Err(Some((user.org_id, Actor::User(user.user_id)))),
        _ => Err(None),
    })
}

/// The principal that a verified token names, if it may still come in.
///
/// # Errors
/// As any statement.
pub async fn principal_by_token(
    conn: &mut PgConnection,
    claims: &Claims,
    ip: Option<std::net::IpAddr>,
) -> Result<Result<Principal, Option<(OrgId, Actor)>>, DbError> {
    let Some(actor) = claims.actor() else { return Ok(Err(None)) };
    let found = match (actor, &claims.root) {
        (Actor::Agent(id), Root::KeyPrefix(prefix)) => agent_by_prefix(conn, prefix, Some(claims.jti))
            .await?
            .filter(|agent| agent.admitted && agent.id == id)
            .map(|agent| (agent.org_id, None, KeyRoot::Agent(agent.key_hash()))),
        (Actor::User(id), Root::KeyPrefix(prefix)) => user_key_by_prefix(conn, prefix, Some(claims.jti))
            .await?
            .filter(|key| key.admitted && key.user_id == id)
            .map(|key| (key.org_id, key.human(), KeyRoot::User(key.key_id))),
        (_, Root::Epoch(epoch)) => by_epoch(conn, actor, *epoch, claims.jti)
            .await?
            .map(|(org_id, human)| (org_id, human, KeyRoot::Epoch(*epoch))),
    };
    Ok(match found {
        Some((org_id, human, root)) if org_id == claims.org => {
            let credential = Credential::Token { jti: claims.jti, root };
            Ok(principal(org_id, actor, human, credential, ip))
        }
        _ => Err(Some((claims.org, actor))),
    })
}

/// A human's role, whether they run the installation, and the paths that the key is limited to; `None` for an agent.
type Human = Option<(Role, bool, Option<Arc<[Glob]>>)>;

/// A human, or an agent without a key, whose epoch is still this one and who may come in now.
async fn by_epoch(
    conn: &mut PgConnection,
    actor: Actor,
    epoch: i32,
    jti: Uuid,
) -> Result<Option<(OrgId, Human)>, DbError> {
    match actor {
        Actor::Agent(id) => {
            let org_id: Option<OrgId> = sqlx::query_scalar(
                "SELECT org_id FROM agents WHERE id = $1 AND auth_epoch = $2 AND key_hash IS NULL AND is_active AND deleted_at IS NULL
                   AND (expires_at IS NULL OR expires_at > now()) AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = $3)",
            )
            .bind(id)
            .bind(epoch)
            .bind(jti)
            .fetch_optional(conn)
            .await?;
            Ok(org_id.map(|org_id| (org_id, None)))
        }
        Actor::User(id) => {
            let human: Option<(OrgId, Role, bool)> = sqlx::query_as(
                "SELECT org_id, role, platform_admin FROM users WHERE id = $1 AND auth_epoch = $2 AND is_active
                   AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE jti = $3)",
            )
            .bind(id)
            .bind(epoch)
            .bind(jti)
            .fetch_optional(conn)
            .await?;
            Ok(human.map(|(org_id, role, platform_admin)| (org_id, Some((role, platform_admin, None)))))
        }
    }
}

fn principal(
    org_id: OrgId,
    actor: Actor,
    human: Human,
    credential: Credential,
    ip: Option<std::net::IpAddr>,
) -> Principal {
    let (role, platform_admin, ceiling) = match human {
        None => (None, false, None),
        // Whoever looks at the role alone, and forgets the ceiling, sees a member.
        Some((_, _, Some(ceiling))) => (Some(Role::Member), false, Some(ceiling)),
        Some((role, platform_admin, None)) => (Some(role), platform_admin, None),
    };
    Principal { org_id, actor, role, platform_admin, credential, ip, ceiling, _proof: Proof, _place: None }
}
