//! Signing keys in the database.

use alloy::primitives::Address;
use sqlx::{FromRow, PgConnection};

use super::{KeyState, ResolveError, SigningKey, Tier, choose, provision};
use crate::access::{self, Actor, Lock, Permission, Principal, SecretPath};
use crate::db::DbError;
use crate::hsm::{KeyRef, PublicKey};
use crate::ids::{KekId, KeyId, OrgId, SecretId, VaultId};
use crate::vaults;
use crate::vaults::secrets::store::NewKey;
use crate::vaults::store::{JoinedVault, joined_vault};

/// Most vaults of one agent that are looked at for one path.
const VAULTS_MAX: i64 = 200;

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT k.id, k.org_id, k.vault_id, k.secret_id, k.path, k.version, k.address, k.public_key, k.custody, k.blob,
                    k.mechanism, k.kek_id, k.cka_id, k.mac_kek_id, k.mac, k.state ",
            $tail
        )
    };
}

mod provisioned;
mod upkeep;

pub use provisioned::{add_addresses, hold_provisioned, provisioned, versions};
pub use upkeep::{Found, Superseded, erase, held_by, hold_destroyable, replace_reference, sample, superseded};

#[derive(FromRow)]
struct Row {
    id: KeyId,
    org_id: OrgId,
    vault_id: VaultId,
    secret_id: SecretId,
    path: String,
    version: i32,
    address: Vec<u8>,
    public_key: Vec<u8>,
    custody: String,
    blob: Option<Vec<u8>>,
    mechanism: Option<i64>,
    kek_id: Option<KekId>,
    cka_id: Option<Vec<u8>>,
    mac_kek_id: Option<KekId>,
    mac: Option<Vec<u8>>,
    state: String,
}

impl Row {
    fn key(self) -> Result<SigningKey, DbError> {
        let id = self.id;
        self.read()
            .ok_or_else(|| DbError::Internal(sqlx::Error::Decode(format!("signing key {id} cannot be read").into())))
    }

    fn read(self) -> Option<SigningKey> {
        let mac = self.mac?.try_into().ok()?;
        let mac_kek_id = self.mac_kek_id?;
        let key_ref = match self.custody.as_str() {
            "wrapped" => KeyRef::Wrapped {
                blob: self.blob?,
                mechanism: u64::try_from(self.mechanism?).ok()?,
                kek_id: self.kek_id?,
                mac_kek_id,
                mac,
            },
            "token" => KeyRef::Token { cka_id: self.cka_id?.try_into().ok()?, mac_kek_id, mac },
            _ => return None,
        };
        let state = match self.state.as_str() {
            "active" => KeyState::Active,
            "superseded" => KeyState::Superseded,
            _ => return None,
        };
        let public_key = PublicKey::from_bytes(self.public_key.try_into().ok()?).ok()?;
        // The address is the public key's, never what a column says alone.
        let address = Some(public_key.address()).filter(|address| *address == Address::from_slice(&self.address))?;
        Some(SigningKey {
            id: self.id,
            org_id: self.org_id,
            vault_id: self.vault_id,
            secret_id: self.secret_id,
            path: self.path,
            version: self.version,
            address,
            public_key,
            key_ref,
            state,
        })
    }
}

/// A key, unless it is destroyed.
///
/// # Errors
/// As any statement.
pub async fn get(conn: &mut PgConnection, id: KeyId) -> Result<Option<SigningKey>, DbError> {
    let row: Option<Row> = sqlx::query_as(select!("FROM signing_keys k WHERE k.id = $1 AND k.state <> 'destroyed'"))
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.map(Row::key).transpose()
}

/// The key that an agent's intent on an EVM chain is signed with: the one at the path that it names, or else its own provisioned one, or
/// else the one at `keys/{chain}-signer`.
///
/// # Errors
/// [`ResolveError`].
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
    let own = named.as_ref().is_none_or(|path| path.as_str() == provision::path_text(agent));
    if own && let Some(key) = provisioned(conn, principal.org_id, agent).await? {
        return Ok(key);
    }
    let path = match named {
        Some(path) => path,
        None => {
            SecretPath::parse(&format!("keys/{chain}-signer")).map_err(|_| ResolveError::NoPath(chain.to_owned()))?
        }
    };
    resolve(conn, principal, &path).await
}

