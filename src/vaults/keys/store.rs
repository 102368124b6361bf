//! Signing keys in the database.

use alloy::primitives::Address;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};

use super::{KeyState, ResolveError, SigningKey};
use crate::access::store::{AgentLimits, RuleRow, grants_beside, limits_and_rules_of_agent};
use crate::access::{Actor, Lock, Permission, Principal, SecretPath};
use crate::db::DbError;
use crate::hsm::{KeyRef, PublicKey};
use crate::ids::{KekId, KeyId, OrgId, SecretId, VaultId};
use crate::vaults::secrets::store::NewKey;
use crate::vaults::store::JoinedVault;

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT k.id, k.org_id, k.vault_id, k.secret_id, k.path, k.version, k.address, k.public_key, k.custody, k.blob,
                    k.mechanism, k.kek_id, k.cka_id, k.mac_kek_id, k.mac, k.state ",
            $tail
        )
    };
}

mod chosen;
mod provisioned;
mod upkeep;

pub use chosen::for_intent;
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

/// A key that may be signed with, its row held with those of its vault and its secret; [`held_key`](macro@held_key) selects it.
pub(crate) struct HeldKey {
    path: String,
    vault: JoinedVault,
}

impl HeldKey {
    /// The one in a row, if there is one.
    ///
    /// # Errors
    /// For columns that are not there.
    pub(crate) fn of(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let path: Option<String> = row.try_get("key_path")?;
        path.map(|path| Ok(Self { path, vault: JoinedVault::from_row(row)? })).transpose()
    }
}

/// An active key of an organisation. Holds the rows of the vault, the secret and the key `FOR SHARE`, in this order.
macro_rules! held_key {
    ($id:literal, $org:literal) => {
        concat!(
            "SELECT k.path AS key_path, ",
            $crate::vaults::store::joined_vault!(),
            " FROM signing_keys k
             JOIN secrets s ON s.id = k.secret_id
             JOIN vaults v ON v.id = k.vault_id
             WHERE k.id = ",
            $id,
            " AND k.org_id = ",
            $org,
            " AND k.state = 'active' AND v.deleted_at IS NULL AND s.deleted_at IS NULL
               AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
             FOR SHARE OF v, s, k"
        )
    };
}
pub(crate) use held_key;

/// Whether a key still may sign for an agent: for the transaction that signs, on its own connection. Holds the rows of the vault, the secret and
/// the key, the agent's row and its policies `FOR SHARE`, in this order, so that a replacement, a deletion or a revocation that has been answered
/// holds, and one that comes now waits. The agent's own provisioned key needs no policy.
///
/// # Errors
/// [`ResolveError::NotActive`], [`ResolveError::Denied`], or could not be checked.
pub async fn recheck(conn: &mut PgConnection, principal: &Principal, id: KeyId) -> Result<(), ResolveError> {
    let Some(agent) = principal.agent_id() else { return Err(ResolveError::NotActive) };
    let org = principal.org_id;
    let row = sqlx::query(held_key!("$1", "$2")).bind(id).bind(org).fetch_optional(&mut *conn).await;
    let held = row.and_then(|row| row.map_or(Ok(None), |row| HeldKey::of(&row))).map_err(DbError::from)?;
    let Some(held) = held else { return Err(ResolveError::NotActive) };
    let granted = limits_and_rules_of_agent(conn, org, agent, held.vault.id(), Lock::Share).await?;
    let (limits, rules) = granted.ok_or(ResolveError::NotActive)?;
    may_sign(principal, Some(held), &limits, rules)
}

/// As [`recheck`], of rows that the transaction holds already.
///
/// # Errors
/// As [`recheck`].
pub(crate) fn may_sign(
    principal: &Principal,
    held: Option<HeldKey>,
    limits: &AgentLimits,
    rules: Vec<RuleRow>,
) -> Result<(), ResolveError> {
    let Some(held) = held else { return Err(ResolveError::NotActive) };
    let path = SecretPath::parse(&held.path).map_err(|_| ResolveError::NotActive)?;
    let vault = held.vault.vault()?;
    let human_owned = matches!(vault.created_by, Actor::User(_));
    if provisioned::is_own(&vault.name, human_owned, &path, principal.agent_id()) {
        return Ok(());
    }
    grants_beside(principal, &vault, limits, rules).check(&path, Permission::Read)?;
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