#[derive(FromRow)]
struct Candidate {
    bound: bool,
    #[sqlx(flatten)]
    vault: JoinedVault,
    #[sqlx(flatten)]
    row: Row,
}

/// The key that an agent's intent is signed with: of the keys at this path that it may read, those of the nearest tier (bound human-owned vaults,
/// other human-owned vaults, agent-owned vaults), if they have one address.
///
/// # Errors
/// [`ResolveError`]. An agent without read access to the path anywhere is refused alike whether or not there is a key.
pub async fn resolve(
    conn: &mut PgConnection,
    principal: &Principal,
    path: &SecretPath,
) -> Result<SigningKey, ResolveError> {
    let candidates: Vec<Candidate> = sqlx::query_as(concat!(
        select!(", v.id = ANY(a.vault_ids) AS bound, "),
        joined_vault!(),
        " FROM signing_keys k
         JOIN secrets s ON s.id = k.secret_id AND s.deleted_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > now())
         JOIN vaults v ON v.id = k.vault_id AND v.deleted_at IS NULL
         JOIN agents a ON a.id = $3 AND a.org_id = k.org_id
         WHERE k.org_id = $1 AND k.path = $2 AND k.state = 'active'
           AND ((v.created_by_type = 'agent' AND v.created_by = a.id)
                OR EXISTS (SELECT 1 FROM policies p WHERE p.vault_id = v.id AND p.principal_type = 'agent' AND p.principal_id = a.id))
         ORDER BY v.created_by_type = 'user' DESC, v.id = ANY(a.vault_ids) DESC, k.created_at DESC, k.id LIMIT $4"
    ))
    .bind(principal.org_id)
    .bind(path.as_str())
    .bind(principal.agent_id())
    .bind(VAULTS_MAX)
    .fetch_all(&mut *conn)
    .await
    .map_err(DbError::from)?;
    let mut usable = Vec::new();
    for candidate in candidates {
        let vault = candidate.vault.vault()?;
        let tier = match (vault.created_by, candidate.bound) {
            (Actor::User(_), true) => Tier::Bound,
            (Actor::User(_), false) => Tier::Readable,
            (Actor::Agent(_), _) => Tier::AgentOwned,
        };
        let grants = access::store::grants(conn, principal, &vault, Lock::None).await?;
        if grants.check(path, Permission::Read).is_ok() {
            usable.push((tier, candidate.row.key()?));
        }
    }
    match choose(path, usable)? {
        Some(key) => Ok(key),
        None => Err(why_none(conn, principal, path).await?),
    }
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

#[derive(FromRow)]
struct Held {
    path: String,
    #[sqlx(flatten)]
    vault: JoinedVault,
}

/// Whether a key still may sign for an agent: for the transaction that signs, on its own connection. Holds the rows of the vault, the secret and
/// the key, the agent's row and its policies `FOR SHARE`, in this order, so that a replacement, a deletion or a revocation that has been answered
/// holds, and one that comes now waits. The agent's own provisioned key needs no policy.
///
/// # Errors
/// [`ResolveError::NotActive`], [`ResolveError::Denied`], or could not be checked.
pub async fn recheck(conn: &mut PgConnection, principal: &Principal, id: KeyId) -> Result<(), ResolveError> {
    let held: Option<Held> = sqlx::query_as(concat!(
        "SELECT k.path, ",
        joined_vault!(),
        " FROM signing_keys k
         JOIN secrets s ON s.id = k.secret_id
         JOIN vaults v ON v.id = k.vault_id
         WHERE k.id = $1 AND k.org_id = $2 AND k.state = 'active' AND v.deleted_at IS NULL AND s.deleted_at IS NULL
           AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
         FOR SHARE OF v, s, k"
    ))
    .bind(id)
    .bind(principal.org_id)
    .fetch_optional(&mut *conn)
    .await
    .map_err(DbError::from)?;
    let Some(held) = held else { return Err(ResolveError::NotActive) };
    let path = SecretPath::parse(&held.path).map_err(|_| ResolveError::NotActive)?;
    let vault = held.vault.vault()?;
    let human_owned = matches!(vault.created_by, Actor::User(_));
    if provisioned::is_own(&vault.name, human_owned, &path, principal.agent_id()) {
        return Ok(());
    }
    let grants = access::store::grants(conn, principal, &vault, Lock::Share).await?;
    grants.check(&path, Permission::Read)?;
    Ok(())
}

/// That a key still signs, with its row held: for what a human wants of a transaction that it has signed.
///
/// # Errors
/// [`ResolveError::NotActive`], or could not be checked.
pub async fn hold_active(conn: &mut PgConnection, org_id: OrgId, id: KeyId) -> Result<(), ResolveError> {
    let held = sqlx::query("SELECT 1 FROM signing_keys WHERE id = $1 AND org_id = $2 AND state = 'active' FOR SHARE")
        .bind(id)
        .bind(org_id)
        .fetch_optional(conn)
        .await
        .map_err(DbError::from)?;
    held.map(drop).ok_or(ResolveError::NotActive)
}

/// A reference as the table keeps it.
struct Columns<'a> {
    custody: &'static str,
    blob: Option<&'a [u8]>,
    mechanism: Option<i64>,
    kek_id: Option<KekId>,
    cka_id: Option<&'a [u8]>,
    mac_kek_id: KekId,
    mac: &'a [u8],
}

impl<'a> Columns<'a> {
    fn of(key: &'a KeyRef) -> Result<Self, DbError> {
        Ok(match key {
            KeyRef::Wrapped { blob, mechanism, kek_id, mac_kek_id, mac } => {
                let mechanism = i64::try_from(*mechanism).map_err(|_| {
                    DbError::Internal(sqlx::Error::Encode("a wrapping mechanism beyond 63 bits".into()))
                })?;
                Self {
                    custody: "wrapped",
                    blob: Some(blob),
                    mechanism: Some(mechanism),
                    kek_id: Some(*kek_id),
                    cka_id: None,
                    mac_kek_id: *mac_kek_id,
                    mac,
                }
            }
            KeyRef::Token { cka_id, mac_kek_id, mac } => Self {
                custody: "token",
                blob: None,
                mechanism: None,
                kek_id: None,
                cka_id: Some(cka_id),
                mac_kek_id: *mac_kek_id,
                mac,
            },
        })
    }
}

/// A new key.
///
/// # Errors
/// As any statement.
pub async fn insert(
    conn: &mut PgConnection,
    vault_id: VaultId,
    secret_id: SecretId,
    key: &NewKey,
) -> Result<(), DbError> {
    let columns = Columns::of(&key.key_ref)?;
    sqlx::query(
        "INSERT INTO signing_keys (id, org_id, vault_id, secret_id, path, version, address, public_key, custody, blob, mechanism,
                                   kek_id, cka_id, mac_kek_id, mac, state)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'active')",
    )
    .bind(key.context.key_id)
    .bind(key.context.org_id)
    .bind(vault_id)
    .bind(secret_id)
    .bind(&key.context.path)
    .bind(key.context.version)
    .bind(key.public_key.address().as_slice())
    .bind(key.public_key.to_bytes().as_slice())
    .bind(columns.custody)
    .bind(columns.blob)
    .bind(columns.mechanism)
    .bind(columns.kek_id)
    .bind(columns.cka_id)
    .bind(columns.mac_kek_id)
    .bind(columns.mac)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends the signing of a secret's key, if it has an active one. It is kept until what it signed is settled.
///
/// # Errors
/// As any statement.
pub async fn supersede(conn: &mut PgConnection, secret_id: SecretId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE signing_keys SET state = 'superseded', superseded_at = now() WHERE secret_id = $1 AND state = 'active'",
    )
    .bind(secret_id)
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets a secret's superseded key sign again, unless the HSM has forgotten it or the secret has another one by now. `false`: it stays
/// as it is. The caller holds the secret's row.
///
/// # Errors
/// As any statement.
pub async fn reactivate(conn: &mut PgConnection, secret_id: SecretId, id: KeyId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE signing_keys k SET state = 'active', superseded_at = NULL
         WHERE k.id = $2 AND k.secret_id = $1 AND k.state = 'superseded'
           AND NOT EXISTS (SELECT 1 FROM signing_keys o WHERE o.secret_id = $1 AND o.state = 'active')",
    )
    .bind(secret_id)
    .bind(id)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
